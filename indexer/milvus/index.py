"""Search in a collection: as ``indexer.vector_index`` does it, with the same answers.

Columns and filters stay beside it: which rows may be found is known before Milvus is asked. Where
they are many, more results are asked for than are wanted, and those that may be found are kept;
else their numbers are sent along, and each of them is scored.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.errors import InvalidInputError, StorageError
from indexer.milvus.effort import Effort
from indexer.milvus.server import MOST_RESULTS, ROW, MilvusServer, rows_at_once
from indexer.row_sets import RowSet
from indexer.vector_index.effort import DEFAULT_RECALL
from indexer.vector_index.index import Found, Plan

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

COLLECTION_FILE = "milvus.json"

LEAST_FOUND = 1_000
"""Up to so many rows are sent along with the query: that takes less than to find them by chance."""

MOST_FOUND = 2_000
"""Up to so many results are asked for, to keep those that a filter allows."""

_SPARE = 1.5
"""Times the results that hold enough allowed ones, if these lie as all others do."""

_MORE = 4

_SENT = 50_000
"""Rows that are sent along at once: half a megabyte."""

_QUERIES_AT_ONCE = 64

_NO_SCORES, _NO_ROWS = np.empty(0, np.float32), np.empty(0, np.int64)


@dataclass(frozen=True)
class Parameters:
    """What must be known of a collection to search it."""

    collection: str
    rows: int
    dimensions: int
    index_type: str
    """``FLAT`` or ``IVF_FLAT``: neither compresses anything, so all scores are exact."""
    nlist: int
    """Lists of each of Milvus' segments; 1 where every row is scored."""
    efforts: dict[float, Effort]
    """By recall."""
    sha256: str
    """Of all vectors in order of rows, each number as four bytes, little-endian."""

    @classmethod
    def read(cls, folder: Path) -> "Parameters":
        """What ``write`` wrote."""
        content = json.loads((folder / COLLECTION_FILE).read_text())
        efforts = {
            float(recall): Effort.from_dict(one) for recall, one in content["efforts"].items()
        }
        return cls(**{**content, "efforts": efforts})

    def write(self, folder: Path) -> None:
        """Keep them in a file of a generation's folder."""
        efforts = {str(recall): one.to_dict() for recall, one in self.efforts.items()}
        content: dict[str, Any] = {**self.__dict__, "efforts": efforts}
        (folder / COLLECTION_FILE).write_text(json.dumps(content, indent=2) + "\n")


