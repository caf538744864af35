"""A piece of land and how it looks on a day: what of it is green, and what shows between."""

import math
from dataclasses import dataclass

import numpy as np
from shapely.geometry.base import BaseGeometry

from indexer.landscape.crops import Growth
from indexer.landscape.spectra import LEAVES, PETALS, REGION, SOIL, STRAW
from indexer.statistics import Float64Array


@dataclass(frozen=True)
class Piece:
    """A piece of land on which one thing grows."""

    outline: BaseGeometry
    """Map coordinates in meters."""
    growth: Growth
    days_late: float = 0.0
    """Days behind the crop's calendar: sowing date and variety."""
    vigor: float = 1.0
    """Factor on the green cover."""
    soil: float = 1.0
    """Brightness of the soil."""

    @property
    def variety(self) -> str:
        """Earliness, as seed catalogs put it."""
        return "early" if self.days_late < -3 else "late" if self.days_late > 3 else "mid-early"

    @property
    def properties(self) -> dict[str, str | float | None]:
        """Attributes of the parcel under their fiboa names; area in m2."""
        return {
            "crop:code": self.growth.code,
            "crop:name": self.growth.name,
            "metrics:area": round(self.outline.area, 1),
            "variety": self.variety,
        }

    def green_cover(self, day_of_year: int) -> float:
        """Share of the ground under green leaves, 0 to 1: a double logistic, less what is mown."""
        winter, peak, final = self.growth.cover
        peak *= self.vigor
        risen, fallen = self._progress(day_of_year)
        cover = winter + (peak - winter) * risen - (peak - final) * fallen
        for cut in self.growth.cuts:
            since = day_of_year - self.days_late - cut
            if since >= 0:
                cover *= 1 - 0.6 * math.exp(-since / 14)
        return min(max(cover, 0.0), 0.99)

    def canopy(self, day_of_year: int) -> Float64Array:
        """Reflectance of its green cover, petals included, shape ``(band,)``."""
        factors: Float64Array = np.array(self.growth.leaves)[REGION]
        full_bloom, share = self.growth.bloom
        since = day_of_year - self.days_late - full_bloom
        petals = share * math.exp(-((since / 13) ** 2))
        return (1 - petals) * factors * LEAVES + petals * PETALS

    def ground(self, day_of_year: int) -> Float64Array:
        """Reflectance of what shows between the leaves, soil and straw, shape ``(band,)``."""
        # Soil is wet, and so darker, in the middle of January.
        moisture = 0.5 + 0.5 * math.cos(2 * math.pi * (day_of_year - 15) / 365)
        soil = SOIL * self.soil * self.growth.ground * (1 - 0.2 * moisture)
        straw = self.growth.straw * self._progress(day_of_year)[1]
        return (1 - straw) * soil + straw * STRAW

    def _progress(self, day_of_year: int) -> tuple[float, float]:
        """How far green-up and decline have come, each 0 to 1."""
        green_up, decline, pace = self.growth.days
        day = day_of_year - self.days_late
        return _logistic((day - green_up) / pace), _logistic((day - decline) / pace)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
