"""Scenes of many fields: small ones in one tile each, large ones that lie in several."""

from pathlib import Path
from typing import Any

import numpy as np

from indexer.sensors import PROFILES, SCL
from tests.indexer.farm import CLOUD, VEGETATION, on_image, write_parcels
from tests.synthetic import write_geotiff

FIELD_PX = 40
"""Distance of the small fields."""

# Below this, none of the large ones is looked at.
_FAR_PX = 190


def write_field_scene(
    path: Path,
    size_px: int,
    seed: int,
    brightness: float = 1.0,
    **profile: Any,  # noqa: ANN401 - handed on to write_geotiff
) -> Path:
    """A Sentinel-2 scene whose upper left corner is under a cloud.

    Args:
        path: The file.
        size_px: Side of the scene.
        seed: Decides the pixels.
        brightness: Multiplies all reflectances.
        **profile: Creation options of the GeoTIFF.
    """
    random = np.random.default_rng(seed)
    bands, shape = PROFILES["l2a"], (size_px, size_px)
    levels = random.uniform(400, 4000, (len(bands), 1, 1)) * brightness
    # Neighboring fields are alike, but not the same.
    slope = np.linspace(0.8, 1.2, size_px)[:, None] * np.linspace(1.2, 0.9, size_px)
    dn = levels * slope * random.uniform(0.9, 1.1, (len(bands), *shape))
    scl = np.full((1, *shape), VEGETATION)
    scl[0, :40, :40] = CLOUD
    stack = np.concatenate([dn.clip(1, 65_000), scl]).astype(np.uint16)
    return write_geotiff(path, stack, (*bands, SCL), **profile)


def write_fields(path: Path, size_px: int) -> Path:
    """Parcels ``field-000``..., and ``long``, ``tall`` and ``wide``, which no single tile holds."""
    starts = range(0, size_px - FIELD_PX + 1, FIELD_PX)
    corners = [(left, top) for top in starts for left in starts]
    end, far = size_px - 1, min(size_px - 1, _FAR_PX)
    return write_parcels(
        path,
        *(
            (f"field-{number:03d}", on_image(left + 2, top + 2, left + 35, top + 35))
            for number, (left, top) in enumerate(corners)
        ),
        ("long", on_image(20, 70, end, 90)),
        ("tall", on_image(95, 50, 135, far)),
        ("wide", on_image(50, 60, end, far)),
    )
