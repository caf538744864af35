"""A parcel over time, held against definitions written out in NumPy."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.history import (
    MIN_TREND_OBSERVATIONS,
    SEASON,
    TREND_OBSERVATIONS,
    TREND_SPAN,
    Gaps,
    Peak,
    Reliability,
    dated,
    gaps_of,
    last_change_of,
    peak_of,
    reliability_of,
    trend_of,
)
from retriever.observed import ObservedState

FloatArray = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

START = datetime(2023, 3, 1, 10, 50, 31, tzinfo=UTC)


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def seen(
    day: float | None,
    ndvi: float | None = 0.5,
    *,
    reliable: bool = True,
    valid_pixels: float = 100.0,
    scene: str | None = None,
    **others: float,
) -> ObservedState:
    """An observation so many days after ``START``, with the medians of its indices."""
    medians = others if ndvi is None else {"NDVI": ndvi, **others}
    return ObservedState(
        acquired_at=None if day is None else at(day),
        scene=f"scene-{day}" if scene is None else scene,
        source="scene.tif",
        processing_baseline="05.09",
        pixels_inside=200.0,
        valid_pixels=valid_pixels,
        valid_fraction=valid_pixels / 200,
        covered_fraction=1.0,
        cloud_cover_percent=0.0,
        reliable=reliable,
        indices={
            name: {"median": value, "mean": 9.0, "std": 9.0, "p10": 9.0, "p90": 9.0}
            for name, value in medians.items()
        },
    )


def series(days: Sequence[float], values: Sequence[float]) -> list[ObservedState]:
    return [seen(*pair) for pair in zip(days, values, strict=True)]


def theil_sen(days: Sequence[float], values: Sequence[float]) -> float:
    """Every pair counted both ways round, which leaves the median where it is."""
    run, rise = (np.subtract.outer(of, of) for of in (np.array(days), np.array(values)))
    apart = run != 0
    return float(np.median(rise[apart] / run[apart]))


def slope(observations: Sequence[ObservedState]) -> float:
    trend = trend_of(observations)
    assert trend is not None
    return trend.per_day


# Trend ---------------------------------------------------------------------------------------

MEDIANS = st.floats(-1, 1, allow_subnormal=False)
DATED = st.lists(
    st.tuples(st.integers(0, 119), MEDIANS),
    min_size=MIN_TREND_OBSERVATIONS,
    max_size=TREND_OBSERVATIONS,
    unique_by=lambda pair: pair[0],
)


def test_the_bounds_of_a_trend_are_those_that_the_documentation_names() -> None:
    assert (MIN_TREND_OBSERVATIONS, TREND_OBSERVATIONS) == (3, 5)
    assert timedelta(days=120) == TREND_SPAN
    assert timedelta(days=365) == SEASON


@given(DATED)
def test_a_trend_is_the_median_of_the_slopes_of_all_pairs(pairs: list[tuple[int, float]]) -> None:
    days, values = zip(*pairs, strict=True)
    assert slope(series(days, values)) == pytest.approx(theil_sen(days, values), abs=1e-12)


@given(pairs=DATED, data=st.data())
def test_a_trend_does_not_depend_on_the_order_of_the_observations(
    pairs: list[tuple[int, float]], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(pairs))
    assert trend_of([seen(*pair) for pair in shuffled]) == trend_of([seen(*pair) for pair in pairs])


@given(pairs=DATED, factor=st.floats(-4, 4, allow_subnormal=False))
def test_a_trend_grows_with_the_index(pairs: list[tuple[int, float]], factor: float) -> None:
    scaled = [seen(day, factor * value) for day, value in pairs]
    expected = factor * slope([seen(*pair) for pair in pairs])
    assert slope(scaled) == pytest.approx(expected, abs=1e-12)


@given(pairs=DATED, shift=st.integers(-2000, 2000), level=MEDIANS)
def test_a_trend_knows_no_calendar_and_no_level(
    pairs: list[tuple[int, float]], shift: int, level: float
) -> None:
    moved = [seen(day + shift, level + value) for day, value in pairs]
    assert slope(moved) == pytest.approx(slope([seen(*pair) for pair in pairs]), abs=1e-12)


@given(DATED)
def test_the_same_values_over_half_the_days_make_twice_the_trend(
    pairs: list[tuple[int, float]],
) -> None:
    days, values = zip(*pairs, strict=True)
    # Two days apart at least, so that half of it is another day still.
    slow = [day - day % 2 for day in days]
    if len(set(slow)) == len(slow):
        fast = series([day / 2 for day in slow], values)
        assert slope(fast) == pytest.approx(2 * slope(series(slow, values)), abs=1e-12)


@given(rate=st.floats(-0.01, 0.01, allow_subnormal=False), pairs=DATED)
def test_a_straight_line_has_its_own_slope(rate: float, pairs: list[tuple[int, float]]) -> None:
    line = [seen(day, 0.4 + rate * day) for day, _ in pairs]
    assert slope(line) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_one_outlier_among_five_does_not_turn_a_trend(place: int, value: float) -> None:
    days, values = [0, 10, 20, 30, 40], [0.2, 0.3, 0.4, 0.5, 0.6]
    values[place] = value
    # Six of the ten pairs do without the outlier, and each of them rises by 0.01 a day.
    assert slope(series(days, values)) == pytest.approx(0.01)


def test_a_trend_is_computed_by_hand() -> None:
    # Slopes of the pairs: 0.2 / 10, 0.1 / 40, -0.1 / 30; the median is the one in the middle.
    trend = trend_of(series([0, 10, 40], [0.4, 0.6, 0.5]))
    assert trend is not None
    assert trend.per_day == pytest.approx(0.1 / 40)
    assert (trend.index, trend.observations) == ("NDVI", 3)
    assert (trend.start, trend.end) == (at(0), at(40))
    assert trend.to_dict() == {
        "index": "NDVI",
        "per_day": 0.0025,
        "observations": 3,
        "start": "2023-03-01T10:50:31Z",
        "end": "2023-04-10T10:50:31Z",
        "method": "Theil-Sen slope",
    }


def test_only_the_last_five_observations_make_a_trend() -> None:
    falling = [seen(day, 0.9 - day / 50) for day in range(0, 25, 5)]
    rising = [seen(day, day / 100) for day in range(30, 55, 5)]
    trend = trend_of([*falling, *rising])
    assert trend is not None
    assert trend.observations == 5
    assert trend.start == at(30)
    assert trend.per_day == pytest.approx(0.01)


@pytest.mark.parametrize(("first", "counted"), [(0, 4), (-1, 3)])
def test_only_the_last_120_days_make_a_trend(first: int, counted: int) -> None:
    rising = [seen(day, day / 200) for day in (40, 80, 120)]
    trend = trend_of([seen(first, 1.0), *rising])
    assert trend is not None
    assert trend.observations == counted
    assert trend.start == at(0 if counted == 4 else 40)


@pytest.mark.parametrize("days", [[], [0], [0, 10], [0, 119, 240], [0, 1, 240, 241]])
def test_fewer_than_three_observations_make_no_trend(days: list[int]) -> None:
    assert trend_of([seen(day) for day in days]) is None


DISTURBANCES = {
    "unreliable": seen(25, -0.9, reliable=False),
    "undated": seen(None, -0.9),
    "unmeasured": seen(25, None, NDMI=-0.9),
    "the same day with fewer pixels": seen(20.01, -0.9, valid_pixels=50.0),
}


@pytest.mark.parametrize("disturbance", DISTURBANCES.values(), ids=DISTURBANCES)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_what_was_not_seen_reliably_never_counts(disturbance: ObservedState, place: int) -> None:
    clean = series([10, 20, 30], [0.3, 0.4, 0.6])
    disturbed = [*clean[:place], disturbance, *clean[place:]]
    assert trend_of(disturbed) == trend_of(clean)
    assert peak_of(disturbed) == peak_of(clean)


def test_what_was_not_seen_reliably_takes_no_place_of_the_last_five() -> None:
    clean = series([0, 10, 20, 30, 40], [0.1, 0.3, 0.4, 0.6, 0.5])
    hidden = [seen(50 + day, -0.5, reliable=False) for day in range(5)]
    unmeasured = [seen(60 + day, None) for day in range(5)]
    assert trend_of([*clean, *hidden, *unmeasured]) == trend_of(clean)


def test_of_one_day_the_observation_with_more_valid_pixels_counts() -> None:
    earlier, later = seen(20, 0.4, valid_pixels=80.0), seen(20.01, 0.7, valid_pixels=90.0)
    rest = [seen(0, 0.2), seen(40, 0.6)]
    assert trend_of([earlier, later, *rest]) == trend_of([later, *rest])
    assert trend_of([later, earlier, *rest]) == trend_of([later, *rest])
    smaller = replace(later, valid_pixels=70.0)
    assert trend_of([smaller, earlier, *rest]) == trend_of([earlier, *rest])


def test_an_unreliable_observation_never_stands_for_its_day() -> None:
    better = seen(20, 0.9, reliable=False, valid_pixels=200.0)
    poorer = seen(20.01, 0.4, valid_pixels=80.0)
    assert [one.medians["NDVI"] for _, one in dated([better, poorer])] == [0.4]


def test_two_days_are_two_observations_however_close() -> None:
    before_midnight = replace(seen(0, 0.2), acquired_at=datetime(2023, 5, 1, 23, 59, tzinfo=UTC))
    after_midnight = replace(seen(0, 0.3), acquired_at=datetime(2023, 5, 2, 0, 1, tzinfo=UTC))
    assert len(dated([after_midnight, before_midnight])) == 2


def test_another_index_has_a_trend_of_its_own() -> None:
    observations = [seen(day, day / 100, NDMI=-day / 50) for day in (10, 20, 30)]
    trend = trend_of(observations, "NDMI")
    assert trend is not None
    assert trend.index == "NDMI"
    assert trend.per_day == pytest.approx(-0.02)


# Peak ----------------------------------------------------------------------------------------


@given(DATED)
def test_a_peak_is_the_highest_median_and_its_first_date(
    pairs: list[tuple[int, float]],
) -> None:
    days, values = (np.array(of) for of in zip(*pairs, strict=True))
    first = days[values == values.max()].min()
    expected = Peak("NDVI", float(values.max()), at(int(first)), at(int(days.min())))
    assert peak_of([seen(*pair) for pair in pairs]) == expected


def test_of_equal_peaks_the_earliest_is_told() -> None:
    peak = peak_of(series([30, 10, 20], [0.8, 0.8, 0.8]))
    assert peak == Peak("NDVI", 0.8, at(10), at(10))


@pytest.mark.parametrize(("first", "inside"), [(0, True), (-1, False)])
def test_a_peak_lies_within_a_year_of_the_last_observation(first: int, inside: bool) -> None:
    peak = peak_of([seen(first, 0.9), seen(100, 0.7), seen(365, 0.2)])
    assert peak is not None
    assert peak.acquired_at == at(0 if inside else 100)
    assert peak.since == at(0 if inside else 100)


def test_a_peak_of_nothing_is_none() -> None:
    assert peak_of([]) is None
    assert peak_of([seen(0, None), seen(1, 0.9, reliable=False), seen(None, 0.9)]) is None


# Last change ---------------------------------------------------------------------------------


def unit(*numbers: float) -> FloatArray:
    vector = np.array(numbers, dtype=np.float64)
    return np.asarray(vector / np.sqrt(np.sum(vector**2)), dtype=np.float32)


def test_the_last_change_is_between_the_last_two_in_time() -> None:
    first = seen(0, 0.2, scene="first", NDMI=0.1)
    second = seen(10, 0.5, scene="second", NDMI=0.3)
    third = seen(35, 0.4, scene="third", NDMI=0.35, NDRE=0.2)
    vectors = {"first": unit(1, 0, 0), "second": unit(1, 2, 2), "third": unit(2, 2, 1)}
    change = last_change_of([third, first, second], vectors)
    assert change is not None
    assert (change.start, change.end, change.days) == (at(10), at(35), 25)
    # (1, 2, 2) and (2, 2, 1) have length 3 and the inner product 8.
    assert change.score == pytest.approx(8 / 9, abs=1e-6)
    assert change.indices == pytest.approx({"NDVI": -0.1, "NDMI": 0.05})


@given(st.integers(0, 10_000))
def test_the_score_of_a_change_is_the_cosine_of_the_vectors(seed: int) -> None:
    raw = np.random.default_rng(seed).standard_normal((2, 32))
    vectors = {"a": unit(*raw[0]), "b": unit(*raw[1])}
    change = last_change_of([seen(0, scene="a"), seen(1, scene="b")], vectors)
    cosine = np.sum(raw[0] * raw[1]) / np.sqrt(np.sum(raw[0] ** 2) * np.sum(raw[1] ** 2))
    assert change is not None
    assert change.score == pytest.approx(cosine, abs=1e-6)


def test_no_change_has_a_score_of_one_and_no_more() -> None:
    same = unit(*np.random.default_rng(5).standard_normal(512))
    change = last_change_of([seen(0, scene="a"), seen(1, scene="b")], {"a": same, "b": same})
    assert change is not None
    assert change.score == pytest.approx(1.0, abs=1e-6)
    assert change.score <= 1.0
    assert change.indices == {"NDVI": 0.0}


def test_only_reliable_dated_observations_with_a_vector_make_a_change() -> None:
    kept = [seen(0, 0.2, scene="a"), seen(10, 0.5, scene="b")]
    others = [
        seen(20, scene="no vector"),
        seen(30, scene="hidden", reliable=False),
        seen(None, scene="undated"),
    ]
    vectors = {name: unit(1, 1) for name in ("a", "b", "hidden", "undated")}
    change = last_change_of([*others, *kept], vectors)
    assert change is not None
    assert (change.start, change.end) == (at(0), at(10))
    assert last_change_of([*others, kept[0]], vectors) is None
    assert last_change_of(kept, {}) is None


def test_two_observations_of_one_overpass_are_no_change() -> None:
    twice = [seen(10, 0.5, scene="b"), seen(10.001, 0.5, scene="c", valid_pixels=90.0)]
    vectors = {name: unit(1, 1) for name in "abc"}
    assert last_change_of(twice, vectors) is None
    change = last_change_of([seen(0, scene="a"), *twice], vectors)
    assert change is not None
    assert (change.start, change.end) == (at(0), at(10))


def test_a_day_counts_whose_better_seen_observation_has_no_vector() -> None:
    """As when one of two overlapping tiles was embedded in the space."""
    observations = [
        seen(0, scene="a"),
        seen(10, scene="tile without a vector", valid_pixels=100.0),
        seen(10.001, scene="tile with a vector", valid_pixels=90.0),
    ]
    change = last_change_of(observations, {"a": unit(1, 0), "tile with a vector": unit(3, 4)})
    assert change is not None
    assert change.score == pytest.approx(0.6, abs=1e-6)


# Gaps and reliability ------------------------------------------------------------------------


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=12, unique=True))
def test_gaps_are_the_days_from_one_observation_to_the_next(days: list[int]) -> None:
    widths = np.diff(np.sort(np.array(days)))
    where = int(np.argmax(widths))
    start, end = np.sort(np.array(days))[where : where + 2]
    expected = Gaps(float(np.median(widths)), float(widths.max()), at(int(start)), at(int(end)))
    assert gaps_of([seen(day) for day in days]) == expected


def test_gaps_are_told_by_hand() -> None:
    gaps = gaps_of([seen(day) for day in (0, 5, 15, 45, 50)])
    # 5, 10, 30 and 5 days; the median of four is between the middle two.
    assert gaps == Gaps(7.5, 30.0, at(15), at(45))


def test_clouds_widen_a_gap_and_a_second_tile_does_not_narrow_it() -> None:
    observations = [seen(0), seen(10, reliable=False), seen(20), seen(20.001), seen(None)]
    assert gaps_of(observations) == Gaps(20.0, 20.0, at(0), at(20))


def test_one_observation_leaves_no_gap() -> None:
    assert gaps_of([]) is None
    assert gaps_of([seen(0), seen(5, reliable=False), seen(None)]) is None


def test_reliability_counts_all_observations_and_names_the_latest() -> None:
    observations = [seen(0), seen(20), seen(30, reliable=False), seen(None), seen(10)]
    assert reliability_of(observations) == Reliability(5, 4, at(30), at(20))
    assert reliability_of([]) == Reliability(0, 0, None, None)
    assert reliability_of([seen(None)]) == Reliability(1, 1, None, None)


def test_the_latest_reliable_observation_is_the_latest_of_its_day_too() -> None:
    better, later = seen(20, valid_pixels=100.0), seen(20.001, valid_pixels=90.0)
    assert reliability_of([better, later]) == Reliability(2, 2, at(20.001), at(20.001))
