"""What an index answers, and what its catalog holds, in a form that can be compared."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, inspect, text

from indexer.catalog.changes import snapshot
from indexer.catalog.database import connect
from indexer.delta import Delta
from indexer.errors import NotFoundError, ParcelleError
from indexer.generations.compaction import searched_generations
from indexer.generations.manifest import Manifest
from indexer.generations.store import open_generation
from indexer.row_sets import RowSet
from indexer.settings import Settings
from retriever.results import Match, Matches
from retriever.search import ParcelSearcher
from tests.retriever.planted import random_vectors

IntArray = npt.NDArray[np.int64]

_PASSING = {"created_at", "updated_at", "published_at", "manifest"}
"""Columns that tell the time."""

_NUMBERED = {"generations", "embedding_spaces.current_generation_id"}
"""Tables and columns that tell numbers of generations."""

_SAME_SCORE = 1e-5

# Scores of two directions tell one vector from another.
_DIRECTIONS = random_vectors(2, seed=99)


@dataclass(frozen=True)
class State:
    """An index as it is at one moment."""

    answers: dict[str, list[str]] = field(default_factory=dict)
    """By question, the matches in order, as JSON without their scores; or why there are none."""
    scores: dict[str, list[float]] = field(default_factory=dict)
    """By question, the scores of that."""
    generations: dict[str, int] = field(default_factory=dict)
    """By question, the generation that answered."""
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By table, everything but what tells the time."""

    def differences(self, other: "State", *, numbered: bool = True, rows: bool = True) -> list[str]:
        """What is not as in another, in words; nothing where both are the same.

        Args:
            other: The one that is expected.
            numbered: Whether generations must have the same numbers.
            rows: Whether the catalogs are compared, too.
        """
        found = []
        if self.answers != other.answers:
            found.append(_difference("answers", self.answers, other.answers))
        elif not self._scores_are_those_of(other):
            found.append(_difference("scores", self.scores, other.scores))
        if numbered and self.generations != other.generations:
            found.append(_difference("generations", self.generations, other.generations))
        if rows:
            held, expected = self.rows, other.rows
            if not numbered:
                held, expected = _without_numbers(held), _without_numbers(expected)
            if held != expected:
                found.append(_difference("rows", held, expected))
        return found

    def _scores_are_those_of(self, other: "State") -> bool:
        return self.scores.keys() == other.scores.keys() and all(
            np.allclose(scores, other.scores[question], atol=_SAME_SCORE)
            for question, scores in self.scores.items()
        )


