"""Rows that were committed since an index was built, in blocks that are searched exactly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from indexer.catalog.lists import evened
from indexer.catalog.reading import rows_of_parcels
from indexer.catalog.tables import Embedding
from indexer.columns import Columns
from indexer.columns.codes import MISSING, CodedColumn, code_type
from indexer.columns.table import ABSENT, Coded
from indexer.row_sets import BoolArray, IntArray, RowSet, WordArray, words_of

FloatArray = npt.NDArray[np.float32]
Select = Callable[[Columns], RowSet]
"""Which rows of some columns a filter allows."""

MOST_ROWS = 16_384
"""Of one block: a merge copies 32 MiB at most, which takes some ten milliseconds."""

# Columns are asked for these ids one by one, whatever lies between them.
_AT_ONCE = 4_096

# More than two ways of adding up 512 products of unit vectors differ in float32.
_ROUNDING = np.float32(1e-5)

# A product with scattered rows costs as much as one with so many times as many in their order.
_SCATTERED = 4

_CURRENT_ROWS = rows_of_parcels(Embedding.id, Embedding.vector).execution_options(
    yield_per=_AT_ONCE
)


@dataclass(frozen=True, eq=False)
class Block:
    """Some embeddings with what filters ask of them; never changed."""

    columns: Columns
    vectors: FloatArray
    """Unit vectors, shape ``(n, d)``, in the order of the columns."""
    live: BoolArray
    """False where the row was written anew or deleted since, shape ``(n,)``."""

    @cached_property
    def count(self) -> int:
        """Rows that are live."""
        return int(np.count_nonzero(self.live))

    @cached_property
    def _dead(self) -> WordArray:
        return words_of(~self.live)

    def without_parcels(self, parcels: IntArray) -> "Block":
        """The block without the rows of some parcels."""
        rows = self.columns.rows_of_parcels(parcels)
        if not len(rows):
            return self
        live = self.live.copy()
        live[rows] = False
        return replace(self, live=live)

    def nearest(
        self, query: FloatArray, k: int, select: Select | None
    ) -> tuple[FloatArray, IntArray]:
        """Scores and ids of at least the k nearest rows that are live and allowed, unordered.

        A score depends on the two vectors alone, not on where they lie.
        """
        rows = self._rows(select)
        if _SCATTERED * len(rows) < len(self.vectors):
            scores = _products(self.vectors[rows], query)
        else:
            scores = _products(self.vectors, query)[rows]
        if len(rows) > k:
            least = np.partition(scores, len(scores) - k)[len(scores) - k]
            rows = rows[scores >= least - _ROUNDING]
        # FAISS adds up in an order that depends on the row.
        exact = np.einsum("nd,d->n", self.vectors[rows], query)
        return exact, self.columns.ids[rows]

    def _rows(self, select: Select | None) -> IntArray:
        if select is None:
            return np.flatnonzero(self.live)
        allowed = select(self.columns)
        return (allowed if self.count == len(self.live) else allowed.without(self._dead)).rows


def _products(vectors: FloatArray, query: FloatArray) -> FloatArray:
    """Inner products with a query, in this thread alone; numpy's would ask others for help."""
    scores = np.empty(len(vectors), np.float32)
    query = np.ascontiguousarray(query)
    pointer = faiss.swig_ptr
    n, d = vectors.shape
    faiss.fvec_inner_products_ny(pointer(scores), pointer(query), pointer(vectors), d, n)
    return scores


def read_blocks(
    connection: Connection, space_id: int, parcels: IntArray, dimensions: int
) -> Iterator[Block]:
    """What is to be found of some parcels now: not superseded, searched in this space."""
    for start in range(0, len(parcels), _AT_ONCE):
        some = evened(parcels[start : start + _AT_ONCE].tolist())
        with connection.execute(_CURRENT_ROWS, {"parcels": some, "space": space_id}) as found:
            for rows in found.partitions():
                ids = np.array([row.id for row in rows], dtype=np.int64)
                stored = np.frombuffer(b"".join(row.vector for row in rows), dtype="<f4")
                columns = Columns.read(connection, ids)
                vectors = stored.reshape(len(ids), dimensions).astype(np.float32)
                # What is deleted between the two statements is told by the next change too.
                yield Block(columns, vectors, columns.parcels != ABSENT)


def merged(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """The same rows in few blocks.

    Each block becomes larger than the next, so that n rows that came one by one lie in about
    log2(n) blocks, and each was copied about as many times.
    """
    kept: list[Block] = []
    for block in blocks:
        if not block.count:
            continue
        kept.append(_joined([block]) if 2 * block.count < len(block.live) else block)
        while len(kept) > 1 and kept[-2].count <= kept[-1].count and _fit(kept[-2:]):
            kept[-2:] = [_joined(kept[-2:])]
    return tuple(kept)


def _fit(blocks: Sequence[Block]) -> bool:
    return sum(block.count for block in blocks) <= MOST_ROWS


def _joined(blocks: Sequence[Block]) -> Block:
    """The live rows of some blocks as one."""
    vectors = np.concatenate([block.vectors[block.live] for block in blocks])
    columns = _joined_columns([block.columns for block in blocks], [one.live for one in blocks])
    return Block(columns, vectors, np.ones(len(vectors), dtype=np.bool_))


def _joined_columns(parts: Sequence[Columns], live: Sequence[BoolArray]) -> Columns:
    """Some rows of some columns, one part after the other."""

    def taken(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate([array[rows] for array, rows in zip(arrays, live, strict=True)])

    def coded(columns: Sequence[Mapping[str, CodedColumn]], name: str) -> Coded:
        return _joined_codes([column.get(name) for column in columns], live)

    left_out = frozenset[str]().union(*(part.left_out for part in parts))
    attributes = {name for part in parts for name in part.attributes} - left_out
    return Columns(
        taken([part.ids for part in parts]),
        taken([part.parcels for part in parts]),
        taken([part.times.values for part in parts]),
        taken([part.boxes.corners for part in parts]),
        {name: taken([part.numbers[name].values for part in parts]) for name in parts[0].numbers},
        {name: coded([part.coded for part in parts], name) for name in parts[0].coded},
        {name: coded([part.attributes for part in parts], name) for name in sorted(attributes)},
        left_out,
    )


def _joined_codes(columns: Sequence[CodedColumn | None], live: Sequence[BoolArray]) -> Coded:
    """Codes and values of one column of several parts; None stands for one that has no values."""
    values: list[Any] = [None]
    known: dict[Any, int] = {}
    parts = []
    for column, rows in zip(columns, live, strict=True):
        if column is None:
            parts.append(np.zeros(np.count_nonzero(rows), dtype=np.int64))
            continue
        codes = [MISSING]
        for value in column.values[1:]:
            code = known.setdefault(_key(value), len(values))
            if code == len(values):
                values.append(value)
            codes.append(code)
        parts.append(np.array(codes, dtype=np.int64)[column.codes[rows]])
    return np.concatenate(parts).astype(code_type(len(values))), values


def _key(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """What tells a value from others: in Python, 1 equals True, and a list has no hash."""
    return (type(value), repr(value) if isinstance(value, list | dict) else value)
