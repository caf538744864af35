"""Which images a command line names: files, folders, globs, folders of bands, products."""

import glob
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from indexer.errors import InvalidInputError
from indexer.imagery.safe import is_product_folder, is_zip, may_hold_product, product_names
from indexer.imagery.scanning import glob_base, matches, unsafe_name, walk, why_refused
from indexer.plain_text import is_plain, plain
from indexer.sensors import HAND_PROCESSED, canonical_band, parse_baseline, radar_file
from indexer.skipped import Skipped

EXTENSIONS = (".tif", ".tiff")

_BAND_SUFFIX = re.compile(
    r"^(?:(?P<name>.+?)_)?(?P<band>B\d{1,2}A?|SCL)(?:_\d{2}m)?$", re.IGNORECASE
)
_DATE_TIME = re.compile(r"(?<!\d)(20\d{2})(\d{2})(\d{2})[Tt](\d{5,6})(?!\d)")
_DATE = re.compile(r"(?<!\d)(20\d{2})-?(\d{2})-?(\d{2})(?!\d)")
_BASELINE = re.compile(r"(?:^|_)N(\d{4})(?:_|$)")


class Source(Protocol):
    """Where one acquisition comes from: files on disk, or an item of a catalog."""

    @property
    def name(self) -> str:
        """Of the acquisition; its chips carry it as their scene."""

    @property
    def location(self) -> str:
        """Path or URL, for messages and to find it again."""

    @property
    def class_name(self) -> str | None:
        """The class folder that the image lies in, where images lie in class folders."""

    @property
    def acquired_at(self) -> datetime | None:
        """Acquisition time, aware UTC, as far as it is known without opening anything."""

    @property
    def processing_baseline(self) -> str | None:
        """Sentinel-2 processing baseline, likewise."""


@dataclass(frozen=True)
class ImageSource:
    """One acquisition on disk: a multi-band file, a folder of one file per band, or a product."""

    name: str
    """The file's stem, or the name that the band files share, else that of their folder; of a
    product its own, without ``.SAFE``."""
    path: Path
    """The file, the folder of band files, or the product's folder or zip file."""
    files: tuple[tuple[str | None, Path], ...]
    """Band name and file; the name is None for a multi-band file, and for a product."""
    class_name: str | None = None
    """The class folder that the image lies in, where images lie in class folders."""
    kind: Literal["image", "safe"] = "image"
    """Whether it is a Sentinel-2 product, which says itself where its bands are."""

    @property
    def location(self) -> str:
        """The path, for messages and to find it again."""
        return str(self.path)

    @property
    def is_band_folder(self) -> bool:
        """Whether each band has a file of its own."""
        return self.files[0][0] is not None

    @property
    def acquired_at(self) -> datetime | None:
        """Acquisition time as the name, else the folder's name, tells it."""
        folder = self.path if self.is_band_folder else self.path.parent
        return time_in_name(self.name) or time_in_name(folder.name)

    @property
    def processing_baseline(self) -> str | None:
        """Processing baseline in a Sentinel-2 product name (``_N0510_``)."""
        match = _BASELINE.search(self.name)
        baseline = parse_baseline(match[1]) if match else None
        return None if baseline == HAND_PROCESSED else baseline


def time_in_name(name: str) -> datetime | None:
    """The first date in a file name, aware UTC: ``20170924T93021``, ``2021-07-01``, ``20210701``.

    BigEarthNet writes the hour without its leading zero, hence five digits after the T.
    """
    match = _DATE_TIME.search(name)
    if match:
        text = "".join(match.groups()[:3]) + match[4].zfill(6)
        pattern = "%Y%m%d%H%M%S"
    else:
        match = _DATE.search(name)
        if match is None:
            return None
        text, pattern = "".join(match.groups()), "%Y%m%d"
    try:
        return datetime.strptime(text, pattern).replace(tzinfo=UTC)
    except ValueError:
        return None


def find_sources(imagery: Sequence[str | Path]) -> tuple[list[ImageSource], list[Skipped]]:
    """Resolve files, folders (searched in depth) and globs to acquisitions, in the order named.

    The images of one folder or glob come in alphabetical order. Images that lie in subfolders of
    what was named carry the subfolder's name as class, unless that name is a date.

    Args:
        imagery: Paths or glob patterns, as on the command line.

    Returns:
        The acquisitions, and what was named but cannot be one.

    Raises:
        InvalidInputError: If nothing at all was found (``no-imagery``).
    """
    skipped: list[Skipped] = []
    found: dict[Path, Path] = {}
    explicit: list[Path] = []
    for item in imagery:
        path, before = Path(item), len(skipped)
        if path.is_file() and not is_plain(str(path)):
            skipped.append(unsafe_name(path))
        elif path.is_file() and (_is_geotiff(path) or is_zip(path)):
            explicit.append(path)
            found[path] = path.parent
        elif path.is_file():
            skipped.append(Skipped(str(path), "unreadable", _no_image(path)))
        elif files := _expand(str(item), skipped):
            found.update(files)
        elif len(skipped) == before:
            there_is = path.is_dir() or glob.has_magic(str(item))
            what = "no GeoTIFF found there" if there_is else "no such file or folder"
            shown = plain(str(item))
            reason = f"{shown}: {what}; check the path."
            skipped.append(Skipped(shown, "file-not-found", reason))
    if explicit:
        base = Path(os.path.commonpath([_absolute(file.parent) for file in explicit]))
        found.update({file: base for file in explicit})
    if not found:
        named = ", ".join(map(str, imagery))
        found_what = f"No GeoTIFF found in {named}" if named else "No GeoTIFF found: none is named"
        refused = next((one.reason for one in skipped if one.kind != "file-not-found"), "")
        raise InvalidInputError(
            f"{found_what}. {f'{refused} ' if refused else ''}Name GeoTIFF files, Sentinel-2 "
            "products (.SAFE folders or zip files of them), a folder of these, or a quoted glob; "
            "or a catalog with --stac.",
            kind="no-imagery",
        )
    return _group(found), skipped


