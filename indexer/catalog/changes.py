"""The change log: which parcels were written since a published index was built.

Whoever writes, changes, supersedes or deletes a parcel, an observation or an embedding names the
parcel in the table ``changes``, in the same transaction. An index that holds everything up to one
number of that table is brought up to date by reading the parcels that the later rows name
(``indexer.delta``).
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, delete, func, select, text

from indexer.catalog.bulk import insert_rows
from indexer.catalog.database import trouble_with_file
from indexer.catalog.tables import Change, Generation

IntArray = npt.NDArray[np.int64]

# Rows are numbered from 1.
_NO_PARCEL = 0

_LAST = select(func.coalesce(func.max(Change.id), 0))

_LAST_OF_BOTH = select(
    _LAST.scalar_subquery(),
    select(func.coalesce(func.max(Generation.id), 0)).scalar_subquery(),
)


def log_changes(connection: Connection, parcel_rows: Iterable[int]) -> None:
    """Note that parcels, or anything that hangs on them, are not what they were.

    The numbers of the log must become visible in their order, or a reader that has seen 7 would
    never look at a 6 that is committed later. SQLite has one writer at a time. On PostgreSQL the
    log is locked against other writers, not readers, until the transaction ends: therefore a
    transaction logs last what it changes, and is short.

    Args:
        connection: Inside the transaction that changes the parcels.
        parcel_rows: Their rows; each once is enough. They need not be there any more.
    """
    rows = [{"parcel_id": row} for row in parcel_rows]
    if rows:
        lock_log(connection)
        insert_rows(connection, Change, rows)


def lock_log(connection: Connection) -> None:
    """Let no other transaction write the log until this one ends; see ``log_changes``."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE changes IN SHARE ROW EXCLUSIVE MODE"))


def last_change(connection: Connection) -> int:
    """Number of the last change that is committed; 0 where nothing was ever written."""
    return int(connection.execute(_LAST).scalar_one())


def changed_parcels(connection: Connection, since: int, until: int) -> IntArray:
    """Parcels that were written after one change, up to another.

    Args:
        connection: Open connection.
        since: Number of the last change that is known already.
        until: Number of the last change that is asked for.

    Returns:
        Their rows, each once, ascending; also of parcels that are deleted.
    """
    found = connection.scalars(
        select(Change.parcel_id).where(Change.id > since, Change.id <= until)
    )
    return np.unique(np.fromiter(found, dtype=np.int64))


def prune_changes(connection: Connection, until: int) -> None:
    """Forget changes that every index holds that may still be asked.

    The last row of the log stays, so that ``last_change`` never goes back; and so does the row of
    that number, by which ``tells_since`` knows that nothing later is missing.

    Args:
        connection: Inside a transaction that the caller commits.
        until: Number of the last change that nobody needs: the smallest ``last_change`` of the
            generations that are kept.
    """
    newest = select(func.max(Change.id)).scalar_subquery()
    connection.execute(delete(Change).where(Change.id < until, Change.id < newest))


def tells_since(connection: Connection, change: int) -> bool:
    """Whether the log still names every parcel that was written after a change.

    Args:
        connection: Open connection.
        change: The last change that an index holds.
    """
    if change == last_change(connection):
        return True
    first = connection.scalar(select(func.min(Change.id)))
    return first is not None and first <= max(change, 1)


def log_switch(connection: Connection) -> None:
    """Note that other generations answer now, although no parcel was written.

    Args:
        connection: Inside the transaction that switches them.
    """
    log_changes(connection, [_NO_PARCEL])


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection whose statements all see the database at one moment.

    Without it each statement would see what was committed before it, and a parcel could be gone
    between the statement that finds it and the one that reads it. Nobody waits for it.
    """
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            # Python's driver begins a transaction before it writes, but not before it reads.
            connection.exec_driver_sql("BEGIN")
            yield connection
    else:
        with engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ")


class CommitWatch:
    """Tells in microseconds whether anything was committed, by any process.

    On a SQLite file it asks ``PRAGMA data_version`` on a connection of its own that never writes,
    because the number tells of the commits of other connections only; it takes neither a lock that
    a writer waits for nor a place in the engine's pool. Elsewhere it asks for the last change and
    the last generation.

    Safe to share between threads; not between a process and those that it forks.

    References:
        https://www.sqlite.org/pragma.html#pragma_data_version
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asking = threading.Lock()
        self._file = _own_connection(engine)

    def version(self) -> int:
        """A number that differs from the one before if anything was committed in between.

        Ask it before the catalog is read: what is committed while one reads then shows the next
        time. It may differ although no parcel was written.
        """
        if self._file is None:
            with self._engine.connect() as connection:
                changes, generations = connection.execute(_LAST_OF_BOTH).one()
                return (int(generations) << 48) + int(changes)
        with self._asking:
            # All rows are fetched: a statement that is not run to its end would hold on to the
            # state that it sees, and the write-ahead log could not be emptied.
            try:
                return int(self._file.execute("PRAGMA data_version").fetchall()[0][0])
            except sqlite3.DatabaseError as error:
                raise (trouble_with_file(self._engine, error) or error) from None

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            with self._asking:
                self._file.close()


def _own_connection(engine: Engine) -> sqlite3.Connection | None:
    """Another connection to the engine's SQLite file; None where there is no such file."""
    if engine.dialect.name != "sqlite" or engine.url.database in (None, "", ":memory:"):
        return None
    arguments, options = engine.dialect.create_connect_args(engine.url)
    connection: Any = engine.dialect.connect(*arguments, **{**options, "check_same_thread": False})
    return cast(sqlite3.Connection, connection)
