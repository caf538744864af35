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


@dataclass(frozen=True, eq=False)
class SpectralStatistics:
    """Mean and spread of each band, and the components that the network sees."""

    mean: DoubleArray
    """Shape ``(band,)``, in the unit of the image."""
    std: DoubleArray
    """Shape ``(band,)``; infinite for a band that never changes, which is 0 from then on."""
    components: FloatArray | None
    """Shape ``(component, band)``: z-scored bands to components; None shows the bands."""

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
            z = ((flat[:, chunk].T - self.mean) / self.std).astype(np.float32)
            result[chunk] = z if self.components is None else z @ self.components.T
        return result.reshape(height, width, self.channels)


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

    def add(self, pixels: FloatArray) -> None:
        """Take in pixels ``(n, band)``."""
        for start in range(0, len(pixels), _CHUNK_PX):
            chunk = pixels[start : start + _CHUNK_PX].astype(np.float64)
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
    """Measure all valid pixels of images of the same bands, in one pass of bounded memory.

    Raises:
        ImageryError: If no pixel is valid (``no-valid-pixels``), or all are alike
            (``no-contrast``).
    """
    moments = _Moments(len(images[0].bands))
    progress.start("measuring bands", sum(image.shape[0] for image in images))
    for image in images:
        for rows in block_rows(image):
            chip = image.read(rows.start, height=rows.stop - rows.start)
            valid = usable(chip.reflectance, chip.valid_mask)
            moments.add(chip.reflectance[:, valid].T)
            progress.advance(len(valid))
    progress.finish()
    names = ", ".join(image.source.name for image in images)
    if not moments.count:
        raise ImageryError(
            f"{names}: no pixel is valid in every band; check the nodata value and the bands.",
            kind="no-valid-pixels",
        )
    return _statistics(*moments.mean_and_covariance(), recipe.components, names)


def _statistics(
    mean: DoubleArray, covariance: DoubleArray, components: int | None, names: str
) -> SpectralStatistics:
    spread = np.sqrt(np.maximum(np.diag(covariance), 0))
    # Below this, a spread is the rounding of float32 values.
    changes = spread > 1e-7 * np.abs(mean)
    if not changes.any():
        raise ImageryError(
            f"{names}: all valid pixels are alike, there is nothing to learn.", kind="no-contrast"
        )
    std = np.where(changes, spread, np.inf)
    if components is None:
        return SpectralStatistics(mean, std, None)
    correlation = covariance / np.outer(std, std)
    return SpectralStatistics(mean, std, _principal_components(correlation, components))


def _principal_components(correlation: DoubleArray, count: int) -> FloatArray:
    """The first components, all scaled by one number, so that together they have unit variance."""
    amplitudes, directions = np.linalg.eigh(correlation)
    count = min(count, len(correlation))
    kept = directions[:, ::-1][:, :count].T
    # A direction and its opposite are equally good; take the same one on every machine.
    largest = np.abs(kept).argmax(axis=1)
    kept = kept * np.sign(kept[np.arange(count), largest])[:, None]
    scale = np.sqrt(amplitudes[::-1][:count].mean())
    return np.asarray(kept / scale, dtype=np.float32)