def _difference(what: str, found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The first of the things that differ."""
    for name in sorted({*found, *expected}):
        there, wanted = found.get(name), expected.get(name)
        if there == wanted:
            continue
        if isinstance(there, list) and isinstance(wanted, list):
            pairs = zip_longest(there, wanted)
            there, wanted = next((one, other) for one, other in pairs if one != other)
        return f"{what} of {name}: {str(there)[:600]} instead of {str(wanted)[:600]}"
    return what


def _without_numbers(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {
        table: [
            {name: value for name, value in row.items() if f"{table}.{name}" not in _NUMBERED}
            for row in some
        ]
        for table, some in rows.items()
        if table not in _NUMBERED
    }


def state_of(settings: Settings) -> State:
    """Ask an index everything, and read all that its catalog holds.

    Raises:
        AssertionError: If the ids of an index are not those of the catalog.
    """
    state = State()
    _ask(settings, state)
    if _has_database(settings):
        engine = connect(settings)
        try:
            with snapshot(engine) as connection:
                state.rows.update(_all_rows(connection))
                if "refused" not in state.answers:
                    _check_ids(connection, settings)
        finally:
            engine.dispose()
    return state


def _has_database(settings: Settings) -> bool:
    return bool(settings.database_url) or (settings.data_dir / "parcelle.db").exists()


def _ask(settings: Settings, state: State) -> None:
    try:
        searcher = ParcelSearcher.open(settings)
    except ParcelleError as error:
        state.answers["refused"] = [error.kind]
        return
    with searcher:
        ask(searcher, state)


def ask(searcher: ParcelSearcher, state: State) -> None:
    """Put all questions to a searcher, and note what it says."""
    for collection, parcel_id in _collections(searcher):
        for number, vector in enumerate(_DIRECTIONS):
            _put(
                state,
                f"{collection}, direction {number}",
                partial(searcher.similar_by_vector, vector, collection=collection),
            )
        _put(
            state,
            f"{collection}, parcel {parcel_id}",
            partial(searcher.similar_by_id, parcel_id, collection=collection),
        )


def _put(state: State, question: str, search: Callable[..., Matches]) -> None:
    """Ask for all there is, every observation of it."""
    try:
        found = search(k=1000, observations=True)
    except NotFoundError as error:
        state.answers[question] = [error.kind]
    else:
        state.generations[question] = found.generation
        state.answers[question] = [_without_score(match) for match in found.matches]
        state.scores[question] = [match.score for match in found.matches]


def _without_score(match: Match) -> str:
    told = match.to_dict()
    del told["score"]
    return json.dumps(told, sort_keys=True)


def _collections(searcher: ParcelSearcher) -> list[tuple[str, str]]:
    """Names of the collections, each with its last parcel."""
    statement = text(
        "SELECT collections.name, max(parcels.parcel_id) FROM parcels "
        "JOIN collections ON collections.id = parcels.collection_id GROUP BY 1 ORDER BY 1"
    )
    with searcher.engine.connect() as connection:
        return [(name, parcel_id) for name, parcel_id in connection.execute(statement)]


def _all_rows(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    return {
        table: [
            {name: value for name, value in row.items() if name not in _PASSING}
            for row in connection.execute(text(f'SELECT * FROM "{table}" ORDER BY 1')).mappings()
        ]
        for table in inspect(connection).get_table_names()
        if table != "changes"
    }


def _check_ids(connection: Connection, settings: Settings) -> None:
    """What each index finds, with what was committed since, is what the catalog holds."""
    for space_id, manifest in searched_generations(connection):
        found = _searched_ids(connection, settings.generations_dir, space_id, manifest)
        expected = _stored_ids(connection, space_id)
        assert found.tolist() == expected.tolist(), (
            f"generation {manifest.generation} finds the embeddings {found.tolist()}, but the "
            f"catalog holds {expected.tolist()}"
        )


def _searched_ids(
    connection: Connection, folder: Path, space_id: int, manifest: Manifest
) -> IntArray:
    index, columns = open_generation(folder, manifest)
    assert index.rows == columns.rows
    delta = Delta.empty(columns, index.dimensions, manifest.last_change)
    delta = delta.advanced(connection, space_id, columns)
    words = delta.removed if columns.absent is None else delta.removed | columns.absent
    left = RowSet.of_words(words, index.rows).complement.rows
    fresh = [block.columns.ids[block.live] for block in delta.blocks]
    return np.sort(np.concatenate([columns.ids[left], *fresh]))


def _stored_ids(connection: Connection, space_id: int) -> IntArray:
    statement = text(
        "SELECT embeddings.id FROM embeddings "
        "JOIN observations ON observations.id = embeddings.observation_id "
        "JOIN parcels ON parcels.id = observations.parcel_id "
        "JOIN collections ON collections.id = parcels.collection_id "
        "WHERE embeddings.space_id = :space AND collections.space_id = :space "
        "AND embeddings.vector IS NOT NULL AND NOT embeddings.superseded ORDER BY 1"
    )
    return np.array(connection.scalars(statement, {"space": space_id}).all(), dtype=np.int64)


def files_of(folder: Path) -> list[str]:
    """Paths of all files and folders, generations by their order instead of their numbers."""
    generations = folder / "generations"
    numbers = (
        sorted((path.name for path in generations.iterdir() if path.name.isdigit()), key=int)
        if generations.is_dir()
        else []
    )
    order = {number: f"generation-{place}" for place, number in enumerate(numbers)}
    found = []
    for path in sorted(folder.rglob("*")):
        parts = list(path.relative_to(folder).parts)
        if parts[0] == "generations" and len(parts) > 1:
            parts[1] = order.get(parts[1], parts[1])
        found.append("/".join(parts))
    return sorted(found)
