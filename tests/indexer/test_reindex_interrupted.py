import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from indexer.errors import ConflictError, NotFoundError, StorageError
from indexer.generations import store
from indexer.reindex import reindex
from indexer.settings import Settings
from tests.indexer.farm import (
    assert_same_vectors,
    ids,
    options,
    reading,
    searching,
    states,
    vectors,
    write_image,
    write_images,
)
from tests.indexer.killed_reindex import Moment, Plan, Runs
from tests.indexer.one_layer import one_layer_installed
from tests.schemas import copy_index

pytestmark = pytest.mark.usefixtures("one_layer")

CHANGED = ("image-01", "image-01")
"""The image whose pixels are others in the second run."""


@dataclass(frozen=True)
class Death:
    """A moment in the second run, and what it leaves to do."""

    moment: Moment
    missing: int
    """Of the four new or changed images, those that the next run still has to embed."""


DEATHS = {
    "before the first batch is saved": Death(Moment("reindex", "save_observations"), 4),
    "in the first transaction": Death(Moment("reindex", "save_observations", done=True), 4),
    "after the first batch": Death(Moment("reindex", "save_observations", call=2), 3),
    "in the third transaction": Death(Moment("reindex", "save_observations", 3, done=True), 2),
    "when all is embedded": Death(Moment("reindex", "build_generation"), 0),
    "while the index is written": Death(Moment("store", "_flushed", call=2), 0),
    "before the rename": Death(Moment("path", "rename"), 0),
    "between rename and commit": Death(Moment("store", "publish_generation"), 0),
    "in the last transaction": Death(Moment("store", "publish_generation", done=True), 0),
}
"""Up to here the first generation answers, with what was committed since."""

FIRST_RUN_DEATHS = {
    "first run, after a batch": Death(Moment("reindex", "save_observations", call=3), 3),
    "first run, in the freezing": Death(Moment("reindex", "set_vectors", done=True), 0),
    "first run, before publishing": Death(Moment("store", "publish_generation"), 0),
}


PUBLISHED = Moment("reindex", "build_generation", done=True)
AFTER_ONE_BATCH = Moment("reindex", "save_observations", call=2)
FULL_AND_FROZEN = Moment("reindex", "save_observations", call=4)


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder, database_url="", croma_weights="untrained")


