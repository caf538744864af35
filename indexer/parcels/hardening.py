"""What keeps a parcels file from being read as more than itself: its content, its size, its SQL.

GDAL takes a file for what its content says, whatever it is called: a ``.geojson`` may name other
files or servers to be read in its place. So the content must be of the ending's format, and what a
format may hold beside parcels (views, virtual tables, links to reference systems) is refused.
"""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final

from indexer.errors import ParcelsError
from indexer.parcels.table import unreadable

MAX_FILE_BYTES: Final = 64 << 30
"""Largest parcels file; the register of a country takes 10 GB."""

MAX_FEATURES: Final = 20_000_000
"""Most features of one file."""

MAX_COLUMNS: Final = 2_000
"""Most columns, as many as a table of SQLite has."""

MAX_TABLE_BYTES: Final = 32 << 30
"""Most that the columns of one file may take in memory."""

MAX_CORNERS: Final = 1_000_000
"""Most corners of one parcel; the largest of real registers have some ten thousand."""

_STARTS: Final = {
    ".gpkg": ("GeoPackage", (b"SQLite format 3\x00",)),
    # ESRI Shapefile Technical Description (1998), p. 4: file code 9994, big-endian.
    ".shp": ("a shapefile", (b"\x00\x00\x27\x0a",)),
    ".zip": ("a zip file", (b"PK\x03\x04", b"PK\x05\x06")),
    ".parquet": ("Parquet", (b"PAR1",)),
    ".geoparquet": ("Parquet", (b"PAR1",)),
    # RFC 8259 and, for sequences of texts, RFC 8142.
    ".geojson": ("GeoJSON", (b"{", b"\x1e")),
    ".json": ("GeoJSON", (b"{", b"\x1e")),
}
_BLANK: Final = b"\xef\xbb\xbf \t\r\n"
_START_BYTES: Final = 4096

_MAX_LINE_BYTES: Final = 16 << 20

_SQLITE_STEPS: Final = 20_000_000
"""Instructions of SQLite's machine until a look at a schema is given up."""

_MAX_SCHEMA_ROWS: Final = 20_000
_GEOPACKAGE_TABLES: Final = ("gpkg_contents", "gpkg_geometry_columns", "gpkg_spatial_ref_sys")
_VIRTUAL = re.compile(r"create(?:\s|/\*.*?\*/|--[^\n]*\n)+virtual\b", re.IGNORECASE | re.DOTALL)
_RTREE = re.compile(
    r"""create\s+virtual\s+table\s+(?:"(?:[^"]|"")*"|\[[^\]]*\]|`(?:[^`]|``)*`|\w+)\s+using\s+"""
    r"rtree\s*\(",
    re.IGNORECASE,
)

# The member crs of GeoJSON, in any case and with letters as escapes, which GDAL takes as well.
_CRS_MEMBER = re.compile(
    rb'"(?:[cC]|\\u00[46]3)(?:[rR]|\\u00[57]2)(?:[sS]|\\u00[57]3)"\s*:\s*(?=\{)'
)
_MAX_CRS_BYTES: Final = 64 << 10
_CRS_NAME = re.compile(
    r"(?:urn:(?:x-)?ogc:def:crs:[\w.:-]{1,80}|(?:EPSG|ESRI|OGC|IGNF|IAU_2015):{1,2}\w{1,32}"
    r"|https?://(?:www\.)?opengis\.net/def/crs/[\w./-]{1,80})",
    re.IGNORECASE,
)
_WKT = re.compile(r"[A-Z_]{3,}\s*[\[(]", re.IGNORECASE)
# Where the text of a reference system names files: parameters of PROJ, ParameterFile of WKT 2
# (ISO 19162), GDAL's extension of WKT 1, and values of PROJJSON that are no numbers.
_NAMED_FILES = re.compile(
    r"""\+\w+=([^\s"']+)"""
    r"""|(?:PARAMETERFILE\s*[\[(]\s*"[^"]*"\s*,|PROJ4_GRIDS"\s*,|"value"\s*:)\s*"([^"]*)""",
    re.IGNORECASE,
)


def check_content(path: Path) -> None:
    """Hold the beginning of a file, and its size, against its ending.

    Raises:
        ParcelsError: ``unreadable``; ``too-large``.
    """
    what, starts = _STARTS[path.suffix.lower()]
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    if b"{" in starts:
        start = start.lstrip(_BLANK)
    if not start.startswith(starts):
        raise unreadable(path, f"its content is not {what}")
    if size > MAX_FILE_BYTES:
        raise too_large(path, f"has {size >> 30} GiB; at most {MAX_FILE_BYTES >> 30} GiB are read")


def too_large(path: Path, found: str) -> ParcelsError:
    """The error of a file that states, or holds, more than is read."""
    return ParcelsError(f"{path}: {found}. Cut it into several files.", kind="too-large")


def is_sequence(path: Path) -> bool:
    """Whether a file of GeoJSON holds one feature a line, and no collection around them."""
    with path.open("rb") as file:
        first = file.readline(_MAX_LINE_BYTES).lstrip(_BLANK)
    if first.startswith(b"\x1e"):
        return True
    try:
        found = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("type") == "Feature" and _goes_on(path)


