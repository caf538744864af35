from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, Engine, literal, select, text
from sqlalchemy.exc import IntegrityError

from indexer.catalog.database import (
    connect,
    database_exists,
    require_current_schema,
    schema_status,
    upgrade,
)
from indexer.errors import StorageError
from indexer.settings import Settings
from tests.schemas import matter_of_sqlite


def settings_for(url: str) -> Settings:
    return Settings(data_dir=Path("nowhere"), database_url=url)


def stamp(engine: Engine, revision: str) -> None:
    """Note another revision as the one that the database has."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})


@matter_of_sqlite("a file")
def test_the_folder_of_a_new_sqlite_file_is_made(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "far" / "away", database_url="")
    assert not database_exists(settings)
    connect(settings).dispose()
    assert (tmp_path / "far" / "away" / "parcelle.db").is_file()
    assert database_exists(settings)


@matter_of_sqlite("its pragmas")
def test_sqlite_lets_readers_go_on_and_keeps_what_was_committed(tmp_path: Path) -> None:
    engine = connect(Settings(data_dir=tmp_path, database_url=""))
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    engine.dispose()
    # https://sqlite.org/pragma.html: synchronous 2 is FULL.
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_references_are_kept_on_every_database(catalog: Engine) -> None:
    orphan = text("INSERT INTO generations (space_id, manifest) VALUES (77, '{}')")
    with pytest.raises(IntegrityError), catalog.begin() as connection:
        connection.execute(orphan)


def test_a_database_without_tables_is_empty(engine: Engine) -> None:
    assert schema_status(engine) == "empty"
    with pytest.raises(StorageError, match=r"holds no index yet; run parcelle reindex") as caught:
        require_current_schema(engine)
    assert caught.value.kind == "database-empty"


def test_an_upgraded_database_is_current(engine: Engine) -> None:
    upgrade(engine)
    assert schema_status(engine) == "current"
    require_current_schema(engine)


def test_a_database_of_an_unknown_revision_is_newer(catalog: Engine) -> None:
    stamp(catalog, "9999")
    assert schema_status(catalog) == "newer"
    with pytest.raises(StorageError, match="newer Parcelle; update this installation") as caught:
        require_current_schema(catalog)
    assert caught.value.kind == "schema-newer"


def test_a_database_of_a_former_revision_is_outdated(
    catalog: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptDirectory, "get_current_head", lambda _: "9999")
    assert schema_status(catalog) == "outdated"
    with pytest.raises(StorageError, match="older schema; run: parcelle db upgrade") as caught:
        require_current_schema(catalog)
    assert caught.value.kind == "schema-outdated"


@pytest.mark.parametrize(
    "url",
    [
        "not a url",
        "postgresql+psycopg://user:secret@127.0.0.1:port/parcelle",
        "oracle9://user:secret@127.0.0.1/parcelle",
        "mysql+mysqldb://user:secret@127.0.0.1/parcelle",
        "postgresql+psycopg://user:secret@127.0.0.1:1/parcelle",
    ],
    ids=["no URL", "no port", "unknown database", "driver not installed", "nobody answers"],
)
def test_a_database_that_cannot_be_had_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(StorageError, match="PARCELLE_DATABASE_URL") as caught:
        connect(settings_for(url))
    assert caught.value.kind == "database-unreachable"
    assert "secret" not in caught.value.message


@matter_of_sqlite("a file")
def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "parcelle.db"
    path.write_bytes(b"GeoPackage of another program" * 100)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"parcelle\.db is damaged, or none") as caught:
        connect(Settings(data_dir=tmp_path, database_url=""))
    assert caught.value.kind == "database-corrupt"
    assert path.read_bytes() == before


@matter_of_sqlite("a file")
def test_a_data_folder_that_is_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StorageError, match="PARCELLE_DATA_DIR") as caught:
        connect(Settings(data_dir=tmp_path / "data", database_url=""))
    assert caught.value.kind == "database-unreachable"


def test_only_a_sqlite_file_may_be_missing(tmp_path: Path) -> None:
    assert not database_exists(settings_for(f"sqlite:///{tmp_path / 'none.db'}"))
    assert database_exists(settings_for("postgresql+psycopg://user@127.0.0.1:1/parcelle"))


def test_whether_there_is_a_database_cannot_be_asked_of_a_wrong_url() -> None:
    with pytest.raises(StorageError, match="not a SQLAlchemy URL"):
        database_exists(settings_for("not a url"))


@pytest.mark.parametrize("value", [2**70, -(2**64), {"a": [1.5, None, True, "é\u2028"]}])
def test_what_python_writes_as_json_is_read_back(tmp_path: Path, value: object) -> None:
    engine = connect(Settings(data_dir=tmp_path, database_url=""))
    with engine.connect() as connection:
        statement = select(literal(value, JSON))
        assert connection.scalar(statement) == value
    engine.dispose()
