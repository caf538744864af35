"""The files of generations: made durable, compared with what was published, and removed.

What makes a file durable is ``fsync`` of the file and then of the folder that names it. When it
fails, the pages that could not be written may be gone although a second call succeeds, so nobody
calls it twice: whoever meets the failure gives the whole folder up, and the next attempt writes
other files.

References:
    fsync(2).
    Rebello et al. (2020), Can Applications Recover from fsync Failures?, USENIX ATC.
    https://wiki.postgresql.org/wiki/Fsync_Errors
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Final

from indexer.errors import StorageError
from indexer.generations.manifest import MANIFEST_FILE, Manifest

ASIDE: Final = ".building-"
"""Begins the name of a folder that is not published yet."""

RESTORING: Final = f"{ASIDE}restore"
"""The folder of a restore that is under way."""

PLACED_FILE: Final = "placed.json"
"""In it: which generations were put in their places before the catalog knew them."""

CHECKED_BYTES: Final = 256 << 20
"""Files of at most so many bytes are read whole whenever a generation is opened."""

_log = logging.getLogger(__name__)


# Writing -----------------------------------------------------------------------------------------


def make_folder(folder: Path) -> None:
    """Make a folder that outlasts a loss of power, with all above it that are missing."""
    missing = takewhile(lambda one: not one.is_dir(), (folder, *folder.parents))
    for one in reversed(list(missing)):
        one.mkdir(exist_ok=True)
        flush_folder(one.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write a small file, which is on the disk then."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_file(path: Path) -> None:
    """Have a file on the disk, whoever wrote it: FAISS and NumPy never do."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def not_written(path: object, why: str) -> StorageError:
    """The error of a publication that did not take place."""
    return StorageError(
        f"{path}: cannot be written ({why}). Nothing was published; the former generation goes on.",
        kind="write-failed",
    )


# Reading -----------------------------------------------------------------------------------------


def check_files(
    folder: Path, manifest: Manifest, *, at_most: int | None = None, beyond: int = -1
) -> None:
    """Compare the files of a generation with what was published.

    Args:
        folder: Where generations lie.
        manifest: Of the generation.
        at_most: Compare only sizes of files of more bytes; None compares all digests.
        beyond: Compare only sizes of files of at most so many bytes.

    Raises:
        StorageError: If they differ (``generation-corrupt``).
    """
    place = folder / str(manifest.generation)
    if not manifest.files:
        raise corrupt(place, manifest, "was written by an earlier version of Parcelle")
    for name, known in manifest.files.items():
        path = place / name
        try:
            size = path.stat().st_size
            if size != known["bytes"]:
                raise corrupt(
                    path, manifest, f"has {size} bytes, but {known['bytes']} were published"
                )
            if size <= beyond or (at_most is not None and size > at_most):
                continue
            if (digest := digest_of(path)) != known["sha256"]:
                raise corrupt(
                    path,
                    manifest,
                    f"is damaged: SHA-256 is {digest[:12]}…, {known['sha256'][:12]}… was published",
                )
        except OSError as error:
            raise corrupt(path, manifest, f"cannot be read ({error.strerror or error})") from error
    _check_description(place / MANIFEST_FILE, manifest)


def _check_description(path: Path, manifest: Manifest) -> None:
    """Compare the manifest that lies with the files, for people, with the one in SQL."""
    try:
        written = Manifest.from_dict(json.loads(path.read_bytes()))
    except OSError as error:
        raise corrupt(path, manifest, f"cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise corrupt(path, manifest, "is damaged: it is no manifest") from error
    if written != manifest:
        raise corrupt(path, manifest, "is damaged: it describes another generation")


def corrupt(path: Path, manifest: Manifest, what: str) -> StorageError:
    """The error of a generation that is not what was published."""
    return StorageError(
        f"{path}: of generation {manifest.generation}, it {what}. Rebuild it from the database "
        "with: parcelle generations rebuild",
        kind="generation-corrupt",
    )


def placed_by_restore(folder: Path) -> set[int]:
    """Generations that a restore put in their places, which has not told that it is done."""
    try:
        return set(json.loads((folder / RESTORING / PLACED_FILE).read_bytes()))
    except (OSError, TypeError, ValueError):
        return set()


# Removing ----------------------------------------------------------------------------------------


def remove_generations(folder: Path, numbers: Iterable[int]) -> None:
    """Remove the files of generations that no row names any more.

    Whoever has them open goes on reading. What cannot be removed is left to ``recovery``: nothing
    depends on it.
    """
    for number in numbers:
        try:
            shutil.rmtree(folder / str(number))
        except FileNotFoundError:
            continue
        except OSError as error:
            _log.warning("%s: cannot be removed (%s); the next writer will.", folder, error)


def give_up(aside: Path) -> None:
    """Remove what was written of a generation that will not be published."""
    shutil.rmtree(aside, ignore_errors=True)
