"""The one door to raster files: which driver reads what, and what GDAL may do meanwhile."""

import os
import re
import stat
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.io import DatasetReader

from indexer.errors import ImageryError
from indexer.imagery.hardening import ALONE
from indexer.imagery.sources import Source

REMOTE: Final[dict[str, str]] = {
    **ALONE,
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl?",
}
"""Settings of GDAL under which a GeoTIFF is read over HTTP, and nothing beside it; how long a
server is waited for stands in the path (``remote_path``). What was fetched is forgotten when the
file is closed: GDAL would remember even that a server failed."""

SLOW_BYTES_PER_S: Final = 1000
"""A server that sends less for a while counts as silent."""

BLOCK_CACHE_MIB: Final = 256
"""Decoded blocks that GDAL keeps for all files of the process together."""

MAX_HELD: Final = 64
"""Files that a thread keeps open; a scene has at most 14."""

# The options name limits of time only: no headers, passwords or other services.
_HTTP = re.compile(
    r"/vsicurl\?(?:(?:connecttimeout|timeout|low_speed_time|low_speed_limit|max_retry|retry_delay)"
    r"=[0-9.]+&)*list_dir=no&url=(?P<url>https?%3A%2F%2F[^&]+)"
)
# Braces may mark where the archive's path ends.
_IN_ZIP = re.compile(r"/vsizip/\{?(?P<archive>/(?!vsi).*?\.zip)\}?/(?P<member>.+)", re.IGNORECASE)


@dataclass
class _Held(threading.local):
    """The files that this thread keeps open, the last used last."""

    depth: int = 0
    settings: Mapping[str, str] | None = None
    """Of GDAL, as they are in force in this thread."""
    files: OrderedDict[str, DatasetReader] = field(default_factory=OrderedDict)
    used: list[str] = field(default_factory=list)
    """Those that somebody reads just now."""


_held = _Held()


@contextmanager
def open_raster(path: str) -> Iterator[DatasetReader]:
    """Open a GeoTIFF or a JPEG 2000 file, and nothing that it names or that lies beside it.

    Args:
        path: Of a local file; ``/vsizip/{/archive.zip}/member.jp2``; or what ``remote_path``
            makes for a GeoTIFF on a server. What ends in ``.jp2`` is read as JPEG 2000, all else as
            GeoTIFF.

    Yields:
        The open file, with GDAL set up for it; within ``held_open`` it is perhaps an earlier one.

    Raises:
        RasterioIOError: If it cannot be opened; whatever rasterio raises inside, too. See
            ``readable``.
    """
    with _in_force(_settings(path)):
        if not _held.depth:
            with _open(path) as file:
                yield file
            return
        file = _held_file(path)
        _held.used.append(path)
        try:
            yield file
        finally:
            _held.used.remove(path)


@contextmanager
def open_written_envi(data: Path) -> Iterator[DatasetReader]:
    """Open an ENVI image that was written here, to learn where its header puts it.

    Args:
        data: The file of numbers, in a folder of its own: GDAL's driver finds the header only where
            it may list the folder.

    Raises:
        RasterioError: If the header cannot be understood.
    """
    with (
        rasterio.Env(**ALONE | {"GDAL_DISABLE_READDIR_ON_OPEN": "FALSE"}),
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.open(data, driver="ENVI") as file,
    ):
        yield file


def remote_path(
    url: str,
    *,
    connect_s: float,
    silence_s: float,
    request_s: float,
    retries: int,
    delay_s: float,
) -> str:
    """The path under which a GeoTIFF on a server is opened.

    The limits travel in the path, since the file may be read long after it was opened and on
    another thread. Measured with GDAL 3.10: they hold for every request, requests wait without the
    interpreter's lock, and a failed one is an error, never wrong pixels.

    Args:
        url: Of the file, ``http`` or ``https``.
        connect_s: Longest wait for a connection.
        silence_s: Longest time below ``SLOW_BYTES_PER_S``; GDAL takes whole seconds.
        request_s: Longest time of one request.
        retries: Further attempts of one request.
        delay_s: Wait before the second attempt; further ones are longer.
    """
    limits = {
        "connecttimeout": connect_s,
        "timeout": request_s,
        "low_speed_time": max(1, round(silence_s)),
        "low_speed_limit": SLOW_BYTES_PER_S,
        "max_retry": retries,
        "retry_delay": delay_s,
    }
    options = "".join(f"{name}={value:g}&" for name, value in limits.items())
    return f"/vsicurl?{options}list_dir=no&url={quote(url, safe='')}"


