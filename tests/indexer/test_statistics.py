from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from indexer.statistics import (
    BandStatistics,
    Float64Array,
    Summary,
    summarize,
    summarize_rows,
    weighted_quantiles,
)

numbers = st.floats(-1.0, 2.0, allow_subnormal=False)
quantiles = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5)
weights_of = st.floats(0.01, 1.0)
two_band_pixels = hnp.arrays(
    np.float64, st.tuples(st.just(2), st.integers(0, 40)), elements=numbers
)


@st.composite
def weighted_values(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    pairs = draw(st.lists(st.tuples(numbers, weights_of), min_size=1, max_size=30))
    return [value for value, _ in pairs], [weight for _, weight in pairs]


def counted(*parts: Float64Array) -> BandStatistics:
    statistics = BandStatistics.empty(("B04", "B08"))
    for pixels in parts:
        statistics.update(pixels)
    return statistics


def assert_same(left: BandStatistics, right: BandStatistics) -> None:
    np.testing.assert_array_equal(left.count, right.count)
    # atol is for means around zero and for bands that do not vary.
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(left.std, right.std, rtol=1e-9, atol=1e-9)


# Quantiles


@given(st.lists(numbers, min_size=1, max_size=60), weights_of, quantiles)
def test_quantiles_of_equal_weights_are_those_of_numpy(
    values: list[float], weight: float, q: list[float]
) -> None:
    result = weighted_quantiles(values, np.full(len(values), weight), q)
    np.testing.assert_allclose(result, np.quantile(values, q), rtol=1e-9, atol=1e-9)


@given(weighted_values(), st.randoms(use_true_random=False))
def test_quantiles_do_not_depend_on_the_order_of_the_values(
    weighted: tuple[list[float], list[float]], random: Random
) -> None:
    pairs = list(zip(*weighted, strict=True))
    random.shuffle(pairs)
    shuffled, weights = zip(*pairs, strict=True)
    q = (0.0, 0.1, 0.5, 0.9, 1.0)
    np.testing.assert_array_equal(
        weighted_quantiles(shuffled, weights, q), weighted_quantiles(*weighted, q)
    )


@given(weighted_values(), st.sampled_from([0.25, 2.0, 1024.0]))
def test_quantiles_do_not_depend_on_the_unit_of_the_weights(
    weighted: tuple[list[float], list[float]], factor: float
) -> None:
    values, weights = weighted
    scaled = [weight * factor for weight in weights]
    q = (0.0, 0.1, 0.5, 0.9, 1.0)
    np.testing.assert_array_equal(
        weighted_quantiles(values, scaled, q), weighted_quantiles(values, weights, q)
    )


@given(weighted_values())
def test_quantiles_run_from_the_smallest_to_the_largest_value(
    weighted: tuple[list[float], list[float]],
) -> None:
    values, _ = weighted
    result = weighted_quantiles(*weighted, np.linspace(0, 1, 11).tolist())
    assert result[0] == min(values)
    assert result[-1] == max(values)
    assert (np.diff(result) >= -1e-12).all()


def test_unequal_weights_move_the_median_by_the_definition() -> None:
    # C = 1, 2, 4 and W = 4; positions (0.5 - 0.5) / 2.5 = 0, (1.5 - 0.5) / 2.5 = 0.4 and
    # (3 - 0.5) / 2.5 = 1; the median lies (0.5 - 0.4) / 0.6 = 1/6 of the way from 20 to 30.
    result = weighted_quantiles([30.0, 10.0, 20.0], [2.0, 1.0, 1.0], [0.4, 0.5])
    np.testing.assert_allclose(result, [20.0, 20.0 + 10.0 / 6.0], rtol=1e-12)


def test_a_value_of_weight_zero_does_not_count() -> None:
    result = weighted_quantiles([1.0, 2.0, 3.0, 1000.0, np.nan], [1, 1, 1, 0, 0], [0.5, 1.0])
    np.testing.assert_array_equal(result, [2.0, 3.0])


def test_a_single_value_is_all_its_quantiles() -> None:
    np.testing.assert_array_equal(weighted_quantiles([7.0], [0.3], [0.0, 0.5, 1.0]), [7.0] * 3)


def test_quantiles_of_nothing_are_nan() -> None:
    assert np.isnan(weighted_quantiles([], [], [0.1, 0.9])).all()
    assert np.isnan(weighted_quantiles([1.0], [0.0], [0.5])).all()


def test_quantiles_are_nan_where_a_value_that_counts_is_not_finite() -> None:
    assert np.isnan(weighted_quantiles([1.0, np.nan, 2.0], [1, 1, 1], [0.0, 0.5])).all()


@pytest.mark.parametrize(
    ("values", "weights", "q"),
    [
        ([1.0, 2.0], [1.0], [0.5]),
        ([1.0], [-1.0], [0.5]),
        ([1.0], [np.nan], [0.5]),
        ([1.0], [1.0], [1.5]),
    ],
    ids=["shapes", "negative weight", "NaN weight", "quantile above 1"],
)
def test_quantiles_refuse_what_has_no_meaning(
    values: list[float], weights: list[float], q: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"shape|weight|quantiles"):
        weighted_quantiles(values, weights, q)


# Summary


def test_the_summary_of_equal_weights_is_the_ordinary_one() -> None:
    summary = summarize([[1.0, 2.0], [3.0, 4.0]], np.ones((2, 2)))
    assert summary is not None
    assert summary.median == pytest.approx(2.5)
    assert summary.mean == pytest.approx(2.5)
    assert summary.std == pytest.approx(1.25**0.5)
    # Type 7 on 0, 1/3, 2/3, 1: 1 + 3 * 0.1 and 1 + 3 * 0.9.
    assert summary.p10 == pytest.approx(1.3)
    assert summary.p90 == pytest.approx(3.7)


def test_the_summary_counts_a_value_by_its_weight() -> None:
    summary = summarize([0.0, 1.0], [3.0, 1.0])
    assert summary is not None
    assert summary.mean == pytest.approx(0.25)
    # (3 * 0.25 ** 2 + 1 * 0.75 ** 2) / 4
    assert summary.std == pytest.approx(0.1875**0.5)


def test_the_summary_leaves_out_what_is_not_finite() -> None:
    summary = summarize([np.nan, 5.0, np.inf], [1.0, 0.5, 1.0])
    assert summary is not None
    assert (summary.median, summary.mean, summary.std) == (5.0, 5.0, 0.0)
    assert (summary.p10, summary.p90) == (5.0, 5.0)


@pytest.mark.parametrize(
    ("values", "weights"), [([], []), ([1.0, 2.0], [0.0, 0.0]), ([np.nan], [1.0])]
)
def test_there_is_no_summary_where_no_value_counts(
    values: list[float], weights: list[float]
) -> None:
    assert summarize(values, weights) is None


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(0, 30)),
        # Few of them, so that there are equal ones.
        elements=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 2.0, np.nan, np.inf]) | numbers,
    ),
    st.data(),
)
def test_the_summary_of_each_of_many_rows_is_its_own(
    rows: Float64Array, data: st.DataObject
) -> None:
    size = rows.shape[1]
    weights = np.array(data.draw(st.lists(weights_of, min_size=size, max_size=size)), np.float64)
    assert summarize_rows(rows, weights) == [summarize(row, weights) for row in rows]


