"""Embed an image that asks: in the space of the index, or not at all."""

import threading
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

# Two requests at once must not load the network twice.
_loading = threading.Lock()


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
    normalization = Normalization.from_dict(space.recipe["normalization"])
    image = encoder_input(chip, normalization, space.recipe["image_px"])
    encoder = _encoder_of(space, settings)
    everywhere = np.ones((1, encoder.patches_per_side, encoder.patches_per_side), np.float32)
    (embedding,) = encoder.encode(image[None], [everywhere])
    vector: FloatArray = space.projection.apply(embedding)[0]
    return vector


def _encoder_of(space: SpaceRecord, settings: Settings) -> CromaEncoder:
    """The space's network with the weights that the space was made with, wherever they are now."""
    recorded = space.recipe["weights"]
    places = (space.weights_path, settings.croma_weights)
    if recorded["kind"] == "untrained":
        places = (None, "untrained")
    with _loading:
        return _loaded(space.recipe["encoder"], recorded["digest"], *places)


# A service embeds one query after the other: the network stays in memory between them, and a
# weight file of a gigabyte is not read again to see whether it is still the same.
@lru_cache(maxsize=1)
def _loaded(name: str, digest: str, last_seen: str | None, configured: str) -> CromaEncoder:
    encoder = CromaEncoder(name, _weights(name, digest, last_seen, configured))
    encoder.load()
    return encoder


def _weights(name: str, digest: str, last_seen: str | None, configured: str) -> Weights:
    """Weights of a digest: from where they were last seen, else from where the settings say."""
    if last_seen is not None:
        try:
            return _checked(locate_weights(last_seen, name), digest)
        except WeightsError:
            pass  # Moved since; the settings may know where to.
        except GenerationMismatchError:
            # Replaced since; what the settings name may be the right one, but a question is not
            # the moment to fetch a gigabyte and see.
            if configured == "pretrained":
                raise
    return _checked(locate_weights(configured, name), digest)


def _checked(weights: Weights, digest: str) -> Weights:
    if weights.digest != digest:
        raise GenerationMismatchError(
            f"The index was made with the weights {digest[:40]}, but here are "
            f"{weights.digest[:40]}; name the right file with PARCELLE_CROMA_WEIGHTS.",
            kind="space-mismatch",
        )
    return weights
