"""SpectralImage: one image of any number of bands, opened by its header, read by windows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import array_bounds

from indexer.errors import ImageryError
from indexer.imagery.chip import BoolArray, Chip, FloatArray
from indexer.imagery.sources import ImageSource
from indexer.imagery.spectral_bands import SpectralBand, visible_bands

MIN_BANDS: Final = 2
"""One band is a gray picture: there is no spectrum to learn from."""


MAX_ROW_VALUES: Final = 100_000_000
"""Most pixels x bands of one row, which is the least that is read: 2.4 GB while it is scaled. A row
of 20,000 pixels and 500 bands has a tenth of it."""


class Pixels(NamedTuple):
    """A window of some layers, as a format reads it."""

    values: FloatArray
    """Shape ``(layer, y, x)``, in the file's units; NaN where that layer has no data."""
    clear: BoolArray | None = None
    """Shape ``(y, x)``; False under clouds and their shadows; None where nothing tells."""
    scl: npt.NDArray[np.uint8] | None = None
    """Scene classification, shape ``(y, x)``."""


class PixelReader(Protocol):
    """The pixels of one file, whatever its format."""

    @property
    def block_rows(self) -> int:
        """Rows that the file stores together; reading fewer of them costs as much."""

    def read(self, layers: Sequence[int], rows: slice, columns: slice) -> Pixels:
        """Read a window that lies inside the image.

        Args:
            layers: Positions from 0 in the file, in the order wanted.
            rows: With start and stop.
            columns: Likewise.

        Raises:
            ImageryError: If the pixels cannot be read.
        """


@dataclass(frozen=True, eq=False)
class SpectralImage:
    """One image of any number of bands, opened by its header only."""

    source: ImageSource
    bands: tuple[SpectralBand, ...]
    shape: tuple[int, int]
    """Height and width in pixels."""
    pixels: PixelReader
    layers: tuple[int, ...]
    """Where ``pixels`` has each band, from 0."""
    transform: Affine = Affine.identity()  # noqa: RUF009 - it cannot be changed
    """Pixel to map coordinates, as in rasterio; the identity where the file has no place."""
    crs: CRS | None = None
    acquired_at: datetime | None = None
    """Acquisition time, aware UTC; None where nothing tells it."""
    default_bands: tuple[int, int, int] | None = None
    """Positions in ``bands`` to show as red, green and blue: the file's own, else those near
    0.665, 0.560 and 0.490 um; None where there are none."""
    notes: tuple[str, ...] = ()
    """What a user must be told: sentences without the file's name and a full stop."""
    processing_baseline: str | None = None
    """Of Sentinel-2 images; None where unknown."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the units of ``crs``."""
        west, south, east, north = array_bounds(*self.shape, self.transform)
        return west, south, east, north

    @property
    def has_wavelengths(self) -> bool:
        """Whether the central wavelength of every band is known."""
        return all(band.center_wavelength_um is not None for band in self.bands)

    def read(self, row: int = 0, column: int = 0, height: int = 0, width: int = 0) -> Chip:
        """Read a window; a height or width of 0 reaches to the image's end.

        Returns:
            A chip in the file's own units (reflectance where these are known), float32; NaN where
            a band has no data. A pixel is valid where every band is finite and not the declared
            nodata, not all bands are 0, and no mask of the file speaks against it.

        Raises:
            ValueError: If the window does not lie inside the image.
            ImageryError: If the pixels cannot be read.
        """
        height, width = height or self.shape[0] - row, width or self.shape[1] - column
        rows, columns = slice(row, row + height), slice(column, column + width)
        if min(row, column) < 0 or min(height, width) < 1:
            raise ValueError(f"window {rows}, {columns} of an image of {self.shape}")
        if rows.stop > self.shape[0] or columns.stop > self.shape[1]:
            raise ValueError(f"window {rows}, {columns} of an image of {self.shape}")
        values, clear, scl = self.pixels.read(self.layers, rows, columns)
        valid_mask: BoolArray = np.asarray(np.isfinite(values).all(axis=0))
        return Chip(
            reflectance=values,
            bands=tuple(band.name for band in self.bands),
            valid_mask=valid_mask if clear is None else valid_mask & clear,
            transform=self.transform @ Affine.translation(column, row),
            crs=self.crs,
            scene=self.source.name,
            source=str(self.source.path),
            acquired_at=self.acquired_at,
            processing_baseline=self.processing_baseline,
            scl=scl,
        )

    def with_bands(self, positions: Sequence[int], *notes: str) -> "SpectralImage":
        """The same image with some of its bands, in the order of ``positions``."""
        places = {position: place for place, position in enumerate(positions)}
        bands = tuple(self.bands[position] for position in positions)
        shown = [places[position] for position in self.default_bands or () if position in places]
        return replace(
            self,
            bands=bands,
            layers=tuple(self.layers[position] for position in positions),
            default_bands=(shown[0], shown[1], shown[2])
            if len(shown) == 3
            else visible_bands(bands),
            notes=(*self.notes, *notes),
        )


