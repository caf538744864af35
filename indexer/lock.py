"""One writer at a time: locks that die with their holder, and tell who holds them.

A lock of the kernel on a file in the data folder keeps processes apart that share the folder. On
PostgreSQL an advisory lock keeps those apart that share the database, on whatever machines.
"""

import fcntl
import json
import logging
import os
import re
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from indexer.catalog.database import unreachable
from indexer.errors import ConflictError, StorageError
from indexer.settings import Settings

LOCK_FILE: Final = "reindex.lock"

_ATTEMPTS: Final = 5
_BETWEEN_ATTEMPTS_S: Final = 0.05

# Two families of keys, of arbitrary numbers: who may write, and who is publishing right now. The
# other half of each key is the schema's, so that two indexes in one database have two writers.
_WRITING: Final = 0x50415243
_PUBLISHING: Final = 0x50415244

_NAME_BYTES: Final = 63
"""PostgreSQL cuts names off (NAMEDATALEN - 1)."""

_SESSION: Final = re.compile(r"parcelle (?P<doing>.+) (?P<host>\S*):(?P<process>\d+)")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Writer:
    """Who writes, as far as it is known."""

    doing: str | None = None
    """The command without ``parcelle``, such as "reindex"."""
    process: int | None = None
    """Its number on its machine."""
    host: str | None = None
    since: datetime | None = None
    """UTC."""

    @classmethod
    def current(cls, doing: str) -> "Writer":
        """This process."""
        return cls(doing, os.getpid(), socket.gethostname(), datetime.now(UTC))

    @classmethod
    def from_json(cls, content: bytes) -> "Writer":
        """Restore what ``to_json`` wrote; what does not read is not known."""
        try:
            found: Any = json.loads(content)
            if isinstance(found, int):
                # As versions before this one wrote it.
                return cls(process=found)
            return cls(
                doing=str(found["command"]),
                process=int(found["pid"]),
                host=str(found["host"]),
                since=datetime.fromisoformat(found["started_at"]),
            )
        except (ValueError, KeyError, TypeError):
            return cls()

    def to_json(self) -> bytes:
        """The content of the lock file."""
        return json.dumps(self.to_dict()).encode()

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        since = None if self.since is None else self.since.isoformat(timespec="seconds")
        return {
            "command": self.doing,
            "pid": self.process,
            "host": self.host,
            "started_at": since,
        }

    @property
    def session(self) -> str:
        """The name of its connection to PostgreSQL."""
        end = f":{self.process}"
        start = f"parcelle {self.doing} {self.host}"
        return start[: _NAME_BYTES - len(end)] + end

    def __str__(self) -> str:
        command = "Another command" if self.doing is None else f"parcelle {self.doing}"
        process = "" if self.process is None else f" (process {self.process}"
        if process:
            process += f" on {self.host})" if self.host else ")"
        since = "" if self.since is None else f", since {self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"{command}{process}{since}"


class Held:
    """The right to write, as long as ``only_writer`` is open."""

    def __init__(self, folder: "_FolderLock", session: "_SessionLock | None") -> None:
        self._folder = folder
        self._session = session

    def still_held(self, publishing: Connection | None = None) -> None:
        """Make sure that nobody else may write by now.

        A connection to PostgreSQL can die while its process goes on; another writer may begin
        then. Inside the transaction that publishes, this is certain until its commit: another
        writer waits for that before it begins.

        Args:
            publishing: A connection to the same database, inside the transaction that depends
                on it.

        Raises:
            ConflictError: If the lock is gone (``lock-lost``).
        """
        self._folder.require()
        if self._session is not None:
            self._session.require(publishing)


