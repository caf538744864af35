"""A class map as files that GIS programs show as it is meant: colors, names, no data.

``MAP.tif`` holds the classes and their colors. ``MAP.tif.aux.xml`` is GDAL's place for the names of
classes and their attribute table. ``MAP.qml`` is the style that QGIS opens the map with: a color
table of GDAL has 256 entries whatever the number of classes, and QGIS would list them all.
``MAP.json`` is the legend for programs, and remembers what a later map of the same place needs to
keep the names.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, DatasetWriter

from indexer.errors import InvalidInputError, StorageError
from indexer.imagery.rasters import open_raster
from indexer.mapping.colors import class_color, rgb
from indexer.mapping.names import NamedCenter

UInt8Array = npt.NDArray[np.uint8]

NO_DATA: Final = 0
"""Class of pixels without data; real classes count from 1."""

TILE_PX: Final = 256
"""Side of the tiles that maps are stored in."""

LEGEND_TYPE: Final = "parcelle class map"
"""What ``MAP.json`` says it is, so that no other file is taken for it, or overwritten."""


@dataclass(frozen=True)
class MapClass:
    """One class of a map."""

    number: int
    """1 for the largest, or the number of a stored cluster."""
    name: str | None
    """As somebody named it; None where nobody has."""
    pixels: int
    share: float
    """Of the pixels with data, 0 to 1."""
    mean: tuple[float, ...]
    """Mean of each band, in the unit of the image; empty, as what follows, of a stored cluster that
    holds no pixel."""
    std: tuple[float, ...]
    """Standard deviation of each band, likewise."""
    center: tuple[float, ...]
    """Mean of the features."""

    @property
    def color(self) -> str:
        """``#rrggbb``."""
        return class_color(self.number)

    @property
    def label(self) -> str:
        """What a legend says."""
        return self.name or f"class {self.number}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "class": self.number,
            "name": self.name,
            "color": self.color,
            "pixels": self.pixels,
            "share": round(self.share, 6),
            "mean_spectrum": [float(f"{value:.6g}") for value in self.mean],
            "std_spectrum": [float(f"{value:.6g}") for value in self.std],
            "center": list(self.center),
        }


@dataclass(frozen=True)
class EarlierMap:
    """What is remembered of a map that stood in the same place."""

    features: str
    """Digest of the features whose means the centers are."""
    centers: tuple[tuple[float, ...], ...]
    """Of all its classes."""
    names: tuple[NamedCenter, ...]
    """Its names, and those that it could not give to a class itself."""


def legend_path(out: Path) -> Path:
    """The legend beside a map."""
    return out.with_suffix(".json")


def attributes_path(out: Path) -> Path:
    """GDAL's file of names and attributes beside a map."""
    return out.with_name(f"{out.name}.aux.xml")


def style_path(out: Path) -> Path:
    """QGIS's style beside a map."""
    return out.with_suffix(".qml")


