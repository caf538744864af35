"""What keeps a file from being read as more than itself: its name, its size, its neighbors."""

import math
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from affine import Affine
from rasterio.io import DatasetReader

from indexer.errors import ImageryError, NotFoundError

ALONE: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
}
"""Settings of GDAL under which no file beside an image, and none that it names, is looked at, and
nothing is asked of a network."""

MAX_TEXT_BYTES: Final = 16 << 20
"""Largest header or sidecar that is read; those of 2,000 bands take 100 KiB."""

MAX_BANDS: Final = 65_535
"""Most bands of an image, as many as a TIFF may have (TIFF 6.0, SamplesPerPixel)."""

# How far a pixel may be from where the map puts it back.
_SAME_PX: Final = 0.01
_MAX_BLOCK_BYTES: Final = 512 << 20
# Deflate cannot do better than 1,032 to 1 (https://zlib.net/zlib_tech.html); a track that leaves
# nearly all of its rectangle empty stays below this with any method.
_MAX_COMPRESSION: Final = 2_000


def named_file(path: Path) -> Path:
    """The file that a path names, without links; a link may not hide another kind of file.

    Raises:
        NotFoundError: ``file-not-found``.
        ImageryError: ``unreadable``, if it is a link to a file with another ending, or no file.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such file; check the path.", kind="file-not-found")
    real = path.resolve()
    if real.suffix.lower() != path.suffix.lower():
        raise ImageryError(
            f"{path}: is a link to {real}, which has another ending; name that file itself.",
            kind="unreadable",
        )
    if not real.is_file():
        raise ImageryError(f"{path}: is no file; name an image file.", kind="unreadable")
    return real


def companion_file(path: Path, of: Path) -> Path:
    """A file beside an image that nobody named; it may not lead out of the folder.

    Args:
        path: Beside ``of``, and known to exist.
        of: The file that was named.

    Raises:
        ImageryError: ``unreadable``, if it is a link to another folder or no file.
    """
    real = path.resolve()
    if real.parent != path.parent.resolve() or not real.is_file():
        raise ImageryError(
            f"{of}: {path.name} beside it is a link to {real}; put the file itself there.",
            kind="unreadable",
        )
    return real


def read_text(path: Path) -> str:
    """A header or sidecar as text, UTF-8 or else Latin-1.

    Raises:
        ImageryError: ``header-invalid``, if it is too large to be one; ``unreadable``.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise ImageryError(f"{path}: cannot be read ({error}).", kind="unreadable") from error
    if len(content) > MAX_TEXT_BYTES:
        raise ImageryError(
            f"{path}: larger than {MAX_TEXT_BYTES >> 20} MiB, so no header; name the header.",
            kind="header-invalid",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def check_file_size(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int = 0
) -> None:
    """Hold what a header states against the size of the file, before any pixel is read.

    Args:
        path: The file that holds the pixels, uncompressed.
        shape: Of the array, in any order.
        dtype: Of its numbers.
        offset: Bytes before the first number.

    Raises:
        ImageryError: ``size-mismatch``, with both sizes.
    """
    stated = math.prod(shape) * dtype.itemsize + offset
    found = path.stat().st_size
    if stated != found:
        sides = " x ".join(map(str, shape))
        raise ImageryError(
            f"{path}: the header states {sides} numbers of {dtype.itemsize} bytes"
            f"{f' after {offset} bytes' if offset else ''}, {stated} bytes in all, but the file "
            f"holds {found}; fetch it again, or correct the header.",
            kind="size-mismatch",
        )


def check_bands(path: Path, count: int) -> None:
    """Refuse a header of more bands than any image has, before each of them is described.

    A file that was never filled takes no room on disk, so its size tells nothing.

    Raises:
        ImageryError: ``too-large``.
    """
    if count > MAX_BANDS:
        raise ImageryError(
            f"{path}: states {count} bands; at most {MAX_BANDS} are read. Correct the header, or "
            "the order of its sides.",
            kind="too-large",
        )


def check_place(transform: Affine, shape: tuple[int, int], location: str | Path) -> None:
    """Refuse a file that puts its pixels nowhere, or where they cannot be told apart.

    Args:
        transform: Pixel to map coordinates.
        shape: Height and width in pixels.
        location: Of the file, for the message.

    Raises:
        ImageryError: ``unreadable``.
    """
    height, width = shape
    back = (math.nan, math.nan)
    if transform.determinant != 0:
        back = ~transform @ (transform @ (width, height))
    # Numbers that are none are not close to anything.
    if not (abs(back[0] - width) < _SAME_PX and abs(back[1] - height) < _SAME_PX):
        raise ImageryError(
            f"{location}: its pixels lie nowhere on the map ({tuple(transform)[:6]}); it may be "
            "damaged. Fetch it again.",
            kind="unreadable",
        )


def check_geotiff_size(file: DatasetReader, path: Path) -> None:
    """Refuse a GeoTIFF whose header states far more than the file can hold.

    Raises:
        ImageryError: ``size-mismatch``, with both sizes; ``too-large``, if one block does not fit
            into memory.
    """
    check_block_size(file, path)
    sizes = [_item_bytes(dtype) for dtype in file.dtypes]
    nbits = file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "")
    bits = int(nbits) if re.fullmatch(r"\d{1,2}", nbits, re.ASCII) else 8 * sizes[0]
    stated = file.width * file.height * sum(sizes) * bits // (8 * sizes[0])
    found = path.stat().st_size
    if stated > found * (_MAX_COMPRESSION if file.compression else 1):
        raise ImageryError(
            f"{path}: its header states {file.height} x {file.width} px x {file.count} bands, "
            f"{stated} bytes, but the file holds {found}; it is truncated or has no pixels. Fetch "
            "it again.",
            kind="size-mismatch",
        )


def check_block_size(file: DatasetReader, path: str | Path) -> None:
    """Refuse a file of which not even one block can be read without much memory.

    Raises:
        ImageryError: ``too-large``.
    """
    block = max(math.prod(shape) for shape in file.block_shapes)
    block *= max(_item_bytes(dtype) for dtype in file.dtypes)
    # GDAL unpacks all layers of JPEG 2000 at once. It must not be asked how these lie: to answer,
    # it goes through all boxes of the file, and one that is damaged may keep it for minutes.
    if file.driver != "GTiff" or str(file.interleaving).upper().endswith("PIXEL"):
        block *= file.count
    if block > _MAX_BLOCK_BYTES:
        raise ImageryError(
            f"{path}: its pixels come in blocks of {block >> 20} MiB; at most "
            f"{_MAX_BLOCK_BYTES >> 20} MiB are read at once. Write it again with tiles: "
            "gdal_translate -co TILED=YES.",
            kind="too-large",
        )


def _item_bytes(dtype: str) -> int:
    # GDAL has a complex type of two int16, which NumPy has not.
    return 4 if dtype == "complex_int16" else np.dtype(dtype).itemsize
