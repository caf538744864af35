"""An empty index on each database that it is meant for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.settings import Settings
from tests.postgres import new_schema
from tests.retriever.planted import settings_in

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=DATABASES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of an index to be made."""
    settings = settings_in(tmp_path)
    if request.param == "postgresql":
        url = request.getfixturevalue("empty_postgres")
        settings = settings.model_copy(update={"database_url": url})
    return settings


@pytest.fixture(scope="module", params=DATABASES)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Settings of an index that a module makes once, for tests that only read it."""
    settings = settings_in(tmp_path_factory.mktemp("shared"))
    if request.param == "sqlite":
        yield settings
        return
    with new_schema(request.getfixturevalue("postgres_url")) as url:
        yield settings.model_copy(update={"database_url": url})
