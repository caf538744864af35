"""Which new cluster is a former one: certain, or a question to the expert who named it.

A new clustering numbers its clusters anew, so a name must follow its parcels. It is carried over
only where all of this holds between a former and a new cluster:

- more than half of the former one's parcels are in the new one, and more than half of the new
  one's parcels were in the former one;
- the former one was not split: no other new cluster consists mostly of its parcels, unless they
  are less than a tenth of them;
- it was not merged: no other former cluster lies mostly in the new one, unless it is less than a
  tenth of it;
- in the same embedding space, where centers can be compared: each center is the other's nearest,
  they are a pair of the best one-to-one matching of all centers, and the distance between them is
  at most 0.8 of that to the second nearest on either side.

Everything else is uncertain, and asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAJORITY: Final = 0.5
"""Of each cluster's parcels, more than this share must be in the other."""
FRAGMENT: Final = 0.1
"""What is split off, or merged in, does not count below this share of the parcels."""
NEAREST_RATIO: Final = 0.8
"""A center is clearly the nearest up to this share of the distance to the second nearest; as for
image features in Lowe (2004), https://doi.org/10.1023/B:VISI.0000029664.99615.94, section 7.1."""

_MOST_CANDIDATES = 3


@dataclass(frozen=True)
class Candidate:
    """A new cluster that a name may belong to."""

    number: int
    shared: float | None
    """Share of the former cluster's parcels that are in it, 0 to 1; None if that is not known."""
    cosine: float | None
    """Between the centers; None in another space, where they cannot be compared."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "cluster": self.number,
            "shared": None if self.shared is None else round(self.shared, 4),
            "cosine": None if self.cosine is None else round(self.cosine, 4),
        }


@dataclass(frozen=True)
class Verdict:
    """What became of one former cluster."""

    number: int | None
    """The new cluster that it certainly is; None if that is uncertain."""
    reason: str
    """Why it is uncertain; empty if it is certain."""
    candidates: tuple[Candidate, ...]
    """New clusters that it may be, the likeliest first."""


def count_shared(
    former: tuple[IntArray, IntArray], new: tuple[IntArray, IntArray], shape: tuple[int, int]
) -> IntArray:
    """How many parcels each former cluster shares with each new one.

    Args:
        former: Parcels and the numbers of their former clusters, from 1; shape ``(n,)`` both.
        new: Parcels and the numbers of their new clusters; shape ``(m,)`` both.
        shape: How many former and new clusters there are.

    Returns:
        Counts of that shape.
    """
    _, of_former, of_new = np.intersect1d(
        former[0], new[0], assume_unique=True, return_indices=True
    )
    counts = np.zeros(shape, dtype=np.int64)
    np.add.at(counts, (former[1][of_former] - 1, new[1][of_new] - 1), 1)
    return counts


def match_clusters(
    counts: IntArray,
    former_parcels: IntArray,
    new_parcels: IntArray,
    cosines: DoubleArray | None,
) -> list[Verdict]:
    """Find the new cluster of each former one.

    Args:
        counts: Parcels that they share, shape ``(former, new)``.
        former_parcels: Parcels of each former cluster, shape ``(former,)``.
        new_parcels: Parcels of each new cluster, shape ``(new,)``.
        cosines: Between the centers, shape ``(former, new)``; None where they are of different
            spaces.

    Returns:
        One verdict for each former cluster. No two name the same new cluster.
    """
    shares = _Shares(
        counts,
        former_parcels,
        counts / np.maximum(former_parcels, 1)[:, None],
        counts / np.maximum(new_parcels, 1)[None, :],
    )
    centers = None if cosines is None else _Centers(cosines)
    return [_verdict(row, shares, centers) for row in range(len(counts))]


@dataclass(frozen=True)
class _Shares:
    counts: IntArray
    former_parcels: IntArray
    of_former: DoubleArray
    """Share of the former cluster's parcels that are in the new one."""
    of_new: DoubleArray
    """Share of the new cluster's parcels that were in the former one."""