def test_a_summary_of_many_rows_tells_what_each_amounts_to() -> None:
    rows = np.array([[0.0, 1.0, 5.0], [np.nan, 5.0, np.nan], [np.nan] * 3])
    first, second, third = summarize_rows(rows, np.array([3.0, 1.0, 1e-9]))
    assert first is not None
    assert first.mean == pytest.approx(0.25)
    assert first.std == pytest.approx(0.1875**0.5)
    assert second == Summary(5.0, 5.0, 0.0, 5.0, 5.0)
    assert third is None


def test_a_summary_tells_its_numbers_by_name() -> None:
    assert Summary(median=0.5, mean=0.25, std=0.125, p10=0.1, p90=0.9).to_dict() == {
        "median": 0.5,
        "mean": 0.25,
        "std": 0.125,
        "p10": 0.1,
        "p90": 0.9,
    }


@given(weighted_values())
def test_the_parts_of_a_summary_are_in_order(weighted: tuple[list[float], list[float]]) -> None:
    values, _ = weighted
    summary = summarize(*weighted)
    assert summary is not None
    assert summary.p10 <= summary.median <= summary.p90
    assert min(values) - 1e-12 <= summary.mean <= max(values) + 1e-12
    assert 0 <= summary.std <= (max(values) - min(values)) / 2 + 1e-12


