from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from scipy.cluster.hierarchy import linkage

from indexer.mapping import choose_k as choosing
from indexer.mapping.choose_k import CANDIDATES, REPEATS, choose_k

FloatArray = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merges fewer groups of fewer pixels: what is tested does not need as many."""
    monkeypatch.setattr(choosing, "MICRO_CLUSTERS", 60)
    monkeypatch.setattr(choosing, "SAMPLE_PIXELS", 600)


def groups(count: int, each: int = 100, spread: float = 0.1) -> FloatArray:
    """Corners of a cube of as many dimensions, each equally far from every other."""
    centers = np.repeat(np.eye(count), each, axis=0)
    noise = np.random.default_rng(count).normal(0, spread / np.sqrt(count), centers.shape)
    return (centers + noise).astype(np.float32)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 12])
def test_groups_that_lie_apart_are_counted(count: int) -> None:
    choice = choose_k({"signal": groups(count)})
    assert choice.k == count
    assert choice.repeats == (count,) * REPEATS
    assert choice.reason.startswith(f"k = {count}: ")
    assert choice.reason.endswith(f"each of 5 samples alone gives {count}.")


def test_a_class_that_one_view_hides_is_seen_in_the_other() -> None:
    # Six classes: one view tells three pairs apart, the other which of a pair.
    six = np.repeat(np.arange(6), 100)
    noise = np.random.default_rng(0).normal(0, 0.03, (2, 600, 3)).astype(np.float32)
    pairs = np.eye(3, dtype=np.float32)[six // 2] + noise[0]
    within = np.array([[0, 0, 0], [1, 0, 0]], dtype=np.float32)[six % 2] + noise[1]
    both = np.hstack([pairs, within])
    assert choose_k({"signal": pairs}).k == 3
    assert choose_k({"signal": pairs, "noise": both}).k > 3


def test_the_scores_are_depths_below_the_line_between_the_ends_of_the_curve() -> None:
    choice = choose_k({"signal": groups(4, spread=0.6), "noise": groups(4)})
    curve = np.log(list(choice.errors.values())).sum(axis=0)
    for k, score in zip(choice.candidates, choice.scores, strict=True):
        line = curve[0] + (curve[-1] - curve[0]) * (k - 1) / (len(curve) - 1)
        assert score == pytest.approx((line - curve[k - 1]) / (curve[0] - curve[-1]), abs=1e-9)
    assert choice.scores[choice.candidates.index(choice.k)] == max(choice.scores)


def test_errors_fall_from_all_of_the_variance() -> None:
    choice = choose_k({"signal": groups(4)})
    (errors,) = choice.errors.values()
    assert len(errors) == CANDIDATES[-1]
    assert errors[0] == pytest.approx(1)
    assert all(more >= fewer for more, fewer in pairwise(errors))


def test_the_error_of_groups_of_equal_pixels_is_known() -> None:
    # At 0, 1 and 10 on a line, four pixels each: mean 11/3, variance 182/9. Of two classes, one
    # holds the pixels at 0 and 1, each half a unit from its mean: 8/4 over 12 pixels are 1/6.
    rows = np.repeat(np.array([[0], [1], [10]], dtype=np.float32), 4, axis=0)
    (errors,) = choose_k({"signal": rows}).errors.values()
    assert errors[1] == pytest.approx((1 / 6) / (182 / 9), rel=1e-6)
    assert errors[2] == pytest.approx(choosing.ERROR_FLOOR)


def test_costs_of_merging_are_those_of_wards_hierarchy() -> None:
    points = np.random.default_rng(0).normal(size=(40, 3))
    # scipy's distances are roots of twice the error that a merge adds.
    expected = linkage(points, "ward")[:, 2] ** 2 / 2
    np.testing.assert_allclose(choosing._ward_costs(points, np.ones(40)), expected)


def test_a_large_group_costs_as_much_to_merge_as_its_pixels_one_by_one() -> None:
    points = np.random.default_rng(1).normal(size=(12, 2))
    sizes = np.arange(1, 13)
    weighted = choosing._ward_costs(points, sizes.astype(np.float64))
    expanded = choosing._ward_costs(np.repeat(points, sizes, axis=0), np.ones(sizes.sum()))
    np.testing.assert_allclose(weighted, expanded[-11:], atol=1e-12)


def test_the_choice_does_not_change_from_run_to_run() -> None:
    rows = np.random.default_rng(0).normal(size=(900, 4)).astype(np.float32)
    assert choose_k({"signal": rows}, seed=2) == choose_k({"signal": rows}, seed=2)
    assert choose_k({"signal": rows}, seed=2) != choose_k({"signal": rows}, seed=3)


def test_pixels_that_are_all_alike_are_one_class() -> None:
    choice = choose_k({"signal": np.ones((50, 3), np.float32)})
    assert (choice.k, choice.candidates) == (1, ())
    assert choice.reason == "k = 1: all pixels are the same."


@pytest.mark.parametrize("count", [2, 4, 7])
def test_no_more_classes_are_tried_than_there_are_different_pixels(count: int) -> None:
    choice = choose_k({"signal": groups(count, spread=0)})
    assert choice.k == count
    assert choice.candidates == tuple(range(2, count + 1))


def test_a_different_pixel_that_a_sample_misses_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "SAMPLE_PIXELS", 5)
    rows = np.zeros((500, 2), np.float32)
    rows[-1] = 1
    assert choose_k({"signal": rows}).k == 2


def test_views_of_different_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"200 and .*300"):
        choose_k({"signal": groups(2), "noise": groups(3)})


def test_a_choice_that_is_not_firm_says_so() -> None:
    cloud = np.random.default_rng(4).normal(size=(2000, 5)).astype(np.float32)
    choice = choose_k({"signal": cloud})
    least, most = min(choice.repeats), max(choice.repeats)
    assert least < most
    assert choice.reason.endswith(f"5 samples alone give {least} to {most}.")


def test_the_json_form_says_how_firm_the_choice_is() -> None:
    found = choose_k({"signal": groups(3), "noise": groups(3)}).to_dict()
    assert found["k"] == 3
    assert found["criterion"] == "knee of the error"
    assert found["repeats"] == [3] * REPEATS
    assert [len(errors) for errors in found["errors"].values()] == [15, 15]
    assert len(found["scores"]) == len(found["candidates"]) == 14
