"""Fixtures of the ground floor."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.settings import Settings
from tests.indexer.one_layer import one_layer_installed


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty place, whatever the environment says."""
    return Settings(data_dir=tmp_path / "data", database_url="", croma_weights="untrained")


@pytest.fixture
def one_layer() -> Iterator[str]:
    """Name of an encoder that takes no torch and no time; ``reindex`` uses it meanwhile."""
    with one_layer_installed() as name:
        yield name
