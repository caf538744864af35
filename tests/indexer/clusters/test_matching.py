import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from indexer.clusters.matching import count_shared, match_clusters, nearest_candidates

DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def parcels_of(counts: IntArray) -> tuple[IntArray, IntArray]:
    """Parcels of the former and of the new clusters, where both hold the same parcels."""
    return counts.sum(axis=1), counts.sum(axis=0)


def numbers(counts: list[list[int]], cosines: list[list[float]] | None = None) -> list[int | None]:
    """The new cluster of each former one, None where that is uncertain."""
    shared = np.array(counts)
    centers = None if cosines is None else np.array(cosines)
    return [one.number for one in match_clusters(shared, *parcels_of(shared), centers)]


def reasons(counts: list[list[int]], cosines: list[list[float]] | None = None) -> list[str]:
    shared = np.array(counts)
    centers = None if cosines is None else np.array(cosines)
    return [one.reason for one in match_clusters(shared, *parcels_of(shared), centers)]


# Shared parcels alone: another space ------------------------------------------------------------


def test_a_cluster_that_is_only_renumbered_is_found() -> None:
    assert numbers([[0, 0, 9], [7, 0, 0], [0, 5, 0]]) == [3, 1, 2]


def test_a_few_parcels_that_moved_do_not_matter() -> None:
    assert numbers([[90, 5, 5], [4, 60, 6], [0, 3, 47]]) == [1, 2, 3]


def test_a_split_is_uncertain_even_where_one_part_is_the_larger() -> None:
    assert numbers([[70, 0, 30], [0, 50, 0]]) == [None, 2]
    assert reasons([[70, 0, 30], [0, 50, 0]])[0] == "it was split into clusters 1 and 3"
    assert reasons([[40, 30, 30]])[0] == "it was split into clusters 1, 2 and 3"


def test_a_merger_is_uncertain_for_all_that_went_in() -> None:
    assert numbers([[60, 0], [40, 0], [0, 50]]) == [None, None, 2]
    assert reasons([[60, 0], [40, 0], [0, 50]])[:2] == ["cluster 1 joins it with others"] * 2


def test_a_fragment_below_a_tenth_is_no_split_and_no_merger() -> None:
    assert numbers([[95, 5, 0], [0, 0, 80]]) == [1, 3]
    assert numbers([[95, 0], [5, 0], [0, 80]]) == [1, None, 2]


def test_at_a_tenth_it_is_one() -> None:
    assert numbers([[90, 10, 0], [0, 0, 80]]) == [None, 3]
    assert numbers([[90, 0], [10, 0], [0, 80]]) == [None, None, 2]


def test_half_of_the_parcels_are_not_enough_on_either_side() -> None:
    # Of the first, half is in 1; of new cluster 2, only 50 of 110 were in the second.
    assert numbers([[50, 30, 20], [0, 50, 0], [5, 30, 70]])[:2] == [None, None]


def test_a_cluster_that_vanished_is_uncertain_and_says_so() -> None:
    counts, former = np.array([[0, 0], [0, 9]]), np.array([6, 9])
    verdicts = match_clusters(counts, former, np.array([4, 9]), None)
    assert (verdicts[0].number, verdicts[0].candidates) == (None, ())
    assert verdicts[0].reason == "none of its parcels are in any cluster now"
    assert verdicts[1].number == 2


def test_a_cluster_that_holds_no_parcel_any_more_is_told_to() -> None:
    # Later images moved all its parcels on; they are in other clusters, not in none.
    counts = np.array([[0, 0], [3, 6]])
    verdict = match_clusters(counts, np.array([0, 9]), np.array([3, 6]), None)[0]
    assert verdict.reason == "no parcel is in it by its latest observation any more"


def test_a_cluster_drowned_in_new_parcels_is_uncertain() -> None:
    # All nine are in new cluster 1, which holds 100 parcels that nobody grouped before.
    (verdict,) = match_clusters(np.array([[9]]), np.array([9]), np.array([109]), None)
    assert verdict.number is None
    assert verdict.reason == "only 8 % of cluster 1 are parcels of it"


def test_candidates_are_those_that_share_parcels_the_likeliest_first() -> None:
    verdict = match_clusters(
        np.array([[10, 0, 60, 20, 10, 0]]), np.array([100]), np.array([500] * 6), None
    )[0]
    assert [one.to_dict() for one in verdict.candidates] == [
        {"cluster": 3, "shared": 0.6, "cosine": None},
        {"cluster": 4, "shared": 0.2, "cosine": None},
        {"cluster": 1, "shared": 0.1, "cosine": None},
    ]


