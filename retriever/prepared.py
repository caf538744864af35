"""Statements that every question asks: compiled once, and read without SQLAlchemy's rows.

For ten rows, SQLAlchemy takes longer than the database. What is spared here is looking up the
compiled text and writing it out for so many ids, and all that surrounds a result. The connection
with its transaction, the types and the errors are SQLAlchemy's; its events tell nothing of these
statements.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection, Dialect, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

from indexer.catalog.database import trouble_with_file

IDS: Final = "ids"
"""Name of the only parameter that a statement may have: an expanding one."""

RowT = TypeVar("RowT", bound=tuple[Any, ...])

_Readers = Sequence[tuple[int, Callable[[Any], Any]]]


@dataclass(frozen=True)
class _Compiled:
    """A statement in the words of one database, for one number of ids."""

    text: str
    parameters: dict[str, Any]
    """By name; those that the statement holds itself have their values."""
    ids: Sequence[str]
    """Names of the parameters that are ids."""
    order: Sequence[str] | None
    """All names in the order of the text; None for a driver that goes by the names."""

    def parameters_for(self, ids: Sequence[int]) -> dict[str, Any] | tuple[Any, ...]:
        """As the driver takes them; the last id stands in all places that are left over."""
        spare = len(self.ids) - len(ids)
        given = [*ids, *[*ids[-1:]] * spare]
        values = self.parameters | dict(zip(self.ids, given, strict=True))
        return values if self.order is None else tuple([values[name] for name in self.order])


class Prepared(Generic[RowT]):
    """A statement, about some ids or without any; safe to share between threads."""

    def __init__(self, statement: Select[*tuple[Any, ...]], row: Callable[..., RowT]) -> None:
        """Take a statement as it is written for any database.

        Args:
            statement: Has no parameter but ``IDS``, if that.
            row: A ``NamedTuple`` of its columns, in their order.
        """
        self._statement = statement
        self._row = row
        # By dialect, driver and number of ids. Two threads may both compile; either will do.
        self._compiled: dict[tuple[str, str, int], _Compiled] = {}
        self._readers: dict[tuple[str, str], _Readers] = {}

    def rows(self, connection: Connection, ids: Sequence[int] = ()) -> list[RowT]:
        """What the statement finds.

        Args:
            connection: Open connection.
            ids: At most as many as one statement may hold.
        """
        dialect = connection.dialect
        compiled = self._compiled_for(dialect, len(ids))
        values = compiled.parameters_for(ids)
        try:
            cursor = connection.connection.cursor()
            try:
                cursor.execute(compiled.text, values)
                cells = cursor.fetchall()
                sent = cursor.description
            finally:
                cursor.close()
        except dialect.loaded_dbapi.Error as error:
            trouble = trouble_with_file(connection.engine, error)
            raise trouble or DBAPIError.instance(
                compiled.text,
                values,
                error,
                dialect.loaded_dbapi.Error,
                hide_parameters=True,
                dialect=dialect,
            ) from error
        if not cells:
            return []
        columns: list[Sequence[Any]] = list(zip(*cells, strict=True))
        for place, read in self._readers_of(dialect, sent):
            columns[place] = [read(cell) for cell in columns[place]]
        return list(map(self._row, *columns))

    def _compiled_for(self, dialect: Dialect, ids: int) -> _Compiled:
        # Powers of two: few texts, so that the driver and the server keep their plans of each.
        places = 1 << (ids - 1).bit_length() if ids else 0
        key = (dialect.name, dialect.driver, places)
        if key not in self._compiled:
            compiler = self._statement.compile(dialect=dialect)
            assert isinstance(compiler, SQLCompiler)
            state = compiler.construct_expanded_state({IDS: [0] * places} if places else {})
            self._compiled[key] = _Compiled(
                text=state.statement,
                parameters=dict(state.parameters),
                ids=state.parameter_expansion.get(IDS, ()),
                order=state.positiontup,
            )
        return self._compiled[key]

    def _readers_of(self, dialect: Dialect, sent: Sequence[Sequence[Any]]) -> _Readers:
        """What makes Python's values of the driver's, by the place of the column.

        Args:
            dialect: Of the database.
            sent: Description of each column, as the driver gives it.
        """
        key = (dialect.name, dialect.driver)
        if key not in self._readers:
            # Of some types it depends on what the database sends for them.
            types = [column.type for column in self._statement.selected_columns]
            readers = [
                type_.dialect_impl(dialect).result_processor(dialect, code)
                for type_, code in zip(types, [column[1] for column in sent], strict=True)
            ]
            self._readers[key] = [
                (place, read) for place, read in enumerate(readers) if read is not None
            ]
        return self._readers[key]
