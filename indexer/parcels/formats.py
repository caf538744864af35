"""Open GeoPackage, GeoJSON, Shapefile and GeoParquet."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from indexer.errors import NotFoundError
from indexer.parcels.columns import ID_COLUMNS
from indexer.parcels.lonlat import placed_crs
from indexer.parcels.shapefile import check_shapefile, shapefile_in_zip
from indexer.parcels.table import Table, unreadable


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
    match path.suffix.lower():
        case ".parquet" | ".geoparquet":
            return _open_geoparquet(path)
        case ".gpkg":
            return _open_with_gdal(path, str(path), notes)
        case ".geojson" | ".json":
            return _with_feature_ids(_open_with_gdal(path, str(path), notes))
        case ".shp":
            check_shapefile(path)
            return _open_with_gdal(path, str(path), notes)
        case ".zip":
            return _open_with_gdal(path, f"/vsizip/{path}/{shapefile_in_zip(path)}", notes)
    raise unreadable(
        path,
        f"its extension is {path.suffix or 'missing'}",
        "Use GeoPackage (.gpkg), GeoJSON (.geojson, .json), Shapefile (.shp, .zip) or GeoParquet "
        "(.parquet, .geoparquet).",
    )


def _open_with_gdal(path: Path, address: str, notes: list[str]) -> Table:
    # Importing pyogrio imports geopandas, which takes a second that no other command should pay.
    import pyogrio

    is_geopackage = path.suffix.lower() == ".gpkg"
    try:
        with _warnings_as_notes(path, notes):
            # Each look at a GeoJSON file reads all of it, and only a GeoPackage has layers and a
            # count of features that a damaged file falls short of.
            layer = _choose_layer(path, notes) if is_geopackage else None
            declared = pyogrio.read_info(address, layer=layer)["features"] if is_geopackage else 0
            meta, table = _read_arrow(path, address, layer, notes)
            geometry_at = table.schema.get_all_field_indices(
                meta["geometry_name"] or "wkb_geometry"
            )[-1]
            wkb = table.column(geometry_at).to_pylist()
            if any(_is_curved(one) for one in wkb):
                # Arcs become chains of short lines, which read_arrow cannot make.
                wkb = pyogrio.raw.read(address, layer=layer, columns=[])[2]
    except (RuntimeError, ValueError, OSError) as error:
        raise unreadable(path, error) from error
    if len(wkb) < declared:
        raise unreadable(path, f"only {len(wkb)} of {declared} features came out")
    geometries = shapely.from_wkb(wkb, on_invalid="ignore")
    return Table(
        path,
        shapely.force_2d(geometries),
        undecodable=shapely.is_missing(geometries)
        & np.array([one is not None for one in wkb], bool),
        crs=placed_crs(path, meta["crs"]),
        columns=_scalar_columns(table.remove_column(geometry_at).remove_column(0)),
        number_name=meta["fid_column"] if is_geopackage else None,
        numbers=table.column(0).to_pylist(),
    )


def _read_arrow(
    path: Path, address: str, layer: str | None, notes: list[str]
) -> tuple[dict[str, Any], Any]:
    """Read a layer's metadata and its table: feature numbers, attributes, geometry."""
    import pyarrow as pa
    import pyogrio

    meta, table = pyogrio.read_arrow(address, layer=layer, return_fids=True)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        if path.suffix.lower() not in (".shp", ".zip"):
            raise
        # Old shapefiles name no encoding; dBASE was written in the one of the machine.
        notes.append(f"{path}: names no encoding (.cpg); its text was read as ISO-8859-1.")
        meta, table = pyogrio.read_arrow(
            address, layer=layer, return_fids=True, encoding="ISO-8859-1"
        )
    return meta, table


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
        document = json.loads(table.path.read_bytes())
        ids = [feature.get("id") for feature in document["features"]]
    except (ValueError, TypeError, KeyError):
        # GDAL reads dialects of GeoJSON, one feature a line among them; they number nothing.
        return table
    if len(ids) != len(table.geometries) or not any(isinstance(one, int) for one in ids):
        return table
    import pyarrow as pa

    column = pa.chunked_array([pa.array([None if one is None else str(one) for one in ids])])
    return replace(table, columns={"id": column, **table.columns})


def _open_geoparquet(path: Path) -> Table:
    import geopandas
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            geo = json.loads((file.schema_arrow.metadata or {}).get(b"geo", b"{}"))
            spatial = set(geo.get("columns", ()))
            names = [name for name in file.schema_arrow.names if not name.startswith("__index_")]
            table = file.read(columns=[name for name in names if name not in spatial])
        if not spatial:
            raise unreadable(
                path,
                "it is Parquet without the metadata of GeoParquet",
                "Write it as GeoParquet, for example with geopandas.",
            )
        frame = geopandas.read_parquet(path, columns=[geo["primary_column"]])
    except (pa.ArrowException, shapely.GEOSException, KeyError, ValueError, OSError) as error:
        raise unreadable(path, error) from error
    geometries = shapely.force_2d(frame.geometry.to_numpy())
    return Table(
        path,
        geometries,
        undecodable=np.zeros(len(geometries), dtype=bool),
        crs=placed_crs(path, frame.crs),
        columns=_scalar_columns(table),
    )


def _scalar_columns(table: Any) -> dict[str, Any]:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    return {
        name: table.column(position)
        for position, name in enumerate(table.column_names)
        if not pa.types.is_nested(kind := table.schema.field(position).type)
        and not pa.types.is_binary(kind)
    }
