"""Parcels files made for the tests: rows of squares, and what was read of them."""

import json
from collections.abc import Sized
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyogrio
import shapely
from shapely import Polygon, box
from shapely.geometry import mapping

from indexer.parcels.files import ParcelsFile
from indexer.parcels.parcel import Parcel

BOWTIE = Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])

# A corner inside the area of use of each reference system.
CORNERS = {
    4326: (2.25, 48.5),
    2154: (652_000.0, 6_862_000.0),
    32638: (560_000.0, 4_388_000.0),
    28992: (155_000.0, 463_000.0),
}


def square(epsg: int, column: int = 0) -> Polygon:
    """The n-th of a row of squares, 100 m or 0.001 degrees wide."""
    x, y = CORNERS[epsg]
    side = 0.001 if epsg == 4326 else 100.0
    return box(x + column * side, y, x + (column + 1) * side, y + side)


def squares(epsg: int = 4326, /, **columns: Sized) -> gpd.GeoDataFrame:
    """A row of squares with one value of each column a square."""
    count = len(next(iter(columns.values())))
    geometry = [square(epsg, column) for column in range(count)]
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=epsg)


def write(frame: gpd.GeoDataFrame, path: Path) -> Path:
    if path.suffix in (".parquet", ".geoparquet"):
        frame.to_parquet(path)
    else:
        frame.to_file(path, driver="GeoJSON" if path.suffix == ".json" else None)
    return path


def write_geojson(path: Path, *features: dict[str, Any]) -> Path:
    document = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def feature(geometry: object, **properties: object) -> dict[str, Any]:
    geometry = mapping(geometry) if isinstance(geometry, shapely.Geometry) else geometry
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def by_id(found: ParcelsFile) -> dict[str, Parcel]:
    return {parcel.parcel_id: parcel for parcel in found.parcels}


def kinds(found: ParcelsFile) -> list[str]:
    return [skipped.kind for skipped in found.skipped]


def feature_count(path: Path) -> int:
    return int(pyogrio.read_info(path, force_feature_count=True)["features"])
