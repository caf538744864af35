import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from indexer.errors import ImageryError
from indexer.imagery.layers import ReadingOptions
from indexer.imagery.rasters import held_open, open_raster
from indexer.imagery.reader import Scene
from indexer.imagery.stac.catalog import StacQuery, find_stac_items
from indexer.imagery.stac.item import StacSource, open_stac
from indexer.imagery.stac.limits import Limits
from indexer.sensors import PROFILES
from tests.indexer.imagery.stac.catalogs import bands_of, item, write_bands, write_json
from tests.indexer.imagery.stac.file_server import Fault, FileServer

RED = ReadingOptions(wanted=("B04",))
BASE = 1300
"""Digital number of B04 at the corner, the fourth band of the profile."""


@pytest.fixture(scope="module")
def written_bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bands")
    write_bands(folder)
    return folder


@pytest.fixture
def bands(written_bands: Path, tmp_path: Path) -> Path:
    """A folder with a GeoTIFF for each band, which the server serves, too."""
    shutil.copytree(written_bands, tmp_path, dirs_exist_ok=True)
    return tmp_path


def red(row: int, column: int, side: int) -> npt.NDArray[np.float32]:
    """Digital numbers of a window of B04, as the catalog's maker defines them."""
    rows, columns = np.mgrid[row : row + side, column : column + side]
    return np.asarray(BASE + rows % 50 + columns % 50, dtype=np.float32)


def the_item(
    location: str | Path,
    document: dict[str, Any] | None = None,
    folder: Path | None = None,
    limits: Limits | None = None,
) -> StacSource:
    """The one item of a document, which is written beside the bands first."""
    if folder is not None:
        write_json(folder / "item.json", item() if document is None else document)
    (source,), skipped = find_stac_items(StacQuery(str(location)), limits=limits or Limits())
    assert skipped == []
    return source


@pytest.fixture
def open_remote(server: FileServer, bands: Path, limits: Limits) -> Callable[..., Scene]:
    def open_item(
        options: ReadingOptions = RED,
        document: dict[str, Any] | None = None,
        patience: Limits = limits,
    ) -> Scene:
        source = the_item(f"{server.url}/item.json", document, bands, limits)
        server.forget()
        return open_stac(source, options, patience)

    return open_item


def test_a_window_is_what_the_file_holds_there(open_remote: Callable[..., Scene]) -> None:
    chip = open_remote().read(200, 300, 120, 120)
    # Baseline unknown, 2023: the offset of -1000 is still in.
    np.testing.assert_allclose(chip.reflectance[0], (red(200, 300, 120) - 1000) / 10_000, atol=1e-6)
    assert chip.valid_mask.all()
    assert chip.scene == "S2A_31UDQ_20230601_0_L2A"
    assert chip.acquired_at is not None
    assert chip.acquired_at.isoformat() == "2023-06-01T10:50:31.024000+00:00"


def test_all_bands_come_from_their_files(open_remote: Callable[..., Scene]) -> None:
    chip = open_remote(ReadingOptions(baseline="03.00")).read(240, 240, 12, 12)
    assert chip.bands == PROFILES["l2a"]
    corners = chip.reflectance[
        [PROFILES["l2a"].index(band) for band in ("B02", "B03", "B04")], 0, 0
    ]
    # Row and column 240 are 40 modulo 50.
    np.testing.assert_allclose(corners, [0.1180, 0.1280, 0.1380], atol=1e-6)


def test_only_the_windows_that_are_asked_for_are_fetched(
    open_remote: Callable[..., Scene], server: FileServer, bands: Path
) -> None:
    with held_open():
        open_remote().read(384, 384, 128, 128)
    size = (bands / "B04.tif").stat().st_size
    assert size > 500_000
    # The first 32 KiB with the header, and a tile of 32 KiB, in steps of 16 KiB.
    assert 64 << 10 <= server.sent("B04.tif") <= 100_000
    assert {request.path for request in server.requests} == {"/B04.tif", "/SCL.tif"}


