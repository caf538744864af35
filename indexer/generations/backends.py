"""What holds the vectors of generations: files beside their columns, or a Milvus server.

Columns, manifest and the pointer to what answers are the same for all; so is the order in which a
generation comes about (``generations.store``). Only where vectors are searched differs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from indexer.errors import StorageError
from indexer.generations.files import check_files, corrupt
from indexer.generations.manifest import Manifest
from indexer.memory import half_of_memory
from indexer.row_sets import RowSet
from indexer.settings import Settings
from indexer.vector_index.building import build_index
from indexer.vector_index.effort import DEFAULT_RECALL
from indexer.vector_index.index import Found, VectorIndex
from indexer.vector_index.sizing import choose_shape

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]

Note = Callable[[str], None]


class SearchEffort(Protocol):
    """What reaches one recall."""

    @property
    def nprobe(self) -> int:
        """Lists that a search without a filter looks into."""

    @property
    def recall_at_10(self) -> float:
        """As measured, against exact search; the query itself excluded."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""


class SearchableIndex(Protocol):
    """Unit vectors under their rows, 0 to ``rows - 1``; see ``vector_index.index.VectorIndex``."""

    rows: int
    dimensions: int
    nlist: int
    kind: str

    @property
    def imbalance(self) -> float:
        """How unevenly rows fill the lists: 1 where all are equally long, or nobody knows."""

    @property
    def efforts(self) -> Mapping[float, SearchEffort]:
        """By recall."""

    def search(
        self,
        query: FloatArray,
        k: int,
        *,
        recall: float = DEFAULT_RECALL,
        live: RowSet | None = None,
    ) -> Found:
        """The rows whose vectors are closest to a query, without a filter."""

    def search_among(
        self, query: FloatArray, k: int, allowed: RowSet, *, recall: float = DEFAULT_RECALL
    ) -> Found:
        """The rows of a set whose vectors are closest to a query."""

    def search_many(
        self,
        queries: FloatArray,
        k: int,
        *,
        recall: float = DEFAULT_RECALL,
        live: RowSet | None = None,
        threads: int = 1,
    ) -> list[tuple[FloatArray, IntArray]]:
        """Several searches without a filter."""

    def score(self, query: FloatArray, rows: IntArray, k: int) -> tuple[FloatArray, IntArray]:
        """The k best of some different rows, by their vectors."""

    def vectors(self, rows: IntArray) -> FloatArray:
        """Vectors of rows, shape ``(n, d)``."""


class Backend(Protocol):
    """Builds, opens and checks the vectors of generations."""

    name: str
    """As the manifest has it."""
    library: str
    """The package that does the work, whose version the manifest has."""

    def build(
        self, aside: Path, generation: int, vectors: Vectors, note: Note
    ) -> tuple[SearchableIndex, IntArray, int]:
        """Write the vectors of a generation, and measure what their searches need.

        Args:
            aside: Folder of the generation's files, below that of all generations; the caller
                makes them durable.
            generation: Its number.
            vectors: Shape ``(n, d)``, unit length.
            note: Is told of each step.

        Returns:
            The index, for each of its rows the row of ``vectors``, and how many queries its recall
            was measured on.
        """

    def open(self, place: Path) -> SearchableIndex:
        """The index of the generation whose files lie in a folder."""

    def check(self, place: Path, *, thorough: bool = False) -> None:
        """Compare vectors that lie elsewhere than in the folder with what was published."""

    def tidy(self, engine: Engine, folder: Path) -> None:
        """Let what lies elsewhere follow the catalog, after every change of it; never fails."""


class FaissBackend:
    """Vectors in files of the generation's folder, searched in this process.

    Args:
        memory_bytes: What an index may take; None for half of the machine's memory.
    """

    name = "faiss"
    library = "faiss-cpu"

    def __init__(self, memory_bytes: int | None = None) -> None:
        self._memory_bytes = memory_bytes

    def build(
        self, aside: Path, generation: int, vectors: Vectors, note: Note
    ) -> tuple[VectorIndex, IntArray, int]:
        """Write the files of an index, and measure it."""
        n, dimensions = vectors.shape
        shape = choose_shape(n, dimensions, self._memory_bytes or half_of_memory())
        index, order, tuning = build_index(aside, vectors, shape, note=note)
        return index, order, tuning.queries

    def open(self, place: Path) -> VectorIndex:
        """Map the files of an index."""
        return VectorIndex(place)

    def check(self, place: Path, *, thorough: bool = False) -> None:
        """Do nothing: all there is are files of the folder."""

    def tidy(self, engine: Engine, folder: Path) -> None:
        """Do nothing: all there is goes with the folder."""


FAISS = FaissBackend()


def backend_of(settings: Settings) -> Backend:
    """The one that the settings name; nothing is asked of it yet."""
    if settings.vector_backend == "faiss":
        return FaissBackend(settings.index_memory_bytes)
    from indexer.milvus.backend import MilvusBackend

    return MilvusBackend.of(settings)


def check_generation(
    folder: Path,
    manifest: Manifest,
    backend: Backend,
    *,
    at_most: int | None = None,
    thorough: bool = False,
) -> None:
    """Compare a generation with what was published, wherever its vectors lie.

    Args:
        folder: Where generations lie.
        manifest: Of the generation.
        backend: Holds its vectors.
        at_most: Compare only sizes of files of more bytes; None compares all digests.
        thorough: Read vectors that lie elsewhere, all of them.

    Raises:
        StorageError: If they differ (``generation-corrupt``), another backend holds the vectors
            (``backend-differs``), or the backend does not answer (``milvus-unreachable``).
    """
    require_own(backend, manifest)
    check_files(folder, manifest, at_most=at_most)
    place = folder / str(manifest.generation)
    try:
        backend.check(place, thorough=thorough)
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise corrupt(place, manifest, f"cannot be read ({error})") from error


def require_own(backend: Backend, manifest: Manifest) -> None:
    """Make sure that a generation's vectors lie where the settings say.

    Raises:
        StorageError: If they do not (``backend-differs``).
    """
    if manifest.backend != backend.name:
        raise StorageError(
            f"Generation {manifest.generation} was built for PARCELLE_VECTOR_BACKEND="
            f"{manifest.backend}, but it is {backend.name} now. Set it back, or rebuild the index "
            "from the database with: parcelle generations rebuild",
            kind="backend-differs",
        )


def raise_if_away(error: StorageError) -> None:
    """Raise an error of a server that does not answer: it says nothing about the generation."""
    if error.kind == "milvus-unreachable":
        raise error
