"""Open GeoPackage, GeoJSON, Shapefile and GeoParquet."""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import shapely

from indexer.errors import NotFoundError
from indexer.parcels.columns import ID_COLUMNS
from indexer.parcels.geoparquet import bounded, flat, from_wkb, read_geoparquet, scalar_columns
from indexer.parcels.hardening import (
    MAX_COLUMNS,
    check_content,
    check_geojson_crs,
    check_geopackage,
    check_reference,
    is_sequence,
    too_large,
)
from indexer.parcels.lonlat import placed_crs
from indexer.parcels.shapefile import check_shapefile, shapefile_in_zip
from indexer.parcels.table import Table, unreadable

# Nothing is asked of a network, and no SQL of a file reads other files.
_ALONE: Final = {
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "OGR_SQLITE_ALLOW_EXTERNAL_ACCESS": "NO",
    "OGR_SQLITE_LOAD_EXTENSIONS": "",
}
# What JSON of unexpected shape leads to.
_MALFORMED: Final = (AttributeError, LookupError, RecursionError, TypeError)


def open_table(path: Path, notes: list[str]) -> Table:
    """Open a file of any of the formats.

    Raises:
        NotFoundError: If there is no such file (``file-not-found``).
        ParcelsError: If it cannot be read (``unreadable``) or placed on Earth (``crs-missing``).
    """
    if not path.is_file():
        raise NotFoundError(
            f"{path}: no such file; check the path of the parcels file.", kind="file-not-found"
        )
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise unreadable(
            path,
            f"its extension is {path.suffix or 'missing'}",
            "Use GeoPackage (.gpkg), GeoJSON (.geojson, .json), Shapefile (.shp, .zip) or "
            "GeoParquet (.parquet, .geoparquet).",
        )
    check_content(path)
    # A name such as WFS:http://... is that of a file here.
    return _FORMATS[suffix](path, os.path.abspath(path), notes)


def _open_geopackage(path: Path, real: str, notes: list[str]) -> Table:
    check_geopackage(path)
    return _open_with_gdal(path, real, notes)


def _open_geojson(path: Path, real: str, notes: list[str]) -> Table:
    check_geojson_crs(path)
    # The prefix keeps other formats of JSON, some of which name other files, from being read.
    driver = "GeoJSONSeq" if is_sequence(path) else "GeoJSON"
    return _with_feature_ids(_open_with_gdal(path, f"{driver}:{real}", notes))


def _open_shapefile(path: Path, real: str, notes: list[str]) -> Table:
    check_shapefile(path)
    return _open_with_gdal(path, real, notes)


def _open_zip(path: Path, real: str, notes: list[str]) -> Table:
    inside = shapefile_in_zip(path)
    # Braces say where the archive's path ends, unless there are some in it.
    marked = real if "{" in real or "}" in real else f"{{{real}}}"
    return _open_with_gdal(path, f"/vsizip/{marked}/{inside}", notes)


def _open_with_gdal(path: Path, address: str, notes: list[str]) -> Table:
    # Importing pyogrio imports geopandas, which takes a second that no other command should pay.
    import pyogrio

    is_geopackage = path.suffix.lower() == ".gpkg"
    try:
        with _warnings_as_notes(path, notes):
            pyogrio.set_gdal_config_options(_ALONE)
            # Each look at a GeoJSON file reads all of it, and only a GeoPackage has layers and a
            # count of features that a damaged file falls short of.
            layer = _choose_layer(path, notes) if is_geopackage else None
            declared = pyogrio.read_info(address, layer=layer)["features"] if is_geopackage else 0
            meta, table = _read_arrow(path, address, layer, notes)
            places = table.schema.get_all_field_indices(meta["geometry_name"] or "wkb_geometry")
            if not len(places):
                raise unreadable(path, "it has no geometry", "Use a file of parcel polygons.")
            geometry_at = places[-1]
            wkb = table.column(geometry_at).to_pylist()
            if any(_is_curved(one) for one in wkb):
                # Arcs become chains of short lines, which read_arrow cannot make.
                wkb = pyogrio.raw.read(address, layer=layer, columns=[])[2]
    # pyogrio 0.13 raises UnboundLocalError where GDAL cannot write down a reference system.
    except (RuntimeError, ValueError, OSError, UnboundLocalError) as error:
        raise unreadable(path, error) from error
    if len(wkb) < declared:
        raise unreadable(path, f"only {len(wkb)} of {declared} features came out")
    geometries = from_wkb(wkb)
    if meta["crs"]:
        check_reference(path, meta["crs"])
    return Table(
        path,
        flat(geometries),
        undecodable=shapely.is_missing(geometries)
        & np.array([one is not None for one in wkb], bool),
        crs=placed_crs(path, meta["crs"]),
        columns=scalar_columns(table.remove_column(geometry_at).remove_column(0)),
        number_name=meta["fid_column"] if is_geopackage else None,
        numbers=table.column(0).to_pylist(),
    )


