"""Sentinel-2 products as they are delivered: a folder ``X.SAFE``, or a zip file that holds one."""

import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from indexer.archives import ZIP_ERRORS, TooLargeError, is_bomb, leads_out, opened_zip
from indexer.errors import ImageryError
from indexer.imagery.hardening import MAX_TEXT_BYTES
from indexer.imagery.safe_metadata import ProductMetadata, parse_metadata
from indexer.plain_text import is_plain
from indexer.sensors import SCL, SENTINEL2_BANDS

MAX_BAND_BYTES: Final = 1 << 30
"""Largest band file in a zip file; the pixels of a 10 m band take 230 MiB uncompressed."""

MAX_ENTRIES: Final = 100_000
"""Most files of a zip file; a product has about 100."""

# JPEG 2000 is compressed already. What shrinks more than this, and is not small, is no image.
_MAX_RATIO = 100
_SMALL_BYTES = 8 << 20

_SUFFIX = ".safe"
_METADATA = re.compile(
    r"(MTD_MSIL(?P<level>1C|2A)|S2\w_(OPER|USER)_MTD_SAFL(?P<older>1C|2A)_\w+)\.xml", re.IGNORECASE
)
_IMAGE = re.compile(
    r"GRANULE/(?P<granule>[^/]+)/IMG_DATA/(?:R(?P<folder>\d\d)m/)?(?P<stem>[^/]+)\.jp2",
    re.IGNORECASE,
)
# T31TCJ_20210701T105031_B02_10m, L2A_T31TCJ_..._B02_10m, S2A_OPER_MSI_L1C_TL_..._T31TCJ_B02, and
# S2A_USER_SCL_L2A_TL_..._T31TCJ_20m, which names its kind in the middle.
_BAND = re.compile(r"_(?P<band>B\d\d|B8A)(?:_(?P<gsd>\d\d)m)?", re.IGNORECASE)
_CLASSES = re.compile(r"_SCL(?:_(?P<gsd>\d\d)m|_L2A_\w*?_(?P<older>\d\d)m)?", re.IGNORECASE)
_IN_PRODUCT = re.compile(r"(?P<root>(?:[^/]+/)*?)GRANULE/[^/]+/IMG_DATA/", re.IGNORECASE)
# Sentinel-1 delivers folders of that ending, too, with GeoTIFFs in them.
_OF_RADAR = re.compile(r"S1[A-Z]_", re.IGNORECASE)
_PRODUCT_NAME = re.compile(r"S2[A-Z]_(\w+_)?MSIL(1C|2A)_|.*\.SAFE$", re.IGNORECASE)


@dataclass(frozen=True)
class BandFile:
    """One band of a product, or its scene classification."""

    band: str
    path: str
    """As ``rasters.open_raster`` takes it."""
    name: str
    """In the product."""


@dataclass(frozen=True)
class Product:
    """A product, listed and its metadata read; no image of it is open yet."""

    bands: tuple[BandFile, ...]
    """Each band once, at its finest."""
    metadata: ProductMetadata | None
    """None where it has no metadata file: its name may tell."""


class _Members(Protocol):
    """The files of a product, wherever they lie; names use ``/`` and start at its root."""

    def names(self) -> Iterable[str]: ...

    def raster(self, name: str) -> str: ...

    def read(self, name: str) -> bytes: ...


def is_product_folder(folder: Path, entries: Iterable[str] | None = None) -> bool:
    """Whether a folder is a product, as its name or what lies in it tell.

    Args:
        folder: Any path.
        entries: Names of what lies in it, where they are known already.
    """
    if folder.suffix.lower() == _SUFFIX and not _OF_RADAR.match(folder.name):
        return folder.is_dir()
    if entries is None:
        try:
            entries = os.listdir(folder)
        except OSError:
            return False
    names = set(entries)
    described = (name == "manifest.safe" or _METADATA.fullmatch(name) for name in names)
    return "GRANULE" in names and any(described)


def is_zip(path: Path) -> bool:
    """Whether a file is called a zip file."""
    return path.suffix.lower() == ".zip"


def may_hold_product(path: Path) -> bool:
    """Whether a zip file that nobody named holds a product, or is called as if it did."""
    if _PRODUCT_NAME.match(path.stem):
        return True
    try:
        return bool(_roots(_entries(path)))
    except ImageryError:
        return False


