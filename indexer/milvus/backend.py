"""Generations whose vectors are collections: built, opened, checked and tidied up.

A generation's folder holds its columns and a file that names the collection. The database decides
what answers and what is kept; names and collections on the server follow it afterwards, as often
as it takes: nothing depends on when that is done.
"""

import logging
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from indexer.catalog.changes import snapshot
from indexer.catalog.reading import answering, generation_records, next_generation_id
from indexer.errors import StorageError
from indexer.milvus.building import QUERIES, Note, Vectors, build_collection, check_collection
from indexer.milvus.index import MilvusIndex, Parameters
from indexer.milvus.names import (
    alias_of,
    collection_of,
    generation_in,
    has_installation,
    prefix,
)
from indexer.milvus.server import MilvusServer
from indexer.settings import Settings

IntArray = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


class MilvusBackend:
    """What holds the vectors of generations, beside their columns."""

    name = "milvus"
    library = "pymilvus"

    def __init__(self, server: MilvusServer) -> None:
        self.server = server

    @classmethod
    def of(cls, settings: Settings) -> "MilvusBackend":
        """That of the settings; a process has one connection to a server."""
        return cls(_server(settings.resolved_milvus_uri, settings.milvus_token.get_secret_value()))

    def build(
        self, aside: Path, generation: int, vectors: Vectors, note: Note = lambda _: None
    ) -> tuple[MilvusIndex, IntArray, int]:
        """Make the collection of a generation.

        Args:
            aside: Folder that the generation's files are written into, below that of all
                generations.
            generation: Its number.
            vectors: Shape ``(n, d)``, unit length.
            note: Is told of each step.

        Returns:
            The index, for each of its rows the row of ``vectors``, and how many queries its recall
            was measured on.

        Raises:
            StorageError: If Milvus does not answer (``milvus-unreachable``), or holds something
                else than it was given (``write-failed``).
        """
        name = collection_of(aside.parent, generation)
        parameters = build_collection(self.server, name, vectors, note=note)
        parameters.write(aside)
        queries = QUERIES if parameters.nlist > 1 else 0
        return MilvusIndex(self.server, parameters), np.arange(len(vectors)), queries

    def open(self, place: Path) -> MilvusIndex:
        """The index of the generation whose files lie in a folder.

        Raises:
            OSError, ValueError, LookupError, TypeError: If its file cannot be read.
            StorageError: If the collection is not as it was published (``generation-corrupt``), or
                Milvus does not answer (``milvus-unreachable``).
        """
        parameters = Parameters.read(place)
        check_collection(self.server, parameters)
        return MilvusIndex(self.server, parameters)

    def check(self, place: Path, *, thorough: bool = False) -> None:
        """Compare a generation's collection with what was published.

        Args:
            place: Folder of its files.
            thorough: Read all vectors, and compare their digest; else only the rows are counted.

        Raises:
            As ``open``.
        """
        check_collection(self.server, Parameters.read(place), thorough=thorough)

    def tidy(self, engine: Engine, folder: Path) -> None:
        """Let collections and names follow the catalog; what cannot be done now is done later.

        Args:
            engine: The catalog; the caller is its only writer.
            folder: Where generations lie.
        """
        with snapshot(engine) as connection:
            kept = [record.number for record in generation_records(connection)]
            now = {one.space_id: one.generation for one in answering(connection)}
            last = next_generation_id(connection)
        self.follow(folder, kept, now, last)

    def follow(
        self, folder: Path, kept: Collection[int], now: Mapping[int, int], last: int
    ) -> list[str]:
        """Point names at the collections that answer, and drop those that nobody needs.

        Args:
            folder: Where generations lie.
            kept: Numbers of all generations that there are.
            now: By space the generation that answers.
            last: The latest number that may have been given; what has a later one was made by
                another database, and stays.

        Returns:
            Collections that were dropped: of generations that are pruned, or were never published.
        """
        if not has_installation(folder):
            return []
        try:
            return self._follow(folder, kept, now, last)
        except StorageError as error:
            _log.warning("%s Collections that are not needed stay until then.", error.message)
            return []

    def _follow(
        self, folder: Path, kept: Collection[int], now: Mapping[int, int], last: int
    ) -> list[str]:
        there = self.server.collections(prefix(folder))
        needed = {number: _collection(folder, number) for number in kept}
        for space_id, generation in now.items():
            if (name := needed.get(generation)) in there:
                self.server.point(alias_of(folder, space_id), str(name))
        dropped = [
            name
            for name in there
            if (number := generation_in(name)) is not None
            and number <= last
            and name not in needed.values()
        ]
        for name in dropped:
            self.server.drop(name)
        return dropped


def _collection(folder: Path, generation: int) -> str:
    """The collection of a kept generation; of a restored one it has the number of before."""
    try:
        return Parameters.read(folder / str(generation)).collection
    except (OSError, ValueError, LookupError, TypeError):
        return collection_of(folder, generation)


@cache
def _server(uri: str, token: str) -> MilvusServer:
    return MilvusServer(uri, token)
