import numpy as np
import numpy.typing as npt
import pytest
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import make_blobs, make_circles
from sklearn.metrics import adjusted_rand_score

from indexer.mapping.methods import METHODS, MICRO_CLUSTERS, SpectralMethod, fit

FloatArray = npt.NDArray[np.float32]


def blobs(groups: int = 4, rows: int = 400) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    points, labels = make_blobs(
        rows, n_features=12, centers=groups, cluster_std=0.5, random_state=1
    )
    return points.astype(np.float32), labels


@pytest.mark.parametrize("method", METHODS)
def test_groups_that_lie_apart_are_found(method: str) -> None:
    points, known = blobs()
    fitted = fit(method, points, 4)
    assert fitted.k == 4
    assert adjusted_rand_score(known, fitted.predict(points)) == 1


@pytest.mark.parametrize("method", METHODS)
def test_the_class_of_a_pixel_does_not_depend_on_its_block(method: str) -> None:
    points, _ = blobs()
    fitted = fit(method, points[:200], 4)
    whole = fitted.predict(points)
    parts = [fitted.predict(points[start : start + 7]) for start in range(0, len(points), 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert fitted.predict(points[:0]).shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_classes(method: str) -> None:
    points = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    one, other = (fit(method, points, 5, seed=3).predict(points) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("method", METHODS)
def test_there_are_no_more_classes_than_different_rows(method: str) -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    fitted = fit(method, points, 5)
    assert fitted.k == 3
    assert set(fitted.predict(points).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("method", METHODS)
def test_one_pixel_of_one_band_is_a_class(method: str) -> None:
    fitted = fit(method, np.ones((1, 1), np.float32), 1)
    assert fitted.predict(np.ones((3, 1), np.float32)).tolist() == [0, 0, 0]


def test_spectral_clustering_follows_rings_that_kmeans_cuts() -> None:
    points, known = make_circles(600, factor=0.4, noise=0.03, random_state=0)
    points = points.astype(np.float32)
    assert adjusted_rand_score(known, fit("spectral", points, 2).predict(points)) == 1
    assert adjusted_rand_score(known, fit("kmeans", points, 2).predict(points)) < 0.1


def test_micro_clusters_are_clustered_as_scikit_learn_does() -> None:
    # Overlapping groups, so that the graph is in one piece and scikit-learn does not warn.
    points, _ = make_blobs(1000, n_features=3, centers=5, cluster_std=2.5, random_state=2)
    method = SpectralMethod(points.astype(np.float32), seed=0)
    assert len(method.centers) == MICRO_CLUSTERS
    reference = SpectralClustering(
        5, affinity="nearest_neighbors", n_neighbors=10, random_state=0
    ).fit_predict(method.centers.astype(np.float64))
    ours = method.fit(5).predict(method.centers)
    assert adjusted_rand_score(reference, ours) > 0.95


def test_as_many_eigenvalues_are_zero_as_there_are_separate_groups() -> None:
    points, _ = blobs(3)
    assert int((SpectralMethod(points, seed=0).eigenvalues < 1e-9).sum()) == 3


def test_kmeans_is_that_of_scikit_learn() -> None:
    points, _ = blobs(5)
    reference = KMeans(5, n_init=10, random_state=0).fit(points)
    ours = fit("kmeans", points, 5).predict(points)
    assert adjusted_rand_score(reference.labels_, ours) == 1


def test_a_mixture_tells_groups_of_one_center_by_their_spread() -> None:
    random = np.random.default_rng(0)
    known = np.repeat([0, 1], 400)
    points = random.normal(size=(800, 3)) * np.where(known, 8.0, 0.3)[:, None]
    labels = fit("gmm", points.astype(np.float32), 2).predict(points.astype(np.float32))
    assert adjusted_rand_score(known, labels) > 0.8
