"""What only SQL tells of the rows of a space: for filters that columns cannot decide."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine

from retriever import statements
from retriever.queries import ParcelFilter
from retriever.selection.outlines import read_outlines

IntArray = npt.NDArray[np.int64]


@dataclass
class SpaceCatalog:
    """The catalog, asked over one connection, for one question."""

    connection: Connection
    space_id: int
    _told: tuple[ParcelFilter, IntArray] | None = None

    def rows(self, chosen: ParcelFilter) -> IntArray:
        """Embeddings of the space that a filter allows; the last answer is kept.

        An index and what was committed since ask the same.
        """
        if self._told is None or self._told[0] != chosen:
            found = statements.allowed_rows(self.connection, self.space_id, chosen)
            self._told = (chosen, found)
        return self._told[1]

    def outlines(self, parcels: IntArray) -> Sequence[bytes | None]:
        """Outlines of parcels, by their rows, as well-known binary."""
        return read_outlines(self.connection, parcels)


@dataclass(frozen=True)
class LazyCatalog:
    """The same, over a connection for each question: most filters have none."""

    engine: Engine
    space_id: int

    def rows(self, chosen: ParcelFilter) -> IntArray:
        """Embeddings of the space that a filter allows."""
        with statements.snapshot(self.engine) as connection:
            return SpaceCatalog(connection, self.space_id).rows(chosen)

    def outlines(self, parcels: IntArray) -> Sequence[bytes | None]:
        """Outlines of parcels, by their rows, as well-known binary."""
        with statements.snapshot(self.engine) as connection:
            return SpaceCatalog(connection, self.space_id).outlines(parcels)
