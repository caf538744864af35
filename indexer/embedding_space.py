"""The identity of an embedding space: all that gives its vectors their meaning."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from indexer.encoders.weights import Weights
from indexer.imagery.spectral_bands import SpectralBand
from indexer.normalization import Normalization
from indexer.projection import Projection
from indexer.sensors import Modality

Pooling = Literal["image", "parcel"]

SCALING = "(DN + offset) / 10000"
RADAR_SCALING = "10 log10(power), dB"
RESIZING = "bilinear, align_corners=False"


_SCALINGS: dict[Modality, str] = {
    "optical": SCALING,
    "sar": RADAR_SCALING,
    "joint": f"{SCALING}; {RADAR_SCALING}",
}


@dataclass(frozen=True)
class Recipe:
    """How an image becomes an embedding; with a projection it is an embedding space."""

    encoder: str
    weights: Weights
    bands: tuple[str, ...]
    normalization: Normalization
    pooling: Pooling
    image_px: int
    dimensions: int
    """Length of an embedding before the projection."""
    precision: str = "fp32"
    """Numbers that the network computes with: ``fp32``, ``bf16`` or ``int8``."""
    modality: Modality = "optical"
    tile_px: int | None = None
    """Side of a tile in pixels of the scene, where parcels are found on scenes; smaller than
    ``image_px`` where tiles are enlarged. None where an image is a parcel."""
    stride_px: int | None = None
    """Distance of neighboring tiles, likewise."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form, every part of which belongs to the identity."""
        return {
            "encoder": self.encoder,
            "modality": self.modality,
            "weights": _weights_dict(self.weights),
            "bands": list(self.bands),
            "scaling": _SCALINGS[self.modality],
            "resizing": RESIZING,
            "normalization": self.normalization.to_dict(),
            "pooling": self.pooling,
            "image_px": self.image_px,
            "tile_px": self.tile_px,
            "stride_px": self.stride_px,
            "dimensions": self.dimensions,
            "precision": self.precision,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON form."""
        return recipe_digest(self.to_dict())


@dataclass(frozen=True)
class PixelRecipe:
    """How the windows around an image's pixels become an embedding: their features' mean."""

    encoder: str
    weights: Weights
    """The file, which also says how values are normalized."""
    bands: tuple[SpectralBand, ...]
    pooling: Pooling
    training: str
    """Name of the recipe that the network was trained by."""
    window_px: int
    most_windows: int
    """Windows of a chip that are embedded; of more, an even share."""
    dimensions: int
    """Length of an embedding before the projection."""
    precision: str = "fp32"

    def to_dict(self) -> dict[str, Any]:
        """JSON form, every part of which belongs to the identity."""
        return {
            "encoder": self.encoder,
            "weights": _weights_dict(self.weights),
            "bands": [band.name for band in self.bands],
            "wavelengths_um": [band.center_wavelength_um for band in self.bands],
            "fwhm_um": [band.fwhm_um for band in self.bands],
            "scaling": f"as in the file; of Sentinel-2 {SCALING}",
            "normalization": {"name": "z-score"},
            "pooling": self.pooling,
            "training": self.training,
            "window_px": self.window_px,
            "most_windows": self.most_windows,
            "dimensions": self.dimensions,
            "precision": self.precision,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON form."""
        return recipe_digest(self.to_dict())


def bands_in(recipe: dict[str, Any]) -> tuple[SpectralBand, ...] | None:
    """The bands that a ``PixelRecipe`` names, from its JSON form; None for another recipe."""
    if "wavelengths_um" not in recipe:
        return None
    parts = (recipe["bands"], recipe["wavelengths_um"], recipe["fwhm_um"])
    return tuple(SpectralBand(*band) for band in zip(*parts, strict=True))


def _weights_dict(weights: Weights) -> dict[str, str]:
    # The published file is the same file wherever it was found.
    return {"kind": "trained" if weights.trained else "untrained", "digest": weights.digest}


def recipe_digest(recipe: dict[str, Any]) -> str:
    """SHA-256 of a recipe's canonical JSON form, in hexadecimal."""
    canonical = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def space_digest(recipe: dict[str, Any], projection: Projection) -> str:
    """Identity of a space: SHA-256 of recipe and projection, in hexadecimal."""
    digest = hashlib.sha256(recipe_digest(recipe).encode())
    digest.update(projection.to_bytes())
    return digest.hexdigest()


def describe_space(recipe: dict[str, Any], digest: str | None) -> dict[str, Any]:
    """The short form that stands in every answer."""
    return {
        "id": digest[:12] if digest else None,
        "encoder": recipe["encoder"],
        "weights": recipe["weights"]["kind"],
        "normalization": recipe["normalization"]["name"],
        "pooling": recipe["pooling"],
        # Spaces that are older than these words.
        "modality": recipe.get("modality", "optical"),
        "precision": recipe["precision"],
    }


UNTRAINED_NOTE = "The encoder's weights are untrained (random): scores have no agronomic meaning."
"""Said in every answer that rests on untrained weights."""


def notes_for(recipe: dict[str, Any]) -> tuple[str, ...]:
    """What must be said beside any answer from this space."""
    return (UNTRAINED_NOTE,) if recipe["weights"]["kind"] == "untrained" else ()
