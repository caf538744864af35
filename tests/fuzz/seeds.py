"""Small valid files of every format that is read, made in code."""

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from affine import Affine

from indexer.sensors import PROFILES
from tests.indexer.imagery.safe_products import L2A, make_product, zip_product
from tests.indexer.parcels.squares import squares, write
from tests.synthetic import make_dn, write_geotiff


@dataclass(frozen=True)
class Seed:
    """A valid file, and what lies beside it."""

    name: str
    door: str
    """How it is read; see ``doors``."""
    folder: Path
    """Holds nothing but the files of this seed."""
    opened: str
    """Path in the folder that is given to the door."""
    mutated: str
    """Path in the folder of the file that is changed."""

    @property
    def content(self) -> bytes:
        """Of the file that is changed."""
        return (self.folder / self.mutated).read_bytes()


def make_seeds(folder: Path) -> list[Seed]:
    """One seed for each format and layout."""
    return [
        *(_geotiff(folder / f"tif-{name}", name, layout) for name, layout in _LAYOUTS.items()),
        _geotiff_of_wavelengths(folder / "tif-wavelengths"),
        _labels(folder / "labels"),
        *(_envi(folder / f"envi-{part}", f"cube{part}") for part in (".hdr", ".img")),
        _envi_labels(folder / "envi-labels"),
        *(_numpy(folder / f"numpy{part}", f"cube{part}") for part in (".npy", ".npz", ".json")),
        *(_product(folder / f"safe-{part}", part) for part in ("MTD", "B02", "SCL")),
        _product_in_zip(folder / "safe-zip"),
        *(_parcels(folder / f"parcels{suffix}", suffix) for suffix in _PARCELS),
        *(_shapefile(folder / f"parcels{part}", part) for part in _SHAPEFILE),
        _zipped_shapefile(folder / "parcels.zip"),
        *(_stac(folder / f"stac-{part}", f"{part}.json") for part in ("catalog", "item")),
    ]


