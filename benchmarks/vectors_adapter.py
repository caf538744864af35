r"""Parcelle as an engine of the harness that measures vector searches side by side.

    python $HARNESS/bench.py --data $HARNESS/data/100k --out r100k.json --budget 90 \
        --adapter benchmarks.vectors_adapter:Ours --only ours,hnswlib,qdrant-edge-hnsw

``Ours`` drives ``ParcelSearcher`` over a real catalog: a collection of synthetic parcels with their
crops, places and days in SQL, and a published generation. A filter is the ``ParcelFilter`` that
every door builds, made anew for each query. ``OursDescribed`` asks for the matches with all that is
known of them. The classes have the methods of the harness's ``adapters/base.py`` and do not inherit
from it, so that they can be imported without it.
"""

import gc
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.vectors.catalog import Meta, fill_catalog, records_of, row_of
from benchmarks.vectors.filters import parcel_filter
from indexer.catalog.database import connect, upgrade
from indexer.catalog.writing import delete_parcels, ensure_collection, save_observations
from indexer.generations.store import build_generation
from indexer.settings import Settings
from retriever.queries import ParcelFilter
from retriever.search import ParcelSearcher

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

RECALLS = (0.9, 0.95, 0.99)
"""What a search can be asked for."""


class Ours:
    """``ParcelSearcher.nearest``, with the catalog's parcels behind it.

    Args:
        workdir: Folder of the catalog and its generations.
        n: Rows of the harness.
        dim: Numbers of a vector.
    """

    name = "ours"
    filtering = "native"
    durable_add = True
    max_n = 10**9
    insert_batch = 1000
    notes = "SQLite catalog with synchronous=FULL: a commit is fsynced when it returns"
    _space_id: ClassVar[int] = 1

    def __init__(self, workdir: str, n: int, dim: int) -> None:
        self.workdir, self.n, self.dim = workdir, n, dim
        self.settings = Settings(data_dir=Path(workdir), database_url="", croma_weights="untrained")
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.threads = 1
        self.recall = 0.95

    # Life cycle ------------------------------------------------------------------------------

    def build(self, vectors: FloatArray, meta: Meta) -> dict[str, float]:
        """Write the catalog, publish a generation, open it."""
        engine = connect(self.settings)
        upgrade(engine)
        began = time.perf_counter()
        space_id, collection_id = fill_catalog(engine, vectors, meta)
        filled = time.perf_counter()
        build_generation(engine, self.settings.generations_dir, space_id, collection_id)
        engine.dispose()
        gc.collect()
        built = time.perf_counter()
        self.open()
        return {"catalog_s": filled - began, "generation_s": built - filled}

    def save(self) -> None:
        """What is committed and published is on disk; let the system end its other writing."""
        os.sync()

    def open(self) -> None:
        """Open the catalog, and another connection for what is written, as another process has."""
        self.searcher = ParcelSearcher.open(self.settings)
        self._writer = connect(self.settings)

    def close(self) -> None:
        """Let go of both."""
        self.searcher.close()
        self._writer.dispose()

    def child_pids(self) -> list[int]:
        """No other process."""
        return []

    # Searching -------------------------------------------------------------------------------

    def param_grid(self) -> list[dict[str, float]]:
        """The recalls that an index is tuned for; there is no other knob."""
        return [{"recall": recall} for recall in RECALLS]

    def set_params(self, recall: float = 0.95) -> None:
        """Of all searches from now on."""
        self.recall = recall

    def set_threads(self, threads: int) -> None:
        """Of batches; a single query never takes more than one."""
        self.threads = threads
        faiss.omp_set_num_threads(threads)

    def search(self, query: FloatArray, k: int) -> IntArray:
        """Rows of the nearest vectors, the nearest first."""
        return self.searcher.nearest(query, k=k, recall=self.recall).ids - 1

    def search_batch(self, queries: FloatArray, k: int) -> Sequence[IntArray]:
        """The same of many queries."""
        found = self.searcher.nearest_many(queries, k=k, recall=self.recall, threads=self.threads)
        return [one.ids - 1 for one in found]

    def search_filtered(self, query: FloatArray, k: int, flt: dict[str, Any]) -> IntArray:
        """The same among the rows that a filter of the harness allows."""
        where = parcel_filter(flt)
        return self.searcher.nearest(query, k=k, where=where, recall=self.recall).ids - 1

    # Changing --------------------------------------------------------------------------------

    def add(self, vectors: FloatArray, meta: Meta, ids: IntArray) -> None:
        """Write parcels as ``reindex`` does, in one transaction that is on disk at the end."""
        records = records_of(ids, vectors, meta)
        with self._writer.begin() as connection:
            collection_id = ensure_collection(connection, records[0].parcel.collection)
            save_observations(connection, collection_id, self._space_id, records, list(vectors), 0)

    def delete(self, ids: IntArray) -> None:
        """Delete parcels with all that was observed of them, likewise."""
        with self._writer.begin() as connection:
            delete_parcels(connection, (np.asarray(ids) + 1).tolist())

    # Size ------------------------------------------------------------------------------------

    def disk_bytes(self) -> int:
        """Blocks of catalog and generations, the write-ahead log included."""
        return sum(
            (Path(folder) / name).lstat().st_blocks * 512
            for folder, _, names in os.walk(self.workdir)
            for name in names
        )

    def stats(self) -> dict[str, float]:
        """No counters."""
        return {}


class OursIndex(Ours):
    """The index alone, as ``ParcelSearcher`` holds it: what its layers cost is the difference.

    With a filter it is ``Ours``, and it knows nothing of changes.
    """

    name = "ours-index"

    def open(self) -> None:
        """Open the catalog, and hold the generation that answers now."""
        super().open()
        (self.generation,) = self.searcher.generations()

    def search(self, query: FloatArray, k: int) -> IntArray:
        """Rows of the nearest vectors, the nearest first."""
        _, rows, _ = self.generation.index.search(query, k, recall=self.recall)
        return self.generation.columns.ids[rows] - 1

    def add(self, vectors: FloatArray, meta: Meta, ids: IntArray) -> None:
        """Not in a published index."""
        raise NotImplementedError("a published index never changes")

    def delete(self, ids: IntArray) -> None:
        """Not from a published index."""
        raise NotImplementedError("a published index never changes")


class OursDescribed(Ours):
    """``ParcelSearcher.similar_by_vector``: the matches with all that is known of them."""

    name = "ours-described"

    def search(self, query: FloatArray, k: int) -> IntArray:
        """Rows of the matches."""
        return self._asked(query, k, ParcelFilter())

    def search_batch(self, queries: FloatArray, k: int) -> Sequence[IntArray]:
        """One after the other: only ids are asked for in batches."""
        return [self.search(query, k) for query in queries]

    def search_filtered(self, query: FloatArray, k: int, flt: dict[str, Any]) -> IntArray:
        """The same among the rows that a filter of the harness allows."""
        return self._asked(query, k, parcel_filter(flt))

    def _asked(self, query: FloatArray, k: int, where: ParcelFilter) -> IntArray:
        found = self.searcher.similar_by_vector(query, k=k, where=where, recall=self.recall)
        return np.array([row_of(match.parcel_id) for match in found.matches], dtype=np.int64)
