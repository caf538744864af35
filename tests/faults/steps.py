"""The steps of a command that change disk or database, counted in the process that takes them.

A step is a call that makes, renames, removes, cuts or opens for writing a file of the data folder,
that flushes one, takes the lock, or a statement that changes the database; a commit counts before
it and after it. What happens between two steps changes nothing that outlives the process but the
content of a file that nobody reads yet.
"""

import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

Step = Callable[[int, str], None]
"""Is told the number of a step that is about to be taken, from 1, and its name."""

COMMITTED = "committed"
"""Name of the step after a commit."""

COMMITTING = "commit"
"""Name of the step before one."""

_ON_PATHS = {
    "os.rename",
    "os.link",
    "os.symlink",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.chmod",
}

_OPENED_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT

_CHANGES = {"INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "REPLACE", "VACUUM", "BEGIN"}


def watch(folder: Path, step: Step) -> None:
    """Report the steps of this process from now on; there is no way back.

    Args:
        folder: Where the files lie whose changes count.
        step: Is called before each step, in the thread that takes it.
    """
    counter = _Counter(os.fspath(folder.resolve()), step)
    sys.addaudithook(counter.hear)
    for name in ("fsync", "fdatasync", "posix_fallocate"):
        setattr(os, name, counter.counted(name, getattr(os, name)))
    counter.count_statements()
    counter.count_commits()


class _Counter:
    def __init__(self, folder: str, step: Step) -> None:
        self._folder = folder
        self._step = step
        self._count = 0
        self._counting = threading.RLock()
        self._deaf = False

    def take(self, name: str) -> None:
        """Count one step; what is done because of it is none."""
        with self._counting:
            if self._deaf:
                return
            self._count += 1
            self._deaf = True
            try:
                self._step(self._count, name)
            finally:
                self._deaf = False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook."""
        if event in _ON_PATHS:
            if self._is_ours(arguments[0]) or -1 not in arguments[1:]:
                # Relative to a folder that is open, as in shutil.rmtree.
                self.take(f"{event} {os.path.basename(str(arguments[0]))}")
        elif event == "open":
            path, _, flags = arguments
            if flags & _OPENED_TO_WRITE and self._is_ours(path):
                self.take(f"open {os.path.basename(str(path))}")
        elif event == "fcntl.flock":
            self.take("flock")

    def _is_ours(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self._folder)

    def _hear_statement(self, statement: str) -> None:
        word = statement.lstrip().split(None, 1)[0].upper() if statement.strip() else ""
        if word in _CHANGES:
            self.take(" ".join(statement.split()[:3]))

    def counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the operating system that is a step."""

        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as the real one
            self.take(name)
            return real(*arguments, **named)

        return call

    def count_statements(self) -> None:
        """Those of SQLite's connections that change something."""
        real = sqlite3.connect

        def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:  # noqa: ANN401
            connection: sqlite3.Connection = real(*arguments, **named)
            connection.set_trace_callback(self._hear_statement)
            return connection

        sqlite3.connect = sqlite3.dbapi2.connect = connect  # type: ignore[assignment]

    def count_commits(self) -> None:
        """Before and after, whatever the database is."""
        real = DefaultDialect.do_commit

        def do_commit(dialect: DefaultDialect, connection: Any) -> None:  # noqa: ANN401
            self.take(COMMITTING)
            real(dialect, connection)  # type: ignore[no-untyped-call]
            self.take(COMMITTED)

        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]
