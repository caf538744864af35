"""Products, catalogs, servers and radar, on the whole way from source to answer."""

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.warp import transform_geom
from shapely.geometry import box, mapping
from sqlalchemy import select

from indexer import pipeline
from indexer.catalog.database import connect
from indexer.catalog.tables import Observation
from indexer.errors import InvalidInputError, NotFoundError
from indexer.imagery.stac.item import open_stac
from indexer.imagery.stac.limits import Limits
from indexer.reindex import reindex
from indexer.sensors import SENTINEL2_BANDS
from indexer.settings import Settings
from retriever.previews import Previews
from retriever.statements import snapshot as snapshot_of
from tests.indexer.farm import (
    assert_same_vectors,
    kinds,
    on_image,
    options,
    reading,
    searching,
    snapshot,
    states,
    vectors,
    write_parcels,
)
from tests.indexer.imagery.safe_products import (
    L2A,
    SIDE_M,
    image_name,
    make_product,
    metadata_xml,
    zip_product,
)
from tests.indexer.imagery.stac.catalogs import (
    NORTH,
    WEST,
    bands_of,
    item,
    write_bands,
    write_catalog,
    write_json,
)
from tests.indexer.imagery.stac.file_server import Fault, FileServer, serve_files
from tests.indexer.imagery.stac.search_api import SearchApi
from tests.indexer.imagery.test_joint import write_optical, write_radar

pytestmark = pytest.mark.usefixtures("one_layer")

LATER = L2A.replace("20230601", "20230611")


def seen_of(settings: Settings) -> dict[str, tuple[str, datetime | None, str | None]]:
    """Where each scene lies, when it was acquired, and its baseline."""
    statement = select(
        Observation.scene,
        Observation.source,
        Observation.acquired_at,
        Observation.processing_baseline,
    )
    with reading(settings) as connection:
        return {
            scene: (source, acquired_at, baseline)
            for scene, source, acquired_at, baseline in connection.execute(statement)
        }


def ndvi(settings: Settings, parcel_id: str, scene: str) -> float:
    """Median of a parcel."""
    return float(states(settings)[parcel_id, scene][1]["NDVI"]["median"])


# Products ------------------------------------------------------------------------------------


