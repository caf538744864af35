"""What a pixel is mixed from: the reflectance of soil, straw, leaves and petals, by band."""

import numpy as np

from indexer.sensors import PROFILES, SENTINEL2_BANDS
from indexer.statistics import Float64Array

BANDS = PROFILES["l2a"]
"""The bands of a scene, in the order of every ``(band, ...)`` array here."""

# Soil: dry silt loam. Straw: bright, with the cellulose
# absorption near 2.1 um. Leaves: chlorophyll absorbs blue and red, water absorbs beyond 1.4 um.
# Petals of rapeseed: carotenoids absorb blue and nothing else.
_SPECTRA = {
    #       soil  straw  leaves petals
    "B01": (0.08, 0.090, 0.018, 0.030),
    "B02": (0.10, 0.110, 0.022, 0.035),
    "B03": (0.13, 0.160, 0.055, 0.230),
    "B04": (0.17, 0.210, 0.025, 0.220),
    "B05": (0.19, 0.235, 0.085, 0.280),
    "B06": (0.21, 0.255, 0.300, 0.410),
    "B07": (0.22, 0.275, 0.400, 0.470),
    "B08": (0.24, 0.300, 0.430, 0.490),
    "B8A": (0.25, 0.320, 0.450, 0.500),
    "B09": (0.26, 0.330, 0.440, 0.490),
    "B11": (0.33, 0.380, 0.200, 0.250),
    "B12": (0.29, 0.300, 0.085, 0.130),
}
_ENDMEMBERS: Float64Array = np.array([_SPECTRA[name] for name in BANDS])
SOIL, STRAW, LEAVES, PETALS = (_ENDMEMBERS[:, place] for place in range(4))
"""Reflectance, each of shape ``(band,)``."""

_WAVELENGTH_UM = np.array([SENTINEL2_BANDS[name].center_wavelength_um for name in BANDS])
REGION = np.digitize(_WAVELENGTH_UM, [0.72, 1.40])
"""Of each band: 0 visible, 1 near infrared, 2 short-wave infrared."""
