"""A catalog on each database that it is meant for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine

from indexer.catalog.database import connect, upgrade
from indexer.settings import Settings


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database without tables."""
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("empty_postgres")
    engine = connect(Settings(data_dir=tmp_path, database_url=url))
    yield engine
    engine.dispose()


@pytest.fixture
def catalog(engine: Engine) -> Engine:
    """A database with all tables, and nothing in them."""
    upgrade(engine)
    return engine


@pytest.fixture
def connection(catalog: Engine) -> Iterator[Connection]:
    """One transaction on an empty catalog."""
    with catalog.begin() as connection:
        yield connection