def test_a_scene_that_is_held_open_asks_for_each_header_once(
    open_remote: Callable[..., Scene], server: FileServer
) -> None:
    with held_open():
        scene = open_remote(ReadingOptions())
        scene.read(0, 0, 120, 120)
        scene.read(240, 240, 120, 120)
    heads = [request.path for request in server.requests if request.method == "HEAD"]
    assert sorted(heads) == sorted(f"/{band}.tif" for band in (*PROFILES["l2a"], "SCL"))


def test_a_file_that_names_another_as_its_overviews_does_not_lead_there(
    open_remote: Callable[..., Scene], server: FileServer, bands: Path
) -> None:
    with rasterio.open(bands / "B04.tif", "r+") as file:
        other = f"/vsicurl/{server.url}/B08.tif"
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=other)
    path = open_remote().layers[0].path
    with open_raster(path) as file:
        assert file.tags(ns="OVERVIEWS") == {"OVERVIEW_FILE": other}
        file.read(1, out_shape=(64, 64))
    assert server.count("/B08.tif") == 0


def test_a_server_that_failed_while_a_file_was_opened_is_asked_again(
    open_remote: Callable[..., Scene], server: FileServer, limits: Limits
) -> None:
    # The first request, for a few bytes, is answered; GDAL's own are not.
    server.faults["/B04.tif"] = Fault(status=500, skips=1)
    with pytest.raises(ImageryError):
        open_remote(patience=replace(limits, retries=0))
    server.faults.clear()
    assert open_remote().shape == (512, 512)


def test_nothing_beside_a_file_is_looked_for(
    open_remote: Callable[..., Scene], server: FileServer
) -> None:
    open_remote(ReadingOptions()).read(0, 0, 120, 120)
    expected = {f"/{band}.tif" for band in (*PROFILES["l2a"], "SCL")}
    assert {request.path for request in server.requests} == expected


def test_a_catalog_on_disk_is_read_likewise(bands: Path) -> None:
    source = the_item(bands / "item.json", folder=bands)
    chip = open_stac(source, RED).read(10, 20, 64, 64)
    np.testing.assert_allclose(chip.reflectance[0], (red(10, 20, 64) - 1000) / 10_000, atol=1e-6)


