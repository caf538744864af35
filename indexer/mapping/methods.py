"""How features become classes: three ways to cluster, each fitted once and applied to any block.

A method is prepared with a sample of features, then asked for any number of classes: what does not
depend on k is done once.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_CLASSES = 50
"""Classes of a map at most: more colors cannot be told apart."""

MICRO_CLUSTERS = 200
"""Groups that spectral clustering takes in place of pixels, whose graph would not fit in memory."""

_NEIGHBORS = 10
_BEGINNINGS = 10
_MIXTURE_COMPONENTS = 10
# Share of the mean variance that is added to each: a class of equal pixels has none of its own.
_MIXTURE_FLOOR = 1e-3
_MIXTURE_BEGINNINGS = 3


class Fitted(Protocol):
    """Classes that any further pixel can be put in."""

    @property
    def k(self) -> int:
        """Classes; fewer than asked for where there are fewer different features."""

    def predict(self, features: FloatArray) -> IntArray:
        """The class of each row, 0 to k - 1, shape ``(n,)``; a row's class depends on it alone."""


class Method(Protocol):
    """A way to cluster, prepared with a sample."""

    def fit(self, k: int) -> Fitted:
        """Divide the sample into k classes."""


class NearestCenter:
    """The class of the nearest of some centers, of which several may belong to one class."""

    def __init__(self, centers: FloatArray, classes: IntArray | None = None) -> None:
        """Take centers as they are.

        Args:
            centers: Shape ``(m, d)``.
            classes: Of each center, from 0, without gaps; None gives each center its own.
        """
        self._centers = centers
        self._half_norms = 0.5 * (centers.astype(np.float64) ** 2).sum(axis=1)
        self._classes = np.arange(len(centers)) if classes is None else classes
        self.k = int(self._classes.max()) + 1

    def predict(self, features: FloatArray) -> IntArray:
        """The class of the nearest center, of equals the first."""
        nearness = features.astype(np.float64) @ self._centers.T.astype(np.float64)
        nearest: IntArray = (nearness - self._half_norms).argmax(axis=1)
        return np.asarray(self._classes[nearest], dtype=np.int64)


class KMeansMethod:
    """K-means: the k centers with the least squared distance to their features."""

    def __init__(self, features: FloatArray, seed: int) -> None:
        """Keep a sample, shape ``(n, d)``."""
        self._features = features
        self._seed = seed

    def fit(self, k: int) -> NearestCenter:
        """Divide the sample into k classes."""
        return NearestCenter(kmeans_centers(self._features, k, self._seed))


class SpectralMethod:
    """Spectral clustering of micro-clusters: follows classes of any shape, not only round ones.

    K-means divides the sample into ``MICRO_CLUSTERS``; their centers are clustered by the graph of
    their 10 nearest neighbors, and a pixel is of the class of its nearest center.

    References:
        von Luxburg (2007), A tutorial on spectral clustering, Statistics and Computing 17(4),
        395-416: normalized Laplacian after Shi and Malik (2000).
    """

    def __init__(self, features: FloatArray, seed: int) -> None:
        """Make micro-clusters of a sample, shape ``(n, d)``."""
        self._seed = seed
        self.centers = kmeans_centers(features, MICRO_CLUSTERS, seed, beginnings=1)
        self.eigenvalues, self._vectors = _graph_spectrum(self.centers)

    def fit(self, k: int) -> NearestCenter:
        """Divide the micro-clusters into k classes."""
        k = min(k, len(self.centers))
        coordinates = self._vectors[:, :k].astype(np.float32)
        groups = NearestCenter(kmeans_centers(coordinates, k, self._seed)).predict(coordinates)
        return NearestCenter(self.centers, np.unique(groups, return_inverse=True)[1])