def shown_path(path: str) -> str:
    """A path as messages show it: an address without its limits and token, a name in a zip file."""
    if match := _HTTP.fullmatch(path):
        return unquote(match["url"]).partition("?")[0]
    match = _IN_ZIP.fullmatch(path)
    return match["member"] if match else path


@contextmanager
def held_open() -> Iterator[None]:
    """Keep files open that ``open_raster`` opens in this thread meanwhile.

    Windows of one scene are then read without opening its files again, and what GDAL decoded for
    one window serves its neighbors.
    """
    _held.depth += 1
    try:
        with _in_force(ALONE):
            yield
    finally:
        _held.depth -= 1
        if not _held.depth:
            while _held.files:
                _held.files.popitem()[1].close()


def hold_in_this_thread() -> None:
    """As ``held_open``, until the thread ends."""
    _held.depth += 1


@contextmanager
def readable(source: Source, path: str | None = None) -> Iterator[None]:
    """Turn what rasterio raises into an error that names the image.

    Args:
        source: The image.
        path: The one of its files that is read, as given to ``open_raster``; it is named, too.

    Raises:
        ImageryError: ``unreadable``.
    """
    try:
        with warnings.catch_warnings():
            # An image without georeference is legal; what needs one checks for it.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    # GDAL's own errors pass through rasterio where it asks for a reference system that is damaged.
    except (
        RasterioError,
        CRSError,
        CPLE_BaseError,
        OSError,
        MemoryError,
        UnicodeDecodeError,
    ) as error:
        detail = error.__cause__ or error
        kind = "JPEG 2000" if path is not None and _is_jp2(path) else "GeoTIFF"
        if path is not None and path.startswith("/vsi"):
            # GDAL names an address without its first slash.
            shown = shown_path(path)
            detail = str(detail).replace(path, shown).replace(path.lstrip("/"), shown)
        file = "" if path is None or path == source.location else f" {shown_path(path)}"
        raise ImageryError(
            f"{source.location}:{file} cannot be read as {kind} ({detail}); the file may be "
            "truncated or of another format. Fetch it again.",
            kind="unreadable",
        ) from error


@contextmanager
def _in_force(settings: Mapping[str, str]) -> Iterator[None]:
    """Have GDAL work under these settings; to change them takes longer than to read a window."""
    if _held.settings is settings:
        yield
        return
    before = _held.settings
    _limit_block_cache()
    with rasterio.Env(**settings):
        _held.settings = settings
        try:
            yield
        finally:
            _held.settings = before


def _open(path: str) -> DatasetReader:
    if path.startswith("/vsi"):
        if not (_HTTP.fullmatch(path) or _IN_ZIP.fullmatch(path)):
            raise RasterioIOError(f"{path}: no file of this machine")
    else:
        # A name such as http:/a.tif is that of a file here.
        path = os.path.abspath(path)
        _check_is_file(path)
    # Naming the driver keeps other formats, VRT above all, from being read under a .tif name. A
    # GeoTIFF may still name any other file as its overviews, so read at full resolution only.
    if _is_jp2(path):
        return rasterio.open(path, driver="JP2OpenJPEG")
    return rasterio.open(path, driver="GTiff")


def _check_is_file(path: str) -> None:
    """A pipe would be waited for without end, and a device may do anything."""
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError) as error:
        raise RasterioIOError(f"{path}: {error}") from None
    if not is_file:
        raise RasterioIOError(f"{path}: it is no file")


def _settings(path: str) -> Mapping[str, str]:
    if not _HTTP.fullmatch(path):
        return ALONE
    # A GeoTIFF may name other files, on whatever server.
    return {**REMOTE, "CPL_VSIL_CURL_ALLOWED_FILENAME": path}


def _is_jp2(path: str) -> bool:
    return path.lower().endswith(".jp2") and not path.startswith("/vsicurl")


def _held_file(path: str) -> DatasetReader:
    file = _held.files.get(path)
    if file is None:
        while len(_held.files) >= MAX_HELD and (idle := _idle()) is not None:
            _held.files.pop(idle).close()
        file = _held.files[path] = _open(path)
    _held.files.move_to_end(path)
    return file


def _idle() -> str | None:
    """The file that nobody has read for longest."""
    return next((path for path in _held.files if path not in _held.used), None)


def _limit_block_cache() -> None:
    """GDAL would take a share of the machine's memory, whatever else runs on it."""
    most = BLOCK_CACHE_MIB << 20
    if get_gdal_config("GDAL_CACHEMAX") != most and "GDAL_CACHEMAX" not in os.environ:
        set_gdal_config("GDAL_CACHEMAX", most)