def product_names(path: Path) -> list[str]:
    """Names of the products at a path, without ``.SAFE``.

    Args:
        path: A product's folder, or a zip file. One that holds no product, or cannot be read, is
            named by its own name: opening it says what is wrong.
    """
    if path.is_dir():
        return [_without_suffix(os.path.basename(os.path.abspath(path)))]
    try:
        roots = _roots(_entries(path))
    except ImageryError:
        roots = []
    return sorted({_root_name(path, root) for root in roots}) or [_without_suffix(path.stem)]


def open_product(path: Path, name: str) -> Product:
    """List a product and read its metadata.

    Args:
        path: Its folder, or the zip file that holds it.
        name: One of ``product_names``.

    Raises:
        ImageryError: ``no-product``, if there is none; ``several-granules``; ``unsafe-path``, if a
            file of it leads out of it; ``header-invalid``, if its metadata cannot be used;
            ``too-large``; ``unreadable``.
    """
    members: _Members = _Folder(path) if path.is_dir() else _zip(path, name)
    names = list(members.names())
    return Product(_bands(path, members, names), _metadata(path, members, names))


def _bands(path: Path, members: _Members, names: Iterable[str]) -> tuple[BandFile, ...]:
    images = [match for name in names if (match := _IMAGE.fullmatch(name))]
    granules = sorted({match["granule"] for match in images})
    if not granules:
        raise ImageryError(
            f"{path}: holds no Sentinel-2 product with images in GRANULE/*/IMG_DATA; name a "
            "Level-1C or Level-2A product, as a .SAFE folder or a zip file of one.",
            kind="no-product",
        )
    if len(granules) > 1:
        raise ImageryError(
            f"{path}: holds {len(granules)} granules ({', '.join(granules[:3])}...); use the "
            "product of one tile, as all are since 2016.",
            kind="several-granules",
        )
    finest: dict[str, tuple[int, str]] = {}
    for match in images:
        found = _band_of(match)
        if found is not None:
            band, gsd_m = found
            finest[band] = min(finest.get(band, (gsd_m, match[0])), (gsd_m, match[0]))
    return tuple(
        BandFile(band, members.raster(name), name) for band, (_, name) in sorted(finest.items())
    )


def _band_of(image: re.Match[str]) -> tuple[str, int] | None:
    """The band of an image and its pixel size in meters; None for other images of a product."""
    stem = image["stem"]
    if match := list(_BAND.finditer(stem))[-1:]:
        (found,) = match
        band, gsd = found["band"].upper(), found["gsd"]
        if found.end() != len(stem) or band not in SENTINEL2_BANDS:
            return None
        native = SENTINEL2_BANDS[band].gsd_m
    elif classes := _CLASSES.search(stem):
        if classes.end() != len(stem):
            return None
        band, gsd, native = SCL, classes["gsd"] or classes["older"], 20
    else:
        return None
    return band, int(gsd or image["folder"] or native)


def _metadata(path: Path, members: _Members, names: Iterable[str]) -> ProductMetadata | None:
    found = sorted(name for name in names if _METADATA.fullmatch(name))
    if not found:
        return None
    # Where a Level-2A product still has the metadata of its Level-1C beside it, its own come last.
    return parse_metadata(members.read(found[-1]), f"{path}: {found[-1]}")


def _without_suffix(name: str) -> str:
    return name[: -len(_SUFFIX)] if name.lower().endswith(_SUFFIX) else name