class MilvusIndex:
    """Unit vectors under their rows, 0 to ``rows - 1``, in a collection of Milvus.

    Never changed once built. Safe to share between threads.
    """

    def __init__(self, server: MilvusServer, parameters: Parameters) -> None:
        self._server = server
        self._collection = parameters.collection
        self.rows = parameters.rows
        self.dimensions = parameters.dimensions
        self.nlist = parameters.nlist
        self.kind = f"Milvus {parameters.index_type}" + (
            f"({self.nlist})" if self.nlist > 1 else ""
        )
        self.efforts = parameters.efforts
        self.imbalance = 1.0
        """Milvus does not tell how unevenly rows fill its lists."""

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
            At most k exact scores and rows, closest first.

        Raises:
            StorageError: If Milvus does not answer (``milvus-unreachable``).
        """
        if live is not None:
            return self.search_among(query, k, live, recall=recall)
        self._check_shape(query[None], "query vector has", query)
        wanted = min(k, self.rows)
        if wanted > MOST_RESULTS:
            return self._among(query, k, _all(self.rows))
        nprobe = min(self.efforts[recall].nprobe_for(wanted), self.nlist)
        scores, rows = self._asked(query, wanted, nprobe)
        if len(rows) < wanted:
            # Short lists hold too few.
            nprobe = self.nlist
            scores, rows = self._asked(query, wanted, nprobe)
        return scores, rows, Plan("lists", self.rows, nprobe, 0, wanted)

    def search_among(
        self, query: FloatArray, k: int, allowed: RowSet, *, recall: float = DEFAULT_RECALL
    ) -> Found:
        """The rows of a set whose vectors are closest to a query; k of them whenever there are k.

        Args:
            query: Shape ``(d,)``, unit length.
            k: At least 1.
            allowed: The rows that may be found.
            recall: One of ``RECALLS``.

        Raises:
            StorageError: If Milvus does not answer (``milvus-unreachable``).
        """
        count = allowed.count
        if count == 0:
            return _NO_SCORES, _NO_ROWS, Plan("nothing", 0, 0, 0, 0)
        self._check_shape(query[None], "query vector has", query)
        wanted = min(k, count)
        limit = int(_SPARE * wanted * self.rows / count) + _MORE * 10
        while count > LEAST_FOUND and limit <= MOST_FOUND:
            nprobe = min(self.efforts[recall].nprobe_for(limit), self.nlist)
            scores, rows = self._asked(query, limit, nprobe)
            held = _contains(allowed, rows)
            if np.count_nonzero(held) >= wanted:
                scores, rows = scores[held][:wanted], rows[held][:wanted]
                return scores, rows, Plan("lists", count, nprobe, 0, limit)
            limit *= _MORE
        return self._among(query, k, allowed)

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
            threads: Not needed: the server spreads its work as it sees fit.
        """
        self._check_shape(queries, "query vectors have", queries)
        wanted = min(k, self.rows)
        if live is not None or wanted > MOST_RESULTS:
            return [self.search(query, k, recall=recall, live=live)[:2] for query in queries]
        nprobe = min(self.efforts[recall].nprobe_for(wanted), self.nlist)
        found = self.look(queries, wanted, nprobe)
        return [
            (scores, rows) if len(rows) >= wanted else self.search(query, k, recall=recall)[:2]
            for query, (scores, rows) in zip(queries, found, strict=True)
        ]

    def look(self, queries: FloatArray, k: int, nprobe: int) -> list[tuple[FloatArray, IntArray]]:
        """What is found in so many lists, of each query; fewer than k where they hold fewer."""
        most = max(1, min(_QUERIES_AT_ONCE, MOST_RESULTS // k))
        found = []
        for at in range(0, len(queries), most):
            some = queries[at : at + most]
            found += self._server.search(self._collection, some, k, nprobe)
        return found

    def score(self, query: FloatArray, rows: IntArray, k: int) -> tuple[FloatArray, IntArray]:
        """The k best of some different rows, by their vectors."""
        if len(rows) == 0:
            return _NO_SCORES, _NO_ROWS
        return self._among(query, k, RowSet.of_rows(np.sort(rows), self.rows))[:2]

    def vectors(self, rows: IntArray) -> FloatArray:
        """Vectors of rows, shape ``(n, d)``, as they were given."""
        vectors = np.empty((len(rows), self.dimensions), dtype=np.float32)
        size = rows_at_once(self.dimensions)
        for at in range(0, len(rows), size):
            some, places = np.unique(rows[at : at + size], return_inverse=True)
            found, held = self._server.fetch(self._collection, _expression(some))
            if not np.array_equal(found, some):
                raise corrupt(self._collection, f"lacks {len(some) - len(found)} rows")
            vectors[at : at + size] = held[places]
        return vectors

    # Steps -----------------------------------------------------------------------------------

    def _check_shape(self, queries: FloatArray, what: str, given: FloatArray) -> None:
        if queries.ndim != 2 or queries.shape[1] != self.dimensions:
            raise InvalidInputError(
                f"The {what} shape {given.shape}; the index holds vectors of {self.dimensions} "
                "numbers.",
                kind="invalid-vector",
            )

    def _asked(self, query: FloatArray, k: int, nprobe: int) -> tuple[FloatArray, IntArray]:
        limit = min(k, self.rows, MOST_RESULTS)
        return self._server.search(self._collection, query[None], limit, nprobe)[0]

    def _among(self, query: FloatArray, k: int, allowed: RowSet) -> Found:
        """The best of all allowed rows: their numbers are sent, and each is scored."""
        parts = []
        # More than Milvus gives at once is found by asking of fewer rows at once.
        size = _SENT if k <= MOST_RESULTS else MOST_RESULTS
        for some in _slices(allowed.rows, size):
            wanted = min(k, len(some))
            # All lists: only then is it certain that those of the allowed rows are among them.
            parts += self._server.search(
                self._collection, query[None], wanted, self.nlist, _expression(some)
            )
        scores = np.concatenate([scores for scores, _ in parts])
        rows = np.concatenate([rows for _, rows in parts])
        order = np.argsort(-scores, kind="stable")[:k]
        count = allowed.count
        return scores[order], rows[order], Plan("rows", count, 0, count, count)


def corrupt(collection: str, what: str) -> StorageError:
    """The error of a collection that is not as it was published."""
    return StorageError(
        f"Milvus collection {collection} {what}. Rebuild it from the database with: "
        "parcelle generations rebuild",
        kind="generation-corrupt",
    )


def _all(rows: int) -> RowSet:
    return RowSet.of_rows(np.arange(rows), rows)


def _contains(allowed: RowSet, rows: IntArray) -> npt.NDArray[np.bool_]:
    bits = allowed.words[rows >> 6] >> (rows & 63).astype(np.uint64)
    held: npt.NDArray[np.bool_] = (bits & np.uint64(1)).astype(np.bool_)
    return held


def _slices(rows: IntArray, size: int) -> Iterator[IntArray]:
    for at in range(0, len(rows), size):
        yield rows[at : at + size]


def _expression(rows: IntArray) -> str:
    """Some rows, in ascending order, in Milvus' language, as short as it can be said.

    https://milvus.io/docs/boolean.md
    """
    first, last = int(rows[0]), int(rows[-1])
    between = f"{ROW} >= {first} and {ROW} <= {last}"
    span = last - first + 1
    if len(rows) == span:
        return between
    if 2 * len(rows) < span:
        return f"{ROW} in {rows.tolist()}"
    others = np.setdiff1d(np.arange(first, last + 1), rows, assume_unique=True)
    return f"{between} and {ROW} not in {others.tolist()}"
