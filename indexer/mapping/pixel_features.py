"""What pixels become before they are clustered: features of an encoder, or of their bands alone.

The linear ones need one pass over the image, block by block, to be measured.

References:
    Green, Berman, Switzer and Craig (1988), A transformation for ordering multispectral data in
    terms of image quality with implications for noise removal, IEEE Transactions on Geoscience
    and Remote Sensing 26(1), 65-74: minimum noise fraction (MNF).
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from indexer.encoders.simple_vit import SimpleViTEncoder

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

COMPONENTS = 10
"""Components kept by MNF, fewer where there are fewer bands."""

# Below this share of the noisiest direction, a direction counts as equally noisy: rounding must
# not make a signal of one without noise.
_NOISE_FLOOR = 1e-6


class PixelFeatures(Protocol):
    """Turns pixels into what is clustered."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def digest(self) -> str:
        """Names the map from pixels to features: those of two digests must not be compared."""

    @property
    def margin_px(self) -> int:
        """Pixels around a pixel that its features depend on."""

    def of(self, values: FloatArray, valid_mask: BoolArray, wanted: BoolArray) -> FloatArray:
        """Features of some valid pixels of a block.

        Args:
            values: Shape ``(band, y, x)``.
            valid_mask: Shape ``(y, x)``.
            wanted: Same shape; True only at valid pixels, which are at least ``margin_px`` from an
                edge of the block that is none of the image.

        Returns:
            Shape ``(n, d)``, one row a wanted pixel, in row-major order.
        """


class PixelStatistics:
    """Mean, covariance and noise covariance of the valid pixels, from any number of blocks.

    Noise is what differs between neighbors: half of the covariance of the differences between
    pixels that touch by a side (Green et al. 1988). Neighbors on both sides of a block's edge are
    left out, which changes the estimate by rounding only.
    """

    def __init__(self, bands: int) -> None:
        self.count = 0
        self.mean: Float64Array = np.zeros(bands)
        self._scatter: Float64Array = np.zeros((bands, bands))
        self._pairs = 0
        self._differences: Float64Array = np.zeros((bands, bands))

    def update(self, values: FloatArray, valid_mask: BoolArray) -> None:
        """Count a block.

        Args:
            values: Shape ``(band, y, x)``, in any unit; read where valid only.
            valid_mask: Shape ``(y, x)``.
        """
        pixels = values[:, valid_mask].astype(np.float64)
        count = pixels.shape[1]
        if count == 0:
            return
        mean = pixels.mean(axis=1)
        centered = pixels - mean[:, None]
        delta = mean - self.mean
        total = self.count + count
        # Chan, Golub and LeVeque (1983): how two parts' sums of squares become one.
        self._scatter += centered @ centered.T
        self._scatter += np.outer(delta, delta) * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total
        self._count_noise(values, valid_mask)

    def _count_noise(self, values: FloatArray, valid_mask: BoolArray) -> None:
        for one, other in (
            ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
            ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ):
            both = valid_mask[one] & valid_mask[other]
            difference = values[:, *one][:, both].astype(np.float64) - values[:, *other][:, both]
            self._differences += difference @ difference.T
            self._pairs += difference.shape[1]

    @property
    def covariance(self) -> Float64Array:
        """Of the population, shape ``(band, band)``."""
        return self._scatter / max(self.count, 1)

    @property
    def noise_covariance(self) -> Float64Array:
        """Shape ``(band, band)``; zeros where no pixel has a neighbor."""
        return self._differences / (2 * max(self._pairs, 1))


@dataclass(frozen=True)
class LinearFeatures:
    """Features that are a fixed linear map of the pixel's bands."""

    name: str
    """``z-scored pixels``, ``principal components`` or ``MNF``."""
    mean: Float64Array
    """Shape ``(band,)``."""
    matrix: Float64Array
    """Shape ``(band, d)``; features are ``(pixel - mean) @ matrix``."""

    margin_px = 0

    @property
    def digest(self) -> str:
        """SHA-256 of name and map."""
        parts = (self.name.encode(), self.mean.tobytes(), self.matrix.tobytes())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def of(self, values: FloatArray, valid_mask: BoolArray, wanted: BoolArray) -> FloatArray:
        """Features of the wanted pixels, see ``PixelFeatures``."""
        pixels = values[:, wanted].T
        return ((pixels - self.mean) @ self.matrix).astype(np.float32)


@dataclass(frozen=True)
class EncoderFeatures:
    """What an encoder makes of the window around each pixel."""

    encoder: "SimpleViTEncoder"

    @property
    def name(self) -> str:
        """``simple-vit``, or what says that it is random."""
        return self.encoder.name if self.encoder.trained else f"{self.encoder.name}, untrained"

    @property
    def digest(self) -> str:
        """The encoder's."""
        return self.encoder.digest

    @property
    def margin_px(self) -> int:
        """Half a window."""
        return self.encoder.window_px // 2

    def of(self, values: FloatArray, valid_mask: BoolArray, wanted: BoolArray) -> FloatArray:
        """Features of the wanted pixels, see ``PixelFeatures``."""
        return self.encoder.embed_pixels(values, valid_mask, wanted=wanted)


def z_scored(statistics: PixelStatistics) -> LinearFeatures:
    """Each band with mean 0 and standard deviation 1; a constant band becomes 0."""
    std = np.sqrt(np.diag(statistics.covariance))
    scale = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
    return LinearFeatures("z-scored pixels", statistics.mean.copy(), np.diag(scale))


def principal_components(statistics: PixelStatistics, components: int) -> LinearFeatures:
    """The first principal components of the z-scored bands, in their own units.

    Args:
        statistics: Of the image.
        components: Kept at most.
    """
    z_scores = z_scored(statistics)
    _, axes = np.linalg.eigh(z_scores.matrix.T @ statistics.covariance @ z_scores.matrix)
    matrix = _signed(z_scores.matrix @ axes[:, ::-1][:, :components])
    return LinearFeatures("principal components", z_scores.mean, matrix)


def minimum_noise_fraction(
    statistics: PixelStatistics, components: int = COMPONENTS
) -> LinearFeatures:
    """The components of the highest signal-to-noise ratio, each in units of its noise.

    Args:
        statistics: Of the image.
        components: Kept at most.

    References:
        Green et al. (1988), as above.
    """
    noise, directions = np.linalg.eigh(statistics.noise_covariance)
    if noise[-1] <= 0:
        # No noise at all, as in a drawn image: what is left of MNF is PCA.
        noise = np.ones_like(noise)
    whiten = directions / np.sqrt(np.maximum(noise, noise[-1] * _NOISE_FLOOR))
    _, signal = np.linalg.eigh(whiten.T @ statistics.covariance @ whiten)
    kept = signal[:, ::-1][:, :components]
    return LinearFeatures("MNF", statistics.mean.copy(), _signed(whiten @ kept))


def _signed(matrix: Float64Array) -> Float64Array:
    """Columns whose largest entry is positive, so that every machine gives the same."""
    largest = np.abs(matrix).argmax(axis=0)
    sign = np.sign(matrix[largest, np.arange(matrix.shape[1])])
    return np.asarray(matrix * np.where(sign == 0, 1, sign))
