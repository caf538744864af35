import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.env import get_gdal_config
from rasterio.errors import RasterioError

from indexer.errors import ImageryError
from indexer.imagery.hardening import ALONE
from indexer.imagery.rasters import (
    BLOCK_CACHE_MIB,
    MAX_HELD,
    held_open,
    open_raster,
    readable,
    shown_path,
)
from indexer.imagery.reader import ReadingOptions, Scene
from indexer.imagery.sources import ImageSource
from tests.indexer.imagery.safe_products import write_jp2
from tests.synthetic import write_band_folder, write_geotiff


def tif(path: Path, value: int = 1) -> Path:
    return write_geotiff(path, np.full((1, 4, 4), value, dtype=np.uint16))


# What is opened, and how


def test_a_file_is_read_by_the_driver_of_its_ending(tmp_path: Path) -> None:
    values = np.arange(16, dtype=np.uint16).reshape(4, 4)
    for path in (
        write_geotiff(tmp_path / "a.tif", values[None]),
        write_geotiff(tmp_path / "a.TIFF", values[None]),
        write_jp2(tmp_path / "a.jp2", values),
        write_jp2(tmp_path / "b.JP2", values),
    ):
        with open_raster(str(path)) as file:
            np.testing.assert_array_equal(file.read(1), values)


def test_no_ending_hides_another_format(tmp_path: Path) -> None:
    jp2 = write_jp2(tmp_path / "a.jp2", np.ones((4, 4), dtype=np.uint16))
    for disguised in (jp2.rename(tmp_path / "b.tif"), tif(tmp_path / "c.tif").rename(jp2)):
        with pytest.raises(RasterioError), open_raster(str(disguised)):
            pytest.fail("it was opened")


@pytest.mark.parametrize(
    "path",
    [
        "/vsicurl/http://127.0.0.1:9/a.tif",
        "/vsicurl_streaming/http://127.0.0.1:9/a.tif",
        "/vsizip/{/vsicurl/http://127.0.0.1:9/a.zip}/a.tif",
        "/vsizip//vsicurl/http://127.0.0.1:9/a.zip/a.jp2",
        "/vsimem/a.tif",
        "/vsistdin/",
        "http://127.0.0.1:9/a.tif",
        "zip:///tmp/a.zip!a.tif",
        "GTIFF_DIR:1:FOLDER/a.tif",
        "JP2OpenJPEG:FOLDER/a.jp2",
    ],
)
def test_nothing_but_a_file_of_this_machine_is_opened_by_name(tmp_path: Path, path: str) -> None:
    tif(tmp_path / "a.tif")
    with pytest.raises(RasterioError), open_raster(path.replace("FOLDER", str(tmp_path))):
        pytest.fail("it was opened")


def test_a_file_whose_name_looks_like_an_address_is_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "http:" / "127.0.0.1:9").mkdir(parents=True)
    tif(tmp_path / "a.tif", 7).rename(tmp_path / "http:" / "127.0.0.1:9" / "a.tif")
    with open_raster("http:/127.0.0.1:9/a.tif") as file:
        assert file.read(1)[0, 0] == 7


def test_gdal_is_set_up_while_a_file_is_open_and_as_before_afterwards(tmp_path: Path) -> None:
    path = str(tif(tmp_path / "a.tif"))
    for _ in range(2):
        with open_raster(path):
            assert {name: get_gdal_config(name, normalize=False) for name in ALONE} == ALONE
        assert {get_gdal_config(name) for name in ALONE} == {None}
    with held_open():
        with open_raster(path):
            assert {name: get_gdal_config(name, normalize=False) for name in ALONE} == ALONE
    assert {get_gdal_config(name) for name in ALONE} == {None}


def test_the_cache_of_blocks_is_bounded(tmp_path: Path) -> None:
    with open_raster(str(tif(tmp_path / "a.tif"))):
        assert get_gdal_config("GDAL_CACHEMAX") == BLOCK_CACHE_MIB << 20


