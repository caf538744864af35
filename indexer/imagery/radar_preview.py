"""A radar image, prepared for ``draw_preview``."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from indexer.imagery.chip import Chip, FloatArray
from indexer.imagery.image import Image
from indexer.imagery.preview import Style
from indexer.imagery.sources import Source

# Backscatter that is shown as black and as white, dB: between them lies nearly all land.
_SHOWN_DB: Final = {"VV": (-22.0, 0.0), "VH": (-29.0, -7.0)}
_SHOWN_RATIO_DB: Final = (2.0, 14.0)


@dataclass(frozen=True)
class ShownRadar:
    """A radar image prepared for ``draw_preview``: three bands from 0 to 1."""

    image: Image
    """Whose chips hold VV and VH."""
    style: Style

    @property
    def source(self) -> Source:
        """Of the image."""
        return self.image.source

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape

    @property
    def transform(self) -> Affine:
        """Pixel to map coordinates, as in rasterio."""
        return self.image.transform

    @property
    def crs(self) -> CRS | None:
        """Of the image."""
        return self.image.crs

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the units of ``crs``."""
        return self.image.bounds

    def read(self, row: int = 0, column: int = 0, height: int = 0, width: int = 0) -> Chip:
        """Read a window: VV as gray, or in false color VV, VH and their ratio."""
        chip = self.image.read(row, column, height, width)
        vv, vh = chip.band("VV"), chip.band("VH")
        gray = _share(vv, _SHOWN_DB["VV"])
        if self.style == "true-color":
            shown, names = (gray, gray, gray), ("VV", "VV", "VV")
        else:
            shown = gray, _share(vh, _SHOWN_DB["VH"]), _share(vv - vh, _SHOWN_RATIO_DB)
            names = ("VV", "VH", "VV / VH")
        return replace(chip, reflectance=np.stack(shown), bands=names)


def _share(backscatter_db: FloatArray, ends_db: tuple[float, float]) -> FloatArray:
    dark, light = ends_db
    share: FloatArray = np.clip((backscatter_db - dark) / (light - dark), 0, 1).astype(np.float32)
    return share
