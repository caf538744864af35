"""GeoTIFFs of any number of bands, in the units they are written in."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from indexer.errors import ImageryError
from indexer.imagery.hardening import check_geotiff_size, check_place
from indexer.imagery.rasters import open_raster, readable
from indexer.imagery.reader import time_in_tags
from indexer.imagery.sources import ImageSource
from indexer.imagery.spectral_bands import named_bands, wavelengths_um
from indexer.imagery.spectral_cube import Pixels, SpectralImage, spectral_image, to_values
from indexer.sensors import SCL, SENTINEL2_BANDS, canonical_band

# "551.2 nm", "0.5512 um", "Band 7 (551.2 Nanometers)".
_LENGTH = re.compile(
    r"(?<![\w.])(\d+(?:\.\d+)?)\s*(nm|um|µm|μm|nano-?met(?:er|re)s?|micro-?met(?:er|re)s?|microns?)\b",
    re.IGNORECASE,
)
_OWN_NUMBERING = re.compile(r"B\d{1,2}A?", re.IGNORECASE)
# How far a stated wavelength may lie from Sentinel-2's: its satellites differ by up to 17 nm.
_SAME_BAND_UM = 0.02


@dataclass(frozen=True)
class GeoTiffPixels:
    """The bands of a GeoTIFF; opened for each window."""

    source: ImageSource
    numbers: tuple[int, ...]
    """Layer of each band in the file, from 1."""
    masked: bool
    """Whether the file holds a mask or an opacity beside its bands."""
    block_rows: int

    def read(self, layers: Sequence[int], rows: slice, columns: slice) -> Pixels:
        """Read a window; see ``PixelReader``.

        Raises:
            ImageryError: ``unreadable``.
        """
        numbers = [self.numbers[layer] for layer in layers]
        window = Window.from_slices(rows, columns)
        with open_alone(self.source) as file:
            raw = file.read(numbers, window=window)
            hidden = file.read_masks(numbers[0], window=window) == 0 if self.masked else None
            nodata, scales, offsets = (
                [every[number - 1] for number in numbers]
                for every in (file.nodatavals, file.scales, file.offsets)
            )
        scale = np.array(scales) if set(scales) != {1.0} else None
        offset = np.array(offsets) if set(offsets) != {0.0} else None
        values = to_values(raw, nodata, scale, offset)
        if hidden is not None:
            values[:, hidden] = np.nan
        return Pixels(values)


@contextmanager
def open_alone(source: ImageSource) -> Iterator[DatasetReader]:
    """Open a GeoTIFF and nothing that it names or that lies beside it.

    Raises:
        ImageryError: ``unreadable``; whatever rasterio raises inside, too.
    """
    with readable(source), open_raster(str(source.path)) as file:
        yield file


def open_geotiff(source: ImageSource) -> SpectralImage:
    """Open a GeoTIFF by its header.

    Wavelengths are taken from GDAL's ``IMAGERY`` metadata, from the tags ``wavelength`` (of a band)
    or ``wavelengths`` (of the file), or from descriptions such as ``551.2 nm``.

    Raises:
        ImageryError: ``unreadable``, ``size-mismatch``, ``too-large`` or ``one-band``.
    """
    with open_alone(source) as file:
        check_geotiff_size(file, Path(source.path))
        check_place(file.transform, file.shape, source.path)
        if any(np.dtype(dtype).kind == "c" for dtype in map(_numpy_name, file.dtypes)):
            raise ImageryError(
                f"{source.path}: its numbers are complex ({file.dtypes[0]}); only real numbers are "
                "spectra. Write amplitudes instead.",
                kind="unreadable",
            )
        numbers = _spectral_layers(file)
        notes = [
            f"layer {number} is declared as opacity and taken as mask"
            for number in range(1, file.count + 1)
            if number not in numbers
        ]
        wavelengths, fwhm, note = _wavelengths(file, numbers)
        names = [_name(file.descriptions[number - 1]) for number in numbers]
        flags = {flag for every in file.mask_flag_enums for flag in every}
        return spectral_image(
            source,
            GeoTiffPixels(
                source, numbers, MaskFlags.per_dataset in flags, max(file.block_shapes)[0]
            ),
            (file.height, file.width),
            named_bands(len(numbers), names, wavelengths, fwhm),
            transform=file.transform,
            crs=file.crs,
            acquired_at=time_in_tags(file.tags()) or source.acquired_at,
            notes=[*notes, *([note] if note else [])],
        )


def sentinel2_bands(source: ImageSource) -> tuple[str, ...] | None:
    """Sentinel-2's bands in a GeoTIFF, where its descriptions name them in their own numbering.

    Common names such as ``red`` belong to any instrument, and so does a file of which most layers
    have other names, or that states other wavelengths.

    Returns:
        The bands in the order of the file, without the scene classification; None where it is
        none of Sentinel-2's.

    Raises:
        ImageryError: ``unreadable``, ``size-mismatch``, ``too-large`` or ``header-invalid``.
    """
    with open_alone(source) as file:
        check_geotiff_size(file, Path(source.path))
        numbers = _spectral_layers(file)
        descriptions = [file.descriptions[number - 1] or "" for number in numbers]
        named = [canonical_band(text) if _is_numbered(text) else None for text in descriptions]
        wavelengths, _, _ = _wavelengths(file, numbers)
    bands = [band for band in named if band and band != SCL]
    others = sum(band is None for band in named)
    if not bands or len(set(bands)) < len(bands) or others >= len(bands):
        return None
    for band, at in zip(named, wavelengths, strict=True):
        if at is None or band is None or band == SCL:
            continue
        if abs(SENTINEL2_BANDS[band].center_wavelength_um - at) > _SAME_BAND_UM:
            return None
    return tuple(bands)


def _spectral_layers(file: DatasetReader) -> tuple[int, ...]:
    """Numbers of the layers, from 1, that are no opacity."""
    roles = enumerate(file.colorinterp, start=1)
    return tuple(number for number, role in roles if role != ColorInterp.alpha)


def _is_numbered(text: str) -> bool:
    return text.strip().upper() == SCL or _OWN_NUMBERING.fullmatch(text.strip()) is not None


def _numpy_name(dtype: str) -> str:
    # GDAL has a complex type of two int16, which NumPy has not.
    return "complex64" if dtype.startswith("complex") else dtype


def _name(description: str | None) -> str | None:
    """A description, unless it is nothing but a wavelength."""
    if not description or _LENGTH.fullmatch(description.strip()):
        return None
    return description


def _wavelengths(
    file: DatasetReader, numbers: Sequence[int]
) -> tuple[list[float | None], list[float | None], str | None]:
    """Central wavelength and width of each layer in micrometers, and a note if units were guessed.

    Raises:
        ImageryError: ``header-invalid``, if the file's list is not as long as it has bands.
    """
    tags = [{key.lower(): text for key, text in file.tags(number).items()} for number in numbers]
    imagery = [file.tags(number, ns="IMAGERY") for number in numbers]
    widths = [_number(every.get("FWHM_UM")) for every in imagery]
    known = [_number(every.get("CENTRAL_WAVELENGTH_UM")) for every in imagery]
    if any(known):
        return known, widths, None
    whole = {key.lower(): text for key, text in file.tags().items()}
    listed = whole.get("wavelengths") or whole.get("wavelength")
    words = re.findall(r"[^\s,;{}\[\]()]+", listed or "")
    if listed and len(words) != len(numbers):
        raise ImageryError(
            f"{file.name}: its tag wavelengths has {len(words)} entries, but it has "
            f"{len(numbers)} bands. Correct the tag.",
            kind="header-invalid",
        )
    texts = words or [every.get("wavelength", "") for every in tags]
    units = next(
        (text for every in (whole, *tags) if (text := every.get("wavelength_units"))), None
    )
    if any(texts):
        stated = [_number(text) or 0.0 for text in texts]
        found, note, share = wavelengths_um(stated, units)
        own = [_number(every.get("fwhm")) for every in tags]
        return found, [None if width is None else width * share for width in own], note
    described = [_LENGTH.search(file.descriptions[number - 1] or "") for number in numbers]
    lengths = [_in_um(match) for match in described]
    return lengths, widths, None


def _in_um(match: re.Match[str] | None) -> float | None:
    if match is None:
        return None
    return float(match[1]) * (1e-3 if match[2].lower().startswith("n") else 1.0)


def _number(text: str | None) -> float | None:
    """A positive number at the start of a text, ``551.2`` or ``551.2 nm``."""
    match = re.match(r"\s*(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)", text or "")
    return float(match[1]) or None if match else None
