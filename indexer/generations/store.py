"""Build a generation aside, verify it, publish it by switching one pointer.

The order of steps is what makes it safe to die at any moment: the index is written to a folder
of its own, flushed to disk, renamed, and only then does one SQL transaction make it the one that
answers. Whatever dies before leaves a folder that nobody points at, which the next build removes.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine

from indexer.catalog.reading import (
    SpaceRecord,
    current_extent,
    current_vectors,
    embeddings_of_parcels,
    get_generation,
    get_space,
    kept_embeddings,
    next_generation_id,
    searched_spaces,
)
from indexer.catalog.writing import delete_parcels, publish_generation
from indexer.errors import StorageError
from indexer.generations.manifest import INDEX_FILE, INDEX_KIND, MANIFEST_FILE, Manifest
from indexer.recall import projection_recall
from indexer.vector_index import VectorIndex

_ASIDE = ".building-"


def is_current(engine: Engine, folder: Path, space: SpaceRecord) -> bool:
    """Whether the space's published generation, undamaged, holds exactly the catalog's vectors."""
    if space.current_generation_id is None:
        return False
    with engine.connect() as connection:
        manifest = Manifest.from_dict(get_generation(connection, space.current_generation_id))
        extent = current_extent(connection, space.id)
    return extent == (manifest.rows, manifest.last_id) and _is_intact(folder, manifest)


def _is_intact(folder: Path, manifest: Manifest) -> bool:
    try:
        with _index_path(folder, manifest).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False
    return digest == manifest.index_sha256


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
) -> Manifest:
    """Build the index of all current vectors of a space and publish it.

    Args:
        engine: The catalog.
        folder: Where generations lie, one folder each.
        space_id: A space whose projection is frozen and that has at least one vector.
        collection_id: A collection that is to be searched in this space from now on.
        additions: What else is published; parcels are retired in the same transaction.

    Raises:
        StorageError: If the index cannot be written, or does not read back as it was
            (``write-failed``).
    """
    additions = additions or Additions()
    with engine.connect() as connection:
        space = get_space(connection, space_id)
        ids, vectors = current_vectors(connection, space_id)
        if additions.retired:
            stays = ~np.isin(ids, embeddings_of_parcels(connection, space_id, additions.retired))
            ids, vectors = ids[stays], vectors[stays]
        _, embeddings = kept_embeddings(connection, space_id)
        generation_id = next_generation_id(connection)
    if space.projection is None or space.digest is None:
        raise TypeError(f"space {space_id} has no projection yet")
    index, tuning = VectorIndex.build(ids, vectors)
    kept_neighbors = None
    if len(embeddings) > 1:
        kept_neighbors = projection_recall(
            space.projection.center(embeddings), space.projection.apply(embeddings)
        )
    content = index.to_bytes()
    manifest = Manifest(
        generation=generation_id,
        space_digest=space.digest,
        recipe=space.recipe,
        projection=space.projection.kind,
        rows=len(ids),
        last_id=int(ids.max()),
        dimensions=index.dimensions,
        index_kind=INDEX_KIND,
        index_sha256=hashlib.sha256(content).hexdigest(),
        index_bytes=len(content),
        nlist=index.nlist,
        nprobe=index.nprobe,
        recall_at_10=tuning.recall_at_10,
        recall_queries=tuning.queries,
        projection_recall_at_10=kept_neighbors,
        projection_rows=len(embeddings),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        precision_agreement=additions.agreement or _former_agreement(engine, space),
        versions={name: importlib.metadata.version(name) for name in ("parcelle", "faiss-cpu")},
    )
    _write(folder, manifest, content)
    with engine.begin() as connection:
        publish_generation(
            connection,
            generation_id=generation_id,
            space_id=space_id,
            collection_id=collection_id,
            manifest=manifest.to_dict(),
        )
        delete_parcels(connection, additions.retired)
    return manifest


def _former_agreement(engine: Engine, space: SpaceRecord) -> dict[str, Any] | None:
    if space.current_generation_id is None:
        return None
    with engine.connect() as connection:
        manifest = get_generation(connection, space.current_generation_id)
    return Manifest.from_dict(manifest).precision_agreement


def rebuild(engine: Engine, folder: Path) -> list[Manifest]:
    """Build and publish the index of every space that is searched, from the catalog alone."""
    with engine.connect() as connection:
        spaces = searched_spaces(connection)
    return [build_generation(engine, folder, space_id, None) for space_id in spaces]


def open_generation(folder: Path, manifest: Manifest) -> VectorIndex:
    """Open a published index, refusing it if its bytes are not those that were published.

    Raises:
        StorageError: If the file is missing or damaged (``generation-corrupt``).
    """
    path = _index_path(folder, manifest)
    try:
        return VectorIndex.open(path, nprobe=manifest.nprobe, sha256=manifest.index_sha256)
    except OSError as error:
        raise StorageError(
            f"{path}: the index of generation {manifest.generation} cannot be read "
            f"({error.strerror}). Rebuild it from the database: parcelle generations rebuild",
            kind="generation-corrupt",
        ) from error


def _index_path(folder: Path, manifest: Manifest) -> Path:
    return folder / str(manifest.generation) / INDEX_FILE


def _write(folder: Path, manifest: Manifest, content: bytes) -> None:
    """Write a generation's folder so that it is either whole or not there.

    Raises:
        StorageError: If it cannot be written, or reads back differently (``write-failed``).
    """
    final = _index_path(folder, manifest).parent
    aside = folder / f"{_ASIDE}{manifest.generation}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(f"{_ASIDE}*"):
            shutil.rmtree(stale)
        if final.exists():
            # Renamed, but its transaction never came: nobody points at it.
            shutil.rmtree(final)
        aside.mkdir()
        _write_durably(aside / INDEX_FILE, content)
        _write_durably(
            aside / MANIFEST_FILE, (json.dumps(manifest.to_dict(), indent=2) + "\n").encode()
        )
        _check_written(aside / INDEX_FILE, manifest)
        _flush_folder(aside)
        aside.rename(final)
        _flush_folder(folder)
    except OSError as error:
        raise StorageError(
            f"{error.filename or aside}: cannot be written ({error.strerror}). Nothing was "
            "published; the former generation goes on.",
            kind="write-failed",
        ) from error


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _check_written(path: Path, manifest: Manifest) -> None:
    """Look before anybody trusts it: a full disk can leave a short file without any error."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != manifest.index_sha256:
        raise StorageError(
            f"{path}: what was written reads back differently; the disk may be full or failing. "
            "Nothing was published; the former generation goes on.",
            kind="write-failed",
        )


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