@pytest.fixture(scope="session")
def season(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images indexed in ``first``; ``images`` holds them, one changed, and three new ones.

    ``undisturbed`` is the index of all of them that a run makes which nobody kills, and
    ``undisturbed-first`` the one that it makes of them in an empty place.
    """
    folder = tmp_path_factory.mktemp("season")
    images = folder / "images"
    with one_layer_installed():
        write_images(images, 2)
        reindex(settings_in(folder / "first"), [images], options())
        write_images(images, 5)
        write_image(images / "image-01.tif", seed=77)
        copy_index(folder / "first", folder / "undisturbed")
        for name in ("undisturbed", "undisturbed-first"):
            reindex(settings_in(folder / name), [images], options(batch_size=1))
    return folder


@pytest.fixture(scope="session")
def runs(season: Path) -> Iterator[Runs]:
    """A run for each death, in a data folder of the death's name, and some more."""
    images = str(season / "images")
    plans = {
        name: Plan(str(season / name), images, death.moment)
        for name, death in (DEATHS | FIRST_RUN_DEATHS).items()
    }
    plans["published"] = Plan(str(season / "published"), images, PUBLISHED)
    plans["full"] = Plan(str(season / "full"), images, FULL_AND_FROZEN, full=True, frozen_at=2)
    plans["alive"] = Plan(str(season / "alive"), images, AFTER_ONE_BATCH, stops=True)
    for name in plans.keys() - FIRST_RUN_DEATHS.keys():
        copy_index(season / "first", season / name)
    runs = Runs(plans)
    yield runs
    runs.end()


def assert_complete(settings: Settings, undisturbed: Settings, generations: set[str]) -> None:
    """The index is what it would be if nobody had been killed, and nothing else lies about."""
    assert_same_vectors(vectors(settings), vectors(undisturbed))
    assert states(settings) == states(undisturbed)
    assert len(set(ids(settings).values())) == 5
    assert {path.name for path in settings.generations_dir.iterdir()} == generations
    with searching(settings) as searcher:
        assert len(searcher.similar_by_id("image-04").matches) == 4


@pytest.mark.parametrize("name", DEATHS)
def test_a_run_that_is_killed_leaves_what_it_committed_and_the_next_one_the_rest(
    season: Path, runs: Runs, name: str
) -> None:
    assert runs.signals[name] == signal.SIGKILL
    settings, images = settings_in(season / name), season / "images"
    # One image is committed after the other, the changed one first.
    committed = ["image-01", "image-02", "image-03", "image-04"][: 4 - DEATHS[name].missing]
    is_new = "image-01" in committed
    known = vectors(settings_in(season / ("undisturbed" if is_new else "first")))
    with searching(settings) as searcher:
        answer = searcher.similar_by_id("image-00")
        assert answer.generation == 1
        assert {match.parcel_id for match in answer.matches} == {"image-01", *committed}
        held = searcher.similar_by_vector(known[CHANGED], k=1).matches[0]
        assert (held.parcel_id, round(held.score, 4)) == ("image-01", 1)

        report = reindex(settings, [images], options(batch_size=1))
        assert (report.embedded, report.unchanged) == (
            DEATHS[name].missing,
            5 - DEATHS[name].missing,
        )
        assert report.generation == 2
        # The searcher that was open all the time answers from the new generation.
        assert searcher.similar_by_id("image-00").generation == 2
    assert_complete(settings, settings_in(season / "undisturbed"), {"1", "2"})


@pytest.mark.parametrize("name", FIRST_RUN_DEATHS)
def test_a_first_run_that_is_killed_has_published_nothing_and_the_next_one_finishes_it(
    season: Path, runs: Runs, name: str
) -> None:
    assert runs.signals[name] == signal.SIGKILL
    settings, images = settings_in(season / name), season / "images"
    with searching(settings) as searcher:
        with pytest.raises(NotFoundError, match="run parcelle reindex") as caught:
            searcher.similar_by_id("image-00")
        assert caught.value.kind == "generation-not-found"
    report = reindex(settings, [images], options(batch_size=1))
    assert (report.embedded, report.generation) == (FIRST_RUN_DEATHS[name].missing, 1)
    assert_complete(settings, settings_in(season / "undisturbed-first"), {"1"})


def test_a_run_that_is_killed_after_publishing_leaves_nothing_to_do(
    season: Path, runs: Runs
) -> None:
    assert runs.signals["published"] == signal.SIGKILL
    settings = settings_in(season / "published")
    with searching(settings) as searcher:
        assert searcher.similar_by_id("image-00").generation == 2
    report = reindex(settings, [season / "images"], options())
    assert (report.embedded, report.unchanged, report.generation) == (0, 5, 2)
    assert_complete(settings, settings_in(season / "undisturbed"), {"1", "2"})


def test_a_full_run_that_is_killed_after_its_projection_was_frozen_is_resumed(
    season: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs.signals["full"] == signal.SIGKILL
    monkeypatch.setattr("indexer.reindex.MAX_ROWS_FOR_PCA", 2)
    settings = settings_in(season / "full")
    with searching(settings) as searcher:
        assert searcher.similar_by_id("image-00").generation == 1
    report = reindex(settings, [season / "images"], options(batch_size=1, full=True))
    # Three of the five were committed, the first two of them before the projection was frozen.
    assert (report.embedded, report.unchanged) == (2, 3)
    assert (report.generation, report.projection) == (2, "pca")
    with reading(settings) as connection:
        assert connection.scalar(text("SELECT count(*) FROM embedding_spaces")) == 2
    with searching(settings) as searcher:
        assert len(searcher.similar_by_id("image-00").matches) == 4


def test_while_one_run_writes_others_are_refused_and_readers_go_on(
    season: Path, runs: Runs
) -> None:
    settings, images = settings_in(season / "alive"), season / "images"
    with pytest.raises(ConflictError, match=f"process {runs.stopped['alive']}") as caught:
        reindex(settings, [images], options())
    assert caught.value.kind == "reindex-running"
    assert reindex(settings, [images], options(dry_run=True)).embedded == 3
    with searching(settings) as searcher:
        assert searcher.similar_by_id("image-00").generation == 1
    runs.end()
    report = reindex(settings, [images], options(batch_size=1))
    assert (report.embedded, report.generation) == (3, 2)
    assert_complete(settings, settings_in(season / "undisturbed"), {"1", "2"})


def test_a_disk_that_fills_up_while_publishing_leaves_the_former_generation(
    season: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_index(season / "first", tmp_path / "data")
    settings, images = settings_in(tmp_path / "data"), season / "images"

    def full_disk(path: Path, content: bytes) -> None:
        path.write_bytes(content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_durably", full_disk)
        with pytest.raises(StorageError, match="No space left") as caught:
            reindex(settings, [images], options())
    assert caught.value.kind == "write-failed"
    with searching(settings) as searcher:
        assert searcher.similar_by_id("image-00").generation == 1
    assert reindex(settings, [images], options()).embedded == 0
    assert_complete(settings, settings_in(season / "undisturbed"), {"1", "2"})
