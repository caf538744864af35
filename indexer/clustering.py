"""Spherical K-means on unit vectors: centroids from a sample, then a label for every row."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MAX_TRAINING_ROWS = 20_000
"""Rows that centroids are trained on at most: 400 for each of 50 groups, 40 MB at 512-d.

FAISS itself takes no more than 256 for each.
"""

_ITERATIONS = 25
# Rows among which each beginning is chosen: with fewer, small groups are often missed.
_CANDIDATES = 16
_ROUNDING = 1e-6
# Products of an iteration, some 10 ms of one core, below which several threads lose more time to
# waiting for each other than they save: on a machine that is busy with other work, a hundredfold.
_ONE_THREAD = 100_000_000


def train_centroids(
    vectors: FloatArray, k: int, seed: int = 0, *, beginnings: int = 1
) -> FloatArray:
    """Find k directions such that each vector is close to one of them.

    Args:
        vectors: Shape ``(n, d)``, unit length; n >= k.
        k: Groups wanted, at least 1.
        seed: Decides where the search begins.
        beginnings: So many searches are made, and the one whose vectors are closest to their
            directions is taken: a single one may end where it should not.

    Returns:
        Unit length, shape ``(k, d)``; some may be alike where there are fewer different vectors.

    References:
        Dhillon and Modha (2001), Machine Learning 42, https://doi.org/10.1023/A:1007612920971;
        its beginning after Arthur and Vassilvitskii (2007), k-means++.
    """
    random = np.random.default_rng(seed)
    with _threads_for(vectors.size * k):
        # The first search does not depend on how many follow.
        found = [_search(vectors, k, seed, random) for _ in range(beginnings)]
    return max(found, key=lambda one: one[1])[0]


def _search(
    vectors: FloatArray, k: int, seed: int, random: np.random.Generator
) -> tuple[FloatArray, float]:
    """Centroids, and the sum of the cosines to the nearest of them."""
    n, d = vectors.shape
    kmeans = faiss.Kmeans(
        d,
        k,
        niter=_ITERATIONS,
        spherical=True,
        seed=seed + 1,
        # All rows that are given are taken, and few of them are no mistake to be warned of.
        max_points_per_centroid=n,
        min_points_per_centroid=1,
    )
    kmeans.train(vectors, init_centroids=_spread(vectors, k, random))
    return np.asarray(kmeans.centroids, np.float32).reshape(k, d), float(kmeans.obj[-1])


def nearest_centroids(vectors: FloatArray, centroids: FloatArray) -> tuple[IntArray, FloatArray]:
    """The group of each vector.

    Args:
        vectors: Shape ``(n, d)``, unit length.
        centroids: Shape ``(k, d)``, unit length.

    Returns:
        Positions of the closest centroids, the first among equals, and the cosine similarity to
        them; shape ``(n,)`` both.
    """
    cosines = vectors @ centroids.T
    labels: IntArray = cosines.argmax(axis=1)
    return labels, cosines[np.arange(len(vectors)), labels]


def largest_first(labels: IntArray, k: int) -> tuple[IntArray, int]:
    """Number groups by their size, so that the same groups always have the same numbers.

    Args:
        labels: 0 to k - 1, shape ``(n,)``.
        k: Groups, of which some may be empty.

    Returns:
        Labels from 1 for the largest group, of equals the one whose first row comes first; and
        how many groups hold a row at all.
    """
    sizes = np.bincount(labels, minlength=k)
    first = np.full(k, len(labels))
    np.minimum.at(first, labels, np.arange(len(labels)))
    order = np.lexsort((first, -sizes))
    numbers = np.empty(k, dtype=np.int64)
    numbers[order] = np.arange(1, k + 1)
    return numbers[labels], int((sizes > 0).sum())


@contextmanager
def _threads_for(products: int) -> Iterator[None]:
    """As many threads of FAISS as so much work is worth."""
    allowed = faiss.omp_get_max_threads()
    if products < _ONE_THREAD:
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(allowed)


def _spread(vectors: FloatArray, k: int, random: np.random.Generator) -> FloatArray:
    """Rows far from each other to begin with: of some drawn by their squared distance, the best.

    Rows drawn evenly would come from the largest groups, and leave small ones without any.
    """
    chosen = [int(random.integers(len(vectors)))]
    distance = _squared_distances(vectors, vectors[chosen])[:, 0]
    while len(chosen) < k:
        total = distance.sum()
        share = distance / total if total > 0 else None
        drawn = random.choice(len(vectors), _CANDIDATES, p=share)
        left = np.minimum(distance[:, None], _squared_distances(vectors, vectors[drawn]))
        best = int(left.sum(axis=0).argmin())
        chosen.append(int(drawn[best]))
        distance = left[:, best]
    return vectors[chosen]


def _squared_distances(vectors: FloatArray, others: FloatArray) -> npt.NDArray[np.float64]:
    """Between unit vectors, ``2 - 2 cos``, shape ``(n, m)``; 0 within rounding."""
    squared = 2 - 2 * (vectors @ others.T).astype(np.float64)
    return np.where(squared < _ROUNDING, 0.0, squared)
