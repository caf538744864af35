"""A parcel over time: trend, peak, last change, gaps. Only reliable observations count.

What clouds hide, and parcels too small for their pixels, are flagged by the observations
themselves and never averaged in. Where there are too few observations there is no answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from retriever.observed import ObservedState
from retriever.results import iso

FloatArray = npt.NDArray[np.float32]

TREND_INDEX = "NDVI"

TREND_OBSERVATIONS = 5
"""Most observations of a trend: the last ones."""

TREND_SPAN = timedelta(days=120)
"""Longest span of a trend; beyond it a crop has turned from growth to decline or the reverse."""

MIN_TREND_OBSERVATIONS = 3
"""Fewest observations of a trend: two make a difference, which the last change tells."""

SEASON = timedelta(days=365)
"""How far before the last observation a peak is looked for."""

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Reliability:
    """How well a parcel was seen."""

    observations: int
    reliable: int
    latest: datetime | None
    latest_reliable: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "observations": self.observations,
            "reliable": self.reliable,
            "latest": iso(self.latest),
            "latest_reliable": iso(self.latest_reliable),
        }


@dataclass(frozen=True)
class Trend:
    """How fast a spectral index has been changing."""

    index: str
    per_day: float
    """Theil-Sen slope: the median of the slopes between all pairs of observations, which one
    observation under an unseen cloud cannot turn (Sen 1968, Journal of the American Statistical
    Association 63(324), 1379-1389)."""
    observations: int
    start: datetime
    end: datetime

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "index": self.index,
            "per_day": round(self.per_day, 5),
            "observations": self.observations,
            "start": iso(self.start),
            "end": iso(self.end),
            "method": "Theil-Sen slope",
        }


@dataclass(frozen=True)
class Peak:
    """The highest median of a spectral index within ``SEASON`` of the last observation."""

    index: str
    median: float
    acquired_at: datetime
    since: datetime
    """The first observation that was considered."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "index": self.index,
            "median": round(self.median, 4),
            "datetime": iso(self.acquired_at),
            "since": iso(self.since),
        }


@dataclass(frozen=True)
class Change:
    """What changed between the last two observations that have a vector."""

    start: datetime
    end: datetime
    score: float
    """Cosine similarity of their vectors, -1 to 1; 1 is no change."""
    indices: dict[str, float]
    """Later median minus earlier median of each spectral index, unitless."""

    @property
    def days(self) -> float:
        """Days between the two."""
        return (self.end - self.start).total_seconds() / _DAY_S

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "start": iso(self.start),
            "end": iso(self.end),
            "days": round(self.days, 1),
            "score": round(self.score, 4),
            "indices": {name: round(value, 4) for name, value in self.indices.items()},
        }


@dataclass(frozen=True)
class Gaps:
    """Days between one reliable observation and the next."""

    typical_days: float
    """The median."""
    longest_days: float
    start: datetime
    """Before the longest gap."""
    end: datetime
    """After it."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "typical_days": round(self.typical_days, 1),
            "longest_days": round(self.longest_days, 1),
            "start": iso(self.start),
            "end": iso(self.end),
        }


def reliability_of(observations: Sequence[ObservedState]) -> Reliability:
    """How well a parcel was seen."""
    times = [seen.acquired_at for seen in observations if seen.acquired_at is not None]
    reliable = [
        seen.acquired_at for seen in observations if seen.reliable and seen.acquired_at is not None
    ]
    return Reliability(
        observations=len(observations),
        reliable=sum(seen.reliable for seen in observations),
        latest=max(times, default=None),
        latest_reliable=max(reliable, default=None),
    )


def dated(observations: Sequence[ObservedState]) -> list[tuple[datetime, ObservedState]]:
    """The reliable observations in order of time, one for each day.

    Neighboring Sentinel-2 tiles overlap, so that one overpass can observe a parcel twice; the
    observation with more valid pixels stands for the day.
    """
    best: dict[str, tuple[datetime, ObservedState]] = {}
    for seen in observations:
        if seen.acquired_at is None or not seen.reliable:
            continue
        day = f"{seen.acquired_at:%Y-%m-%d}"
        if day not in best or seen.valid_pixels > best[day][1].valid_pixels:
            best[day] = (seen.acquired_at, seen)
    return sorted(best.values(), key=lambda pair: pair[0])


def trend_of(observations: Sequence[ObservedState], index: str = TREND_INDEX) -> Trend | None:
    """How fast an index has been changing over the last observations, or None if too few."""
    series = _series(observations, index)[-TREND_OBSERVATIONS:]
    series = [(when, value) for when, value in series if series[-1][0] - when <= TREND_SPAN]
    if len(series) < MIN_TREND_OBSERVATIONS:
        return None
    slopes = [
        (later - earlier) / ((end - start).total_seconds() / _DAY_S)
        for (start, earlier), (end, later) in combinations(series, 2)
    ]
    return Trend(index, float(np.median(slopes)), len(series), series[0][0], series[-1][0])


def peak_of(observations: Sequence[ObservedState], index: str = TREND_INDEX) -> Peak | None:
    """When an index was highest, or None if it was not measured."""
    series = _series(observations, index)
    series = [(when, value) for when, value in series if series[-1][0] - when <= SEASON]
    if not series:
        return None
    when, value = max(series, key=lambda pair: pair[1])
    return Peak(index, value, when, series[0][0])


def last_change_of(
    observations: Sequence[ObservedState], vectors: Mapping[str, FloatArray]
) -> Change | None:
    """What changed between the last two observations with a vector, or None without two.

    Args:
        observations: Of one parcel.
        vectors: Unit vectors of its observations in one space, shape ``(d,)``, by scene.
    """
    embedded = dated([seen for seen in observations if seen.scene in vectors])[-2:]
    if len(embedded) < 2:
        return None
    (start, before), (end, after) = embedded
    score = float(np.clip(vectors[before.scene] @ vectors[after.scene], -1.0, 1.0))
    differences = {
        name: median - before.medians[name]
        for name, median in after.medians.items()
        if name in before.medians
    }
    return Change(start, end, score, differences)


def gaps_of(observations: Sequence[ObservedState]) -> Gaps | None:
    """How long a parcel goes unseen, or None without two reliable observations."""
    times = [when for when, _ in dated(observations)]
    gaps = [((end - start).total_seconds() / _DAY_S, start, end) for start, end in pairwise(times)]
    if not gaps:
        return None
    longest, start, end = max(gaps, key=lambda gap: gap[0])
    return Gaps(float(np.median([days for days, _, _ in gaps])), longest, start, end)


def _series(observations: Sequence[ObservedState], index: str) -> list[tuple[datetime, float]]:
    """Medians of an index over time."""
    return [
        (when, seen.medians[index]) for when, seen in dated(observations) if index in seen.medians
    ]
