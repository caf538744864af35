"""The generations before the ones that answer: which are kept, and how one of them answers again.

A generation never changes, but what is committed since it was built is searched beside it
(``indexer.delta``). So an older index is not an older state of the data: with all that the change
log names since, it gives the same answers as the newer one, from other files. That is what it is
kept for, with its part of the log: if the newest index is damaged, or worse.

Kept are, for every space that is searched, the generation that answers and those that answered
before it, as many as ``KEEP`` says: of the same space, or of another that the same collections
were searched in. Generations that were rolled back from go when the next one is published.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine

from indexer.catalog.changes import prune_changes, snapshot, tells_since
from indexer.catalog.reading import (
    Answering,
    GenerationRecord,
    answering,
    generation_records,
    get_generation,
)
from indexer.catalog.writing import delete_generations, switch_generation
from indexer.errors import InvalidInputError, NotFoundError, StorageError
from indexer.generations.backends import FAISS, Backend, check_generation
from indexer.generations.files import remove_generations
from indexer.generations.manifest import Manifest

KEEP = 2
"""Generations of each line: the one that answers, and the one before."""

Guard = Callable[[Connection], None]
"""Makes sure, inside the transaction, that nobody else may write; see ``lock.Held.still_held``."""


@dataclass(frozen=True)
class RolledBack:
    """What answers again."""

    space_id: int
    manifest: Manifest
    former: tuple[int, ...]
    """Generations that answered until now."""
    moved: tuple[str, ...]
    """Collections that were searched in another space until now."""


def _in_line(one: Answering, records: Iterable[GenerationRecord]) -> list[GenerationRecord]:
    """What may answer for the collections of a space, latest first."""
    return [
        record
        for record in records
        # Those of earlier versions are refused when they are opened.
        if record.manifest.files
        and (record.space_id == one.space_id or one.collections & set(record.manifest.collections))
    ]


def surplus(
    records: Collection[GenerationRecord],
    now: Iterable[Answering],
    before: Iterable[Answering],
    keep: int,
    unusable: Collection[int] = (),
) -> list[GenerationRecord]:
    """Generations that need not be kept, latest first.

    Args:
        records: All that there are, latest first.
        now: What answers.
        before: What answered before the last of them was published; the same as ``now`` where
            none was.
        keep: How many of each line are kept, at least 1.
        unusable: Numbers of those that cannot answer, since they are damaged.
    """
    before = list(before)
    kept = {max((record.number for record in records), default=0)}
    for one in now:
        # What was rolled back from answered neither before nor does it now.
        until = max(
            (
                former.generation
                for former in before
                if former.space_id == one.space_id or former.collections & one.collections
            ),
            default=0,
        )
        line = [r.number for r in _in_line(one, records) if r.number not in unusable]
        earlier = [number for number in line if number <= until and number != one.generation]
        kept |= {one.generation, *earlier[: keep - 1]}
        kept |= {number for number in line if number > one.generation}
    return [record for record in records if record.number not in kept]


def forget(
    connection: Connection,
    keep: int = KEEP,
    before: Iterable[Answering] | None = None,
    unusable: Collection[int] = (),
) -> list[int]:
    """Delete the rows of generations that are not kept, and changes that only they lacked.

    Args:
        connection: Inside a transaction that the caller commits; it removes the files then.
        keep: How many of each line are kept.
        before: What answered before this transaction; None where it switched nothing.
        unusable: Numbers of those that are damaged; only where they answer are they kept.

    Returns:
        Their numbers, latest first.
    """
    records, now = generation_records(connection), answering(connection)
    before = now if before is None else before
    gone = [one.number for one in surplus(records, now, before, keep, unusable)]
    delete_generations(connection, gone)
    held = [one.manifest.last_change for one in records if one.number not in gone]
    prune_changes(connection, min(held, default=0))
    return gone


def prune(
    engine: Engine,
    folder: Path,
    keep: int = KEEP,
    *,
    dry_run: bool = False,
    backend: Backend = FAISS,
    guard: Guard = lambda _: None,
) -> list[Manifest]:
    """Forget generations that are not kept, with their files.

    Args:
        engine: The catalog; the caller is its only writer.
        folder: Where generations lie.
        keep: How many of each line are kept: 1 leaves those that answer.
        dry_run: Only say which.
        backend: Holds the vectors.
        guard: Is called inside the transaction.

    Returns:
        What was forgotten, or would be, latest first.
    """
    with snapshot(engine) as connection:
        records, now = generation_records(connection), answering(connection)
    gone = surplus(records, now, now, keep)
    if not dry_run:
        with engine.begin() as connection:
            guard(connection)
            forget(connection, keep)
        remove_generations(folder, [record.number for record in gone])
        backend.tidy(engine, folder)
    return [record.manifest for record in gone]


def discard(
    engine: Engine,
    folder: Path,
    damaged: Collection[int],
    *,
    backend: Backend = FAISS,
    guard: Guard = lambda _: None,
) -> None:
    """Forget damaged generations, unless they answer still.

    Args:
        engine: The catalog; the caller is its only writer.
        folder: Where generations lie.
        damaged: Their numbers.
        backend: Holds the vectors.
        guard: Is called inside the transaction.
    """
    if damaged:
        with engine.begin() as connection:
            guard(connection)
            gone = forget(connection, unusable=damaged)
        remove_generations(folder, gone)
        backend.tidy(engine, folder)


def roll_back(
    engine: Engine,
    folder: Path,
    generation: int | None = None,
    *,
    backend: Backend = FAISS,
    guard: Guard = lambda _: None,
) -> RolledBack:
    """Have an earlier generation answer again, with all that was committed since.

    The index is rolled back, never the data. Collections that were searched in the generation's
    space when it was published are searched there again; what was embedded since in another space
    only is not found there until they are reindexed.

    Args:
        engine: The catalog; the caller is its only writer.
        folder: Where generations lie.
        generation: Its number: any that is kept. None undoes the last publication: the latest
            generation gives way to the one that answered for its collections before.
        backend: Holds the vectors.
        guard: Is called inside the transaction.

    Raises:
        NotFoundError: If it is not kept, or none is (``generation-not-found``).
        InvalidInputError: If it answers already, or nobody knows for whom (``invalid-option``).
        StorageError: If it is not what was published (``generation-corrupt``), the change log does
            not reach back to it (``changes-forgotten``), or another backend holds its vectors
            (``backend-differs``), or does not answer (``milvus-unreachable``).
    """
    with snapshot(engine) as connection:
        now = answering(connection)
        target, collections = _target(connection, now, generation)
        _require_log(connection, target)
    check_generation(folder, target.manifest, backend)
    with engine.begin() as connection:
        guard(connection)
        moved = switch_generation(connection, target.number, target.space_id, collections)
    backend.tidy(engine, folder)
    former = [
        one.generation
        for one in now
        if one.generation != target.number
        and (one.space_id == target.space_id or one.collections & set(moved))
    ]
    return RolledBack(target.space_id, target.manifest, tuple(former), tuple(moved))


def _target(
    connection: Connection, now: list[Answering], generation: int | None
) -> tuple[GenerationRecord, list[str]]:
    """The generation to go back to, and the collections that go along."""
    records = generation_records(connection)
    if generation is None:
        latest = max(now, key=lambda one: one.generation, default=None)
        if latest is None:
            raise NotFoundError(
                "No generation is published yet; run parcelle reindex.",
                kind="generation-not-found",
            )
        line = [one for one in _in_line(latest, records) if one.number < latest.generation]
        if not line:
            raise NotFoundError(
                f"No generation before {latest.generation} is kept; parcelle generations rebuild "
                "makes a new one from the database.",
                kind="generation-not-found",
            )
        return line[0], sorted(latest.collections & set(line[0].manifest.collections))
    target = next((one for one in records if one.number == generation), None)
    if target is None:
        get_generation(connection, generation)
        raise TypeError("a generation came while a snapshot was read")
    return target, _collections_of(target, now)


def _collections_of(target: GenerationRecord, now: list[Answering]) -> list[str]:
    collections = target.manifest.collections
    at_home = {one.space_id: one for one in now}.get(target.space_id)
    if at_home is None and not collections:
        raise InvalidInputError(
            f"Generation {target.number}: nobody knows which collections were searched in it, as "
            "an earlier version of Parcelle published it; parcelle reindex publishes a new one.",
            kind="invalid-option",
        )
    if at_home is not None and at_home.generation == target.number:
        if set(collections) <= at_home.collections:
            raise InvalidInputError(
                f"Generation {target.number} answers already; parcelle generations list shows "
                "which others are kept.",
                kind="invalid-option",
            )
    return collections


def _require_log(connection: Connection, target: GenerationRecord) -> None:
    if not tells_since(connection, target.manifest.last_change):
        raise StorageError(
            f"Generation {target.number}: the database no longer knows all that was written since "
            "it was built, so its answers would be of the past. Make a new one with: parcelle "
            "generations rebuild",
            kind="changes-forgotten",
        )