def constant(red: int, nir: int) -> dict[str, np.ndarray[Any, Any]]:
    """Bands of 2000 everywhere but in red and near infrared."""
    dn = {name: 2000 for name in SENTINEL2_BANDS} | {"B04": red, "B08": nir}
    return {
        name: np.full((SIDE_M // band.gsd_m,) * 2, dn[name], np.uint16)
        for name, band in SENTINEL2_BANDS.items()
    }


@pytest.fixture(scope="session")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A product of June 1st, a zip file of one of June 11th, and parcels on them."""
    folder = tmp_path_factory.mktemp("products")
    make_product(folder / "scenes" / f"{L2A}.SAFE", bands=constant(2000, 5000))
    later = make_product(
        folder / f"{LATER}.SAFE",
        bands=constant(3000, 4000),
        metadata=metadata_xml(start="2023-06-11T10:50:31.024Z"),
    )
    zip_product(later, folder / "scenes" / f"{LATER}.zip")
    outlines = {"small": on_image(10, 10, 24, 22), "long": on_image(5, 60, 115, 70)}
    write_parcels(folder / "parcels.geojson", *outlines.items())
    return folder


def test_products_in_folders_and_zip_files_are_observations_of_their_days(
    settings: Settings, products: Path
) -> None:
    chosen = options(parcels=products / "parcels.geojson")
    report = reindex(settings, [products / "scenes"], chosen)
    assert (report.read, report.embedded, report.skipped) == (2, 4, [])
    # (DN - 1000) / 10000: red 0.1 and 0.2, near infrared 0.4 and 0.3.
    assert ndvi(settings, "small", L2A) == pytest.approx(0.6, abs=1e-6)
    assert ndvi(settings, "small", LATER) == pytest.approx(0.2, abs=1e-6)
    seen = seen_of(settings)
    assert seen[L2A][0].endswith(f"{L2A}.SAFE")
    assert seen[LATER][0].endswith(f"{LATER}.zip")
    assert {baseline for _, _, baseline in seen.values()} == {"05.09"}
    with searching(settings) as searcher:
        days = [one.acquired_at for one in searcher.state("long").observations]
    assert [day.date().isoformat() for day in days if day] == ["2023-06-01", "2023-06-11"]
    again = reindex(settings, [products / "scenes"], chosen)
    assert (again.embedded, again.chips, again.unchanged, again.generation) == (0, 0, 4, 1)


def test_a_product_is_unchanged_when_it_is_unpacked(settings: Settings, products: Path) -> None:
    chosen = options(parcels=products / "parcels.geojson")
    reindex(settings, [products / "scenes" / f"{LATER}.zip"], chosen)
    before = vectors(settings)
    report = reindex(settings, [products / f"{LATER}.SAFE"], chosen)
    assert (report.embedded, report.unchanged) == (0, 2)
    assert_same_vectors(vectors(settings), before)
    assert seen_of(settings)[LATER][0].endswith(".SAFE")


def test_broken_products_are_skipped_by_name_and_the_others_embedded(
    settings: Settings, products: Path, tmp_path: Path
) -> None:
    for name in ("lacking", "broken", "half"):
        shutil.copytree(products / "scenes" / f"{L2A}.SAFE", tmp_path / "s" / f"{name}.SAFE")
    (tmp_path / "s" / "lacking.SAFE" / image_name("l2a", "B05", 20)).unlink()
    broken = tmp_path / "s" / "broken.SAFE" / image_name("l2a", "B08", 10)
    broken.write_bytes(broken.read_bytes()[:60])
    half = tmp_path / "s" / "half.SAFE" / image_name("l2a", "B03", 10)
    half.write_bytes(b"no image at all")
    whole = products / "scenes" / f"{LATER}.zip"
    (tmp_path / "s" / "torn.SAFE.zip").write_bytes(whole.read_bytes()[:2000])
    shutil.copy(whole, tmp_path / "s")
    report = reindex(settings, [tmp_path / "s"], options(parcels=products / "parcels.geojson"))
    assert report.embedded == 2
    assert {(Path(one.source).name, one.kind) for one in report.skipped} == {
        ("lacking.SAFE", "missing-band"),
        ("broken.SAFE", "unreadable"),
        ("half.SAFE", "unreadable"),
        ("torn.SAFE.zip", "unreadable"),
    }


# Catalogs ------------------------------------------------------------------------------------

DAYS = {"S2A_one": "2023-06-01", "S2A_two": "2023-07-01"}


def plots(folder: Path, west_m: float = 300, side_m: float = 200) -> Path:
    """Parcels ``a`` in the north and ``b`` in the south of the catalog's scenes."""
    squares = {
        name: box(WEST + west_m, top - side_m, WEST + west_m + side_m, top)
        for name, top in (("a", NORTH - 300), ("b", NORTH - 4000))
    }
    features = [
        {
            "type": "Feature",
            "properties": {"id": name},
            "geometry": transform_geom("EPSG:32631", "EPSG:4326", mapping(square), precision=9),
        }
        for name, square in squares.items()
    ]
    path = folder / "parcels.geojson"
    write_json(path, {"type": "FeatureCollection", "features": features})
    return path


def items(bands: str, **properties: object) -> list[dict[str, Any]]:
    """An item for each day; each has a folder of bands of its name below ``bands``."""
    return [
        item(
            name,
            time=f"{day}T10:50:31Z",
            assets=bands_of(f"{bands}{name}/"),
            properties={"s2:processing_baseline": "03.00", "eo:cloud_cover": place * 50}
            | properties,
        )
        for place, (name, day) in enumerate(DAYS.items())
    ]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of two days with its bands, and parcels on them."""
    folder = tmp_path_factory.mktemp("archive")
    write_catalog(folder, items("../"))
    for place, name in enumerate(DAYS):
        write_bands(folder / "s2" / name, {"B04": 1000, "B08": 3000 + 1000 * place})
    plots(folder)
    return folder


@pytest.fixture
def online(archive: Path) -> Iterator[FileServer]:
    with serve_files(archive) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels are waited for, but not for long."""
    limits = Limits(
        connect_s=5, silence_s=0.5, request_s=3, retries=1, delay_s=0.01, longest_delay_s=0.05
    )
    monkeypatch.setattr(pipeline, "open_stac", partial(open_stac, limits=limits))


def chosen(archive: Path, stac: object, **more: object) -> Any:  # noqa: ANN401 - ReindexOptions
    return options(parcels=archive / "parcels.geojson", stac=str(stac), **more)


def test_several_dates_of_a_catalog_are_several_observations(
    settings: Settings, archive: Path
) -> None:
    report = reindex(settings, [], chosen(archive, archive / "catalog.json"))
    assert (report.read, report.embedded, report.parcels) == (2, 4, 2)
    with searching(settings) as searcher:
        observed = searcher.state("a").observations
    assert [one.acquired_at for one in observed] == [
        datetime(2023, 6, 1, 10, 50, 31, tzinfo=UTC),
        datetime(2023, 7, 1, 10, 50, 31, tzinfo=UTC),
    ]
    # Red around 1049 and near infrared 2000 and 3000 more.
    assert ndvi(settings, "a", "S2A_one") == pytest.approx(2000 / 4098, abs=0.01)
    assert ndvi(settings, "a", "S2A_two") == pytest.approx(3000 / 5098, abs=0.01)


def test_place_time_and_clouds_choose_the_items(settings: Settings, archive: Path) -> None:
    catalog = archive / "catalog.json"
    june = (datetime(2023, 6, 1, tzinfo=UTC), datetime(2023, 6, 30, tzinfo=UTC))
    reindex(settings, [], chosen(archive, catalog, interval=june, collection="june"))
    reindex(settings, [], chosen(archive, catalog, max_cloud_percent=49.0, collection="clear"))
    assert {scene for _, scene in vectors(settings, "june")} == {"S2A_one"}
    assert {scene for _, scene in vectors(settings, "clear")} == {"S2A_one"}


def test_disk_server_and_api_name_the_same_scenes(
    settings: Settings, archive: Path, online: FileServer
) -> None:
    reindex(settings, [], chosen(archive, archive / "catalog.json"))
    before = vectors(settings)
    online.api = SearchApi(items(f"{online.url}/s2/"), page_size=1)
    for address in (
        f"{online.url}/catalog.json",
        f"{online.url}/api",
        f"{online.url}/api/collections/sentinel-2-l2a",
    ):
        report = reindex(settings, [], chosen(archive, address))
        assert (report.embedded, report.chips, report.unchanged) == (0, 0, 4), address
        assert report.skipped == []
        for name, (source, _, _) in seen_of(settings).items():
            assert source.startswith(online.url)
            assert name in source
    assert_same_vectors(vectors(settings), before)


def test_of_a_scene_on_a_server_only_what_lies_under_parcels_is_fetched(
    settings: Settings, archive: Path, online: FileServer
) -> None:
    report = reindex(settings, [], chosen(archive, f"{online.url}/catalog.json"))
    assert (report.embedded, report.chips) == (4, 4)
    # Two tiles of 120 px, each in at most 2 x 2 blocks of 128 px, of the 16 blocks of a band.
    for name in DAYS:
        whole = (archive / "s2" / name / "B02.tif").stat().st_size
        assert online.sent(f"{name}/B02.tif") < 0.6 * whole


def test_images_of_a_folder_and_items_of_a_catalog_may_be_named_together(
    settings: Settings, archive: Path, products: Path
) -> None:
    report = reindex(settings, [products / "scenes"], chosen(archive, archive / "catalog.json"))
    # The parcels lie on the catalog's scenes only.
    assert (report.read, report.embedded) == (4, 4)


@pytest.mark.usefixtures("impatient")
def test_whatever_servers_do_is_a_named_skip_and_the_rest_is_embedded(
    settings: Settings, archive: Path, tmp_path: Path
) -> None:
    names = ("good", "gone", "refuses", "fails", "silent", "half", "other", "recovers")
    for name in names:
        shutil.copytree(archive / "s2" / "S2A_one", tmp_path / "web" / name)
    with serve_files(tmp_path / "web") as server:
        server.faults |= {
            "/gone/B05.tif": Fault(status=404),
            "/refuses/B05.tif": Fault(status=403),
            "/fails/B05.tif": Fault(status=500),
            "/silent/B05.tif": Fault(hangs=True),
            "/half/B05.tif": Fault(skips=2, cut=0.3),
            "/other/B05.tif": Fault(content=b"<html>Please log in.</html>"),
            "/recovers/B05.tif": Fault(status=503, times=1),
        }
        listed = [
            item(
                name,
                time=f"2023-06-{day:02d}T10:00:00Z",
                assets=bands_of(f"{server.url}/{name}/"),
            )
            for day, name in enumerate(names, start=1)
        ]
        listed.append(item("timeless", time=None, assets=bands_of(f"{server.url}/good/")))
        listed.append(item("lacking", assets={"red": bands_of(f"{server.url}/good/")["red"]}))
        catalog = write_catalog(tmp_path / "listed", listed)
        collection = tmp_path / "listed" / "s2" / "collection.json"
        text = collection.read_text()
        loop = '"links": [{"rel": "child", "href": "../catalog.json"}, '
        collection.write_text(text.replace('"links": [', loop, 1))
        report = reindex(settings, [], chosen(archive, catalog))
    assert {(Path(one.source).stem, one.kind) for one in report.skipped} == {
        ("gone", "missing-band"),
        ("refuses", "unreachable"),
        ("fails", "unreachable"),
        ("silent", "unreachable"),
        ("half", "unreadable"),
        ("other", "unreadable"),
        ("timeless", "item-invalid"),
        ("lacking", "missing-band"),
        ("catalog", "catalog-loop"),
    }
    assert {scene for _, scene in vectors(settings)} >= {"good", "recovers"}
    assert report.read == 2


def test_scenes_of_neighboring_zones_show_the_same_parcels(
    settings: Settings, archive: Path, tmp_path: Path
) -> None:
    # The same numbers, 6 degrees of longitude apart.
    shutil.copytree(archive / "s2" / "S2A_one", tmp_path / "s2" / "west")
    shutil.copytree(archive / "s2" / "S2A_one", tmp_path / "s2" / "east")
    for file in (tmp_path / "s2" / "east").glob("*.tif"):
        with rasterio.open(file, "r+") as band:
            band.crs = "EPSG:32632"
    squares = {
        "in-31": ("EPSG:32631", box(WEST + 300, NORTH - 500, WEST + 500, NORTH - 300)),
        "in-32": ("EPSG:32632", box(WEST + 300, NORTH - 500, WEST + 500, NORTH - 300)),
    }
    features = [
        {
            "type": "Feature",
            "properties": {"id": name},
            "geometry": transform_geom(crs, "EPSG:4326", mapping(square), precision=9),
        }
        for name, (crs, square) in squares.items()
    ]
    parcels = tmp_path / "parcels.geojson"
    write_json(parcels, {"type": "FeatureCollection", "features": features})
    report = reindex(settings, [tmp_path / "s2"], options(parcels=parcels, baseline="03.00"))
    assert (report.read, report.skipped) == (2, [])
    found = vectors(settings)
    assert set(found) == {("in-31", "west"), ("in-32", "east")}
    np.testing.assert_allclose(found["in-31", "west"], found["in-32", "east"], atol=1e-4)


def test_a_catalog_in_which_nothing_fits_is_no_imagery(settings: Settings, archive: Path) -> None:
    never = (datetime(1999, 1, 1, tzinfo=UTC), datetime(1999, 2, 1, tzinfo=UTC))
    with pytest.raises(InvalidInputError, match=r"no item of it fits") as caught:
        reindex(settings, [], chosen(archive, archive / "catalog.json", interval=never))
    assert caught.value.kind == "no-imagery"
    assert not settings.data_dir.exists()


def test_a_catalog_at_an_address_of_another_scheme_is_refused_with_what_is_read(
    settings: Settings, archive: Path
) -> None:
    with pytest.raises(InvalidInputError, match=r"s3://b/catalog\.json: catalogs are read at http"):
        reindex(settings, [], chosen(archive, "s3://b/catalog.json"))


# Radar ---------------------------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Optical images of two places in ``s2``, radar of their days in ``s1``."""
    for number, name in enumerate(("here", "there")):
        place = rasterio.Affine(10, 0, 500_000 + 1000 * number, 0, -10, 5_000_000)
        write_optical(tmp_path / "s2" / f"{name}.tif", size=24, transform=place)
        write_radar(
            tmp_path / "s1" / f"radar-{name}.tif", -8.0 - 4 * number, size=24, transform=place
        )
    return tmp_path


def test_radar_alone_makes_vectors_without_indices(settings: Settings, pairs: Path) -> None:
    report = reindex(settings, [pairs / "s1"], options(modality="sar"))
    assert (report.embedded, report.clouded) == (2, 0)
    assert report.space is not None
    assert report.space["modality"] == "sar"
    assert [found for _, found in states(settings).values()] == [{}, {}]
    with searching(settings) as searcher:
        (match,) = searcher.similar_by_id("radar-here").matches
        observed = searcher.state("radar-there").observations
    assert match.parcel_id == "radar-there"
    assert [one.indices for one in observed] == [{}]


def test_optical_images_and_radar_of_their_days_make_vectors_of_both(
    settings: Settings, pairs: Path
) -> None:
    joint = options(modality="joint")
    report = reindex(settings, [pairs / "s2", pairs / "s1"], joint)
    assert (report.read, report.embedded, report.skipped) == (2, 2, [])
    before = vectors(settings)
    assert set(before) == {("here", "here"), ("there", "there")}
    again = reindex(settings, [pairs / "s1", pairs / "s2"], joint)
    assert (again.embedded, again.chips, again.unchanged) == (0, 0, 2)
    # Other backscatter is another observation of the optical image's day.
    here = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
    write_radar(pairs / "s1" / "radar-here.tif", -20.0, size=24, transform=here)
    assert reindex(settings, [pairs / "s1", pairs / "s2"], joint).embedded == 1
    after = vectors(settings)
    assert not np.allclose(after["here", "here"], before["here", "here"], atol=1e-3)
    np.testing.assert_array_equal(after["there", "there"], before["there", "there"])


def test_each_modality_is_a_space_of_its_own(settings: Settings, pairs: Path) -> None:
    spaces = {
        modality: reindex(
            settings, [pairs / "s2", pairs / "s1"], options(modality=modality, collection=modality)
        ).space
        for modality in ("optical", "sar", "joint")
    }
    assert len({str(space and space["id"]) for space in spaces.values()}) == 3


def test_optical_images_without_radar_are_skipped_by_name(settings: Settings, pairs: Path) -> None:
    (pairs / "s1" / "radar-there.tif").unlink()
    report = reindex(settings, [pairs / "s2", pairs / "s1"], options(modality="joint"))
    assert (report.embedded, kinds(report.skipped)) == (1, ["no-radar"])
    assert report.skipped[0].source.endswith("there.tif")


def test_real_optical_and_radar_scenes_are_embedded_together(
    settings: Settings, test_data: Callable[[str], Path]
) -> None:
    scenes = test_data("terramesh_scenes")
    # 224 px: the quick encoder takes windows that its input is a multiple of.
    report = reindex(
        settings,
        [scenes / "S2L2A", scenes / "S1RTC"],
        options(modality="joint", bands="l2a,s1", windows=120),
    )
    assert (report.read, report.embedded, report.skipped) == (3, 12, [])


# Tiles at half the pixel size ----------------------------------------------------------------


def test_small_parcels_can_be_looked_at_twice_as_finely(settings: Settings, products: Path) -> None:
    scene, parcels = products / "scenes" / f"{L2A}.SAFE", products / "parcels.geojson"
    coarse = reindex(settings, [scene], options(parcels=parcels, collection="coarse"))
    fine = reindex(settings, [scene], options(parcels=parcels, collection="fine", gsd_m=5.0))
    assert (coarse.chips, coarse.embedded, fine.embedded) == (1, 2, 2)
    # 120 px hold tiles of 60 px at 0, 44 and 60; the long parcel reaches over all of a row.
    assert 3 <= fine.chips <= 4
    assert coarse.space is not None
    assert fine.space is not None
    assert coarse.space["id"] != fine.space["id"]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_precision_is_a_space_and_its_agreement_with_fp32_is_kept(
    settings: Settings, products: Path, precision: str
) -> None:
    given = options(parcels=products / "parcels.geojson", precision=precision)
    first = reindex(settings, [products / "scenes"], given)
    assert first.space is not None
    assert first.space["precision"] == precision
    assert first.precision_agreement is not None
    # The encoder of one layer computes alike in any precision.
    assert first.precision_agreement["cosine_min"] == pytest.approx(1, abs=1e-6)
    before = snapshot(settings.data_dir)
    again = reindex(settings, [products / "scenes"], replace(given, precision=None, dry_run=True))
    assert (again.unchanged, again.precision_agreement) == (4, first.precision_agreement)
    assert snapshot(settings.data_dir) == before


# Pictures ------------------------------------------------------------------------------------


def picture(settings: Settings, parcel_id: str) -> np.ndarray[Any, Any]:
    """Pixels of a parcel's preview, shape ``(y, x, 4)``."""
    engine = connect(settings)
    try:
        with snapshot_of(engine) as connection:
            drawn = Previews().find(connection, parcel_id, size_px=96).draw()
    finally:
        engine.dispose()
    with Image.open(io.BytesIO(drawn)) as image:
        return np.array(image.convert("RGBA"))


def test_parcels_of_products_are_drawn_from_folder_and_zip_file(
    settings: Settings, products: Path
) -> None:
    chosen = options(parcels=products / "parcels.geojson")
    for product in (products / f"{LATER}.SAFE", products / "scenes" / f"{LATER}.zip"):
        reindex(settings, [product], chosen)
        pixels = picture(settings, "small")
        assert pixels.shape == (96, 96, 4)
        # Red is 0.2, blue and green are 0.1.
        red, green, blue = pixels[48, 48, :3].astype(int)
        assert red > green == blue


def test_items_are_drawn_from_the_server_as_long_as_it_is_there(
    settings: Settings, archive: Path
) -> None:
    with serve_files(archive) as server:
        reindex(settings, [], chosen(archive, f"{server.url}/catalog.json"))
        assert picture(settings, "a").shape == (96, 96, 4)
        server.faults |= {f"/s2/{name}/{name}.json": Fault(status=404) for name in DAYS}
        with pytest.raises(NotFoundError) as caught:
            picture(settings, "a")
    assert caught.value.kind == "preview-not-found"


def test_radar_is_drawn_in_gray(settings: Settings, pairs: Path) -> None:
    reindex(settings, [pairs / "s1"], options(modality="sar"))
    pixels = picture(settings, "radar-here")
    assert pixels.shape == (96, 96, 4)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 1] == pixels[..., 2]).all()
