"""A SimpleViT as an encoder of chips and parcels: the mean of what it makes of their pixels."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from indexer.embedding_space import PixelRecipe, Pooling
from indexer.encoders.base import Images
from indexer.encoders.simple_vit import SimpleViTEncoder
from indexer.encoders.weights import Weights
from indexer.imagery.chip import Chip
from indexer.imagery.spectral_bands import SpectralBand

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

Area = tuple[slice, slice]

MOST_WINDOWS: Final = 16_384
"""Windows of one chip that are embedded: those of 128 x 128 px; of larger chips, those around
every second, third... pixel, both ways."""

# Pixels that are brought to the network's channels and tokens at once.
_BLOCK_PX = 65_536


class PixelEncoder:
    """Embeds chips of any size by the window around each of their pixels.

    Args:
        network: As ``parcelle pretrain`` wrote it.
    """

    patches_per_side: Final = None
    precision: Final = "fp32"

    def __init__(self, network: SimpleViTEncoder) -> None:
        self.network = network

    @classmethod
    def open(cls, path: Path, device: str = "auto") -> Self:
        """Read an encoder's file.

        Raises:
            WeightsError: As ``SimpleViTEncoder.load``.
        """
        return cls(SimpleViTEncoder.load(path, device))

    @property
    def name(self) -> str:
        """``simple-vit``."""
        return self.network.name

    @property
    def weights(self) -> Weights:
        """The file, by its digest; untrained if no training step was made."""
        kind = self.network.trained
        return Weights("file" if kind else "untrained", self.network.digest, self.network.path)

    @property
    def bands(self) -> tuple[SpectralBand, ...]:
        """Bands of an image, in order."""
        return self.network.bands

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""
        return self.network.dimensions

    @property
    def loaded(self) -> bool:
        """Always: the file holds the network, and is small."""
        return True

    def load(self) -> None:
        """There is nothing left to read."""

    def recipe(self, pooling: Pooling) -> PixelRecipe:
        """What makes embeddings of this encoder comparable."""
        return PixelRecipe(
            encoder=self.name,
            weights=self.weights,
            bands=self.bands,
            pooling=pooling,
            training=self.network.recipe_name,
            window_px=self.network.window_px,
            most_windows=MOST_WINDOWS,
            dimensions=self.dimensions,
        )

    def pool(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """Embed images one after the other; there is no head behind the mean.

        Args:
            images: Shape ``(band, y, x)`` each, bands as ``bands``; NaN where a pixel is not valid.
            pooling_weights: One array for each image, shape ``(m, y, x)``.

        Returns:
            One array for each image, shape ``(m, dimensions)``: the mean of its valid pixels'
            features under each weight.
        """
        return [
            self._pooled(values, weights)
            for values, weights in zip(images, pooling_weights, strict=True)
        ]

    def finish(self, pooled: FloatArray) -> FloatArray:
        """Nothing is left to do: means are embeddings."""
        return pooled

    def encode(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """See ``Encoder``; the same as ``pool``."""
        return self.pool(images, pooling_weights)

    def _pooled(self, values: FloatArray, weights: FloatArray) -> FloatArray:
        """Embeddings of one image under weights ``(m, y, x)``, shape ``(m, dimensions)``."""
        valid = np.asarray(np.isfinite(values).all(axis=0))
        shares = weights * valid
        step = step_px(valid.shape)
        # Land that lies between the pixels of the grid is looked at more closely.
        while step > 1 and not shares[:, ::step, ::step].any(axis=(1, 2)).all():
            step -= 1
        counted = np.zeros_like(valid)
        counted[::step, ::step] = shares[:, ::step, ::step].any(axis=0)
        sums = np.zeros((len(weights), self.dimensions))
        totals = np.zeros((len(weights), 1))
        for area, around in _blocks(counted, self.network.window_px // 2):
            wanted = np.zeros_like(counted)
            wanted[area] = counted[area]
            features = self.network.embed_pixels(
                values[:, *around], valid[around], wanted=wanted[around]
            )
            some = shares[:, wanted].astype(np.float64)
            sums += some @ features
            totals += some.sum(axis=1, keepdims=True)
        if not totals.all():
            raise ValueError("no valid pixel counts for an embedding")
        return np.asarray(sums / totals, dtype=np.float32)


def pixel_input(chip: Chip) -> FloatArray:
    """A chip as the encoder takes it: NaN where a pixel has no data or is under a cloud.

    Args:
        chip: With the encoder's bands, in its order.

    Returns:
        Shape ``(band, y, x)``.
    """
    return np.where(chip.valid_mask, chip.reflectance, np.float32(np.nan))


def step_px(shape: tuple[int, int]) -> int:
    """Distance of the pixels of a chip whose windows are embedded, both ways."""
    height, width = shape
    return max(1, math.ceil(math.sqrt(height * width / MOST_WINDOWS)))


def _blocks(counted: BoolArray, margin_px: int) -> Iterator[tuple[Area, Area]]:
    """Parts of an image that together hold all pixels that count, some rows at a time.

    Yields:
        Rows and columns of a part, and the same with the pixels around that its windows reach.
    """
    rows, columns = np.flatnonzero(counted.any(axis=1)), np.flatnonzero(counted.any(axis=0))
    if not len(rows):
        return
    left, right = int(columns[0]), int(columns[-1]) + 1
    across = slice(max(0, left - margin_px), right + margin_px)
    height = max(1, _BLOCK_PX // (across.stop - across.start))
    for top in range(int(rows[0]), int(rows[-1]) + 1, height):
        bottom = min(top + height, int(rows[-1]) + 1)
        around = slice(max(0, top - margin_px), bottom + margin_px)
        yield (slice(top, bottom), slice(left, right)), (around, across)
