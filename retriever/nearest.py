"""The nearest vectors: a filter's rows, the base, what was committed since, each parcel once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from indexer.delta_blocks import Select
from indexer.row_sets import RowSet
from indexer.vector_index.effort import DEFAULT_RECALL, check_recall
from indexer.vector_index.index import Plan
from retriever.published import OpenGeneration
from retriever.queries import ParcelFilter
from retriever.selection import select_rows

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class Catalog(Protocol):
    """What a filter may ask besides the columns of an index."""

    def rows(self, chosen: ParcelFilter) -> IntArray:
        """Embeddings that a filter allows."""

    def outlines(self, parcels: IntArray) -> Sequence[bytes | None]:
        """Outlines of parcels, by their rows, as well-known binary."""


_WIDER = 4


@dataclass(frozen=True)
class Asking:
    """How the index is asked."""

    recall: float = DEFAULT_RECALL
    """Share of the true nearest that is to be found: .9, .95 or .99, or less."""
    observations: bool = False
    """Return every matching observation instead of each parcel's best one."""
    explain: bool = False
    """Say in the answer how it was found."""


class Nearest(NamedTuple):
    """What a search found, before anything is said of it."""

    ids: IntArray
    """Embeddings, closest first, shape ``(n,)``."""
    scores: FloatArray
    """Cosine similarities, shape ``(n,)``."""
    parcels: IntArray
    """Rows of the parcels, shape ``(n,)``."""
    plan: Plan
    """How the published index was asked."""


def nearest(
    generation: OpenGeneration,
    vector: FloatArray,
    k: int,
    *,
    where: ParcelFilter,
    catalog: Catalog,
    recall: float = DEFAULT_RECALL,
    observations: bool = False,
    without: Sequence[int] = (),
) -> Nearest:
    """The k parcels, or observations, that are closest to a vector.

    Args:
        generation: The published index, and what was committed since.
        vector: Shape ``(d,)``, unit length.
        k: Matches wanted; there are fewer only where fewer fit.
        where: Which parcels and observations may be returned.
        catalog: Is asked for what the columns do not tell.
        recall: Share of the true nearest that must be found, as was measured.
        observations: Return every matching observation instead of each parcel's best one.
        without: Rows of parcels that may not be returned.

    Raises:
        InvalidInputError: If the recall is out of range (``invalid-recall``).
    """
    effort = check_recall(recall)
    where = _within_the_space(generation, where)
    allowed = None
    if not where.is_empty:
        allowed = select_rows(generation.columns, where, catalog.rows, catalog.outlines)
        if generation.gone is not None:
            allowed = allowed.without(generation.gone.words)
    one_each = observations or generation.one_row_a_parcel
    wanted = k + len(without) if one_each else _WIDER * k + len(without)
    excluded = np.asarray(without, dtype=np.int64) if len(without) else None
    while True:
        ids, scores, parcels, plan = _asked(
            generation, vector, wanted, where, allowed, effort, catalog
        )
        found = len(ids)
        if excluded is None and one_each:
            return Nearest(ids, scores, parcels, plan)
        if excluded is not None:
            stays = ~np.isin(parcels, excluded)
            ids, scores, parcels = ids[stays], scores[stays], parcels[stays]
        if not one_each:
            first = np.sort(np.unique(parcels, return_index=True)[1])
            ids, scores, parcels = ids[first], scores[first], parcels[first]
        if len(ids) >= k or found < wanted:
            return Nearest(ids[:k], scores[:k], parcels[:k], plan)
        # A parcel with many dates fills many places.
        wanted *= _WIDER