def test_an_item_on_disk_may_name_a_server_of_this_machine(
    bands: Path, tmp_path_factory: pytest.TempPathFactory, server: FileServer, limits: Limits
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    document = item(assets=bands_of(f"{server.url}/"))
    source = the_item(elsewhere / "item.json", document, elsewhere, limits)
    chip = open_stac(source, RED, limits).read(0, 0, 8, 8)
    np.testing.assert_allclose(chip.reflectance[0], (red(0, 0, 8) - 1000) / 10_000, atol=1e-6)


def test_an_item_on_disk_may_name_files_of_the_catalog_that_it_belongs_to(bands: Path) -> None:
    document = {**item(assets=bands_of("../")), "links": [{"rel": "root", "href": "../root.json"}]}
    path = write_json(bands / "items" / "item.json", document)
    _, (skipped,) = find_stac_items(StacQuery(str(path)))
    assert skipped.kind == "href-refused"
    write_json(bands / "root.json", {"type": "Catalog", "links": []})
    assert open_stac(the_item(path), RED).shape == (512, 512)


def test_what_the_item_says_of_the_scale_is_used(open_remote: Callable[..., Scene]) -> None:
    scene = open_remote(RED, item(properties={"earthsearch:boa_offset_applied": True}))
    reflectance = scene.read(0, 0, 8, 8).reflectance[0]
    np.testing.assert_allclose(reflectance, red(0, 0, 8) / 10_000, atol=1e-6)


def test_a_baseline_that_the_user_names_wins(open_remote: Callable[..., Scene]) -> None:
    options = ReadingOptions(wanted=("B04",), baseline="05.09")
    scene = open_remote(options, item(properties={"earthsearch:boa_offset_applied": True}))
    reflectance = scene.read(0, 0, 8, 8).reflectance[0]
    np.testing.assert_allclose(reflectance, (red(0, 0, 8) - 1000) / 10_000, atol=1e-6)


def test_the_baseline_of_the_item_decides_on_the_offset(open_remote: Callable[..., Scene]) -> None:
    scene = open_remote(RED, item(properties={"s2:processing_baseline": "03.01"}))
    chip = scene.read(0, 0, 8, 8)
    assert chip.processing_baseline == "03.01"
    np.testing.assert_allclose(chip.reflectance[0], red(0, 0, 8) / 10_000, atol=1e-6)


def test_items_and_their_scenes_can_be_sent_to_other_processes(
    open_remote: Callable[..., Scene],
) -> None:
    scene = open_remote()
    again = pickle.loads(pickle.dumps(scene))
    assert again == scene
    assert pickle.loads(pickle.dumps(scene.source)) == scene.source
    np.testing.assert_array_equal(
        again.read(0, 0, 8, 8).reflectance, scene.read(0, 0, 8, 8).reflectance
    )


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault(status=404), "missing-band", "404"),
        (Fault(status=403), "unreachable", "403"),
        (Fault(status=500), "unreachable", "500"),
        (Fault(hangs=True), "unreachable", "silent"),
        (Fault(content=b"<html>gone</html>"), "unreadable", "no GeoTIFF"),
        (Fault(content=b""), "unreachable", "416"),
        (Fault(content=b"II*\x00 and no more"), "unreadable", "cannot be read"),
        (Fault(ignores_ranges=True), "unreadable", "parts of files"),
        (Fault(status=302, headers={"Location": "file:///etc/passwd"}), "href-refused", "http"),
    ],
    ids=str,
)
def test_a_band_that_cannot_be_had_is_named(
    open_remote: Callable[..., Scene],
    server: FileServer,
    hasty: Limits,
    fault: Fault,
    kind: str,
    said: str,
) -> None:
    server.faults["/B04.tif"] = fault
    with pytest.raises(ImageryError) as refused:
        open_remote(patience=hasty)
    assert refused.value.kind == kind
    assert said in refused.value.message
    assert f"{server.url}/B04.tif" in refused.value.message


def test_what_goes_wrong_for_a_while_is_tried_again(
    open_remote: Callable[..., Scene], server: FileServer
) -> None:
    server.faults["/B04.tif"] = Fault(status=500, times=2)
    assert open_remote().shape == (512, 512)


def test_a_band_may_have_moved(open_remote: Callable[..., Scene], server: FileServer) -> None:
    server.faults["/B04.tif"] = Fault(status=302, headers={"Location": "/B08.tif"})
    chip = open_remote().read(0, 0, 8, 8)
    # B08 is the eighth band of the profile.
    assert chip.reflectance[0, 0, 0] == pytest.approx(0.07)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=404),
        Fault(status=500),
        Fault(hangs=True),
        Fault(drips=True),
        Fault(cut=0.5),
        Fault(ignores_ranges=True),
        Fault(content=b"x" * 1000),
    ],
    ids=str,
)
def test_what_goes_wrong_between_two_windows_is_an_error_never_wrong_pixels(
    open_remote: Callable[..., Scene], server: FileServer, hasty: Limits, fault: Fault
) -> None:
    with held_open():
        scene = open_remote(patience=replace(hasty, retries=0))
        scene.read(0, 0, 120, 120)
        server.faults["/B04.tif"] = fault
        with pytest.raises(ImageryError) as refused:
            scene.read(200, 200, 300, 300)
        assert refused.value.kind == "unreadable"
        assert scene.source.location in refused.value.message
        server.faults.clear()
        chip = scene.read(200, 200, 300, 300)
    expected = (red(200, 200, 300) - 1000) / 10_000
    np.testing.assert_allclose(chip.reflectance[0], expected, atol=1e-6)


