"""How many classes an image has, as far as its features tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.mapping.methods import METHODS, Method
from indexer.progress import Progress, Silent

FloatArray = npt.NDArray[np.float32]

CANDIDATES = tuple(range(2, 16))
"""Numbers of classes that are tried."""

CRITERION = "silhouette"

# Silhouettes compare all pairs: 16 million of them.
_SAMPLE = 4_000


@dataclass(frozen=True)
class KChoice:
    """A number of classes and why it was chosen."""

    k: int
    candidates: tuple[int, ...]
    """Numbers that were tried; none where there was no choice."""
    score: tuple[float, ...]
    """Of each candidate; higher is better."""
    criterion: str
    """What the scores are."""
    reason: str
    """One sentence."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "k": self.k,
            "criterion": self.criterion,
            "candidates": list(self.candidates),
            "score": [round(value, 4) for value in self.score],
            "reason": self.reason,
        }


def choose_k(
    features: FloatArray,
    method: str,
    seed: int = 0,
    *,
    candidates: Sequence[int] = CANDIDATES,
    prepared: Method | None = None,
    progress: Progress | None = None,
) -> KChoice:
    """Choose the number of classes whose mean silhouette is largest.

    Args:
        features: A sample, shape ``(n, d)``.
        method: One of ``METHODS``.
        seed: Decides where searches begin and which rows are compared.
        candidates: Numbers to try.
        prepared: The method, prepared with the same features and seed, where that is done already.
        progress: Is told how far the work has come.

    References:
        Rousseeuw (1987), Silhouettes, Journal of Computational and Applied Mathematics 20, 53-65.
    """
    progress = progress or Silent()
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(len(features), min(_SAMPLE, len(features)), replace=False))
    prepared = prepared or METHODS[method](features, seed)
    tried: dict[int, float] = {}
    progress.start("Choosing k", len(candidates))
    for k in candidates:
        fitted = prepared.fit(k)
        if fitted.k == k:
            value = _silhouette(features[rows], fitted.predict(features[rows]))
            if value is not None:
                tried[k] = value
        progress.advance(1)
    progress.finish()
    if not tried:
        return KChoice(1, (), (), CRITERION, "k = 1: all pixels look alike.")
    best = max(tried, key=lambda k: tried[k])
    return KChoice(
        best,
        tuple(tried),
        tuple(tried.values()),
        CRITERION,
        f"k = {best}: the largest mean silhouette, {tried[best]:.3f}, of "
        f"{min(tried)} to {max(tried)} classes.",
    )


def _silhouette(features: FloatArray, labels: npt.NDArray[np.int64]) -> float | None:
    """Mean silhouette; None where it is not defined."""
    from sklearn.metrics import silhouette_score

    classes = len(np.unique(labels))
    if not 2 <= classes < len(labels):
        return None
    return float(silhouette_score(features, labels))
