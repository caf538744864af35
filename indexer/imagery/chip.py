"""Chip: what one look at a piece of land holds, kept together so that it cannot drift apart."""

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import array_bounds
from shapely import Polygon, box

from indexer.errors import ImageryError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

CLOUD_CLASSES = (3, 8, 9, 10)
"""SCL classes counted as cloud cover: shadow, medium and high cloud probability, cirrus."""


@dataclass(frozen=True, eq=False)
class Chip:
    """Masked reflectance of one acquisition with names, place and time."""

    reflectance: FloatArray
    """Shape ``(band, y, x)``, unitless, offset already applied; of radar, backscatter in dB. NaN
    where there is no data."""
    bands: tuple[str, ...]
    """Name of each band, in the order of ``reflectance``."""
    valid_mask: BoolArray
    """Shape ``(y, x)``; True where every band has data and no cloud or shadow is flagged."""
    transform: Affine
    """Pixel to map coordinates, as in rasterio."""
    crs: CRS | None
    """Reference system of ``transform``; None where the file has none."""
    scene: str
    """Name of the acquisition: the file's stem, or the folder's name."""
    source: str
    """Path that the pixels came from, for messages."""
    acquired_at: datetime | None = None
    """Acquisition time, aware UTC; None where nothing tells it."""
    processing_baseline: str | None = None
    """Sentinel-2 processing baseline, ``04.00``; None where unknown."""
    scl: npt.NDArray[np.uint8] | None = None
    """Scene classification, shape ``(y, x)``; None where there is no such layer."""
    stated_offset: float | None = None
    """What was added to scaled digital numbers, unitless, where metadata state it; None where the
    processing baseline decides."""
    layer_bands: tuple[str, ...] | None = None
    """Band of each layer of the file where the reader was told; None where the image names them."""

    def __post_init__(self) -> None:
        if self.reflectance.shape != (len(self.bands), *self.valid_mask.shape):
            raise ValueError(
                f"reflectance {self.reflectance.shape} does not fit {len(self.bands)} bands "
                f"and mask {self.valid_mask.shape}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.valid_mask.shape
        return height, width

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the units of ``crs``."""
        west, south, east, north = array_bounds(*self.shape, self.transform)
        return west, south, east, north

    @property
    def footprint(self) -> Polygon:
        """The chip's outline in ``crs``."""
        return box(*self.bounds)

    @cached_property
    def data_mask(self) -> BoolArray:
        """Shape ``(y, x)``; True where every band has data, whatever the sky."""
        return np.asarray(np.isfinite(self.reflectance).all(axis=0))

    @cached_property
    def cloud_mask(self) -> BoolArray | None:
        """Shape ``(y, x)``; True under cloud or its shadow; None without a scene classification."""
        return None if self.scl is None else np.isin(self.scl, CLOUD_CLASSES)

    def band(self, name: str) -> FloatArray:
        """Reflectance of one band, shape ``(y, x)``.

        Raises:
            ImageryError: If the chip has no such band (``missing-band``).
        """
        try:
            values: FloatArray = self.reflectance[self.bands.index(name)]
        except ValueError:
            raise ImageryError(
                f"{self.source}: band {name} is missing; it has {', '.join(self.bands)}.",
                kind="missing-band",
            ) from None
        return values

    def stack(self, names: tuple[str, ...]) -> FloatArray:
        """Reflectance of the named bands in the named order, shape ``(len(names), y, x)``.

        Raises:
            ImageryError: If a band is missing (``missing-band``).
        """
        return np.stack([self.band(name) for name in names])

    def window(self, row: int, column: int, height: int, width: int) -> "Chip":
        """The part of the chip that starts at ``row``, ``column``; a view, nothing is copied."""
        rows, columns = slice(row, row + height), slice(column, column + width)
        return replace(
            self,
            reflectance=self.reflectance[:, rows, columns],
            valid_mask=self.valid_mask[rows, columns],
            scl=None if self.scl is None else self.scl[rows, columns],
            transform=self.transform @ Affine.translation(column, row),
        )
