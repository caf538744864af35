"""Whether a shapefile is whole, which GDAL does not tell: its parts, their sizes, its zip file."""

import glob
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from indexer.archives import ZIP_ERRORS, TooLargeError, is_bomb, leads_out, opened_zip
from indexer.parcels.hardening import too_large
from indexer.parcels.table import unreadable

_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf")
_HEADER_BYTES: Final = 100

# The sizes in the headers of shapefiles end at 4 GiB.
_MAX_PART_BYTES: Final = 4 << 30
# The blanks of a table of text shrink well; coordinates hardly do.
_MAX_RATIO: Final = 200
_SMALL_BYTES: Final = 64 << 20


def check_shapefile(path: Path) -> None:
    """Compare sizes with headers: GDAL reads a truncated shapefile without a word.

    Raises:
        ParcelsError: If a part is missing or too short (``unreadable``).
    """
    beside = list(path.parent.glob(f"{glob.escape(path.stem)}.*"))
    _check_companions(path, beside)
    parts = {part.suffix.lower(): part for part in beside}
    missing = [suffix for suffix in _SHAPEFILE_PARTS if suffix not in parts]
    if missing:
        raise unreadable(
            path,
            f"its {' and '.join(missing)} is missing",
            "Keep the files of a shapefile (.shp, .shx, .dbf, .prj) together.",
        )
    for suffix in _SHAPEFILE_PARTS:
        part = parts[suffix]
        with part.open("rb") as file:
            size = _stated_size(path, suffix, file.read(_HEADER_BYTES))
        if (found := part.stat().st_size) < size:
            raise unreadable(path, f"its {suffix} has {found} of {size} bytes")


def _check_companions(path: Path, parts: Iterable[Path]) -> None:
    """GDAL opens what lies beside a shapefile under its name, so none of it may lead elsewhere."""
    folder = path.resolve().parent
    for part in parts:
        real = part.resolve()
        if part.is_dir():
            continue
        if real.parent not in (folder, path.parent.resolve()) or not real.is_file():
            raise unreadable(
                path,
                f"{part.name} beside it is no file of its folder",
                "Put the file itself there.",
            )


def _stated_size(path: Path, suffix: str, header: bytes) -> int:
    """Bytes that a part of a shapefile has, as its header states them."""
    try:
        if suffix == ".dbf":
            # dBASE III: number of records, bytes of the header, bytes of a record, little-endian.
            records, header_bytes, record_bytes = struct.unpack_from("<IHH", header, 4)
            return int(header_bytes + records * record_bytes)
        # ESRI Shapefile Technical Description (1998), p. 4: length in 16-bit words, big-endian.
        return int(struct.unpack_from(">i", header, 24)[0]) * 2
    except struct.error:
        raise unreadable(path, "it ends inside its header") from None


def shapefile_in_zip(path: Path) -> str:
    """Name of the only shapefile in a zip file.

    Raises:
        ParcelsError: If the zip file is damaged or holds none or several (``unreadable``), or would
            unpack to far more than it takes (``too-large``).
    """
    try:
        with opened_zip(path) as archive:
            # macOS packs a shadow of each file into a folder of its own.
            entries = [
                entry for entry in archive.infolist() if not entry.filename.startswith("__MACOSX/")
            ]
            _check_entries(path, entries)
            names = [entry.filename for entry in entries]
            damaged = archive.testzip()
    except TooLargeError as error:
        raise too_large(path, str(error)) from error
    except ZIP_ERRORS as error:
        raise unreadable(path, error) from error
    if damaged:
        raise unreadable(path, f"{damaged} in it is damaged")
    found = [name for name in names if name.lower().endswith(".shp")]
    if len(found) != 1:
        raise unreadable(
            path,
            f"it holds {len(found)} shapefiles ({', '.join(names[:5])})",
            "Zip one shapefile, or unpack it and name the file inside.",
        )
    parts = {found[0].lower().removesuffix(".shp") + suffix for suffix in _SHAPEFILE_PARTS}
    if missing := parts - {name.lower() for name in names}:
        raise unreadable(path, f"it lacks {', '.join(sorted(missing))}")
    _check_parts_in_zip(path, entries, found[0])
    return found[0]


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Hold what the list of files states against what can be, before anything is unpacked."""
    for entry in entries:
        if leads_out(entry.filename):
            raise unreadable(path, f"it lists {entry.filename[:60]!r}, which leads out of it")
        if entry.file_size > _MAX_PART_BYTES or is_bomb(entry, _MAX_RATIO, _SMALL_BYTES):
            raise too_large(
                path,
                f"its {entry.filename[:60]} would unpack from {entry.compress_size} to "
                f"{entry.file_size} bytes, as no shapefile does",
            )


def _check_parts_in_zip(path: Path, entries: list[zipfile.ZipInfo], shapefile: str) -> None:
    """As ``check_shapefile``: GDAL trusts what the headers state."""
    stem = shapefile.lower().removesuffix(".shp")
    with opened_zip(path) as archive:
        for entry in entries:
            suffix = entry.filename.lower().removeprefix(stem)
            if suffix not in _SHAPEFILE_PARTS:
                continue
            with archive.open(entry) as part:
                size = _stated_size(path, suffix, part.read(_HEADER_BYTES))
            if entry.file_size < size:
                raise unreadable(path, f"its {suffix} has {entry.file_size} of {size} bytes")
