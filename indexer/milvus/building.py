"""Build a collection from vectors, measure what its searches need, and check it later."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from indexer.errors import StorageError
from indexer.milvus.effort import Effort, exact
from indexer.milvus.index import MilvusIndex, Parameters, corrupt
from indexer.milvus.server import SECONDS_TO_BUILD, MilvusServer, rows_at_once
from indexer.recall import RECALL_K
from indexer.vector_index.effort import RECALLS
from indexer.vector_index.sizing import SEARCHED_WHOLE, choose_nlist

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]

Note = Callable[[str], None]

QUERIES = 128
"""Stored vectors that are asked for ten others, each without itself."""

_DEPTHS = ((RECALL_K, QUERIES), (100, 32), (1000, 8))
"""Results that recall is measured for, and queries: a filter takes more than ten."""

_READ_BACK = 256
"""Vectors that are compared as soon as a collection is built."""

_BLOCK = 20_000

_SEGMENT_ROWS = 50_000
"""Of Milvus Lite. It cuts a collection where its memory is full: a last piece of a few rows could
not fill its lists. A server cuts and merges pieces as it sees fit."""


def build_collection(
    server: MilvusServer,
    collection: str,
    vectors: Vectors,
    *,
    seed: int = 0,
    note: Note = lambda _: None,
) -> Parameters:
    """Fill a new collection, have its lists built, and measure its searches.

    Args:
        server: Where to.
        collection: Its name; one that is there is replaced.
        vectors: Shape ``(n, d)``, unit length, n at least 1; read from end to end three times.
        seed: Of the queries that are drawn.
        note: Is told of each step.

    Returns:
        What must be known to search it; row ``i`` is row ``i`` of ``vectors``.

    Raises:
        StorageError: If Milvus does not answer (``milvus-unreachable``), or holds something else
            than it was given (``write-failed``). What was begun is dropped.
    """
    try:
        return _build(server, collection, vectors, seed, note)
    except BaseException:
        _drop_quietly(server, collection)
        raise


def _build(
    server: MilvusServer, collection: str, vectors: Vectors, seed: int, note: Note
) -> Parameters:
    n, d = vectors.shape
    whole = n <= SEARCHED_WHOLE
    kind, nlist = ("FLAT", 1) if whole else ("IVF_FLAT", choose_nlist(n))
    note("sending vectors")
    server.create(collection, d)
    digest = hashlib.sha256()
    for first, last in pairwise(_cuts(server, n)):
        for at, block in _blocks(vectors[first:last]):
            server.insert(collection, first + at, block)
            digest.update(block.astype("<f4", copy=False).tobytes())
        server.call("flush", collection, seconds=SECONDS_TO_BUILD)
    note("building lists")
    server.make_index(collection, kind, nlist)
    unknown = {recall: Effort(0.0, ((RECALL_K, nlist),)) for recall in RECALLS}
    parameters = Parameters(
        collection, n, d, kind, nlist, exact() if whole else unknown, digest.hexdigest()
    )
    index = MilvusIndex(server, parameters)
    note("reading back")
    _read_back(server, index, collection, vectors, seed)
    if whole:
        return parameters
    note("measuring")
    efforts = _measured(index, vectors, seed)
    return Parameters(**{**parameters.__dict__, "efforts": efforts})


def check_collection(
    server: MilvusServer, parameters: Parameters, *, thorough: bool = False
) -> None:
    """Compare a collection with what was published.

    Args:
        server: Where it is.
        parameters: As they were published.
        thorough: Read all vectors, and compare their digest; else only the rows are counted.

    Raises:
        StorageError: If they differ (``generation-corrupt``), or Milvus does not answer
            (``milvus-unreachable``).
    """
    name = parameters.collection
    server.load(name)
    if (count := server.count(name)) != parameters.rows:
        raise corrupt(name, f"has {count} rows, but {parameters.rows} were published")
    if not thorough:
        return
    index, digest = MilvusIndex(server, parameters), hashlib.sha256()
    size = rows_at_once(parameters.dimensions)
    for at in range(0, parameters.rows, size):
        block = index.vectors(np.arange(at, min(at + size, parameters.rows)))
        digest.update(block.astype("<f4", copy=False).tobytes())
    if (found := digest.hexdigest()) != parameters.sha256:
        raise corrupt(
            name,
            f"is damaged: SHA-256 of its vectors is {found[:12]}…, {parameters.sha256[:12]}… was "
            "published",
        )


def _cuts(server: MilvusServer, n: int) -> list[int]:
    """Where the rows are cut into pieces that are written one after the other."""
    pieces = -(-n // _SEGMENT_ROWS) if server.is_lite else 1
    return [n * piece // pieces for piece in range(pieces + 1)]


def _blocks(vectors: Vectors) -> Iterator[tuple[int, FloatArray]]:
    for at in range(0, len(vectors), _BLOCK):
        yield at, np.ascontiguousarray(vectors[at : at + _BLOCK], dtype=np.float32)


def _read_back(
    server: MilvusServer, index: MilvusIndex, collection: str, vectors: Vectors, seed: int
) -> None:
    rows = np.sort(np.random.default_rng(seed).permutation(index.rows)[:_READ_BACK])
    given = np.asarray(vectors[rows], dtype=np.float32)
    count = server.count(collection)
    if count != index.rows or not np.array_equal(index.vectors(rows), given):
        raise StorageError(
            f"Milvus at {server.address} holds something else than it was given: {count} of "
            f"{index.rows} rows, or other vectors. Nothing was published; the former generation "
            "goes on.",
            kind="write-failed",
        )


def _drop_quietly(server: MilvusServer, collection: str) -> None:
    """Drop what was begun; where the server is away, the next writer does it."""
    try:
        server.drop(collection)
    except StorageError:
        return


# Measuring -----------------------------------------------------------------------------------


def _measured(index: MilvusIndex, vectors: Vectors, seed: int) -> dict[float, Effort]:
    """The fewest lists that reach each recall, for several numbers of results."""
    own = np.random.default_rng(seed).permutation(index.rows)[: _DEPTHS[0][1]]
    queries = np.ascontiguousarray(vectors[own], dtype=np.float32)
    deepest = min(_DEPTHS[-1][0], index.rows - 1)
    true = _nearest(vectors, queries, own, deepest)
    pairs: dict[float, list[tuple[int, int]]] = {recall: [] for recall in RECALLS}
    reached: dict[float, float] = {}
    nprobe = 1
    for k, some in _DEPTHS:
        # More results need at least as many lists.
        grid = _shares(index, queries[:some], own[:some], true[:some, :k], nprobe)
        for recall in RECALLS:
            place = next((at for at, one in enumerate(grid) if one[1] >= recall), len(grid))
            # A step more than was enough: queries that are not stored find a little less.
            enough, share = grid[min(place + 1, len(grid) - 1)]
            before = pairs[recall][-1][1] if pairs[recall] else 1
            pairs[recall].append((k, max(enough, before)))
            reached.setdefault(recall, round(share, 6))
        nprobe = pairs[RECALLS[0]][-1][1]
    return {recall: Effort(reached[recall], tuple(pairs[recall])) for recall in RECALLS}


def _shares(
    index: MilvusIndex, queries: FloatArray, own: IntArray, true: IntArray, nprobe: int
) -> list[tuple[int, float]]:
    """Lists, and the share of the true nearest that is found in them, to a step past enough."""
    k = true.shape[1]
    grid: list[tuple[int, float]] = []
    enough = False
    while True:
        found = index.look(queries, k + 1, nprobe)
        others = [
            rows[rows != self_row][:k] for self_row, (_, rows) in zip(own, found, strict=True)
        ]
        share = float(np.mean([np.isin(t, f).mean() for t, f in zip(true, others, strict=True)]))
        grid.append((nprobe, share))
        if enough or nprobe == index.nlist:
            return grid
        enough = share >= RECALLS[-1]
        nprobe = min(index.nlist, nprobe + max(1, nprobe // 4))


def _nearest(vectors: Vectors, queries: FloatArray, own: IntArray, k: int) -> IntArray:
    """The k nearest of all vectors to some of them, each without itself, shape ``(n, k)``."""
    scores = np.empty((len(queries), 0), dtype=np.float32)
    rows = np.empty((len(queries), 0), dtype=np.int64)
    for at, block in _blocks(vectors):
        near = queries @ block.T
        inside = (own >= at) & (own < at + len(block))
        near[inside, own[inside] - at] = -np.inf
        numbers = np.broadcast_to(np.arange(at, at + len(block)), near.shape)
        scores, rows = np.hstack([scores, near]), np.hstack([rows, numbers])
        if scores.shape[1] > k:
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            scores = np.take_along_axis(scores, best, axis=1)
            rows = np.take_along_axis(rows, best, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1)
