import gc
import json
import weakref
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import select, text, update

from indexer.catalog.database import connect
from indexer.catalog.reading import collection_space, count_kept_embeddings, kept_embeddings
from indexer.catalog.tables import Observation, Parcel
from indexer.embedding_space import UNTRAINED_NOTE
from indexer.encoders import croma
from indexer.encoders.weights import Weights
from indexer.errors import ImageryError, NotFoundError
from indexer.imagery.chip import Chip
from indexer.imagery.reader import Scene
from indexer.landscape import Landscape, draw_landscape
from indexer.normalization import Normalization
from indexer.reindex import reindex
from indexer.sensors import PROFILES
from indexer.settings import Settings
from retriever.queries import ParcelFilter
from tests.indexer.farm import (
    CLOUD,
    VEGETATION,
    Seen,
    assert_same_vectors,
    ids,
    image_dn,
    on_image,
    options,
    reading,
    searching,
    snapshot,
    states,
    stored,
    vectors,
    write_image,
    write_images,
    write_parcels,
)
from tests.indexer.one_layer import OneLayerEncoder, enlarge, one_layer_installed
from tests.schemas import copy_index
from tests.synthetic import write_geotiff

FloatArray = npt.NDArray[np.float32]

pytestmark = pytest.mark.usefixtures("one_layer")


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder, database_url="", croma_weights="untrained")


@pytest.fixture(scope="session")
def three_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three images in ``images`` and their index in ``data``; not to be changed."""
    folder = tmp_path_factory.mktemp("three-images")
    write_images(folder / "images", 3)
    with one_layer_installed():
        reindex(settings_in(folder / "data"), [folder / "images"], options())
    return folder


@pytest.fixture
def indexed(three_images: Path, tmp_path: Path) -> tuple[Settings, Path]:
    """A copy of that index, and the folder of its images."""
    copy_index(three_images, tmp_path)
    return settings_in(tmp_path / "data"), tmp_path / "images"


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Landscape:
    """Two parcels on two dates; on the second a cloud hides one of them."""
    return draw_landscape(
        tmp_path_factory.mktemp("farm"),
        size_px=130,
        dates=(date(2023, 4, 24), date(2023, 5, 29)),
        parcels_across=1,
    )


@pytest.fixture(scope="session")
def first_year(tmp_path_factory: pytest.TempPathFactory, farm: Landscape) -> Path:
    """Data folder of the farm's index; not to be changed."""
    folder = tmp_path_factory.mktemp("first-year")
    with one_layer_installed():
        reindex(settings_in(folder), farm.scenes, options(parcels=farm.parcels_file))
    return folder


@pytest.fixture
def indexed_farm(first_year: Path, tmp_path: Path) -> Settings:
    """A copy of the farm's index."""
    copy_index(first_year, tmp_path / "data")
    return settings_in(tmp_path / "data")


HIDDEN = ("demo-001", "20230529")
"""The farm's parcel under the cloud, and the day."""


def by_day(found: dict[Seen, object]) -> set[tuple[str, str]]:
    """Parcels with the days in the names of their scenes."""
    return {(parcel_id, scene.split("_")[2][:8]) for parcel_id, scene in found}


# What is reported ----------------------------------------------------------------------------


def test_the_report_counts_what_was_read_embedded_and_hidden(
    settings: Settings, farm: Landscape
) -> None:
    report = reindex(settings, farm.scenes, options(parcels=farm.parcels_file))
    assert (report.read, report.parcels, report.observations) == (2, 2, 4)
    assert (report.embedded, report.clouded, report.unchanged) == (3, 1, 0)
    assert report.skipped == []
    assert report.generation == 1
    assert report.collection == "parcels"
    assert report.projection == "orthonormal"
    # Three rows, one list: the search looks at everything.
    assert report.recall_at_10 == 1
    assert UNTRAINED_NOTE in report.notes
    assert not report.dry_run