@contextmanager
def only_writer(settings: Settings, engine: Engine | None = None, *, doing: str) -> Iterator[Held]:
    """Hold the right to write to the data folder and the database.

    Both locks end with this process, however it ends: a killed reindex never blocks the next.
    Processes that it forks or starts do not inherit them.

    The lock of the folder is ``flock``. On network file systems that is what the mount makes of
    it: NFS and SMB on Linux take it to the server, so that it also keeps other machines out,
    unless they are mounted with ``local_lock=flock`` or ``nobrl``; then only the lock of
    PostgreSQL does. That one needs a session: a pooler such as PgBouncer must pool sessions, not
    transactions.

    Args:
        settings: Where the data folder is, which is made if need be.
        engine: The catalog, where there is one already.
        doing: The command, for whoever has to wait: "reindex".

    Yields:
        What tells, before something is published, whether the right still stands.

    Raises:
        ConflictError: If another process holds it (``reindex-running``); it is named.
        StorageError: If the folder cannot be written or locked (``write-failed``), or the
            database does not answer (``database-unreachable``).

    References:
        flock(2), "NFS details" and "CIFS details".
        https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
    """
    writer = Writer.current(doing)
    with ExitStack() as held:
        folder = _FolderLock(settings.data_dir, writer)
        held.callback(folder.release)
        session = None
        if engine is not None and engine.dialect.name == "postgresql":
            session = _SessionLock(engine, writer)
            held.callback(session.release)
        yield Held(folder, session)


def find_writer(settings: Settings, engine: Engine | None = None) -> Writer | None:
    """Who holds the right to write now; None where nobody does."""
    try:
        descriptor = os.open(settings.data_dir / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        pass
    else:
        try:
            # For a moment, which a writer that begins just now waits for.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Writer.from_json(_content(descriptor))
        finally:
            os.close(descriptor)
    if engine is None or engine.dialect.name != "postgresql":
        return None
    with engine.connect() as connection:
        return _session_writer(connection, _schema_key(connection))


def _running(where: object, writer: Writer) -> ConflictError:
    return ConflictError(
        f"{where} is being written already: {writer}; wait until it ends.",
        kind="reindex-running",
    )


def _lost(what: str) -> ConflictError:
    return ConflictError(
        f"{what}, so another command may be writing by now. Nothing was published; run it again.",
        kind="lock-lost",
    )


# Of the data folder -------------------------------------------------------------------------------


class _FolderLock:
    """The lock of a file that says who holds it."""

    def __init__(self, data_dir: Path, writer: Writer) -> None:
        self._path = data_dir / LOCK_FILE
        self._descriptor: int | None = None
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._take(data_dir)
            _locks.add(self)
            before = _content(self._descriptor)
            if before:
                _log.debug("%s: its last holder died (%s)", self._path, Writer.from_json(before))
            _replace_content(self._descriptor, writer.to_json())
        except OSError as error:
            self.release()
            raise StorageError(
                f"{self._path}: cannot be locked ({error.strerror or error}); PARCELLE_DATA_DIR "
                "has to name a folder that can be written, best on a local disk.",
                kind="write-failed",
            ) from error

    def _take(self, data_dir: Path) -> int:
        for attempt in range(_ATTEMPTS):
            if attempt:
                # Whoever only looks holds it for a moment; see ``find_writer``.
                time.sleep(_BETWEEN_ATTEMPTS_S)
            # Programs that are started do not inherit it (PEP 446); for forks see below.
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = Writer.from_json(_content(descriptor))
                os.close(descriptor)
            except OSError:
                os.close(descriptor)
                raise
            else:
                if self._is_that_file(descriptor):
                    return descriptor
                # Somebody removed it between the two calls.
                os.close(descriptor)
                holder = Writer()
        raise _running(data_dir, holder)

    def _is_that_file(self, descriptor: int) -> bool:
        """Whether the path still names the file that is locked."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def require(self) -> None:
        if self._descriptor is None or not self._is_that_file(self._descriptor):
            raise _lost(f"The lock file {self._path} was removed or replaced")

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        _locks.discard(self)
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)

    def forget(self) -> None:
        """Close the copy of a forked process: the lock lasts until the last copy is closed."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, 4096, 0)


def _replace_content(descriptor: int, content: bytes) -> None:
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))


# Of the database ----------------------------------------------------------------------------------


