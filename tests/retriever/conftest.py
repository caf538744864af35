"""An empty index on each database that it is meant for."""

from pathlib import Path

import pytest

from indexer.settings import Settings
from tests.postgres import empty_postgres as empty_postgres
from tests.postgres import postgres_url as postgres_url
from tests.retriever.planted import settings_in


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of an index to be made."""
    settings = settings_in(tmp_path)
    if request.param == "postgresql":
        url = request.getfixturevalue("empty_postgres")
        settings = settings.model_copy(update={"database_url": url})
    return settings
