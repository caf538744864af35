"""A checked filter in SQL, on SQLite and PostgreSQL, in SQL's own three-valued logic.

What a parcel lacks, or has of another type, is NULL, and so a comparison with it is unknown:
neither it nor its negation holds. No value of the caller's is part of a statement's text.
"""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import shapely
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    String,
    and_,
    case,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY

from indexer.catalog.tables import Collection, Observation, Parcel
from retriever.attributes import lacks, number_of, text_of, truth_of
from retriever.cql2.expression import Expression
from retriever.cql2.nodes import (
    AllOf,
    AnyOf,
    Comparison,
    ComparisonOperator,
    Intersects,
    Like,
    Missing,
    Node,
    Not,
    OneOf,
    Scalar,
    Shape,
    Temporal,
    Truth,
)
from retriever.cql2.patterns import fits, parts_of
from retriever.cql2.properties import PROPERTIES, Column, Kind
from retriever.memberships import observations_where

Condition = ColumnElement[bool]

_Values = Callable[[Kind], ColumnElement[Any]]
"""The values of a kind that a property has; NULL where it has none."""

_MANY = 10_000
"""Geometries that are looked at together."""

_FEW_PARTS = 20
"""Parts of a shape whose rectangles are asked for one by one."""


def condition_of(
    expression: Expression, connection: Connection, collections: Sequence[str] = ()
) -> Condition:
    """A filter as a condition of a statement.

    Reads the geometries of the parcels around a shape at once, about two seconds for 200,000 of
    them; the rest is for the statement. A ``BBOX`` reads only those that its edges may cross.

    Args:
        expression: The filter.
        connection: Open connection, which sees what the statement will see.
        collections: The collections that the statement is about anyway; empty means all.

    Returns:
        A condition over collections, parcels and one observation for each, or none.
    """
    return _Translation(connection, collections).of(expression.root, negated=False)


class _Translation:
    def __init__(self, connection: Connection, collections: Sequence[str]) -> None:
        self._connection = connection
        self._collections = collections
        self._dialect = connection.dialect.name
        self._exact = self._dialect == "postgresql"

    def of(self, node: Node, *, negated: bool) -> Condition:
        """A node's condition.

        Args:
            node: The node.
            negated: Whether an odd number of negations stands around it. Where none does, what is
                unknown may be false, which leaves the database its indexes.
        """
        match node:
            case Truth():
                return true() if node.value else false()
            case AllOf():
                return and_(*(self.of(part, negated=negated) for part in node.parts))
            case AnyOf():
                return or_(*(self.of(part, negated=negated) for part in node.parts))
            case Not():
                return not_(self.of(node.part, negated=not negated))
            case Intersects():
                return self._intersects(node.shape, negated=negated)
            case Missing():
                known = PROPERTIES.get(node.name)
                return lacks(node.name, self._dialect) if known is None else known.column.is_(None)
            case Temporal():
                return _temporal(node)
        return self._held(node, negated=negated)

    def _held(self, node: Comparison | OneOf | Like, *, negated: bool) -> Condition:
        """Whether a property fits, by way of the clusters where it is theirs."""
        known = PROPERTIES.get(node.name)
        if known is None or known.of_cluster is None or negated:
            return self._fits(node, self._values_of(node.name))
        # What is in no cluster is left out, which where nothing negates is as good as unknown.
        column = type_coerce(known.of_cluster, known.of_cluster.type)
        return Observation.id.in_(observations_where(self._fits(node, lambda _: column)))

    def _fits(self, node: Comparison | OneOf | Like, values: _Values) -> Condition:
        match node:
            case Comparison():
                return self._comparison(node, values)
            case OneOf():
                return self._one_of(node, values)
        return fits(values("text"), parts_of(node.pattern), self._dialect, caseless=node.caseless)

    # Values ----------------------------------------------------------------------------------

    def _values_of(self, name: str) -> _Values:
        known = PROPERTIES.get(name)
        if known is not None:
            column = type_coerce(known.column, known.column.type)
            return lambda _: column
        read = {"text": text_of, "number": number_of, "boolean": truth_of}
        return lambda kind: read[kind](name, self._dialect)

    def _bound(self, name: str, value: Scalar) -> Any:  # noqa: ANN401 - whatever SQL compares
        """A value as the column of its kind compares it without loss."""
        if isinstance(value, bool):
            # As it is, it would have no order: FALSE comes before TRUE.
            return literal(value)
        if isinstance(value, str):
            return value
        if name in PROPERTIES:
            return float(value)
        # Attributes are decimal numbers on PostgreSQL; a float would turn them into floats. On
        # SQLite a list would have the type of its first value, and 0.5 would round what follows.
        return Decimal(repr(value)) if self._exact else literal(value)

    def _comparison(self, node: Comparison, values: _Values) -> Condition:
        kind = _kind(node.value)
        column = values(kind)
        if node.caseless:
            same = self._same_text(column, str(node.value))
            return same if node.op == "=" else not_(same)
        if kind == "text" and self._exact and node.op not in ("=", "<>"):
            # Characters in the order of Unicode, as on SQLite, not in that of a language.
            column = type_coerce(column, String).collate("C")
        return _compared(node.op, column, self._bound(node.name, node.value))

    def _one_of(self, node: OneOf, values: _Values) -> Condition:
        if node.caseless:
            column = values("text")
            return or_(*(self._same_text(column, str(value)) for value in node.values))
        kinds = dict.fromkeys(map(_kind, node.values))
        return or_(
            *(
                values(kind).in_(
                    [self._bound(node.name, value) for value in node.values if _kind(value) == kind]
                )
                for kind in kinds
            )
        )

    def _same_text(self, column: ColumnElement[Any], value: str) -> Condition:
        literally = tuple(("", character) for character in value)
        return fits(column, literally, self._dialect, caseless=True)

    # Places ----------------------------------------------------------------------------------

    def _intersects(self, shape: Shape, *, negated: bool) -> Condition:
        inside = _inside(shape)
        ids = self._meeting(shape, inside)
        found = self._is_one_of(ids)
        if inside is not None:
            found = or_(inside, found)
        return case((Parcel.geometry.is_not(None), found)) if negated else found

    def _meeting(self, shape: Shape, inside: Condition | None) -> list[int]:
        """Rows of the parcels that meet a shape and are not known to by their rectangles."""
        statement = select(Parcel.id, Parcel.geometry).where(
            Parcel.geometry.is_not(None), _around(shape)
        )
        if inside is not None:
            statement = statement.where(not_(inside))
        if self._collections:
            statement = statement.join(Collection).where(Collection.name.in_(self._collections))
        geometry = shape.geometry
        shapely.prepare(geometry)
        found: list[int] = []
        with self._connection.execute(statement.execution_options(yield_per=_MANY)) as rows:
            for some in rows.partitions():
                outlines = shapely.from_wkb(np.array([row.geometry for row in some], dtype=object))
                meets = shapely.intersects(geometry, outlines)
                found += [row.id for row, hit in zip(some, meets, strict=True) if hit]
        return found

    def _is_one_of(self, ids: list[int]) -> Condition:
        """Whether a parcel is one of any number; a list would exceed what a statement may bind."""
        if self._exact:
            return Parcel.id == func.any(literal(ids, ARRAY(BigInteger)))
        rows = func.json_each(json.dumps(ids)).table_valued("value")
        return Parcel.id.in_(select(rows.c.value))


