"""Search in an index: lists near the query, compressed codes, then exact scores."""

import json
import threading
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from indexer.errors import InvalidInputError
from indexer.row_sets import RowSet, rows_in
from indexer.vector_index.codecs import ByteArray, Codec, FloatArray
from indexer.vector_index.effort import DEFAULT_RECALL, Effort

IntArray = npt.NDArray[np.int64]

PARAMETERS_FILE = "index.json"
VECTORS_FILE = "vectors.npy"
VECTOR_CODEC_FILE = "vectors.codec"
SKETCHES_FILE = "sketches.npy"
SKETCH_CODEC_FILE = "sketches.codec"
SKETCH_AXES_FILE = "sketch_axes.npy"
STARTS_FILE = "starts.npy"
CENTROIDS_FILE = "centroids.npy"
CENTROID_AXES_FILE = "centroid_axes.npy"
LISTS_FILE = "lists.faiss"

FEW_ROWS = 320
"""Up to so many rows are scored by their vectors at once; beyond, sketches choose first."""

LEAST_SCORED = 4096
"""So many sketches are scored in any case, where a filter leaves as many: it takes a quarter of a
millisecond, and filters are harder to foresee than queries."""

_BLOCK = 512
_SKETCH_BLOCK = 4096
_CHUNK = 1 << 22


class Plan(NamedTuple):
    """How a search went about it."""

    method: str
    """``lists``: compressed codes of the nearest lists; ``sketches``: of allowed rows; ``rows``:
    their vectors alone; ``nothing``: there were none."""
    allowed: int
    """Rows that could be found."""
    lists: int
    """Lists that were looked into; 0 where rows were known."""
    scored: int
    """Rows that got an approximate score, or an exact one where that was the only one."""
    reranked: int
    """Candidates whose exact scores decided."""


Found = tuple[FloatArray, IntArray, Plan]
"""Scores and rows, closest first, and how they were found."""

_NO_SCORES, _NO_ROWS = np.empty(0, np.float32), np.empty(0, np.int64)


class _Workspace:
    """Buffers of one thread, and their addresses, which cost more to make than to use."""

    def __init__(self, index: "VectorIndex") -> None:
        # One thread for each query; as many queries at once as there are cores.
        faiss.omp_set_num_threads(1)
        pointer = faiss.swig_ptr
        d, nlist = index.dimensions, index.nlist
        self.query = np.empty(d, np.float32)
        self.query_at = pointer(self.query)
        self.scanner = index.codec.scanner()
        self.block = np.empty((_BLOCK, index.codec.code_size), np.uint8)
        self.block_at = pointer(self.block)
        self.heaps: dict[int, tuple[FloatArray, IntArray, Any, Any]] = {}
        if nlist == 1:
            return
        self.reduced = np.empty(len(index.centroid_axes), np.float32)
        self.reduced_at = pointer(self.reduced)
        self.closeness = np.empty(nlist, np.float32)
        self.closeness_at = pointer(self.closeness)
        self.probed = np.empty(nlist, np.int64)
        self.probed_at = pointer(self.probed)
        self.probed_closeness = np.empty(nlist, np.float32)
        self.probed_closeness_at = pointer(self.probed_closeness)
        self.parameters = faiss.SearchParametersIVF(nprobe=1)
        self.nprobe = 1
        self.selector: faiss.IDSelector | None = None
        self.sketch = np.empty(len(index.sketch_axes), np.float32)
        self.sketch_at = pointer(self.sketch)
        self.sketch_scanner = index.sketch_codec.scanner()
        self.sketch_block = np.empty((_SKETCH_BLOCK, index.sketch_codec.code_size), np.uint8)
        self.sketch_block_at = pointer(self.sketch_block)

    def look_into(self, nprobe: int, selector: faiss.IDSelector | None) -> None:
        """Set the parameters of the next search; that takes microseconds where they change."""
        if nprobe != self.nprobe:
            self.parameters.nprobe = self.nprobe = nprobe
        if selector is not self.selector:
            self.parameters.sel = self.selector = selector

    def heap(self, k: int) -> tuple[FloatArray, IntArray, Any, Any]:
        """Places for k results, and their addresses."""
        held = self.heaps.get(k)
        if held is None:
            scores, rows = np.empty(k, np.float32), np.empty(k, np.int64)
            held = (scores, rows, faiss.swig_ptr(scores), faiss.swig_ptr(rows))
            self.heaps[k] = held
        return held