# Centers as well: the same space ----------------------------------------------------------------


def test_shared_parcels_are_not_enough_where_another_center_is_as_close() -> None:
    counts = [[9, 0], [0, 9]]
    assert numbers(counts, [[1.0, 0.0], [0.0, 1.0]]) == [1, 2]
    assert numbers(counts, [[0.9, 0.9], [0.0, 0.95]])[0] is None
    assert reasons(counts, [[0.9, 0.9], [0.0, 0.95]])[0] == (
        "its center is not clearly the one of cluster 1"
    )


def test_a_center_is_clear_up_to_four_fifths_of_the_second_distance() -> None:
    def with_distance(ratio: float) -> list[list[float]]:
        # Unit vectors at distance d have cosine 1 - d^2 / 2.
        first, second = 0.5, 0.5 / ratio
        return [[1 - first**2 / 2, 1 - second**2 / 2], [-0.5, 1.0]]

    assert numbers([[9, 0], [0, 9]], with_distance(0.79)) == [1, 2]
    assert numbers([[9, 0], [0, 9]], with_distance(0.81))[0] is None


def test_a_center_must_be_clear_from_the_other_side_too() -> None:
    # Of former 1 new 1 is the nearest by far, but former 2 is still nearer to it.
    cosines = [[0.9, -0.9], [0.95, 0.2]]
    assert numbers([[9, 0], [0, 9]], cosines)[0] is None


def test_close_centers_are_not_enough_without_shared_parcels() -> None:
    assert numbers([[4, 9], [9, 4]], [[1.0, 0.0], [0.0, 1.0]]) == [None, None]


def test_two_centers_at_one_place_are_uncertain() -> None:
    assert numbers([[9, 0], [0, 9]], [[1.0, 1.0], [1.0, 1.0]]) == [None, None]


def test_candidates_without_parcels_are_the_nearest_centers() -> None:
    found = nearest_candidates(np.array([0.1, 0.9, -0.3, 0.5]))
    assert [(one.number, one.shared, one.cosine) for one in found] == [
        (2, None, 0.9),
        (4, None, 0.5),
        (1, None, 0.1),
    ]


@st.composite
def renumberings(draw: st.DrawFn) -> tuple[IntArray, list[int]]:
    """Sizes of clusters, and the new position of each."""
    sizes = draw(st.lists(st.integers(1, 500), min_size=1, max_size=12))
    return np.array(sizes), draw(st.permutations(range(len(sizes))))


@given(renumberings(), st.integers(0, 2**32 - 1), st.booleans())
def test_names_follow_the_parcels_however_clusters_are_renumbered(
    drawn: tuple[IntArray, list[int]], seed: int, same_space: bool
) -> None:
    sizes, order = drawn
    k = len(sizes)
    counts = np.zeros((k, k), dtype=np.int64)
    counts[np.arange(k), order] = sizes
    rows = np.random.default_rng(seed).standard_normal((k, 64))
    former = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    new = np.empty_like(former)
    new[order] = former
    cosines = former @ new.T if same_space else None
    verdicts = match_clusters(counts, *parcels_of(counts), cosines)
    assert [one.number for one in verdicts] == [position + 1 for position in order]


@given(
    st.integers(1, 6).flatmap(
        lambda columns: st.lists(
            st.lists(st.integers(0, 40), min_size=columns, max_size=columns),
            min_size=1,
            max_size=6,
        )
    )
)
def test_no_two_clusters_become_the_same_one(counts: list[list[int]]) -> None:
    found = [number for number in numbers(counts) if number is not None]
    assert len(found) == len(set(found))


# Counting ---------------------------------------------------------------------------------------


def test_only_parcels_that_both_hold_are_counted() -> None:
    former = (np.array([1, 2, 3, 5, 8]), np.array([1, 1, 2, 2, 2]))
    new = (np.array([2, 3, 4, 5, 8, 9]), np.array([3, 1, 1, 1, 2, 2]))
    found = count_shared(former, new, (2, 3))
    assert found.tolist() == [[0, 0, 1], [2, 1, 0]]


def test_collections_without_a_common_parcel_share_none() -> None:
    nothing = (np.array([], np.int64), np.array([], np.int64))
    found = count_shared(nothing, (np.array([1]), np.array([1])), (2, 1))
    assert found.tolist() == [[0], [0]]
    assert [one.number for one in match_clusters(found, np.array([0, 0]), np.array([1]), None)] == [
        None,
        None,
    ]
