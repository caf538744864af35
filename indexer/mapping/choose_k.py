"""How many classes an unlabelled image holds: the knee of an error curve.

Pixels are put into many small groups, which are merged pair by pair, and the error at each number
of classes is kept. Merging two classes raises it much, merging two parts of one class little: the
curve bends at the number of classes. The bend is sought in two views of the same pixels together,
because each misses what the other shows; see ``views``.

References:
    Satopaa, Albrecht, Irwin and Raghavan (2011), Finding a "kneedle" in a haystack, ICDCS
    Workshops, 166-171.
    Ward (1963), Hierarchical grouping to optimize an objective function, Journal of the American
    Statistical Association 58, 236-244.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexer.progress import Progress, Silent

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

CANDIDATES: Final = tuple(range(2, 16))
"""Numbers of classes to choose from. They are fixed, because the knee depends on where the curve
ends: where nothing bends it, it is found near 5 or 6 of 15."""

CRITERION: Final = "knee of the error"

MICRO_CLUSTERS: Final = 200
"""Groups that are merged; as many cost the same whatever the image's size."""

SAMPLE_PIXELS: Final = 5_000
"""Pixels of one sample, 25 for each group."""

REPEATS: Final = 5
"""Samples whose curves are averaged: the knee of one alone moves by 1 or 2."""

MAX_PIXELS: Final = REPEATS * SAMPLE_PIXELS
"""Pixels of an image that are looked at, whatever its size."""

ERROR_FLOOR: Final = 1e-4
"""Share of the variance below which nothing is gained: equal pixels have no logarithm."""


@dataclass(frozen=True)
class KChoice:
    """A number of classes, why it was chosen and how firm that is."""

    k: int
    reason: str
    """One sentence."""
    candidates: tuple[int, ...] = ()
    """Numbers that were tried; none where there was no choice."""
    scores: tuple[float, ...] = ()
    """Of each candidate: depth of the curve below the line between its ends, as a share of its
    fall; deepest at ``k``."""
    errors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Of each view, the share of the variance that is left at 1, 2, 3 ... classes."""
    repeats: tuple[int, ...] = ()
    """What each sample alone gives: their spread tells how firm the choice is."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "k": self.k,
            "criterion": CRITERION if self.candidates else "given",
            "candidates": list(self.candidates),
            "scores": [round(score, 4) for score in self.scores],
            "errors": {
                view: [float(f"{error:.4g}") for error in errors]
                for view, errors in self.errors.items()
            },
            "repeats": list(self.repeats),
            "reason": self.reason,
        }


def choose_k(
    views: Mapping[str, FloatArray], seed: int = 0, progress: Progress | None = None
) -> KChoice:
    """Choose the number of classes at the knee of the error of Ward's hierarchy.

    With ``e_v(k)`` the share of the variance that k classes leave in view v, the knee of
    ``y(k) = sum_v log e_v(k)`` is where y lies deepest below the straight line between its ends
    (Kneedle). An image without structure gets the knee of a power of k, not 1.

    Args:
        views: The same pixels in the same order, by name; shape ``(n, d)`` each, n at least 1.
            No more than ``MAX_PIXELS`` are needed.
        seed: Decides which pixels each sample holds and where K-means begins.
        progress: Is told how far the work has come.

    Raises:
        ValueError: If views differ in length.

    References:
        Satopaa et al. (2011) and Ward (1963), as above.
    """
    progress = progress or Silent()
    pixels, *others = (len(view) for view in views.values())
    if set(others) - {pixels}:
        raise ValueError(f"views of {pixels} and {others} pixels; give the same in each")
    different = min(len(np.unique(view, axis=0)) for view in views.values())
    candidates = tuple(k for k in CANDIDATES if k <= different)
    if not candidates:
        return KChoice(1, "k = 1: all pixels are the same.")
    samples: list[Float64Array] = []
    progress.start("Choosing k", REPEATS)
    for repeat in range(REPEATS):
        random = np.random.default_rng(seed + repeat)
        rows = random.choice(pixels, min(pixels, SAMPLE_PIXELS), replace=False)
        samples.append(np.stack([_errors(view[rows], seed + repeat) for view in views.values()]))
        progress.advance(1)
    progress.finish()
    curves = np.log(np.maximum(samples, ERROR_FLOOR))
    scores = _depth(curves.mean(axis=0).sum(axis=0))[1 : candidates[-1]]
    repeats = [
        candidates[_depth(curve.sum(axis=0))[1 : candidates[-1]].argmax()] for curve in curves
    ]
    left = np.exp(curves.mean(axis=0))
    k = candidates[scores.argmax()]
    return KChoice(
        k=k,
        reason=_reason(k, dict(zip(views, left[:, k - 1].tolist(), strict=True)), repeats),
        candidates=candidates,
        scores=tuple(scores.tolist()),
        errors=dict(zip(views, map(tuple, left.tolist()), strict=True)),
        repeats=tuple(repeats),
    )


