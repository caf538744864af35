"""What the bands of training images are like: measured in one pass, then frozen in the file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.errors import ImageryError
from indexer.imagery.image_blocks import block_rows
from indexer.imagery.spectral_cube import SpectralImage
from indexer.progress import Progress
from indexer.training.recipes import PretrainRecipe

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_CHUNK_PX = 8192
# Share of the largest variance below which a component is what rounding leaves.
_ROUNDING = 1e-10
# Passes at most in which odd values are cut: each takes away nine tenths or more of what is left of
# a rare one's share. Once the spread falls by no more than a hundredth, it has settled.
_CUTS = 5
_SETTLED = 0.99


@dataclass(frozen=True, eq=False)
class SpectralStatistics:
    """Mean and spread of each band, and the components that the network sees."""

    mean: DoubleArray
    """Shape ``(band,)``, in the unit of the image."""
    std: DoubleArray
    """Shape ``(band,)``; infinite for a band that never changes, which is 0 from then on."""
    components: FloatArray | None = None
    """Shape ``(component, band)``: z-scored bands to components; None shows the bands."""
    limits: DoubleArray | None = None
    """Shape ``(2, band)``: least and greatest value of each band, to which others are cut; None
    cuts nothing."""

    @property
    def channels(self) -> int:
        """Values of a pixel that the network sees."""
        return len(self.mean if self.components is None else self.components)

    def channels_of(self, values: FloatArray, valid_mask: BoolArray) -> FloatArray:
        """What the network sees of an image.

        Args:
            values: Shape ``(band, y, x)``.
            valid_mask: Shape ``(y, x)``. Other pixels are filled with the mean of each band.

        Returns:
            Shape ``(y, x, channel)``; 0 at pixels that are not valid.
        """
        height, width = valid_mask.shape
        result = np.zeros((height * width, self.channels), dtype=np.float32)
        flat = values.reshape(len(values), -1)
        places = np.flatnonzero(valid_mask)
        for start in range(0, len(places), _CHUNK_PX):
            chunk = places[start : start + _CHUNK_PX]
            # In double precision: radiances of some bands are thousands of standard deviations.
            z = ((self.cut(flat[:, chunk].T) - self.mean) / self.std).astype(np.float32)
            result[chunk] = z if self.components is None else z @ self.components.T
        return result.reshape(height, width, self.channels)

    def cut(self, pixels: FloatArray | DoubleArray) -> FloatArray | DoubleArray:
        """Pixels ``(n, band)`` with values beyond the limits brought to them."""
        return pixels if self.limits is None else np.asarray(np.clip(pixels, *self.limits))


def usable(values: FloatArray, valid_mask: BoolArray) -> BoolArray:
    """Where a pixel is valid and every band finite, shape ``(y, x)``."""
    return np.asarray(valid_mask & np.isfinite(values).all(axis=0))


class _Moments:
    """Sums over pixels, from which mean and covariance follow.

    They are taken around the first pixels' mean, so that little is lost where values are large
    beside their spread.
    """

    def __init__(self, bands: int) -> None:
        self.count = 0
        self._shift: DoubleArray | None = None
        self._sum = np.zeros(bands)
        self._products = np.zeros((bands, bands))

    def add(self, pixels: FloatArray, limits: DoubleArray | None) -> None:
        """Take in pixels ``(n, band)``, cut to limits where there are some."""
        for start in range(0, len(pixels), _CHUNK_PX):
            chunk = pixels[start : start + _CHUNK_PX].astype(np.float64)
            if limits is not None:
                np.clip(chunk, *limits, out=chunk)
            if self._shift is None:
                self._shift = chunk.mean(axis=0)
            chunk -= self._shift
            self.count += len(chunk)
            self._sum += chunk.sum(axis=0)
            self._products += chunk.T @ chunk

    def mean_and_covariance(self) -> tuple[DoubleArray, DoubleArray]:
        offset = self._sum / self.count
        shift = 0.0 if self._shift is None else self._shift
        return shift + offset, self._products / self.count - np.outer(offset, offset)


def measure(
    images: Sequence[SpectralImage], recipe: PretrainRecipe, progress: Progress
) -> SpectralStatistics:
    """Measure all valid pixels of images of the same bands, block by block in bounded memory.

    One pass over the images, and where odd values are cut a few more: what they add to the spread
    moves the limits beyond which they are odd.

    Raises:
        ImageryError: If no pixel of an image is valid (``no-valid-pixels``), or all pixels are
            alike (``no-contrast``).
    """
    mean, covariance = _moments(images, None, progress)
    spread, limits = _spread(mean, covariance), None
    for _ in range(_CUTS if recipe.clip_std is not None else 0):
        before = spread
        limits = mean + np.outer((-1, 1), (recipe.clip_std or 0) * spread)
        mean, covariance = _moments(images, limits, progress)
        spread = _spread(mean, covariance)
        if (spread >= _SETTLED * before).all():
            break
    if not spread.any():
        raise ImageryError(
            f"{_names(images)}: all valid pixels are alike, there is nothing to learn.",
            kind="no-contrast",
        )
    std = np.where(spread > 0, spread, np.inf)
    if recipe.components is None:
        return SpectralStatistics(mean, std, None, limits)
    correlation = covariance / np.outer(std, std)
    components = _principal_components(correlation, recipe.components, recipe.whitening)
    return SpectralStatistics(mean, std, components, limits)


def _moments(
    images: Sequence[SpectralImage], limits: DoubleArray | None, progress: Progress
) -> tuple[DoubleArray, DoubleArray]:
    """Mean and covariance of the bands, cut to limits where there are some."""
    moments = _Moments(len(images[0].bands))
    progress.start("measuring bands", sum(image.shape[0] for image in images))
    for image in images:
        before = moments.count
        for rows in block_rows(image):
            chip = image.read(rows.start, height=rows.stop - rows.start)
            valid = usable(chip.reflectance, chip.valid_mask)
            moments.add(chip.reflectance[:, valid].T, limits)
            progress.advance(len(valid))
        if moments.count == before:
            raise ImageryError(
                f"{image.source.path}: no pixel is valid in every band; check the nodata value and "
                "the bands, or leave this image out.",
                kind="no-valid-pixels",
            )
    progress.finish()
    return moments.mean_and_covariance()


def _names(images: Sequence[SpectralImage]) -> str:
    return ", ".join(image.source.name for image in images)


def _spread(mean: DoubleArray, covariance: DoubleArray) -> DoubleArray:
    """Standard deviation of each band; 0 where it is what rounding float32 values leaves."""
    spread = np.sqrt(np.maximum(np.diag(covariance), 0))
    return np.where(spread > 1e-7 * np.abs(mean), spread, 0.0)


def _principal_components(correlation: DoubleArray, count: int, whitening: float) -> FloatArray:
    """The first components, all scaled by one number, so that together they have unit variance."""
    variances, directions = np.linalg.eigh(correlation)
    count = min(count, int((variances > _ROUNDING * variances[-1]).sum()))
    variances = variances[::-1][:count]
    kept = directions[:, ::-1][:, :count].T
    # A direction and its opposite are equally good; take the same one on every machine.
    largest = np.abs(kept).argmax(axis=1)
    kept = kept * np.sign(kept[np.arange(count), largest])[:, None]
    # Amplitudes are roots of variances, and whitening w leaves them to the power 1 - w.
    kept *= variances[:, None] ** (-whitening / 2)
    return np.asarray(kept / np.sqrt((variances ** (1 - whitening)).mean()), dtype=np.float32)
