"""The state of one parcel: what each observation measured, with units, date and provenance."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from indexer.spectral_indices import INDICES
from retriever.results import iso
from retriever.statements import AnyRow


@dataclass(frozen=True)
class ObservedState:
    """One observation as it was stored; fields as in ``indexer.observation_state``."""

    acquired_at: datetime | None
    scene: str
    source: str
    processing_baseline: str | None
    pixels_inside: float
    valid_pixels: float
    valid_fraction: float
    covered_fraction: float
    cloud_cover_percent: float | None
    reliable: bool
    indices: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        cloud = self.cloud_cover_percent
        return {
            "datetime": iso(self.acquired_at),
            "scene": self.scene,
            "processing_baseline": self.processing_baseline,
            "pixels_inside": round(self.pixels_inside, 2),
            "valid_pixels": round(self.valid_pixels, 2),
            "valid_fraction": round(self.valid_fraction, 4),
            "covered_fraction": round(self.covered_fraction, 4),
            "cloud_cover_percent": None if cloud is None else round(cloud, 1),
            "reliable": self.reliable,
            "indices": self.indices,
        }


@dataclass(frozen=True)
class ParcelState:
    """A parcel and all that was observed of it."""

    collection: str
    parcel_id: str
    crop_code: str | None
    crop_name: str | None
    area_m2: float | None
    attributes: dict[str, Any]
    geometry: BaseGeometry | None
    observations: tuple[ObservedState, ...]
    """In order of time; those without a time last."""

    @classmethod
    def from_rows(cls, parcel: AnyRow, observations: Sequence[AnyRow]) -> "ParcelState":
        """From a row of the parcels and rows of the observations."""
        return cls(
            collection=parcel.collection,
            parcel_id=parcel.parcel_id,
            crop_code=parcel.crop_code,
            crop_name=parcel.crop_name,
            area_m2=parcel.area_m2,
            attributes=parcel.attributes,
            geometry=None if parcel.geometry is None else shapely.from_wkb(parcel.geometry),
            observations=tuple(
                ObservedState(
                    **{name: getattr(row, name) for name in ObservedState.__dataclass_fields__}
                )
                for row in observations
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form; spectral indices are unitless, areas in square meters."""
        present = {name for seen in self.observations for name in seen.indices}
        return {
            "collection": self.collection,
            "id": self.parcel_id,
            "crop:code": self.crop_code,
            "crop:name": self.crop_name,
            "metrics:area": None if self.area_m2 is None else round(self.area_m2, 1),
            "attributes": self.attributes,
            "observations": [seen.to_dict() for seen in self.observations],
            "formulas": {name: index.formula for name, index in INDICES.items() if name in present},
        }