class MixtureMethod:
    """Gaussian mixture with full covariances on the first ten principal components."""

    def __init__(self, features: FloatArray, seed: int) -> None:
        """Find the principal components of a sample, shape ``(n, d)``."""
        self._mean = features.mean(axis=0, dtype=np.float64)
        centered = features - self._mean
        _, vectors = np.linalg.eigh(centered.T @ centered)
        self._axes = vectors[:, ::-1][:, :_MIXTURE_COMPONENTS]
        self._sample = self._components(features)
        self._seed = seed

    def fit(self, k: int) -> "MixtureClasses":
        """Divide the sample into k classes."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        k = min(k, _different_rows(self._sample, k))
        if k == 1:
            return MixtureClasses(1, lambda features: np.zeros(len(features), dtype=np.int64))
        mixture = GaussianMixture(
            k,
            reg_covar=max(_MIXTURE_FLOOR * float(self._sample.var(axis=0).mean()), 1e-12),
            n_init=_MIXTURE_BEGINNINGS,
            max_iter=200,
            random_state=self._seed,
        )
        with warnings.catch_warnings():
            # Likelihood that still rises a little is no reason to worry whoever wants a map.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(self._sample)
        return MixtureClasses(k, lambda features: mixture.predict(self._components(features)))

    def _components(self, features: FloatArray) -> Float64Array:
        return np.asarray((features.astype(np.float64) - self._mean) @ self._axes)


class MixtureClasses:
    """The class of the most probable component."""

    def __init__(self, k: int, most_probable: Callable[[FloatArray], IntArray]) -> None:
        self.k = k
        self._most_probable = most_probable

    def predict(self, features: FloatArray) -> IntArray:
        """The most probable component of each row."""
        if len(features) == 0:
            return np.zeros(0, dtype=np.int64)
        return np.asarray(self._most_probable(features), dtype=np.int64)


METHODS: dict[str, Callable[[FloatArray, int], Method]] = {
    "kmeans": KMeansMethod,
    "spectral": SpectralMethod,
    "gmm": MixtureMethod,
}
"""How features are clustered, by name: of a sample of features, shape ``(n, d)``, and a seed."""


def fit(method: str, features: FloatArray, k: int, seed: int = 0) -> Fitted:
    """Divide features into k classes.

    Args:
        method: One of ``METHODS``.
        features: A sample, shape ``(n, d)``.
        k: Classes wanted, at least 1.
        seed: Decides where the search begins.
    """
    return METHODS[method](features, seed).fit(k)


def kmeans_centers(
    features: FloatArray, k: int, seed: int, beginnings: int = _BEGINNINGS
) -> FloatArray:
    """Centers of K-means; as many as there are different rows where these are fewer than k.

    Args:
        features: Shape ``(n, d)``.
        k: Centers wanted, at least 1.
        seed: Decides where the search begins.
        beginnings: The best of so many searches is taken.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    k = min(k, _different_rows(features, k))
    # One thread, so that sums do not depend on their number, and because on a busy machine several
    # wait for each other, ten times as long as they work.
    with threadpool_limits(1):
        # scikit-learn takes twice as long over float32, which it turns into float64 bit by bit.
        found = KMeans(k, n_init=beginnings, random_state=seed).fit(features.astype(np.float64))
    return np.asarray(found.cluster_centers_, dtype=np.float32)


def _different_rows(rows: npt.NDArray[np.floating], enough: int) -> int:
    """How many different rows there are, counted no further than needed."""
    few = len(np.unique(rows[: 4 * enough], axis=0))
    return few if few >= enough else len(np.unique(rows, axis=0))


def _graph_spectrum(points: FloatArray) -> tuple[Float64Array, Float64Array]:
    """Eigenvalues of the neighbor graph's normalized Laplacian, ascending, and its embedding.

    Written out because the points are few: all eigenvectors of a dense matrix come without a
    random beginning, and a graph in several parts is as good as any.
    """
    from sklearn.neighbors import kneighbors_graph

    neighbors = min(_NEIGHBORS, len(points))
    graph = kneighbors_graph(points, neighbors, include_self=True).toarray()
    weights = 0.5 * (graph + graph.T)
    np.fill_diagonal(weights, 0)
    # A point without any neighbor, which is the only one there is.
    degrees = np.maximum(weights.sum(axis=1), 1e-12)
    root = np.sqrt(degrees)
    laplacian = np.eye(len(points)) - weights / np.outer(root, root)
    eigenvalues, vectors = np.linalg.eigh(laplacian)
    return eigenvalues, vectors / root[:, None]
