"""Clear away what a process left that died while it published, pruned or rolled back.

The rows of the catalog decide. A folder that no row names was never published, or is pruned: it
goes. So after a commit whose outcome nobody learned, as when the connection broke just then, the
next writer finds out which of both it was.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from indexer.catalog.reading import generation_records, next_generation_id
from indexer.errors import StorageError
from indexer.generations.backends import FAISS, Backend
from indexer.generations.files import ASIDE, placed_by_restore

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovered:
    """What lay about, and what is missing."""

    discarded: tuple[str, ...] = ()
    """Names of folders that nobody points at: half-built, never published, or pruned."""
    missing: tuple[int, ...] = ()
    """Generations whose folder is gone, although there is a row; the next reindex, compaction or
    rebuild makes a new one where they answer."""
    strange: tuple[str, ...] = ()
    """Names of other folders there, which this database did not make; they stay."""


def leftovers(engine: Engine, folder: Path) -> Recovered:
    """What ``recover`` would find; a build that is under way looks the same, so take the lock.

    Args:
        engine: The catalog.
        folder: Where generations lie.

    Raises:
        StorageError: If the folder cannot be read (``write-failed``).
    """
    with engine.connect() as connection:
        rows = {record.number for record in generation_records(connection)}
        # Numbers are never given again, and a later one was not given here.
        last = next_generation_id(connection)
    discarded: list[str] = []
    strange: list[str] = []
    there: set[int] = set()
    placed = placed_by_restore(folder)
    for name in _names_in(folder):
        number = int(name) if name.isascii() and name.isdecimal() else None
        if number in rows and name == str(number):
            there.add(number)
        elif name.startswith(ASIDE) or (
            name == str(number) and (0 < (number or 0) <= last or number in placed)
        ):
            discarded.append(name)
        else:
            strange.append(name)
    return Recovered(tuple(discarded), tuple(sorted(rows - there)), tuple(strange))


def recover(engine: Engine, folder: Path, backend: Backend = FAISS) -> Recovered:
    """Remove what is left of publications that did not take place; tell what is missing.

    Args:
        engine: The catalog; the caller is its only writer (``indexer.lock``).
        folder: Where generations lie; it need not be there.
        backend: May hold vectors of such generations elsewhere, which go as well.

    Returns:
        What was removed, and what is missing.

    Raises:
        StorageError: If something cannot be read or removed (``write-failed``).
    """
    found = leftovers(engine, folder)
    # Last of all that by which the others are known.
    for name in reversed(found.discarded):
        try:
            shutil.rmtree(folder / name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _in_the_way(error.filename or folder / name, error) from error
        _log.info("%s: was never published, or is pruned; removed", folder / name)
    backend.tidy(engine, folder)
    for number in found.missing:
        _log.info("%s: is missing, although the database names it", folder / str(number))
    return found


def _names_in(folder: Path) -> list[str]:
    """Folders in a folder; a backend may keep a file of its own beside them."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _in_the_way(folder, error) from error


def _in_the_way(path: object, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot be cleared away ({error.strerror or error}); check the folder and its "
        "permissions, or remove it by hand.",
        kind="write-failed",
    )
