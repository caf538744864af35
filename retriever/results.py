"""Answers: matches with their provenance, as JSON and as GeoJSON."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import orjson
import shapely
from shapely.geometry.base import BaseGeometry

from retriever.memberships import Membership, membership_fields


@dataclass(frozen=True)
class Match:
    """One parcel that resembles the query."""

    rank: int
    """1 is the closest."""
    score: float
    """Cosine similarity, -1 to 1, higher is closer."""
    collection: str
    parcel_id: str
    crop_code: str | None
    crop_name: str | None
    area_m2: float | None
    acquired_at: datetime | None
    """When the observation that matched was acquired."""
    scene: str
    valid_fraction: float
    reliable: bool
    medians: dict[str, float]
    """Median of each spectral index over the valid pixels of that observation, unitless; empty
    where its pixels have been replaced since the generation was published."""
    wkb: bytes | None = field(repr=False)
    """The parcel's geometry as well-known binary."""
    cluster: Membership | None = None
    """None where that observation is in no stored cluster, and where its pixels have been replaced
    since."""

    # Made for those who look: it takes as long as all the rest of a match.
    @cached_property
    def geometry(self) -> BaseGeometry | None:
        """Longitude and latitude; None for images without a reference system."""
        return None if self.wkb is None else shapely.from_wkb(self.wkb)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without the geometry."""
        return {
            "rank": self.rank,
            "score": round(self.score, 6),
            "collection": self.collection,
            "id": self.parcel_id,
            "crop:code": self.crop_code,
            "crop:name": self.crop_name,
            "metrics:area": None if self.area_m2 is None else round(self.area_m2, 1),
            "datetime": iso(self.acquired_at),
            "scene": self.scene,
            "valid_fraction": round(self.valid_fraction, 4),
            "reliable": self.reliable,
            "medians": {name: round(value, 4) for name, value in self.medians.items()},
            **membership_fields(self.cluster),
        }


@dataclass(frozen=True)
class Matches:
    """What a search answers."""

    query: dict[str, Any]
    """The question, with the observation that stood for the parcel."""
    generation: int
    space: dict[str, Any]
    matches: tuple[Match, ...]
    notes: tuple[str, ...] = ()
    """What must be said beside the answer."""
    explanation: dict[str, Any] | None = None
    """How it was found, where that was asked for."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            **self._provenance(),
            "matches": [match.to_dict() for match in self.matches],
            "notes": list(self.notes),
        }

    def _provenance(self) -> dict[str, Any]:
        said = {"query": self.query, "generation": self.generation, "space": self.space}
        return said if self.explanation is None else {**said, "explanation": self.explanation}

    def to_geojson(self) -> dict[str, Any]:
        """A GeoJSON FeatureCollection; the other members stand beside ``features``."""
        features = []
        for match in self.matches:
            properties = match.to_dict()
            properties["generation"] = self.generation
            properties["space"] = self.space["id"]
            features.append(feature(match.parcel_id, match.geometry, properties))
        return {
            "type": "FeatureCollection",
            "features": features,
            "numberReturned": len(features),
            **self._provenance(),
            "notes": list(self.notes),
        }


def feature(
    feature_id: str, geometry: BaseGeometry | None, properties: dict[str, Any]
) -> dict[str, Any]:
    """A GeoJSON feature, coordinates to seven decimals (a centimeter)."""
    shape = None
    if geometry is not None:
        rounded = shapely.set_precision(geometry, 1e-7, mode="pointwise")
        # A third of the time that shapely's mapping takes.
        shape = orjson.loads(shapely.to_geojson(rounded))
    return {"type": "Feature", "id": feature_id, "geometry": shape, "properties": properties}


def iso(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with a Z, to the second."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
