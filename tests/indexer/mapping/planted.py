"""An image whose classes are known because they were planted: three spectra in known places."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.synthetic import write_geotiff

BANDS = ("450 nm", "560 nm", "665 nm", "720 nm", "860 nm", "1610 nm")
SPECTRA = np.array(
    [
        [300, 500, 400, 1500, 3500, 2000],
        [900, 1200, 1600, 1900, 2300, 3200],
        [700, 500, 300, 200, 150, 100],
    ]
)
"""Vegetation, soil and water, shape ``(3, band)``."""

SHAPE = (24, 30)
NODATA = -9999


def planted_classes() -> npt.NDArray[np.uint8]:
    """Class of each pixel, shape ``SHAPE``: 1 is the largest, 3 the smallest; 0 has no data.

    Columns 0 to 13 are vegetation, 14 to 23 soil, the rest water; the first three rows of the first
    four columns have no data.
    """
    classes = np.ones(SHAPE, dtype=np.uint8)
    classes[:, 14:24] = 2
    classes[:, 24:] = 3
    classes[:3, :4] = 0
    return classes


def planted_cube(seed: int = 0) -> npt.NDArray[np.int16]:
    """Shape ``(band, y, x)``: the spectrum of each class with a little noise."""
    classes = planted_classes()
    random = np.random.default_rng(seed)
    spectra = np.vstack([np.zeros((1, len(BANDS))), SPECTRA])
    cube = spectra[classes].transpose(2, 0, 1) + random.normal(0, 15, (len(BANDS), *SHAPE))
    cube[:, classes == 0] = NODATA
    return cube.round().astype(np.int16)


def write_planted(path: Path, **how: object) -> Path:
    """Write the planted image as a GeoTIFF; ``how`` as in ``write_geotiff``."""
    return write_geotiff(
        path,
        planted_cube(),
        descriptions=BANDS,
        nodata=NODATA,
        **how,  # type: ignore[arg-type]
    )
