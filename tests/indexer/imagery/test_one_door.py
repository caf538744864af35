"""Rasters are opened for reading in one place, which knows what strangers put into them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("indexer", "retriever", "api")
DOOR = Path("indexer/imagery/rasters.py")

PARCEL_DOORS = {Path("indexer/parcels/formats.py"), Path("indexer/parcels/geoparquet.py")}

_PARCEL_READERS = ("pyogrio", "geopandas", "fiona", "ogr", "shapefile")

_OTHER_READERS = ("gdal", "osgeo", "rioxarray", "tifffile", "imageio", "cv2", "stackstac", "fiona")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def opens_to_read(call: ast.Call) -> bool:
    """Whether a call is ``rasterio.open`` or ``MemoryFile``, and not for writing."""
    name = ast.unparse(call.func)
    if name.endswith("MemoryFile"):
        return True
    if name != "rasterio.open":
        return False
    words = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    return not any(isinstance(word, ast.Constant) and word.value == "w" for word in words)


def test_no_module_but_the_door_opens_a_raster_for_reading() -> None:
    found = {
        str(path)
        for path, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and opens_to_read(node)
    }
    assert found == {str(DOOR)}


def test_no_module_takes_the_opening_functions_out_of_rasterio() -> None:
    for path, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom) and node.module == "rasterio":
                names = {alias.name for alias in node.names}
                assert not names & {"open", "band", "vrt", "shutil"}, path
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rasterio.vrt"):
                pytest.fail(f"{path} opens virtual rasters")


def test_no_other_library_that_reads_rasters_is_used() -> None:
    for path, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {name.partition(".")[0] for name in names} & set(_OTHER_READERS), path


def test_every_raster_is_opened_by_a_driver_that_is_named() -> None:
    module = ast.parse((ROOT / DOOR).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
    drivers = {
        word.value.value
        for call in calls
        if ast.unparse(call.func) == "rasterio.open"
        for word in call.keywords
        if word.arg == "driver" and isinstance(word.value, ast.Constant)
    }
    assert drivers == {"GTiff", "JP2OpenJPEG", "ENVI"}
    assert all(
        any(word.arg == "driver" for word in call.keywords)
        for call in calls
        if ast.unparse(call.func) == "rasterio.open"
    )


def test_parcels_files_are_opened_in_one_place_as_well() -> None:
    found = {
        path
        for path, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
        if name.partition(".")[0] in _PARCEL_READERS
    }
    assert found == PARCEL_DOORS
