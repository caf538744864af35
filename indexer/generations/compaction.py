"""When an index is built anew from what was committed since it was published, and whether it must.

An index never changes: what was committed since is searched beside it (``indexer.delta``), exactly
and therefore row by row. A compaction builds both into one index, whose lists are trained on what
is there now, and publishes it as any other generation.
"""

from collections.abc import Collection as Some
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, func, select

from indexer.catalog.changes import changed_parcels, last_change, snapshot
from indexer.catalog.reading import (
    has_embeddings,
    list_generations,
    rows_of_parcels,
    searched_spaces,
)
from indexer.catalog.tables import EmbeddingSpace, Generation
from indexer.catalog.writing import in_chunks
from indexer.columns import Columns
from indexer.delta import Delta
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
from indexer.generations.files import check_files, corrupt
from indexer.generations.history import Guard
from indexer.generations.manifest import Manifest, Published
from indexer.generations.store import build_generation, open_generation
from indexer.recall import RECALL_K, recall_at_k
from indexer.row_sets import RowSet

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MOST_CHANGES = 20_000
"""Rows that are added or removed until a large index is built anew. To score 5,000 rows exactly
takes about as long as a search of the index (``docs/design/0011``)."""

FEWEST_CHANGES = 1_000
"""Until a small one is: to score them takes less than anybody notices."""

CHANGED_PART = 20
"""Of those between, one in so many of their rows."""

BUILT_IN_SECONDS = 100_000
"""Rows of an index that is built in the time that a reindex takes to start."""

FALLEN = 0.01
"""What recall may lose since it was measured at publication."""

_QUERIES = 500
_BLOCK = 20_000

_COUNT_ROWS = rows_of_parcels(func.count())


@dataclass(frozen=True)
class Standing:
    """What was committed since a generation was published."""

    rows: int
    """Embeddings of parcels that were written since; they are searched exactly."""
    removed: int
    """Rows of the index whose parcels were written or deleted since."""

    @property
    def changed(self) -> int:
        """What a search has to do with besides the index."""
        return self.rows + self.removed


@dataclass(frozen=True)
class RecallNow:
    """Recall of index and what was committed since, together."""

    recall_at_10: float
    """Against exact search, of a search without a filter that asks for a recall of .95."""
    queries: int
    """Stored vectors that were asked for, each without itself."""

    def has_fallen(self, manifest: Manifest) -> bool:
        """Whether it is worse by a point than when the generation was published."""
        return manifest.recall_at_10 - self.recall_at_10 > FALLEN


