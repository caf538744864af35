"""Static catalogs and items in the words of the large providers, made in code."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from indexer.sensors import PROFILES, SENTINEL2_BANDS

COG = "image/tiff; application=geotiff; profile=cloud-optimized"

EARTH_SEARCH_KEYS = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge1",
    "B06": "rededge2",
    "B07": "rededge3",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B11": "swir16",
    "B12": "swir22",
    "SCL": "scl",
}

WEST, NORTH = 600_000.0, 5_400_000.0
"""Upper left corner of the bands, EPSG:32631."""

SIDE_M = 5_120


def item(
    name: str = "S2A_31UDQ_20230601_0_L2A",
    *,
    time: str | None = "2023-06-01T10:50:31.024Z",
    assets: Mapping[str, Any] | None = None,
    bbox: tuple[float, float, float, float] = (4.0, 48.0, 5.0, 49.0),
    properties: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An item like those of Earth Search; its assets have keys ``red`` and relative hrefs."""
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "bbox": list(bbox),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": time, **(properties or {})},
        "assets": bands_of("") if assets is None else dict(assets),
        "links": [],
    }


def bands_of(folder: str) -> dict[str, dict[str, Any]]:
    """An asset for each band of Level-2A and the classes, as files below a folder or address."""
    return {
        key: {"href": f"{folder}{band}.tif", "type": COG} for band, key in EARTH_SEARCH_KEYS.items()
    }


def write_json(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a document, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def catalog(name: str, *links: tuple[str, str], kind: str = "Catalog") -> dict[str, Any]:
    """A catalog with links, each a relation and an href."""
    return {
        "type": kind,
        "id": name,
        "stac_version": "1.0.0",
        "description": name,
        "links": [{"rel": relation, "href": href} for relation, href in links],
    }


def write_catalog(folder: Path, items: Sequence[Mapping[str, Any]]) -> Path:
    """A catalog with one collection that holds items; each item has a folder of its own."""
    hrefs = [f"./{one['id']}/{one['id']}.json" for one in items]
    for href, one in zip(hrefs, items, strict=True):
        write_json(folder / "s2" / href, one)
    links = [("root", "../catalog.json"), ("parent", "../catalog.json")]
    links += [("item", href) for href in hrefs]
    write_json(folder / "s2" / "collection.json", catalog("s2", *links, kind="Collection"))
    root = catalog("root", ("root", "./catalog.json"), ("child", "./s2/collection.json"))
    return write_json(folder / "catalog.json", root)


def write_bands(folder: Path, dn: Mapping[str, int] | None = None) -> None:
    """A GeoTIFF in tiles of 128 px for each band of Level-2A, and the classes (4, vegetation).

    A pixel holds the number of its band (1000 + 100 x its place in the profile, unless ``dn`` says
    otherwise) plus its row plus its column, each modulo 50.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place, band in enumerate(PROFILES["l2a"]):
        pixel_m = SENTINEL2_BANDS[band].gsd_m
        side = SIDE_M // pixel_m
        rows, columns = np.mgrid[:side, :side]
        base = (dn or {}).get(band, 1000 + 100 * place)
        _write(folder / f"{band}.tif", (base + rows % 50 + columns % 50).astype(np.uint16), pixel_m)
    _write(folder / "SCL.tif", np.full((SIDE_M // 20, SIDE_M // 20), 4, np.uint8), 20)


def _write(path: Path, pixels: np.ndarray[Any, Any], pixel_m: float) -> None:
    # 60 m do not divide the side: the last part of a pixel is left out.
    height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=1,
        dtype=pixels.dtype,
        crs="EPSG:32631",
        transform=Affine(pixel_m, 0, WEST, 0, -pixel_m, NORTH),
        tiled=True,
        blockxsize=128,
        blockysize=128,
    ) as file:
        file.write(pixels, 1)
