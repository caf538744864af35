"""Two views of an image's pixels, which the number of its classes is read from.

Neither depends on an encoder. In units of the signal, large and bright differences count; in units
of the noise also subtle ones, as far as they exceed it.

References:
    Green et al. (1988), as in ``pixel_features``: minimum noise fraction (MNF).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.imagery.spectral_image import SpectralImage
from indexer.mapping.blocks import Survey, features_at
from indexer.mapping.pixel_features import (
    LinearFeatures,
    PixelStatistics,
    minimum_noise_fraction,
    principal_components,
)
from indexer.progress import Progress

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

SIGNAL, NOISE = "signal", "noise"
"""Names of the views."""

COMPONENTS: Final = 20
"""Principal components of the view in units of the signal, fewer where there are fewer bands."""

NEIGHBORHOOD_PX: Final = 5
"""Side of the square whose mean stands beside each pixel: what grows there is one class, however
speckled."""


@dataclass(frozen=True)
class PixelViews:
    """Both views as features of a pixel, side by side."""

    components: LinearFeatures
    """Principal components of the z-scored bands."""
    mnf: LinearFeatures

    name = "bands"
    margin_px = NEIGHBORHOOD_PX // 2

    @classmethod
    def of_image(cls, statistics: PixelStatistics) -> "PixelViews":
        """The views of an image."""
        return cls(principal_components(statistics, COMPONENTS), minimum_noise_fraction(statistics))

    @property
    def digest(self) -> str:
        """Those of its parts."""
        return f"{self.components.digest}-{self.mnf.digest}"

    def of(self, values: FloatArray, valid_mask: BoolArray, wanted: BoolArray) -> FloatArray:
        """Components, their means over the neighborhood, and MNF, see ``PixelFeatures``."""
        count = self.components.matrix.shape[1]
        area = np.zeros((*valid_mask.shape, count), dtype=np.float32)
        area[valid_mask] = self.components.of(values, valid_mask, valid_mask)
        means = _local_means(area, valid_mask)
        return np.hstack([area[wanted], means[wanted], self.mnf.of(values, valid_mask, wanted)])

    def split(self, sample: FloatArray) -> dict[str, FloatArray]:
        """The views by name; in that of the signal, pixels count as much as their neighborhoods.

        Args:
            sample: As ``of`` gives, shape ``(n, d)``.
        """
        count = self.components.matrix.shape[1]
        pixels, means = sample[:, :count], sample[:, count : 2 * count]
        signal = np.hstack([_at_unit_rms(pixels), _at_unit_rms(means)])
        return {SIGNAL: signal, NOISE: sample[:, 2 * count :]}


def sample_views(
    image: SpectralImage, found: Survey, most: int, seed: int, progress: Progress
) -> dict[str, FloatArray]:
    """Both views of the same pixels of an image, by name.

    Args:
        image: With all its bands: what is chosen from the views must not depend on an encoder's.
        found: What a survey of the image told, with statistics.
        most: Pixels at most; of more, a random sample.
        seed: Decides which.
        progress: Is told how far the work has come.
    """
    if found.statistics is None:
        raise TypeError("views need statistics of the image")
    random = np.random.default_rng(seed)
    count = min(most, found.pixels)
    chosen = np.sort(random.choice(found.pixels, count, replace=False, shuffle=False))
    views = PixelViews.of_image(found.statistics)
    return views.split(features_at(image, views, found, chosen, progress))


def _local_means(area: FloatArray, valid_mask: BoolArray) -> FloatArray:
    """Mean over the valid pixels of the neighborhood, shape ``(y, x, d)``; 0 where there is none.

    Args:
        area: Shape ``(y, x, d)``; 0 at invalid pixels.
        valid_mask: Shape ``(y, x)``.
    """
    from scipy.ndimage import uniform_filter

    size = (NEIGHBORHOOD_PX, NEIGHBORHOOD_PX)
    share = uniform_filter(valid_mask.astype(np.float32), size, mode="constant")
    sums = uniform_filter(area, (*size, 1), mode="constant")
    return np.asarray(sums / np.where(valid_mask, share, 1)[..., None])


def _at_unit_rms(block: FloatArray) -> FloatArray:
    """Centered, with a mean squared length of 1; zeros where all rows are equal."""
    centered = block - block.mean(axis=0, dtype=np.float64)
    rms = np.sqrt((centered**2).sum(axis=1).mean())
    return np.asarray(centered / (rms or 1), dtype=np.float32)
