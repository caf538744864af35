"""Fixtures for every floor."""

import os
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import hypothesis
import pytest

from indexer.encoders import croma
from indexer.landscape import Landscape, draw_landscape
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from tests.postgres import empty_postgres as empty_postgres
from tests.postgres import postgres_url as postgres_url
from tests.schemas import ON_POSTGRES, schema_for_each_folder
from tests.synthetic import compute_position_bias_once

# A busy machine is no reason for a property to be false.
hypothesis.settings.register_profile("parcelle", deadline=None)
hypothesis.settings.load_profile("parcelle")


@pytest.fixture(scope="session", autouse=True)
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where tests keep their indices: in SQLite files, else on PostgreSQL if asked to."""
    if not ON_POSTGRES:
        yield
        return
    with schema_for_each_folder(request.getfixturevalue("postgres_url")):
        yield


@pytest.fixture(scope="session")
def test_data() -> Callable[[str], Path]:
    """Find a set of real data below ``PARCELLE_TEST_DATA``, or skip by name."""

    def find(name: str) -> Path:
        root = os.environ.get("PARCELLE_TEST_DATA")
        if not root:
            pytest.skip(f"real data {name!r}: PARCELLE_TEST_DATA names no folder")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"real data {name!r}: {folder} is no folder")
        return folder

    return find


@pytest.fixture(scope="session")
def tiny_croma() -> Iterator[str]:
    """Name of a CROMA of one layer that stands for the large one; use it untrained."""
    with pytest.MonkeyPatch.context() as patch:
        # torchgeo computes the position bias for num_heads, but always builds 16 of them.
        architecture = {"encoder_dim": 512, "encoder_depth": 1, "num_heads": 16}
        patch.setitem(croma.ARCHITECTURES, "croma-tiny", architecture)
        compute_position_bias_once(patch)
        yield "croma-tiny"


@pytest.fixture(scope="session")
def demo_landscape(tmp_path_factory: pytest.TempPathFactory) -> Landscape:
    """About 16 parcels, drawn on three dates of 2023; the second has a cloud."""
    return draw_landscape(
        tmp_path_factory.mktemp("landscape"),
        size_px=130,
        dates=(date(2023, 4, 24), date(2023, 5, 29), date(2023, 8, 12)),
        parcels_across=4,
    )


@pytest.fixture(scope="session")
def demo_index(
    tmp_path_factory: pytest.TempPathFactory, demo_landscape: Landscape, tiny_croma: str
) -> Settings:
    """Settings of ``demo_landscape`` indexed as collection ``demo``; only to be read."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("index"), database_url="", croma_weights="untrained"
    )
    options = ReindexOptions(
        encoder=tiny_croma, parcels=demo_landscape.parcels_file, collection="demo", device="cpu"
    )
    reindex(settings, demo_landscape.scenes, options)
    return settings
