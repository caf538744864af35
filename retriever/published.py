"""The published indexes in memory, each mapped when the first question needs it.

What is committed meanwhile is read when the next question comes: a server answers from the catalog
as it is, without waiting for a publication.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine

from indexer.catalog.changes import CommitWatch, last_change
from indexer.catalog.reading import collection_spaces, get_generation
from indexer.columns import Columns
from indexer.delta import Delta
from indexer.embedding_space import notes_for
from indexer.errors import InvalidInputError, NotFoundError, ParcelleError, StorageError
from indexer.generations.backends import SearchableIndex, backend_of
from indexer.generations.manifest import Manifest
from indexer.generations.store import open_generation
from indexer.row_sets import RowSet
from indexer.settings import Settings
from retriever import statements
from retriever.finding import listed, require_collection
from retriever.quoting import quoted
from retriever.waiting import about_to_wait

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OpenGeneration:
    """A published index in memory, and what was committed since."""

    space_id: int
    manifest: Manifest
    index: SearchableIndex
    columns: Columns
    """Of the rows of the index."""
    delta: Delta
    collections: tuple[str, ...]
    """Those that are searched in the space, in alphabetical order."""
    latest: Callable[[], "OpenGeneration | None"]
    """Gives what answers for the space now, with all that is committed; None if nothing does."""

    @property
    def number(self) -> int:
        """Of the generation."""
        return self.manifest.generation

    @property
    def space(self) -> dict[str, Any]:
        """The embedding space, in the short form that stands in every answer."""
        return self.manifest.space

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said beside any answer from it."""
        return notes_for(self.manifest.recipe)

    @cached_property
    def gone(self) -> RowSet | None:
        """Rows of the index that were changed or deleted since; None where there are none."""
        words = self.delta.removed
        if self.columns.absent is not None:
            words = words | self.columns.absent
        gone = RowSet.of_words(words, self.index.rows)
        return gone if gone.count else None

    @cached_property
    def live(self) -> RowSet | None:
        """The other rows; None where it is all of them."""
        return None if self.gone is None else self.gone.complement

    @cached_property
    def strangers(self) -> bool:
        """Whether it holds rows of collections that are searched in another space by now."""
        parts = [self.columns, *(block.columns for block in self.delta.blocks)]
        held = {name for part in parts for name in part.coded["collection"].values[1:]}
        return not held <= set(self.collections)

    @cached_property
    def _fresh(self) -> tuple[IntArray, IntArray]:
        """Embeddings since the publication, ascending, and the rows of their parcels."""
        none = np.empty(0, np.int64)
        ids = np.concatenate([none, *(block.columns.ids for block in self.delta.blocks)])
        parcels = np.concatenate([none, *(block.columns.parcels for block in self.delta.blocks)])
        order = np.argsort(ids)
        return ids[order], parcels[order]

    def fresh_parcels_of(self, ids: IntArray) -> IntArray:
        """Rows of the parcels of embeddings since the publication."""
        known, parcels = self._fresh
        return parcels[np.searchsorted(known, ids)]

    @cached_property
    def one_row_a_parcel(self) -> bool:
        """Whether no parcel has several rows, neither in the index nor since."""
        # A parcel's rows are all in the one, or all in the other.
        parcels = self._fresh[1]
        return self.columns.has_unique_parcels and len(np.unique(parcels)) == len(parcels)


@dataclass(frozen=True)
class _State:
    """What the catalog says of collections and spaces, at one moment."""

    version: int
    """Of the catalog, as ``CommitWatch`` tells it."""
    spaces: dict[str, int | None]
    """Collections, and the rows of their spaces."""
    current: dict[int, int]
    """Spaces that some collection is searched in, and the generations that answer for them."""
    opened: dict[int, OpenGeneration]
    """By space."""


