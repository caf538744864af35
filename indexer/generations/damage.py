"""An index that is damaged where opening did not look, and what answers until it is built anew."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from indexer.catalog.changes import snapshot
from indexer.catalog.reading import answering, generation_records
from indexer.errors import StorageError
from indexer.generations.backends import (
    FAISS,
    Backend,
    check_generation,
    raise_if_away,
    require_own,
)
from indexer.generations.compaction import MOST_CHANGES, searched_generations, standing_of
from indexer.generations.files import CHECKED_BYTES
from indexer.generations.history import Guard, roll_back
from indexer.generations.manifest import Manifest

_MOST_BESIDE = 5 * MOST_CHANGES
"""Rows beside an earlier index, which take 200 MB and some ten milliseconds of every search."""


@dataclass(frozen=True)
class Damage:
    """A generation that answers although it is not what was published."""

    space_id: int
    generation: int
    message: str
    """Names the file and what is wrong with it."""


def has_unread_files(manifest: Manifest) -> bool:
    """Whether opening compares only the sizes of some files: of those of more than 256 MiB."""
    return any(int(one["bytes"]) > CHECKED_BYTES for one in manifest.files.values())


def find_damage(engine: Engine, folder: Path, backend: Backend = FAISS) -> list[Damage]:
    """Read all files, and all vectors, of the generations that answer.

    Args:
        engine: The catalog.
        folder: Where generations lie.
        backend: Holds the vectors.

    Raises:
        StorageError: If another backend holds them (``backend-differs``), or it does not answer
            (``milvus-unreachable``).
    """
    with snapshot(engine) as connection:
        answer = searched_generations(connection)
    found = []
    for space_id, manifest in answer:
        require_own(backend, manifest)
        try:
            check_generation(folder, manifest, backend, thorough=True)
        except StorageError as error:
            raise_if_away(error)
            found.append(Damage(space_id, manifest.generation, error.message))
    return found


def withdraw(
    engine: Engine,
    folder: Path,
    damage: Damage,
    *,
    backend: Backend = FAISS,
    guard: Guard = lambda _: None,
) -> int | None:
    """Have the generation before answer instead of a damaged one, if there is a sound one.

    It answers with all that was committed since. One that is far behind would make every search
    slow, and one of collections that have moved to another space since would take them back, so
    that it is better to go on with damage to some vector until a new index is built.

    Args:
        engine: The catalog; the caller is its only writer, and builds the index anew.
        folder: Where generations lie.
        damage: What was found.
        backend: Holds the vectors.
        guard: Is called inside the transaction.

    Returns:
        The generation that answers now; None if that is the same as before.
    """
    try:
        earlier = _earlier(engine, folder, damage)
        if earlier is not None:
            roll_back(engine, folder, earlier, backend=backend, guard=guard)
    except StorageError:
        # It is damaged as well, or cannot catch up.
        return None
    return earlier


def _earlier(engine: Engine, folder: Path, damage: Damage) -> int | None:
    """The generation before a damaged one, unless it is far behind."""
    with snapshot(engine) as connection:
        now = {one.space_id: one for one in answering(connection)}.get(damage.space_id)
        if now is None or now.generation != damage.generation:
            return None
        earlier = [
            one
            for one in generation_records(connection)
            if one.space_id == damage.space_id and one.number < damage.generation
        ]
        # Collections that are searched in another space by now must not come back with it.
        if not earlier or not set(earlier[0].manifest.collections) <= now.collections:
            return None
        since = standing_of(connection, folder, damage.space_id, earlier[0].manifest)
    return earlier[0].number if since.changed <= _MOST_BESIDE else None