_LAYOUTS: Final[dict[str, dict[str, Any]]] = {
    "strips": {},
    "deflate": {"compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16},
    "lzw-pixel": {"compress": "lzw", "interleave": "pixel", "predictor": 2},
    "zstd-big": {"compress": "zstd", "BIGTIFF": "YES"},
    "jpeg-like": {"compress": "packbits", "ENDIANNESS": "BIG"},
}
_PARCELS = (".gpkg", ".geojson", ".parquet")
_SHAPEFILE = (".shp", ".shx", ".dbf", ".prj", ".cpg")


def _geotiff(folder: Path, name: str, layout: dict[str, Any]) -> Seed:
    descriptions = ("B02", "B03", "B04", "B08")
    write_geotiff(folder / "a.tif", make_dn(40, descriptions), descriptions, nodata=0, **layout)
    return Seed(f"tif-{name}", "image", folder, "a.tif", "a.tif")


def _geotiff_of_wavelengths(folder: Path) -> Seed:
    path = folder / "a.tif"
    write_geotiff(path, np.linspace(0, 1, 5 * 900, dtype=np.float32).reshape(5, 30, 30))
    with rasterio.open(path, "r+") as file:
        file.update_tags(wavelengths="450, 550, 650, 750, 850", wavelength_units="nm")
        file.scales = (1.5,) * 5
        file.write_mask(np.ones((30, 30), dtype=bool))
    return Seed("tif-wavelengths", "image", folder, "a.tif", "a.tif")


def _labels(folder: Path) -> Seed:
    classes = np.arange(900, dtype=np.uint8).reshape(1, 30, 30) % 5
    write_geotiff(folder / "a.tif", classes, nodata=0, compress="lzw")
    return Seed("labels", "labels", folder, "a.tif", "a.tif")


_HEADER = """ENVI
samples = 20
lines = 30
bands = 4
header offset = 0
file type = ENVI Standard
data type = 2
interleave = bil
byte order = 0
map info = {UTM, 1, 1, 500000, 5000000, 10, 10, 31, North, WGS-84, units=Meters}
wavelength units = Nanometers
wavelength = { 450.0, 550.0,
 650.0, 850.0 }
fwhm = {10, 10, 10, 10}
band names = {a, b, c, d}
bbl = {1, 1, 0, 1}
data ignore value = -9999
reflectance scale factor = 10000
acquisition time = 2021-06-01T10:00:00Z
"""


def _envi(folder: Path, mutated: str) -> Seed:
    folder.mkdir(parents=True)
    (folder / "cube.hdr").write_text(_HEADER, encoding="utf-8")
    np.arange(30 * 4 * 20, dtype="<i2").tofile(folder / "cube.img")
    return Seed(f"envi-{mutated}", "image", folder, "cube.hdr", mutated)


def _envi_labels(folder: Path) -> Seed:
    folder.mkdir(parents=True)
    header = "ENVI\nsamples = 30\nlines = 30\nbands = 1\ndata type = 1\ninterleave = bsq\n"
    header += "file type = ENVI Classification\nclasses = 3\nclass names = {none, wheat, maize}\n"
    (folder / "a.hdr").write_text(header, encoding="utf-8")
    (np.arange(900) % 3).astype(np.uint8).tofile(folder / "a.img")
    return Seed("envi-labels", "labels", folder, "a.hdr", "a.hdr")


def _numpy(folder: Path, mutated: str) -> Seed:
    folder.mkdir(parents=True)
    cube = np.arange(20 * 30 * 4, dtype=np.float32).reshape(20, 30, 4)
    np.save(folder / "cube.npy", cube)
    np.savez_compressed(folder / "cube.npz", cube=cube, label_names=np.array(["a", "b"]))
    about = {
        "axes": "yxb",
        "wavelengths": [450.0, 550, 650, 850],
        "wavelength_units": "nm",
        "crs": "EPSG:32631",
        "transform": [10, 0, 500000, 0, -10, 5000000],
        "nodata": -1,
        "scale": 0.0001,
        "bad_bands": [2],
        "datetime": "2021-06-01",
    }
    (folder / "cube.json").write_text(json.dumps(about), encoding="utf-8")
    opened = "cube.npz" if mutated.endswith(".npz") else "cube.npy"
    return Seed(f"numpy-{mutated}", "image", folder, opened, mutated)


def _product(folder: Path, part: str) -> Seed:
    product = _written_product(folder / f"{L2A}.SAFE")
    pattern = "MTD_MSI*.xml" if part == "MTD" else f"GRANULE/*/IMG_DATA/R20m/*_{part}_20m.jp2"
    (mutated,) = product.glob(pattern)
    return Seed(
        f"safe-{part}", "scene", folder, product.name, mutated.relative_to(folder).as_posix()
    )


def _product_in_zip(folder: Path) -> Seed:
    product = _written_product(folder / "unpacked" / f"{L2A}.SAFE")
    zip_product(product, folder / "a.zip")
    shutil.rmtree(folder / "unpacked")
    return Seed("safe-zip", "scene", folder, "a.zip", "a.zip")


def _written_product(folder: Path) -> Path:
    """A product of few bands, lest it take long."""
    dn = {"B02": make_dn(60, ("B02",))[0], "B03": make_dn(60, ("B03",), seed=1)[0]}
    make_product(folder, bands=dn)
    shutil.rmtree(next(folder.glob("GRANULE/*/QI_DATA")))
    return folder


def _parcels(folder: Path, suffix: str) -> Seed:
    folder.mkdir(parents=True)
    count = 30
    names = ["wheat", "maïs", "orge"] * 10
    frame = squares(2154, id=[f"p{n}" for n in range(count)], crop_name=names)
    frame["area"] = np.linspace(0.1, 2.5, count)
    write(frame, folder / f"a{suffix}")
    return Seed(f"parcels{suffix}", "parcels", folder, f"a{suffix}", f"a{suffix}")


def _shapefile(folder: Path, part: str) -> Seed:
    folder.mkdir(parents=True)
    write(squares(2154, id=[f"p{n}" for n in range(30)]), folder / "a.shp")
    return Seed(f"shapefile-{part}", "parcels", folder, "a.shp", f"a{part}")


def _zipped_shapefile(folder: Path) -> Seed:
    seed = _shapefile(folder, ".shp")
    parts = sorted(seed.folder.iterdir())
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for part in parts:
            archive.write(part, part.name)
            part.unlink()
    return Seed("shapefile-zip", "parcels", folder, "a.zip", "a.zip")


def _stac(folder: Path, mutated: str) -> Seed:
    folder.mkdir(parents=True)
    bands = PROFILES["l2a"][:3]
    for band in bands:
        write_geotiff(
            folder / f"{band}.tif",
            make_dn(20, (band,)),
            transform=Affine(10, 0, 500_000, 0, -10, 5_000_000),
        )
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2A_1",
        "collection": "sentinel-2-l2a",
        "bbox": [2.9, 45.0, 3.1, 45.2],
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[2.9, 45.0], [3.1, 45.0], [3.1, 45.2], [2.9, 45.0]]],
        },
        "properties": {
            "datetime": "2023-06-01T10:50:31Z",
            "platform": "sentinel-2a",
            "eo:cloud_cover": 12.5,
            "s2:processing_baseline": "05.09",
        },
        "links": [{"rel": "root", "href": "./catalog.json"}],
        "assets": {
            band: {
                "href": f"./{band}.tif",
                "type": "image/tiff; application=geotiff",
                "raster:bands": [{"scale": 0.0001, "offset": -0.1}],
            }
            for band in bands
        },
    }
    catalog = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "c",
        "description": "-",
        "links": [
            {"rel": "root", "href": "./catalog.json"},
            {"rel": "item", "href": "./item.json"},
            {"rel": "child", "href": "./catalog.json"},
        ],
    }
    (folder / "item.json").write_text(json.dumps(item), encoding="utf-8")
    (folder / "catalog.json").write_text(json.dumps(catalog), encoding="utf-8")
    return Seed(f"stac-{mutated}", "stac", folder, "catalog.json", mutated)
