"""Inserting many rows at once, as fast as the database takes them.

SQLAlchemy prepares every value of every row anew, which takes longer than SQLite needs to store
them. Here a statement and the conversions of its columns are found once for each database, and
values are converted column by column. PostgreSQL takes rows by COPY, in the binary form, which
writes a vector as it is, not as hexadecimal digits
(https://www.postgresql.org/docs/current/sql-copy.html).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    DateTime,
    Dialect,
    Float,
    Integer,
    LargeBinary,
    String,
    insert,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeDecorator, TypeEngine

from indexer.catalog.tables import Base

# The binary form is not converted by the server: each column is written as what it is there. The
# special comes before the general.
_POSTGRES_TYPES: Final = (
    (BigInteger, "int8"),
    (Integer, "int4"),
    (Float, "float8"),
    (Boolean, "bool"),
    (DateTime, "timestamptz"),
    (JSON, "json"),
    (LargeBinary, "bytea"),
    (String, "text"),
)


@dataclass(frozen=True)
class _Prepared:
    """A statement that takes rows, in the words of one database."""

    sql: str
    names: tuple[str, ...]
    """Columns in the order of the statement."""
    conversions: tuple[Callable[[Any], Any] | None, ...]
    """What makes of each column's values what the driver takes; None where they are that."""
    copied_as: tuple[str, ...] = ()
    """PostgreSQL's type of each column, if the statement is a COPY."""
    by_name: bool = False
    """Whether the driver wants parameters by name, not by position."""


def insert_rows(connection: Connection, table: type[Base], rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows in their order; what the columns' types refuse is refused.

    Args:
        connection: Inside a transaction that the caller commits.
        table: Where they go.
        rows: Values by column; all rows name the same columns.

    Raises:
        DBAPIError: What the database refuses, as SQLAlchemy's own statements do.
    """
    if not rows:
        return
    prepared = _prepared(table, tuple(rows[0]), connection.dialect)
    columns = []
    for name, convert in zip(prepared.names, prepared.conversions, strict=True):
        values = [row[name] for row in rows]
        columns.append(values if convert is None else list(map(convert, values)))
    parameters: list[Any] = list(zip(*columns, strict=True))
    if prepared.copied_as:
        _copy(connection, prepared, parameters)
        return
    if prepared.by_name:
        parameters = [dict(zip(prepared.names, values, strict=True)) for values in parameters]
    connection.exec_driver_sql(prepared.sql, parameters)


def _copy(connection: Connection, prepared: _Prepared, rows: Iterable[Sequence[Any]]) -> None:
    driver = connection.dialect.loaded_dbapi
    try:
        cursor: Any = connection.connection.cursor()
        with cursor, cursor.copy(prepared.sql) as copy:
            copy.set_types(prepared.copied_as)
            for row in rows:
                copy.write_row(row)
    except driver.Error as error:
        raise DBAPIError.instance(
            prepared.sql,
            None,
            error,
            driver.Error,
            hide_parameters=True,
            dialect=connection.dialect,
        ) from error


@lru_cache(maxsize=64)
def _prepared(table: type[Base], names: tuple[str, ...], dialect: Dialect) -> _Prepared:
    # Inline: the numbers that the database gives are not asked back.
    compiled = insert(table).inline().compile(dialect=dialect, column_keys=names)
    columns = {column.name: column for column in table.__table__.columns if column.name in names}
    # In the order of the statement, which is that of the table.
    ordered = tuple(getattr(compiled, "positiontup", None) or columns)
    types = [columns[name].type.dialect_impl(dialect) for name in ordered]
    conversions = tuple(kind.bind_processor(dialect) for kind in types)
    if dialect.driver != "psycopg":
        return _Prepared(str(compiled), ordered, conversions, by_name=not dialect.positional)
    quoted = dialect.identifier_preparer.quote
    return _Prepared(
        f"COPY {quoted(table.__tablename__)} ({', '.join(map(quoted, ordered))}) "
        "FROM STDIN (FORMAT BINARY)",
        ordered,
        conversions,
        copied_as=tuple(_postgres_type(columns[name].type) for name in ordered),
    )


def _postgres_type(kind: TypeEngine[Any]) -> str:
    while isinstance(kind, TypeDecorator):
        kind = kind.impl_instance
    return next(name for known, name in _POSTGRES_TYPES if isinstance(kind, known))
