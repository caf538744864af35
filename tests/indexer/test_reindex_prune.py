"""Parcels that the source does not name any more are retired with ``--prune``, and only then."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer import reindex as reindexing
from indexer.encoders import croma
from indexer.errors import InvalidInputError, NotFoundError, StorageError
from indexer.generations import store
from indexer.reindex import ReindexReport, reindex
from indexer.settings import Settings
from tests.indexer.farm import (
    CLOUD,
    VEGETATION,
    assert_same_vectors,
    ids,
    kinds,
    on_image,
    options,
    searching,
    snapshot,
    states,
    vectors,
    write_image,
    write_images,
    write_parcels,
)
from tests.indexer.imagery.stac.catalogs import bands_of, item, write_bands, write_catalog
from tests.indexer.imagery.test_joint import write_optical, write_radar
from tests.indexer.one_layer import one_layer_installed
from tests.schemas import copy_index

pytestmark = pytest.mark.usefixtures("one_layer")

OUTLINES = {f"p{number}": on_image(5 * number + 1, 4, 5 * number + 4, 18) for number in range(4)}


def names(settings: Settings, collection: str = "parcels") -> set[str]:
    """Parcels that have a vector."""
    return {parcel_id for parcel_id, _ in ids(settings, collection)}


def found(settings: Settings, parcel_id: str) -> set[str]:
    """Parcels that a search finds."""
    with searching(settings) as searcher:
        return {match.parcel_id for match in searcher.similar_by_id(parcel_id, k=100).matches}


class Farm:
    """An image and a file of the parcels on it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder / "data", database_url="")
        self.image = folder / "scene.tif"
        self.parcels = folder / "parcels.geojson"

    def name(self, *parcel_ids: str) -> None:
        """Write a file of these parcels only."""
        write_parcels(self.parcels, *((one, OUTLINES[one]) for one in parcel_ids))

    def prune(self, **chosen: object) -> ReindexReport:
        """Reindex with what the file holds now."""
        chosen = {"prune": True, "parcels": self.parcels} | chosen
        return reindex(self.settings, [self.image], options(**chosen))