def check_target(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse a map that could not be written, before hours of work; make its folder.

    Args:
        out: The map.
        inputs: Files that must not be overwritten.

    Raises:
        InvalidInputError: ``invalid-option``, if the ending is not that of a GeoTIFF, or the map or
            its legend would replace an input or a file of another kind.
        StorageError: ``write-failed``.
    """
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise InvalidInputError(
            f"--out {out}: unknown ending {out.suffix or '(none)'!r}; a map is a GeoTIFF, .tif.",
            kind="invalid-option",
        )
    for path in (out, legend_path(out), attributes_path(out), style_path(out)):
        if path.is_dir() or any(path.exists() and path.samefile(one) for one in inputs):
            raise InvalidInputError(
                f"--out {out}: would replace {path}, which is a folder or an input; name another.",
                kind="invalid-option",
            )
    if legend_path(out).exists() and _read_legend(out) is None:
        raise InvalidInputError(
            f"--out {out}: its legend would replace {legend_path(out)}, which is none; name "
            "another map.",
            kind="invalid-option",
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(out, error) from error
    with written_aside(out) as aside:
        aside.touch()
        aside.unlink()


def read_earlier(out: Path) -> EarlierMap | None:
    """What is remembered of the map that stands at a path; None where there is none."""
    legend = _read_legend(out)
    if legend is None:
        return None
    try:
        centers = tuple(tuple(map(float, entry["center"])) for entry in legend["classes"])
        # Names of stored clusters are kept with these.
        own = () if legend.get("collection") else legend["classes"]
        named = [
            NamedCenter(str(entry["name"]), int(entry["class"]), tuple(map(float, entry["center"])))
            for entry in (*own, *legend["unmatched_names"])
            if entry["name"]
        ]
        return EarlierMap(str(legend["features"]["digest"]), centers, tuple(named))
    except (KeyError, TypeError, ValueError):
        return None


def _read_legend(out: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(legend_path(out).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(content, dict) and content.get("type") == LEGEND_TYPE
    return content if ours else None


@contextmanager
def class_raster(
    path: Path, shape: tuple[int, int], transform: Affine, crs: CRS | None
) -> Iterator[DatasetWriter]:
    """Open a raster of classes for writing, tile by tile; all is no data at first."""
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": shape[0],
        "width": shape[1],
        "nodata": NO_DATA,
        "tiled": True,
        "blockxsize": TILE_PX,
        "blockysize": TILE_PX,
        "compress": "deflate",
        "bigtiff": "if_safer",
        "crs": crs,
    }
    if transform != Affine.identity():
        profile["transform"] = transform
    with _quiet(), rasterio.open(path, "w", **profile) as raster:
        yield raster


@contextmanager
def opened_map(path: Path) -> Iterator[DatasetReader]:
    """Open a map for reading."""
    with _quiet(), open_raster(str(path)) as raster:
        yield raster


def write_class_map(
    out: Path,
    found: Path,
    numbers: UInt8Array,
    classes: Sequence[MapClass],
    about: Mapping[str, Any],
    tags: Mapping[str, str],
) -> list[Path]:
    """Write a map of classes that were found, under their final numbers, and its legend.

    Args:
        out: The map, ``.tif``.
        found: Raster of the classes as they were found, on the same grid.
        numbers: Final number of each class of ``found``; position 0 is no data.
        classes: In the order of their final numbers.
        about: Goes into the legend beside the classes.
        tags: Go into the map.

    Returns:
        The files written: map, attributes, style, legend.

    Raises:
        StorageError: ``write-failed``; what stood there stays.
    """
    names = json.dumps({str(one.number): one.label for one in classes}, ensure_ascii=False)
    with written_aside(out) as aside:
        with (
            opened_map(found) as source,
            class_raster(aside, source.shape, source.transform, source.crs) as raster,
        ):
            for _, window in source.block_windows(1):
                raster.write(numbers[source.read(1, window=window)], 1, window=window)
            colors = {one.number: (*rgb(one.color), 255) for one in classes}
            raster.write_colormap(1, {NO_DATA: (0, 0, 0, 0), **colors})
            raster.set_band_description(1, "class")
            raster.update_tags(PARCELLE_CLASSES=names, **tags)
    with written_aside(attributes_path(out)) as aside:
        aside.write_bytes(_attributes(classes))
    with written_aside(style_path(out)) as aside:
        aside.write_bytes(_style(classes))
    content = {"type": LEGEND_TYPE, **about, "classes": [one.to_dict() for one in classes]}
    with written_aside(legend_path(out)) as aside:
        aside.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return [out, attributes_path(out), style_path(out), legend_path(out)]


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path beside the target to write to; what was written takes its place in the end.

    Raises:
        StorageError: ``write-failed``; what stood at the target stays.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        yield aside
        if aside.exists():
            os.replace(aside, path)
    except (OSError, RasterioError) as error:
        raise _not_written(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def _not_written(path: Path, error: Exception) -> StorageError:
    reason = getattr(error, "strerror", None) or error
    return StorageError(
        f"{path}: cannot be written ({reason}); what stood there stays.", kind="write-failed"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # An image that lies nowhere gives a map that lies nowhere.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


# Columns of the attribute table: name, type and usage, as GDALRATFieldType and GDALRATFieldUsage
# number them (https://gdal.org/en/stable/doxygen/gdal_8h.html).
_INTEGER, _TEXT = 0, 2
_COLUMNS: Final = (
    ("Value", _INTEGER, 5),
    ("Class", _TEXT, 2),
    ("Count", _INTEGER, 1),
    ("Red", _INTEGER, 6),
    ("Green", _INTEGER, 7),
    ("Blue", _INTEGER, 8),
)


def _attributes(classes: Sequence[MapClass]) -> bytes:
    """Names and attribute table as GDAL keeps them beside a raster."""
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    categories = ElementTree.SubElement(band, "CategoryNames")
    for label in ("no data", *(one.label for one in classes)):
        ElementTree.SubElement(categories, "Category").text = label
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for position, (name, kind, usage) in enumerate(_COLUMNS):
        column = ElementTree.SubElement(table, "FieldDefn", index=str(position))
        ElementTree.SubElement(column, "Name").text = name
        ElementTree.SubElement(column, "Type").text = str(kind)
        ElementTree.SubElement(column, "Usage").text = str(usage)
    for position, one in enumerate(classes):
        row = ElementTree.SubElement(table, "Row", index=str(position))
        for value in (one.number, one.label, one.pixels, *rgb(one.color)):
            ElementTree.SubElement(row, "F").text = str(value)
    return _xml(root)


def _style(classes: Sequence[MapClass]) -> bytes:
    """Colors and names as QGIS keeps them for a layer (``QgsPalettedRasterRenderer``)."""
    root = ElementTree.Element("qgis", version="3.0")
    renderer = ElementTree.SubElement(
        ElementTree.SubElement(root, "pipe"),
        "rasterrenderer",
        type="paletted",
        band="1",
        opacity="1",
        alphaBand="-1",
    )
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for one in classes:
        ElementTree.SubElement(
            palette,
            "paletteEntry",
            value=str(one.number),
            color=one.color,
            alpha="255",
            label=one.label,
        )
    return _xml(root)


def _xml(root: ElementTree.Element) -> bytes:
    """UTF-8 without a declaration: GDAL passes over a file of attributes that begins with one."""
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode").encode() + b"\n"
