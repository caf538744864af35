"""Engine, migrations, and the question whether the schema is current."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import orjson
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from indexer.errors import StorageError
from indexer.settings import Settings

SchemaStatus = Literal["empty", "current", "outdated", "newer"]

_BUSY_TIMEOUT_MS = 30_000

# Whoever waits longer for one of the connections is told to come back.
_POOL_TIMEOUT_S = 10

# 32 MiB, so that a page that many commits change is written back once. SQLite would wait for 4.
_PAGES_IN_LOG = 8192

# As much as SQLite maps of a file by default at most (https://sqlite.org/mmap.html).
_MAPPED_BYTES = 0x7FFF0000

# What SQLite wants of a disk to open a file in its write-ahead mode, and some pages to write.
_ROOM_TO_OPEN = 128 << 10

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PERHAPS_FULL = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)


def connect(settings: Settings) -> Engine:
    """Open the database that the settings name; creates the folder of a SQLite file.

    Whatever is asked of it later raises ``StorageError``, too, where a SQLite file is damaged
    (``database-corrupt``) or its disk is full (``disk-full``).

    Raises:
        StorageError: If the URL is unusable or nobody answers (``database-unreachable``), a file is
            damaged (``database-corrupt``), or its disk is full (``disk-full``).
    """
    url = _url(settings)
    try:
        if url.get_backend_name() == "sqlite" and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = _engine(url)
        with engine.connect():
            pass
    except (SQLAlchemyError, ModuleNotFoundError, OSError) as error:
        detail = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StorageError(
            f"The database {url.render_as_string(hide_password=True)} cannot be opened ({detail}); "
            "check PARCELLE_DATA_DIR, PARCELLE_DATABASE_URL and that the server runs.",
            kind="database-unreachable",
        ) from error
    return engine


def _engine(url: URL) -> Engine:
    options: dict[str, Any] = {
        "json_deserializer": _read_json,
        "json_serializer": _write_json,
        # What was asked for is nobody's business who reads the log of a failure.
        "hide_parameters": True,
    }
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, **options)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "handle_error", _name_trouble, retval=True)
        return engine
    # A file does not hang up; a server may have, since it was asked last.
    options |= {"pool_pre_ping": True, "pool_timeout": _POOL_TIMEOUT_S}
    if url.get_driver_name() != "psycopg":
        return create_engine(url, **options)
    # Imported only now: it is not installed where a file is enough.
    from indexer.catalog import postgres

    engine = create_engine(url, connect_args=postgres.limits(url), **options)
    postgres.watch(engine)
    return engine


def open_catalog(settings: Settings) -> Engine:
    """Open the catalog that a reindex made; never makes one.

    Raises:
        StorageError: If there is none, nobody answers, or its schema is another version's.
    """
    if not database_exists(settings):
        raise _empty(settings.resolved_database_url)
    engine = connect(settings)
    try:
        require_current_schema(engine)
    except StorageError:
        # Whoever tries again later must not leave a connection behind each time.
        engine.dispose()
        raise
    return engine


@contextmanager
def opened_catalog(settings: Settings) -> Iterator[Engine]:
    """The catalog that a reindex made, closed at the end; raises as ``open_catalog``."""
    engine = open_catalog(settings)
    try:
        yield engine
    finally:
        engine.dispose()


def _name_trouble(context: ExceptionContext) -> StorageError | None:
    """What is raised in the driver's place: an error of ours, for what an operator has to mend."""
    if context.engine is None:
        return None
    found = trouble_with_file(context.engine, context.original_exception)
    elsewhere = (context.statement or "").startswith("VACUUM INTO")
    return None if elsewhere and found and found.kind == "disk-full" else found