def _read_arrow(
    path: Path, address: str, layer: str | None, notes: list[str]
) -> tuple[dict[str, Any], Any]:
    """Read a layer's metadata and its table: feature numbers, attributes, geometry."""
    import pyarrow as pa

    meta, table = _read_bounded(path, address, layer)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        if path.suffix.lower() not in (".shp", ".zip"):
            raise
        # Old shapefiles name no encoding; dBASE was written in the one of the machine.
        notes.append(f"{path}: names no encoding (.cpg); its text was read as ISO-8859-1.")
        meta, table = _read_bounded(path, address, layer, encoding="ISO-8859-1")
    return meta, table


def _read_bounded(
    path: Path, address: str, layer: str | None, encoding: str | None = None
) -> tuple[dict[str, Any], Any]:
    """As ``pyogrio.read_arrow``, but a file of more than is read is left in the middle."""
    import pyarrow as pa
    from pyogrio.raw import open_arrow

    with open_arrow(
        address, layer=layer, encoding=encoding, return_fids=True, use_pyarrow=True
    ) as (meta, reader):
        schema = reader.schema
        if len(schema) > MAX_COLUMNS:
            raise too_large(path, f"has {len(schema)} columns; at most {MAX_COLUMNS} are read")
        batches = list(bounded(path, reader))
    return meta, pa.Table.from_batches(batches, schema=schema)


def _is_curved(wkb: bytes | None) -> bool:
    """Whether a geometry has arcs."""
    # Types 8 to 12 of ISO 13249-3; heights and measures add thousands.
    return wkb is not None and (int.from_bytes(wkb[1:5], "little") & 0xFFFF) % 1000 in range(8, 13)


@contextmanager
def _warnings_as_notes(path: Path, notes: list[str]) -> Iterator[None]:
    """Hand on what GDAL warns of, once each; a reader of a report never sees Python's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if not issubclass(warning.category, RuntimeWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    texts = (str(one.message) for one in caught if issubclass(one.category, RuntimeWarning))
    notes.extend(f"{path}: {text}" for text in dict.fromkeys(texts))


def _choose_layer(path: Path, notes: list[str]) -> str:
    """The first layer of polygons, else the first with any geometry.

    Raises:
        ParcelsError: If no layer has geometry (``unreadable``).
    """
    import pyogrio

    # QGIS keeps styles as a layer without geometry beside the data.
    spatial: dict[str, str] = {
        name: kind for name, kind in pyogrio.list_layers(path) if kind is not None
    }
    polygonal = [name for name, kind in spatial.items() if "Polygon" in kind or "Surface" in kind]
    candidates = polygonal or list(spatial)
    if not candidates:
        raise unreadable(path, "no layer of it has geometry", "Use a file of parcel polygons.")
    if len(candidates) > 1:
        notes.append(
            f"{path}: holds the layers {', '.join(candidates)}; only {candidates[0]} was read."
        )
    return candidates[0]


def _with_feature_ids(table: Table) -> Table:
    """Add the ids that GeoJSON features carry beside their properties, where GDAL hides them."""
    # GDAL makes a column of ids that are text, but turns numbers into its own feature numbers,
    # which it also invents where there are none.
    if table.find(ID_COLUMNS):
        return table
    try:
        ids = [feature.get("id") for feature in _json(table.path)["features"]]
    except (ValueError, *_MALFORMED):
        # GDAL reads dialects of GeoJSON, one feature a line among them; they number nothing.
        return table
    if len(ids) != len(table.geometries) or not any(isinstance(one, int) for one in ids):
        return table
    import pyarrow as pa

    column = pa.chunked_array([pa.array([None if one is None else str(one) for one in ids])])
    return replace(table, columns={"id": column, **table.columns})


def _json(path: Path) -> Any:  # noqa: ANN401 - whatever it holds
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        try:
            return orjson.loads(memoryview(content))
        except orjson.JSONDecodeError:
            # A mark of byte order, or NaN, which others write.
            return json.loads(content[:])


def _open_geoparquet(path: Path, real: str, _: list[str]) -> Table:
    import pyarrow as pa

    try:
        return read_geoparquet(path, real)
    except (
        pa.ArrowException,
        shapely.GEOSException,
        KeyError,
        ValueError,
        OSError,
        *_MALFORMED,
    ) as error:
        raise unreadable(path, error) from error


_FORMATS: Final[dict[str, Callable[[Path, str, list[str]], Table]]] = {
    ".gpkg": _open_geopackage,
    ".geojson": _open_geojson,
    ".json": _open_geojson,
    ".shp": _open_shapefile,
    ".zip": _open_zip,
    ".parquet": _open_geoparquet,
    ".geoparquet": _open_geoparquet,
}
