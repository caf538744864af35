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
    (row,) = _quantiles_of_rows(counted[None], weight, quantiles)
    return np.asarray(row)


def _quantiles_of_rows(
    values: Float64Array, weights: Float64Array, quantiles: Float64Array
) -> Float64Array:
    """``weighted_quantiles`` of each row of finite values; all rows have the same weights.

    Args:
        values: Shape ``(m, n)``, at least one column.
        weights: Shape ``(n,)``, above 0.
        quantiles: Shape ``(q,)``.

    Returns:
        Shape ``(m, q)``.
    """
    # Among equal values the weight decides, so that the input's order never shows in the result.
    by_weight = np.argsort(weights, kind="stable")
    values, weights = values[:, by_weight], weights[by_weight]
    order = np.argsort(values, axis=1, kind="stable")
    values, weight = np.take_along_axis(values, order, axis=1), weights[order]
    position = np.cumsum(weight, axis=1) - weight / 2
    position -= position[:, :1].copy()
    if values.shape[1] > 1:
        position /= position[:, -1:].copy()
    rows = np.arange(len(values))
    result = np.empty((len(values), len(quantiles)))
    for column, quantile in enumerate(quantiles):
        below = np.count_nonzero(position <= quantile, axis=1) - 1
        above = np.minimum(below + 1, values.shape[1] - 1)
        gap = position[rows, above] - position[rows, below]
        # Nothing lies above the last value.
        way = (quantile - position[rows, below]) / np.where(gap > 0, gap, np.inf)
        low, high = values[rows, below], values[rows, above]
        result[:, column] = low + way * (high - low)
    return result


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

    def to_dict(self) -> dict[str, float]:
        """The numbers by name."""
        return {
            "median": self.median,
            "mean": self.mean,
            "std": self.std,
            "p10": self.p10,
            "p90": self.p90,
        }


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
    return summarize_rows(counted[None], weight)[0]


def summarize_rows(values: Float64Array, weights: Float64Array) -> list[Summary | None]:
    """``summarize`` of several quantities over the same pixels.

    Args:
        values: Shape ``(m, n)``, each row in a unit of its own; what is not finite does not count.
        weights: Of each column, shape ``(n,)``, above 0.

    Returns:
        The summary of each row; None where no value of it counts.
    """
    finite = np.isfinite(values)
    if values.shape[1] == 0 or not finite.all():
        # Rows that count different pixels have different weights.
        return [
            _summarize_finite(row[None, counted], weights[counted])[0] if counted.any() else None
            for row, counted in zip(values, finite, strict=True)
        ]
    return [*_summarize_finite(values, weights)]


def _summarize_finite(values: Float64Array, weights: Float64Array) -> list[Summary]:
    quantiles = _quantiles_of_rows(values, weights, np.array([0.1, 0.5, 0.9]))
    share = weights / weights.sum()
    mean = (share * values).sum(axis=1)
    variance = (share * (values - mean[:, None]) ** 2).sum(axis=1)
    p10, median, p90 = quantiles.T
    columns = (median, mean, np.sqrt(variance), p10, p90)
    return [
        Summary(*numbers) for numbers in zip(*(column.tolist() for column in columns), strict=True)
    ]


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
