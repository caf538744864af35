"""What a search must look at for a recall: measured against exact search when an index is built."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import faiss
import numpy as np
import numpy.typing as npt

from indexer.recall import RECALL_K
from indexer.vector_index.codecs import FloatArray, Vectors
from indexer.vector_index.effort import DEFAULT_RECALL, RECALLS, Effort

if TYPE_CHECKING:
    from indexer.vector_index.index import VectorIndex

IntArray = npt.NDArray[np.int64]

_QUERIES = 256
_FILTERED_QUERIES = 32
"""For each share that a filter may leave."""

_SHARES = (0.003, 0.01, 0.03, 0.1, 0.3)
_NEIGHBORHOODS = (1, 4, 16)

_RESERVE = 0.005
"""Recall beyond what is asked for: queries that are not stored, and so had no part in the training
of the lists, find a little less."""

_DEPTHS = (20, 30, 40, 50, 75, 100, 150, 200, 300, 400)
_SKETCH_DEPTHS = (50, 75, 100, 150, 200, 300, 400)
_ENOUGH = 0.993
"""Recall from which on more lists are not tried."""

_SECONDS_A_CANDIDATE = 2e-7
"""What an exact score costs, as measured: a kilobyte from a random place of the memory."""

_BLOCK = 20_000


@dataclass(frozen=True)
class Tuning:
    """What was measured of an index."""

    efforts: dict[float, Effort]
    """By recall."""
    queries: int
    """Stored vectors that were asked for, each without itself."""

    @property
    def recall_at_10(self) -> float:
        """Of the default effort."""
        return self.efforts[DEFAULT_RECALL].recall_at_10

    @property
    def nprobe(self) -> int:
        """Of the default effort."""
        return self.efforts[DEFAULT_RECALL].nprobe

    @classmethod
    def exact(cls) -> "Tuning":
        """Of an index whose rows are all scored by their vectors."""
        return cls({recall: Effort(1, 0, 1.0, 0, ()) for recall in RECALLS}, 0)

    @classmethod
    def unknown(cls, nlist: int) -> "Tuning":
        """Before anything is measured: everything is looked at."""
        return cls({recall: Effort(nlist, 400, 0.0, 400, ()) for recall in RECALLS}, 0)


def tune(index: "VectorIndex", vectors: Vectors, order: IntArray, seed: int) -> Tuning:
    """Measure an index, the least effort for each recall.

    Args:
        index: Whose rows are all there.
        vectors: What it was built from, shape ``(n, d)``: what copies of less precision lose counts
            as well.
        order: For each row of the index the row of ``vectors``, shape ``(n,)``.
        seed: Of the queries and filters that are drawn.
    """
    if index.nlist == 1:
        return Tuning.exact()
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(index.rows)[:_QUERIES])
    queries = np.ascontiguousarray(vectors[order[rows]], dtype=np.float32)
    k = min(RECALL_K, index.rows - 1)
    row_of = np.empty(index.rows, np.int64)
    row_of[order] = np.arange(index.rows)
    true = row_of[_exact(vectors, queries, order[rows], k)]
    grid = _lists_grid(index, queries, rows, true)
    sketch_depths, looked_at = _filtered(index, queries, random, k)
    efforts = {}
    for recall in RECALLS:
        nprobe, depth, reached = _cheapest(grid, recall)
        efforts[recall] = Effort(
            nprobe, depth, reached, sketch_depths[recall], tuple(looked_at[recall])
        )
    return Tuning(efforts, len(rows))


def _exact(vectors: Vectors, queries: FloatArray, own: IntArray, k: int) -> IntArray:
    """The k nearest of all vectors to some of them, each without itself, shape ``(n, k)``."""
    heap = faiss.ResultHeap(len(queries), k + 1, keep_max=True)
    for at in range(0, len(vectors), _BLOCK):
        block = np.ascontiguousarray(vectors[at : at + _BLOCK], dtype=np.float32)
        scores = queries @ block.T
        some = min(k + 1, len(block))
        top = np.argpartition(scores, len(block) - some, axis=1)[:, -some:]
        heap.add_result(
            np.ascontiguousarray(np.take_along_axis(scores, top, axis=1)),
            np.ascontiguousarray(top + at).astype(np.int64),
        )
    heap.finalize()
    return np.stack([rows[rows != self][:k] for rows, self in zip(heap.I, own, strict=True)])


def _lists_grid(
    index: "VectorIndex", queries: FloatArray, own: IntArray, true: IntArray
) -> list[tuple[float, int, int, float]]:
    """Seconds a query, lists, candidates and recall of searches without a filter.

    One search for each number of lists tells of every number of candidates: of the best by their
    compressed codes, the best by their vectors are found.
    """
    deepest = min(_DEPTHS[-1], index.rows - 1)
    grid: list[tuple[float, int, int, float]] = []
    nprobe = 1
    while True:
        seconds = []
        hits = np.zeros((len(_DEPTHS), len(queries)))
        for place, (query, self_row) in enumerate(zip(queries, own, strict=True)):
            begun = time.perf_counter()
            candidates = index.candidates(query, nprobe, deepest + 1)
            seconds.append(time.perf_counter() - begun)
            candidates = candidates[candidates != self_row]
            scores = index.vectors(candidates) @ query
            for number, depth in enumerate(_DEPTHS):
                best = np.argsort(-scores[:depth], kind="stable")[: true.shape[1]]
                hits[number, place] = np.isin(true[place], candidates[best]).mean()
        typical = float(np.median(seconds))
        recalls = hits.mean(axis=1)
        for depth, recall in zip(_DEPTHS, recalls, strict=True):
            seconds_a_query = typical + _SECONDS_A_CANDIDATE * depth
            grid.append((seconds_a_query, nprobe, depth, round(float(recall), 6)))
        if recalls.max() >= _safe(_ENOUGH) or nprobe == index.nlist:
            return grid
        nprobe = min(index.nlist, nprobe + max(1, nprobe // 4))


def _cheapest(grid: list[tuple[float, int, int, float]], recall: float) -> tuple[int, int, float]:
    """Lists, candidates and recall of the fastest that reaches a recall, else of the best."""
    enough = [one for one in grid if one[3] >= _safe(recall)]
    if not enough:
        _, nprobe, depth, reached = max(grid, key=lambda one: one[3])
        return nprobe, depth, reached
    _, nprobe, depth, reached = min(enough)
    return nprobe, depth, reached


def _safe(recall: float) -> float:
    """A recall with its reserve."""
    return min(1.0, recall + _RESERVE)


def _filtered(
    index: "VectorIndex",
    queries: FloatArray,
    random: np.random.Generator,
    k: int,
) -> tuple[dict[float, int], dict[float, list[tuple[int, int]]]]:
    """Candidates of a scan of sketches, and rows to score of as many as a filter leaves.

    The filters that are drawn are hard ones: half of the rows of some neighborhoods of lists, and
    none of the query's own, as when parcels like one are asked for that grow another crop, or lie
    elsewhere. The more neighborhoods, the less the nearest of the lists tells of the rows.
    """
    depths = dict.fromkeys(RECALLS, _SKETCH_DEPTHS[0])
    looked_at: dict[float, list[tuple[int, int]]] = {recall: [] for recall in RECALLS}
    for share in _SHARES:
        count = int(share * index.rows)
        if count < 40 * k:
            continue
        needed = dict.fromkeys(RECALLS, 0)
        sizes = []
        for neighborhoods in _NEIGHBORHOODS:
            places, ranks = [], []
            for query in queries[random.choice(len(queries), _FILTERED_QUERIES)]:
                allowed = _hard_filter(index, query, count, neighborhoods, random)
                if len(allowed) <= k:
                    continue
                sizes.append(len(allowed))
                nearest, rank = _nearest_of(index, query, allowed, k)
                ranks.append(rank)
                places.append(_looked_at(index, query, allowed, nearest))
            if not places:
                # Nearly all rows lie in the query's own lists.
                continue
            for recall in RECALLS:
                some = int(np.quantile(np.concatenate(places), _safe(recall)))
                needed[recall] = max(needed[recall], some)
                last = float(np.quantile(np.concatenate(ranks), (1 + recall) / 2))
                depth = next((one for one in _SKETCH_DEPTHS if one >= last), _SKETCH_DEPTHS[-1])
                depths[recall] = max(depths[recall], depth)
        if not sizes:
            continue
        count = int(np.mean(sizes))
        for recall in RECALLS:
            fewer = looked_at[recall][-1][1] if looked_at[recall] else 0
            looked_at[recall].append((count, min(count, max(needed[recall], fewer))))
    return depths, looked_at


def _hard_filter(
    index: "VectorIndex",
    query: FloatArray,
    count: int,
    neighborhoods: int,
    random: np.random.Generator,
) -> IntArray:
    """About so many rows: every other one of neighboring lists around some that are drawn."""
    sizes = np.diff(index.starts)
    own = np.argsort(-(index.centroids @ (index.centroid_axes @ query)))[
        : max(1, index.nlist // 50)
    ]
    chosen = np.zeros(index.nlist, np.bool_)
    for anchor in random.integers(index.nlist, size=neighborhoods):
        order = np.argsort(-(index.centroids @ index.centroids[anchor]), kind="stable")
        order = order[~np.isin(order, own)]
        wanted = np.searchsorted(np.cumsum(sizes[order]), 2 * count / neighborhoods)
        chosen[order[: int(wanted) + 1]] = True
    parts = [np.arange(index.starts[one], index.starts[one + 1]) for one in np.flatnonzero(chosen)]
    rows = np.concatenate(parts)
    return rows[random.random(len(rows)) < 0.5]


def _nearest_of(
    index: "VectorIndex", query: FloatArray, rows: IntArray, k: int
) -> tuple[IntArray, IntArray]:
    """The k nearest of some rows, and the places that their sketches have among all of them.

    The vectors of the best sketches decide, as in a search, but of more of them than any search
    takes.
    """
    reduced = index.sketch_axes @ query
    sketched = np.concatenate(
        [
            index.sketch_codec.decode(index.sketches[rows[at : at + _BLOCK]]) @ reduced
            for at in range(0, len(rows), _BLOCK)
        ]
    )
    best = np.argsort(-sketched, kind="stable")[: 2 * _SKETCH_DEPTHS[-1]]
    places = np.argsort(-(index.vectors(rows[best]) @ query), kind="stable")[:k]
    return rows[best[places]], places + 1


def _looked_at(
    index: "VectorIndex", query: FloatArray, allowed: IntArray, wanted: IntArray
) -> IntArray:
    """Allowed rows that are scored, the nearest lists first, until each wanted row is."""
    lists = index.lists_of(allowed)
    counts = np.bincount(lists, minlength=index.nlist)
    closeness = index.centroids @ (index.centroid_axes @ query)
    order = np.argsort(-closeness, kind="stable")
    until = np.empty(index.nlist, np.int64)
    until[order] = np.cumsum(counts[order])
    return until[index.lists_of(wanted)]
