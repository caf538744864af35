"""What many pixels amount to: weighted summaries of a parcel, streaming statistics of a run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def weighted_quantiles(
    values: npt.ArrayLike, weights: npt.ArrayLike, q: Sequence[float]
) -> Float64Array:
    """Quantiles of values that count by their weights.

    The k-th smallest value lies at ``(C_k - w_k/2 - w_1/2) / (W - w_1/2 - w_n/2)``, with ``C_k``
    the inclusive cumulative weight and ``W`` the total; between two values the quantile is
    interpolated linearly. With equal weights that is the default of ``numpy.quantile``
    (type 7 of Hyndman and Fan 1996, The American Statistician 50(4), 361-365).

    Args:
        values: Any shape, in any unit.
        weights: Same shape, 0 or more, in any unit; a value of weight 0 does not count.
        q: Quantiles asked for, each within [0, 1].

    Returns:
        float64, shape ``(len(q),)``, in the unit of ``values``; NaN throughout where no value
        counts or one that counts is not finite.

    Raises:
        ValueError: If the shapes differ, a weight is negative or NaN, or a quantile lies outside
            [0, 1].
    """
    quantiles = np.asarray(q, dtype=np.float64)
    if not ((quantiles >= 0) & (quantiles <= 1)).all():
        raise ValueError(f"quantiles {list(q)} do not all lie within [0, 1]")
    counted, weight = _counted(values, weights)
    if counted.size == 0 or not np.isfinite(counted).all():
        return np.full(quantiles.shape, np.nan)
    # Among equal values the weight decides, so that the input's order never shows in the result.
    order = np.lexsort((weight, counted))
    counted, weight = counted[order], weight[order]
    position = np.cumsum(weight) - weight / 2
    position -= position[0]
    if counted.size > 1:
        position /= position[-1]
    return np.interp(quantiles, position, counted)


@dataclass(frozen=True)
class Summary:
    """What the values of one quantity over one parcel amount to, in the unit of the quantity."""

    median: float
    """Weighted median."""
    mean: float
    """Weighted mean."""
    std: float
    """Weighted standard deviation of the population."""
    p10: float
    """Weighted 10th percentile."""
    p90: float
    """Weighted 90th percentile."""


def summarize(values: npt.ArrayLike, weights: npt.ArrayLike) -> Summary | None:
    """Median, mean, spread and outer percentiles of the finite values, counted by weight.

    Args:
        values: Any shape, in any unit; what is not finite does not count.
        weights: Same shape, 0 or more; a value of weight 0 does not count.

    Returns:
        The summary in the unit of ``values``; None where no value counts.

    Raises:
        ValueError: If the shapes differ, or a weight is negative or NaN.
    """
    counted, weight = _counted(values, weights)
    finite = np.isfinite(counted)
    counted, weight = counted[finite], weight[finite]
    if counted.size == 0:
        return None
    p10, median, p90 = weighted_quantiles(counted, weight, (0.1, 0.5, 0.9))
    share = weight / weight.sum()
    mean = (share * counted).sum()
    variance = (share * (counted - mean) ** 2).sum()
    return Summary(
        median=float(median),
        mean=float(mean),
        std=float(np.sqrt(variance)),
        p10=float(p10),
        p90=float(p90),
    )


def _counted(values: npt.ArrayLike, weights: npt.ArrayLike) -> tuple[Float64Array, Float64Array]:
    """Values of positive weight, and their weights, both flat and float64."""
    value = np.asarray(values, dtype=np.float64)
    weight = np.asarray(weights, dtype=np.float64)
    if value.shape != weight.shape:
        raise ValueError(f"values {value.shape} and weights {weight.shape} differ in shape")
    if not (weight >= 0).all():
        raise ValueError("a weight is negative or NaN")
    return value[weight > 0], weight[weight > 0]


class BandStatistics:
    """Mean and standard deviation of each band over any number of pixels, in one pass.

    ``update`` and ``merge`` change the object in place. In which order pixels arrive, and how
    they are divided among objects that are merged later, changes the result by rounding only.

    References:
        Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance, The American
        Statistician 37(3), 242-247: the update formulas for two parts.
    """

    def __init__(
        self, bands: tuple[str, ...], count: IntArray, mean: Float64Array, deviation: Float64Array
    ) -> None:
        """Use ``empty`` to begin.

        Args:
            bands: Name of each band.
            count: Pixels counted, shape ``(band,)``.
            mean: Mean over these, same shape; anything finite where nothing is counted.
            deviation: Sum of squared deviations from the mean, same shape.
        """
        self.bands = bands
        self._count = count
        self._mean = mean
        self._deviation = deviation

    @classmethod
    def empty(cls, bands: tuple[str, ...]) -> "BandStatistics":
        """Statistics of no pixels yet."""
        size = len(bands)
        return cls(bands, np.zeros(size, dtype=np.int64), np.zeros(size), np.zeros(size))

    def update(self, pixels: npt.ArrayLike) -> None:
        """Count more pixels.

        Args:
            pixels: Shape ``(band, n)``, in the order of ``bands``. What is not finite is left
                out, band by band.

        Raises:
            ValueError: If the shape is not ``(band, n)``.
        """
        values = np.asarray(pixels, dtype=np.float64)
        if values.ndim != 2 or len(values) != len(self.bands):
            raise ValueError(f"pixels {values.shape} are not ({len(self.bands)} bands, n)")
        finite = np.isfinite(values)
        count = finite.sum(axis=1, dtype=np.int64)
        mean = np.where(finite, values, 0.0).sum(axis=1) / np.maximum(count, 1)
        from_mean = np.where(finite, values, mean[:, None]) - mean[:, None]
        self._combine(count, mean, (from_mean**2).sum(axis=1))

    def merge(self, other: "BandStatistics") -> None:
        """Count the pixels that another object has counted; the other stays as it is.

        Raises:
            ValueError: If the other's bands, or their order, differ.
        """
        if other.bands != self.bands:
            raise ValueError(f"statistics of {other.bands} do not merge with those of {self.bands}")
        self._combine(other._count, other._mean, other._deviation)

    def _combine(self, count: IntArray, mean: Float64Array, deviation: Float64Array) -> None:
        total = self._count + count
        share = count / np.maximum(total, 1)
        delta = mean - self._mean
        self._mean = self._mean + delta * share
        self._deviation = self._deviation + deviation + delta**2 * self._count * share
        self._count = total

    @property
    def count(self) -> IntArray:
        """Pixels counted in each band, shape ``(band,)``."""
        return self._count.copy()

    @property
    def mean(self) -> Float64Array:
        """Mean of each band, shape ``(band,)``, in the unit of the pixels; NaN without pixels."""
        return np.where(self._count > 0, self._mean, np.nan)

    @property
    def std(self) -> Float64Array:
        """Standard deviation of the population, shape ``(band,)``; NaN without pixels."""
        variance = self._deviation / np.maximum(self._count, 1)
        return np.where(self._count > 0, np.sqrt(variance), np.nan)
