import numpy as np
import numpy.typing as npt
import pytest

from indexer.recall import exact_neighbors, projection_recall, recall_at_k

FloatArray = npt.NDArray[np.float32]


def unit(rows: npt.ArrayLike) -> FloatArray:
    values = np.asarray(rows, dtype=np.float64)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def on_circle(*degrees: float) -> FloatArray:
    """Unit vectors in the plane; the smaller the angle between two, the closer they are."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_exact_neighbors_come_closest_first() -> None:
    vectors = on_circle(0, 50, 20, 180)
    neighbors = exact_neighbors(on_circle(9, 110), vectors, 3)
    # 9, 11 and 41 degrees away from the first query; 60, 70 and 90 from the second.
    assert neighbors.tolist() == [[0, 2, 1], [1, 3, 2]]
    assert neighbors.dtype == np.int64


def test_equal_scores_come_in_order_of_row() -> None:
    vectors = on_circle(90, 0, 0, 0)
    assert exact_neighbors(on_circle(0), vectors, 4).tolist() == [[1, 2, 3, 0]]


def test_an_excluded_row_is_not_its_own_neighbor() -> None:
    vectors = on_circle(0, 10, 30, 100)
    rows = np.arange(4)
    assert exact_neighbors(vectors, vectors, 1, exclude=rows).tolist() == [[1], [0], [1], [2]]


def test_all_rows_found_is_a_recall_of_one_in_any_order() -> None:
    assert recall_at_k(np.array([[3, 1, 2]]), np.array([[1, 2, 3]])) == 1


def test_recall_is_the_share_of_true_neighbors_over_all_queries() -> None:
    found = np.array([[1, 2, 3, 4], [5, 6, -1, -1]])
    true = np.array([[1, 2, 8, 9], [5, 7, 8, 9]])
    assert recall_at_k(found, true) == 3 / 8


def test_a_missing_result_is_no_hit() -> None:
    assert recall_at_k(np.array([[-1, -1]]), np.array([[0, 1]])) == 0


def test_without_neighbors_to_find_recall_is_one() -> None:
    empty = np.empty((5, 0), dtype=np.int64)
    assert recall_at_k(empty, empty) == 1


def test_a_projection_that_loses_nothing_keeps_every_neighbor() -> None:
    random = np.random.default_rng(0)
    full = unit(random.standard_normal((200, 16)))
    rotation = np.linalg.qr(random.standard_normal((16, 16)))[0]
    assert projection_recall(full, unit(full @ rotation)) == 1


@pytest.mark.parametrize("n", [30, 300])
def test_the_cost_of_a_lossy_projection_is_the_share_of_neighbors_it_loses(n: int) -> None:
    full = unit(np.random.default_rng(1).standard_normal((n, 16)))
    projected = unit(full[:, :4])
    kept = 0
    for row in range(n):
        others = np.delete(np.arange(n), row)
        before = others[np.argsort(-(full[others] @ full[row]))[:10]]
        after = others[np.argsort(-(projected[others] @ projected[row]))[:10]]
        kept += len(set(before.tolist()) & set(after.tolist()))
    measured = projection_recall(full, projected)
    assert measured == pytest.approx(kept / (10 * n))
    assert kept / (10 * n) < 0.9


def test_fewer_rows_than_neighbors_are_compared_with_all_others() -> None:
    # With three rows each has two neighbors, whatever the order: nothing can be lost.
    assert projection_recall(on_circle(0, 10, 90), on_circle(0, 90, 10)) == 1


def test_a_lost_nearest_neighbor_counts_where_only_that_one_is_asked_for() -> None:
    # The first two were each other's nearest, and so were the last two; then two change places.
    full, projected = on_circle(0, 10, 90, 100), on_circle(0, 90, 10, 100)
    assert projection_recall(full, projected, k=1) == 0


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_have_no_recall(n: int) -> None:
    rows = np.ones((n, 4), dtype=np.float32)
    assert projection_recall(rows, rows) is None


@pytest.mark.parametrize("n", [2, 10, 11, 12, 511, 513, 1100])
def test_identical_spaces_lose_nothing_whatever_the_number_of_rows(n: int) -> None:
    rows = on_circle(*np.linspace(0, 180, n))
    assert projection_recall(rows, rows) == 1
