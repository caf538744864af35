"""Outlines of parcels, for the few whose rectangles do not tell whether they meet a shape."""

from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from indexer.catalog.lists import evened
from indexer.catalog.tables import Parcel

IntArray = npt.NDArray[np.int64]

# SQLite takes 32,766 values in one statement.
_MAX_IDS: Final = 10_000


def read_outlines(connection: Connection, parcels: IntArray) -> list[bytes | None]:
    """Well-known binary of some parcels, in their order; None for those that are gone.

    Args:
        connection: Open connection.
        parcels: Rows in SQL, shape ``(n,)``.
    """
    found: dict[int, bytes | None] = {}
    wanted = parcels.tolist()
    for start in range(0, len(wanted), _MAX_IDS):
        some = select(Parcel.id, Parcel.geometry).where(
            Parcel.id.in_(evened(wanted[start : start + _MAX_IDS]))
        )
        found.update((row[0], row[1]) for row in connection.execute(some))
    return [found.get(parcel) for parcel in wanted]
