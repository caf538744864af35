"""An empty index on each database that it is meant for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from indexer.catalog.database import connect
from indexer.settings import Settings
from tests.retriever.planted import settings_in


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of an index to be made."""
    settings = settings_in(tmp_path)
    if request.param == "postgresql":
        url = request.getfixturevalue("empty_postgres")
        settings = settings.model_copy(update={"database_url": url})
    return settings


@pytest.fixture
def engine(empty: Settings) -> Iterator[Engine]:
    """Its catalog."""
    engine = connect(empty)
    yield engine
    engine.dispose()