def test_no_file_beside_an_image_is_looked_at(tmp_path: Path) -> None:
    path = tif(tmp_path / "a.tif")
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Description>B04</Description></PAMRasterBand>'
        "</PAMDataset>",
        encoding="utf-8",
    )
    with rasterio.open(path) as plain:
        assert plain.descriptions == ("B04",), "the trap works where GDAL looks around"
    with open_raster(str(path)) as file:
        assert file.descriptions == (None,)


# Files that stay open


def test_files_are_opened_once_while_they_are_held(tmp_path: Path) -> None:
    path = str(tif(tmp_path / "a.tif"))
    with held_open():
        with open_raster(path) as first:
            pass
        with held_open(), open_raster(path) as second:
            pass
        assert second is first
        assert not first.closed
    assert first.closed
    with open_raster(path) as third:
        assert third is not first
    assert third.closed


def test_files_are_closed_when_reading_them_fails(tmp_path: Path) -> None:
    path = str(tif(tmp_path / "a.tif"))
    with pytest.raises(KeyError), held_open(), open_raster(path) as file:
        raise KeyError
    assert file.closed


def test_the_files_used_longest_ago_are_closed_for_others_but_none_in_use(tmp_path: Path) -> None:
    first, *others = (
        str(tif(tmp_path / f"{number}.tif", number + 1)) for number in range(MAX_HELD + 2)
    )
    with held_open(), open_raster(first) as in_use:
        opened = []
        for path in others:
            with open_raster(path) as file:
                opened.append(file)
        assert [file.closed for file in opened[:3]] == [True, True, False]
        assert in_use.read(1)[0, 0] == 1


def test_each_thread_holds_its_own_files(tmp_path: Path) -> None:
    path = str(tif(tmp_path / "a.tif"))
    theirs = []

    def read() -> None:
        with open_raster(path) as file:
            theirs.append(file)
        theirs.append(file.closed)

    with held_open():
        with open_raster(path) as ours:
            pass
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert theirs[0] is not ours
        assert theirs[1] is True
        assert not ours.closed


# What is said of files that cannot be read


def test_an_error_names_the_image_the_file_and_its_format(tmp_path: Path) -> None:
    source = ImageSource("X", tmp_path / "X.zip", ((None, tmp_path / "X.zip"),), kind="safe")
    member = f"/vsizip/{{{tmp_path}/X.zip}}/X.SAFE/B04.jp2"
    with pytest.raises(ImageryError) as caught, readable(source, member), open_raster(member):
        pytest.fail("it was opened")
    assert caught.value.kind == "unreadable"
    assert f"{tmp_path}/X.zip: X.SAFE/B04.jp2 cannot be read as JPEG 2000" in caught.value.message


def test_a_path_is_shown_without_what_only_gdal_needs() -> None:
    assert shown_path("/vsizip/{/a/b.zip}/X.SAFE/c.jp2") == "X.SAFE/c.jp2"
    assert shown_path("/a/b.tif") == "/a/b.tif"


def test_blocks_that_fill_the_memory_are_refused_by_the_header(tmp_path: Path) -> None:
    folder = write_band_folder(tmp_path / "bands", {"B04": np.ones((4, 4), dtype=np.uint16)})
    with rasterio.open(
        folder / "bands_B04.tif",
        "w",
        driver="GTiff",
        height=20_000,
        width=20_000,
        count=1,
        dtype="uint16",
        tiled=True,
        blockxsize=20_000,
        blockysize=20_000,
        sparse_ok=True,
        crs="EPSG:32631",
        transform=rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000),
    ):
        pass
    for source in (
        ImageSource("bands", folder, (("B04", folder / "bands_B04.tif"),)),
        ImageSource("a", folder / "bands_B04.tif", ((None, folder / "bands_B04.tif"),)),
    ):
        with pytest.raises(ImageryError, match="blocks of 762 MiB") as caught:
            Scene.open(source, ReadingOptions(bands=("B04",), wanted=("B04",)))
        assert caught.value.kind == "too-large"
