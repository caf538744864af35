"""What was committed since an index was built: searched exactly, beside the index.

An index never changes. Of every parcel that the change log names since, all rows of the index
count as removed, and all that is to be found of the parcel now lies in the delta. So an insert, a
new vector, a new crop and a deletion are one and the same.
"""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from indexer.catalog.changes import changed_parcels, last_change
from indexer.columns import Columns
from indexer.delta_blocks import Block, FloatArray, Select, merged, read_blocks
from indexer.row_sets import IntArray, WordArray


@dataclass(frozen=True, eq=False)
class Delta:
    """The rows since a published index, and those of the index that are gone; never changed.

    What was committed later is in another delta, made by ``advanced``; whoever searches this one
    is not disturbed.
    """

    blocks: tuple[Block, ...]
    removed: WordArray
    """A bitmap over the rows of the index, as ``RowSet.without`` takes it."""
    removed_count: int
    """Rows in it."""
    last_change: int
    """Number of the last change that it holds."""
    base_change: int
    """Number of the last change that the index holds."""
    dimensions: int

    @classmethod
    def empty(cls, base: Columns, dimensions: int, last_change: int) -> "Delta":
        """A delta for an index that holds everything.

        Args:
            base: Columns of the index.
            dimensions: Of its vectors.
            last_change: The last change that the index holds.
        """
        removed = np.zeros(-(-base.rows // 64), dtype=np.uint64)
        return cls((), removed, 0, last_change, last_change, dimensions)

    @property
    def rows(self) -> int:
        """Embeddings that may be found in it."""
        return sum(block.count for block in self.blocks)

    @property
    def is_empty(self) -> bool:
        """Whether a search of the index needs nothing of it."""
        return not self.blocks and not self.removed_count

    def advanced(self, connection: Connection, space_id: int, base: Columns) -> "Delta":
        """The delta with what was committed since; only parcels that were changed are read.

        Args:
            connection: Sees the catalog at one moment; see ``catalog.changes.snapshot``.
            space_id: Row of the space of the index.
            base: Columns of the index.

        Returns:
            This very delta if nothing was committed.
        """
        until = last_change(connection)
        if until == self.last_change:
            return self
        parcels = changed_parcels(connection, self.last_change, until)
        removed, count = self._removed_too(base.rows_of_parcels(parcels))
        former = [block.without_parcels(parcels) for block in self.blocks]
        new = read_blocks(connection, space_id, parcels, self.dimensions)
        return Delta(
            merged([*former, *new]), removed, count, until, self.base_change, self.dimensions
        )

    def _removed_too(self, rows: IntArray) -> tuple[WordArray, int]:
        """The bitmap with some more rows, and how many they are then."""
        words, bits = rows >> 6, np.uint64(1) << (rows & 63).astype(np.uint64)
        added = int(np.count_nonzero(self.removed[words] & bits == 0))
        if not added:
            return self.removed, self.removed_count
        removed = self.removed.copy()
        np.bitwise_or.at(removed, words, bits)
        return removed, self.removed_count + added

    def search(
        self, query: FloatArray, k: int, select: Select | None = None
    ) -> tuple[FloatArray, IntArray]:
        """The nearest rows, exactly.

        Args:
            query: Unit vector, shape ``(d,)``, float32.
            k: At least 1.
            select: Gives the rows of some columns that may be found, as
                ``retriever.selection`` does; None allows all. It is asked for each block.

        Returns:
            Cosine similarities, descending, and embedding ids, both of shape ``(m,)``: k of them,
            or as many as there are. Equal scores are in the order of their ids.
        """
        found = [block.nearest(query, k, select) for block in self.blocks]
        if not found:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        scores = np.concatenate([one for one, _ in found])
        ids = np.concatenate([one for _, one in found])
        best = np.lexsort((ids, -scores))[:k]
        return scores[best], ids[best]
