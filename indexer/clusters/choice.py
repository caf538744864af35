"""How many clusters: the number whose parcels lie best between their own and the next cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexer.clustering import nearest_centroids, train_centroids
from indexer.errors import InvalidInputError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MAX_SAMPLE: Final = 2_000
"""Vectors that a choice looks at: their distances to each other take 32 MB."""
MAX_CHOSEN: Final = 20
"""The largest k that is tried."""

BEGINNINGS: Final = 4
"""Searches that are made for each k, of which the best is taken."""

CRITERION: Final = "mean silhouette, cosine distance"
_NO_STRUCTURE = 0.25


@dataclass(frozen=True)
class Choice:
    """How the number of clusters came about."""

    k: int
    auto: bool
    """Whether it was chosen, not given."""
    seed: int
    sample: int = 0
    """Vectors that were looked at to choose; 0 where k was given."""
    candidates: tuple[tuple[int, float], ...] = ()
    """Each k that was tried, with its score: -1 to 1, higher is better."""

    @property
    def reason(self) -> str:
        """Why this k, in a sentence."""
        if not self.auto:
            return f"k = {self.k} was asked for."
        score = dict(self.candidates)[self.k]
        tried = f"{self.candidates[0][0]} to {self.candidates[-1][0]}"
        weak = "" if score > _NO_STRUCTURE else "; 0.25 or less means no substantial structure"
        more = "; it is the largest that was tried" if self.k == MAX_CHOSEN else ""
        return (
            f"k = {self.k} has the highest {CRITERION}, {score:.3f}, of {tried} on {self.sample} "
            f"vectors{weak}{more}."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form, as it is stored."""
        found: dict[str, Any] = {"k": self.k, "auto": self.auto, "seed": self.seed}
        if self.auto:
            found["criterion"] = CRITERION
            found["sample"] = self.sample
            found["candidates"] = [
                {"k": k, "score": round(score, 4)} for k, score in self.candidates
            ]
        return {**found, "reason": self.reason}


def numbers_to_try(vectors: int) -> range:
    """Each k that is tried for so many vectors."""
    return range(2, min(MAX_CHOSEN, MAX_SAMPLE - 1, vectors - 1) + 1)


def choose_k(
    vectors: FloatArray, seed: int = 0, tried: Callable[[], None] = lambda: None
) -> Choice:
    """Try 2 to 20 clusters and take the number with the highest mean silhouette.

    Args:
        vectors: Shape ``(n, d)``, unit length; of more than 2,000 a sample is drawn.
        seed: Decides the sample and where each search begins.
        tried: Is called after each number.

    Raises:
        InvalidInputError: If there are fewer than 3 vectors, or all are alike (``invalid-k``).

    References:
        Rousseeuw (1987), J. Comput. Appl. Math. 20, https://doi.org/10.1016/0377-0427(87)90125-7;
        that up to 0.25 there is no substantial structure: Kaufman and Rousseeuw (1990), Finding
        Groups in Data, table 4 of chapter 2.
    """
    sample = vectors
    if len(vectors) > MAX_SAMPLE:
        drawn = np.random.default_rng(seed).choice(len(vectors), MAX_SAMPLE, replace=False)
        sample = vectors[np.sort(drawn)]
    distances = np.clip(1 - sample @ sample.T, 0, 2)
    candidates: list[tuple[int, float]] = []
    for k in numbers_to_try(len(vectors)):
        labels, _ = nearest_centroids(
            sample, train_centroids(sample, k, seed, beginnings=BEGINNINGS)
        )
        score = mean_silhouette(distances, labels)
        tried()
        if score is not None:
            candidates.append((k, score))
    if not candidates or float(distances.max()) < _ALIKE:
        raise InvalidInputError(
            f"k cannot be chosen: there are {len(vectors)} vectors, and choosing takes 3 that "
            "differ. Give a number with --k.",
            kind="invalid-k",
        )
    # The smallest of equals.
    best = max(candidates, key=lambda one: (one[1], -one[0]))
    return Choice(best[0], True, seed, len(sample), tuple(candidates))


# A cosine distance that is within the rounding of float32.
_ALIKE = 1e-5


def mean_silhouette(distances: FloatArray, labels: IntArray) -> float | None:
    """How much closer the members of a cluster are to each other than to the next cluster.

    Args:
        distances: Between all vectors, shape ``(n, n)``.
        labels: Cluster of each, shape ``(n,)``.

    Returns:
        Mean of ``(b - a) / max(a, b)``, where a is the mean distance to the others of the same
        cluster and b that to the nearest other cluster; 0 for a vector alone in its cluster. None
        if there is one cluster only.
    """
    present, position = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        return None
    rows = np.arange(len(labels))
    inside = np.zeros((len(labels), len(present)), np.float32)
    inside[rows, position] = 1
    sizes = inside.sum(axis=0).astype(np.float64)
    sums = (distances @ inside).astype(np.float64)
    own_size = sizes[position]
    own = sums[rows, position] / np.maximum(own_size - 1, 1)
    means = sums / sizes
    means[rows, position] = np.inf
    other = means.min(axis=1)
    larger = np.maximum(own, other)
    score = np.divide(other - own, larger, out=np.zeros_like(own), where=larger > 0)
    return float(np.where(own_size > 1, score, 0).mean())
