"""Spectral indices: what they are called, how they are computed, who proposed them.

All are defined on reflectance between 0 and 1. Formulas as collected in Awesome Spectral Indices
(Montero et al. 2023, Scientific Data 10, 197). Where the source used a narrow band that
Sentinel-2 does not have, the citation says which.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.errors import InvalidInputError
from indexer.imagery.chip import Chip

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Reflectance = Mapping[str, Float64Array]
"""Reflectance by band name; all arrays of one shape."""


@dataclass(frozen=True)
class SpectralIndex:
    """One spectral index of Sentinel-2 bands."""

    name: str
    """Short name, ``NDVI``."""
    long_name: str
    """Name in words."""
    formula: str
    """Formula in band names, valid as a Python expression."""
    bands: tuple[str, ...]
    """Names of the bands that the formula needs."""
    citation: str
    """Primary source."""
    compute: Callable[[Reflectance], Float64Array]
    """The formula; NaN where a band is NaN or the denominator is zero."""


def compute_index(
    name: str, chip: Chip, pixels: tuple[IntArray, IntArray] | None = None
) -> Float64Array:
    """A spectral index of the pixels of a chip, under clouds too.

    Args:
        name: One of ``INDICES``.
        chip: Where the reflectance comes from.
        pixels: Rows and columns to look at, each of shape ``(n,)``; None for every pixel.

    Returns:
        float64, shape ``(y, x)`` of the chip or ``(n,)``, unitless; NaN where a band is NaN or the
        denominator is zero, never infinite.

    Raises:
        InvalidInputError: If there is no such index (``invalid-option``).
        ImageryError: If the chip lacks a band of the formula (``missing-band``).
    """
    index = INDICES.get(name)
    if index is None:
        raise InvalidInputError(
            f"Spectral index {name!r} is unknown; choose one of {', '.join(INDICES)}.",
            kind="invalid-option",
        )
    where = ... if pixels is None else pixels
    return index.compute({band: chip.band(band)[where].astype(np.float64) for band in index.bands})


def _ratio(numerator: Float64Array, denominator: Float64Array) -> Float64Array:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = numerator / denominator
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _normalized_difference(first: str, second: str) -> Callable[[Reflectance], Float64Array]:
    return lambda b: _ratio(b[first] - b[second], b[first] + b[second])


INDICES: dict[str, SpectralIndex] = {
    index.name: index
    for index in (
        SpectralIndex(
            name="NDVI",
            long_name="Normalized difference vegetation index",
            formula="(B08 - B04) / (B08 + B04)",
            bands=("B08", "B04"),
            citation="Rouse et al. (1974), Monitoring vegetation systems in the Great Plains with "
            "ERTS, NASA SP-351, vol. 1, pp. 309-317",
            compute=_normalized_difference("B08", "B04"),
        ),
        SpectralIndex(
            name="NDMI",
            long_name="Normalized difference moisture index",
            formula="(B08 - B11) / (B08 + B11)",
            bands=("B08", "B11"),
            citation="Gao (1996), Remote Sensing of Environment 58(3), 257-266, "
            "doi:10.1016/S0034-4257(96)00067-3; there with 1.24 um in place of B11",
            compute=_normalized_difference("B08", "B11"),
        ),
        SpectralIndex(
            name="NDWI",
            long_name="Normalized difference water index",
            formula="(B03 - B08) / (B03 + B08)",
            bands=("B03", "B08"),
            citation="McFeeters (1996), International Journal of Remote Sensing 17(7), 1425-1432, "
            "doi:10.1080/01431169608948714",
            compute=_normalized_difference("B03", "B08"),
        ),
        SpectralIndex(
            name="EVI",
            long_name="Enhanced vegetation index",
            formula="2.5 * (B08 - B04) / (B08 + 6 * B04 - 7.5 * B02 + 1)",
            bands=("B08", "B04", "B02"),
            citation="Huete et al. (2002), Remote Sensing of Environment 83(1-2), 195-213, "
            "doi:10.1016/S0034-4257(02)00096-2",
            compute=lambda b: _ratio(
                2.5 * (b["B08"] - b["B04"]), b["B08"] + 6 * b["B04"] - 7.5 * b["B02"] + 1
            ),
        ),
        SpectralIndex(
            name="NDREI",
            long_name="Normalized difference red edge index",
            formula="(B08 - B05) / (B08 + B05)",
            bands=("B08", "B05"),
            citation="Gitelson and Merzlyak (1994), Journal of Photochemistry and Photobiology B: "
            "Biology 22(3), 247-252, doi:10.1016/1011-1344(93)06963-4; there with 0.75 um in "
            "place of B08",
            compute=_normalized_difference("B08", "B05"),
        ),
        SpectralIndex(
            name="OSAVI",
            long_name="Optimized soil-adjusted vegetation index",
            formula="(B08 - B04) / (B08 + B04 + 0.16)",
            bands=("B08", "B04"),
            citation="Rondeaux, Steven and Baret (1996), Remote Sensing of Environment 55(2), "
            "95-107, doi:10.1016/0034-4257(95)00186-7",
            compute=lambda b: _ratio(b["B08"] - b["B04"], b["B08"] + b["B04"] + 0.16),
        ),
        SpectralIndex(
            name="BI",
            long_name="Bare soil index",
            formula="((B11 + B04) - (B08 + B02)) / ((B11 + B04) + (B08 + B02))",
            bands=("B11", "B04", "B08", "B02"),
            citation="Rikimaru, Roy and Miyatake (2002), Tropical forest cover density mapping, "
            "Tropical Ecology 43(1), 39-47",
            compute=lambda b: _ratio(
                (b["B11"] + b["B04"]) - (b["B08"] + b["B02"]),
                (b["B11"] + b["B04"]) + (b["B08"] + b["B02"]),
            ),
        ),
        SpectralIndex(
            name="PSRI",
            long_name="Plant senescence reflectance index",
            formula="(B04 - B02) / B06",
            bands=("B04", "B02", "B06"),
            citation="Merzlyak et al. (1999), Physiologia Plantarum 106(1), 135-141, "
            "doi:10.1034/j.1399-3054.1999.106119.x; there with 0.50 and 0.75 um in place of B02 "
            "and B06",
            compute=lambda b: _ratio(b["B04"] - b["B02"], b["B06"]),
        ),
    )
}
"""Every spectral index that a parcel's state reports, by short name."""
