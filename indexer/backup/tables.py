"""Copies all rows of a catalog into another, from any database into any."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, delete, func, inspect, select, text

from indexer.catalog.bulk import insert_rows
from indexer.catalog.changes import lock_log
from indexer.catalog.tables import Base, Change

_BATCH: Final = 1000
"""Rows that are in memory at once: a few MB of vectors."""


@dataclass(frozen=True)
class Renumbering:
    """What is added to numbers that somebody may remember, so that they keep their meaning.

    A service that holds generation 5 of one index must not take it for generation 5 of another.
    """

    generations: int = 0
    changes: int = 0
    clusterings: int = 0

    def row(self, table: str, values: dict[str, Any]) -> dict[str, Any]:
        """A row as it is to be stored."""
        for column, more in self._columns(table).items():
            if values.get(column) is not None:
                values[column] += more
        if table == "generations":
            values["manifest"] = self.manifest(values["manifest"])
        return values

    def manifest(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The manifest of a generation as it is to be stored."""
        return manifest | {
            "generation": manifest["generation"] + self.generations,
            "last_change": manifest.get("last_change", 0) + self.changes,
        }

    def sequence(self, table: str, last: int) -> int:
        """The last number that a table gave."""
        return last + self._columns(table).get("id", 0)

    def _columns(self, table: str) -> dict[str, int]:
        return {
            "generations": {"id": self.generations},
            "embedding_spaces": {"current_generation_id": self.generations},
            "changes": {"id": self.changes},
            "clusterings": {"id": self.clusterings, "generation_id": self.generations},
            "clusters": {"clustering_id": self.clusterings},
        }.get(table, {})


AS_IT_IS: Final = Renumbering()


def count_rows(connection: Connection) -> dict[str, int]:
    """Rows of each table that is there."""
    there = set(inspect(connection).get_table_names())
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in Base.metadata.sorted_tables
        if table.name in there
    }


def copy_rows(
    source: Connection,
    target: Connection,
    renumbering: Renumbering = AS_IT_IS,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Copy the rows of all tables, and the numbers that the next rows get.

    Args:
        source: Within a transaction that sees one moment.
        target: Inside a transaction that the caller commits. Its tables hold nothing, and have
            all columns that those of the source have.
        renumbering: What is added to some numbers.
        advance: Is told how many rows more are done.
    """
    inspected = inspect(source)
    there = set(inspected.get_table_names())
    for table, mapped in _tables():
        if table.name not in there:
            continue
        # Those that an older schema has.
        names = {column["name"] for column in inspected.get_columns(table.name)}
        columns = [column for column in table.columns if column.name in names]
        with source.execute(
            select(*columns).order_by(*table.primary_key.columns),
            execution_options={"stream_results": True, "yield_per": _BATCH},
        ) as found:
            for some in found.mappings().partitions():
                rows = [renumbering.row(table.name, dict(row)) for row in some]
                insert_rows(target, mapped, rows)
                advance(len(some))
        if mapped is Change and renumbering.changes:
            _begin_log(source, target, renumbering.changes)
    last = {
        table: renumbering.sequence(table, number) for table, number in last_numbers(source).items()
    }
    _raise_sequences(target, last)


def _begin_log(source: Connection, target: Connection, number: int) -> None:
    """Leave no gap where the log told everything from its beginning (``changes.tells_since``)."""
    if source.scalar(select(func.min(Change.id))) in (None, 1):
        # No parcel has the row 0.
        insert_rows(target, Change, [{"id": number, "parcel_id": 0}])


@contextmanager
def replacing(engine: Engine) -> Iterator[Connection]:
    """A transaction in which all tables are emptied, and may be filled again.

    Readers see the former rows until it is committed; writers wait.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # Python's driver would begin only with the first row that is changed.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        lock_log(connection)
        yield connection


def delete_rows(connection: Connection) -> None:
    """Empty all tables."""
    for table in reversed(Base.metadata.sorted_tables):
        connection.execute(delete(table))


def _tables() -> Iterator[tuple[Table, type[Base]]]:
    """All tables, those that others point at first, and their classes."""
    classes = {mapper.local_table: mapper.class_ for mapper in Base.registry.mappers}
    for table in Base.metadata.sorted_tables:
        yield table, classes[table]


# Numbers of rows ----------------------------------------------------------------------------------


def last_numbers(connection: Connection) -> dict[str, int]:
    """The last number that each table gave, of those that give none twice."""
    if connection.dialect.name == "sqlite":
        there = inspect(connection).get_table_names(sqlite_include_internal=True)
        if "sqlite_sequence" not in there:
            return {}
        found = connection.execute(text("SELECT name, seq FROM sqlite_sequence"))
        return {name: number for name, number in found if name in Base.metadata.tables}
    return {
        table: connection.execute(
            text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")
        ).scalar_one()
        for table, sequence in _sequence_names(connection)
    }


def _raise_sequences(connection: Connection, last: dict[str, int]) -> None:
    """Let the next rows be numbered above those that are there, and above what is given."""
    if connection.dialect.name != "sqlite":
        for table, sequence in _sequence_names(connection):
            connection.execute(
                text(
                    f"SELECT setval('{sequence}', number) FROM (SELECT greatest(:last,"
                    f" (SELECT max(id) FROM {table}),"
                    f" (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence})"
                    ") AS number) AS highest WHERE number > 0"
                ),
                {"last": last.get(table, 0)},
            )
        return
    for table, number in last.items():
        options = Base.metadata.tables[table].dialect_options["sqlite"]
        if options["autoincrement"]:
            values = {"name": table, "number": number}
            raised = connection.execute(
                text("UPDATE sqlite_sequence SET seq = max(seq, :number) WHERE name = :name"),
                values,
            )
            if raised.rowcount == 0:
                connection.execute(
                    text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :number)"),
                    values,
                )


def _sequence_names(connection: Connection) -> list[tuple[str, str]]:
    """Tables of PostgreSQL that number their rows, with the sequence that gives the numbers."""
    there = set(inspect(connection).get_table_names())
    named = [
        (
            table.name,
            connection.execute(
                text("SELECT pg_get_serial_sequence(:table, 'id')"), {"table": table.name}
            ).scalar_one(),
        )
        for table in Base.metadata.sorted_tables
        if table.name in there and "id" in table.columns
    ]
    return [(table, sequence) for table, sequence in named if sequence is not None]
