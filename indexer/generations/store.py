"""Build a generation aside, verify it, publish it by switching one pointer.

The order of steps is what makes it safe to die at any moment: index and columns are written to a
folder of their own, flushed to disk, renamed, and only then does one SQL transaction make it the
one that answers. Whatever dies before leaves a folder that nobody points at, which the next build
removes.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine

from indexer.catalog.changes import last_change, prune_changes, snapshot
from indexer.catalog.reading import (
    SpaceRecord,
    current_extent,
    current_manifests,
    embeddings_of_parcels,
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
from indexer.generations.manifest import MANIFEST_FILE, Manifest
from indexer.memory import half_of_memory
from indexer.recall import projection_recall
from indexer.vector_index.building import build_index
from indexer.vector_index.index import VectorIndex
from indexer.vector_index.sizing import choose_shape

IntArray = npt.NDArray[np.int64]

Note = Callable[[str], None]

_ASIDE = ".building-"
_SPOOL = "spool"

_SPOOLED_BYTES = 1 << 30
"""Vectors of more bytes wait in a file until they are sorted."""

_CHECKED_BYTES = 256 << 20
"""Files of at most so many bytes are read whole whenever a generation is opened."""


def is_current(engine: Engine, folder: Path, space: SpaceRecord) -> bool:
    """Whether the space's published generation, undamaged, holds exactly the catalog's vectors."""
    if space.current_generation_id is None:
        return False
    with snapshot(engine) as connection:
        manifest = Manifest.from_dict(get_generation(connection, space.current_generation_id))
        extent = current_extent(connection, space.id)
        unchanged = last_change(connection) == manifest.last_change
    same = unchanged or extent == (manifest.rows, manifest.last_id)
    return same and _is_intact(folder, manifest)


def _is_intact(folder: Path, manifest: Manifest) -> bool:
    try:
        check_files(folder, manifest)
    except StorageError:
        return False
    return True


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
    memory_bytes: int | None = None,
    note: Note = lambda _: None,
) -> Manifest:
    """Build the index of all current vectors of a space and publish it.

    Args:
        engine: The catalog.
        folder: Where generations lie, one folder each.
        space_id: A space whose projection is frozen and that has at least one vector.
        collection_id: A collection that is to be searched in this space from now on.
        additions: What else is published; parcels are retired in the same transaction.
        memory_bytes: What the index may take; None for half of the machine's memory.
        note: Is told of each step.

    Raises:
        StorageError: If it cannot be written, or does not read back as it was
            (``write-failed``).
    """
    additions = additions or Additions()
    with engine.connect() as connection:
        space = get_space(connection, space_id)
        generation_id = next_generation_id(connection)
    if space.projection is None or space.digest is None:
        raise TypeError(f"space {space_id} has no projection yet")
    aside = _new_aside(folder, generation_id)
    try:
        manifest = _fill(engine, aside, generation_id, space, additions, memory_bytes, note)
        _rename(folder, aside, generation_id)
    except OSError as error:
        raise _not_written(error.filename or aside, error.strerror or str(error)) from error
    with engine.begin() as connection:
        publish_generation(
            connection,
            generation_id=generation_id,
            space_id=space_id,
            collection_id=collection_id,
            manifest=manifest.to_dict(),
        )
        delete_parcels(connection, additions.retired)
        held = [one.get("last_change", 0) for one in current_manifests(connection)]
        prune_changes(connection, min(held, default=0))
    return manifest


def _fill(
    engine: Engine,
    aside: Path,
    generation_id: int,
    space: SpaceRecord,
    additions: Additions,
    memory_bytes: int | None,
    note: Note,
) -> Manifest:
    """Write all files of a generation into a folder of its own, and flush them to the disk."""
    if space.projection is None or space.digest is None:
        raise TypeError(f"space {space.id} has no projection yet")
    note("reading vectors")
    with snapshot(engine) as connection:
        until = last_change(connection)
        ids, vectors = _vectors(connection, space.id, additions.retired, aside)
        _, embeddings = kept_embeddings(connection, space.id)
    shape = choose_shape(len(ids), vectors.shape[1], memory_bytes or half_of_memory())
    index, order, tuning = build_index(aside, vectors, shape, note=note)
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
        nprobe=tuning.nprobe,
        recall_at_10=tuning.recall_at_10,
        recall_queries=tuning.queries,
        efforts={str(recall): one.to_dict() for recall, one in tuning.efforts.items()},
        imbalance=index.imbalance,
        projection_recall_at_10=kept_neighbors,
        projection_rows=len(embeddings),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        precision_agreement=additions.agreement or _former_agreement(engine, space),
        versions={name: importlib.metadata.version(name) for name in ("parcelle", "faiss-cpu")},
        files={path.name: _flushed(path) for path in sorted(aside.iterdir())},
    )
    _write_durably(
        aside / MANIFEST_FILE, (json.dumps(manifest.to_dict(), indent=2) + "\n").encode()
    )
    _check_written(aside, manifest)
    return manifest


def _check_written(aside: Path, manifest: Manifest) -> None:
    """Look before anybody trusts it: a full disk can leave a short file without any error."""
    try:
        rows = {VectorIndex(aside).rows, Columns.open(aside).rows}
    except (StorageError, RuntimeError, ValueError) as error:
        raise _not_written(aside, "what was written does not read back as it was") from error
    if rows != {manifest.rows}:
        raise _not_written(aside, "what was written reads back differently")


def _vectors(
    connection: Connection, space_id: int, retired: Sequence[int], aside: Path
) -> tuple[IntArray, Any]:
    """Ids and vectors of the next generation, the vectors in a file where they are many."""
    count, _ = current_extent(connection, space_id)
    gone = embeddings_of_parcels(connection, space_id, retired) if retired else None
    ids = np.empty(count, np.int64)
    vectors: Any = None
    n = 0
    for some, block in vector_blocks(connection, space_id):
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
    memory_bytes: int | None = None,
    note: Note = lambda _: None,
) -> list[Manifest]:
    """Build and publish the index of every space that is searched, from the catalog alone.

    Args:
        engine: The catalog.
        folder: Where generations lie.
        memory_bytes: What each index may take; None for half of the machine's memory.
        note: Is told of each step.
    """
    with engine.connect() as connection:
        spaces = searched_spaces(connection)
    return [
        build_generation(engine, folder, space_id, None, memory_bytes=memory_bytes, note=note)
        for space_id in spaces
    ]


def open_generation(folder: Path, manifest: Manifest) -> tuple[VectorIndex, Columns]:
    """Map a published index and its columns, refusing them if they are not what was published.

    Files of up to 256 MiB are read and compared with their digests; of larger ones the size is
    compared, which leaves opening a matter of milliseconds. ``check_files`` reads everything.

    Raises:
        StorageError: If a file is missing or damaged, or of an earlier version
            (``generation-corrupt``).
    """
    check_files(folder, manifest, at_most=_CHECKED_BYTES)
    place = folder / str(manifest.generation)
    try:
        return VectorIndex(place), Columns.open(place)
    except (OSError, RuntimeError, ValueError) as error:
        # FAISS and NumPy have no error of their own for a file that is not what it should be.
        why = error.strerror if isinstance(error, OSError) else None
        raise _corrupt(place, manifest, f"cannot be read ({why or error})") from error


def check_files(folder: Path, manifest: Manifest, *, at_most: int | None = None) -> None:
    """Compare the files of a generation with what was published.

    Args:
        folder: Where generations lie.
        manifest: Of the generation.
        at_most: Compare only sizes of files of more bytes; None compares all digests.

    Raises:
        StorageError: If they differ (``generation-corrupt``).
    """
    place = folder / str(manifest.generation)
    if not manifest.files:
        raise _corrupt(place, manifest, "was written by an earlier version of Parcelle")
    for name, known in manifest.files.items():
        path = place / name
        try:
            size = path.stat().st_size
            if size != known["bytes"]:
                raise _corrupt(
                    path, manifest, f"has {size} bytes, but {known['bytes']} were published"
                )
            if (at_most is None or size <= at_most) and (digest := _digest(path)) != known[
                "sha256"
            ]:
                raise _corrupt(
                    path,
                    manifest,
                    f"is damaged: SHA-256 is {digest[:12]}…, {known['sha256'][:12]}… was published",
                )
        except OSError as error:
            raise _corrupt(path, manifest, f"cannot be read ({error.strerror or error})") from error


def _corrupt(path: Path, manifest: Manifest, what: str) -> StorageError:
    return StorageError(
        f"{path}: of generation {manifest.generation}, it {what}. Rebuild it from the database "
        "with: parcelle generations rebuild",
        kind="generation-corrupt",
    )


def _not_written(path: object, why: str) -> StorageError:
    return StorageError(
        f"{path}: cannot be written ({why}). Nothing was published; the former generation goes on.",
        kind="write-failed",
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _new_aside(folder: Path, generation_id: int) -> Path:
    """An empty folder to build in.

    Raises:
        StorageError: If it cannot be made (``write-failed``).
    """
    final, aside = folder / str(generation_id), folder / f"{_ASIDE}{generation_id}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(f"{_ASIDE}*"):
            shutil.rmtree(stale)
        if final.exists():
            # Renamed, but its transaction never came: nobody points at it.
            shutil.rmtree(final)
        aside.mkdir()
    except OSError as error:
        raise _not_written(error.filename or aside, error.strerror or str(error)) from error
    return aside


def _rename(folder: Path, aside: Path, generation_id: int) -> None:
    _flush_folder(aside)
    aside.rename(folder / str(generation_id))
    _flush_folder(folder)


def _flushed(path: Path) -> dict[str, Any]:
    """Size and digest of a file, which is on the disk then."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
