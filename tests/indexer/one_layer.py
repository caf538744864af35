"""An encoder of one random layer: what reindexing needs of a network, without the network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest

from indexer import pipeline
from indexer.encoders import choice, croma
from indexer.encoders.base import Images
from indexer.encoders.weights import Weights

FloatArray = npt.NDArray[np.float32]

DIMENSIONS = 512
NAME = "one-layer"

_LAYER = np.random.default_rng(0).standard_normal((len(croma.BANDS), DIMENSIONS))


class OneLayerEncoder:
    """Sends each patch's mean reflectance through one layer and pools the patches like CROMA."""

    dimensions = DIMENSIONS
    patches_per_side = croma.IMAGE_PX // croma.PATCH_PX
    loaded = True

    def __init__(self, name: str, weights: Weights, device: str = "auto") -> None:
        self.name = name
        self.weights = weights
        self.device = device

    def load(self) -> None:
        """There is nothing to read."""

    def encode(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """As ``Encoder.encode``, image by image."""
        return [
            self._pool(self._tokens(image), weights)
            for image, weights in zip(images, pooling_weights, strict=True)
        ]

    def _tokens(self, image: FloatArray) -> npt.NDArray[np.float64]:
        side = self.patches_per_side
        patches = image.reshape(len(image), side, croma.PATCH_PX, side, croma.PATCH_PX)
        means = patches.mean(axis=(2, 4)).reshape(len(image), -1)
        # Not by BLAS, whose threads would take longer to start than to multiply.
        tokens: npt.NDArray[np.float64] = np.tanh(np.einsum("bp,bd->pd", means, _LAYER))
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
        patch.setattr(pipeline, "resize", enlarge)
        yield NAME