def test_the_report_is_one_json_object_with_the_agreed_keys(indexed: tuple[Settings, Path]) -> None:
    settings, images = indexed
    write_image(images / "dark.tif", nodata=None, crs=None)
    (images / "broken.tif").write_bytes(b"II*\0")
    document = json.loads(json.dumps(reindex(settings, [images], options()).to_dict()))
    assert document.keys() >= {
        "generation",
        "space",
        "read",
        "embedded",
        "unchanged",
        "skipped",
        "parcels",
        "observations",
        "seconds",
        "recall_at_10",
        "projection_recall_at_10",
    }
    (skipped,) = document["skipped"]
    assert skipped.keys() == {"source", "kind", "reason"}
    assert skipped["source"].endswith("broken.tif")


@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_folder_of_images_makes_one_parcel_of_each(
    settings: Settings, tmp_path: Path, count: int
) -> None:
    write_images(tmp_path / "images", count)
    report = reindex(settings, [tmp_path / "images"], options())
    assert (report.parcels, report.embedded, report.chips) == (count, count, count)
    names = {f"image-{n:02d}" for n in range(count)}
    assert set(vectors(settings)) == {(name, name) for name in names}
    with searching(settings) as searcher:
        matches = searcher.similar_by_id("image-00", k=10).matches
    assert {match.parcel_id for match in matches} == names - {"image-00"}


def test_the_folder_above_an_image_is_its_crop_and_its_footprint_the_geometry(
    settings: Settings, tmp_path: Path
) -> None:
    write_image(tmp_path / "images" / "Rapeseed" / "r1.tif", seed=1)
    write_image(tmp_path / "images" / "Maize" / "m1.tif", seed=2)
    reindex(settings, [tmp_path / "images"], options())
    with searching(settings) as searcher:
        state = searcher.state("r1")
    assert state.parcel.crop_name == "Rapeseed"
    # 24 x 24 px of 10 m.
    assert state.parcel.area_m2 == pytest.approx(240 * 240, rel=0.002)
    assert state.parcel.geometry is not None


def test_every_vector_is_the_projected_embedding_of_its_own_image(
    indexed: tuple[Settings, Path],
) -> None:
    settings, _ = indexed
    with reading(settings) as connection:
        space = collection_space(connection, "parcels")
    assert space is not None
    assert space.projection is not None
    for seed, embedding in enumerate(embeddings_by_hand(3)):
        # Too few rows for a mean: only the matrix and the length.
        by_hand = space.projection.matrix.astype(np.float64) @ embedding
        by_hand /= np.linalg.norm(by_hand)
        found = vectors(settings)[f"image-{seed:02d}", f"image-{seed:02d}"]
        np.testing.assert_allclose(found, by_hand, atol=1e-5)


# Again, with changes -------------------------------------------------------------------------


def test_a_second_run_embeds_nothing_and_publishes_nothing(
    indexed: tuple[Settings, Path],
) -> None:
    settings, images = indexed
    before = stored(settings)
    report = reindex(settings, [images], options())
    assert (report.read, report.embedded, report.chips, report.unchanged) == (3, 0, 0, 3)
    assert report.generation == 1
    assert ids(settings) == {seen: row for seen, (row, _) in before.items()}
    assert {path.name for path in settings.generations_dir.iterdir()} == {"1"}


def test_a_second_run_over_parcels_embeds_nothing_either(
    indexed_farm: Settings, farm: Landscape
) -> None:
    report = reindex(indexed_farm, farm.scenes, options(parcels=farm.parcels_file))
    # The hidden observation is unchanged too: there is still nothing to embed.
    assert (report.embedded, report.clouded, report.unchanged, report.generation) == (0, 0, 4, 1)


def test_the_order_of_the_images_and_their_batches_change_no_vector(
    settings: Settings, tmp_path: Path, indexed: tuple[Settings, Path]
) -> None:
    other = settings_in(tmp_path / "other")
    files = sorted(indexed[1].iterdir(), reverse=True)
    reindex(other, [*files[:1]], options(batch_size=1))
    reindex(other, files, options(batch_size=2))
    assert_same_vectors(vectors(other), vectors(indexed[0]))


def test_only_an_image_whose_pixels_changed_is_embedded_again(
    indexed: tuple[Settings, Path],
) -> None:
    settings, images = indexed
    before = stored(settings)
    write_image(images / "image-01.tif", seed=77)
    report = reindex(settings, [images], options())
    assert (report.embedded, report.unchanged, report.observations) == (1, 2, 3)
    assert report.generation == 2
    after = stored(settings)
    changed = ("image-01", "image-01")
    assert {seen for seen in before if after[seen][0] != before[seen][0]} == {changed}
    # An id means one vector for ever: the new one is greater than any that was given before.
    assert after[changed][0] == 1 + max(row for row, _ in before.values())
    assert not np.allclose(after[changed][1], before[changed][1])
    with reading(settings) as connection:
        assert connection.scalar(text("SELECT count(*) FROM embeddings")) == 3