class PublishedGenerations:
    """One open generation for each space: the current one, with what was committed since.

    Safe to share between threads.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._folder = settings.generations_dir
        self._backend = backend_of(settings)
        self._engine = engine
        self._watch = CommitWatch(engine)
        self._state: _State | None = None
        self._refreshing = threading.Lock()

    def close(self) -> None:
        """Let go of all of them."""
        self._state = None
        self._watch.close()

    def all(self) -> list[OpenGeneration]:
        """The generations that answer now, one for each space in use."""
        state = self.refresh()
        return [self._opened(state, space_id) for space_id in sorted(state.current)]

    def for_collection(self, collection: str | None) -> OpenGeneration:
        """The generation that a question without a parcel is put to.

        Args:
            collection: Whose space is asked; None where there is only one.

        Raises:
            NotFoundError: If there is no such collection, or nothing is published.
            InvalidInputError: If there are several spaces and no collection is named.
        """
        state = self.refresh()
        if collection is not None:
            if collection not in state.spaces:
                with self._engine.connect() as connection:
                    require_collection(connection, collection)
            return self.of_space(collection, state.spaces.get(collection))
        if len(state.current) > 1:
            raise InvalidInputError(
                "The collections lie in different embedding spaces, which never meet in one "
                f"search; name one of {listed(list(state.spaces))}.",
                kind="invalid-collection",
            )
        if not state.current:
            raise _nothing_published("The index")
        return self._opened(state, next(iter(state.current)))

    def of_space(self, collection: str, space_id: int | None) -> OpenGeneration:
        """The generation that answers for a collection, whose space is known.

        Raises:
            NotFoundError: If nothing is published (``generation-not-found``).
        """
        state = self.refresh()
        if space_id is None or space_id not in state.current:
            raise _nothing_published(f"Collection {quoted(collection)}")
        return self._opened(state, space_id)

    def _latest(self, space_id: int) -> OpenGeneration | None:
        state = self.refresh()
        return self._opened(state, space_id) if space_id in state.current else None

    def refresh(self) -> _State:
        """What the catalog says now; a few microseconds where nothing was committed."""
        version = self._watch.version()
        state = self._state
        if state is not None and state.version == version:
            return state
        about_to_wait()
        with self._refreshing:
            version = self._watch.version()
            state = self._state
            if state is None or state.version != version:
                with statements.snapshot(self._engine) as connection:
                    state = self._read(connection, version)
                self._state = state
        return state

    def _read(self, connection: Connection, version: int) -> _State:
        spaces = collection_spaces(connection)
        current = dict(statements.published_spaces(connection))
        known = {} if self._state is None else self._state.opened
        opened = {}
        for space_id, held in known.items():
            if current.get(space_id) == held.number:
                opened[space_id] = self._advanced(connection, held, spaces)
        return _State(version, spaces, current, opened)

    def _advanced(
        self, connection: Connection, held: OpenGeneration, spaces: dict[str, int | None]
    ) -> OpenGeneration:
        """A generation with what was committed since it was last looked at."""
        collections = _searched_in(held.space_id, spaces)
        delta = held.delta
        if collections != held.collections:
            # What was left out, or let in, because of where a collection was searched.
            delta = Delta.empty(held.columns, held.index.dimensions, held.manifest.last_change)
        if last_change(connection) > delta.last_change:
            delta = delta.advanced(connection, held.space_id, held.columns)
        if delta is held.delta:
            return held
        return replace(held, delta=delta, collections=collections)

    def _opened(self, state: _State, space_id: int) -> OpenGeneration:
        """The generation in memory, mapped if it was not yet."""
        held = state.opened.get(space_id)
        if held is not None:
            return held
        about_to_wait()
        with self._refreshing:
            held = state.opened.get(space_id)
            if held is None:
                held = state.opened[space_id] = self._open(state, space_id)
        return held

    def _open(self, state: _State, space_id: int) -> OpenGeneration:
        """The generation that answers for a space now, though it be pruned while it is opened."""
        tried: int | None = None
        failure: ParcelleError | None = None
        while True:
            with statements.snapshot(self._engine) as connection:
                # Perhaps not that of a moment ago, since when the log may have been pruned.
                current = dict(statements.published_spaces(connection))
                number = current.get(space_id, state.current[space_id])
                if failure is not None and number == tried:
                    raise failure
                try:
                    return self._map(connection, state, space_id, number)
                except (NotFoundError, StorageError) as error:
                    tried, failure = number, error

    def _map(
        self, connection: Connection, state: _State, space_id: int, number: int
    ) -> OpenGeneration:
        manifest = Manifest.from_dict(get_generation(connection, number))
        index, columns = open_generation(self._folder, manifest, self._backend)
        delta = Delta.empty(columns, index.dimensions, manifest.last_change)
        held = OpenGeneration(
            space_id,
            manifest,
            index,
            columns,
            delta,
            _searched_in(space_id, state.spaces),
            partial(self._latest, space_id),
        )
        return self._advanced(connection, held, state.spaces)


def _searched_in(space_id: int, spaces: dict[str, int | None]) -> tuple[str, ...]:
    return tuple(name for name, other in spaces.items() if other == space_id)


def _nothing_published(what: str) -> NotFoundError:
    return NotFoundError(
        f"{what} has no published generation yet; run parcelle reindex.",
        kind="generation-not-found",
    )