# A folder ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Folder:
    root: Path

    def names(self) -> Iterator[str]:
        for path in self._listed(self.root):
            if path.name.upper() == "GRANULE":
                for granule in self._listed(path):
                    yield from self._images(granule)
            else:
                yield path.name

    def raster(self, name: str) -> str:
        return str(self._inside(name))

    def read(self, name: str) -> bytes:
        try:
            with self._inside(name).open("rb") as file:
                content = file.read(MAX_TEXT_BYTES + 1)
        except OSError as error:
            raise _unreadable(self.root, name, error) from error
        return _checked_text(content, self.root, name)

    def _images(self, granule: Path) -> Iterator[str]:
        for folder in self._listed(granule):
            if folder.name.upper() != "IMG_DATA":
                continue
            for entry in self._listed(folder):
                below = self._listed(entry) if entry.is_dir() else [entry]
                yield from (path.relative_to(self.root).as_posix() for path in below)

    def _listed(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            return []
        try:
            return sorted(folder.iterdir())
        except OSError as error:
            raise _unreadable(self.root, folder.name, error) from error

    def _inside(self, name: str) -> Path:
        """The file, which may be a link to another of the product, but not to anything else."""
        path = self.root / name
        try:
            real, root = path.resolve(), self.root.resolve()
        except (OSError, RuntimeError) as error:
            raise _unreadable(self.root, name, error) from error
        if not real.is_relative_to(root) or real.suffix.lower() != path.suffix.lower():
            raise ImageryError(
                f"{self.root}: {name} is a link to {real}, which is no such file of the product; "
                "put the file itself there.",
                kind="unsafe-path",
            )
        if not real.is_file():
            raise _unreadable(self.root, name, "it is no file")
        return path


# A zip file -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Zip:
    path: Path
    root: str
    """Of the product in the zip file; empty, or ends in ``/``."""
    entries: dict[str, zipfile.ZipInfo]
    """By their name in the product."""

    def names(self) -> Iterable[str]:
        return self.entries

    def raster(self, name: str) -> str:
        entry = self.entries[name]
        self._check(name, entry)
        archive = os.path.abspath(self.path)
        # Braces say where its path ends, unless there are some in it.
        marked = archive if "{" in archive or "}" in archive else f"{{{archive}}}"
        return f"/vsizip/{marked}/{entry.filename}"

    def read(self, name: str) -> bytes:
        entry = self.entries[name]
        self._check(name, entry)
        try:
            with opened_zip(self.path) as file, file.open(entry) as member:
                content = member.read(MAX_TEXT_BYTES + 1)
        except ZIP_ERRORS as error:
            raise _unreadable(self.path, name, error) from error
        return _checked_text(content, self.path, name)

    def _check(self, name: str, entry: zipfile.ZipInfo) -> None:
        """Hold what the directory states against what can be, before anything is unpacked."""
        if entry.flag_bits & 1:
            raise _unreadable(self.path, name, "it is encrypted")
        if entry.file_size > MAX_BAND_BYTES or is_bomb(entry, _MAX_RATIO, _SMALL_BYTES):
            raise ImageryError(
                f"{self.path}: {name} would unpack from {entry.compress_size} to "
                f"{entry.file_size} bytes, as no band does; fetch the product again.",
                kind="too-large",
            )


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    """The files of a zip file, as its directory lists them.

    Raises:
        ImageryError: ``unreadable``; ``unsafe-path``; ``too-large``.
    """
    try:
        with opened_zip(path) as file:
            entries = [entry for entry in file.infolist() if not entry.is_dir()]
    except TooLargeError as error:
        raise ImageryError(
            f"{path}: {error}; a product has about 100 files. Unpack it first.", kind="too-large"
        ) from error
    except ZIP_ERRORS as error:
        raise ImageryError(
            f"{path}: cannot be read as zip file ({error}); it may be truncated. Fetch it again.",
            kind="unreadable",
        ) from error
    if len(entries) > MAX_ENTRIES:
        raise ImageryError(
            f"{path}: holds {len(entries)} files; a product has about 100. Unpack it first.",
            kind="too-large",
        )
    names: set[str] = set()
    for entry in entries:
        name = entry.filename
        unsafe = leads_out(name) or not is_plain(name)
        if unsafe or name in names:
            what = "twice the file" if name in names else "a file that leads out of it,"
            raise ImageryError(
                f"{path}: lists {what} {name[:200]!r}; fetch the product again.",
                kind="unsafe-path",
            )
        names.add(name)
    return entries


def _zip(path: Path, name: str) -> _Zip:
    entries = _entries(path)
    roots = [root for root in _roots(entries) if _root_name(path, root) == name]
    if len(roots) > 1:
        raise ImageryError(
            f"{path}: holds {len(roots)} products called {name}; unpack it and name one.",
            kind="several-granules",
        )
    root = roots[0] if roots else ""
    inside = {
        entry.filename[len(root) :]: entry for entry in entries if entry.filename.startswith(root)
    }
    return _Zip(path, root, inside)


def _roots(entries: Iterable[zipfile.ZipInfo]) -> list[str]:
    """The folders of a zip file that are products."""
    matches = (_IN_PRODUCT.match(entry.filename) for entry in entries)
    return sorted({match["root"] for match in matches if match})


def _root_name(path: Path, root: str) -> str:
    return _without_suffix(PurePosixPath(root).name if root else path.stem)


def _checked_text(content: bytes, product: Path, name: str) -> bytes:
    if len(content) > MAX_TEXT_BYTES:
        raise ImageryError(
            f"{product}: {name} is larger than {MAX_TEXT_BYTES >> 20} MiB, so no metadata; fetch "
            "the product again.",
            kind="header-invalid",
        )
    return content


def _unreadable(product: Path, name: str, why: object) -> ImageryError:
    return ImageryError(
        f"{product}: {name} cannot be read ({why}); fetch the product again.", kind="unreadable"
    )
