"""Makes what tests need, in code: chips of random reflectance."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from indexer.imagery.chip import Chip
from indexer.sensors import PROFILES

CLEAR_CLASSES = (4, 5, 6)
"""SCL classes of vegetation, bare soil and water."""


def make_chip(
    size: int = 120,
    bands: tuple[str, ...] = PROFILES["l2a"],
    seed: int = 0,
    **overrides: Any,  # noqa: ANN401 - handed on to Chip as they come
) -> Chip:
    """A square chip of 10 m pixels in UTM zone 31 with reflectance between 0.02 and 0.5.

    Args:
        size: Height and width in pixels.
        bands: Names of the bands.
        seed: Decides the reflectance.
        **overrides: Fields of ``Chip`` to set instead. Unless ``valid_mask`` is among them, it
            follows from ``reflectance`` and ``scl``.
    """
    random = np.random.default_rng(seed)
    fields: dict[str, Any] = {
        "reflectance": random.uniform(0.02, 0.5, (len(bands), size, size)).astype(np.float32),
        "bands": bands,
        "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000),
        "crs": CRS.from_epsg(32631),
        "scene": f"synthetic-{seed}",
        "source": f"synthetic-{seed}.tif",
        "acquired_at": datetime(2023, 6, 1, 10, 50, tzinfo=UTC),
        "processing_baseline": "05.09",
    } | overrides
    if "valid_mask" not in fields:
        fields["valid_mask"] = np.isfinite(fields["reflectance"]).all(axis=0)
        if fields.get("scl") is not None:
            fields["valid_mask"] &= np.isin(fields["scl"], CLEAR_CLASSES)
    return Chip(**fields)