def test_pixels_are_fetched_again_after_errors_of_the_server(
    open_remote: Callable[..., Scene], server: FileServer
) -> None:
    with held_open():
        scene = open_remote()
        scene.read(0, 0, 8, 8)
        before = server.count("/B04.tif")
        server.faults["/B04.tif"] = Fault(status=503, times=before + 1)
        chip = scene.read(384, 384, 128, 128)
    np.testing.assert_allclose(chip.reflectance[0], (red(384, 384, 128) - 1000) / 10_000, atol=1e-6)


def test_a_file_that_was_replaced_is_read_anew(
    open_remote: Callable[..., Scene], bands: Path
) -> None:
    open_remote().read(0, 0, 8, 8)
    write_bands(bands, {"B04": 3000})
    with (bands / "B04.tif").open("ab") as file:
        file.write(b"one byte more")
    chip = open_remote().read(0, 0, 8, 8)
    assert chip.reflectance[0, 0, 0] == pytest.approx(0.2)


def test_half_a_file_gives_the_half_that_is_there_and_an_error_for_the_rest(
    open_remote: Callable[..., Scene], server: FileServer, bands: Path
) -> None:
    whole = (bands / "B04.tif").read_bytes()
    (bands / "B04.tif").write_bytes(whole[: len(whole) // 2])
    scene = open_remote()
    chip = scene.read(0, 0, 120, 120)
    np.testing.assert_allclose(chip.reflectance[0], (red(0, 0, 120) - 1000) / 10_000, atol=1e-6)
    with pytest.raises(ImageryError) as refused:
        scene.read(392, 392, 120, 120)
    assert refused.value.kind == "unreadable"


def test_a_band_that_the_item_lacks_is_named_before_anything_is_asked(
    open_remote: Callable[..., Scene], server: FileServer
) -> None:
    assets = {key: asset for key, asset in bands_of("").items() if key != "red"}
    with pytest.raises(ImageryError, match="B04") as refused:
        open_remote(ReadingOptions(), item(assets=assets))
    assert refused.value.kind == "missing-band"
    assert server.requests == []


def test_a_refused_band_is_named_with_its_reason(open_remote: Callable[..., Scene]) -> None:
    assets = bands_of("")
    assets["red"]["href"] = "s3://bucket/B04.tif"
    with pytest.raises(ImageryError, match=r"B04.*neither http") as refused:
        open_remote(RED, item(assets=assets))
    assert refused.value.kind == "href-refused"


def test_classes_that_are_refused_are_not_done_without(open_remote: Callable[..., Scene]) -> None:
    assets = bands_of("")
    assets["scl"]["href"] = "s3://bucket/SCL.tif"
    with pytest.raises(ImageryError, match="SCL") as refused:
        open_remote(RED, item(assets=assets))
    assert refused.value.kind == "href-refused"


def test_an_item_without_classes_is_read_without_them(open_remote: Callable[..., Scene]) -> None:
    assets = {key: asset for key, asset in bands_of("").items() if key != "scl"}
    assert open_remote(RED, item(assets=assets)).scl is None


def test_a_token_in_an_address_is_used_but_not_told(
    open_remote: Callable[..., Scene], server: FileServer, bands: Path
) -> None:
    assets = bands_of("")
    assets["red"]["href"] = "B04.tif?sig=secret"
    assert open_remote(RED, item(assets=assets)).read(0, 0, 8, 8).valid_mask.all()
    (bands / "B04.tif").write_bytes(b"II*\x00 and no more")
    with pytest.raises(ImageryError) as refused:
        open_remote(RED, item(assets=assets)).read(0, 0, 8, 8)
    assert "secret" not in refused.value.message


def test_a_missing_file_of_a_catalog_on_disk_is_named(bands: Path) -> None:
    (bands / "B04.tif").unlink()
    source = the_item(bands / "item.json", folder=bands)
    with pytest.raises(ImageryError, match=r"B04\.tif") as refused:
        open_stac(source, RED)
    assert refused.value.kind == "unreadable"
