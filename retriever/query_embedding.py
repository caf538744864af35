"""Embed an image that asks: in the space of the index, or not at all."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from indexer.catalog.reading import SpaceRecord
from indexer.encoders.croma import CromaEncoder
from indexer.encoders.weights import Weights, locate_weights
from indexer.errors import GenerationMismatchError, ImageryError, WeightsError
from indexer.imagery.chip import Chip
from indexer.normalization import Normalization
from indexer.pipeline import encoder_input
from indexer.settings import Settings

FloatArray = npt.NDArray[np.float32]


def embed_chip(chip: Chip, space: SpaceRecord, settings: Settings) -> FloatArray:
    """The unit vector of a whole chip in a space.

    Returns:
        Shape ``(512,)``.

    Raises:
        ImageryError: If the chip lacks a band (``missing-band``) or any data
            (``no-valid-pixels``).
        WeightsError: If the space's weights are not to be found.
        GenerationMismatchError: If those that are found are others.
    """
    if not chip.data_mask.any():
        raise ImageryError(
            f"{chip.source}: no pixel has data in every band; use another image.",
            kind="no-valid-pixels",
        )
    if space.projection is None:
        raise TypeError("a published space has a projection")
    encoder = _encoder(space.recipe["encoder"], _weights_of(space, settings))
    image = encoder_input(
        chip, Normalization.from_dict(space.recipe["normalization"]), encoder.image_px
    )
    everywhere = np.ones((1, encoder.patches_per_side, encoder.patches_per_side), np.float32)
    (embedding,) = encoder.encode(image[None], [everywhere])
    vector: FloatArray = space.projection.apply(embedding)[0]
    return vector


# A service embeds one query after the other; the network stays in memory between them.
@lru_cache(maxsize=1)
def _encoder(name: str, weights: Weights) -> CromaEncoder:
    return CromaEncoder(name, weights)


def _weights_of(space: SpaceRecord, settings: Settings) -> Weights:
    """The weights that the space was made with, wherever they are now."""
    recorded = space.recipe["weights"]
    encoder = space.recipe["encoder"]
    if recorded["kind"] == "untrained":
        return _checked(locate_weights("untrained", encoder), recorded["digest"])
    try:
        return _checked(
            locate_weights(space.weights_path or "pretrained", encoder), recorded["digest"]
        )
    except (WeightsError, GenerationMismatchError):
        return _checked(locate_weights(settings.croma_weights, encoder), recorded["digest"])


def _checked(weights: Weights, digest: str) -> Weights:
    if weights.digest != digest:
        raise GenerationMismatchError(
            f"The index was made with the weights {digest[:40]}, but here are "
            f"{weights.digest[:40]}; name the right file with PARCELLE_CROMA_WEIGHTS.",
            kind="space-mismatch",
        )
    return weights
