"""Embed an image that asks: in the space of the index, or not at all."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from indexer.catalog.reading import SpaceRecord, collection_names, get_space
from indexer.embedding_space import bands_in
from indexer.encoders.croma import CromaEncoder, Precision
from indexer.encoders.pixel_encoder import PixelEncoder, pixel_input
from indexer.encoders.weights import Weights, locate_weights, sha256_of
from indexer.errors import GenerationMismatchError, ImageryError, InvalidInputError, WeightsError
from indexer.imagery.chip import Chip
from indexer.imagery.spectral_bands import SpectralBand, match_bands
from indexer.normalization import Normalization
from indexer.preparing import encoder_input
from indexer.sensors import MODALITY_BANDS, SENTINEL2_BANDS, Modality
from indexer.settings import Settings
from retriever.finding import listed, require_collection
from retriever.statements import published_spaces

FloatArray = npt.NDArray[np.float32]

# Two requests at once must not load the network twice.
_loading = threading.Lock()


@dataclass(frozen=True)
class BandsToAskWith:
    """What an image that asks must hold."""

    names: tuple[str, ...] = MODALITY_BANDS["optical"]
    """Bands of Sentinel-2, and of Sentinel-1 where the index was made with it."""
    spectral: tuple[SpectralBand, ...] | None = None
    """Bands of an encoder of one's own, which are asked for instead; None for CROMA."""


def bands_to_ask_with(engine: Engine, collection: str | None) -> BandsToAskWith:
    """The bands that an image needs to be held against a collection.

    Args:
        engine: The catalog.
        collection: Whose space is asked; None where there is only one.

    Returns:
        Sentinel-2's where nothing is indexed yet.

    Raises:
        NotFoundError: If there is no such collection.
        InvalidInputError: If there are several spaces and no collection is named. An image of one
            of them would be refused for lacking the bands of another.
    """
    with engine.connect() as connection:
        if collection is not None:
            _, space = require_collection(connection, collection)
            spaces = set() if space is None else {space}
        else:
            spaces = {space for space, _ in published_spaces(connection)}
        if len(spaces) > 1:
            names = listed(collection_names(connection))
            raise InvalidInputError(
                "The collections lie in different embedding spaces, which never meet in one "
                f"search; name one of {names}.",
                kind="invalid-collection",
            )
        for space_id in spaces:
            recipe = get_space(connection, space_id).recipe
            spectral = bands_in(recipe)
            if spectral is not None:
                return BandsToAskWith(spectral=spectral)
            return BandsToAskWith(tuple(recipe["bands"]))
        return BandsToAskWith()


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
    wanted = bands_in(space.recipe)
    embedding = (
        _embedded_by_croma(chip, space, settings)
        if wanted is None
        else _embedded_by_pixels(chip, space, wanted)
    )
    vector: FloatArray = space.projection.apply(embedding)[0]
    return vector


def _embedded_by_croma(chip: Chip, space: SpaceRecord, settings: Settings) -> FloatArray:
    """Embedding of a chip, shape ``(1, d)``."""
    normalization = Normalization.from_dict(space.recipe["normalization"])
    image = encoder_input(chip, normalization, space.recipe["image_px"])
    encoder = _encoder_of(space, settings)
    everywhere = np.ones((1, encoder.patches_per_side, encoder.patches_per_side), np.float32)
    (embedding,) = encoder.encode(image[None], [everywhere])
    return embedding


def _embedded_by_pixels(
    chip: Chip, space: SpaceRecord, wanted: Sequence[SpectralBand]
) -> FloatArray:
    """Embedding of a chip by a network that looks at each of its pixels, shape ``(1, d)``."""
    values = pixel_input(chip)[list(match_bands(chip.source, _bands_of(chip), wanted))]
    seen = np.isfinite(values).all(axis=0)
    if not seen.any():
        raise ImageryError(
            f"{chip.source}: clouds hide every pixel; use another image.", kind="no-valid-pixels"
        )
    with _loading:
        encoder = _pixel_encoder(space.weights_path, space.recipe["weights"]["digest"])
    (embedding,) = encoder.encode([values], [np.ones((1, *seen.shape), np.float32)])
    return embedding


def _bands_of(chip: Chip) -> list[SpectralBand]:
    """A chip's bands, with the wavelengths that their names tell."""
    known = {name: band.center_wavelength_um for name, band in SENTINEL2_BANDS.items()}
    return [SpectralBand(name, known.get(name)) for name in chip.bands]


# Small files, unlike CROMA's: several collections may be asked in turns.
@lru_cache(maxsize=4)
def _pixel_encoder(last_seen: str | None, digest: str) -> PixelEncoder:
    """The encoder of a space, from where the space was last made with it."""
    if last_seen is None:
        raise TypeError("a space of a network of one's own knows its file")
    path = Path(last_seen)
    if not path.is_file():
        raise WeightsError(
            f"{path}: the encoder that the index was made with is not there. Put it back, or name "
            "its new place: parcelle reindex ... --encoder simple-vit:FILE embeds nothing again.",
            kind="weights-not-found",
        )
    found = sha256_of(path)
    if found != digest:
        raise GenerationMismatchError(
            f"The index was made with the encoder {digest[:12]}, but here is {found[:12]}; put "
            "the former file back, or reindex with this one.",
            kind="space-mismatch",
        )
    return PixelEncoder.open(path)


def _encoder_of(space: SpaceRecord, settings: Settings) -> CromaEncoder:
    """The space's network with the weights that the space was made with, wherever they are now."""
    recorded = space.recipe["weights"]
    places = (space.weights_path, settings.croma_weights)
    if recorded["kind"] == "untrained":
        places = (None, "untrained")
    with _loading:
        return _loaded(
            space.recipe["encoder"],
            recorded["digest"],
            *places,
            space.recipe["precision"],
            # Spaces that are older than the word are optical.
            space.recipe.get("modality", "optical"),
        )


# A service embeds one query after the other: the network stays in memory between them, and a
# weight file of a gigabyte is not read again to see whether it is still the same.
@lru_cache(maxsize=1)
def _loaded(
    name: str,
    digest: str,
    last_seen: str | None,
    configured: str,
    precision: Precision,
    modality: Modality,
) -> CromaEncoder:
    weights = _weights(name, digest, last_seen, configured)
    encoder = CromaEncoder(name, weights, precision=precision, modality=modality)
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
