"""One writer at a time: a lock on the data folder that dies with its holder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.errors import ConflictError

LOCK_FILE = "reindex.lock"


@contextmanager
def only_writer(data_dir: Path) -> Iterator[None]:
    """Hold the data folder's write lock.

    The kernel releases the lock when the process ends, however it ends, so that a killed reindex
    never blocks the next.

    Raises:
        ConflictError: If another process holds it (``reindex-running``).
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / LOCK_FILE
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ConflictError(
                f"Parcelle writes to {data_dir} already (process {holder}); wait until it ends.",
                kind="reindex-running",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
