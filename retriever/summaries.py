"""What a collection holds, in short."""

from dataclasses import dataclass
from datetime import datetime

from retriever.statements import AnyRow


@dataclass(frozen=True)
class CollectionSummary:
    """A collection, how much is in it, and where and when that is."""

    name: str
    parcels: int
    bbox: tuple[float, float, float, float] | None
    """West, south, east, north in degrees, of all parcels; None if none has a place."""
    start: datetime | None
    """When the first observation was acquired; None without a dated one."""
    end: datetime | None

    @classmethod
    def from_row(cls, row: AnyRow) -> "CollectionSummary":
        """From a row of the collections with what is in them."""
        bbox = None if row.west is None else (row.west, row.south, row.east, row.north)
        return cls(row.name, row.parcels, bbox, row.start, row.end)
