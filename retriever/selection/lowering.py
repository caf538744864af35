"""A filter -> conditions on columns, all of which must hold, and what is left for SQL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf, nextafter
from typing import Final

import shapely

from indexer.columns import Columns
from indexer.columns.boxes import Limits, limits_of
from indexer.columns.codes import MISSING, CodedColumn
from indexer.columns.numbers import NumberColumn
from indexer.parcels.parcel import JsonScalar
from retriever.cql2.expression import Expression
from retriever.cql2.nodes import (
    AllOf,
    AnyOf,
    Comparison,
    Intersects,
    Like,
    Missing,
    Node,
    Not,
    OneOf,
    Shape,
    Temporal,
    Truth,
)
from retriever.cql2.properties import PROPERTIES
from retriever.queries import Bbox, ParcelFilter
from retriever.selection.values import (
    codes_where,
    crop_codes,
    exact,
    first_of_pair,
    has_value,
    judge_of,
    second_of_pair,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

# Parts of a shape whose rectangles are looked at one by one.
_FEW_PARTS: Final = 20

_CODED: Final = {
    "collection": ("collection", exact),
    "reliable": ("reliable", exact),
    "crop:code": ("crop", first_of_pair),
    "crop:name": ("crop", second_of_pair),
}
"""Fixed properties of few values: their column, and how their part of its values is told."""

Span = tuple[float | None, float | None]
"""First value, and the one after the last; None is open."""

NOTHING: Final[Span] = (0, 0)


class Conjuncts:
    """Conditions, all of which must hold."""

    __slots__ = ("boxes", "coded", "is_impossible", "nodes", "numbers", "sql", "times")

    def __init__(self) -> None:
        self.is_impossible = False
        """No row fulfills them."""
        self.times: Span | None = None
        self.coded: list[tuple[CodedColumn, tuple[int, ...]]] = []
        """Columns, and the codes that rows may have."""
        self.numbers: list[tuple[NumberColumn, float | None, float | None]] = []
        self.boxes: list[tuple[Limits, ...]] = []
        """Rectangles, one of which is touched."""
        self.nodes: list[Node] = []
        """Whatever else the columns can decide."""
        self.sql: ParcelFilter | None = None
        """What they cannot."""


def lower(columns: Columns, chosen: ParcelFilter, *, outlines: bool) -> Conjuncts:
    """A filter's conditions.

    Args:
        columns: The columns that are to answer.
        chosen: The filter.
        outlines: Whether the parcels' outlines can be had without SQL.
    """
    found = Conjuncts()
    if chosen.collections:
        coded = columns.coded["collection"]
        groups = coded.groups(exact)
        names = dict.fromkeys(chosen.collections)
        _add_codes(found, coded, tuple(c for name in names for c in groups.get(("text", name), ())))
    if chosen.crops:
        coded = columns.coded["crop"]
        _add_codes(found, coded, crop_codes(coded, chosen.crops))
    if chosen.bbox is not None:
        found.boxes.append(limits_of_bbox(chosen.bbox))
    if chosen.interval is not None:
        _add_times(found, (_moment(chosen.interval.start), _moment(chosen.interval.end)))
    unheld = tuple(one for one in chosen.attributes if one[0] in columns.left_out)
    for name, value in chosen.attributes:
        if name in columns.attributes:
            coded = columns.attributes[name]
            _add_codes(found, coded, codes_where(coded, has_value(value), True))
        elif name not in columns.left_out:
            found.is_impossible = True
    asked = []
    if chosen.expression is not None:
        root = chosen.expression.root
        for node in root.parts if isinstance(root, AllOf) else (root,):
            if needs_sql(columns, node, outlines=outlines):
                asked.append(node)
            else:
                _add(found, columns, node)
    if asked or unheld or chosen.text:
        found.sql = _for_sql(chosen, unheld, asked)
    return found


def _for_sql(
    chosen: ParcelFilter, unheld: tuple[tuple[str, JsonScalar], ...], nodes: list[Node]
) -> ParcelFilter | None:
    """What only SQL knows, with the conditions that its own indexes narrow down."""
    expression = None
    if nodes:
        expression = Expression(nodes[0] if len(nodes) == 1 else AllOf(tuple(nodes)))
    elif not (unheld or chosen.words):
        return None
    return replace(chosen, crops=(), attributes=unheld, expression=expression)


def _add_codes(found: Conjuncts, column: CodedColumn, codes: tuple[int, ...]) -> None:
    if not codes:
        found.is_impossible = True
    elif column.count(codes) < len(column.codes):
        found.coded.append((column, codes))


def _add_times(found: Conjuncts, span: Span) -> None:
    if found.times is None:
        found.times = span
        return
    first, end = found.times
    if first is None or (span[0] is not None and span[0] > first):
        first = span[0]
    if end is None or (span[1] is not None and span[1] < end):
        end = span[1]
    found.times = first, end


def _moment(time: datetime | None) -> int | None:
    return None if time is None else (time - _EPOCH) // _MICROSECOND


def limits_of_bbox(bbox: Bbox) -> tuple[Limits, ...]:
    """What rectangles fulfill that touch a bbox, in one of these ways."""
    west, south, east, north = bbox.west, bbox.south, bbox.east, bbox.north
    if west <= east:
        return (limits_of(west, south, east, north),)
    return limits_of(west, south, inf, north), limits_of(-inf, south, east, north)


def limits_of_shape(shape: Shape) -> tuple[Limits, ...]:
    """What the rectangles of parcels fulfill that meet a shape, in one of these ways."""
    parts = shapely.get_parts(shape.geometry)
    if len(parts) > _FEW_PARTS:
        parts = [shape.geometry]
    return tuple(limits_of(*sides) for sides in shapely.bounds(parts).tolist())


# Expressions ---------------------------------------------------------------------------------


def needs_sql(columns: Columns, node: Node, *, outlines: bool) -> bool:
    """Whether some part of an expression is not in the columns."""
    match node:
        case AllOf() | AnyOf():
            return any(needs_sql(columns, part, outlines=outlines) for part in node.parts)
        case Not():
            return needs_sql(columns, node.part, outlines=outlines)
        case Truth() | Temporal():
            return False
        case Intersects():
            return not outlines
    if node.name in PROPERTIES:
        return not (
            node.name in _CODED
            or node.name in columns.numbers
            or (isinstance(node, Missing) and node.name in ("datetime", "geometry"))
        )
    return node.name in columns.left_out


def _add(found: Conjuncts, columns: Columns, node: Node) -> None:
    """Add one condition of an expression, the simplest way in which it can be said."""
    match node:
        case Truth(value):
            found.is_impossible |= not value
            return
        case Temporal() if node.op not in ("<>", "t_disjoint"):
            _add_times(found, span_of(node))
            return
        case Comparison() if node.name in columns.numbers and node.op != "<>":
            found.numbers.append((columns.numbers[node.name], *range_of(node)))
            return
        case Intersects():
            # The outline is looked at as well.
            found.boxes.append(limits_of_shape(node.shape))
        case Comparison() | OneOf() | Like() | Missing():
            coded = coded_of(columns, node.name)
            if coded is not None:
                _add_codes(found, coded, codes_of(columns, node, True))
                return
        case Not(part=Comparison() | OneOf() | Like() | Missing() as part):
            coded = coded_of(columns, part.name)
            if coded is not None:
                _add_codes(found, coded, codes_of(columns, part, False))
                return
    found.nodes.append(node)


def coded_of(columns: Columns, name: str) -> CodedColumn | None:
    """The column of few values that a property is in, if any."""
    known = _CODED.get(name)
    if known is not None:
        return columns.coded[known[0]]
    return None if name in PROPERTIES else columns.attributes.get(name)


def codes_of(
    columns: Columns, node: Comparison | OneOf | Like | Missing, truth: bool
) -> tuple[int, ...]:
    """The codes for which a condition on a column of few values is true, or false."""
    column = coded_of(columns, node.name)
    if column is None:
        return ()
    part = _PARTS.get(node.name)
    if isinstance(node, Missing):
        return _missing(column, part, truth)
    if truth and isinstance(node, Comparison) and node.op == "=" and not node.caseless:
        ((value, *_),) = (exact(node.value),)
        _, by = _CODED.get(node.name, (None, exact))
        return column.groups(by).get(value, ())
    judge = judge_of(node)
    if part is None:
        return codes_where(column, judge, truth)
    return codes_where(column, lambda crop: judge(crop[part]), truth)


_PARTS: Final = {"crop:code": 0, "crop:name": 1}


def _missing(column: CodedColumn, part: int | None, truth: bool) -> tuple[int, ...]:
    if part is None:
        return (MISSING,) if truth else tuple(range(1, len(column.values)))
    found = codes_where(column, lambda crop: crop[part] is None, truth)
    return (MISSING, *found) if truth else found


def range_of(node: Comparison) -> Span:
    """The numbers for which a comparison other than ``<>`` is true."""
    value = float(node.value)
    match node.op:
        case "=":
            return value, nextafter(value, inf)
        case "<":
            return None, value
        case "<=":
            return None, nextafter(value, inf)
        case ">":
            return nextafter(value, inf), None
    return value, None


def span_of(node: Temporal) -> Span:
    """The microseconds within a span, or at its side, as the operator says.

    For ``<>`` and ``t_disjoint``, those that are not meant.
    """
    start, until, end = map(_moment, (node.span.start, node.span.until, node.span.end))
    match node.op:
        case "t_before" | "<":
            return NOTHING if start is None else (None, start)
        case "t_after" | ">":
            return NOTHING if end is None else (end, None)
        case "<=":
            return None, end
        case ">=":
            return start, None
        case "t_during":
            return None if start is None else start + 1, until
    return start, end