def nearest_many(
    generation: OpenGeneration,
    vectors: FloatArray,
    k: int,
    *,
    recall: float = DEFAULT_RECALL,
    threads: int | None = None,
) -> list[Nearest]:
    """The k parcels that are closest to each of several vectors, without a filter.

    Args:
        generation: The published index, and what was committed since.
        vectors: Shape ``(n, d)``, unit length.
        k: Matches wanted for each.
        recall: Share of the true nearest that must be found, as was measured.
        threads: Vectors at once; None for as many as there are cores.
    """

    def singly(vector: FloatArray) -> Nearest:
        return nearest(
            generation, vector, k, where=ParcelFilter(), catalog=_Nothing(), recall=recall
        )

    if not generation.one_row_a_parcel or generation.strangers:
        return [singly(vector) for vector in vectors]
    found = generation.index.search_many(
        vectors,
        k,
        recall=check_recall(recall),
        live=generation.live,
        threads=threads or len(os.sched_getaffinity(0)),
    )
    plan = Plan("lists", generation.index.rows, 0, 0, 0)
    there_are = generation.index.rows if generation.live is None else generation.live.count
    return [
        Nearest(*_with_fresh(generation, vector, k, scores, rows, None), plan)
        if len(rows) >= min(k, there_are)
        # The nearest lists may hold little that is still there.
        else singly(vector)
        for vector, (scores, rows) in zip(vectors, found, strict=True)
    ]


def scores_of(
    generation: OpenGeneration, vector: FloatArray, ids: IntArray, k: int
) -> dict[int, float]:
    """The k embeddings of some that are closest to a vector, with their scores, closest first.

    Args:
        generation: The published index, and what was committed since.
        vector: Shape ``(d,)``, unit length.
        ids: Embeddings; those that the generation does not hold are left out.
        k: At least 1.
    """
    columns = generation.columns
    rows = RowSet.of_rows(columns.rows_of_ids(ids), columns.rows)
    if generation.gone is not None:
        rows = rows.without(generation.gone.words)
    scores, found = generation.index.score(vector, rows.rows, k)
    known, parts = columns.ids[found], [scores]
    if generation.delta.rows:
        fresh_scores, fresh_ids = generation.delta.search(
            vector, k, lambda block: RowSet.of_rows(block.rows_of_ids(ids), block.rows)
        )
        known, parts = np.concatenate([known, fresh_ids]), [scores, fresh_scores]
    scores = np.concatenate(parts)
    order = np.argsort(-scores, kind="stable")[:k]
    return dict(zip(known[order].tolist(), scores[order].tolist(), strict=True))


class _Nothing:
    """No catalog: a search without a filter asks none."""

    def rows(self, chosen: ParcelFilter) -> IntArray:
        raise AssertionError("a search without a filter asks for no rows")

    def outlines(self, parcels: IntArray) -> Sequence[bytes | None]:
        raise AssertionError("a search without a filter asks for no outlines")


def _within_the_space(generation: OpenGeneration, where: ParcelFilter) -> ParcelFilter:
    """A filter that leaves out collections that are searched in another space by now."""
    if not generation.strangers:
        return where
    own = generation.collections
    asked = where.collections or own
    return replace(where, collections=tuple(one for one in asked if one in own) or ("",))


def _asked(
    generation: OpenGeneration,
    vector: FloatArray,
    wanted: int,
    where: ParcelFilter,
    allowed: RowSet | None,
    recall: float,
    catalog: Catalog,
) -> tuple[IntArray, FloatArray, IntArray, Plan]:
    """Ids, scores and parcels of the nearest in base and delta, closest first."""
    if allowed is None:
        scores, rows, plan = generation.index.search(
            vector, wanted, recall=recall, live=generation.live
        )
    else:
        scores, rows, plan = generation.index.search_among(vector, wanted, allowed, recall=recall)
    select = None
    if allowed is not None:
        select = lambda block: select_rows(block, where, catalog.rows, catalog.outlines)  # noqa: E731
    return *_with_fresh(generation, vector, wanted, scores, rows, select), plan


def _with_fresh(
    generation: OpenGeneration,
    vector: FloatArray,
    k: int,
    scores: FloatArray,
    rows: IntArray,
    select: Select | None,
) -> tuple[IntArray, FloatArray, IntArray]:
    """Ids, scores and parcels of the k best of the index's and of those since."""
    columns = generation.columns
    ids, parcels = columns.ids[rows], columns.parcels[rows]
    if not generation.delta.rows:
        return ids, scores, parcels
    fresh_scores, fresh_ids = generation.delta.search(vector, k, select)
    fresh_parcels = generation.fresh_parcels_of(fresh_ids)
    scores = np.concatenate([scores, fresh_scores])
    order = np.argsort(-scores, kind="stable")[:k]
    ids = np.concatenate([ids, fresh_ids])[order]
    parcels = np.concatenate([parcels, fresh_parcels])[order]
    return ids, scores[order], parcels