def _reason(k: int, left: Mapping[str, float], repeats: list[int]) -> str:
    shares = " and ".join(
        f"{f'{share:.0%}' if share >= 0.01 else 'under 1%'} ({view})"
        for view, share in left.items()
    )
    least, most = min(repeats), max(repeats)
    alone = f"{len(repeats)} samples alone give {least} to {most}"
    if least == most:
        alone = f"each of {len(repeats)} samples alone gives {least}"
    return f"k = {k}: there the error bends most, with {shares} of the variance left; {alone}."


def _depth(curve: Float64Array) -> Float64Array:
    """How far a falling curve lies below the line between its ends, as a share of its fall."""
    fall = curve[0] - curve[-1]
    if fall <= 0:
        return np.zeros_like(curve)
    return np.asarray(np.linspace(1, 0, len(curve)) - (curve - curve[-1]) / fall)


def _errors(view: FloatArray, seed: int) -> Float64Array:
    """Share of the variance left at 1, 2 ... classes; 1 throughout where there is none."""
    sample = view.astype(np.float64)
    sample -= sample.mean(axis=0)
    total = float((sample**2).sum())
    last = CANDIDATES[-1]
    if total == 0:
        return np.ones(last)
    merged = _ward_costs(*_micro_clusters(sample, seed))[::-1]
    left = (total - np.concatenate([[0.0], np.cumsum(merged)])) / total
    return np.pad(left, (0, max(0, last - len(left))), mode="edge")[:last]


def _micro_clusters(sample: Float64Array, seed: int) -> tuple[Float64Array, Float64Array]:
    """Means and sizes of the groups that are merged."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    different = len(np.unique(sample, axis=0))
    kmeans = KMeans(min(MICRO_CLUSTERS, different), n_init=1, max_iter=30, random_state=seed)
    # One thread: on a busy machine several wait for each other, ten times as long as they work.
    with warnings.catch_warnings(), threadpool_limits(1):
        # Nearly equal pixels may fill fewer groups than there could be.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit_predict(sample)
    _, labels, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), sample.shape[1]))
    np.add.at(sums, labels, sample)
    return sums / sizes[:, None], sizes.astype(np.float64)


def _ward_costs(centers: Float64Array, sizes: Float64Array) -> list[float]:
    """Error that each merge adds, in order: ``n_i n_j / (n_i + n_j) |c_i - c_j|^2`` (Ward 1963).

    Written out because groups have sizes, which the libraries' hierarchies do not take.
    """
    apart = ((centers[:, None] - centers) ** 2).sum(axis=2)
    cost = apart * sizes[:, None] * sizes / (sizes[:, None] + sizes)
    np.fill_diagonal(cost, np.inf)
    costs: list[float] = []
    while len(sizes) > 1:
        i, j = sorted(np.unravel_index(int(cost.argmin()), cost.shape))
        costs.append(float(cost[i, j]))
        both = sizes[i] + sizes[j]
        merged = (sizes[i] * centers[i] + sizes[j] * centers[j]) / both
        centers, sizes = np.delete(centers, j, axis=0), np.delete(sizes, j)
        centers[i], sizes[i] = merged, both
        cost = np.delete(np.delete(cost, j, axis=0), j, axis=1)
        added = ((centers - merged) ** 2).sum(axis=1) * sizes * both / (sizes + both)
        added[i] = np.inf
        cost[i], cost[:, i] = added, added
    return costs
