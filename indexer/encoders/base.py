"""What every encoder offers: images and pooling weights in, embeddings out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class Encoder(Protocol):
    """A network that turns images into tokens and pools tokens into embeddings."""

    @property
    def name(self) -> str:
        """The word for ``--encoder``."""

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""

    @property
    def image_px(self) -> int:
        """Side of the square input in pixels."""

    @property
    def patches_per_side(self) -> int:
        """Tokens along one side of the input."""

    def encode(self, images: FloatArray, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """Embed images, each pooled once or several times, in one forward pass.

        Args:
            images: Shape ``(n, band, image_px, image_px)``, normalized.
            pooling_weights: One array for each image, shape
                ``(m, patches_per_side, patches_per_side)``: the share of each patch that counts
                for each of the image's m embeddings; not all zero.

        Returns:
            One array for each image, shape ``(m, dimensions)``, not normalized. An image's
            embeddings do not depend on the other images, up to rounding.
        """
