"""What a dry run says is what the run then does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from indexer import embedder
from indexer import reindex as reindexing
from indexer.encoders import choice
from indexer.encoders.base import Images
from indexer.encoders.croma import IMAGE_PX
from indexer.landscape import Landscape, draw_landscape
from indexer.lock import only_writer
from indexer.reindex import ReindexReport, reindex
from indexer.settings import Settings
from tests.indexer.farm import (
    CLOUD,
    FloatArray,
    kinds,
    on_image,
    options,
    snapshot,
    write_image,
    write_images,
    write_parcels,
)
from tests.indexer.one_layer import OneLayerEncoder

pytestmark = pytest.mark.usefixtures("one_layer")


def counts(report: ReindexReport) -> dict[str, Any]:
    """What a dry run foretells."""
    return {
        name: getattr(report, name)
        for name in ("read", "embedded", "chips", "unchanged", "clouded", "retired", "collection")
    } | {"skipped": kinds(report.skipped)}


def foretold_and_done(
    settings: Settings, imagery: Sequence[Path], **chosen: object
) -> tuple[ReindexReport, ReindexReport]:
    """A dry run, which must not change a byte, and the run itself."""
    before = snapshot(settings.data_dir)
    planned = reindex(settings, imagery, options(dry_run=True, **chosen))
    assert snapshot(settings.data_dir) == before
    assert planned.dry_run
    return planned, reindex(settings, imagery, options(**chosen))


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Landscape:
    """Some parcels on two dates, on scenes of several tiles; on the second there are clouds."""
    return draw_landscape(
        tmp_path_factory.mktemp("farm"),
        size_px=2 * IMAGE_PX,
        dates=(date(2023, 4, 24), date(2023, 5, 29)),
        parcels_across=2,
    )


# Counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [{}, {"pooling": "image"}, {"gsd_m": 5.0}], ids=str)
def test_parcels_on_scenes_take_the_passes_that_were_foretold(
    settings: Settings, farm: Landscape, chosen: dict[str, object]
) -> None:
    planned, done = foretold_and_done(
        settings, farm.scenes, parcels=farm.parcels_file, batch_size=2, **chosen
    )
    assert counts(planned) == counts(done)
    assert done.chips > 2
    assert done.embedded > 0
    again, nothing = foretold_and_done(
        settings, farm.scenes, parcels=farm.parcels_file, batch_size=2, **chosen
    )
    assert counts(again) == counts(nothing)
    assert (again.chips, again.embedded) == (0, 0)
    assert again.unchanged == done.embedded + done.clouded


def test_whatever_changed_is_counted_apart_from_what_did_not(
    settings: Settings, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    write_images(images, 6)
    reindex(settings, [images], options())
    write_image(images / "image-01.tif", seed=50)
    write_image(images / "image-02.tif", seed=51, scl=CLOUD)
    write_image(images / "new.tif", seed=52)
    (images / "image-03.tif").write_bytes(b"II*\0")
    (images / "image-04.tif").unlink()
    planned, done = foretold_and_done(settings, [images], prune=True)
    assert counts(planned) == counts(done)
    assert counts(planned) == {
        "read": 5,
        "embedded": 2,
        "chips": 2,
        "unchanged": 2,
        "clouded": 1,
        "retired": 1,
        "collection": "parcels",
        "skipped": ["unreadable"],
    }


def test_windows_without_data_are_not_counted(settings: Settings, tmp_path: Path) -> None:
    image = write_image(tmp_path / "image.tif", nodata=0)
    planned, done = foretold_and_done(settings, [image], windows=8)
    assert counts(planned) == counts(done)
    assert planned.embedded == planned.chips == 9


def test_parcels_outside_of_the_images_are_named_by_both(
    settings: Settings, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "scene.tif")
    outlines = {"inside": on_image(2, 2, 8, 10), "outside": on_image(200, 200, 208, 210)}
    parcels = write_parcels(tmp_path / "parcels.geojson", *outlines.items())
    planned, done = foretold_and_done(settings, [image], parcels=parcels)
    assert counts(planned) == counts(done)
    assert counts(planned)["skipped"] == ["outside-imagery"]


def test_another_precision_is_foretold_to_embed_everything_again(
    settings: Settings, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 3)
    reindex(settings, [tmp_path / "images"], options(precision="fp32"))
    same, _ = foretold_and_done(settings, [tmp_path / "images"])
    assert (same.embedded, same.unchanged) == (0, 3)
    other, done = foretold_and_done(settings, [tmp_path / "images"], precision="int8")
    assert counts(other) == counts(done)
    assert other.embedded == 3
    assert done.space is not None
    assert done.space["precision"] == "int8"


# Time ----------------------------------------------------------------------------------------


@dataclass
class Clock:
    """Time that passes only where the encoder or the disk says so."""

    now: float = 0.0
    passes: int = 0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock by which a pass takes 10 s, the first 100 s, and nothing else takes time."""
    clock = Clock()

    class Slow(OneLayerEncoder):
        def pool(self, images: Images, pooling_weights: Any) -> list[FloatArray]:  # noqa: ANN401
            for _ in images:
                clock.now += 10.0 if clock.passes else 100.0
                clock.passes += 1
            return super().pool(images, pooling_weights)

    monkeypatch.setattr(choice, "CromaEncoder", Slow)
    for module in (embedder, reindexing):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_the_time_foretold_is_that_of_all_passes_at_the_pace_of_a_few(
    settings: Settings, tmp_path: Path, clock: Clock
) -> None:
    write_images(tmp_path / "images", 30)
    planned = reindex(settings, [tmp_path / "images"], options(dry_run=True))
    assert planned.chips == 30
    assert clock.passes < 10
    # The first pass, which is slow, is no measure of the others.
    assert planned.estimated_seconds == 30 * 10
    clock.now, clock.passes = 0.0, 1
    done = reindex(settings, [tmp_path / "images"], options())
    assert done.network_seconds == 300
    assert done.estimated_seconds is None


