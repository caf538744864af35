"""An encoder of one random layer: what reindexing needs of a network, without the network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest

from indexer import preparing
from indexer.encoders import choice, croma
from indexer.encoders.base import Images
from indexer.encoders.weights import Weights
from indexer.sensors import MODALITY_BANDS, Modality

FloatArray = npt.NDArray[np.float32]

DIMENSIONS = 512
NAME = "one-layer"

# The optical bands' rows are the first, whatever comes behind them.
_LAYER = np.random.default_rng(0).standard_normal((14, DIMENSIONS))


class OneLayerEncoder:
    """Sends each patch's mean reflectance through one layer and pools the patches like CROMA."""

    dimensions = DIMENSIONS
    patches_per_side = croma.IMAGE_PX // croma.PATCH_PX
    loaded = True

    def __init__(
        self,
        name: str,
        weights: Weights,
        device: str = "auto",
        precision: str = "fp32",
        modality: Modality = "optical",
    ) -> None:
        self.name = name
        self.weights = weights
        self.device = device
        self.precision = precision
        self.modality = modality

    def in_precision(self, precision: str) -> "OneLayerEncoder":
        """As ``CromaEncoder.in_precision``."""
        return OneLayerEncoder(self.name, self.weights, self.device, precision, self.modality)

    @property
    def bands(self) -> tuple[str, ...]:
        """As ``CromaEncoder.bands``."""
        return MODALITY_BANDS[self.modality]

    def load(self) -> None:
        """There is nothing to read."""

    def pool(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """As ``Encoder.pool``, image by image."""
        return [
            self._pool(self._tokens(image), weights)
            for image, weights in zip(images, pooling_weights, strict=True)
        ]

    def finish(self, pooled: FloatArray) -> FloatArray:
        """There is no head."""
        return pooled

    def encode(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """As ``Encoder.encode``."""
        return [self.finish(rows) for rows in self.pool(images, pooling_weights)]

    def _tokens(self, image: FloatArray) -> npt.NDArray[np.float64]:
        side = self.patches_per_side
        patches = image.reshape(len(image), side, croma.PATCH_PX, side, croma.PATCH_PX)
        means = patches.mean(axis=(2, 4)).reshape(len(image), -1)
        # Not by BLAS, whose threads would take longer to start than to multiply.
        tokens: npt.NDArray[np.float64] = np.tanh(
            np.einsum("bp,bd->pd", means, _LAYER[: len(image)])
        )
        return tokens

    def _pool(self, tokens: npt.NDArray[np.float64], weights: FloatArray) -> FloatArray:
        shares = weights.reshape(len(weights), -1)
        return np.asarray(shares @ tokens / shares.sum(axis=1, keepdims=True), np.float32)


def enlarge(images: FloatArray, side_px: int) -> FloatArray:
    """Bring images ``(n, band, y, x)`` to ``side_px``, a multiple of their side, pixel by pixel."""
    factor = side_px // images.shape[-1]
    return images.repeat(factor, axis=-2).repeat(factor, axis=-1)


@contextmanager
def one_layer_installed() -> Iterator[str]:
    """Let ``reindex`` know the encoder, under the name that it gives."""
    with pytest.MonkeyPatch.context() as patch:
        # Its entry is only looked up; the network behind it is never built.
        patch.setitem(croma.ARCHITECTURES, NAME, {"encoder_dim": DIMENSIONS})
        patch.setattr(choice, "CromaEncoder", OneLayerEncoder)
        # The true one needs torch.
        patch.setattr(preparing, "resize", enlarge)
        yield NAME
