import numpy as np
import numpy.typing as npt
import pytest

from indexer.clustering import largest_first, nearest_centroids, train_centroids

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def unit(rows: npt.NDArray[np.floating]) -> FloatArray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def around_axes(sizes: list[int], d: int = 32, seed: int = 0) -> tuple[FloatArray, IntArray]:
    """Unit vectors close to as many axes, mixed, and the axis of each."""
    random = np.random.default_rng(seed)
    axes = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return unit(np.eye(d)[axes] + random.normal(0, 0.05, (len(axes), d))), axes


@pytest.mark.parametrize("seed", range(8))
def test_groups_that_lie_apart_are_told_apart(seed: int) -> None:
    # K-means that begins anywhere would often part the first group, and join small ones.
    vectors, axes = around_axes([200, 40, 30, 20, 20, 10], seed=seed)
    labels, cosines = nearest_centroids(vectors, train_centroids(vectors, 6))
    assert len(set(zip(labels.tolist(), axes.tolist(), strict=True))) == 6
    assert cosines.min() > 0.8


def test_a_centroid_is_the_direction_of_the_mean_of_its_group() -> None:
    vectors, axes = around_axes([60, 30])
    centroids = train_centroids(vectors, 2)
    expected = unit(np.stack([vectors[axes == axis].mean(axis=0) for axis in (0, 1)]))
    found = centroids[np.argsort(-centroids[:, 0])]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-6)


def test_the_same_vectors_give_the_same_centroids() -> None:
    vectors = unit(np.random.default_rng(1).standard_normal((400, 16)))
    np.testing.assert_array_equal(train_centroids(vectors, 7), train_centroids(vectors, 7))


def test_as_many_groups_as_vectors_are_one_each() -> None:
    vectors = unit(np.random.default_rng(2).standard_normal((9, 16)))
    labels, cosines = nearest_centroids(vectors, train_centroids(vectors, 9))
    assert sorted(labels.tolist()) == list(range(9))
    np.testing.assert_allclose(cosines, 1, rtol=1e-6)


def test_vectors_that_are_all_alike_are_one_group(capfd: pytest.CaptureFixture[str]) -> None:
    vectors = np.tile(unit(np.ones((1, 16))), (10, 1))
    labels, cosines = nearest_centroids(vectors, train_centroids(vectors, 3))
    assert len(set(labels.tolist())) == 1
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)
    assert capfd.readouterr().out == ""


def test_few_vectors_are_no_reason_to_warn(capfd: pytest.CaptureFixture[str]) -> None:
    train_centroids(around_axes([3, 3])[0], 2)
    assert capfd.readouterr() == ("", "")


def test_the_closest_centroid_is_that_of_the_largest_cosine() -> None:
    centroids = np.eye(3, dtype=np.float32)
    vectors = np.array([[0.6, 0.8, 0], [0, 0, 1], [-1, 0, 0]], np.float32)
    labels, cosines = nearest_centroids(vectors, centroids)
    assert labels.tolist() == [1, 2, 1]
    np.testing.assert_allclose(cosines, [0.8, 1, 0], rtol=1e-6)


def test_the_largest_group_is_the_first_and_of_equals_the_one_that_begins_first() -> None:
    numbers, filled = largest_first(np.array([4, 2, 2, 0, 0, 2, 4]), 6)
    # Group 2 has three rows; 4 and 0 have two each, and 4 comes first; 1, 3 and 5 have none.
    assert numbers.tolist() == [2, 1, 1, 3, 3, 1, 2]
    assert filled == 3


def test_of_several_searches_the_best_is_taken() -> None:
    # Of three groups the two that share an axis belong together, but some searches end elsewhere.
    axes = np.eye(32, dtype=np.float32)
    centers = unit(np.stack([axes[0] + axes[1], axes[0] + axes[2], axes[7]]))
    vectors = np.repeat(centers, [6, 4, 3], axis=0)
    apart = [[0] * 10 + [1] * 3, [1] * 10 + [0] * 3]

    def found(seed: int, beginnings: int) -> list[int]:
        centroids = train_centroids(vectors, 2, seed, beginnings=beginnings)
        return [int(label) for label in nearest_centroids(vectors, centroids)[0]]

    assert not all(found(seed, 1) in apart for seed in range(20))
    assert all(found(seed, 10) in apart for seed in range(20))