def test_an_old_vector_answers_until_the_next_generation_and_never_after(
    indexed: tuple[Settings, Path],
) -> None:
    settings, images = indexed
    seen = ("image-01", "image-01")
    old = vectors(settings)[seen]
    write_image(images / "image-01.tif", seed=77)
    with searching(settings) as searcher:
        assert searcher.similar_by_vector(old, k=1).matches[0].score == pytest.approx(1, abs=1e-5)
        reindex(settings, [images], options())
        answer = searcher.similar_by_vector(old, k=3)
        assert answer.generation == 2
        assert all(match.score < 0.999 for match in answer.matches)
        new = searcher.similar_by_vector(vectors(settings)[seen], k=1).matches[0]
    assert new.parcel_id == "image-01"
    assert new.score == pytest.approx(1, abs=1e-5)


def test_a_new_crop_name_is_stored_without_embedding_anything(
    indexed_farm: Settings, farm: Landscape, tmp_path: Path
) -> None:
    document = json.loads(farm.parcels_file.read_text())
    document["features"][0]["properties"]["crop:name"] = "hemp"
    changed = tmp_path / "parcels.geojson"
    changed.write_text(json.dumps(document))
    report = reindex(indexed_farm, farm.scenes, options(parcels=changed))
    assert (report.embedded, report.unchanged, report.generation) == (0, 4, 1)
    with reading(indexed_farm) as connection:
        crops = connection.scalars(select(Parcel.crop_name).order_by(Parcel.parcel_id)).all()
    assert crops[0] == "hemp"
    assert crops[1] == farm.crops["demo-002"]


def test_a_parcel_with_another_outline_is_embedded_again(
    indexed_farm: Settings, farm: Landscape, tmp_path: Path
) -> None:
    document = json.loads(farm.parcels_file.read_text())
    ring = document["features"][1]["geometry"]["coordinates"][0]
    document["features"][1]["geometry"]["coordinates"][0] = [*ring[:-2], ring[0]]
    changed = tmp_path / "parcels.geojson"
    changed.write_text(json.dumps(document))
    report = reindex(indexed_farm, farm.scenes, options(parcels=changed))
    assert (report.embedded, report.unchanged, report.parcels) == (2, 2, 2)


def test_a_new_scene_adds_its_observations_only(settings: Settings, farm: Landscape) -> None:
    first = reindex(settings, farm.scenes[:1], options(parcels=farm.parcels_file))
    before = stored(settings)
    second = reindex(settings, farm.scenes, options(parcels=farm.parcels_file))
    assert (first.embedded, first.observations) == (2, 2)
    assert (second.embedded, second.clouded, second.unchanged, second.observations) == (1, 1, 2, 4)
    after = stored(settings)
    assert len(after) == 3
    assert all(after[seen][0] == row for seen, (row, _) in before.items())


def test_an_image_that_is_not_named_again_stays(indexed: tuple[Settings, Path]) -> None:
    settings, images = indexed
    write_image(images / "new.tif", seed=9)
    report = reindex(settings, [images / "new.tif"], options())
    assert (report.read, report.embedded, report.parcels, report.observations) == (1, 1, 4, 4)
    assert len(vectors(settings)) == 4


# Clouds --------------------------------------------------------------------------------------


def test_a_parcel_under_a_cloud_has_a_state_and_no_vector(indexed_farm: Settings) -> None:
    assert HIDDEN not in by_day(dict(vectors(indexed_farm)))
    assert HIDDEN in by_day(dict(states(indexed_farm)))
    with searching(indexed_farm) as searcher:
        seen = searcher.state("demo-001").observations
    assert [one.scene.split("_")[2][:8] for one in seen] == ["20230424", "20230529"]
    assert seen[0].valid_fraction == 1
    assert seen[1].valid_fraction <= 0.4
    assert seen[1].cloud_cover_percent is not None
    assert seen[1].cloud_cover_percent >= 60


