"""The state of one parcel: what was measured, how it changed, how it stands among its kind."""

from dataclasses import dataclass
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from indexer.spectral_indices import INDICES
from retriever.history import Change, Gaps, Peak, Reliability, Trend
from retriever.memberships import Membership, membership_fields
from retriever.observed import ObservedState
from retriever.peers import Peers
from retriever.statements import AnyRow


@dataclass(frozen=True)
class ParcelFacts:
    """What is declared of a parcel."""

    collection: str
    parcel_id: str
    crop_code: str | None
    crop_name: str | None
    area_m2: float | None
    attributes: dict[str, Any]
    geometry: BaseGeometry | None
    """Longitude and latitude; None for images without a reference system."""

    @classmethod
    def from_row(cls, parcel: AnyRow) -> "ParcelFacts":
        """From a row of the parcels."""
        return cls(
            collection=parcel.collection,
            parcel_id=parcel.parcel_id,
            crop_code=parcel.crop_code,
            crop_name=parcel.crop_name,
            area_m2=parcel.area_m2,
            attributes=parcel.attributes,
            geometry=None if parcel.geometry is None else shapely.from_wkb(parcel.geometry),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form under fiboa's names, without attributes and geometry; area in square meters."""
        return {
            "collection": self.collection,
            "id": self.parcel_id,
            "crop:code": self.crop_code,
            "crop:name": self.crop_name,
            "metrics:area": None if self.area_m2 is None else round(self.area_m2, 1),
        }


@dataclass(frozen=True)
class ParcelState:
    """A parcel and all that was observed of it."""

    parcel: ParcelFacts
    observations: tuple[ObservedState, ...]
    """In order of time; those without a time last."""
    reliability: Reliability
    trend: Trend | None
    """None where too few reliable observations tell."""
    peak: Peak | None
    last_change: Change | None
    gaps: Gaps | None
    peers: Peers | None
    """None where nothing can be compared; a note says why."""
    generation: int | None
    """Where the vectors of ``last_change`` and ``peers`` were found."""
    space: dict[str, Any] | None
    notes: tuple[str, ...] = ()
    """What must be said beside the answer."""

    @property
    def standing(self) -> ObservedState | None:
        """The observation that stands for the parcel: the latest reliable one, else the latest."""
        some = [seen for seen in self.observations if seen.reliable] or self.observations
        dated = [seen for seen in some if seen.acquired_at is not None]
        return next(reversed(dated or some), None)

    @property
    def cluster(self) -> Membership | None:
        """Of the observation that stands for the parcel; None where that is in no cluster."""
        return None if self.standing is None else self.standing.cluster

    def to_dict(self) -> dict[str, Any]:
        """JSON form; spectral indices are unitless, areas in square meters, times in UTC."""
        present = {name for seen in self.observations for name in seen.indices}
        parts = {
            "trend": self.trend,
            "peak": self.peak,
            "last_change": self.last_change,
            "gaps": self.gaps,
            "peers": self.peers,
        }
        return {
            **self.parcel.to_dict(),
            "attributes": self.parcel.attributes,
            "observations": [seen.to_dict() for seen in self.observations],
            **membership_fields(self.cluster),
            "reliability": self.reliability.to_dict(),
            **{name: None if part is None else part.to_dict() for name, part in parts.items()},
            "formulas": {name: index.formula for name, index in INDICES.items() if name in present},
            "generation": self.generation,
            "space": self.space,
            "notes": list(self.notes),
        }
