"""Build a generation aside, verify it, publish it by switching one pointer.

The protocol, in this order; whatever ends the process in between, exactly the former generation or
the new one answers, with everything that was committed:

1. *Aside.* All files are written into a new folder, ``.building-NUMBER``, that nobody opens. The
   folders above it are on the disk before it is made.
2. *Durable.* Every file is flushed to the disk (``fsync``), whoever wrote it: FAISS and NumPy never
   do. Then its size and SHA-256 go into the manifest, which is written and flushed like the rest;
   index and columns are opened as a reader would; and the folder itself is flushed.
3. *Renamed* to its number. The folder that names it is flushed.
4. *Committed.* One SQL transaction makes sure that the right to write still stands, inserts the
   manifest, switches the space's pointer, points the collection at the space, deletes parcels that
   are retired, vectors that are superseded and generations that are not kept, and prunes the change
   log up to the oldest that is.
5. *Cleaned up.* Folders of generations that are not kept are removed. Nothing depends on it.

Where a Milvus server holds the vectors, step 1 fills a collection of the generation's own, which
step 2 reads back, and step 5 drops those of generations that are not kept (``milvus.backend``).

An error in steps 1 to 3 removes what was written and publishes nothing; no file is flushed a second
time after a failure (``generations.files`` says why). An error in step 4 removes nothing, because
the transaction may have been committed although nobody was told: ``generations.recovery`` asks the
database, at the start of every writer and service, and removes what no row names. So does it with
what a process left that was killed in steps 1 to 5. Numbers are given once.
"""

import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine

from indexer.catalog.changes import last_change, snapshot
from indexer.catalog.reading import (
    SpaceRecord,
    answering,
    collections_of_space,
    current_extent,
    embeddings_of_parcels,
    generation_records,
    get_generation,
    get_space,
    kept_embeddings,
    next_generation_id,
    searched_spaces,
    vector_blocks,
)
from indexer.catalog.writing import delete_parcels, publish_generation
from indexer.columns import Columns
from indexer.errors import StorageError
from indexer.generations.backends import (
    FAISS,
    Backend,
    Note,
    SearchableIndex,
    check_generation,
    raise_if_away,
    require_own,
)
from indexer.generations.files import (
    ASIDE,
    CHECKED_BYTES,
    check_files,
    corrupt,
    digest_of,
    flush_file,
    flush_folder,
    give_up,
    make_folder,
    not_written,
    remove_generations,
    write_durably,
)
from indexer.generations.history import Guard, discard, forget
from indexer.generations.manifest import MANIFEST_FILE, Manifest
from indexer.recall import projection_recall
from indexer.vector_index.effort import DEFAULT_RECALL

IntArray = npt.NDArray[np.int64]

_SPOOL = "spool"

_SPOOLED_BYTES = 1 << 30
"""Vectors of more bytes wait in a file until they are sorted."""

_UNREADABLE = (EOFError, LookupError, RuntimeError, TypeError, ValueError)
"""What FAISS, NumPy and JSON raise for a file that is not what it should be."""


def is_current(engine: Engine, folder: Path, space: SpaceRecord, backend: Backend = FAISS) -> bool:
    """Whether the space's published generation, undamaged, holds exactly the catalog's vectors.

    One that another backend holds does not count.
    """
    if space.current_generation_id is None:
        return False
    with snapshot(engine) as connection:
        manifest = Manifest.from_dict(get_generation(connection, space.current_generation_id))
        extent = current_extent(connection, space.id)
        # Without a log, as before there was one, only the rows tell.
        unchanged = 0 < last_change(connection) == manifest.last_change
    same = unchanged or extent == (manifest.rows, manifest.last_id)
    return same and _is_intact(folder, manifest, backend)


def _is_intact(
    folder: Path, manifest: Manifest, backend: Backend, at_most: int | None = None
) -> bool:
    try:
        check_generation(folder, manifest, backend, at_most=at_most)
    except StorageError as error:
        raise_if_away(error)
        return False
    return True


def _is_damaged(
    folder: Path, manifest: Manifest, backend: Backend, at_most: int | None = None
) -> bool:
    """Whether it is not what was published; nobody can tell of one of another backend."""
    return manifest.backend == backend.name and not _is_intact(folder, manifest, backend, at_most)


@dataclass(frozen=True)
class Additions:
    """What a publication brings along besides the vectors."""

    agreement: dict[str, Any] | None = None
    """How well the space's precision agrees with fp32; None keeps what was measured before."""
    retired: Sequence[int] = ()
    """Rows of parcels that go with the former generation."""


