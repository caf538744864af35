import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.reindex import ReindexReport, reindex
from indexer.settings import Settings
from tests.indexer.farm import assert_same_vectors, options, states, vectors
from tests.indexer.field_scenes import write_field_scene, write_fields
from tests.indexer.one_layer import one_layer_installed
from tests.indexer.ray_runs import Head, run_on_ray

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)

SIZE_PX = 300
TILES = 16
"""Of a scene: four rows and columns, 0, 88, 176 and 180 px from its corner."""


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder, database_url="", croma_weights="untrained")


class Season:
    """The same images and parcels, indexed by this process and on a cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        for seed in range(3):
            write_field_scene(self.images / f"scene-{seed}_2023040{seed + 1}.tif", SIZE_PX, seed)
        self.broken = write_field_scene(
            self.images / "scene-1-broken.tif", SIZE_PX, 9, compress="deflate", blockysize=1
        )
        _damage(self.broken)
        self.lost = self.images / "scene-1-lost.tif"
        self.lost.write_text("lost")
        self.hostile = write_field_scene(folder / "hostile" / "hot.tif", SIZE_PX, 3, brightness=16)
        self.weights = folder / "weights" / "weights.bin"
        self.weights.parent.mkdir()
        self.weights.write_bytes(b"any bytes")
        self.chosen: dict[str, Any] = {
            "parcels": str(write_fields(folder / "parcels.geojson", SIZE_PX)),
            "weights": str(self.weights),
            "batch_size": 2,
            # The best one is found out with torch, which takes seconds to import.
            "precision": "fp32",
        }
        # One worker dies on its way.
        (self.weights.parent / "death-1").touch()

    def local(self) -> ReindexReport:
        """Indexed by this process, in ``local``."""
        chosen = self.chosen | {"parcels": Path(self.chosen["parcels"])}
        with one_layer_installed():
            return reindex(settings_in(self.folder / "local"), [self.images], options(**chosen))

    def on(self, address: str, name: str, *imagery: Path) -> dict[str, Any]:
        """A run on a cluster, in a data folder of its name."""
        return {
            "data_dir": str(self.folder / name),
            "imagery": [str(path) for path in imagery],
            "options": self.chosen | {"ray": address},
        }


def _damage(path: Path) -> None:
    """Overwrite pixels in the last rows of an image."""
    content = bytearray(path.read_bytes())
    place = len(content) * 85 // 100
    content[place : place + 4096] = b"\xff" * 4096
    path.write_bytes(content)


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    return Season(tmp_path_factory.mktemp("season-on-ray"))


@pytest.fixture(scope="module")
def reports(season: Season) -> Iterator[tuple[ReindexReport, list[dict[str, Any]], str]]:
    """Of a local run; of two on a cluster and one with a hostile image; what else was printed."""
    with Head() as head:
        # The cluster takes seconds to come up.
        local = season.local()
        address = head.address
        first = season.images / "scene-0_20230401.tif"
        done = run_on_ray(
            [
                season.on(address, "on-ray", season.images),
                season.on(address, "on-ray", season.images),
                season.on(address, "hostile", first, season.hostile),
                season.on("127.0.0.1:1", "nobody", season.images),
            ]
        )
    assert done.returncode == 0, done.stderr
    yield local, json.loads(done.stdout), done.stderr
    assert head.left() == []


def named(skipped: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return sorted((one["source"], one["kind"], one["reason"]) for one in skipped)


def test_a_cluster_that_loses_a_worker_makes_the_rows_of_a_local_run(
    season: Season, reports: tuple[ReindexReport, list[dict[str, Any]], str]
) -> None:
    local, (report, *_), errors = reports
    # It did die, and Ray said so, but not where the results go.
    assert list(season.weights.parent.glob("death-*")) == []
    assert "worker died" in errors
    assert report["read"] == local.read == 3
    assert (report["embedded"], report["clouded"]) == (local.embedded, local.clouded)
    # Of the broken image, what lies above the damage.
    assert local.embedded > 3 * 51
    assert named(report["skipped"]) == named([one.to_dict() for one in local.skipped])
    here, there = settings_in(season.folder / "local"), settings_in(season.folder / "on-ray")
    assert states(there) == states(here)
    assert_same_vectors(vectors(there), vectors(here))
    scenes = {scene for _, scene in vectors(there)}
    assert scenes == {f"scene-{seed}_2023040{seed + 1}" for seed in range(3)} | {"scene-1-broken"}


def test_every_tile_of_a_cluster_is_embedded_once_but_for_those_that_blocks_share(
    reports: tuple[ReindexReport, list[dict[str, Any]], str],
) -> None:
    local, (report, *_), _ = reports
    assert 3 * TILES < local.chips <= 3 * TILES + TILES / 2
    assert local.chips <= report["chips"] < 3 * local.chips


def test_a_second_run_on_a_cluster_embeds_nothing(
    reports: tuple[ReindexReport, list[dict[str, Any]], str],
) -> None:
    _, (first, second, *_), _ = reports
    assert (second["embedded"], second["chips"], second["clouded"]) == (0, 0, 0)
    assert second["unchanged"] == first["embedded"] + first["clouded"]
    assert second["generation"] == first["generation"] == 1
    assert named(second["skipped"]) == named(first["skipped"])


def test_an_image_that_kills_its_workers_is_skipped_and_the_others_are_embedded(
    season: Season, reports: tuple[ReindexReport, list[dict[str, Any]], str]
) -> None:
    _, (_, _, report, *_), _ = reports
    (skipped,) = report["skipped"]
    assert (skipped["source"], skipped["kind"]) == (str(season.hostile), "unreadable")
    assert "3 workers died" in skipped["reason"]
    assert report["read"] == 1
    scenes = {scene for _, scene in vectors(settings_in(season.folder / "hostile"))}
    assert scenes == {"scene-0_20230401"}


def test_an_address_where_no_cluster_answers_is_refused_by_name(
    season: Season, reports: tuple[ReindexReport, list[dict[str, Any]], str]
) -> None:
    _, (*_, refused), _ = reports
    assert refused["kind"] == "invalid-option"
    assert "--ray 127.0.0.1:1: no Ray cluster answers there" in refused["message"]
    assert "ray start --head" in refused["message"]
