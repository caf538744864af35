from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import geopandas
import numpy as np
import pytest
from shapely import Point, Polygon
from sqlalchemy import func, select

from indexer.catalog.tables import Base
from indexer.errors import (
    InvalidInputError,
    NotFoundError,
    ParcelleError,
    ParcelsError,
    WeightsError,
)
from indexer.reindex import ReindexOptions, reindex
from indexer.sensors import PROFILES
from indexer.settings import Settings
from tests.indexer.farm import (
    image_dn,
    kinds,
    on_image,
    options,
    reading,
    searching,
    snapshot,
    vectors,
    write_image,
    write_parcels,
)
from tests.indexer.one_layer import one_layer_installed
from tests.schemas import copy_index
from tests.synthetic import UTM_31, write_geotiff

L2A = PROFILES["l2a"]
BOW_TIE = Polygon([*on_image(14, 14, 20, 20).exterior.coords][i] for i in (0, 2, 1, 3))


@dataclass(frozen=True)
class Index:
    """An index of two good images, which bad input must leave as it is."""

    settings: Settings
    images: Path

    def assert_unchanged(self) -> None:
        """What answers is still the first generation, of these two images."""
        assert set(vectors(self.settings)) == {("good", "good"), ("other", "other")}
        with searching(self.settings) as searcher:
            answer = searcher.similar_by_id("good")
        assert answer.generation == 1
        assert [match.parcel_id for match in answer.matches] == ["other"]


