"""Images from strangers: one GeoTIFF, whose size is known before any pixel is read."""

import math
import re
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import rasterio

from indexer.errors import ImageryError
from indexer.imagery.chip import Chip
from indexer.imagery.hardening import ALONE
from indexer.imagery.reader import ReadingOptions, Scene, check_chip_size, readable
from indexer.imagery.sources import find_sources

MAX_LAYERS: Final = 64
"""More than any multispectral product stacks in one file."""

MAX_BLOCK_BYTES: Final = 64 << 20
"""A file states the size of its blocks, and GDAL allocates one before it looks at the image's."""

_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_NAME: Final = 120


def read_upload(content: bytes, name: str, options: ReadingOptions) -> Chip:
    """Read an image that came over the network, as a chip.

    Args:
        content: Of a GeoTIFF file.
        name: What its sender calls it; a time or baseline in it counts as in any file's name.
        options: What the file does not say itself.

    Raises:
        ImageryError: If it is no GeoTIFF, lacks a band, or is larger than a chip may be.
    """
    stem = _UNUSUAL.sub("_", Path(name).stem)[:_MAX_NAME] or "upload"
    with tempfile.TemporaryDirectory(prefix="parcelle-") as folder, rasterio.Env(**ALONE):
        path = Path(folder) / f"{stem}.tif"
        path.write_bytes(content)
        try:
            return _read(path, options)
        except ImageryError as error:
            # Where it lay for a moment is nobody's business.
            raise ImageryError(
                error.message.replace(str(path), f"{stem}.tif"), kind=error.kind
            ) from None


def _read(path: Path, options: ReadingOptions) -> Chip:
    (source,), _ = find_sources([path])
    with readable(source), rasterio.open(path, driver="GTiff") as file:
        layers = file.count
        block_bytes = max(
            math.prod(shape) * np.dtype(dtype).itemsize
            for shape, dtype in zip(file.block_shapes, file.dtypes, strict=True)
        )
    if layers > MAX_LAYERS or block_bytes > MAX_BLOCK_BYTES:
        raise ImageryError(
            f"{path}: {layers} layers in blocks of {block_bytes / 2**20:.0f} MiB; at most "
            f"{MAX_LAYERS} layers in blocks of {MAX_BLOCK_BYTES >> 20} MiB are read. Cut the image "
            "to a chip first.",
            kind="too-large",
        )
    scene = Scene.open(source, options)
    check_chip_size(scene)
    return scene.read()
