"""Image: what a scene of Sentinel-2 and an image of any bands have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import array_bounds

from indexer.imagery.chip import Chip
from indexer.imagery.sources import Source


class Image(Protocol):
    """One acquisition, opened by its headers; pixels are read by window."""

    @property
    def source(self) -> Source:
        """Where it comes from: files, or an item of a catalog."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""

    @property
    def transform(self) -> Affine:
        """Pixel to map coordinates, as in rasterio."""

    @property
    def crs(self) -> CRS | None:
        """Reference system of ``transform``; None where the file has none."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the units of ``crs``."""

    def read(self, row: int = 0, column: int = 0, height: int = 0, width: int = 0) -> Chip:
        """Read a window; a height or width of 0 reaches to the image's end."""


@dataclass(frozen=True)
class ImagePart:
    """A window of an image, as an image of its own."""

    whole: Image
    row: int
    column: int
    shape: tuple[int, int]
    """Height and width in pixels."""

    @property
    def source(self) -> Source:
        """Of the whole."""
        return self.whole.source

    @property
    def transform(self) -> Affine:
        """Pixel to map coordinates, as in rasterio."""
        return self.whole.transform @ Affine.translation(self.column, self.row)

    @property
    def crs(self) -> CRS | None:
        """Of the whole."""
        return self.whole.crs

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the units of ``crs``."""
        west, south, east, north = array_bounds(*self.shape, self.transform)
        return west, south, east, north

    def read(self, row: int = 0, column: int = 0, height: int = 0, width: int = 0) -> Chip:
        """Read a window; a height or width of 0 reaches to the part's end."""
        height, width = height or self.shape[0] - row, width or self.shape[1] - column
        return self.whole.read(self.row + row, self.column + column, height, width)


@dataclass(frozen=True)
class ShownImage:
    """An image whose chips are made ready to be looked at."""

    image: Image
    show: Callable[[Chip], Chip]

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
        """Read a window; a height or width of 0 reaches to the image's end."""
        return self.show(self.image.read(row, column, height, width))
