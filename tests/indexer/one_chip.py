"""Parcels in one chip, prepared and embedded without files."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import shapely

from indexer.chipping import Target, Window
from indexer.embedder import Embedder
from indexer.embedding_space import Pooling, Recipe
from indexer.encoders.base import Encoder
from indexer.encoders.weights import Weights
from indexer.findings import Findings
from indexer.imagery.chip import Chip
from indexer.normalization import Normalization
from indexer.parcels.parcel import Parcel
from indexer.pipeline import TileWork
from indexer.preparing import Preparation, Prepared
from indexer.sensors import PROFILES

FloatArray = npt.NDArray[np.float32]

PATCHES = 15

RECIPE = Recipe(
    encoder="croma-large",
    weights=Weights("untrained", "none", None),
    bands=PROFILES["l2a"],
    normalization=Normalization.ssl4eo(),
    pooling="parcel",
    image_px=120,
    dimensions=1024,
)


def preparation(pooling: Pooling = "parcel", patches: int | None = PATCHES) -> Preparation:
    """As for CROMA, or for another number of patches."""
    return Preparation(RECIPE, pooling, patches)


def in_chip(chip: Chip, left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """A rectangle of a chip's pixels in map coordinates."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return shapely.Polygon([chip.transform @ corner for corner in corners])


def targets(*geometries: shapely.Polygon | None) -> list[Target]:
    """Parcels 0, 1, 2, ... of these geometries."""
    return [
        Target(Parcel("test", str(number), None), geometry)
        for number, geometry in enumerate(geometries)
    ]


def prepare(
    chip: Chip,
    *geometries: shapely.Polygon | None,
    pooling: Pooling = "parcel",
    findings: Findings | None = None,
) -> list[Prepared]:
    """The parcels of a chip; without a geometry the whole chip is the parcel."""
    window = Window(0, 0, *chip.shape)
    found = targets(*geometries)
    return preparation(pooling).parcels(chip, window, found, findings or Findings())


def weights_of(prepared: Prepared) -> FloatArray:
    """Pooling weights of a parcel in a single tile."""
    ((_, weights),) = prepared.parts
    return weights


def work_of(image: FloatArray, prepared: Sequence[Prepared]) -> TileWork:
    """A tile that holds these parcels whole."""
    return TileWork(image, [(one, weights_of(one)) for one in prepared], [])


def embed(encoder: Encoder, image: FloatArray, prepared: Sequence[Prepared]) -> FloatArray:
    """Embeddings of the parcels of one tile, shape ``(n, d)``."""
    embedded = Embedder(encoder).embed([work_of(image, prepared)])
    return np.stack([one.embedding for one in embedded if one.embedding is not None])
