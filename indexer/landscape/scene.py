"""What Sentinel-2 makes of the land: blur, noise, digital numbers, classes, a GeoTIFF."""

from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio

from indexer.landscape.place import PIXEL_M, TRANSFORM, UTM_31N
from indexer.landscape.spectra import BANDS
from indexer.sensors import OFFSET_DN, QUANTIFICATION, SCL, SENTINEL2_BANDS
from indexer.statistics import Float64Array

DnArray = npt.NDArray[np.uint16]

_BASELINE = "N0509"
_PLAUSIBLE_REFLECTANCE = (0.01, 0.60)
_VEGETATED_NDVI = 0.3
# Classes of Sen2Cor.
_VEGETATION, _BARE = 4, 5


def product_name(day: date) -> str:
    """Name of a Level-2A product of that day, without its extension."""
    return f"S2A_MSIL2A_{day:%Y%m%d}T105031_{_BASELINE}_R008_T31UDQ_{day:%Y%m%d}T151201"


def sensed(land: Float64Array, rng: np.random.Generator) -> Float64Array:
    """What the instrument makes of the land: blur, pixels of each band's own size, noise."""
    bands = np.stack(
        [
            _coarsened(_blurred(band), SENTINEL2_BANDS[name].gsd_m // PIXEL_M)
            for name, band in zip(BANDS, land, strict=True)
        ]
    )
    relative, absolute = (rng.standard_normal(bands.shape) for _ in range(2))
    return bands * (1 + 0.01 * relative) + 0.001 * absolute


def _blurred(band: Float64Array) -> Float64Array:
    """Spread each pixel over its neighbors, as the optics do: borders become mixed pixels."""
    padded = np.pad(band, 1, mode="edge")
    rows = 0.2 * padded[:-2] + 0.6 * padded[1:-1] + 0.2 * padded[2:]
    return 0.2 * rows[:, :-2] + 0.6 * rows[:, 1:-1] + 0.2 * rows[:, 2:]


def _coarsened(band: Float64Array, factor: int) -> Float64Array:
    """The mean of each block of ``factor`` x ``factor`` pixels, repeated over the block."""
    height, width = band.shape
    padded = np.pad(band, ((0, -height % factor), (0, -width % factor)), mode="edge")
    blocks: Float64Array = padded.reshape(len(padded) // factor, factor, -1, factor).mean(
        axis=(1, 3)
    )
    return blocks.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]


def digital_numbers(reflectance: Float64Array) -> DnArray:
    """Reflectance as baseline 05.09 stores it; never 0, which means no data."""
    plausible = np.clip(reflectance, *_PLAUSIBLE_REFLECTANCE)
    return (np.rint(plausible * QUANTIFICATION) - OFFSET_DN).astype(np.uint16)


def classified(dn: DnArray) -> DnArray:
    """Vegetation or bare soil by NDVI, shape ``(y, x)``, in the classes of Sen2Cor."""
    red, nir = (dn[BANDS.index(name)].astype(np.float64) + OFFSET_DN for name in ("B04", "B08"))
    vegetated = (nir - red) / (nir + red) > _VEGETATED_NDVI
    return np.where(vegetated, _VEGETATION, _BARE).astype(np.uint16)


def write_scene(path: Path, dn: DnArray, scl: DnArray) -> Path:
    """Write the bands and, as the last layer, the scene classification; every layer is named."""
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(BANDS) + 1,
        "height": scl.shape[0],
        "width": scl.shape[1],
        "crs": UTM_31N,
        "transform": TRANSFORM,
        "nodata": 0,
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
        "compress": "deflate",
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.descriptions = (*BANDS, SCL)
        file.write(np.concatenate([dn, scl[None]]))
    return path