class _SessionLock:
    """An advisory lock of PostgreSQL, on a connection that does nothing else."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        try:
            self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except DBAPIError as error:
            raise unreachable(error) from error
        # Never back into the pool, where the lock would outlive its holder.
        self._connection.detach()
        # What SQLAlchemy finds broken, it drops without closing it.
        self._driver: Any = self._connection.connection.dbapi_connection
        self._inherited = self._broken = False
        _locks.add(self)
        try:
            self._take(engine, writer)
        except DBAPIError as error:
            self.release()
            raise unreachable(error) from error
        except BaseException:
            self.release()
            raise

    def _take(self, engine: Engine, writer: Writer) -> None:
        connection = self._connection
        self._key = _schema_key(connection)
        self._process = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        connection.execute(
            text(
                "SELECT set_config('application_name', :name, false),"
                # It is idle for as long as the work takes.
                " CASE WHEN current_setting('idle_session_timeout', true) IS NULL THEN NULL"
                " ELSE set_config('idle_session_timeout', '0', false) END"
            ),
            {"name": writer.session},
        )
        for attempt in range(_ATTEMPTS):
            if attempt:
                # A holder that was killed a moment ago is still leaving.
                time.sleep(_BETWEEN_ATTEMPTS_S)
            taken = connection.execute(
                text("SELECT pg_try_advisory_lock(:family, :key)"),
                {"family": _WRITING, "key": self._key},
            ).scalar_one()
            if taken:
                break
        else:
            other = _session_writer(connection, self._key)
            where = engine.url.render_as_string(hide_password=True)
            raise _running(f"The database {where}", other or Writer())
        # Whoever lost the right while publishing is through with it, or will see that it is lost.
        key = {"family": _PUBLISHING, "key": self._key}
        connection.execute(text("SELECT pg_advisory_lock(:family, :key)"), key)
        connection.execute(text("SELECT pg_advisory_unlock(:family, :key)"), key)

    def require(self, publishing: Connection | None) -> None:
        broken = "The connection that held the database's lock broke"
        if self._broken:
            # It could be connected again, without the lock.
            raise _lost(broken)
        try:
            self._connection.execute(text("SELECT 1")).scalar_one()
        except DBAPIError as error:
            self._broken = True
            raise _lost(broken) from error
        if publishing is None:
            return
        publishing.execute(
            text("SELECT pg_advisory_xact_lock(:family, :key)"),
            {"family": _PUBLISHING, "key": self._key},
        )
        if self._process not in _holders(publishing, self._key):
            raise _lost("The database ended the session that held its lock")

    def release(self) -> None:
        _locks.discard(self)
        if not self._inherited:
            # That also unlocks.
            with suppress(DBAPIError):
                self._connection.close()
            self._driver.close()

    def forget(self) -> None:
        """Let go of a forked process's copy of the socket.

        To close the connection would end the session, which is not this process's; to leave the
        socket open would keep the session after the death of the process whose it is.
        """
        self._inherited = True
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, self._driver.fileno(), inheritable=False)
        os.close(nowhere)


_locks: Final[set[_FolderLock | _SessionLock]] = set()
"""All that are held in this process."""


def _forget_locks() -> None:
    for lock in _locks:
        # Whatever is wrong with one, such as a connection that broke, the others are let go.
        with suppress(Exception):
            lock.forget()
    _locks.clear()


os.register_at_fork(after_in_child=_forget_locks)


def _schema_key(connection: Connection) -> int:
    """A signed number of 32 bits for the schema that the tables are in."""
    schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    unsigned = zlib.crc32(str(schema or "").encode())
    return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


_HOLDERS: Final = """
    FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = CAST(:family AS oid) AND objid = CAST(CAST(:unsigned AS bigint) AS oid)
"""


def _holders(connection: Connection, key: int) -> set[int]:
    """Sessions that hold the right to write: none or one."""
    found = connection.scalars(
        text(f"SELECT pid {_HOLDERS}"), {"family": _WRITING, "unsigned": key % (1 << 32)}
    )
    return set(found)


def _session_writer(connection: Connection, key: int) -> Writer | None:
    """Who holds the lock of the database."""
    holders = _holders(connection, key)
    if not holders:
        return None
    row = connection.execute(
        text("SELECT application_name, backend_start FROM pg_stat_activity WHERE pid = :pid"),
        {"pid": min(holders)},
    ).one_or_none()
    if row is None:
        return None
    name, since = row
    since = None if since is None else since.astimezone(UTC)
    match = _SESSION.fullmatch(name or "")
    if match is None:
        return Writer(since=since)
    return Writer(match["doing"], int(match["process"]), match["host"], since)