def build_generation(
    engine: Engine,
    folder: Path,
    space_id: int,
    collection_id: int | None,
    additions: Additions | None = None,
    *,
    backend: Backend = FAISS,
    note: Note = lambda _: None,
    guard: Guard = lambda _: None,
) -> Manifest:
    """Build the index of all current vectors of a space and publish it.

    Args:
        engine: The catalog; the caller is its only writer (``indexer.lock``).
        folder: Where generations lie, one folder each.
        space_id: A space whose projection is frozen and that has at least one vector.
        collection_id: A collection that is to be searched in this space from now on.
        additions: What else is published; parcels are retired in the same transaction.
        backend: Holds the vectors.
        note: Is told of each step.
        guard: Is called inside the publishing transaction, as ``lock.Held.still_held``.

    Raises:
        StorageError: If it cannot be written, or does not read back as it was
            (``write-failed``), or the backend does not answer (``milvus-unreachable``).
    """
    additions = additions or Additions()
    with engine.connect() as connection:
        space = get_space(connection, space_id)
        generation_id = next_generation_id(connection)
        records = generation_records(connection)
    if space.projection is None or space.digest is None:
        raise TypeError(f"space {space_id} has no projection yet")
    fill = partial(_fill, engine, generation_id, space, collection_id, additions, backend, note)
    unusable = [
        record.number
        for record in records
        if record.space_id == space_id
        and _is_damaged(folder, record.manifest, backend, CHECKED_BYTES)
    ]
    manifest = _written(folder, generation_id, fill)
    with engine.begin() as connection:
        guard(connection)
        before = answering(connection)
        publish_generation(
            connection,
            generation_id=generation_id,
            space_id=space_id,
            collection_id=collection_id,
            manifest=manifest.to_dict(),
        )
        delete_parcels(connection, additions.retired)
        pruned = forget(connection, before=before, unusable=unusable)
    remove_generations(folder, pruned)
    backend.tidy(engine, folder)
    return manifest


def _written(folder: Path, generation_id: int, fill: Callable[[Path], Manifest]) -> Manifest:
    """All files of a generation in their place and on the disk, or none of them."""
    aside, final = folder / f"{ASIDE}{generation_id}", folder / str(generation_id)
    try:
        _make_room(folder, aside, final)
        manifest = fill(aside)
        _move(aside, final)
    except (Exception, KeyboardInterrupt) as error:
        for unpublished in (aside, final):
            give_up(unpublished)
        if isinstance(error, OSError):
            why = error.strerror or str(error)
            raise not_written(error.filename or aside, why) from error
        raise
    return manifest


def _fill(
    engine: Engine,
    generation_id: int,
    space: SpaceRecord,
    collection_id: int | None,
    additions: Additions,
    backend: Backend,
    note: Note,
    aside: Path,
) -> Manifest:
    """Write all files of a generation into a folder of its own, and flush them to the disk."""
    if space.projection is None or space.digest is None:
        raise TypeError(f"space {space.id} has no projection yet")
    note("reading vectors")
    with snapshot(engine) as connection:
        until = last_change(connection)
        collections = collections_of_space(connection, space.id, collection_id)
        ids, vectors = _vectors(connection, space.id, additions.retired, aside)
        _, embeddings = kept_embeddings(connection, space.id)
    index, order, queries = backend.build(aside, generation_id, vectors, note)
    effort = index.efforts[DEFAULT_RECALL]
    (aside / _SPOOL).unlink(missing_ok=True)
    note("reading columns")
    with snapshot(engine) as connection:
        Columns.read(connection, ids[order]).write(aside)
    kept_neighbors = None
    if len(embeddings) > 1:
        kept_neighbors = projection_recall(
            space.projection.center(embeddings), space.projection.apply(embeddings)
        )
    note("flushing")
    manifest = Manifest(
        generation=generation_id,
        space_digest=space.digest,
        recipe=space.recipe,
        projection=space.projection.kind,
        rows=len(ids),
        last_id=int(ids.max()),
        last_change=until,
        dimensions=index.dimensions,
        index_kind=index.kind,
        nlist=index.nlist,
        nprobe=effort.nprobe,
        recall_at_10=effort.recall_at_10,
        recall_queries=queries,
        efforts={str(recall): one.to_dict() for recall, one in index.efforts.items()},
        imbalance=index.imbalance,
        projection_recall_at_10=kept_neighbors,
        projection_rows=len(embeddings),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        precision_agreement=additions.agreement or _former_agreement(engine, space),
        versions={name: importlib.metadata.version(name) for name in ("parcelle", backend.library)},
        files={path.name: _flushed(path) for path in sorted(aside.iterdir())},
        collections=collections,
        backend=backend.name,
    )
    content = json.dumps(manifest.to_dict(), indent=2) + "\n"
    write_durably(aside / MANIFEST_FILE, content.encode())
    _check_written(aside, manifest, backend)
    return manifest


