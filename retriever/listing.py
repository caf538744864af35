"""Stored parcels that fit a description, page by page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import shapely

from retriever.cql2.shapes import shape_of
from retriever.memberships import Membership, membership_fields
from retriever.queries import Bbox
from retriever.results import iso
from retriever.state import ParcelFacts
from retriever.statements import AnyRow

MOST_COUNTED = 1000
"""Beyond this many, parcels are not counted."""


@dataclass(frozen=True)
class StandingObservation:
    """The observation that stands for a parcel: the latest reliable one, else the latest."""

    acquired_at: datetime | None
    scene: str
    valid_fraction: float
    reliable: bool
    medians: dict[str, float]
    """Median of each spectral index over the valid pixels, unitless."""
    cluster: Membership | None = None

    @classmethod
    def from_row(cls, row: AnyRow) -> Self:
        """From a row that holds one."""
        return cls(
            acquired_at=row.acquired_at,
            scene=row.scene,
            valid_fraction=row.valid_fraction,
            reliable=row.reliable,
            medians={name: summary["median"] for name, summary in row.indices.items()},
            cluster=Membership.from_row(row),
        )


@dataclass(frozen=True)
class ListedParcel:
    """One parcel that fits."""

    row: int
    """Its place in the order of the pages."""
    parcel: ParcelFacts
    longitude: float | None
    """Of the middle of its bounding box, in degrees, as is the latitude."""
    latitude: float | None
    observations: int
    latest: datetime | None
    """When it was last observed, reliably or not."""
    standing: StandingObservation | None
    """None if it was never observed."""

    @classmethod
    def from_row(cls, row: AnyRow) -> Self:
        """From a row of the parcels with what was observed of it."""
        return cls(
            row=row.id,
            parcel=ParcelFacts.from_row(row),
            longitude=row.longitude,
            latitude=row.latitude,
            observations=row.observations,
            latest=row.latest,
            standing=None if row.scene is None else StandingObservation.from_row(row),
        )

    @property
    def cluster(self) -> Membership | None:
        """Of the observation that stands for it."""
        return None if self.standing is None else self.standing.cluster

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            **self.parcel.to_dict(),
            "attributes": self.parcel.attributes,
            "longitude": None if self.longitude is None else round(self.longitude, 6),
            "latitude": None if self.latitude is None else round(self.latitude, 6),
            "observations": self.observations,
            "datetime": iso(self.latest),
            **membership_fields(self.cluster),
        }


@dataclass(frozen=True)
class ParcelList:
    """One page of the parcels that fit."""

    query: dict[str, Any]
    parcels: tuple[ListedParcel, ...]
    matched: int | None
    """How many fit, over all pages; at most ``MOST_COUNTED``, which ``counted`` tells. None where
    nobody asked."""
    counted: bool
    """Whether ``matched`` is all of them."""
    more: bool
    """Whether there is another page."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "query": self.query,
            "matched": self.matched,
            "matched_is_exact": self.counted,
            "parcels": [listed.to_dict() for listed in self.parcels],
        }


def page_of(
    query: dict[str, Any], rows: Sequence[AnyRow], limit: int, matched: int | None
) -> ParcelList:
    """A page from its rows, one more than the page may hold, and a count that may go on."""
    return ParcelList(
        query=query,
        parcels=tuple(map(ListedParcel.from_row, rows[:limit])),
        matched=None if matched is None else min(matched, MOST_COUNTED),
        counted=matched is not None and matched <= MOST_COUNTED,
        more=len(rows) > limit,
    )


def meeting(parcels: Sequence[ListedParcel], bbox: Bbox) -> list[ListedParcel]:
    """The parcels whose outline, not just its own rectangle, touches a rectangle.

    Args:
        parcels: That have outlines, as those of a filter by the same rectangle do.
        bbox: The rectangle.
    """
    rectangle = shape_of({"bbox": [bbox.west, bbox.south, bbox.east, bbox.north]}).geometry
    shapely.prepare(rectangle)
    touched = shapely.intersects(rectangle, [one.parcel.geometry for one in parcels])
    return [one for one, hit in zip(parcels, touched, strict=True) if hit]
