"""Whether generations are what was published, and hold what the catalog says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine

from indexer.catalog.changes import snapshot, tells_since
from indexer.catalog.reading import (
    GenerationRecord,
    answering,
    collections_of_space,
    generation_records,
    searched_ids,
)
from indexer.columns import Columns
from indexer.delta import Delta
from indexer.errors import StorageError
from indexer.generations.backends import FAISS, Backend, Note, check_generation
from indexer.generations.compaction import (
    RecallNow,
    Standing,
    is_due,
    recall_now,
    standing_of,
)
from indexer.generations.files import check_files
from indexer.generations.manifest import Manifest
from indexer.generations.store import open_generation
from indexer.row_sets import RowSet

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ids:
    """Embeddings that searches may find, beside those that the catalog has."""

    stored: int
    """Of the catalog: with a vector, in force, of collections that are searched in the space."""
    missing: IntArray
    """Those that no search finds."""
    strange: IntArray
    """Those that searches find, and the catalog has not, or that they find twice."""

    @property
    def agree(self) -> bool:
        """Whether both sides have the same."""
        return not len(self.missing) and not len(self.strange)

    def __str__(self) -> str:
        if self.agree:
            return f"{self.stored} ids as in the database"
        missing, strange = (", ".join(map(str, ids[:3])) for ids in (self.missing, self.strange))
        parts = []
        if missing:
            parts.append(
                f"{len(self.missing)} embeddings of the database are not found ({missing})"
            )
        if strange:
            parts.append(f"{len(self.strange)} are found that should not be ({strange})")
        return " and ".join(parts) + "; run parcelle generations rebuild"

    def to_dict(self) -> dict[str, int]:
        """JSON form."""
        return {
            "stored": self.stored,
            "missing": len(self.missing),
            "strange": len(self.strange),
        }


def compare_ids(connection: Connection, space_id: int, manifest: Manifest, columns: Columns) -> Ids:
    """Hold what a generation answers with, and what was committed since, against the catalog.

    Args:
        connection: A snapshot of the catalog, whose log tells all since the generation was built.
        space_id: Row of the generation's space.
        manifest: Of the generation.
        columns: Of the generation.
    """
    delta = Delta.empty(columns, manifest.dimensions, manifest.last_change)
    delta = delta.advanced(connection, space_id, columns)
    gone = delta.removed if columns.absent is None else delta.removed | columns.absent
    there = np.ones(columns.rows, dtype=np.bool_)
    there[RowSet.of_words(gone, columns.rows).rows] = False
    # Rows of collections that are searched elsewhere by now are left out by every search.
    searched = set(collections_of_space(connection, space_id))
    collection = columns.coded["collection"]
    codes = [code for code, name in enumerate(collection.values) if name in searched]
    there &= np.isin(collection.codes, codes)
    fresh = [block.columns.ids[block.live] for block in delta.blocks]
    found = np.sort(np.concatenate([columns.ids[there], *fresh]))
    stored = searched_ids(connection, space_id)
    twice = found[1:][found[1:] == found[:-1]]
    strange = np.union1d(np.setdiff1d(found, stored), twice)
    return Ids(len(stored), np.setdiff1d(stored, found), strange)


@dataclass(frozen=True)
class Verified:
    """What was found of one generation."""

    manifest: Manifest
    current: bool
    """Whether it answers searches now."""
    problem: str | None = None
    """What is wrong with it; None if nothing is."""
    ids: Ids | None = None
    """None where they cannot be compared: it is damaged, or no collection is searched in its
    space."""
    standing: Standing | None = None
    """What was committed since; of one that answers."""
    recall: RecallNow | None = None
    """Of one that answers."""

    @property
    def ok(self) -> bool:
        """Whether it answers, or could, as it should."""
        return self.problem is None

    @property
    def due(self) -> bool:
        """Whether it should be built anew, although nothing is wrong with it."""
        if self.standing is None or self.recall is None:
            return False
        return is_due(self.manifest, self.standing) or self.recall.has_fallen(self.manifest)

    def __str__(self) -> str:
        if self.problem is not None:
            return self.problem
        told = [f"generation {self.manifest.generation}: {self.manifest.rows} vectors as published"]
        if self.standing is not None:
            told[0] += f", {self.standing.rows} added and {self.standing.removed} removed since"
        if self.ids is not None:
            told.append(str(self.ids))
        if self.recall is not None:
            told.append(
                f"recall@10 {self.recall.recall_at_10:.3f}, {self.manifest.recall_at_10:.3f} "
                "when published"
            )
        if not self.current:
            told.append("kept to be rolled back to")
        if self.due:
            told.append("run parcelle generations compact")
        return "; ".join(told)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        told: dict[str, Any] = {
            "generation": self.manifest.generation,
            "current": self.current,
            "ok": self.ok,
            "recall_at_10": self.manifest.recall_at_10,
            "recall_now": None,
            "ids": None if self.ids is None else self.ids.to_dict(),
            "detail": str(self),
        }
        if self.recall is not None:
            told["recall_now"] = round(self.recall.recall_at_10, 4)
            told["recall_queries"] = self.recall.queries
        if self.standing is not None:
            told["since_publication"] = {
                "rows": self.standing.rows,
                "removed": self.standing.removed,
                "due": self.due,
            }
        return told


def verify(
    engine: Engine, folder: Path, note: Note = lambda _: None, backend: Backend = FAISS
) -> list[Verified]:
    """Read all of all kept generations, compare ids, and measure the recall of the current.

    Args:
        engine: The catalog.
        folder: Where generations lie.
        note: Is told of each step.
        backend: Holds the vectors; of generations that another holds only files are read.

    Returns:
        What was found of each, latest first.
    """
    with snapshot(engine) as connection:
        records = generation_records(connection)
    found = []
    for record in records:
        one = _verified(engine, folder, record, note, backend)
        if one is not None:
            found.append(one)
    return found


def _verified(
    engine: Engine, folder: Path, record: GenerationRecord, note: Note, backend: Backend
) -> Verified | None:
    """What is found of a generation; None if it was pruned meanwhile."""
    manifest = record.manifest
    note(f"Reading generation {record.number}")
    with snapshot(engine) as connection:
        current = {one.space_id: one.generation for one in answering(connection)}
        is_current = current.get(record.space_id) == record.number
        try:
            columns = _read(folder, manifest, backend, is_current=is_current)
            ids = standing = None
            told = is_current or tells_since(connection, manifest.last_change)
            if record.space_id in current and told:
                ids = compare_ids(connection, record.space_id, manifest, columns)
            if is_current:
                standing = standing_of(connection, folder, record.space_id, manifest)
        except StorageError as error:
            return _unless_pruned(engine, Verified(manifest, is_current, error.message))
    if ids is not None and not ids.agree:
        problem = f"generation {record.number}: {ids}"
        return Verified(manifest, is_current, problem, ids, standing)
    if not is_current:
        return Verified(manifest, is_current, None, ids)
    note(f"Measuring the recall of generation {record.number}")
    try:
        recall = recall_now(engine, folder, record.space_id, manifest, backend)
    except StorageError as error:
        return _unless_pruned(engine, Verified(manifest, is_current, error.message))
    return Verified(manifest, is_current, None, ids, standing, recall)


def _read(folder: Path, manifest: Manifest, backend: Backend, *, is_current: bool) -> Columns:
    """Read all of a generation, but vectors that nobody can ask for at present."""
    if not is_current and manifest.backend != backend.name:
        check_files(folder, manifest)
        return Columns.open(folder / str(manifest.generation))
    check_generation(folder, manifest, backend, thorough=True)
    return open_generation(folder, manifest, backend)[1]


def _unless_pruned(engine: Engine, found: Verified) -> Verified | None:
    with engine.connect() as connection:
        there = {record.number for record in generation_records(connection)}
    return found if found.manifest.generation in there else None