# Statistics of bands


def test_band_statistics_are_those_of_all_pixels() -> None:
    statistics = counted(np.array([[1.0, 2.0], [5.0, 5.0]]), np.array([[3.0, 6.0], [5.0, 5.0]]))
    np.testing.assert_array_equal(statistics.count, [4, 4])
    np.testing.assert_allclose(statistics.mean, [3.0, 5.0])
    # Deviations of 1, 2, 3, 6 from 3 are -2, -1, 0, 3: variance 14 / 4.
    np.testing.assert_allclose(statistics.std, [3.5**0.5, 0.0])


@given(st.lists(two_band_pixels, max_size=6), st.randoms(use_true_random=False))
def test_merging_in_any_order_equals_one_pass_over_all(
    parts: list[Float64Array], random: Random
) -> None:
    piles = [counted(part) for part in parts] or [counted()]
    while len(piles) > 1:
        random.shuffle(piles)
        other = piles.pop()
        piles[0].merge(other)
    assert_same(piles[0], counted(np.concatenate([np.empty((2, 0)), *parts], axis=1)))


@given(two_band_pixels)
def test_band_statistics_equal_those_of_numpy(pixels: Float64Array) -> None:
    statistics = counted(pixels)
    if pixels.shape[1] == 0:
        assert np.isnan(statistics.mean).all()
        assert np.isnan(statistics.std).all()
    else:
        np.testing.assert_allclose(statistics.mean, pixels.mean(axis=1), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(statistics.std, pixels.std(axis=1), rtol=1e-9, atol=1e-9)


def test_a_pixel_without_data_is_left_out_of_its_band_only() -> None:
    statistics = counted(np.array([[1.0, np.nan, 3.0], [4.0, 6.0, np.inf]]))
    np.testing.assert_array_equal(statistics.count, [2, 2])
    np.testing.assert_array_equal(statistics.mean, [2.0, 5.0])
    np.testing.assert_array_equal(statistics.std, [1.0, 1.0])


def test_a_large_offset_does_not_drown_the_spread() -> None:
    # The textbook formula E[x**2] - E[x]**2 has no correct digit left here.
    offset = 1e9
    statistics = counted(*(np.full((2, 1), offset + value) for value in (0.0, 1.0, 2.0)))
    np.testing.assert_allclose(statistics.std, [(2 / 3) ** 0.5] * 2, rtol=1e-9)


def test_float32_pixels_are_counted_in_float64() -> None:
    tenth = np.float32(0.1)
    statistics = BandStatistics.empty(("B04",))
    statistics.update(np.full((1, 100_000), tenth))
    assert statistics.mean[0] == pytest.approx(float(tenth), rel=1e-12)


def test_merging_leaves_the_other_as_it_is() -> None:
    total, part = counted(np.ones((2, 3))), counted(np.zeros((2, 1)))
    total.merge(part)
    np.testing.assert_array_equal(total.count, [4, 4])
    np.testing.assert_array_equal(part.count, [1, 1])
    np.testing.assert_array_equal(part.mean, [0.0, 0.0])


def test_statistics_of_other_bands_do_not_merge() -> None:
    with pytest.raises(ValueError, match="do not merge"):
        counted().merge(BandStatistics.empty(("B08", "B04")))


def test_pixels_of_another_number_of_bands_are_refused() -> None:
    with pytest.raises(ValueError, match="2 bands"):
        counted(np.ones((3, 4)))