def _check_written(aside: Path, manifest: Manifest, backend: Backend) -> None:
    """Look before anybody trusts it: a full disk can leave a short file without any error."""
    try:
        rows = {backend.open(aside).rows, Columns.open(aside).rows}
    except (*_UNREADABLE, StorageError) as error:
        if isinstance(error, StorageError):
            raise_if_away(error)
        raise not_written(aside, "what was written does not read back as it was") from error
    if rows != {manifest.rows}:
        raise not_written(aside, "what was written reads back differently")


def _vectors(
    connection: Connection, space_id: int, retired: Sequence[int], aside: Path
) -> tuple[IntArray, Any]:
    """Ids and vectors of the next generation, the vectors in a file where they are many."""
    count, _ = current_extent(connection, space_id)
    gone = embeddings_of_parcels(connection, space_id, retired) if retired else None
    ids = np.empty(count, np.int64)
    vectors: Any = None
    n = 0
    with closing(vector_blocks(connection, space_id)) as blocks:
        for some, block in blocks:
            if vectors is None:
                size = (count, block.shape[1])
                if count * block.shape[1] * 4 <= _SPOOLED_BYTES:
                    vectors = np.empty(size, np.float32)
                else:
                    path = aside / _SPOOL
                    _reserve(path, count * block.shape[1] * 2)
                    vectors = np.memmap(path, np.float16, "r+", shape=size)
            if gone is not None:
                stays = ~np.isin(some, gone)
                some, block = some[stays], block[stays]
            ids[n : n + len(some)], vectors[n : n + len(some)] = some, block
            n += len(some)
    if n == 0:
        raise TypeError(f"space {space_id} has no vector to be published")
    return ids[:n], vectors[:n]


def _reserve(path: Path, size: int) -> None:
    """Make a file of its full size, so that a full disk is met here and not while it is mapped."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def _former_agreement(engine: Engine, space: SpaceRecord) -> dict[str, Any] | None:
    if space.current_generation_id is None:
        return None
    with engine.connect() as connection:
        manifest = get_generation(connection, space.current_generation_id)
    return Manifest.from_dict(manifest).precision_agreement


def rebuild(
    engine: Engine,
    folder: Path,
    *,
    backend: Backend = FAISS,
    note: Note = lambda _: None,
    guard: Guard = lambda _: None,
) -> list[Manifest]:
    """Build and publish the index of every space that is searched, from the catalog alone.

    Those that were damaged are not kept.

    Args:
        engine: The catalog; the caller is its only writer.
        folder: Where generations lie.
        backend: Holds the vectors from now on, whichever did.
        note: Is told of each step.
        guard: As ``build_generation`` takes it.
    """
    with engine.connect() as connection:
        spaces = searched_spaces(connection)
        records = generation_records(connection)
    damaged = [one.number for one in records if _is_damaged(folder, one.manifest, backend)]
    build = partial(build_generation, backend=backend, note=note, guard=guard)
    published = [build(engine, folder, space_id, None) for space_id in spaces]
    discard(engine, folder, damaged, backend=backend, guard=guard)
    return published


def open_generation(
    folder: Path, manifest: Manifest, backend: Backend = FAISS
) -> tuple[SearchableIndex, Columns]:
    """Map a published index and its columns, refusing them if they are not what was published.

    Files of up to 256 MiB are read and compared with their digests; of larger ones the size is
    compared, which leaves opening a matter of milliseconds. ``check_files`` reads everything.

    Raises:
        StorageError: If a file is missing or damaged, or of an earlier version
            (``generation-corrupt``), another backend holds the vectors (``backend-differs``), or
            it does not answer (``milvus-unreachable``).
    """
    require_own(backend, manifest)
    check_files(folder, manifest, at_most=CHECKED_BYTES)
    place = folder / str(manifest.generation)
    try:
        return backend.open(place), Columns.open(place)
    except (*_UNREADABLE, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise corrupt(place, manifest, f"cannot be read ({why or error})") from error


def _make_room(folder: Path, aside: Path, final: Path) -> None:
    """An empty folder to build in, and nothing in the place where it will go."""
    make_folder(folder)
    for stale in (aside, final):
        # Of a build that died: nobody points at it.
        if stale.exists():
            shutil.rmtree(stale)
    aside.mkdir()


def _move(aside: Path, final: Path) -> None:
    flush_folder(aside)
    aside.rename(final)
    flush_folder(final.parent)


def _flushed(path: Path) -> dict[str, Any]:
    """Size and digest of a file, which is on the disk then."""
    flush_file(path)
    return {"bytes": path.stat().st_size, "sha256": digest_of(path)}
