"""Parcels side by side: which dates are held against each other, and how alike they are."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import InvalidInputError, NotFoundError
from indexer.settings import Settings
from retriever.comparison import Comparison, comparable_observations, pairwise_scores
from retriever.observed import ObservedState
from retriever.queries import Interval, ParcelFilter
from retriever.search import ParcelSearcher
from tests.retriever.planted import (
    UNTRAINED,
    Seen,
    at_cosine,
    plant,
    random_vectors,
    searching,
    settings_in,
)

START = datetime(2023, 3, 1, 10, 50, 31, tzinfo=UTC)


def observed(day: float | None, *, reliable: bool = True) -> ObservedState:
    """An observation so many days after ``START``."""
    return ObservedState(
        acquired_at=None if day is None else START + timedelta(days=day),
        scene=f"scene-{day}",
        source="scene.tif",
        processing_baseline="05.09",
        pixels_inside=100.0,
        valid_pixels=100.0,
        valid_fraction=1.0,
        covered_fraction=1.0,
        cloud_cover_percent=0.0,
        reliable=reliable,
        indices={},
    )


def chosen_days(*series: Sequence[float]) -> list[float | None]:
    """Days of the observations that are chosen from those of each parcel."""
    chosen = comparable_observations([[observed(day) for day in days] for days in series])
    moments = [None if one is None else one.acquired_at for one in chosen]
    return [None if when is None else (when - START) / timedelta(1) for when in moments]


# The dates that are chosen -------------------------------------------------------------------


def test_parcels_seen_on_the_same_day_are_compared_on_the_last_such_day() -> None:
    assert chosen_days([0, 10, 40], [0, 10, 40]) == [40, 40]


def test_a_later_date_of_one_parcel_alone_is_passed_over() -> None:
    assert chosen_days([0, 30, 90], [0, 35]) == [30, 35]


@pytest.mark.parametrize(("apart", "expected"), [(15, [50, 65]), (16, [10, 10])])
def test_fifteen_days_apart_can_be_compared_and_sixteen_cannot(
    apart: int, expected: list[float]
) -> None:
    assert chosen_days([10, 50], [10, 50 + apart]) == expected


def test_without_a_common_date_each_has_its_latest() -> None:
    assert chosen_days([0, 10], [40, 60], [100]) == [10, 60, 100]


def test_a_parcel_that_was_never_seen_does_not_hinder_the_others() -> None:
    assert chosen_days([0, 30, 90], [], [0, 35]) == [30, None, 35]
    assert chosen_days([], []) == [None, None]


def test_unreliable_and_undated_observations_are_never_chosen() -> None:
    hidden = [observed(50, reliable=False), observed(None)]
    chosen = comparable_observations([[observed(0), *hidden], [observed(5), observed(50)], hidden])
    assert [one and one.scene for one in chosen] == ["scene-0", "scene-5", None]


SERIES = st.lists(
    st.lists(st.integers(0, 60), min_size=1, max_size=4, unique=True), min_size=2, max_size=4
)


def best_choice(series: Sequence[Sequence[int]]) -> tuple[int, ...] | None:
    """Of all choices within 15 days, the one with the latest dates, tried one by one."""
    fitting = [choice for choice in product(*series) if max(choice) - min(choice) <= 15]
    return max(fitting, key=lambda choice: (max(choice), sum(choice)), default=None)


@given(SERIES)
def test_a_common_date_is_found_wherever_there_is_one(series: list[list[int]]) -> None:
    chosen = [int(day) for day in chosen_days(*series) if day is not None]
    if best_choice(series) is None:
        assert chosen == [max(days) for days in series]
    else:
        assert max(chosen) - min(chosen) <= 15


@given(SERIES)
def test_each_observation_is_as_late_as_it_can_be(series: list[list[int]]) -> None:
    best = best_choice(series)
    if best is not None:
        assert chosen_days(*series) == list(best)


def test_a_common_date_is_found_though_each_is_nearer_to_another_date() -> None:
    # 0, 1, 15 and 15 lie within fifteen days; day 29 is nearer to 15, and day -12 nearer to 1.
    assert chosen_days([0, 29], [1], [15, -12], [15]) == [0, 1, 15, 15]


def test_the_later_of_two_dates_is_chosen_though_the_earlier_is_nearer() -> None:
    # All were seen from day 8 to day 20; day 0 of the third belongs to an earlier comparison.
    assert chosen_days([30, 9], [8], [20, 0]) == [9, 8, 20]


# Scores --------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.lists(st.sampled_from([None, 1, 2]), min_size=2, max_size=5))
def test_scores_are_cosines_within_a_space(seed: int, spaces: list[int | None]) -> None:
    raw = np.random.default_rng(seed).standard_normal((len(spaces), 16)) * 3
    lengths = np.sqrt((raw**2).sum(axis=1))
    units = (raw / lengths[:, None]).astype(np.float32)
    held = [None if space is None else (space, units[n]) for n, space in enumerate(spaces)]
    scores = pairwise_scores(held)
    cosines = (raw @ raw.T) / np.outer(lengths, lengths)
    for a, one in enumerate(spaces):
        for b in range(a + 1, len(spaces)):
            if one is not None and one == spaces[b]:
                assert scores.pop((a, b)) == pytest.approx(cosines[a, b], abs=1e-6)
    assert scores == {}


# The whole of a comparison -------------------------------------------------------------------

VECTORS = random_vectors(8, seed=3)


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    """``a``, ``b`` and ``c`` in one space, ``d`` in another; ``hidden`` was never seen."""
    chosen = settings_in(tmp_path_factory.mktemp("index"))
    first = [
        Seen("a", VECTORS[0], "2023-04-24", crop_name="wheat", indices={"NDVI": 0.6}),
        Seen("a", VECTORS[1], "2023-05-04", crop_name="wheat", indices={"NDVI": 0.8}),
        Seen("a", VECTORS[2], "2023-06-03", crop_name="wheat", indices={"NDVI": 0.5}),
        Seen("b", VECTORS[3], "2023-04-29"),
        Seen("b", VECTORS[4], "2023-05-09"),
        Seen("c", VECTORS[5], "2023-09-01"),
        Seen("without", None, "2023-05-09"),
        Seen("hidden", None, "2023-05-09", reliable=False, indices={}),
        *[Seen("twin", VECTORS[6], collection=name) for name in ("demo", "other")],
    ]
    plant(chosen, first)
    plant(chosen, [Seen("d", VECTORS[7], "2023-05-05", collection="later")], weights=UNTRAINED)
    with searching(chosen) as searcher:
        yield searcher


def cosine(a: int, b: int) -> float:
    return float(VECTORS[a].astype(np.float64) @ VECTORS[b].astype(np.float64))


def scenes(comparison: Comparison) -> list[str | None]:
    seen = [one.observation for one in comparison.parcels]
    return [None if one is None else one.scene for one in seen]


def test_two_parcels_are_compared_on_the_latest_date_that_they_share(
    searcher: ParcelSearcher,
) -> None:
    comparison = searcher.compare(["b", "a"])
    assert [one.parcel.parcel_id for one in comparison.parcels] == ["b", "a"]
    assert scenes(comparison) == ["scene-2023-05-09", "scene-2023-05-04"]
    assert comparison.comparable
    assert comparison.days_apart == 5
    assert comparison.scores == {(0, 1): pytest.approx(cosine(4, 1), abs=1e-6)}


def test_each_parcel_comes_with_its_own_trend_peak_and_reliability(
    searcher: ParcelSearcher,
) -> None:
    one, other = searcher.compare(["a", "b"]).parcels
    # Slopes: 0.2 / 10, -0.1 / 40 and -0.3 / 30.
    assert one.trend is not None
    assert one.trend.per_day == pytest.approx(-0.1 / 40)
    assert one.peak is not None
    assert (one.peak.median, f"{one.peak.acquired_at:%Y-%m-%d}") == (0.8, "2023-05-04")
    assert (one.reliability.observations, one.reliability.reliable) == (3, 3)
    assert other.trend is None


def test_parcels_never_seen_at_about_the_same_time_are_not_comparable(
    searcher: ParcelSearcher,
) -> None:
    comparison = searcher.compare(["a", "b", "c"])
    assert scenes(comparison) == ["scene-2023-06-03", "scene-2023-05-09", "scene-2023-09-01"]
    assert not comparison.comparable
    # From May 9 to September 1: 22 + 30 + 31 + 31 + 1 days.
    assert comparison.days_apart == 115
    expected = {(0, 1): cosine(2, 4), (0, 2): cosine(2, 5), (1, 2): cosine(4, 5)}
    assert comparison.scores == pytest.approx(expected, abs=1e-6)


def test_a_parcel_never_seen_reliably_has_no_observation(searcher: ParcelSearcher) -> None:
    comparison = searcher.compare(["a", "hidden", "b"])
    assert scenes(comparison) == ["scene-2023-05-04", None, "scene-2023-05-09"]
    assert not comparison.comparable
    assert comparison.days_apart is None
    assert set(comparison.scores) == {(0, 2)}
    assert comparison.parcels[1].reliability.observations == 1
    assert comparison.parcels[1].reliability.reliable == 0


def test_a_parcel_without_a_vector_is_compared_without_a_score(searcher: ParcelSearcher) -> None:
    comparison = searcher.compare(["a", "without"])
    assert comparison.comparable
    assert comparison.scores == {}


def test_parcels_of_two_spaces_are_compared_without_a_score(searcher: ParcelSearcher) -> None:
    comparison = searcher.compare(["a", "b", "d"])
    assert comparison.comparable
    assert scenes(comparison) == ["scene-2023-05-04", "scene-2023-05-09", "scene-2023-05-05"]
    assert set(comparison.scores) == {(0, 1)}
    assert len({space["id"] for space in comparison.spaces}) == 2


def test_an_interval_limits_what_is_compared(searcher: ParcelSearcher) -> None:
    where = ParcelFilter(interval=Interval.parse("2023-04"))
    comparison = searcher.compare(["a", "b"], where=where)
    assert scenes(comparison) == ["scene-2023-04-24", "scene-2023-04-29"]
    assert comparison.scores == {(0, 1): pytest.approx(cosine(0, 3), abs=1e-6)}
    assert comparison.parcels[0].reliability.observations == 1


def test_an_interval_without_observations_leaves_nothing_to_compare(
    searcher: ParcelSearcher,
) -> None:
    where = ParcelFilter(interval=Interval.parse("2019"))
    comparison = searcher.compare(["a", "b"], where=where)
    assert scenes(comparison) == [None, None]
    assert not comparison.comparable
    assert comparison.scores == {}


@pytest.mark.parametrize("parcel_ids", [[], ["a"], ["a", "b", "c", "d", "hidden", "without"]])
def test_fewer_than_two_and_more_than_five_are_refused(
    searcher: ParcelSearcher, parcel_ids: list[str]
) -> None:
    with pytest.raises(InvalidInputError, match=f"^{len(parcel_ids)} parcels.*2 to 5") as caught:
        searcher.compare(parcel_ids)
    assert caught.value.kind == "invalid-examples"


def test_five_can_be_compared(searcher: ParcelSearcher) -> None:
    comparison = searcher.compare(["a", "b", "c", "d", "without"])
    assert len(comparison.parcels) == 5
    assert set(comparison.scores) == {(0, 1), (0, 2), (1, 2)}


def test_a_parcel_is_not_compared_with_itself(searcher: ParcelSearcher) -> None:
    with pytest.raises(InvalidInputError, match="twice"):
        searcher.compare(["a", "b", "a"])


def test_an_unknown_parcel_is_named_with_those_that_come_close(searcher: ParcelSearcher) -> None:
    with pytest.raises(NotFoundError, match='No parcel "hiden"') as caught:
        searcher.compare(["a", "hiden"])
    assert '"hidden"' in caught.value.message


def test_an_id_of_two_collections_needs_its_collection(searcher: ParcelSearcher) -> None:
    with pytest.raises(InvalidInputError, match="several collections"):
        searcher.compare(["a", "twin"])
    comparison = searcher.compare(["a", "twin"], collection="demo")
    assert comparison.scores == {(0, 1): pytest.approx(cosine(2, 6), abs=1e-6)}


def test_a_comparison_is_plain_json(searcher: ParcelSearcher) -> None:
    told = searcher.compare(["a", "hidden", "b"]).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    (score,) = told["scores"]
    assert score["a"] == {"collection": "demo", "id": "a"}
    assert score["b"] == {"collection": "demo", "id": "b"}
    assert score["score"] == round(cosine(1, 4), 4)
    assert (told["comparable"], told["days_apart"]) == (False, None)


def test_a_comparison_is_the_same_on_every_database(empty: Settings) -> None:
    plant(empty, [Seen("a", at_cosine(1), "2023-05-29"), Seen("b", at_cosine(0.6), "2023-06-13")])
    with searching(empty) as searcher:
        comparison = searcher.compare(["a", "b"])
    assert comparison.days_apart == 15
    assert comparison.comparable
    assert comparison.scores == {(0, 1): pytest.approx(0.6, abs=1e-6)}
