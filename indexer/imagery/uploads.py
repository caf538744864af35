"""Images from strangers: one GeoTIFF, whose size is known before any pixel is read."""

import math
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import rasterio

from indexer.errors import ImageryError
from indexer.imagery.chip import Chip
from indexer.imagery.hardening import ALONE
from indexer.imagery.rasters import open_raster
from indexer.imagery.reader import MAX_CHIP_PX, ReadingOptions, Scene, readable
from indexer.imagery.sources import ImageSource, find_sources
from indexer.imagery.spectral_bands import SpectralBand
from indexer.imagery.spectral_sources import SpectralReading

MAX_LAYERS: Final = 64
"""More than any multispectral product stacks in one file."""

MAX_SPECTRAL_LAYERS: Final = 512
"""More than any hyperspectral instrument measures, where an encoder asks for bands of its own."""

MAX_SPECTRAL_VALUES: Final = 2**24
"""Pixels x bands of an image for such an encoder: as many as a chip of 16 bands may have."""

MAX_BLOCK_BYTES: Final = 64 << 20
"""A file states the size of its blocks, and GDAL allocates one before it looks at the image's."""

# What GDAL and NumPy say of it comes as text alone.
_OUT_OF_MEMORY: Final = re.compile(r"(?i)(?:cannot|unable to) allocate|out of memory")
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_NAME: Final = 120


def read_upload(
    content: bytes,
    name: str,
    options: ReadingOptions,
    wanted: tuple[SpectralBand, ...] | None = None,
) -> Chip:
    """Read an image that came over the network, as a chip.

    Args:
        content: Of a GeoTIFF file.
        name: What its sender calls it; a time or baseline in it counts as in any file's name.
        options: What the file does not say itself.
        wanted: Bands of an encoder that was trained on bands of its own; None reads those of
            ``options``.

    Raises:
        ImageryError: If it is no GeoTIFF, lacks a band, or is larger than a chip may be.
        MemoryError: If there is not enough memory for its pixels.
    """
    stem = upload_name(name)
    with tempfile.TemporaryDirectory(prefix="parcelle-") as folder, rasterio.Env(**ALONE):
        path = Path(folder) / f"{stem}.tif"
        path.write_bytes(content)
        try:
            return replace(_read(path, options, wanted), source=path.name)
        except ImageryError as error:
            if _OUT_OF_MEMORY.search(error.message):
                raise MemoryError from None
            # Where it lay for a moment is nobody's business.
            raise ImageryError(
                error.message.replace(str(path), path.name), kind=error.kind
            ) from None


def upload_name(name: str) -> str:
    """What an upload is called by, from what its sender calls it: short, and without a path."""
    return _UNUSUAL.sub("_", Path(name).stem)[:_MAX_NAME] or "upload"


def _read(path: Path, options: ReadingOptions, wanted: tuple[SpectralBand, ...] | None) -> Chip:
    (source,), _ = find_sources([path])
    most_layers = MAX_LAYERS if wanted is None else MAX_SPECTRAL_LAYERS
    with readable(source), open_raster(str(path)) as file:
        layers, height, width = file.count, file.height, file.width
        block_bytes = max(
            math.prod(shape) * np.dtype(dtype).itemsize
            for shape, dtype in zip(file.block_shapes, file.dtypes, strict=True)
        )
    if layers > most_layers or block_bytes > MAX_BLOCK_BYTES:
        raise ImageryError(
            f"{path}: {layers} layers in blocks of {block_bytes / 2**20:.0f} MiB; at most "
            f"{most_layers} layers in blocks of {MAX_BLOCK_BYTES >> 20} MiB are read. Cut the "
            "image to a chip first.",
            kind="too-large",
        )
    if wanted is not None:
        return _read_wanted(path, options, wanted)
    # Before its layers are looked at, of which a sparse scene holds none.
    if max(height, width) > MAX_CHIP_PX:
        raise ImageryError(
            f"{path}: {height} x {width} px is a scene, not a chip (at most {MAX_CHIP_PX} px a "
            "side). Cut the image to a chip first.",
            kind="too-large",
        )
    return Scene.open(source, options).read()


def _read_wanted(path: Path, options: ReadingOptions, wanted: tuple[SpectralBand, ...]) -> Chip:
    bands = None if options.bands is None else ",".join(options.bands)
    reading = SpectralReading(wanted, bands, options.baseline)
    image = reading.open(ImageSource(path.stem, path, ((None, path),)))
    height, width = image.shape
    if height * width * len(wanted) > MAX_SPECTRAL_VALUES:
        raise ImageryError(
            f"{path}: {height} x {width} px of {len(wanted)} bands are too much for a question (at "
            f"most {MAX_SPECTRAL_VALUES:,} values). Cut the image to a chip first.",
            kind="too-large",
        )
    return image.read()