def most_changes(rows: int) -> int:
    """Rows that may be added to an index, or removed from it, until it is built anew.

    Args:
        rows: Of the index.
    """
    return min(MOST_CHANGES, max(FEWEST_CHANGES, rows // CHANGED_PART))


def is_due(manifest: Manifest, standing: Standing) -> bool:
    """Whether an index should be built anew."""
    left = manifest.rows - standing.removed
    if left + standing.rows == 0:
        # Nothing is there to build an index of.
        return False
    return left == 0 or standing.changed > most_changes(manifest.rows)


def stands(
    engine: Engine, folder: Path, space_id: int, manifest: Manifest, backend: Backend = FAISS
) -> bool:
    """Whether a generation may go on answering after a reindex, with what was committed since.

    One that is built in seconds is rather built anew at once, and so is one that is damaged, or
    that another backend holds.

    Args:
        engine: The catalog.
        folder: Where generations lie.
        space_id: Row of the generation's space.
        manifest: Of the generation.
        backend: Holds the vectors.

    Raises:
        StorageError: If it does not answer (``milvus-unreachable``).
    """
    if manifest.rows <= BUILT_IN_SECONDS:
        return False
    try:
        open_generation(folder, manifest, backend)
    except StorageError as error:
        raise_if_away(error)
        return False
    with snapshot(engine) as connection:
        return not _is_due_now(connection, folder, space_id, manifest, backend)


def searched_generations(connection: Connection) -> list[tuple[int, Manifest]]:
    """The generations that answer, each with the row of its space, in order of spaces."""
    statement = (
        select(EmbeddingSpace.id, Generation.manifest)
        .join(Generation, Generation.id == EmbeddingSpace.current_generation_id)
        .where(EmbeddingSpace.id.in_(searched_spaces(connection)))
        .order_by(EmbeddingSpace.id)
    )
    found = connection.execute(statement)
    return [(space_id, Manifest.from_dict(manifest)) for space_id, manifest in found]


def standing_of(
    connection: Connection,
    folder: Path,
    space_id: int,
    manifest: Manifest,
    *,
    enough: int | None = None,
) -> Standing:
    """What was committed since a generation was published.

    Args:
        connection: A snapshot of the catalog.
        folder: Where generations lie.
        space_id: Row of the generation's space.
        manifest: Of the generation.
        enough: Count no further than it takes to know that more has changed; None counts all.

    Raises:
        StorageError: If the generation cannot be read (``generation-corrupt``).
    """
    until = last_change(connection)
    if until == manifest.last_change:
        return Standing(0, 0)
    parcels = changed_parcels(connection, manifest.last_change, until)
    removed, rows = len(_columns(folder, manifest).rows_of_parcels(parcels)), 0
    for some in in_chunks(parcels.tolist()):
        values = {"parcels": list(some), "space": space_id}
        rows += connection.execute(_COUNT_ROWS, values).scalar_one()
        if enough is not None and rows and rows + removed > enough:
            break
    return Standing(rows, removed)


def _columns(folder: Path, manifest: Manifest) -> Columns:
    place = folder / str(manifest.generation)
    try:
        return Columns.open(place)
    except (OSError, ValueError) as error:
        # Says what is wrong, where it is a file that is missing or too short.
        check_files(folder, manifest, at_most=0)
        raise corrupt(place, manifest, f"cannot be read ({error})") from error


def published_now(connection: Connection, folder: Path, *, in_use: bool = False) -> list[Published]:
    """Generations, latest first; those that answer with what was committed since.

    Args:
        connection: A snapshot of the catalog.
        folder: Where generations lie.
        in_use: Only those of spaces that some collection is searched in.
    """
    standings = {
        manifest.generation: _told(connection, folder, space_id, manifest)
        for space_id, manifest in searched_generations(connection)
    }
    return [
        replace(one, since_publication=standings.get(one.manifest.generation))
        for one in list_generations(connection, in_use=in_use)
    ]


def _told(
    connection: Connection, folder: Path, space_id: int, manifest: Manifest
) -> dict[str, Any] | None:
    """JSON form of a standing; None where the generation cannot be read."""
    try:
        standing = standing_of(connection, folder, space_id, manifest)
    except StorageError:
        return None
    return {
        "rows": standing.rows,
        "removed": standing.removed,
        "due": is_due(manifest, standing),
    }


def due_spaces(engine: Engine, folder: Path, backend: Backend = FAISS) -> list[int]:
    """Rows of the spaces whose index should be built anew; quick, as it is asked often.

    An index that is missing, or of an earlier version, is among them: what it held is in the
    catalog.

    Raises:
        StorageError: If another backend holds the vectors (``backend-differs``): only somebody who
            rebuilds the index moves it. Or if it does not answer (``milvus-unreachable``).
    """
    with snapshot(engine) as connection:
        return [
            space_id
            for space_id, manifest in searched_generations(connection)
            if _is_due_now(connection, folder, space_id, manifest, backend)
        ]


def _is_due_now(
    connection: Connection, folder: Path, space_id: int, manifest: Manifest, backend: Backend
) -> bool:
    require_own(backend, manifest)
    enough = most_changes(manifest.rows)
    try:
        check_generation(folder, manifest, backend, at_most=0)
        standing = standing_of(connection, folder, space_id, manifest, enough=enough)
    except StorageError as error:
        raise_if_away(error)
        return has_embeddings(connection, space_id)
    return is_due(manifest, standing)


def compact(
    engine: Engine,
    folder: Path,
    *,
    only_if_due: bool,
    backend: Backend = FAISS,
    fallen: Some[int] = (),
    note: Note = lambda _: None,
    guard: Guard = lambda _: None,
) -> list[Manifest]:
    """Build what was committed since into the indexes, and publish them.

    Args:
        engine: The catalog; the caller is its only writer (``indexer.lock``).
        folder: Where generations lie.
        only_if_due: Leave those with few changes as they are; else only those with none.
        backend: Holds the vectors.
        fallen: Spaces that are due whatever has changed, since their recall has fallen, or their
            files are damaged.
        note: Is told of each step.
        guard: As ``build_generation`` takes it.

    Returns:
        The generations that were published.

    Raises:
        StorageError: As ``due_spaces`` and ``build_generation``.
    """
    wanted_of = due_spaces if only_if_due else _changed_spaces
    wanted = wanted_of(engine, folder, backend)
    build = partial(build_generation, backend=backend, note=note, guard=guard)
    return [build(engine, folder, space_id, None) for space_id in sorted({*wanted, *fallen})]


def _changed_spaces(engine: Engine, folder: Path, backend: Backend) -> list[int]:
    with snapshot(engine) as connection:
        return [
            space_id
            for space_id, manifest in searched_generations(connection)
            if has_embeddings(connection, space_id)
            and (
                _is_due_now(connection, folder, space_id, manifest, backend)
                or last_change(connection) != manifest.last_change
            )
        ]


# Recall --------------------------------------------------------------------------------------


def recall_now(
    engine: Engine,
    folder: Path,
    space_id: int,
    manifest: Manifest,
    backend: Backend = FAISS,
    *,
    seed: int = 0,
) -> RecallNow:
    """Measure the recall of a generation with what was committed since.

    Vectors of both are asked for, drawn alike. As at publication, the truth is what exact search
    finds among the copies that the index keeps, so that the two figures can be compared. All of
    them are read.

    Args:
        engine: The catalog.
        folder: Where generations lie.
        space_id: Row of the generation's space.
        manifest: Of the generation.
        backend: Holds the vectors.
        seed: Of the queries that are drawn.

    Raises:
        StorageError: As ``open_generation``.
    """
    index, columns = open_generation(folder, manifest, backend)
    with snapshot(engine) as connection:
        delta = Delta.empty(columns, index.dimensions, manifest.last_change)
        delta = delta.advanced(connection, space_id, columns)
    gone = RowSet.of_words(delta.removed, index.rows)
    if columns.absent is not None:
        gone = RowSet.of_words(delta.removed | columns.absent, index.rows)
    own, queries = _drawn(index, columns, delta, gone, seed)
    k = min(RECALL_K, index.rows - gone.count + delta.rows - 1)
    if k < 1:
        return RecallNow(1.0, len(own))
    true = _nearest(queries, own, _rows(index, columns, delta, gone), k)
    live = gone.complement if gone.count else None
    found = np.full((len(own), k), -1, dtype=np.int64)
    for place, (query, self_id) in enumerate(zip(queries, own, strict=True)):
        ids = _searched(index, columns, delta, query, k + 1, live)
        others = ids[ids != self_id][:k]
        found[place, : len(others)] = others
    return RecallNow(recall_at_k(found, true), len(own))


def _drawn(
    index: SearchableIndex, columns: Columns, delta: Delta, gone: RowSet, seed: int
) -> tuple[IntArray, FloatArray]:
    """Ids and vectors of the rows that are asked for, the same chance for each."""
    live = gone.complement.rows if gone.count else np.arange(index.rows)
    random = np.random.default_rng(seed)
    drawn = np.sort(random.permutation(len(live) + delta.rows)[:_QUERIES])
    rows = live[drawn[drawn < len(live)]]
    ids, vectors = [columns.ids[rows]], [index.vectors(rows)]
    at = len(live)
    for block in delta.blocks:
        places = np.flatnonzero(block.live)[drawn[(drawn >= at) & (drawn < at + block.count)] - at]
        ids.append(block.columns.ids[places])
        vectors.append(block.vectors[places])
        at += block.count
    return np.concatenate(ids), np.concatenate(vectors)


def _rows(
    index: SearchableIndex, columns: Columns, delta: Delta, gone: RowSet
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Ids and vectors of all rows that may be found, some thousands at a time."""
    there = np.ones(index.rows, dtype=np.bool_)
    there[gone.rows] = False
    for at in range(0, index.rows, _BLOCK):
        rows = at + np.flatnonzero(there[at : at + _BLOCK])
        if len(rows):
            yield columns.ids[rows], index.vectors(rows)
    for block in delta.blocks:
        yield block.columns.ids[block.live], block.vectors[block.live]


def _nearest(
    queries: FloatArray, own: IntArray, rows: Iterator[tuple[IntArray, FloatArray]], k: int
) -> IntArray:
    """Ids of the k nearest to each query without itself, shape ``(n_queries, k)``."""
    scores = np.empty((len(queries), 0), dtype=np.float32)
    ids = np.empty((len(queries), 0), dtype=np.int64)
    for some, vectors in rows:
        near = queries @ vectors.T
        near[own[:, None] == some[None, :]] = -np.inf
        few = min(k, len(some))
        top = np.argpartition(near, len(some) - few, axis=1)[:, len(some) - few :]
        scores = np.hstack([scores, np.take_along_axis(near, top, axis=1)])
        ids = np.hstack([ids, some[top]])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, best, axis=1)
        ids = np.take_along_axis(ids, best, axis=1)
    return ids


def _searched(
    index: SearchableIndex,
    columns: Columns,
    delta: Delta,
    query: FloatArray,
    k: int,
    live: RowSet | None,
) -> IntArray:
    """Ids of the k nearest as a search finds them, closest first."""
    scores, rows, _ = index.search(query, k, live=live)
    fresh_scores, fresh = delta.search(query, k)
    order = np.argsort(-np.concatenate([scores, fresh_scores]), kind="stable")[:k]
    ids: IntArray = np.concatenate([columns.ids[rows], fresh])[order]
    return ids