def _goes_on(path: Path) -> bool:
    with path.open("rb") as file:
        file.readline(_MAX_LINE_BYTES)
        return bool(file.read(_START_BYTES).strip())


# GeoPackage -------------------------------------------------------------------------------------


def check_geopackage(path: Path) -> None:
    """Refuse a GeoPackage that would run SQL of its own when it is read.

    Triggers run only when something is written, and are let be.

    Raises:
        ParcelsError: ``unreadable``, if it holds views, virtual tables but for the index of its
            geometries, or columns that are computed, or is no GeoPackage.
    """
    try:
        with _opened_schema(path) as database:
            rows = database.execute(
                "SELECT type, name, sql, rootpage FROM sqlite_master LIMIT ?", (_MAX_SCHEMA_ROWS,)
            ).fetchall()
            _check_schema(path, rows)
            for kind, name, *_ in rows:
                if kind == "table" and _has_computed_columns(database, name):
                    raise _refused_sql(path, f"computed columns ({_short(name)})")
    # Python cannot decode some messages about names that are no UTF-8.
    except (sqlite3.Error, UnicodeError) as error:
        raise unreadable(path, error) from error


def _check_schema(path: Path, rows: list[Any]) -> None:
    if len(rows) >= _MAX_SCHEMA_ROWS:
        raise too_large(path, f"holds more than {_MAX_SCHEMA_ROWS} tables and triggers")
    tables = set()
    for kind, name, sql, root in rows:
        text = sql if isinstance(sql, str) else ""
        if kind == "view":
            raise _refused_sql(path, f"views ({_short(name)})")
        if kind != "table":
            continue
        if (not root or _VIRTUAL.match(text.lstrip())) and not _RTREE.match(text.strip()):
            raise _refused_sql(path, f"virtual tables ({_short(name)})")
        tables.add(str(name).lower())
    missing = [name for name in _GEOPACKAGE_TABLES if name not in tables]
    if missing:
        raise unreadable(path, f"it has no table {', '.join(missing)}, so it is no GeoPackage")


@contextmanager
def _opened_schema(path: Path) -> Iterator[sqlite3.Connection]:
    address = path.absolute().as_uri()
    with closing(sqlite3.connect(f"{address}?mode=ro", uri=True)) as database:
        database.set_progress_handler(lambda: 1, _SQLITE_STEPS)
        # Names that are no UTF-8 are no reason to fail in another way than others.
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
            database.execute(f"PRAGMA {pragma}")
        yield database


def _has_computed_columns(database: sqlite3.Connection, table: object) -> bool:
    # Hidden columns of kind 2 and 3 are generated (https://sqlite.org/pragma.html).
    found = database.execute("SELECT 1 FROM pragma_table_xinfo(?) WHERE hidden > 1", (table,))
    return found.fetchone() is not None


def _refused_sql(path: Path, what: str) -> ParcelsError:
    return unreadable(
        path,
        f"it holds {what}, whose SQL would be run to read it",
        "Export the layer of parcels into a GeoPackage of its own.",
    )


def _short(name: object) -> str:
    return str(name)[:60]


# Reference systems ------------------------------------------------------------------------------


def check_geojson_crs(path: Path) -> None:
    """Refuse a GeoJSON file whose reference system would be fetched.

    Raises:
        ParcelsError: ``crs-missing``.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        for member in _CRS_MEMBER.finditer(content):
            text = content[member.end() : member.end() + _MAX_CRS_BYTES].decode("utf-8", "replace")
            try:
                crs, _ = json.JSONDecoder().raw_decode(text)
            except (ValueError, RecursionError):
                raise _refused_crs(path, "a text that is no JSON") from None
            _check_member(path, crs)


def _check_member(path: Path, crs: dict[str, Any]) -> None:
    named = {key.lower(): value for key, value in crs.items()}
    properties = named.get("properties")
    kind = str(named.get("type", "")).lower()
    if kind in ("link", "url") or (isinstance(properties, dict) and _has_link(properties)):
        raise _refused_crs(path, "a link")
    if isinstance(properties, dict):
        for key, value in properties.items():
            if key.lower() == "name" and isinstance(value, str):
                check_reference(path, value)


def _has_link(properties: dict[str, Any]) -> bool:
    return any(key.lower() in ("href", "url") for key in properties)


def check_reference(path: Path, text: str) -> None:
    """Refuse the text of a reference system that names files or addresses.

    Args:
        path: The file that holds it.
        text: A name of an authority, WKT, PROJJSON or parameters of PROJ.

    Raises:
        ParcelsError: ``crs-missing``.
    """
    text = text.strip()
    if _CRS_NAME.fullmatch(text):
        return
    if not (_WKT.match(text) or text.startswith(("{", "+proj="))):
        raise _refused_crs(path, repr(text[:60]))
    for match in _NAMED_FILES.finditer(text):
        named = match[1] or match[2] or ""
        if re.search(r"[/\\:]", named):
            raise _refused_crs(path, f"the file {named[:60]!r}")


def _refused_crs(path: Path, what: str) -> ParcelsError:
    return ParcelsError(
        f"{path}: names {what} as its reference system (CRS), which is not looked up; set a code "
        "such as EPSG:4326, for example with QGIS or ogr2ogr -a_srs.",
        kind="crs-missing",
    )