def spectral_image(
    source: ImageSource,
    pixels: PixelReader,
    shape: tuple[int, int],
    bands: Sequence[SpectralBand],
    *,
    left_out: Sequence[int] = (),
    default_bands: Sequence[int] | None = None,
    **fields: Any,  # noqa: ANN401 - handed on to SpectralImage as they come
) -> SpectralImage:
    """Put together what a format's header tells.

    Args:
        source: The file.
        pixels: Its reader.
        shape: Height and width in pixels.
        bands: One for each layer of the file.
        left_out: Positions of the layers that the file itself calls bad.
        default_bands: Positions, from 0, that the file wants shown; passed over with a note unless
            they are three that exist.
        **fields: Further fields of ``SpectralImage``.

    Raises:
        ImageryError: ``one-band``, if fewer than two bands are left; ``too-large``, if not even one
            row can be read without much memory.
    """
    notes = list(fields.pop("notes", ()))
    _check_row(source, shape[1] * len(bands))
    bad_bands = set(left_out)
    kept = [position for position in range(len(bands)) if position not in bad_bands]
    if len(kept) < MIN_BANDS:
        said = f", {len(left_out)} of them called bad" if left_out else ""
        raise ImageryError(
            f"{source.path}: it has {len(bands)} band{'s'[: len(bands) != 1]}{said}; a spectrum "
            f"needs at least {MIN_BANDS}. Name an image that holds all bands in one file, or the "
            "folder of its band files.",
            kind="one-band",
        )
    if left_out:
        bad = sorted(set(left_out))
        told = "1 band" if len(bad) == 1 else f"{len(bad)} bands"
        notes.append(f"left out {told} that the file calls bad ({runs(bad)})")
    shown = _shown(default_bands, len(bands))
    if default_bands is not None and shown is None:
        notes.append(f"default bands {list(default_bands)} are not three of its {len(bands)} bands")
    if not any(band.center_wavelength_um for band in bands):
        notes.append("no wavelengths: its bands are known by their position only")
    if fields.get("crs") is None:
        notes.append("no place on the map: what is made from it has none either")
    image = SpectralImage(
        source, tuple(bands), shape, pixels, tuple(range(len(bands))), default_bands=shown, **fields
    )
    return image.with_bands(kept, *notes)


def _check_row(source: ImageSource, values: int) -> None:
    if values > MAX_ROW_VALUES:
        raise ImageryError(
            f"{source.path}: each of its rows has {values:,} numbers; at most {MAX_ROW_VALUES:,} "
            "are read at once. Correct the order of its sides, or cut it into narrower images.",
            kind="too-large",
        )


def _shown(positions: Sequence[int] | None, count: int) -> tuple[int, int, int] | None:
    if positions is None or len(positions) != 3:
        return None
    red, green, blue = positions
    return (red, green, blue) if all(0 <= at < count for at in positions) else None


def runs(positions: Sequence[int]) -> str:
    """Positions from 0 as numbers from 1, neighbors together: ``1, 104-108, 220``."""
    parts: list[list[int]] = []
    for number in sorted(position + 1 for position in positions):
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def to_values(
    raw: npt.NDArray[Any],
    nodata: Sequence[float | None],
    scale: npt.NDArray[np.float64] | None = None,
    offset: npt.NDArray[np.float64] | None = None,
) -> FloatArray:
    """Stored numbers as float32 in the file's units.

    Args:
        raw: Shape ``(layer, y, x)``, of integers or floats.
        nodata: Of each layer, as stored; None where none is declared.
        scale: Factor of each layer.
        offset: Of each layer, added after scaling.

    Returns:
        Same shape; NaN where a layer is not finite or holds its nodata, and in all layers of a
        pixel where all of them are 0.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype(np.float32)
        if scale is not None:
            values = (values * scale[:, None, None]).astype(np.float32)
        if offset is not None:
            values = (values + offset[:, None, None]).astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    for layer, declared in zip(range(len(raw)), nodata, strict=True):
        if declared is not None and np.isfinite(declared):
            values[layer][raw[layer] == stored_as(declared, raw.dtype)] = np.nan
    values[:, ~raw.any(axis=0)] = np.nan
    return values


def stored_as(number: float, dtype: npt.DTypeLike) -> float:
    """A number as an array of a type holds it: headers write -3.4e38 for the least float32."""
    if np.dtype(dtype).kind != "f":
        return number
    with np.errstate(over="ignore"):
        return float(np.array(number).astype(dtype))
