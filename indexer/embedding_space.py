"""The identity of an embedding space: all that gives its vectors their meaning."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from indexer.encoders.weights import Weights
from indexer.normalization import Normalization
from indexer.projection import Projection

Pooling = Literal["image", "parcel"]

SCALING = "(DN + offset) / 10000"
RESIZING = "bilinear, align_corners=False"


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

    def to_dict(self) -> dict[str, Any]:
        """JSON form, every part of which belongs to the identity."""
        return {
            "encoder": self.encoder,
            "weights": {"kind": self._weights_kind, "digest": self.weights.digest},
            "bands": list(self.bands),
            "scaling": SCALING,
            "resizing": RESIZING,
            "normalization": self.normalization.to_dict(),
            "pooling": self.pooling,
            "image_px": self.image_px,
            "dimensions": self.dimensions,
            "precision": self.precision,
        }

    @property
    def _weights_kind(self) -> str:
        # The published file is the same file wherever it was found.
        return "trained" if self.weights.trained else "untrained"

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON form."""
        return recipe_digest(self.to_dict())


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
    }


UNTRAINED_NOTE = "The encoder's weights are untrained (random): scores have no agronomic meaning."
"""Said in every answer that rests on untrained weights."""


def notes_for(recipe: dict[str, Any]) -> tuple[str, ...]:
    """What must be said beside any answer from this space."""
    return (UNTRAINED_NOTE,) if recipe["weights"]["kind"] == "untrained" else ()
