"""Which pixels can be used: nodata in the digital numbers, clouds in the scene classification."""

import numpy as np
import numpy.typing as npt

INVALID_SCL = (0, 1, 2, 3, 7, 8, 9, 10, 11)
"""SCL classes that are not valid pixels: all but vegetation 4, bare soil 5 and water 6
(Sentinel-2 Level-2A Algorithm Theoretical Basis Document)."""

_UNSET_UINT16 = 65_535
# Some float products fill gaps with 1e20; no digital number comes near this.
_ABSURD = 1e6


def has_data(dn: npt.NDArray[np.generic], nodata: float | None) -> npt.NDArray[np.bool_]:
    """True where a band holds a measurement.

    Args:
        dn: Raw values, any shape; digital numbers or unscaled reflectance.
        nodata: The value that the file declares as nodata, or None.

    Returns:
        Same shape. False at NaN, infinities, the declared nodata, 65535, and at 0 and below:
        Sentinel-2 reserves digital number 0 for nodata, and int16 copies of 65535 read -1.
    """
    values = np.asarray(dn)
    usable: npt.NDArray[np.bool_] = (
        np.isfinite(values) & (values > 0) & (values < _ABSURD) & (values != _UNSET_UINT16)
    )
    if nodata is not None and np.isfinite(nodata):
        usable &= values != nodata
    return usable


def clear_sky(scl: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """True where the scene classification allows a pixel, shape as given."""
    return ~np.isin(scl, INVALID_SCL)