class VectorIndex:
    """Unit vectors under their rows, 0 to ``rows - 1``, in the order of the lists.

    Never changed once built; its files are mapped, so processes that open the same ones share
    their memory. Safe to share between threads.
    """

    def __init__(self, folder: Path) -> None:
        parameters = json.loads((folder / PARAMETERS_FILE).read_text())
        self.rows = int(parameters["rows"])
        self.dimensions = int(parameters["dimensions"])
        self.nlist = int(parameters["nlist"])
        self.kind = str(parameters["kind"])
        self.efforts = {
            float(recall): Effort.from_dict(fields)
            for recall, fields in parameters["efforts"].items()
        }
        self.codec = Codec.read(folder / VECTOR_CODEC_FILE)
        self.codes: ByteArray = _mapped(folder / VECTORS_FILE)
        self._own = threading.local()
        if self.nlist == 1:
            return
        self.sketch_codec = Codec.read(folder / SKETCH_CODEC_FILE)
        self.sketches: ByteArray = _mapped(folder / SKETCHES_FILE)
        self.sketch_axes: FloatArray = np.load(folder / SKETCH_AXES_FILE)
        self.starts: IntArray = np.load(folder / STARTS_FILE)
        self.centroids: FloatArray = np.load(folder / CENTROIDS_FILE)
        self.centroid_axes: FloatArray = np.load(folder / CENTROID_AXES_FILE)
        # Lists that are mapped are searched at a third of the speed, but for this kind of mapping.
        _read_through(folder / LISTS_FILE)
        self.lists = faiss.read_index(str(folder / LISTS_FILE), faiss.IO_FLAG_MMAP_IFC)
        self._refined = faiss.IndexRefine(self.lists, self.codec.stored(self.codes))
        pointer = faiss.swig_ptr
        self._sketch_axes_at = pointer(self.sketch_axes)
        self._centroids_at = pointer(self.centroids)
        self._centroid_axes_at = pointer(self.centroid_axes)
        self._sizes = np.diff(self.starts)
        self._row_lists = np.repeat(
            np.arange(self.nlist, dtype=np.min_scalar_type(self.nlist)), self._sizes
        )
        # Where each list starts in a bitmap: the word of the row before, and that word's bits up to
        # it; so the end of the last list is a word of the bitmap too.
        before = np.maximum(self.starts - 1, 0)
        self._start_words = before >> 6
        self._start_masks = np.uint64(2**64 - 1) >> (63 - (before & 63)).astype(np.uint64)
        self._start_masks[self.starts == 0] = 0
        # Of each word the list of its first row, and that of its last.
        self._first_lists = self._row_lists[::64].astype(np.int32)
        self._last_lists = np.append(self._row_lists[63::64], self._row_lists[-1:])[
            : len(self._first_lists)
        ].astype(np.int32)

    @property
    def imbalance(self) -> float:
        """How unevenly rows fill the lists: 1 where all are equally long.

        The mean length of the list of a row over that of a list, as FAISS has it.
        """
        if self.nlist == 1:
            return 1.0
        sizes = self._sizes.astype(np.float64)
        return float(self.nlist * (sizes**2).sum() / self.rows**2)

    # Searching -------------------------------------------------------------------------------

    def search(
        self,
        query: FloatArray,
        k: int,
        *,
        recall: float = DEFAULT_RECALL,
        live: RowSet | None = None,
    ) -> Found:
        """The rows whose vectors are closest to a query, without a filter.

        Args:
            query: Shape ``(d,)``, unit length.
            k: At least 1.
            recall: One of ``RECALLS``.
            live: Rows that are still there, where some are not; most of them.

        Returns:
            At most k scores and rows, closest first: cosine similarities as exact as the
            precision of the copies.
        """
        if self.nlist == 1:
            return self._among_few(self._workspace(query), k, live or self._all())
        work = self._workspace(query)
        effort = self.efforts[recall]
        nprobe, depth = _scaled(effort, k)
        selector = None if live is None else live.selector
        while True:
            nprobe = min(nprobe, self.nlist)
            lists = self._nearest_lists(work, nprobe)
            candidates = self._candidates(work, lists, depth, selector)
            if len(candidates) >= min(k, self.rows) or nprobe == self.nlist:
                break
            nprobe *= 4
        scores, rows = self._best(work, candidates, k)
        there = self.rows if live is None else live.count
        scored = int(self._sizes[lists].sum())
        return scores, rows, Plan("lists", there, nprobe, scored, len(candidates))

    def search_among(
        self, query: FloatArray, k: int, allowed: RowSet, *, recall: float = DEFAULT_RECALL
    ) -> Found:
        """The rows of a set whose vectors are closest to a query; k of them whenever there are k.

        Args:
            query: Shape ``(d,)``, unit length.
            k: At least 1.
            allowed: The rows that may be found.
            recall: One of ``RECALLS``.
        """
        count = allowed.count
        if count == 0:
            return _NO_SCORES, _NO_ROWS, Plan("nothing", 0, 0, 0, 0)
        work = self._workspace(query)
        if count <= max(FEW_ROWS, k) or self.nlist == 1:
            return self._among_few(work, k, allowed)
        effort = self.efforts[recall]
        depth = effort.sketch_depth * max(1, k // 10)
        enough = max(effort.look_at(count), LEAST_SCORED, 4 * k)
        if 4 * enough >= 3 * count:
            return self._among_sketches(work, k, allowed, allowed.rows, depth, 0)
        counts = self._counts(allowed)
        lists = self._nearest_filled_lists(work, counts, enough)
        rows = self._rows_in_lists(allowed, lists)
        return self._among_sketches(work, k, allowed, rows, depth, len(lists))

    def search_many(
        self,
        queries: FloatArray,
        k: int,
        *,
        recall: float = DEFAULT_RECALL,
        live: RowSet | None = None,
        threads: int = 1,
    ) -> list[tuple[FloatArray, IntArray]]:
        """Several searches without a filter, each as ``search`` does it.

        Args:
            queries: Shape ``(n_queries, d)``, unit length.
            k: At least 1.
            recall: One of ``RECALLS``.
            live: Rows that are still there, where some are not.
            threads: Queries at once, one core each.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dimensions:
            raise self._other_shape(f"The query vectors have shape {queries.shape}")
        if self.nlist == 1:
            singly = [self.search(query, k, recall=recall, live=live) for query in queries]
            return [(scores, rows) for scores, rows, _ in singly]
        nprobe, depth = _scaled(self.efforts[recall], k)
        looking = faiss.SearchParametersIVF(
            nprobe=min(nprobe, self.nlist), sel=None if live is None else live.selector
        )
        # FAISS rounds the product of both down.
        parameters = faiss.IndexRefineSearchParameters(
            k_factor=(depth + 0.5) / k, base_index_params=looking
        )
        faiss.omp_set_num_threads(threads)
        try:
            scores, rows = self._refined.search(queries, k, params=parameters)
        finally:
            faiss.omp_set_num_threads(1)
        wanted = min(k, self.rows if live is None else live.count)
        found = []
        for query, score, row in zip(queries, scores, rows, strict=True):
            held = row >= 0
            if np.count_nonzero(held) < wanted:
                # Short lists hold too few: it takes more of them.
                found.append(self.search(query, k, recall=recall, live=live)[:2])
            else:
                found.append((score[held], row[held]))
        return found

    def score(self, query: FloatArray, rows: IntArray, k: int) -> tuple[FloatArray, IntArray]:
        """The k best of some rows, by their vectors."""
        return self._best(self._workspace(query), rows, k)

    def vectors(self, rows: IntArray) -> FloatArray:
        """Vectors of rows, shape ``(n, d)``, as exact as the precision of the copies."""
        return self.codec.decode(self.codes[rows])

    def candidates(self, query: FloatArray, nprobe: int, depth: int) -> IntArray:
        """Rows with the best compressed codes of the nearest lists, best first."""
        work = self._workspace(query)
        return self._candidates(work, self._nearest_lists(work, nprobe), depth).copy()

    def lists_of(self, rows: IntArray) -> IntArray:
        """The list of each row."""
        return self._row_lists[rows].astype(np.int64)

    # Steps -----------------------------------------------------------------------------------

    def _workspace(self, query: FloatArray) -> _Workspace:
        work: _Workspace | None = getattr(self._own, "workspace", None)
        if work is None:
            work = _Workspace(self)
            self._own.workspace = work
        if query.shape != (self.dimensions,):
            raise self._other_shape(f"The query vector has shape {query.shape}")
        work.query[:] = query
        return work

    def _other_shape(self, found: str) -> InvalidInputError:
        return InvalidInputError(
            f"{found}; the index holds vectors of {self.dimensions} numbers.",
            kind="invalid-vector",
        )

    def _all(self) -> RowSet:
        return RowSet.of_rows(np.arange(self.rows), self.rows)

    def _nearest_lists(self, work: _Workspace, nprobe: int) -> IntArray:
        """Lists by the similarity of their centroids, in no order; leaves ``work.closeness``."""
        self._compare_centroids(work)
        if nprobe >= self.nlist:
            return np.arange(self.nlist)
        return work.closeness.argpartition(self.nlist - nprobe)[self.nlist - nprobe :]

    def _compare_centroids(self, work: _Workspace) -> None:
        # Not numpy: its BLAS would split so small a product among threads, which then wait for
        # each other whenever other queries have the cores.
        rank, d = self.centroid_axes.shape
        faiss.fvec_inner_products_ny(
            work.reduced_at, work.query_at, self._centroid_axes_at, d, rank
        )
        faiss.fvec_inner_products_ny(
            work.closeness_at, work.reduced_at, self._centroids_at, rank, self.nlist
        )

    def _candidates(
        self,
        work: _Workspace,
        lists: IntArray,
        depth: int,
        selector: faiss.IDSelector | None = None,
    ) -> IntArray:
        """Rows with the best compressed codes in some lists."""
        nprobe = len(lists)
        work.probed[:nprobe] = lists
        np.take(work.closeness, lists, out=work.probed_closeness[:nprobe])
        work.look_into(nprobe, selector)
        _, rows, scores_at, rows_at = work.heap(depth)
        self.lists.search_preassigned_c(
            1,
            work.query_at,
            depth,
            work.probed_at,
            work.probed_closeness_at,
            scores_at,
            rows_at,
            False,
            work.parameters,
        )
        # What was not found is -1, and comes last.
        return rows if rows[-1] >= 0 else rows[: int(np.count_nonzero(rows >= 0))]

    def _best(self, work: _Workspace, rows: IntArray, k: int) -> tuple[FloatArray, IntArray]:
        """The k rows whose vectors score best, closest first."""
        scores, found, scores_at, found_at = work.heap(k)
        scores.fill(-np.inf)
        found.fill(-1)
        scanner = work.scanner
        scanner.set_query(work.query_at)
        scanner.set_list(0, 0.0)
        _scan(scanner, self.codes, work.block, work.block_at, rows, scores_at, found_at, k)
        order = np.argsort(-scores, kind="stable")
        n = min(k, len(rows))
        if n < k:
            order = order[:n]
        return scores[order], found[order]

    def _among_few(self, work: _Workspace, k: int, allowed: RowSet) -> Found:
        scores, rows = self._best(work, allowed.rows, k)
        return scores, rows, Plan("rows", allowed.count, 0, allowed.count, allowed.count)

    def _among_sketches(
        self, work: _Workspace, k: int, allowed: RowSet, rows: IntArray, depth: int, lists: int
    ) -> Found:
        """The best of some rows: by their sketches, then by their vectors."""
        depth = min(max(depth, k), len(rows))
        p, d = self.sketch_axes.shape
        faiss.fvec_inner_products_ny(work.sketch_at, work.query_at, self._sketch_axes_at, d, p)
        scores, found, scores_at, found_at = work.heap(depth)
        scores.fill(-np.inf)
        found.fill(-1)
        scanner = work.sketch_scanner
        scanner.set_query(work.sketch_at)
        scanner.set_list(0, 0.0)
        _scan(
            scanner,
            self.sketches,
            work.sketch_block,
            work.sketch_block_at,
            rows,
            scores_at,
            found_at,
            depth,
        )
        best, best_rows = self._best(work, found, k)
        return best, best_rows, Plan("sketches", allowed.count, lists, len(rows), depth)

    # Lists -----------------------------------------------------------------------------------

    def _counts(self, allowed: RowSet) -> IntArray:
        """How many allowed rows each list holds."""
        if allowed.is_listed:
            listed: IntArray = np.bincount(self._row_lists[allowed.rows], minlength=self.nlist)
            return listed
        before = np.zeros(len(allowed.words) + 1, np.int64)
        np.cumsum(np.bitwise_count(allowed.words), out=before[1:])
        # Short lists share their words with others, so parts of words are counted too.
        parts = np.bitwise_count(allowed.words[self._start_words] & self._start_masks)
        counts: IntArray = np.diff(before[self._start_words] + parts)
        return counts

    def _nearest_filled_lists(self, work: _Workspace, counts: IntArray, enough: int) -> IntArray:
        """The lists nearest to the query that together hold enough allowed rows."""
        self._compare_centroids(work)
        filled = np.flatnonzero(counts)
        order = filled[np.argsort(-work.closeness[filled], kind="stable")]
        taken = int(np.searchsorted(np.cumsum(counts[order]), enough)) + 1
        nearest: IntArray = order[:taken]
        return nearest

    def _rows_in_lists(self, allowed: RowSet, lists: IntArray) -> IntArray:
        """The allowed rows of some lists; a few of their neighbors may be among them."""
        if allowed.is_listed:
            inside = np.zeros(self.nlist, np.bool_)
            inside[lists] = True
            listed: IntArray = allowed.rows[inside[self._row_lists[allowed.rows]]]
            return listed
        # A word of the bitmap may hold rows of many short lists.
        chosen = np.zeros(self.nlist + 1, np.int32)
        chosen[lists + 1] = 1
        np.cumsum(chosen, out=chosen)
        wanted = chosen[self._last_lists + 1] > chosen[self._first_lists]
        words = np.flatnonzero(wanted & (allowed.words != 0))
        places = rows_in(allowed.words[words])
        rows: IntArray = (words[places >> 6] << 6) + (places & 63)
        return rows


def _scaled(effort: Effort, k: int) -> tuple[int, int]:
    """Lists and candidates for k results: what was measured for ten, and more for more."""
    if k <= 10:
        return effort.nprobe, effort.depth
    return int(effort.nprobe * (k / 10) ** 0.5) + 1, effort.depth * k // 10


def _scan(
    scanner: faiss.InvertedListScanner,
    codes: ByteArray,
    block: ByteArray,
    block_at: Any,  # noqa: ANN401 - an address, as SWIG has it
    rows: IntArray,
    scores_at: Any,  # noqa: ANN401
    found_at: Any,  # noqa: ANN401
    k: int,
) -> None:
    """Score some rows by their codes, keeping the k best in a heap."""
    # FAISS is given an address, whatever lies there.
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    size = len(block)
    if len(rows) <= size:
        np.take(codes, rows, axis=0, out=block[: len(rows)], mode="clip")
        scanner.scan_codes(len(rows), block_at, faiss.swig_ptr(rows), scores_at, found_at, k)
        return
    for at in range(0, len(rows), size):
        some = rows[at : at + size]
        np.take(codes, some, axis=0, out=block[: len(some)], mode="clip")
        scanner.scan_codes(len(some), block_at, faiss.swig_ptr(some), scores_at, found_at, k)


def _read_through(path: Path) -> None:
    """Have a file in the page cache: FAISS touches all of it, page by page in any order.

    From a disk that took up to 40 seconds for a million rows; in order it takes a tenth of one.
    """
    with path.open("rb", buffering=0) as file:
        while file.read(_CHUNK):
            pass


def _mapped(path: Path) -> ByteArray:
    """A file of ``numpy.save``, as a plain array, which is read faster than a ``memmap``."""
    return np.asarray(np.load(path, mmap_mode="r"))
