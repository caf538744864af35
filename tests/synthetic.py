"""Makes what tests need, in code: chips of random reflectance, and image files."""

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from indexer.imagery.chip import Chip
from indexer.sensors import PROFILES

UTM_31 = CRS.from_epsg(32631)

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
"""North up, 10 m pixels, on the central meridian of UTM zone 31."""

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
        "transform": TRANSFORM,
        "crs": UTM_31,
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


def make_dn(
    size: int = 16, bands: Sequence[str] = PROFILES["l2a"], seed: int = 0
) -> npt.NDArray[np.uint16]:
    """Digital numbers between 1300 and 4000, shape ``(band, size, size)``.

    With the offset of baseline 04.00 or without, they are a plausible reflectance.
    """
    random = np.random.default_rng(seed)
    return random.integers(1300, 4000, (len(bands), size, size), dtype=np.uint16)


def write_geotiff(
    path: Path,
    stack: npt.NDArray[Any],
    descriptions: Sequence[str | None] | None = None,
    crs: CRS | None = UTM_31,
    transform: Affine | None = TRANSFORM,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
    scale: float = 1.0,
    offset: float = 0.0,
    **profile: Any,  # noqa: ANN401 - handed on to rasterio as they come
) -> Path:
    """Write a GeoTIFF, its folders included.

    Args:
        path: The file.
        stack: Shape ``(band, y, x)``, of any type that GeoTIFF knows.
        descriptions: Name of each band, as the file tells it.
        crs: Reference system.
        transform: Pixel to map coordinates; without it and ``crs`` the file has no place.
        nodata: Value that the file declares as nodata.
        tags: Metadata of the file.
        scale: Declared for every band, as GDAL does.
        offset: Declared for every band, as GDAL does; added after scaling.
        **profile: Further creation options.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = stack.shape
    place = {} if transform is None else {"transform": transform}
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=stack.dtype,
            crs=crs,
            nodata=nodata,
            **place,
            **profile,
        ) as file,
    ):
        file.write(stack)
        for number, text in enumerate(descriptions or (), start=1):
            if text is not None:
                file.set_band_description(number, text)
        if (scale, offset) != (1.0, 0.0):
            file.scales, file.offsets = [scale] * count, [offset] * count
        file.update_tags(**(tags or {}))
    return path


def write_band_folder(
    folder: Path,
    bands: Mapping[str, npt.NDArray[Any]],
    prefix: str | None = None,
    side_m: float = 1200.0,
    **options: Any,  # noqa: ANN401 - handed on to write_geotiff as they come
) -> Path:
    """Write one file per band, named as in BigEarthNet: ``<folder>/<prefix>_<band>.tif``.

    Args:
        folder: Where to.
        bands: One array ``(y, x)`` for each band; all cover the same square, however many pixels
            they have.
        prefix: What the names of the files share; by default the folder's name.
        side_m: Side of the square, in units of the reference system.
        **options: Arguments of ``write_geotiff``.
    """
    for band, values in bands.items():
        size_px = side_m / values.shape[1]
        to_map = Affine(size_px, 0, TRANSFORM.c, 0, -size_px, TRANSFORM.f)
        name = f"{prefix or folder.name}_{band}.tif"
        write_geotiff(folder / name, values[None], **{"transform": to_map} | options)
    return folder


def compute_position_bias_once(patch: pytest.MonkeyPatch) -> None:
    """Let the CROMA networks of a test share their position bias, which takes longest to build."""
    from torchgeo.models import croma

    patch.setattr(croma, "get_2dalibi", cache(croma.get_2dalibi))
