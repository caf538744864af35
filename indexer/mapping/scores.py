"""How well a map's classes agree with classes that are known, whatever their numbers.

All scores follow from one table of counts, which is added up block by block.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassScore:
    """How one known class was found."""

    number: int
    """In the truth."""
    name: str
    matched: int | None
    """The map's class that stands for it; None where there were too few."""
    recall: float
    """Share of its pixels that the matched class holds, 0 to 1."""
    precision: float
    """Share of the matched class's pixels that are of it, 0 to 1; 0 where none is matched."""
    f1: float
    """Harmonic mean of both."""
    support: int
    """Pixels of the class that are scored."""


@dataclass(frozen=True)
class MapScore:
    """Agreement of a map with a truth, over the pixels that both give a class."""

    oa: float
    """Overall accuracy, 0 to 1, after the one-to-one matching that makes it largest."""
    nmi: float
    """Normalized mutual information, 0 to 1 (arithmetic mean of both entropies)."""
    ari: float
    """Adjusted Rand index, at most 1; 0 is what chance gives."""
    pixels: int
    """Pixels scored."""
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Pixels by known class (rows, as ``per_class``) and by the map's class from 1 (columns)."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form; shares rounded to 4 digits."""
        return {
            "oa": round(self.oa, 4),
            "nmi": round(self.nmi, 4),
            "ari": round(self.ari, 4),
            "pixels": self.pixels,
            "per_class": [
                {
                    key: round(value, 4) if isinstance(value, float) else value
                    for key, value in asdict(score).items()
                }
                for score in self.per_class
            ],
        }


def count_pairs(labels: IntArray, truth: IntArray, k: int, classes: int) -> IntArray:
    """The table of counts of one block.

    Args:
        labels: The map's classes from 1 to k; 0 is no data. Any shape.
        truth: Known classes from 1; 0 is unlabelled. Same shape.
        k: Classes of the map.
        classes: Known classes.

    Returns:
        Shape ``(classes, k)``; pixels that either side gives no class do not count.
    """
    scored = (labels > 0) & (truth > 0)
    pairs = (truth[scored] - 1) * k + labels[scored] - 1
    counts: IntArray = np.bincount(pairs, minlength=classes * k).reshape(classes, k)
    return counts


def score(labels: IntArray, truth: IntArray, names: Mapping[int, str] | None = None) -> MapScore:
    """Score a whole map at once.

    Args:
        labels: The map's classes from 1; 0 is no data. Any shape.
        truth: Known classes from 1; 0 is unlabelled and not scored. Same shape.
        names: Of the known classes.
    """
    counts = count_pairs(labels, truth, int(labels.max(initial=1)), int(truth.max(initial=1)))
    return score_counts(counts, names)


def score_counts(counts: IntArray, names: Mapping[int, str] | None = None) -> MapScore:
    """Score a table of counts.

    Args:
        counts: Shape ``(known classes, k)``, as ``count_pairs`` gives.
        names: Of the known classes.

    References:
        Matching: Kuhn (1955), as ``scipy.optimize.linear_sum_assignment`` solves it. ARI: Hubert
        and Arabie (1985), Journal of Classification 2, 193-218.
    """
    matched = match_classes(counts)
    pixels = int(counts.sum())
    agreed = sum(int(counts[row, column]) for row, column in matched.items())
    return MapScore(
        oa=agreed / max(pixels, 1),
        nmi=_normalized_mutual_information(counts),
        ari=_adjusted_rand_index(counts),
        pixels=pixels,
        per_class=tuple(
            _class_score(counts, row, matched.get(row), names or {})
            for row in np.flatnonzero(counts.sum(axis=1)).tolist()
        ),
        confusion=tuple(tuple(row.tolist()) for row in counts[counts.sum(axis=1) > 0]),
    )


def match_classes(counts: IntArray) -> dict[int, int]:
    """Known class to the map's class, one to one, such that most pixels agree; from 0 both."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(counts, maximize=True)
    return {
        int(row): int(column)
        for row, column in zip(rows, columns, strict=True)
        if counts[row, column] > 0
    }


def _class_score(
    counts: IntArray, row: int, column: int | None, names: Mapping[int, str]
) -> ClassScore:
    support = int(counts[row].sum())
    hit = 0 if column is None else int(counts[row, column])
    held = 0 if column is None else int(counts[:, column].sum())
    return ClassScore(
        number=row + 1,
        name=names.get(row + 1, f"class {row + 1}"),
        matched=None if column is None else column + 1,
        recall=hit / support,
        precision=hit / held if held else 0.0,
        f1=2 * hit / (support + held),
        support=support,
    )


def _normalized_mutual_information(counts: IntArray) -> float:
    total = counts.sum()
    if total == 0:
        return 0.0
    both = counts / total
    rows, columns = both.sum(axis=1), both.sum(axis=0)
    entropies = _entropy(rows) + _entropy(columns)
    if entropies == 0:
        # One class on either side: the same partition.
        return 1.0
    mutual = _entropy(rows) + _entropy(columns) - _entropy(both.ravel())
    return float(max(0.0, 2 * mutual / entropies))


def _entropy(shares: Float64Array) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())


def _adjusted_rand_index(counts: IntArray) -> float:
    def pairs(n: IntArray) -> float:
        return float((n.astype(np.float64) * (n - 1) / 2).sum())

    together = pairs(counts)
    rows, columns = pairs(counts.sum(axis=1)), pairs(counts.sum(axis=0))
    every = pairs(np.array([counts.sum()]))
    if every == 0:
        return 1.0
    expected = rows * columns / every
    largest = (rows + columns) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)