def test_a_parcel_never_seen_clearly_is_told_apart_from_one_that_does_not_exist(
    settings: Settings, farm: Landscape
) -> None:
    reindex(settings, farm.scenes[1:], options(parcels=farm.parcels_file))
    with searching(settings) as searcher:
        with pytest.raises(NotFoundError, match="has no vector") as caught:
            searcher.similar_by_id("demo-001")
        assert caught.value.kind == "parcel-not-embedded"
        assert len(searcher.state("demo-001").observations) == 1


def test_an_image_that_clouds_over_loses_its_vector(settings: Settings, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "images" / f"{name}.tif", seed=ord(name), scl=VEGETATION)
    reindex(settings, [tmp_path / "images"], options())
    write_image(tmp_path / "images" / "a.tif", seed=ord("a"), scl=CLOUD)
    report = reindex(settings, [tmp_path / "images"], options())
    assert (report.embedded, report.clouded, report.unchanged, report.generation) == (0, 1, 2, 2)
    with searching(settings) as searcher:
        assert [m.parcel_id for m in searcher.similar_by_id("b").matches] == ["c"]


def test_an_image_that_clears_up_gets_a_vector(settings: Settings, tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.tif", scl=CLOUD)
    clouded = reindex(settings, [image], options())
    assert (clouded.embedded, clouded.clouded, clouded.generation) == (0, 1, None)
    write_image(image, scl=VEGETATION)
    clear = reindex(settings, [image], options())
    assert (clear.embedded, clear.clouded, clear.generation) == (1, 0, 1)


def test_when_everything_clouds_over_nothing_is_published_and_nothing_breaks(
    settings: Settings, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "a.tif", scl=VEGETATION)
    reindex(settings, [image], options())
    write_image(image, scl=CLOUD)
    report = reindex(settings, [image], options())
    assert (report.embedded, report.clouded, report.generation) == (0, 1, 1)
    write_image(tmp_path / "b.tif", seed=1)
    following = reindex(settings, [tmp_path / "b.tif"], options())
    assert following.generation == 2
    assert set(vectors(settings)) == {("b", "b")}


# Dry runs ------------------------------------------------------------------------------------


def test_a_dry_run_on_an_empty_place_writes_nothing_and_predicts_the_numbers(
    settings: Settings, tmp_path: Path, farm: Landscape
) -> None:
    before = snapshot(tmp_path)
    planned = reindex(settings, farm.scenes, options(parcels=farm.parcels_file, dry_run=True))
    assert snapshot(tmp_path) == before
    assert not settings.data_dir.exists()
    assert (planned.generation, planned.dry_run) == (None, True)
    done = reindex(settings, farm.scenes, options(parcels=farm.parcels_file))
    for name in ("read", "embedded", "chips", "unchanged", "clouded", "skipped"):
        assert getattr(planned, name) == getattr(done, name)


def test_a_dry_run_on_an_index_changes_no_byte_and_predicts_the_numbers(
    indexed: tuple[Settings, Path],
) -> None:
    settings, images = indexed
    write_image(images / "image-01.tif", seed=77)
    write_image(images / "new.tif", seed=9)
    before = snapshot(settings.data_dir)
    planned = reindex(settings, [images], options(dry_run=True))
    assert snapshot(settings.data_dir) == before
    assert (planned.embedded, planned.unchanged, planned.generation) == (2, 2, 1)
    done = reindex(settings, [images], options())
    assert (done.embedded, done.unchanged) == (2, 2)


def test_a_dry_full_run_predicts_that_everything_is_embedded(
    indexed: tuple[Settings, Path],
) -> None:
    settings, images = indexed
    report = reindex(settings, [images], options(dry_run=True, full=True))
    assert (report.embedded, report.unchanged) == (3, 0)


def test_a_dry_run_on_a_database_without_tables_counts_everything_as_new(
    settings: Settings, three_images: Path
) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "parcelle.db").touch()
    report = reindex(settings, [three_images / "images"], options(dry_run=True))
    assert report.embedded == 3


# Embedding spaces ----------------------------------------------------------------------------


