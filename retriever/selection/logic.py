"""Expressions over rows, in SQL's three-valued logic: where one is true, and where it is false.

What is neither is unknown; nothing asks for that. The negation of a part is true where the part
is false, so each condition is asked for one of the two only.
"""

import numpy as np
import numpy.typing as npt

from indexer.columns import Columns
from indexer.columns.numbers import AnyArray, BoolArray, NumberColumn
from retriever.cql2.nodes import (
    AllOf,
    AnyOf,
    Comparison,
    Intersects,
    Missing,
    Node,
    Not,
    OneOf,
    Temporal,
    Truth,
)
from retriever.selection.lowering import coded_of, codes_of, range_of, span_of
from retriever.selection.places import Outlines, meeting

IntArray = npt.NDArray[np.int64]


class Logic:
    """Truth over some rows, or all.

    Args:
        columns: The columns; they hold all that is asked.
        rows: The rows, shape ``(n,)``; None for all.
        outlines: Reads the outlines of parcels.
    """

    def __init__(self, columns: Columns, rows: AnyArray | None, outlines: Outlines | None) -> None:
        self._columns = columns
        self._rows = rows
        self._outlines = outlines

    def where(self, node: Node, truth: bool = True) -> BoolArray:
        """For which rows an expression is true, or false; shape ``(n,)``."""
        match node:
            case Truth():
                return self._all(node.value is truth)
            case Not():
                return self.where(node.part, not truth)
            case AllOf() | AnyOf():
                parts = [self.where(part, truth) for part in node.parts]
                both = np.logical_and if isinstance(node, AllOf) is truth else np.logical_or
                found: BoolArray = both.reduce(parts)
                return found
            case Intersects():
                return self._meeting(node, truth)
            case Temporal():
                return self._temporal(node, truth)
            case Missing():
                return self._missing(node, truth)
        return self._held(node, truth)

    def _all(self, value: bool) -> BoolArray:
        count = self._columns.rows if self._rows is None else len(self._rows)
        return np.full(count, value, dtype=np.bool_)

    def _between(
        self, column: NumberColumn, first: float | None = None, end: float | None = None
    ) -> BoolArray:
        if self._rows is None:
            return column.mask(*column.ranks(first, end))
        return column.within(self._rows, first, end)

    def _coded(self, name: str, codes: tuple[int, ...]) -> BoolArray:
        column = coded_of(self._columns, name)
        if column is None:
            return self._all(False)
        return column.mask(codes) if self._rows is None else column.among(self._rows, codes)

    def _temporal(self, node: Temporal, truth: bool) -> BoolArray:
        times = self._columns.times
        found = self._between(times, *span_of(node))
        if (node.op in ("<>", "t_disjoint")) is truth:
            return self._between(times) & ~found
        return found

    def _missing(self, node: Missing, truth: bool) -> BoolArray:
        name, columns = node.name, self._columns
        if name == "geometry":
            return self._has_geometry(not truth)
        number = columns.times if name == "datetime" else columns.numbers.get(name)
        if number is not None:
            known = self._between(number)
            return ~known if truth else known
        if coded_of(columns, name) is None:
            # An attribute that no parcel has.
            return self._all(truth)
        return self._coded(name, codes_of(columns, node, truth))

    def _has_geometry(self, value: bool) -> BoolArray:
        column = self._columns.coded["has_geometry"]
        codes = tuple(c for c, found in enumerate(column.values) if c and found is value)
        return column.mask(codes) if self._rows is None else column.among(self._rows, codes)

    def _held(self, node: Node, truth: bool) -> BoolArray:
        if isinstance(node, Comparison | OneOf):
            number = self._columns.numbers.get(node.name)
            if number is not None:
                found = self._numbered(number, node)
                return found if truth else self._between(number) & ~found
        return self._coded(node.name, codes_of(self._columns, node, truth))  # type: ignore[union-attr, arg-type]

    def _numbered(self, column: NumberColumn, node: Comparison | OneOf) -> BoolArray:
        """Where a condition on a number is true."""
        if isinstance(node, OneOf):
            values = column.values if self._rows is None else column.values[self._rows]
            return np.isin(values, np.array([float(value) for value in node.values]))
        if node.op != "<>":
            return self._between(column, *range_of(node))
        value = float(node.value)
        return self._between(column, None, value) | self._between(
            column, np.nextafter(value, np.inf), None
        )

    def _meeting(self, node: Intersects, truth: bool) -> BoolArray:
        found = meeting(self._columns, self._rows, node.shape, self._outlines)
        return found if truth else self._has_geometry(True) & ~found
