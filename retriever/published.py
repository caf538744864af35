"""The published indexes in memory, each loaded when the first question needs it."""

import threading
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from indexer.catalog.reading import collection_names, get_generation
from indexer.embedding_space import notes_for
from indexer.errors import InvalidInputError, NotFoundError
from indexer.generations.manifest import Manifest
from indexer.generations.store import open_generation
from indexer.settings import Settings
from indexer.vector_index import VectorIndex
from retriever import statements
from retriever.finding import listed, require_collection
from retriever.quoting import quoted
from retriever.waiting import about_to_wait


@dataclass(frozen=True)
class OpenGeneration:
    """A published index in memory."""

    space_id: int
    manifest: Manifest
    index: VectorIndex

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


class PublishedGenerations:
    """One open generation for each space; the one that is current when a question is asked.

    Safe to share between threads.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.generations_dir
        self._open: dict[int, OpenGeneration] = {}
        self._opening = threading.Lock()

    def clear(self) -> None:
        """Let go of all of them."""
        self._open.clear()

    def all(self, connection: Connection) -> list[OpenGeneration]:
        """The generations that answer now, one for each space in use."""
        return [self._opened(connection, *ids) for ids in statements.published_spaces(connection)]

    def for_collection(self, connection: Connection, collection: str | None) -> OpenGeneration:
        """The generation that a question without a parcel is put to.

        Args:
            connection: Open connection.
            collection: Whose space is asked; None where there is only one.

        Raises:
            NotFoundError: If there is no such collection, or nothing is published.
            InvalidInputError: If there are several spaces and no collection is named.
        """
        if collection is not None:
            _, space_id = require_collection(connection, collection)
            return self.of_space(connection, collection, space_id)
        spaces = statements.published_spaces(connection)
        if len(spaces) > 1:
            names = listed(collection_names(connection))
            raise InvalidInputError(
                "The collections lie in different embedding spaces, which never meet in one "
                f"search; name one of {names}.",
                kind="invalid-collection",
            )
        if not spaces:
            raise _nothing_published("The index")
        return self._opened(connection, *spaces[0])

    def of_space(
        self, connection: Connection, collection: str, space_id: int | None
    ) -> OpenGeneration:
        """The generation that answers for a collection, whose space is known.

        Raises:
            NotFoundError: If nothing is published (``generation-not-found``).
        """
        number = None if space_id is None else statements.current_generation(connection, space_id)
        if space_id is None or number is None:
            raise _nothing_published(f"Collection {quoted(collection)}")
        return self._opened(connection, space_id, number)

    def _opened(self, connection: Connection, space_id: int, number: int) -> OpenGeneration:
        """The generation in memory, loaded if it is not the one that was."""
        held = self._open.get(space_id)
        if held is not None and held.number == number:
            return held
        about_to_wait()
        with self._opening:
            held = self._open.get(space_id)
            if held is None or held.number != number:
                manifest = Manifest.from_dict(get_generation(connection, number))
                held = OpenGeneration(space_id, manifest, open_generation(self._folder, manifest))
                self._open[space_id] = held
        return held


def _nothing_published(what: str) -> NotFoundError:
    return NotFoundError(
        f"{what} has no published generation yet; run parcelle reindex.",
        kind="generation-not-found",
    )
