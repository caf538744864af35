"""The rows that a filter allows: from the condition that leaves the fewest, to the others."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.columns import Columns
from indexer.columns.boxes import Limits
from indexer.columns.numbers import AnyArray, BoolArray
from indexer.row_sets import RowSet
from retriever.queries import ParcelFilter
from retriever.selection.logic import Logic
from retriever.selection.lowering import Conjuncts, lower
from retriever.selection.places import Outlines

IntArray = npt.NDArray[np.int64]

AskSql = Callable[[ParcelFilter], IntArray]
"""Embeddings that a filter allows."""

FEW_SHARE = 128
"""Where a condition leaves at most this part of all rows, they are listed, and the other conditions
tried on them; else truth values of all rows are combined."""

FEW = 1000
"""So many rows are listed, whatever part of all they are."""

SMALL_SHARE = 16
"""Expressions are worked out for the rows that other conditions leave, if they are at most this
part of all, and else for all rows."""


def select_rows(
    columns: Columns,
    chosen: ParcelFilter,
    ask_sql: AskSql,
    outlines: Outlines | None = None,
) -> RowSet:
    """The rows that a filter allows.

    Args:
        columns: Of the index.
        chosen: The filter.
        ask_sql: Gives the embeddings that a filter allows. It is asked for what the columns do not
            hold: ids of parcels, words, clusters, attributes of very many values.
        outlines: Reads the outlines of parcels; without it, SQL is asked about shapes as well.

    Returns:
        Rows of the index, those that ``retriever.statements.allowed_rows`` gives.
    """
    found = lower(columns, chosen, outlines=outlines is not None)
    if found.is_impossible:
        return _none(columns)
    rows = _listed(columns, found)
    mask = None
    if rows is None:
        mask = _masked(columns, found)
    if found.nodes:
        rows, mask = _reasoned(columns, found, rows, mask, outlines)
    if found.sql is not None and (rows is None or len(rows)):
        rows, mask = _asked(columns, found.sql, ask_sql, rows, mask)
    if rows is not None:
        selected = RowSet.of_rows(_ascending(rows), columns.rows)
    elif mask is None:
        selected = RowSet.of_mask(np.ones(columns.rows, dtype=np.bool_))
    else:
        selected = RowSet.of_mask(mask)
    return selected if columns.absent is None else selected.without(columns.absent)


def _none(columns: Columns) -> RowSet:
    return RowSet.of_rows(np.empty(0, dtype=np.int64), columns.rows)


def _ascending(rows: AnyArray) -> IntArray:
    # While they are short: that takes half the time.
    ordered: IntArray = np.sort(rows).astype(np.int64)
    return ordered


def _listed(columns: Columns, found: Conjuncts) -> AnyArray | None:
    """The rows that fulfill all simple conditions, in any order; None if they may be many."""
    least = max(FEW, columns.rows // FEW_SHARE)
    best: Callable[[], AnyArray] | None = None
    chosen: object = None
    first, end = 0, columns.rows
    times = columns.times
    if found.times is not None:
        first, end = times.ranks(*found.times)
        if end - first <= least:
            least, chosen = end - first, times
            best = lambda: times.order[first:end]  # noqa: E731
    for pair in found.coded:
        column, codes = pair
        if least and (found.times is not None or column.count(codes) <= least):
            spans = column.spans(codes, first, end)
            count = sum([stop - start for start, stop in spans])
            if count <= least:
                least, chosen = count, pair
                best = lambda column=column, spans=spans: column.rows_in(spans)  # noqa: E731
    for triple in found.numbers:
        number, low, high = triple
        start, stop = number.ranks(low, high)
        if stop - start <= least:
            least, chosen = stop - start, triple
            best = lambda number=number, a=start, b=stop: number.order[a:b]  # noqa: E731
    for limits in found.boxes:
        if len(limits) > 1 or not least:
            continue
        near = columns.boxes.grid.spans(limits[0], least)
        if near is not None:
            least, chosen = near[1], limits
            best = lambda near=near[0], limit=limits[0]: columns.boxes.rows_at(near, limit)  # noqa: E731
    if best is None:
        return None
    return _tested(columns, found, best(), chosen)


def _tested(columns: Columns, found: Conjuncts, rows: AnyArray, done: object) -> AnyArray:
    """Those of some rows that fulfill all simple conditions; one of them they do already."""
    if found.times is not None and done is not columns.times:
        # Rows of codes were taken from the interval.
        if not (done is not None and any(done is pair for pair in found.coded)):
            rows = rows[columns.times.within(rows, *found.times)]
    for pair in found.coded:
        if pair is not done:
            rows = rows[pair[0].among(rows, pair[1])]
    for triple in found.numbers:
        if triple is not done:
            rows = rows[triple[0].within(rows, triple[1], triple[2])]
    for limits in found.boxes:
        if limits is not done:
            rows = rows[_any(limits, lambda one, rows=rows: columns.boxes.among(rows, one))]  # type: ignore[misc]
    return rows


def _any(limits: tuple[Limits, ...], touching: Callable[[Limits], BoolArray]) -> BoolArray:
    found = touching(limits[0])
    for one in limits[1:]:
        found |= touching(one)
    return found


def _masked(columns: Columns, found: Conjuncts) -> BoolArray | None:
    """Which rows fulfill all simple conditions, shape ``(n,)``; None if there is none."""
    masks = [column.mask(codes) for column, codes in found.coded]
    masks += [_any(limits, columns.boxes.mask) for limits in found.boxes]
    ranges = [(column, *column.ranks(low, high)) for column, low, high in found.numbers]
    if found.times is not None:
        ranges.append((columns.times, *columns.times.ranks(*found.times)))
    if not (masks or ranges):
        return None
    if masks:
        mask = masks[0]
    else:
        column, first, end = ranges.pop()
        mask = column.mask(first, end)
    for one in masks[1:]:
        mask &= one
    for column, first, end in ranges:
        column.narrow(mask, first, end)
    return mask


def _reasoned(
    columns: Columns,
    found: Conjuncts,
    rows: AnyArray | None,
    mask: BoolArray | None,
    outlines: Outlines | None,
) -> tuple[AnyArray | None, BoolArray | None]:
    """Those of some rows for which all expressions are true, listed or masked."""
    if rows is None and mask is not None:
        if np.count_nonzero(mask) * SMALL_SHARE <= columns.rows:
            rows, mask = np.flatnonzero(mask), None
    for node in found.nodes:
        true = Logic(columns, rows, outlines).where(node)
        if rows is not None:
            rows = rows[true]
        else:
            mask = true if mask is None else mask & true
    return rows, mask


def _asked(
    columns: Columns,
    chosen: ParcelFilter,
    ask_sql: AskSql,
    rows: AnyArray | None,
    mask: BoolArray | None,
) -> tuple[AnyArray, None]:
    """Those of some rows whose embeddings SQL allows."""
    if mask is not None and not mask.any():
        return np.empty(0, dtype=np.int64), None
    allowed = columns.rows_of_ids(ask_sql(chosen))
    if mask is not None:
        return allowed[mask[allowed]], None
    return allowed if rows is None else np.intersect1d(allowed, rows), None


@dataclass(frozen=True)
class Condition:
    """One condition of a filter, and what it leaves by itself."""

    name: str
    """What it is about: ``datetime``, ``bbox``, ``crop``, another property or attribute by its
    name, or ``expression`` and ``sql`` for what is decided together."""
    rows: int | None
    """How many rows fulfill it, at most; None where that is not known beforehand."""


def describe_selection(
    columns: Columns, chosen: ParcelFilter, outlines: Outlines | None = None
) -> list[Condition]:
    """The conditions of a filter as they are decided, those that leave the fewest rows first."""
    found = lower(columns, chosen, outlines=outlines is not None)
    if found.is_impossible:
        return [Condition("nothing", 0)]
    held = {**columns.numbers, **columns.attributes, **columns.coded}
    names = {id(column): name for name, column in held.items()}
    told: list[Condition] = []
    if found.times is not None:
        first, end = columns.times.ranks(*found.times)
        told.append(Condition("datetime", end - first))
    for coded, codes in found.coded:
        told.append(Condition(names.get(id(coded), "codes"), coded.count(codes)))
    for column, low, high in found.numbers:
        first, end = column.ranks(low, high)
        told.append(Condition(names.get(id(column), "number"), end - first))
    told += [
        Condition("bbox", sum(columns.boxes.most(one) for one in limits)) for limits in found.boxes
    ]
    told += [Condition("expression", None) for _ in found.nodes]
    if found.sql is not None:
        told.append(Condition("sql", None))
    return sorted(told, key=lambda one: columns.rows if one.rows is None else one.rows)
