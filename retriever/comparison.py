"""Parcels side by side, on dates that can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from retriever.candidates import COMPARABLE
from retriever.history import Peak, Reliability, Trend, dated
from retriever.observed import ObservedState
from retriever.state import ParcelFacts

FloatArray = npt.NDArray[np.float32]

MOST_COMPARED = 5


@dataclass(frozen=True)
class Compared:
    """One parcel of a comparison."""

    parcel: ParcelFacts
    observation: ObservedState | None
    """The reliable observation that is held against those of the others; None without any."""
    reliability: Reliability
    trend: Trend | None
    peak: Peak | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        parts = {"observation": self.observation, "trend": self.trend, "peak": self.peak}
        return {
            **self.parcel.to_dict(),
            **{name: None if part is None else part.to_dict() for name, part in parts.items()},
            "reliability": self.reliability.to_dict(),
        }


@dataclass(frozen=True)
class Comparison:
    """Parcels side by side."""

    parcels: tuple[Compared, ...]
    scores: dict[tuple[int, int], float]
    """Cosine similarity of the observations of two parcels, by their places in ``parcels``; only
    where both have a vector in one space."""
    spaces: tuple[dict[str, Any], ...]
    """The embedding spaces of the scores."""
    notes: tuple[str, ...] = ()

    @property
    def days_apart(self) -> float | None:
        """Days between the first and the last of the observations; None where one is missing."""
        times = [one.observation.acquired_at for one in self.parcels if one.observation is not None]
        known = [time for time in times if time is not None]
        if len(known) < len(self.parcels):
            return None
        return (max(known) - min(known)).total_seconds() / 86_400

    @property
    def comparable(self) -> bool:
        """Whether all were observed at about the same time."""
        days = self.days_apart
        return days is not None and days <= COMPARABLE.days

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        days = self.days_apart
        return {
            "parcels": [one.to_dict() for one in self.parcels],
            "scores": [
                {"a": self._key(a), "b": self._key(b), "score": round(score, 4)}
                for (a, b), score in self.scores.items()
            ],
            "comparable": self.comparable,
            "days_apart": None if days is None else round(days, 1),
            "spaces": list(self.spaces),
            "notes": list(self.notes),
        }

    def _key(self, place: int) -> dict[str, str]:
        parcel = self.parcels[place].parcel
        return {"collection": parcel.collection, "id": parcel.parcel_id}


def comparable_observations(
    series: Sequence[Sequence[ObservedState]],
) -> list[ObservedState | None]:
    """One reliable observation of each parcel, as late as they can be and still be compared.

    Args:
        series: The observations of each parcel.

    Returns:
        The observations around the latest date at which all were seen within ``COMPARABLE`` of
        each other; without such a date, the latest of each. None for a parcel without any.
    """
    reliable = [dated(observations) for observations in series]
    moments = sorted({when for pairs in reliable for when, _ in pairs}, reverse=True)
    for latest in moments:
        within = [
            [seen for when, seen in pairs if timedelta() <= latest - when <= COMPARABLE]
            for pairs in reliable
        ]
        if all(some or not pairs for some, pairs in zip(within, reliable, strict=True)):
            return [some[-1] if some else None for some in within]
    return [pairs[-1][1] if pairs else None for pairs in reliable]


def pairwise_scores(
    vectors: Sequence[tuple[int, FloatArray] | None],
) -> dict[tuple[int, int], float]:
    """Cosine similarities of the vectors that are from one space.

    Args:
        vectors: Space and unit vector of each, or None.
    """
    scores: dict[tuple[int, int], float] = {}
    for (a, one), (b, other) in combinations(enumerate(vectors), 2):
        if one is not None and other is not None and one[0] == other[0]:
            scores[a, b] = float(np.clip(one[1] @ other[1], -1.0, 1.0))
    return scores
