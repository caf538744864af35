"""What stands between the land and the satellite: a cloud, and the shadow that it casts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from shapely import Point

from indexer.imagery.chip import BoolArray
from indexer.landscape.noise import smooth_noise
from indexer.landscape.pieces import Piece
from indexer.landscape.place import NORTH_M, PIXEL_M, WEST_M
from indexer.landscape.scene import DnArray
from indexer.landscape.spectra import BANDS, REGION
from indexer.statistics import Float64Array

_CLOUD_SHARE = 0.085
# Reflectance by band.
_CLOUD = np.where(REGION == 2, 0.38, 0.52)
# A shadow is lit by the sky alone, and the sky is blue.
_SHADOW = np.linspace(0.50, 0.25, len(BANDS))
# In the late morning the sun stands in the south-south-east, so shadows fall up and a little
# left. The shift is a share of the scene: cloud and shadow both stay in a small picture.
_SHADOW_SHIFT = (-0.13, -0.07)
# Classes of Sen2Cor.
_SHADOW_CLASS, _CLOUD_CLASS = 3, 9


@dataclass(frozen=True)
class Sky:
    """A cloud and its shadow, which share no pixel; or neither."""

    cloud: Float64Array
    """Opacity, shape ``(y, x)``; zero where there is no cloud."""
    shadow: BoolArray
    """Shape ``(y, x)``."""

    @classmethod
    def clear(cls, size_px: int) -> "Sky":
        """Nothing in the way."""
        return cls(np.zeros((size_px, size_px)), np.zeros((size_px, size_px), dtype=bool))

    @classmethod
    def clouded(cls, parcels: Sequence[Piece], size_px: int, rng: np.random.Generator) -> "Sky":
        """A frayed oval over the middle of a parcel."""
        row, column = _cloud_center(parcels, size_px)
        rows, columns = np.indices((size_px, size_px)) + 0.5
        away = np.hypot(rows - row, (columns - column) / 1.25) / size_px
        nearness = 0.012 * smooth_noise(size_px, size_px / 50, rng) - away
        edge = np.quantile(nearness, 1 - _CLOUD_SHARE)
        cloud = np.where(nearness > edge, np.clip(0.4 + (nearness - edge) / 0.04, 0, 0.97), 0)
        down, right = (round(share * size_px) for share in _SHADOW_SHIFT)
        shadow = np.roll(cloud > 0, (down, right), axis=(0, 1)) & (cloud == 0)
        return cls(cloud, shadow)

    def over(self, reflectance: Float64Array) -> Float64Array:
        """What is seen of ``reflectance``, shape ``(band, y, x)``, through this sky."""
        dimmed = reflectance * np.where(self.shadow, _SHADOW[:, None, None], 1.0)
        return dimmed + self.cloud * (_CLOUD[:, None, None] - dimmed)

    def flagged(self, scl: DnArray) -> DnArray:
        """The scene classification with every pixel that this sky touches set apart."""
        classes = np.where(self.shadow, _SHADOW_CLASS, scl)
        return np.where(self.cloud > 0, _CLOUD_CLASS, classes).astype(np.uint16)


def _cloud_center(parcels: Sequence[Piece], size_px: int) -> tuple[float, float]:
    """Row and column of the middle of a parcel that lies low enough for its cloud's shadow."""
    aim = Point(WEST_M + 0.56 * size_px * PIXEL_M, NORTH_M - 0.60 * size_px * PIXEL_M)
    middles = [piece.outline.centroid for piece in parcels if piece.outline.area > 20_000]
    middle = min(middles or [aim], key=aim.distance)
    return (NORTH_M - middle.y) / PIXEL_M, (middle.x - WEST_M) / PIXEL_M