def space_rows(settings: Settings) -> list[tuple[int, str | None]]:
    """Row and digest of every space."""
    with reading(settings) as connection:
        rows = connection.execute(text("SELECT id, digest FROM embedding_spaces ORDER BY id"))
        return [(row[0], row[1]) for row in rows]


def test_a_full_run_embeds_everything_anew_in_a_space_of_its_own(
    indexed: tuple[Settings, Path],
) -> None:
    settings, images = indexed
    before = stored(settings)
    report = reindex(settings, [images], options(full=True))
    assert (report.embedded, report.unchanged, report.generation) == (3, 0, 2)
    assert len(space_rows(settings)) == 2
    after = stored(settings)
    assert not {row for row, _ in after.values()} & {row for row, _ in before.values()}
    # The pixels are the same, and so is the seed of the projection.
    assert_same_vectors(vectors(settings), {seen: vector for seen, (_, vector) in before.items()})


def test_after_a_full_run_the_collection_goes_on_in_the_new_space(
    indexed: tuple[Settings, Path],
) -> None:
    settings, images = indexed
    reindex(settings, [images], options(full=True))
    report = reindex(settings, [images], options())
    assert (report.embedded, report.unchanged, report.generation) == (0, 3, 2)


def test_the_statistics_of_a_data_set_are_those_of_its_pixels(
    settings: Settings, three_images: Path
) -> None:
    report = reindex(settings, [three_images / "images"], options(normalization="dataset"))
    assert report.embedded == 3
    pixels = np.concatenate([image_dn(seed).reshape(12, -1) for seed in range(3)], axis=1) / 10_000
    with reading(settings) as connection:
        space = collection_space(connection, "parcels")
    assert space is not None
    frozen = space.recipe["normalization"]
    np.testing.assert_allclose(frozen["mean"], pixels.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(frozen["std"], pixels.std(axis=1), rtol=1e-5)


def test_the_statistics_of_a_data_set_are_frozen_with_the_first_run(
    settings: Settings, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 2)
    reindex(settings, [tmp_path / "images"], options(normalization="dataset"))
    before = stored(settings)
    write_image(tmp_path / "images" / "bright.tif", seed=50)
    report = reindex(settings, [tmp_path / "images"], options(normalization="dataset"))
    assert (report.embedded, report.unchanged) == (1, 2)
    assert len(space_rows(settings)) == 1
    after = stored(settings)
    assert all(after[seen][0] == row for seen, (row, _) in before.items())


def test_a_full_run_measures_the_data_set_anew(settings: Settings, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    reindex(settings, [tmp_path / "images"], options(normalization="dataset"))
    write_image(tmp_path / "images" / "bright.tif", seed=50)
    report = reindex(settings, [tmp_path / "images"], options(normalization="dataset", full=True))
    assert report.embedded == 2
    first, second = space_rows(settings)
    assert first[1] != second[1]


def test_statistics_need_a_valid_pixel(settings: Settings, tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.tif", scl=CLOUD)
    with pytest.raises(ImageryError, match="--normalization ssl4eo") as caught:
        reindex(settings, [image], options(normalization="dataset"))
    assert caught.value.kind == "no-valid-pixels"


def test_another_normalization_is_another_space(indexed: tuple[Settings, Path]) -> None:
    settings, images = indexed
    report = reindex(settings, [images], options(normalization="dataset"))
    assert (report.embedded, report.generation) == (3, 2)
    with searching(settings) as searcher:
        assert searcher.similar_by_id("image-00").space["normalization"] == "dataset"


def test_two_collections_share_a_space_and_its_generation(
    indexed: tuple[Settings, Path], tmp_path: Path
) -> None:
    settings, _ = indexed
    write_image(tmp_path / "other" / "x.tif", seed=20)
    report = reindex(settings, [tmp_path / "other"], options(collection="other"))
    assert (report.embedded, report.parcels, report.generation) == (1, 1, 2)
    assert len(space_rows(settings)) == 1
    with searching(settings) as searcher:
        everywhere = searcher.similar_by_id("x", k=10)
        only = ParcelFilter(collections=("parcels",))
        assert len(searcher.similar_by_id("x", k=10, where=only).matches) == 3
    assert {match.collection for match in everywhere.matches} == {"parcels"}
    assert len(everywhere.matches) == 3


def test_one_image_may_stand_in_two_collections(indexed: tuple[Settings, Path]) -> None:
    settings, images = indexed
    report = reindex(settings, [images], options(collection="copy"))
    assert (report.embedded, report.parcels) == (3, 3)
    assert_same_vectors(vectors(settings, "copy"), vectors(settings))


def test_another_encoder_makes_another_space_and_each_collection_answers_in_its_own(
    indexed: tuple[Settings, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, images = indexed
    monkeypatch.setitem(croma.ARCHITECTURES, "one-more", {"encoder_dim": 512})
    report = reindex(settings, [images], options(collection="other", encoder="one-more"))
    assert (report.embedded, report.generation) == (3, 2)
    with searching(settings) as searcher:
        for collection, encoder, number in (("parcels", "one-layer", 1), ("other", "one-more", 2)):
            answer = searcher.similar_by_id("image-00", collection=collection, k=10)
            assert (answer.space["encoder"], answer.generation) == (encoder, number)
            assert {match.collection for match in answer.matches} == {collection}


def test_a_collection_may_change_its_encoder_and_change_back(
    indexed: tuple[Settings, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, images = indexed
    monkeypatch.setitem(croma.ARCHITECTURES, "one-more", {"encoder_dim": 512})
    away = reindex(settings, [images], options(encoder="one-more"))
    back = reindex(settings, [images], options())
    assert (away.embedded, back.embedded, back.unchanged) == (3, 0, 3)
    with searching(settings) as searcher:
        assert searcher.similar_by_id("image-00").space["encoder"] == "one-layer"


# The projection of a long run ----------------------------------------------------------------


@pytest.fixture
def four_rows_make_a_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    """PCA from three rows on, frozen at four."""
    monkeypatch.setattr("indexer.reindex.MAX_ROWS_FOR_PCA", 4)
    monkeypatch.setattr("indexer.projection.MIN_ROWS_FOR_PCA", 3)
    monkeypatch.setattr("indexer.projection.MIN_ROWS_FOR_MEAN", 2)


def embeddings_by_hand(count: int) -> FloatArray:
    """Embeddings of ``write_images``, shape ``(count, 512)``."""
    encoder = OneLayerEncoder("one-layer", Weights("untrained", "", None))
    everywhere = np.ones((1, 15, 15), np.float32)
    dn = np.stack([image_dn(seed) for seed in range(count)])
    reflectance = dn.astype(np.float32) / np.float32(10_000)
    images = enlarge(Normalization.ssl4eo().apply(reflectance), 120)
    return np.concatenate(encoder.encode(images, [everywhere] * count))


@pytest.mark.usefixtures("four_rows_make_a_projection")
def test_the_projection_of_a_long_run_is_frozen_on_the_way_and_holds_for_all_its_rows(
    settings: Settings, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 7)
    report = reindex(settings, [tmp_path / "images"], options(batch_size=2))
    assert (report.embedded, report.projection) == (7, "pca")
    embeddings = embeddings_by_hand(7)
    with reading(settings) as connection:
        space = collection_space(connection, "parcels")
        assert space is not None
        kept = kept_embeddings(connection, space.id)[1]
    np.testing.assert_allclose(kept, embeddings[:4], atol=1e-6)
    assert space.projection is not None
    np.testing.assert_allclose(space.projection.mean, embeddings[:4].mean(axis=0), atol=1e-6)
    centered = embeddings.astype(np.float64) - space.projection.mean
    by_hand = centered @ space.projection.matrix.T.astype(np.float64)
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    for seed, expected in enumerate(by_hand):
        found = vectors(settings)[f"image-{seed:02d}", f"image-{seed:02d}"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures("four_rows_make_a_projection")
def test_a_later_run_uses_the_frozen_projection_and_keeps_no_more_embeddings(
    settings: Settings, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 4)
    reindex(settings, [tmp_path / "images"], options(batch_size=3))
    before = vectors(settings)
    write_images(tmp_path / "images", 6)
    report = reindex(settings, [tmp_path / "images"], options(batch_size=3))
    assert (report.embedded, report.unchanged) == (2, 4)
    assert len(space_rows(settings)) == 1
    after = vectors(settings)
    assert_same_vectors({seen: after[seen] for seen in before}, before)
    with reading(settings) as connection:
        assert count_kept_embeddings(connection, space_rows(settings)[0][0]) == 4


@pytest.mark.usefixtures("four_rows_make_a_projection")
def test_observations_without_an_embedding_do_not_freeze_the_projection(
    settings: Settings, tmp_path: Path
) -> None:
    for number in range(5):
        write_image(tmp_path / "images" / f"a-cloud-{number}.tif", seed=number, scl=CLOUD)
    write_image(tmp_path / "images" / "b-clear.tif", seed=8)
    report = reindex(settings, [tmp_path / "images"], options(batch_size=5))
    assert (report.embedded, report.clouded) == (1, 5)
    assert report.projection == "orthonormal"


@pytest.mark.usefixtures("four_rows_make_a_projection")
def test_an_index_whose_kept_embeddings_are_all_replaced_is_still_published(
    settings: Settings, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 4)
    extra = write_image(tmp_path / "images" / "z-extra.tif", seed=30, scl=VEGETATION)
    reindex(settings, [tmp_path / "images"], options(batch_size=4))
    for number in range(4):
        write_image(tmp_path / "images" / f"image-{number:02d}.tif", seed=100 + number)
    assert reindex(settings, [tmp_path / "images"], options()).embedded == 4
    write_image(extra, seed=30, scl=CLOUD)
    report = reindex(settings, [tmp_path / "images"], options())
    assert (report.clouded, report.generation) == (1, 3)
    with searching(settings) as searcher:
        assert "z-extra" not in {m.parcel_id for m in searcher.similar_by_id("image-00").matches}


# Parcels in scenes ---------------------------------------------------------------------------


def test_parcels_of_one_chip_have_vectors_of_their_own_from_one_forward_pass(
    settings: Settings, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "scene.tif")
    parcels = write_parcels(
        tmp_path / "parcels.geojson",
        ("west", on_image(2, 2, 8, 10)),
        ("east", on_image(14, 2, 22, 10)),
    )
    report = reindex(settings, [image], options(parcels=parcels))
    assert (report.embedded, report.chips, report.parcels) == (2, 1, 2)
    found = vectors(settings)
    assert not np.allclose(found["west", "scene"], found["east", "scene"], atol=1e-4)


def test_a_parcels_vector_does_not_depend_on_the_other_parcels_of_the_run(
    settings: Settings, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "scene.tif")
    outlines = {f"p{n}": on_image(5 * n + 1, 4, 5 * n + 4, 18) for n in range(4)}
    everyone = write_parcels(tmp_path / "all.geojson", *outlines.items())
    alone = write_parcels(tmp_path / "one.geojson", ("p2", outlines["p2"]))
    reindex(settings, [image], options(parcels=everyone))
    reindex(settings, [image], options(parcels=alone, collection="alone"))
    seen = ("p2", "scene")
    np.testing.assert_allclose(vectors(settings, "alone")[seen], vectors(settings)[seen], atol=1e-6)


# Bounded memory, honest progress -------------------------------------------------------------


def test_no_more_chips_than_a_batch_are_in_memory_at_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 40)
    alive: list[weakref.ref[Chip]] = []
    most = 0
    read = Scene.read

    def counted(scene: Scene, *window: int) -> Chip:
        nonlocal most
        chip = read(scene, *window)
        alive.append(weakref.ref(chip))
        most = max(most, sum(one() is not None for one in alive))
        return chip

    monkeypatch.setattr(Scene, "read", counted)
    # Nothing may depend on the collector of cycles.
    gc.disable()
    try:
        report = reindex(settings, [tmp_path / "images"], options(batch_size=4))
    finally:
        gc.enable()
    assert report.embedded == len(alive) == 40
    assert most <= 4


class Counted:
    """A progress that adds up what it is told."""

    def __init__(self) -> None:
        self.expected = self.done = self.finished = 0

    def start(self, task: str, total: int, unit: str | None = None) -> None:
        assert task
        self.expected += total

    def expect(self, total: int) -> None:
        self.expected = total

    def rename(self, task: str) -> None:
        assert task

    def advance(self, done: int) -> None:
        self.done += done

    def finish(self) -> None:
        self.finished += 1


@pytest.mark.parametrize("dry_run", [False, True])
def test_progress_ends_where_it_said_it_would(
    indexed: tuple[Settings, Path], farm: Landscape, dry_run: bool
) -> None:
    settings, images = indexed
    write_image(images / "new.tif", seed=9)
    (images / "broken.tif").write_bytes(b"II*\0")
    progress = Counted()
    reindex(settings, [images], options(dry_run=dry_run), progress)
    # The broken image is no step of the work.
    assert (progress.done, progress.expected, progress.finished) == (4, 4, 1)
    progress = Counted()
    chosen = options(parcels=farm.parcels_file, collection="farm", dry_run=dry_run)
    reindex(settings, farm.scenes, chosen, progress)
    assert progress.done == progress.expected


# On a server, and on real networks and images ------------------------------------------------


@pytest.mark.postgres
def test_the_whole_way_works_on_postgresql(
    settings: Settings, empty_postgres: str, farm: Landscape
) -> None:
    settings = settings.model_copy(update={"database_url": empty_postgres})
    chosen = options(parcels=farm.parcels_file)
    report = reindex(settings, farm.scenes, chosen)
    assert (report.embedded, report.clouded, report.generation) == (3, 1, 1)
    assert not (settings.data_dir / "parcelle.db").exists()
    with searching(settings) as searcher:
        (match,) = searcher.similar_by_id("demo-001").matches
        assert match.parcel_id == "demo-002"
        assert len(searcher.state("demo-001").observations) == 2
    assert reindex(settings, farm.scenes, replace(chosen, dry_run=True)).unchanged == 4
    again = reindex(settings, farm.scenes, chosen)
    assert (again.embedded, again.unchanged, again.generation) == (0, 4, 1)
    assert reindex(settings, farm.scenes, replace(chosen, full=True)).generation == 2


@pytest.mark.postgres
def test_both_databases_hold_the_same_vectors_and_states(
    empty_postgres: str, indexed_farm: Settings, farm: Landscape, tmp_path: Path
) -> None:
    server = Settings(data_dir=tmp_path / "server", database_url=empty_postgres)
    reindex(server, farm.scenes, options(parcels=farm.parcels_file))
    assert_same_vectors(vectors(server), vectors(indexed_farm))
    assert states(server) == states(indexed_farm)


# Where images lie, and how they were read


def images_of(settings: Settings) -> list[tuple[str, list[str] | None]]:
    statement = select(Observation.source, Observation.layer_bands).order_by(Observation.scene)
    with reading(settings) as connection:
        return [(source, named) for source, named in connection.execute(statement)]


def test_an_image_is_found_again_from_any_folder(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_image(tmp_path / "images" / "a.tif")
    monkeypatch.chdir(tmp_path)
    reindex(settings, ["images"], options())
    assert images_of(settings) == [(str(path), None)]


def test_names_that_were_told_are_kept(settings: Settings, tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", image_dn(0))
    reindex(settings, [path], options(bands="l2a"))
    assert images_of(settings) == [(str(path), list(PROFILES["l2a"]))]


def test_an_unchanged_image_that_moved_is_noted_without_embedding_it_again(
    indexed: tuple[Settings, Path],
) -> None:
    settings, folder = indexed
    moved = folder.rename(folder.with_name("moved"))
    report = reindex(settings, [moved], options())
    assert (report.unchanged, report.embedded, report.generation) == (3, 0, 1)
    assert images_of(settings) == [(str(moved / f"image-{n:02d}.tif"), None) for n in range(3)]


def test_names_missing_in_older_rows_are_filled_in_by_the_next_run(
    settings: Settings, tmp_path: Path
) -> None:
    path = write_geotiff(tmp_path / "a.tif", image_dn(0))
    reindex(settings, [path], options(bands="l2a"))
    engine = connect(settings)
    with engine.begin() as connection:
        connection.execute(update(Observation).values(layer_bands=None))
    engine.dispose()
    report = reindex(settings, [path], options(bands="l2a"))
    assert (report.unchanged, report.generation) == (1, 1)
    assert images_of(settings) == [(str(path), list(PROFILES["l2a"]))]


def test_a_dry_run_notes_no_image(indexed: tuple[Settings, Path]) -> None:
    settings, folder = indexed
    before = images_of(settings)
    reindex(settings, [folder.rename(folder.with_name("moved"))], options(dry_run=True))
    assert images_of(settings) == before