@pytest.fixture(scope="session")
def four_parcels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A farm of four parcels, indexed; not to be changed."""
    farm = Farm(tmp_path_factory.mktemp("four-parcels"))
    write_image(farm.image, scl=VEGETATION)
    farm.name(*OUTLINES)
    with one_layer_installed():
        reindex(farm.settings, [farm.image], options(parcels=farm.parcels))
    return farm.image.parent


@pytest.fixture
def farm(four_parcels: Path, tmp_path: Path) -> Farm:
    """A copy of that farm."""
    copy_index(four_parcels, tmp_path)
    return Farm(tmp_path)


# Parcels of a file ---------------------------------------------------------------------------


def test_a_parcel_that_the_file_does_not_name_any_more_is_found_no_more(farm: Farm) -> None:
    farm.name("p0", "p2")
    report = farm.prune()
    assert (report.retired, report.parcels, report.observations) == (2, 2, 2)
    assert (report.embedded, report.unchanged, report.generation) == (0, 2, 2)
    assert names(farm.settings) == {"p0", "p2"}
    assert found(farm.settings, "p0") == {"p2"}
    with searching(farm.settings) as searcher, pytest.raises(NotFoundError):
        searcher.state("p1")
    again = farm.prune()
    assert (again.retired, again.generation) == (0, 2)


def test_without_the_option_it_stays(farm: Farm) -> None:
    before = vectors(farm.settings)
    farm.name("p0")
    report = farm.prune(prune=False)
    assert (report.retired, report.parcels, report.generation) == (0, 4, 1)
    assert vectors(farm.settings).keys() == before.keys()


def test_what_comes_and_what_goes_are_one_generation(farm: Farm) -> None:
    farm.name("p1", "p2")
    farm.prune()
    farm.name("p0", "p1")
    report = farm.prune()
    assert (report.retired, report.embedded, report.generation) == (1, 1, 3)
    assert found(farm.settings, "p0") == {"p1"}


def test_a_parcel_that_comes_back_is_embedded_anew_and_has_the_vector_it_had(farm: Farm) -> None:
    before = vectors(farm.settings)
    farm.name("p0", "p1", "p2")
    farm.prune()
    farm.name(*OUTLINES)
    assert farm.prune().embedded == 1
    assert_same_vectors(vectors(farm.settings), before)


def test_a_parcel_whose_geometry_became_invalid_stays(farm: Farm) -> None:
    document = json.loads(farm.parcels.read_text())
    document["features"][1]["geometry"]["coordinates"] = []
    document["features"] = document["features"][:3]
    farm.parcels.write_text(json.dumps(document))
    report = farm.prune()
    assert (report.retired, kinds(report.skipped)) == (1, ["geometry-empty"])
    assert names(farm.settings) == {"p0", "p1", "p2"}


def test_parcels_of_another_collection_in_the_same_space_stay(farm: Farm) -> None:
    reindex(farm.settings, [farm.image], options(parcels=farm.parcels, collection="other"))
    farm.name("p0")
    assert farm.prune().retired == 3
    assert names(farm.settings, "other") == set(OUTLINES)
    with searching(farm.settings) as searcher:
        matches = searcher.similar_by_id("p0", collection="parcels", k=100).matches
    assert {(one.collection, one.parcel_id) for one in matches} == {
        ("other", parcel_id) for parcel_id in OUTLINES
    }


def test_a_space_that_the_collection_left_answers_for_the_others_in_it(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    reindex(farm.settings, [farm.image], options(parcels=farm.parcels, collection="other"))
    monkeypatch.setitem(croma.ARCHITECTURES, "one-more", {"encoder_dim": 512})
    farm.name("p0", "p1")
    assert farm.prune(encoder="one-more").retired == 2
    with searching(farm.settings) as searcher:
        matches = searcher.similar_by_id("p0", collection="other", k=100).matches
    assert {one.parcel_id for one in matches if one.collection == "other"} == {"p1", "p2", "p3"}


def test_nothing_is_retired_where_only_parcels_without_a_vector_would_remain(farm: Farm) -> None:
    west = np.tile(np.where(np.arange(24) < 5, CLOUD, VEGETATION).astype(np.uint16), (24, 1))
    write_image(farm.image, scl=west)
    assert farm.prune(prune=False).clouded == 1
    farm.name("p0")
    report = farm.prune()
    assert (report.retired, report.parcels) == (0, 4)
    assert [note for note in report.notes if note.startswith("--prune retired nothing")]
    assert found(farm.settings, "p1") == {"p2", "p3"}


# Nothing would remain ------------------------------------------------------------------------


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_source_that_names_none_of_the_parcels_is_refused_before_any_work(
    farm: Farm, dry_run: bool
) -> None:
    before = snapshot(farm.settings.data_dir)
    write_parcels(farm.parcels, ("another", OUTLINES["p0"]))
    with pytest.raises(InvalidInputError, match=r"--prune.*none of the 4 parcels") as caught:
        farm.prune(dry_run=dry_run)
    assert caught.value.kind == "invalid-option"
    after = snapshot(farm.settings.data_dir)
    assert after.keys() == before.keys()
    assert names(farm.settings) == set(OUTLINES)


def test_a_first_run_has_nothing_to_retire(settings: Settings, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    report = reindex(settings, [tmp_path / "images"], options(prune=True))
    assert (report.retired, report.embedded, report.generation) == (0, 2, 1)


# Images that are parcels ---------------------------------------------------------------------


@pytest.fixture
def images(settings: Settings, tmp_path: Path) -> Path:
    """Two folders of indexed images, two in each."""
    for number in range(4):
        write_image(tmp_path / "images" / "ab"[number // 2] / f"i{number}.tif", seed=number)
    reindex(settings, [tmp_path / "images"], options())
    return tmp_path / "images"


def test_an_image_that_vanished_is_retired(settings: Settings, images: Path) -> None:
    (images / "a" / "i1.tif").unlink()
    report = reindex(settings, [images], options(prune=True))
    assert (report.retired, report.unchanged) == (1, 3)
    assert found(settings, "i0") == {"i2", "i3"}


def test_an_image_that_cannot_be_read_any_more_stays(settings: Settings, images: Path) -> None:
    (images / "a" / "i1.tif").write_bytes(b"II*\0")
    (images / "b" / "i3.tif").unlink()
    report = reindex(settings, [images], options(prune=True))
    assert (report.retired, kinds(report.skipped)) == (1, ["unreadable"])
    assert names(settings) == {"i0", "i1", "i2"}


def test_nothing_is_retired_while_a_folder_is_missing(settings: Settings, images: Path) -> None:
    shutil.rmtree(images / "b")
    report = reindex(settings, [images / "a", images / "b"], options(prune=True))
    assert (report.retired, kinds(report.skipped)) == (0, ["file-not-found"])
    assert [note for note in report.notes if note.startswith("--prune retired nothing")]
    assert names(settings) == {"i0", "i1", "i2", "i3"}


def test_windows_of_an_image_that_vanished_are_retired(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_images(folder, 2)
    reindex(settings, [folder], options(windows=12))
    (folder / "image-01.tif").unlink()
    report = reindex(settings, [folder], options(windows=12, prune=True))
    assert (report.retired, report.parcels) == (4, 4)
    assert all(name.startswith("image-00-12px-") for name in names(settings))


def test_windows_of_another_size_go_when_the_new_ones_are_there(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    write_images(folder, 1)
    reindex(settings, [folder], options(windows=12))
    with pytest.raises(InvalidInputError):
        reindex(settings, [folder], options(windows=24, prune=True))
    reindex(settings, [folder], options(windows=24))
    report = reindex(settings, [folder], options(windows=24, prune=True))
    assert (report.retired, report.parcels) == (4, 1)


def test_an_image_whose_radar_vanished_stays(settings: Settings, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_optical(tmp_path / "s2" / f"{name}.tif", size=24)
    radar = write_radar(tmp_path / "s1" / "radar.tif", size=24)
    chosen = options(modality="joint")
    assert reindex(settings, [tmp_path / "s2", radar], chosen).embedded == 2
    (tmp_path / "s2" / "two.tif").unlink()
    radar = write_radar(radar, size=24, time="2020-01-01T00:00:00Z")
    write_image(tmp_path / "s2" / "three.tif", seed=3)
    report = reindex(settings, [tmp_path / "s2", radar], replace(chosen, prune=True))
    assert (report.retired, set(kinds(report.skipped))) == (1, {"no-radar"})
    assert names(settings) == {"one"}


def test_items_that_a_catalog_does_not_name_any_more_are_retired_unless_a_part_of_it_is_missing(
    settings: Settings, tmp_path: Path
) -> None:
    items = [item(name, assets=bands_of("../bands/")) for name in ("one", "two")]
    write_bands(tmp_path / "s2" / "bands")
    catalog = str(write_catalog(tmp_path, items))
    chosen = options(windows=120, stac=catalog)
    assert reindex(settings, [], chosen).parcels == 2 * 25
    (tmp_path / "s2" / "two" / "two.json").unlink()
    report = reindex(settings, [], replace(chosen, prune=True))
    assert (report.retired, kinds(report.skipped)) == (0, ["file-not-found"])
    write_catalog(tmp_path, items[:1])
    report = reindex(settings, [], replace(chosen, prune=True))
    assert (report.retired, report.skipped) == (25, [])
    assert {name.split("-")[0] for name in names(settings)} == {"one"}


# Told beforehand, and interrupted ------------------------------------------------------------


def test_a_dry_run_tells_how_many_would_be_retired_and_changes_no_byte(farm: Farm) -> None:
    farm.name("p0")
    before = snapshot(farm.settings.data_dir)
    planned = farm.prune(dry_run=True)
    assert snapshot(farm.settings.data_dir) == before
    done = farm.prune()
    assert (planned.retired, planned.unchanged) == (done.retired, done.unchanged) == (3, 1)


@pytest.mark.parametrize("step", ["_fill", "publish_generation", "delete_parcels"])
def test_a_run_that_fails_before_it_publishes_has_retired_nothing(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    farm.name("p0", "p1")

    def fails(*_: object, **__: object) -> None:
        raise StorageError("The disk is full.", kind="write-failed")

    with monkeypatch.context() as patch:
        patch.setattr(store, step, fails)
        with pytest.raises(StorageError):
            farm.prune()
    assert len(states(farm.settings)) == 4
    assert found(farm.settings, "p0") == {"p1", "p2", "p3"}
    assert farm.prune().retired == 2
    assert found(farm.settings, "p0") == {"p1"}


def test_a_run_that_fails_while_it_embeds_has_retired_nothing(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.name("p0", "p1")
    write_image(farm.image, seed=5, scl=VEGETATION)

    def fails(*_: object, **__: object) -> None:
        raise StorageError("The disk is full.", kind="write-failed")

    with monkeypatch.context() as patch:
        patch.setattr(reindexing, "save_observations", fails)
        with pytest.raises(StorageError):
            farm.prune()
    assert names(farm.settings) == set(OUTLINES)
    report = farm.prune()
    assert (report.embedded, report.retired, report.generation) == (2, 2, 2)
