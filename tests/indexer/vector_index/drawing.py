"""Vectors that lie in clusters, as land that looks alike does, and their nearest by definition."""

from functools import cache

import numpy as np
import numpy.typing as npt

from indexer.vector_index.index import VectorIndex

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

DIMENSIONS = 64
KINDS = 40
"""Clusters; vector ``i`` belongs to cluster ``i % KINDS``."""


@cache
def clustered(n: int, dimensions: int = DIMENSIONS, seed: int = 0) -> FloatArray:
    """Unit vectors, shape ``(n, dimensions)``; the first of more are the same."""
    centers = np.random.default_rng(seed).standard_normal((KINDS, dimensions))
    noise = np.random.default_rng(seed + 1).standard_normal((n, dimensions))
    return unit(centers[np.arange(n) % KINDS] + 0.6 * noise)


def unit(vectors: npt.NDArray[np.floating]) -> FloatArray:
    """The same directions, of length 1."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


def nearest(vectors: FloatArray, query: FloatArray, k: int, allowed: IntArray) -> IntArray:
    """The k allowed rows with the largest inner products."""
    scores = vectors[allowed] @ query
    return allowed[np.argsort(-scores, kind="stable")[:k]]


def share_found(found: list[IntArray], true: list[IntArray]) -> float:
    """Recall: the share of the true neighbors that were found."""
    hits = sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(found, true, strict=True))
    return hits / sum(len(one) for one in true)


def contents(index: VectorIndex) -> FloatArray:
    """What an index holds, as exact as its copies; row ``i`` is its row ``i``."""
    return index.vectors(np.arange(index.rows))
