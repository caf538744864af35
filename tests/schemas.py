"""The suite on PostgreSQL: a schema for each data folder in place of a SQLite file in it.

With ``PARCELLE_TEST_DATABASE=postgresql`` every ``Settings`` that names a data folder and no
database means a schema of its own, also in the commands that tests start.
"""

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Connection, NullPool, create_engine, inspect, make_url, text
from sqlalchemy.schema import CreateSchema, DropSchema

from indexer.catalog.tables import Base
from indexer.settings import Settings

ON_POSTGRES: Final = os.environ.get("PARCELLE_TEST_DATABASE", "sqlite") == "postgresql"
"""Whether the suite was asked to run there."""

_SUITE: Final = "PARCELLE_TEST_SCHEMAS"
"""Tells the programs that tests start of the session and its database."""


def matter_of_sqlite(reason: str) -> pytest.MarkDecorator:
    """Skip a test on PostgreSQL; the reason says what SQLite alone has."""
    return pytest.mark.skipif(ON_POSTGRES, reason=f"a matter of SQLite: {reason}")


def place_told_of(folder: Path) -> str:
    """What a message names where it tells an operator of the database of a data folder."""
    return str(folder) if _schemas is None else _schemas.name_of(folder)


def copy_index(source: Path, target: Path) -> None:
    """Copy a folder with everything in it, and the databases of the data folders in it."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    if _schemas is not None:
        _schemas.copy(source, target)


@contextmanager
def schema_for_each_folder(postgres_url: str) -> Iterator[None]:
    """Give every data folder a schema of a database; they are dropped in the end."""
    schemas = _Schemas(postgres_url, secrets.token_hex(4))
    with pytest.MonkeyPatch.context() as patch:
        schemas.stand_for_folders(patch)
        yield
    schemas.drop()


def join_the_suite() -> None:
    """In a program that a test has started, mean the same schemas as the test does."""
    session, _, url = os.environ[_SUITE].partition(" ")
    _Schemas(url, session).stand_for_folders(pytest.MonkeyPatch())


class _Schemas:
    """A schema for each data folder, made when it is first asked for.

    Its name follows from the folder, so that all processes of a session find it; its comment tells
    the folder.
    """

    def __init__(self, url: str, session: str) -> None:
        self._url = make_url(url)
        self._session = session
        self._prefix = f"parcelle_test_{session}_"
        # Without a pool: programs that tests start fork, and must not share connections.
        self._engine = create_engine(url, poolclass=NullPool)
        self._made: set[str] = set()

    def stand_for_folders(self, patch: pytest.MonkeyPatch) -> None:
        """Put schemas in place of files, in this process and in those that it starts."""
        start = subprocess.Popen.__init__

        def resolved(settings: Settings) -> str:
            return settings.database_url or self.url_of(settings.data_dir)

        def start_with_schemas(process: Any, *args: Any, **options: Any) -> None:  # noqa: ANN401
            start(process, *args, **{**options, "env": self._told(options.get("env"))})

        patch.setattr(Settings, "resolved_database_url", property(resolved))
        patch.setattr(subprocess.Popen, "__init__", start_with_schemas)
        patch.setattr(sys.modules[__name__], "_schemas", self)

    def name_of(self, folder: Path) -> str:
        """The schema of a data folder; made empty if it is a new one."""
        folder = folder.absolute()
        schema = self._prefix + hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        if schema not in self._made:
            with self._engine.begin() as connection:
                connection.execute(CreateSchema(schema, if_not_exists=True))
                _note(connection, schema, folder)
            self._made.add(schema)
        return schema

    def url_of(self, folder: Path) -> str:
        """Where the database of a data folder is."""
        options = f"-csearch_path={self.name_of(folder)}"
        url = self._url.update_query_dict({"options": options})
        return url.render_as_string(hide_password=False)

    def copy(self, source: Path, target: Path) -> None:
        """Copy the databases of all data folders in a folder to those of its copy."""
        source, target = source.absolute(), target.absolute()
        for schema, folder in self._all():
            if folder.is_relative_to(source):
                copied = target / folder.relative_to(source)
                into = self.name_of(copied)
                with self._engine.begin() as connection:
                    _copy_tables(connection, schema, into)
                    _note(connection, into, copied)

    def drop(self) -> None:
        """Leave nothing behind in the database."""
        for schema, _ in self._all():
            # One by one: each table takes a lock, and a server has places for so many.
            with self._engine.begin() as connection:
                connection.execute(DropSchema(schema, cascade=True))

    def _all(self) -> list[tuple[str, Path]]:
        """Every schema of the session and the folder that it stands for, whoever made it."""
        statement = text(
            "SELECT nspname, obj_description(oid) AS folder FROM pg_namespace "
            "WHERE starts_with(nspname, :prefix)"
        )
        with self._engine.connect() as connection:
            found = connection.execute(statement, {"prefix": self._prefix}).all()
        return [(row.nspname, Path(row.folder)) for row in found]

    def _told(self, given: Mapping[str, str] | None) -> dict[str, str]:
        """An environment that tells a program of the database beside its data folder."""
        environment = dict(os.environ if given is None else given)
        environment[_SUITE] = f"{self._session} {self._url.render_as_string(hide_password=False)}"
        folder = environment.get("PARCELLE_DATA_DIR")
        if folder and not environment.get("PARCELLE_DATABASE_URL"):
            environment["PARCELLE_DATABASE_URL"] = self.url_of(Path(folder))
        return environment


_schemas: _Schemas | None = None


def _note(connection: Connection, schema: str, folder: Path) -> None:
    told = str(folder).replace("'", "''")
    connection.exec_driver_sql(f"COMMENT ON SCHEMA {schema} IS '{told}'")


def _copy_tables(connection: Connection, source: str, target: str) -> None:
    """Put the tables and rows of a schema in place of those of another."""
    found = set(inspect(connection).get_table_names(source))
    if not found:
        return
    connection.execute(DropSchema(target, cascade=True))
    connection.execute(CreateSchema(target))
    connection.execute(text(f"SET LOCAL search_path = {target}"))
    connection.execute(text(f"CREATE TABLE alembic_version AS TABLE {source}.alembic_version"))
    for table in [table for table in Base.metadata.sorted_tables if table.name in found]:
        table.create(connection)
        # Columns that a migration added stand elsewhere in the order.
        names = ", ".join(table.columns.keys())
        rows = f"SELECT {names} FROM {source}.{table.name}"
        connection.execute(text(f"INSERT INTO {table.name} ({names}) {rows}"))
        if table.autoincrement_column is not None:
            number = f"{table.name}_id_seq"
            last = f"SELECT setval('{number}', last_value, is_called) FROM {source}.{number}"
            connection.execute(text(last))
