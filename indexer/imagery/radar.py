"""Radar: the backscatter of Sentinel-1 in decibels, whatever units its files are written in."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from indexer.errors import ImageryError
from indexer.imagery.chip import FloatArray
from indexer.imagery.layers import Layer
from indexer.imagery.rasters import open_raster, readable
from indexer.imagery.sources import Source
from indexer.sensors import POLARIZATIONS

# Far beyond anything on the ground: numbers such as -9999 and 1e20 fill gaps.
_LEAST_DB, _MOST_POWER = -100.0, 1e6
# The median of power is not negative, but close to 0 where noise was taken off over calm water;
# that of VH, at least, is far below 0 dB on any ground.
_HIGHEST_MEDIAN_DB = -0.1


def radar_gaps(raw: npt.NDArray[np.generic], nodata: float | None) -> FloatArray:
    """Stored values as float32 with NaN where the file says that there is no data.

    Args:
        raw: Any shape.
        nodata: The value that the file declares as nodata, or None.

    Returns:
        Same shape. NaN at the declared nodata and at infinities. 0 stays: it is a legal number of
        dB, and ``decibels`` tells whether it means no data.
    """
    values = np.asarray(raw).astype(np.float32)
    usable = np.isfinite(values)
    if nodata is not None and np.isfinite(nodata):
        usable &= np.asarray(raw) != nodata
    values[~usable] = np.nan
    return values


def decibels(backscatter: FloatArray) -> FloatArray:
    """Backscatter in dB; linear power is told by its values and becomes ``10 log10``.

    They are dB where the median of a polarization is negative, which no power is.

    Args:
        backscatter: All polarizations of a window, shape ``(band, y, x)``; NaN without data.

    Returns:
        Same shape, dB. NaN below -100 and above 1e6; where all polarizations are exactly 0, as
        around the images of many producers; and where a power is 0 or less.
    """
    usable = (backscatter > _LEAST_DB) & (backscatter < _MOST_POWER)
    usable &= (backscatter != 0).any(axis=0)
    seen = np.where(usable, backscatter, np.float32(np.nan))
    if _in_decibels(seen):
        return seen
    power = np.where(seen > 0, seen, np.float32(np.nan))
    converted: FloatArray = (10 * np.log10(power)).astype(np.float32)
    return converted


def linear_power(backscatter_db: FloatArray) -> FloatArray:
    """Linear power of backscatter in dB, any shape: what may be averaged."""
    power: FloatArray = np.power(np.float32(10), backscatter_db / np.float32(10), dtype=np.float32)
    return power


def _in_decibels(backscatter: FloatArray) -> bool:
    bands = [band[np.isfinite(band)] for band in backscatter]
    return any(band.size > 0 and float(np.median(band)) < _HIGHEST_MEDIAN_DB for band in bands)


def check_calibrated(source: Source, layers: Sequence[Layer]) -> None:
    """Refuse radar bands that hold digital numbers, unless something says what these mean.

    Raises:
        ImageryError: ``not-calibrated``; ``unreadable``.
    """
    for layer in layers:
        if layer.band not in POLARIZATIONS or layer.scaling is not None:
            continue
        with readable(source, layer.path), open_raster(layer.path) as file:
            at = layer.number - 1
            dtype, stated = file.dtypes[at], (file.scales[at], file.offsets[at]) != (1, 0)
        if not dtype.startswith("float") and not stated:
            raise ImageryError(
                f"{source.location}: band {layer.band} holds {dtype}, digital numbers that are "
                "not calibrated, as in a GRD or SLC product. Calibrate it to sigma0 and correct "
                "it for terrain (ESA SNAP does both), or fetch a product that is, such as RTC.",
                kind="not-calibrated",
            )
