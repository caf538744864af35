"""What every encoder offers: images and pooling weights in, embeddings out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from indexer.encoders.weights import Weights

FloatArray = npt.NDArray[np.float32]

Images = FloatArray | Sequence[FloatArray]
"""One array ``(band, y, x)`` for each image."""


class Encoder(Protocol):
    """A network that turns images into tokens and pools tokens into embeddings."""

    @property
    def name(self) -> str:
        """The word for ``--encoder``."""

    @property
    def weights(self) -> Weights:
        """Where its parameters come from."""

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""

    @property
    def precision(self) -> str:
        """The word for ``--precision``: ``fp32``, ``bf16`` or ``int8``."""

    @property
    def patches_per_side(self) -> int | None:
        """Tokens along one side of the input; None where every pixel of an image has its own."""

    @property
    def loaded(self) -> bool:
        """Whether the network is in memory already."""

    def load(self) -> None:
        """Build the network and read its weights now instead of at the first image.

        Raises:
            WeightsError: If the weights do not fit the network.
        """

    def pool(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """Mean of the tokens that count, before the head.

        What lies in several images is the mean over all of them: the sum of these means, each times
        the sum of its weights, by the sum of all weights.

        Args:
            images: As the encoder takes them: normalized squares of one size, or, where
                ``patches_per_side`` is None, of any sizes, as they were measured and NaN where not
                to be looked at.
            pooling_weights: One array for each image, shape
                ``(m, patches_per_side, patches_per_side)``, or ``(m, y, x)`` of the image where
                that is None: the share of each token that counts for each of the image's m
                embeddings; not all zero.

        Returns:
            One array for each image, shape ``(m, width)``. On a CPU an image's rows do not depend,
            to the last bit, on the other images or on its other weights; on a GPU, up to rounding.
        """

    def finish(self, pooled: FloatArray) -> FloatArray:
        """Send pooled tokens through the head.

        Args:
            pooled: Shape ``(m, width)``.

        Returns:
            Shape ``(m, dimensions)``, not normalized; rows as independent as those of ``pool``.
        """

    def encode(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """Embed images, each pooled once or several times: ``finish`` after ``pool``.

        Args:
            images: As for ``pool``.
            pooling_weights: As for ``pool``.

        Returns:
            One array for each image, shape ``(m, dimensions)``, not normalized.
        """
