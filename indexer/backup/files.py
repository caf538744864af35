"""Files on their way into a backup, and out of it."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from indexer.errors import StorageError

_BLOCK: Final = 1 << 20

# What the file system itself takes for names, and for a few files that grow meanwhile.
_SPARE: Final = 1 << 24

UNIT: Final = "MiB"
"""Of the steps that copying reports."""


def steps(sizes: Iterable[int]) -> int:
    """Steps that copying files of so many bytes takes."""
    return sum(-(-size // _BLOCK) for size in sizes)


def copy(source: Path, target: Path, advance: Callable[[int], None]) -> dict[str, Any]:
    """Copy a file, which is on the disk then.

    Args:
        source: Read once, from its beginning to its end.
        target: Must not be there.
        advance: Is told of each step.

    Returns:
        ``bytes`` and ``sha256`` of what was copied.
    """
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reading, target.open("xb") as writing:
        while block := reading.read(_BLOCK):
            writing.write(block)
            digest.update(block)
            size += len(block)
            advance(1)
        writing.flush()
        os.fsync(writing.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def require_space(folder: Path, wanted: int, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: On the disk; it need not be there yet.
        wanted: Bytes.
        what: What takes them, with a capital.

    Raises:
        StorageError: ``disk-full``.
    """
    there = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    free = shutil.disk_usage(there).free
    if free < wanted + _SPARE:
        raise StorageError(
            f"{there}: {what} takes about {_shown(wanted)}, but only {_shown(free)} are free; make "
            "room, or name a folder on another disk.",
            kind="disk-full",
        )


def not_written(error: OSError, where: Path, consequence: str) -> StorageError:
    """The error of a file that could not be written or read, or of a disk that filled."""
    return StorageError(
        f"{error.filename or where}: {error.strerror or error}. {consequence}",
        kind="disk-full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "write-failed",
    )


def _shown(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
