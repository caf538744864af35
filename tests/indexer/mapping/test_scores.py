import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from indexer.mapping.scores import count_pairs, match_classes, score, score_counts


def test_scores_of_a_small_map_are_those_computed_by_hand() -> None:
    truth = np.array([[1, 1, 1, 1], [2, 2, 2, 0], [3, 3, 0, 0]])
    labels = np.array([[2, 2, 2, 1], [1, 1, 1, 1], [3, 1, 3, 0]])
    found = score(labels, truth, {1: "wheat", 2: "maize"})
    # Of nine labelled pixels, 3 of 4, 3 of 3 and 1 of 2 lie in the class that stands for them.
    assert found.pixels == 9
    assert found.oa == pytest.approx(7 / 9)
    wheat, maize, third = found.per_class
    assert (wheat.name, maize.name, third.name) == ("wheat", "maize", "class 3")
    assert (wheat.matched, maize.matched, third.matched) == (2, 1, 3)
    assert (wheat.support, maize.support, third.support) == (4, 3, 2)
    assert (wheat.recall, wheat.precision) == (0.75, 1)
    # Class 1 of the map holds 5 scored pixels: three of maize, one of each other.
    assert maize.recall == 1
    assert maize.precision == pytest.approx(3 / 5)
    assert maize.f1 == pytest.approx(2 * 3 / (3 + 5))
    assert (third.recall, third.precision) == (0.5, 1)
    assert found.confusion == ((1, 3, 0), (3, 0, 0), (1, 0, 1))


def test_pixels_without_a_label_or_without_data_are_not_scored() -> None:
    truth = np.array([1, 2, 0, 0, 1])
    labels = np.array([1, 2, 1, 2, 0])
    found = score(labels, truth)
    assert found.pixels == 2
    assert (found.oa, found.nmi, found.ari) == (1, 1, 1)


def test_numbers_of_classes_do_not_matter() -> None:
    truth = np.array([1, 1, 2, 2, 3, 3])
    assert score(np.array([3, 3, 1, 1, 2, 2]), truth).oa == 1


def test_more_classes_than_known_ones_cost_what_they_take_away() -> None:
    truth = np.array([1, 1, 1, 1, 2, 2])
    found = score(np.array([1, 1, 3, 3, 2, 2]), truth)
    assert found.oa == pytest.approx(4 / 6)
    assert found.per_class[0].recall == 0.5


def test_a_known_class_without_a_partner_has_no_recall() -> None:
    found = score(np.array([1, 1, 1, 2, 2]), np.array([1, 1, 2, 3, 3]))
    lost = found.per_class[1]
    assert (lost.matched, lost.recall, lost.precision, lost.f1) == (None, 0, 0, 0)


def test_the_matching_is_the_best_of_all_not_the_greedy_one() -> None:
    # Greedily 5 goes first, and 0 is left: 5. The best pairs are 4 and 4.
    assert match_classes(np.array([[5, 4], [4, 0]])) == {0: 1, 1: 0}


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=2, max_size=60))
def test_nmi_and_ari_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, labels = np.array(pairs).T
    found = score(labels, truth)
    assert found.nmi == pytest.approx(normalized_mutual_info_score(truth, labels), abs=1e-9)
    assert found.ari == pytest.approx(adjusted_rand_score(truth, labels), abs=1e-9)


def test_counts_add_up_over_blocks() -> None:
    random = np.random.default_rng(0)
    labels, truth = random.integers(0, 4, (2, 500))
    whole = count_pairs(labels, truth, 3, 3)
    parts = sum(
        count_pairs(labels[start : start + 90], truth[start : start + 90], 3, 3)
        for start in range(0, 500, 90)
    )
    np.testing.assert_array_equal(parts, whole)
    assert score_counts(whole) == score(labels, truth)
