import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import inspect, text

from indexer.reindex import reindex
from indexer.settings import Settings
from tests.indexer.farm import options, reading, searching
from tests.indexer.field_scenes import write_field_scene, write_fields
from tests.indexer.killed_anywhere import Scenario, run_all
from tests.indexer.one_layer import one_layer_installed
from tests.schemas import copy_index

SCENARIOS = {"first run": 7, "projection frozen on the way": 7, "second season": 6}
"""Twenty deaths in all."""

SIZE_PX = 220

PASSING = {"created_at", "updated_at", "published_at", "manifest"}
"""Columns that tell the time."""


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder, database_url="", croma_weights="untrained")


@pytest.fixture(scope="session")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Scenario, list[int]]]:
    """Runs over two scenes that were killed and brought to their end, with what they died of."""
    folder = tmp_path_factory.mktemp("killed")
    images = folder / "images"
    for seed in range(2):
        write_field_scene(images / f"scene-{seed}_2023040{seed + 1}.tif", SIZE_PX, seed)
    parcels = write_fields(folder / "parcels.geojson", SIZE_PX)
    first = folder / "first"
    with one_layer_installed():
        reindex(settings_in(first), [images], options(parcels=parcels, precision="fp32"))
    later = folder / "later"
    shutil.copytree(images, later)
    write_field_scene(later / "scene-1_20230402.tif", SIZE_PX, seed=5)
    write_field_scene(later / "scene-2_20230403.tif", SIZE_PX, seed=2)
    scenarios = [
        Scenario(
            folder=str(folder / name.replace(" ", "-")),
            imagery=str(later if name == "second season" else images),
            parcels=str(parcels),
            deaths=deaths,
            seed=seed,
            frozen_at=15 if "frozen" in name else None,
            # Embedded enough for the projection, and not yet fitted it.
            steps=("freeze_projection",) if "frozen" in name else (),
        )
        for seed, (name, deaths) in enumerate(SCENARIOS.items())
    ]
    for scenario in scenarios:
        Path(scenario.folder).mkdir()
    for data_dir in (*scenarios[-1].data_dirs, scenarios[-1].undisturbed):
        copy_index(first, data_dir)
    return dict(zip(SCENARIOS, zip(scenarios, run_all(scenarios), strict=True), strict=True))


def rows_of(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Every row of the catalog, ids and all, without what tells the time."""
    with reading(settings) as connection:
        tables = inspect(connection).get_table_names()
        return {
            table: [
                {column: value for column, value in row.items() if column not in PASSING}
                for row in connection.execute(
                    text(f'SELECT * FROM "{table}" ORDER BY 1')
                ).mappings()
            ]
            for table in tables
        }


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_that_is_killed_at_any_moment_and_resumed_leaves_the_rows_of_an_undisturbed_one(
    killed: dict[str, tuple[Scenario, list[int]]], name: str
) -> None:
    scenario, signals = killed[name]
    assert signals == [signal.SIGKILL] * len(scenario.data_dirs)
    expected = rows_of(settings_in(scenario.undisturbed))
    # Vectors there are, of parcels in several tiles, too.
    assert len(expected["embeddings"]) > len(expected["parcels"]) > 20
    for data_dir in scenario.data_dirs:
        found = rows_of(settings_in(data_dir))
        assert found.keys() == expected.keys()
        for table, rows in expected.items():
            assert found[table] == rows, f"{data_dir.name}: {table}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_that_was_killed_and_resumed_answers_as_an_undisturbed_one(
    killed: dict[str, tuple[Scenario, list[int]]], name: str
) -> None:
    scenario, _ = killed[name]
    with searching(settings_in(scenario.undisturbed)) as searcher:
        expected = searcher.similar_by_id("long", k=5).matches
    for data_dir in scenario.data_dirs:
        with searching(settings_in(data_dir)) as searcher:
            found = searcher.similar_by_id("long", k=5).matches
        assert [match.parcel_id for match in found] == [match.parcel_id for match in expected]
        np.testing.assert_allclose(
            [match.score for match in found], [match.score for match in expected], atol=1e-6
        )