def _around(shape: Shape) -> Condition:
    """Whether a parcel's rectangle touches that of a shape, or one of a part of it."""
    parts = shapely.get_parts(shape.geometry)
    if len(parts) > _FEW_PARTS:
        parts = [shape.geometry]
    return or_(
        *(
            and_(
                Parcel.west <= east,
                Parcel.east >= west,
                Parcel.south <= north,
                Parcel.north >= south,
            )
            for west, south, east, north in shapely.bounds(parts).tolist()
        )
    )


def _inside(shape: Shape) -> Condition | None:
    """Whether a parcel's rectangle lies within that of a shape, where the shape is one."""
    if shape.bbox is None or shape.bbox[0] > shape.bbox[2]:
        return None
    west, south, east, north = shape.bbox
    return and_(
        Parcel.west >= west, Parcel.east <= east, Parcel.south >= south, Parcel.north <= north
    )


def _temporal(node: Temporal) -> Condition:
    """When an observation was acquired; unknown where it has no time, or there is none."""
    time, span = Observation.acquired_at, node.span
    match node.op:
        case "t_before" | "<":
            return _never(time) if span.start is None else time < span.start
        case "t_after" | ">":
            return _never(time) if span.end is None else time >= span.end
        case "<=":
            return time < span.end
        case ">=":
            return time >= span.start
        case "t_during":
            return _both(
                None if span.start is None else time > span.start,
                None if span.until is None else time < span.until,
            )
        case "<>" | "t_disjoint":
            return not_(_within(node))
    return _within(node)


def _within(node: Temporal) -> Condition:
    time, span = Observation.acquired_at, node.span
    return _both(
        None if span.start is None else time >= span.start,
        None if span.end is None else time < span.end,
    )


def _both(lower: Condition | None, upper: Condition | None) -> Condition:
    bounds = [bound for bound in (lower, upper) if bound is not None]
    return and_(*bounds) if bounds else Observation.acquired_at == Observation.acquired_at


def _never(column: Column) -> Condition:
    """False, and unknown where there is no value."""
    return column != column


def _compared(op: ComparisonOperator, column: ColumnElement[Any], value: object) -> Condition:
    match op:
        case "=":
            return column == value
        case "<>":
            return column != value
        case "<":
            return column < value
        case "<=":
            return column <= value
        case ">":
            return column > value
    return column >= value


def _kind(value: Scalar) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"