def trouble_with_file(engine: Engine, error: BaseException) -> StorageError | None:
    """What SQLite's driver says of a damaged file or a full disk, as an error of ours.

    Args:
        engine: Of the file.
        error: As the driver raised it.

    Returns:
        None where it says anything else.

    References:
        https://www.sqlite.org/rescode.html
    """
    file = engine.url.database
    # The last byte is the kind; what is before it tells more.
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if not file:
        return None
    if code in _DAMAGED:
        found = "is damaged" if code == sqlite3.SQLITE_CORRUPT else "is damaged, or none"
        return StorageError(
            f"The database {file} {found} ({error}); move that file away, then restore a "
            "backup: parcelle restore DIR --replace",
            kind="database-corrupt",
        )
    folder = Path(file).parent
    if code not in (*_PERHAPS_FULL, sqlite3.SQLITE_FULL) or not folder.is_dir():
        return None
    free = shutil.disk_usage(folder).free
    if code in _PERHAPS_FULL and free >= _ROOM_TO_OPEN:
        return None
    return StorageError(
        f"The disk of {folder} is full ({free >> 10} KiB free), and {file} cannot be used without "
        "some room, not even read; make room and try again.",
        kind="disk-full",
    )


def unreachable(error: DBAPIError) -> StorageError:
    """A connection that was lost, or a lock that was not had, as an error of ours."""
    detail = str(error.orig).strip().splitlines()[0] if error.orig else "no answer"
    return StorageError(
        f"The database does not answer ({detail}); try again.", kind="database-unreachable"
    )


def database_exists(settings: Settings) -> bool:
    """Whether there is a database to look into; False only for a SQLite file not made yet.

    Raises:
        StorageError: If the URL is unusable (``database-unreachable``).
    """
    url = _url(settings)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()


def _url(settings: Settings) -> URL:
    try:
        return make_url(settings.resolved_database_url)
    except (ArgumentError, ValueError) as error:
        raise StorageError(
            "PARCELLE_DATABASE_URL is not a SQLAlchemy URL; write it as "
            "sqlite:////path/parcelle.db or postgresql+psycopg://user@host/database.",
            kind="database-unreachable",
        ) from error


def _read_json(text: str) -> object:
    """JSON of a column, in a third of the time that the standard library takes."""
    found: object
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        # Halves of surrogate pairs, which Python writes and orjson does not read.
        found = json.loads(text)
    return found


def _write_json(value: object) -> str:
    """A column's JSON, in a fifth of the time that the standard library takes."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Integers of more than 64 bits.
        return json.dumps(value)


def _configure_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    # Readers go on while a batch is committed; a commit is on disk when it returns.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA wal_autocheckpoint={_PAGES_IN_LOG}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    # A search reads some thirty pages here and there; to copy each takes longer than to look.
    cursor.execute(f"PRAGMA mmap_size={_MAPPED_BYTES}")
    cursor.close()


def schema_status(engine: Engine) -> SchemaStatus:
    """How the database's schema relates to this version of Parcelle."""
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        return "empty"
    script = ScriptDirectory.from_config(_alembic_config())
    if revision == script.get_current_head():
        return "current"
    known = {entry.revision for entry in script.walk_revisions()}
    return "outdated" if revision in known else "newer"


def require_current_schema(engine: Engine) -> None:
    """Refuse a database that this version cannot use.

    Raises:
        StorageError: ``database-empty``, ``schema-outdated`` or ``schema-newer``.
    """
    status = schema_status(engine)
    if status == "empty":
        raise _empty(engine.url.render_as_string(hide_password=True))
    if status == "outdated":
        raise StorageError(
            f"{_shown(engine)} has an older schema; run: parcelle db upgrade",
            kind="schema-outdated",
        )
    if status == "newer":
        raise StorageError(
            f"{_shown(engine)} was written by a newer Parcelle; update this installation.",
            kind="schema-newer",
        )


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the schema to this version; an empty database gets all tables."""
    config = _alembic_config()
    with engine.begin() as connection:
        _begin_before_ddl(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str = "base") -> None:
    """Take the schema back to an older revision; for tests and emergencies."""
    config = _alembic_config()
    with engine.begin() as connection:
        _begin_before_ddl(connection)
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def _begin_before_ddl(connection: Connection) -> None:
    """Make a migration of SQLite all or nothing, as it is on PostgreSQL.

    Python's driver opens a transaction before it changes rows, but not before it changes tables;
    a process killed in between would leave half a schema that no version of Parcelle can use.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    return config


def _empty(url: str) -> StorageError:
    return StorageError(
        f"The database {url} holds no index yet; run parcelle reindex first, or point "
        "PARCELLE_DATA_DIR or PARCELLE_DATABASE_URL at the right one.",
        kind="database-empty",
    )


def _shown(engine: Engine) -> str:
    return f"The database {engine.url.render_as_string(hide_password=True)}"
