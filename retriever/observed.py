"""What one observation measured on a parcel."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retriever.memberships import Membership, membership_fields
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
    cluster: Membership | None = None
    """None where it is in no stored cluster."""

    @classmethod
    def from_row(cls, row: AnyRow) -> "ObservedState":
        """From a row of the observations with their clusters."""
        stored = {
            name: getattr(row, name) for name in cls.__dataclass_fields__ if name != "cluster"
        }
        return cls(**stored, cluster=Membership.from_row(row))

    @property
    def medians(self) -> dict[str, float]:
        """Median of each spectral index over the valid pixels, unitless."""
        return {name: summary["median"] for name, summary in self.indices.items()}

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
            **membership_fields(self.cluster),
        }