@pytest.fixture(scope="session")
def two_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good images in ``images`` and their index in ``data``; not to be changed."""
    folder = tmp_path_factory.mktemp("two-images")
    write_image(folder / "images" / "good.tif", seed=1)
    write_image(folder / "images" / "other.tif", seed=2)
    with one_layer_installed():
        settings = Settings(data_dir=folder / "data", database_url="")
        reindex(settings, [folder / "images"], options())
    return folder


@pytest.fixture
def index(two_images: Path, tmp_path: Path, one_layer: str) -> Index:
    """A copy of that index."""
    copy_index(two_images, tmp_path)
    settings = Settings(data_dir=tmp_path / "data", database_url="", croma_weights="untrained")
    return Index(settings, tmp_path / "images")


def row_counts(settings: Settings) -> dict[str, int]:
    with reading(settings) as connection:
        return {
            table.name: connection.scalars(select(func.count()).select_from(table)).one()
            for table in Base.metadata.sorted_tables
        }


# Images that are skipped by name -------------------------------------------------------------


def cut_in_half(path: Path) -> None:
    write_image(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_in_the_header(path: Path) -> None:
    write_image(path)
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.touch()


def some_text(path: Path) -> None:
    path.write_text("The image is attached.")


def virtual(path: Path) -> None:
    good = path.with_name("good.tif")
    path.write_text(
        '<VRTDataset rasterXSize="120" rasterYSize="120"><VRTRasterBand dataType="UInt16" band="1">'
        f"<SimpleSource><SourceFilename>{good}</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )


def without_names(path: Path) -> None:
    write_geotiff(path, image_dn(0))


def without_b8a(path: Path) -> None:
    kept = [number for number, name in enumerate(L2A) if name != "B8A"]
    write_geotiff(path, image_dn(0)[kept], [L2A[number] for number in kept])


def all_nodata(path: Path) -> None:
    write_geotiff(path, np.zeros_like(image_dn(0)), L2A)


def one_band_of_nodata(path: Path) -> None:
    dn = image_dn(0)
    dn[3] = 65_535
    write_geotiff(path, dn, L2A)


def all_nan(path: Path) -> None:
    write_geotiff(path, np.full((12, 24, 24), np.nan, np.float32), L2A)


def a_whole_scene(path: Path) -> None:
    write_geotiff(path, np.full((12, 4, 1025), 2000, np.uint16), L2A)


@pytest.mark.parametrize(
    ("write", "kind", "says"),
    [
        (cut_in_half, "unreadable", "truncated"),
        (cut_in_the_header, "unreadable", "truncated"),
        (empty, "unreadable", "GeoTIFF"),
        (some_text, "unreadable", "GeoTIFF"),
        (virtual, "unreadable", "GeoTIFF"),
        (without_names, "bands-unknown", "--bands"),
        (without_b8a, "missing-band", "B8A"),
        (all_nodata, "no-valid-pixels", "nodata"),
        (one_band_of_nodata, "no-valid-pixels", "nodata"),
        (all_nan, "no-valid-pixels", "NaN"),
        (a_whole_scene, "too-large", "--parcels"),
    ],
)
def test_an_unusable_image_is_skipped_by_name_and_the_others_are_indexed(
    index: Index, write: Callable[[Path], None], kind: str, says: str
) -> None:
    bad = index.images / "bad.tif"
    write(bad)
    write_image(index.images / "new.tif", seed=5)
    report = reindex(index.settings, [index.images], options())
    (skipped,) = report.skipped
    assert (skipped.kind, skipped.source) == (kind, str(bad))
    assert str(bad) in skipped.reason
    assert says in skipped.reason
    assert (report.embedded, report.unchanged, report.parcels) == (1, 2, 3)
    assert {name for name, _ in vectors(index.settings)} == {"good", "other", "new"}


def test_an_image_with_another_number_of_bands_than_were_named_is_skipped(
    index: Index,
) -> None:
    write_geotiff(index.images / "bad.tif", image_dn(0)[:11])
    report = reindex(index.settings, [index.images], options(bands="l2a"))
    (skipped,) = report.skipped
    assert skipped.kind == "band-count"
    assert "has 11 bands, but --bands names 12" in skipped.reason


def test_a_missing_file_is_named_and_the_others_are_indexed(index: Index, tmp_path: Path) -> None:
    new = write_image(index.images / "new.tif", seed=5)
    report = reindex(index.settings, [tmp_path / "none.tif", new], options())
    (skipped,) = report.skipped
    assert (skipped.kind, skipped.source) == ("file-not-found", str(tmp_path / "none.tif"))
    assert report.embedded == 1


def test_the_second_of_two_images_of_one_name_is_skipped(index: Index) -> None:
    second = write_image(index.images / "sub" / "good.tif", seed=5)
    report = reindex(index.settings, [index.images], options())
    (skipped,) = report.skipped
    assert (skipped.kind, skipped.source) == ("duplicate-id", str(second))
    assert (report.embedded, report.unchanged) == (0, 2)
    index.assert_unchanged()


def test_a_run_in_which_no_image_is_usable_leaves_the_index_as_it_was(index: Index) -> None:
    cut_in_half(index.images / "bad.tif")
    all_nodata(index.images / "dark.tif")
    bad = [index.images / "bad.tif", index.images / "dark.tif"]
    report = reindex(index.settings, bad, options())
    assert kinds(report.skipped) == ["unreadable", "no-valid-pixels"]
    assert (report.embedded, report.generation) == (0, 1)
    index.assert_unchanged()


def test_a_first_run_in_which_no_image_is_usable_publishes_nothing(
    settings: Settings, tmp_path: Path, one_layer: str
) -> None:
    cut_in_half(tmp_path / "bad.tif")
    report = reindex(settings, [tmp_path / "bad.tif"], options())
    assert (report.generation, report.parcels, report.recall_at_10) == (None, 0, None)
    assert set(row_counts(settings).values()) == {0}
    assert not settings.generations_dir.exists()


def test_a_changed_image_that_is_damaged_keeps_its_old_vector(index: Index) -> None:
    cut_in_half(index.images / "good.tif")
    report = reindex(index.settings, [index.images], options())
    assert kinds(report.skipped) == ["unreadable"]
    index.assert_unchanged()


def test_an_image_without_crs_is_a_parcel_without_a_place(index: Index) -> None:
    write_image(index.images / "new.tif", seed=5, crs=None, transform=None)
    report = reindex(index.settings, [index.images], options())
    assert (report.embedded, report.skipped) == (1, [])
    with searching(index.settings) as searcher:
        assert searcher.state("new").parcel.geometry is None
        assert len(searcher.similar_by_id("new").matches) == 2


# Parcels that are skipped by name ------------------------------------------------------------


GOOD = ("p1", on_image(4, 4, 12, 12))


@pytest.mark.parametrize(
    ("bad", "kind", "says"),
    [
        (("p2", on_image(180, 4, 192, 12)), "outside-imagery", "outside of every image"),
        (("p2", Polygon()), "geometry-empty", "no geometry"),
        (("p2", BOW_TIE), "geometry-invalid", "Self-intersection"),
        (("p2", Point(500_060, 4_999_940)), "geometry-type", "Point"),
        (("p1", on_image(14, 14, 20, 20)), "duplicate-id", "same id"),
        ((None, on_image(14, 14, 20, 20)), "id-missing", "no id"),
    ],
    ids=["outside", "empty", "crosses itself", "a point", "an id twice", "no id"],
)
def test_an_unusable_parcel_is_skipped_by_name_and_the_others_are_indexed(
    index: Index, tmp_path: Path, bad: tuple[str | None, Any], kind: str, says: str
) -> None:
    parcels = write_parcels(tmp_path / "parcels.geojson", GOOD, bad)
    chosen = options(parcels=parcels, collection="farm")
    report = reindex(index.settings, [index.images / "good.tif"], chosen)
    (skipped,) = report.skipped
    assert skipped.kind == kind
    assert says in skipped.reason
    assert "parcels.geojson" in skipped.source
    assert bad[0] is None or bad[0] in skipped.source
    assert (report.embedded, report.parcels) == (1, 1)
    assert set(vectors(index.settings, "farm")) == {("p1", "good")}


def test_ids_and_texts_that_a_database_cannot_store_do_not_end_a_run(
    index: Index, tmp_path: Path
) -> None:
    longest = "i" * 2_000
    parcels = tmp_path / "parcels.parquet"
    geopandas.GeoDataFrame(
        {
            "id": ["p\0", longest + "i", longest],
            "crop:name": ["wheat", "wheat", "win\0ter wheat"],
            "note": ["", "", "so\0il"],
        },
        geometry=[on_image(4, 4, 12, 12), on_image(12, 4, 20, 12), on_image(4, 12, 12, 20)],
        crs=UTM_31,
    ).to_parquet(parcels)
    chosen = options(parcels=parcels, collection="farm")
    report = reindex(index.settings, [index.images / "good.tif"], chosen)
    assert kinds(report.skipped) == ["id-invalid"] * 2
    assert (report.embedded, report.parcels) == (1, 1)
    with searching(index.settings) as searcher:
        parcel = searcher.state(longest, collection="farm").parcel
    assert (parcel.crop_name, parcel.attributes) == ("winter wheat", {"note": "soil"})
    assert reindex(index.settings, [index.images / "good.tif"], chosen).unchanged == 1


def test_a_parcel_without_data_is_skipped_by_name(index: Index, tmp_path: Path) -> None:
    dn = image_dn(1)
    dn[:, 12:, :] = 0
    image = write_geotiff(tmp_path / "half.tif", dn, L2A)
    parcels = write_parcels(
        tmp_path / "parcels.geojson",
        ("p1", on_image(4, 1, 12, 10)),
        ("p2", on_image(4, 14, 12, 22)),
    )
    report = reindex(index.settings, [image], options(parcels=parcels, collection="farm"))
    (skipped,) = report.skipped
    assert skipped.kind == "no-valid-pixels"
    assert "parcel p2" in skipped.reason
    assert report.embedded == 1


def test_parcels_need_images_with_a_crs(index: Index, tmp_path: Path) -> None:
    placeless = write_image(tmp_path / "placeless.tif", crs=None, transform=None)
    parcels = write_parcels(tmp_path / "parcels.geojson", GOOD)
    chosen = options(parcels=parcels, collection="farm")
    report = reindex(index.settings, [placeless, index.images / "good.tif"], chosen)
    (skipped,) = report.skipped
    assert (skipped.kind, skipped.source) == ("no-crs", str(placeless))
    assert "leave --parcels away" in skipped.reason
    assert report.embedded == 1


# Runs that are refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "kind", "says"),
    [
        ({"encoder": "resnet50"}, "unknown-encoder", "resnet50"),
        ({"collection": ""}, "invalid-collection", "--collection"),
        ({"collection": "../etc"}, "invalid-collection", r"\.\./etc"),
        ({"collection": "x" * 101}, "invalid-collection", "at most 100"),
        ({"collection": "été"}, "invalid-collection", "letters"),
        ({"bands": "landsat"}, "invalid-bands", "landsat"),
        ({"bands": "B02,B02"}, "invalid-bands", "more than once"),
        ({"bands": ""}, "invalid-bands", "--bands"),
        ({"baseline": "newest"}, "invalid-baseline", "newest"),
        ({"batch_size": 0}, "invalid-option", "--batch-size 0"),
        ({"batch_size": -1}, "invalid-option", "--batch-size -1"),
        ({"normalization": "imagenet"}, "invalid-option", "imagenet"),
        ({"pooling": "max"}, "invalid-option", "max"),
        ({"device": "tpu"}, "invalid-option", "tpu"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_wrong_option_is_refused_before_any_work(
    index: Index, chosen: dict[str, Any], kind: str, says: str, dry_run: bool
) -> None:
    write_image(index.images / "new.tif", seed=5)
    before = snapshot(index.settings.data_dir)
    with pytest.raises(InvalidInputError, match=says) as caught:
        reindex(index.settings, [index.images], options(dry_run=dry_run, **chosen))
    assert caught.value.kind == kind
    assert snapshot(index.settings.data_dir) == before


@pytest.mark.parametrize("imagery", [[], ["none.tif"], ["*.nothing"], ["notes.txt"], ["void"]])
def test_a_run_without_any_image_is_refused_before_any_work(
    settings: Settings, tmp_path: Path, one_layer: str, imagery: list[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "void").mkdir()
    with pytest.raises(InvalidInputError, match="No GeoTIFF found") as caught:
        reindex(settings, [tmp_path / name for name in imagery], options())
    assert caught.value.kind == "no-imagery"
    assert not settings.data_dir.exists()


def without_crs(path: Path) -> Path:
    """A shapefile whose .prj was lost."""
    shapefile = path.with_suffix(".shp")
    frame = geopandas.GeoDataFrame({"id": ["p1"]}, geometry=[GOOD[1]], crs="EPSG:32631")
    frame.to_file(shapefile)
    shapefile.with_suffix(".prj").unlink()
    return shapefile


def damaged(path: Path) -> Path:
    write_parcels(path, GOOD)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def without_ids(path: Path) -> Path:
    path.write_text(write_parcels(path, GOOD).read_text().replace('"id"', '"owner"'))
    return path


@pytest.mark.parametrize(
    ("write", "error", "kind"),
    [
        (lambda path: path, NotFoundError, "file-not-found"),
        (without_crs, ParcelsError, "crs-missing"),
        (damaged, ParcelsError, "unreadable"),
        (without_ids, ParcelsError, "id-missing"),
        (lambda path: write_parcels(path), ParcelsError, "unreadable"),
        (lambda path: write_parcels(path, ("p1", BOW_TIE)), ParcelsError, "unreadable"),
    ],
    ids=["missing", "no CRS", "damaged", "no ids", "no parcels", "no usable parcel"],
)
def test_an_unusable_parcels_file_is_refused_by_name_before_any_work(
    index: Index,
    tmp_path: Path,
    write: Callable[[Path], Path],
    error: type[ParcelleError],
    kind: str,
) -> None:
    parcels = write(tmp_path / "parcels.geojson")
    before = snapshot(index.settings.data_dir)
    with pytest.raises(error, match=parcels.name) as caught:
        reindex(index.settings, [index.images], options(parcels=parcels))
    assert caught.value.kind == kind
    assert snapshot(index.settings.data_dir) == before


# Weights -------------------------------------------------------------------------------------


def test_weights_that_are_no_file_are_refused_before_any_work(
    settings: Settings, tmp_path: Path, one_layer: str
) -> None:
    image = write_image(tmp_path / "a.tif")
    with pytest.raises(WeightsError, match=r"none\.pt.*PARCELLE_CROMA_WEIGHTS|PARCELLE") as caught:
        reindex(settings, [image], options(weights=str(tmp_path / "none.pt")))
    assert caught.value.kind == "weights-not-found"
    assert not settings.data_dir.exists()


def test_pretrained_weights_that_cannot_be_fetched_stop_the_run_before_any_work(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    image = write_image(tmp_path / "a.tif")
    with pytest.raises(WeightsError) as caught:
        reindex(settings, [image], ReindexOptions(encoder="croma-base", weights="pretrained"))
    assert caught.value.kind == "weights-not-found"
    # Where they come from, where to put the file, which setting names it, what to do without.
    for hint in ("https://", str(tmp_path / "hub"), "PARCELLE_CROMA_WEIGHTS", "untrained"):
        assert hint in caught.value.message
    assert not settings.data_dir.exists()


def test_weights_of_another_network_write_nothing(
    index: Index, tmp_path: Path, tiny_croma: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from indexer.encoders.croma import CromaEncoder

    # The network that the quick encoder stands for.
    monkeypatch.setattr("indexer.encoders.choice.CromaEncoder", CromaEncoder)
    weights = tmp_path / "other.pt"
    tensors = {"layer.weight": torch.zeros(3, 3)}
    torch.save({"s2_encoder": tensors, "s2_GAP_FFN": tensors}, weights)
    before = snapshot(index.settings.data_dir)
    with pytest.raises(WeightsError, match=r"other\.pt: not the weights of croma-tiny") as caught:
        reindex(index.settings, [index.images], options(encoder=tiny_croma, weights=str(weights)))
    assert caught.value.kind == "weights-mismatch"
    assert snapshot(index.settings.data_dir).keys() == before.keys()
    index.assert_unchanged()
    assert row_counts(index.settings)["embedding_spaces"] == 1


def test_where_no_image_is_usable_no_parcel_is_said_to_lie_outside(
    index: Index, tmp_path: Path
) -> None:
    parcels = write_parcels(tmp_path / "parcels.geojson", ("p1", on_image(2, 2, 10, 10)))
    (tmp_path / "damaged.tif").write_bytes(b"II*\0")
    report = reindex(index.settings, [tmp_path / "damaged.tif"], options(parcels=parcels))
    assert [skipped.kind for skipped in report.skipped] == ["unreadable"]
