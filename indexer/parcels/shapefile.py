"""Whether a shapefile is whole, which GDAL does not tell: its parts, their sizes, its zip file."""

import glob
import struct
import zipfile
from pathlib import Path

from indexer.parcels.table import unreadable

_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf")


def check_shapefile(path: Path) -> None:
    """Compare sizes with headers: GDAL reads a truncated shapefile without a word.

    Raises:
        ParcelsError: If a part is missing or too short (``unreadable``).
    """
    parts = {part.suffix.lower(): part for part in path.parent.glob(f"{glob.escape(path.stem)}.*")}
    missing = [suffix for suffix in _SHAPEFILE_PARTS if suffix not in parts]
    if missing:
        raise unreadable(
            path,
            f"its {' and '.join(missing)} is missing",
            "Keep the files of a shapefile (.shp, .shx, .dbf, .prj) together.",
        )
    # ESRI Shapefile Technical Description (1998), p. 4: length in 16-bit words, big-endian.
    expected = {suffix: _header(parts[suffix], ">i", 24)[0] * 2 for suffix in (".shp", ".shx")}
    # dBASE III: number of records, bytes of the header, bytes of a record, little-endian.
    records, header_bytes, record_bytes = _header(parts[".dbf"], "<IHH", 4)
    expected[".dbf"] = header_bytes + records * record_bytes
    for suffix, size in expected.items():
        if (found := parts[suffix].stat().st_size) < size:
            raise unreadable(path, f"its {suffix} has {found} of {size} bytes")


def _header(path: Path, layout: str, offset: int) -> tuple[int, ...]:
    try:
        with path.open("rb") as file:
            return struct.unpack_from(layout, file.read(100), offset)
    except struct.error:
        raise unreadable(path, "it ends inside its header") from None


def shapefile_in_zip(path: Path) -> str:
    """Name of the only shapefile in a zip file.

    Raises:
        ParcelsError: If the zip file is damaged or holds none or several (``unreadable``).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # macOS packs a shadow of each file into a folder of its own.
            names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
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
    return found[0]
