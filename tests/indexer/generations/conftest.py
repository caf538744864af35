"""Fixtures of generations."""

from collections.abc import Iterator

import pytest

from indexer.catalog.database import connect, upgrade
from indexer.settings import Settings
from tests.indexer.generations.published import Published


@pytest.fixture
def published(settings: Settings) -> Iterator[Published]:
    """An empty catalog, in which nothing is published yet."""
    engine = connect(settings)
    upgrade(engine)
    yield Published(engine, settings.generations_dir)
    engine.dispose()
