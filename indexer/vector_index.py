"""FAISS IVF over unit vectors: choose nlist, train, tune nprobe, search, serialize."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from indexer.errors import InvalidInputError, StorageError
from indexer.recall import RECALL_K, recall_at_k

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

RECALL_TARGET = 0.95
"""recall@10 that ``nprobe`` is tuned for."""

MIN_TRAINING_POINTS_PER_LIST = 39
"""FAISS warns below this number of training points for each of its lists."""

_TUNING_QUERIES = 256
# A filter may leave just the lists near the query without allowed rows: other crops look otherwise.
# So every list is looked at while few rows are allowed (100,000 take some 40 ms on one core), in
# number or as a share, since the selector passes over the rest cheaply.
_FEW_ALLOWED = 100_000
_SMALL_SHARE = 0.2
# A bitmap may take so many bytes, and so many for each allowed id.
_BITMAP_BYTES, _BITMAP_BYTES_PER_ID = 1 << 20, 32


@dataclass(frozen=True)
class Tuning:
    """How well the index finds true neighbors, and with what effort."""

    nprobe: int
    recall_at_10: float
    """Against exact search, the query itself excluded; 1 where there are no neighbors."""
    queries: int
    """Stored vectors that were asked for."""


def choose_nlist(n: int) -> int:
    """Lists for n rows: ``4 * sqrt(n)`` as FAISS advises, bounded by the training points.

    See https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index.
    """
    return max(1, min(round(4 * math.sqrt(n)), n // MIN_TRAINING_POINTS_PER_LIST))


class VectorIndex:
    """An inverted-file index of unit vectors under 64-bit ids; never changed once built."""

    def __init__(self, index: faiss.IndexIVF, nprobe: int) -> None:
        self._index = index
        self.nprobe = nprobe

    @classmethod
    def build(
        cls, ids: IntArray, vectors: FloatArray, seed: int = 0
    ) -> tuple["VectorIndex", Tuning]:
        """Train, fill and tune an index.

        Args:
            ids: Shape ``(n,)``, unique, not negative; n >= 1.
            vectors: Shape ``(n, d)``, unit length.
            seed: Of the coarse quantizer's k-means and of the tuning queries.
        """
        n, d = vectors.shape
        nlist = choose_nlist(n)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, nlist, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed + 1
        index.cp.spherical = True
        # Few rows are a normal collection here, not a mistake to be warned of on stdout.
        index.cp.min_points_per_centroid = min(MIN_TRAINING_POINTS_PER_LIST, n)
        index.train(vectors)
        index.add_with_ids(vectors, ids)
        built = cls(index, nprobe=nlist)
        tuning = built._tune(ids, vectors, seed)
        built.nprobe = tuning.nprobe
        return built, tuning

    def _tune(self, ids: IntArray, vectors: FloatArray, seed: int) -> Tuning:
        """The smallest power of two of lists that reaches the target on sampled stored vectors."""
        n = len(ids)
        rows = np.random.default_rng(seed).permutation(n)[:_TUNING_QUERIES]
        k = min(RECALL_K, n - 1)
        if k == 0:
            return Tuning(nprobe=1, recall_at_10=1.0, queries=0)
        true = self._neighbors(vectors[rows], ids[rows], k, self.nlist)
        nprobe, recall = 1, 0.0
        while True:
            recall = recall_at_k(self._neighbors(vectors[rows], ids[rows], k, nprobe), true)
            if recall >= RECALL_TARGET or nprobe == self.nlist:
                return Tuning(nprobe, recall, len(rows))
            nprobe = min(2 * nprobe, self.nlist)

    def _neighbors(self, queries: FloatArray, own: IntArray, k: int, nprobe: int) -> IntArray:
        """Ids of the k nearest without the query's own, shape ``(n_queries, k)``."""
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        _, found = self._index.search(queries, k + 1, params=parameters)
        neighbors = np.full((len(queries), k), -1, dtype=np.int64)
        for row, (candidates, self_id) in enumerate(zip(found, own, strict=True)):
            others = candidates[candidates != self_id][:k]
            neighbors[row, : len(others)] = others
        return neighbors

    @property
    def rows(self) -> int:
        """Vectors in the index."""
        return int(self._index.ntotal)

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return int(self._index.d)

    @property
    def nlist(self) -> int:
        """Lists of the inverted file."""
        return int(self._index.nlist)

    def search(
        self, query: FloatArray, k: int, allowed: IntArray | None = None
    ) -> tuple[FloatArray, IntArray]:
        """The k stored vectors with the highest cosine similarity.

        Args:
            query: Shape ``(d,)``, unit length.
            k: At least 1.
            allowed: Ids that may be returned, or None for all. The selection happens inside the
                search, so k results come back whenever k allowed rows exist.

        Returns:
            Scores and ids, shape ``(n,)`` with ``n <= k``, closest first.

        Raises:
            InvalidInputError: If the query has another length than the stored vectors.
        """
        if query.shape != (self.dimensions,):
            raise InvalidInputError(
                f"The query vector has shape {query.shape}; the index holds vectors of "
                f"{self.dimensions} numbers.",
                kind="invalid-vector",
            )
        k = min(k, self.rows if allowed is None else len(allowed))
        if k == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        nprobe = self._nprobe_for(None if allowed is None else len(allowed))
        # index.nprobe is shared state; parameters belong to this call alone.
        parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=_selector(allowed))
        scores, ids = self._index.search(query[None, :], k, params=parameters)
        if (ids[0] < 0).any() and nprobe < self.nlist:
            parameters = faiss.SearchParametersIVF(nprobe=self.nlist, sel=_selector(allowed))
            scores, ids = self._index.search(query[None, :], k, params=parameters)
        found = ids[0] >= 0
        return scores[0][found], ids[0][found]

    def _nprobe_for(self, allowed: int | None) -> int:
        if allowed is None:
            return self.nprobe
        share = min(1.0, allowed / self.rows)
        if allowed <= _FEW_ALLOWED or share < _SMALL_SHARE:
            return self.nlist
        return min(self.nlist, math.ceil(self.nprobe / share))

    def to_bytes(self) -> bytes:
        """The index in FAISS's own format."""
        return bytes(faiss.serialize_index(self._index).tobytes())

    @classmethod
    def open(cls, path: Path, *, nprobe: int, sha256: str) -> "VectorIndex":
        """Map an index file into memory, trusting it only if its digest is the recorded one.

        Processes that open the same file share its pages. FAISS loads a file with a flipped bit
        without complaint and returns other neighbors.

        Args:
            path: A file that is never changed, only removed.
            nprobe: As tuned for it.
            sha256: What was published.

        Raises:
            StorageError: If the content is not what was published (``generation-corrupt``).
            OSError: If it cannot be read.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            raise StorageError(
                f"{path}: SHA-256 is {digest[:12]}…, but {sha256[:12]}… was published; the file is "
                "damaged. Rebuild it from the database with: parcelle generations rebuild",
                kind="generation-corrupt",
            )
        # Not IO_FLAG_MMAP: its lists are searched at a third of the speed.
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), nprobe)


def _selector(allowed: IntArray | None) -> faiss.IDSelector | None:
    if allowed is None:
        return None
    size = int(allowed.max()) // 8 + 1
    if size > _BITMAP_BYTES + _BITMAP_BYTES_PER_ID * len(allowed):
        return faiss.IDSelectorBatch(allowed)
    # A bitmap test is several times faster than the hash set of IDSelectorBatch.
    bits = np.zeros(size, dtype=np.uint8)
    np.bitwise_or.at(bits, allowed >> 3, (1 << (allowed & 7)).astype(np.uint8))
    return faiss.IDSelectorBitmap(bits)
