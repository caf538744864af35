"""Inserting many rows at once, as fast as the driver of the database takes them.

SQLAlchemy prepares every value of every row anew, which takes longer than SQLite needs to store
them. Here a statement and the conversions of its columns are found once for each database, and
values are converted column by column.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Dialect, insert

from indexer.catalog.tables import Base


@dataclass(frozen=True)
class _Prepared:
    """An INSERT in the words of one database."""

    sql: str
    names: tuple[str, ...]
    """Columns in the order of the statement's parameters."""
    conversions: tuple[Callable[[Any], Any] | None, ...]
    """What makes of each column's values what the driver takes; None where they are that."""
    by_name: bool
    """Whether the driver wants parameters by name, not by position."""


def insert_rows(connection: Connection, table: type[Base], rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows in their order; what the columns' types refuse is refused.

    Args:
        connection: Inside a transaction that the caller commits.
        table: Where they go.
        rows: Values by column; all rows name the same columns.
    """
    if not rows:
        return
    prepared = _prepared(table, tuple(rows[0]), connection.dialect)
    columns = []
    for name, convert in zip(prepared.names, prepared.conversions, strict=True):
        values = [row[name] for row in rows]
        columns.append(values if convert is None else list(map(convert, values)))
    parameters: list[Any] = list(zip(*columns, strict=True))
    if prepared.by_name:
        parameters = [dict(zip(prepared.names, values, strict=True)) for values in parameters]
    connection.exec_driver_sql(prepared.sql, parameters)


@lru_cache(maxsize=64)
def _prepared(table: type[Base], names: tuple[str, ...], dialect: Dialect) -> _Prepared:
    # Inline: the numbers that the database gives are not asked back.
    compiled = insert(table).inline().compile(dialect=dialect, column_keys=names)
    columns = {column.name: column for column in table.__table__.columns if column.name in names}
    # In the order of the statement, which is that of the table.
    ordered = tuple(getattr(compiled, "positiontup", None) or columns)
    types = [columns[name].type.dialect_impl(dialect) for name in ordered]
    return _Prepared(
        sql=str(compiled),
        names=ordered,
        conversions=tuple(kind.bind_processor(dialect) for kind in types),
        by_name=not dialect.positional,
    )