def test_a_run_with_nothing_to_embed_is_foretold_to_take_no_pass(
    settings: Settings, tmp_path: Path, clock: Clock
) -> None:
    write_images(tmp_path / "images", 3)
    reindex(settings, [tmp_path / "images"], options())
    clock.passes = 0
    planned = reindex(settings, [tmp_path / "images"], options(dry_run=True))
    assert (planned.chips, planned.estimated_seconds, clock.passes) == (0, 0, 0)


def test_the_encoder_is_not_loaded_where_nothing_is_to_be_embedded(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unloadable(OneLayerEncoder):
        loaded = False

        def load(self) -> None:
            raise AssertionError("it was loaded")

    images = tmp_path / "images"
    write_images(images, 2)
    reindex(settings, [images], options())
    monkeypatch.setattr(choice, "CromaEncoder", Unloadable)
    planned, done = foretold_and_done(settings, [images])
    assert counts(planned) == counts(done)
    assert done.unchanged == 2


# Nothing is written --------------------------------------------------------------------------


def test_an_empty_place_stays_empty(settings: Settings, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    report = reindex(settings, [tmp_path / "images"], options(dry_run=True))
    assert (report.generation, report.parcels, report.observations) == (None, 0, 0)
    assert not settings.data_dir.exists()


def test_a_full_dry_run_foretells_a_new_space_and_keeps_the_old(
    settings: Settings, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 3)
    first = reindex(settings, [tmp_path / "images"], options())
    planned, done = foretold_and_done(settings, [tmp_path / "images"], full=True)
    assert counts(planned) == counts(done)
    assert (planned.embedded, planned.generation) == (3, first.generation)


def test_a_dry_run_does_not_wait_for_whoever_writes(settings: Settings, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    reindex(settings, [tmp_path / "images"], options())
    with only_writer(settings, doing="reindex"):
        report = reindex(settings, [tmp_path / "images"], options(dry_run=True))
    assert report.unchanged == 2