def source_at(path: Path, name: str) -> ImageSource | None:
    """An acquisition that ``find_sources`` found before, by its path and name; None if it is gone.

    Args:
        path: The file, the folder of band files, or the product's folder or zip file.
        name: Of the acquisition: a folder or zip file may hold several.
    """
    if path.is_dir() and not is_product_folder(path):
        files = sorted(file for file in path.iterdir() if _is_geotiff(file))
    elif path.is_dir():
        files = [path]
    else:
        files = [path] if path.is_file() and (_is_geotiff(path) or is_zip(path)) else []
    found = _group({file: file.parent for file in files})
    return next((one for one in found if (one.path, one.name) == (path, name)), None)


def _no_image(path: Path) -> str:
    if path.suffix.lower() == ".jp2":
        return (
            f"{path}: a JPEG 2000 file is read only as part of a Sentinel-2 product; name the "
            "product's .SAFE folder or zip file, or convert it to GeoTIFF."
        )
    return f"{path}: neither a GeoTIFF ({', '.join(EXTENSIONS)}) nor a zip file of a product."


def _expand(item: str, skipped: list[Skipped]) -> dict[Path, Path]:
    """The images in a folder or behind a glob, each with the folder that classes lie below."""
    if Path(item).is_dir():
        found = _images_in(Path(item), skipped)
        return {file: _base_of(file, Path(item)) for file in found}
    base = glob_base(item)
    images: dict[Path, Path] = {}
    for match in matches(item, _may_be_image, skipped):
        if match.is_dir() and match.is_symlink() and not is_product_folder(match):
            continue
        if match.is_dir():
            images.update({file: base for file in _images_in(match, skipped)})
        else:
            images[match] = base
    return _outside_of_products(images)


def _base_of(file: Path, named: Path) -> Path:
    return file.parent if file == named else named


def _images_in(root: Path, skipped: list[Skipped]) -> list[Path]:
    """GeoTIFFs in a folder, at any depth, and products, which are not searched themselves."""
    images: list[Path] = []
    for folder in walk(root, _may_be_image, skipped):
        if is_product_folder(folder.path, folder.entries):
            images.append(folder.path)
            folder.folders.clear()
            continue
        # Links to folders are not followed, but one to a product is the product.
        for name in folder.folders:
            path = folder.path / name
            if path.is_symlink() and is_product_folder(path):
                why = why_refused(path, root.resolve(), is_folder=True)
                if why is None:
                    images.append(path)
                else:
                    skipped.append(why)
        paths = [folder.path / name for name in folder.files]
        images += [path for path in paths if _is_geotiff(path) or may_hold_product(path)]
    return sorted(images)


def _outside_of_products(images: dict[Path, Path]) -> dict[Path, Path]:
    """A glob such as ``**`` matches what lies in products, too."""
    products = {path for path in images if path.is_dir()}
    return {path: base for path, base in images.items() if products.isdisjoint(path.parents)}


def _is_geotiff(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def _may_be_image(name: str) -> bool:
    return name.lower().endswith((*EXTENSIONS, ".zip"))


def _absolute(folder: Path) -> str:
    return os.path.abspath(folder)


def _group(files: dict[Path, Path]) -> list[ImageSource]:
    """Put files that differ only in their band suffix together, where the first of them stands."""
    groups: dict[tuple[Path, str], list[tuple[str | None, Path]]] = defaultdict(list)
    products: set[Path] = set()
    for file in files:
        if not _is_geotiff(file):
            products.add(file)
            groups.update({(file, name): [(None, file)] for name in product_names(file)})
            continue
        named = _named_band(file.stem)
        if named:
            shared, band = named
            name = shared or os.path.basename(_absolute(file.parent))
            groups[file.parent, name].append((band, file))
        else:
            groups[file, file.stem].append((None, file))
    return [
        ImageSource(
            name,
            path,
            tuple(members),
            _class_of(path, name, files[members[0][1]]),
            "safe" if path in products else "image",
        )
        for (path, name), members in groups.items()
    ]


def _named_band(stem: str) -> tuple[str, str] | None:
    """What the band files of an acquisition share, perhaps nothing, and this one's band."""
    match = _BAND_SUFFIX.match(stem)
    band = canonical_band(match["band"]) if match else None
    return (match["name"] or "", band) if match and band else radar_file(stem)


def _class_of(path: Path, name: str, base: Path) -> str | None:
    """The class folder of a file or of a folder of bands, which lies below ``base``."""
    if not path.is_dir() or is_product_folder(path):
        return _class_name(path.parent, base)
    if _same(path, base):
        return None
    # BigEarthNet gives each patch a folder; the class folder, if any, lies above it.
    return _class_name(path.parent if path.name == name else path, base)


def _class_name(folder: Path, base: Path) -> str | None:
    if _same(folder, base) or time_in_name(folder.name):
        return None
    return folder.name or None


def _same(folder: Path, other: Path) -> bool:
    return _absolute(folder) == _absolute(other)