class _Centers:
    """Distances between former and new centers, and their best one-to-one matching."""

    def __init__(self, cosines: DoubleArray) -> None:
        # Imported only here: nothing but grouping needs it.
        from scipy.optimize import linear_sum_assignment

        self.cosines = cosines
        self._distances = np.sqrt(np.maximum(2 - 2 * cosines, 0))
        rows, columns = linear_sum_assignment(-cosines)
        self._pairs = dict(zip(rows.tolist(), columns.tolist(), strict=True))

    def are_a_pair(self, row: int, column: int) -> bool:
        """Whether these belong together, and clearly so from either side."""
        return self._pairs.get(row) == column and all(
            self._is_clear(distances, position)
            for distances, position in (
                (self._distances[row], column),
                (self._distances[:, column], row),
            )
        )

    def _is_clear(self, distances: DoubleArray, position: int) -> bool:
        others = np.delete(distances, position)
        # Strict as well, for where a second center is just as close as the nearest.
        return not len(others) or bool(
            distances[position] <= NEAREST_RATIO * others.min()
            and distances[position] < others.min()
        )


def _verdict(row: int, shares: _Shares, centers: _Centers | None) -> Verdict:
    column = int(shares.counts[row].argmax()) if shares.counts.shape[1] else 0
    reason = _doubt(row, column, shares, centers)
    return Verdict(
        number=None if reason else column + 1,
        reason=reason,
        candidates=_candidates(row, shares, centers),
    )


def _doubt(row: int, column: int, shares: _Shares, centers: _Centers | None) -> str:
    """Why a former cluster may not be this new one; empty where it certainly is."""
    here = f"cluster {column + 1}"
    if not shares.former_parcels[row]:
        return "no parcel is in it by its latest observation any more"
    if not shares.counts[row].any():
        return "none of its parcels are in any cluster now"
    parts = _split_into(row, column, shares)
    if parts:
        *first, last = (str(part + 1) for part in sorted((column, *parts)))
        return f"it was split into clusters {', '.join(first)} and {last}"
    if shares.of_former[row, column] <= MAJORITY:
        return f"no more than {_percent(shares.of_former[row, column])} of its parcels are together"
    if _merged_in(row, column, shares):
        return f"{here} joins it with others"
    if shares.of_new[row, column] <= MAJORITY:
        return f"only {_percent(shares.of_new[row, column])} of {here} are parcels of it"
    if centers is not None and not centers.are_a_pair(row, column):
        return f"its center is not clearly the one of {here}"
    return ""


def _split_into(row: int, column: int, shares: _Shares) -> list[int]:
    """Other new clusters that are mostly parts of a former one."""
    parts = (shares.of_new[row] > MAJORITY) & (shares.of_former[row] >= FRAGMENT)
    return [part for part in np.flatnonzero(parts).tolist() if part != column]


def _merged_in(row: int, column: int, shares: _Shares) -> list[int]:
    """Other former clusters that are mostly in a new one."""
    parts = (shares.of_former[:, column] > MAJORITY) & (shares.of_new[:, column] >= FRAGMENT)
    return [part for part in np.flatnonzero(parts).tolist() if part != row]


def _candidates(row: int, shares: _Shares, centers: _Centers | None) -> tuple[Candidate, ...]:
    shared = shares.of_former[row]
    cosines = None if centers is None else centers.cosines[row]
    likeliest = np.lexsort((np.zeros_like(shared) if cosines is None else -cosines, -shared))
    return tuple(
        Candidate(position + 1, float(shared[position]), _at(cosines, position))
        for position in likeliest.tolist()[:_MOST_CANDIDATES]
        if shared[position] > 0 or (cosines is not None and position == likeliest[0])
    )


def nearest_candidates(cosines: DoubleArray) -> tuple[Candidate, ...]:
    """The new clusters closest to a center whose parcels are not known.

    Args:
        cosines: To the new centers, shape ``(new,)``.
    """
    order = np.argsort(-cosines, kind="stable")[:_MOST_CANDIDATES]
    return tuple(
        Candidate(position + 1, None, float(cosines[position])) for position in order.tolist()
    )


def _at(cosines: Sequence[float] | DoubleArray | None, position: int) -> float | None:
    return None if cosines is None else float(cosines[position])


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
