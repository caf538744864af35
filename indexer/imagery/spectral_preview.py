"""An image of any bands in any units, prepared for ``draw_preview``."""

from dataclasses import replace
from typing import Final

import numpy as np

from indexer.errors import ImageryError
from indexer.imagery.chip import Chip
from indexer.imagery.image import ShownImage
from indexer.imagery.preview import Style
from indexer.imagery.spectral_bands import GREEN_UM, RED_UM
from indexer.imagery.spectral_cube import SpectralImage
from indexer.imagery.true_color import true_color_bands

_NEAR_INFRARED_UM: Final = 0.842
_TOLERANCE_UM: Final = 0.05
_DARK_PERCENTILE, _LIGHT_PERCENTILE = 1.0, 99.0


def shown_image(image: SpectralImage, style: Style) -> ShownImage:
    """Choose the bands that are shown.

    Args:
        image: Of any bands and units.
        style: True color takes the image's own default bands or those nearest to its colors, else
            three spread over all; false color needs near infrared, red and green.

    Raises:
        ImageryError: If there are no such bands (``missing-band``).
    """
    if style == "true-color":
        positions, _ = true_color_bands(image)
    else:
        red, green, blue = (_nearest(image, at) for at in (_NEAR_INFRARED_UM, RED_UM, GREEN_UM))
        positions = red, green, blue
    return ShownImage(image.with_bands(positions), _stretched)


def _stretched(chip: Chip) -> Chip:
    """Each band from its 1st to its 99th percentile in view, as 0 to 1."""
    values = chip.reflectance.copy()
    for band in values:
        seen = band[chip.valid_mask]
        if not seen.size:
            continue
        dark, light = np.percentile(seen, (_DARK_PERCENTILE, _LIGHT_PERCENTILE)).tolist()
        # What is even all over is shown as a middling gray.
        band[:] = np.clip((band - dark) / (light - dark), 0, 1) if light > dark else band * 0 + 0.5
    return replace(chip, reflectance=values)


def _nearest(image: SpectralImage, wavelength_um: float) -> int:
    away = [
        abs(at - wavelength_um) if at is not None else np.inf
        for at in (band.center_wavelength_um for band in image.bands)
    ]
    nearest = int(np.argmin(away))
    if away[nearest] > _TOLERANCE_UM:
        raise ImageryError(
            f"{image.source.path}: no band near {wavelength_um * 1000:.0f} nm is known; look at it "
            "in true color.",
            kind="missing-band",
        )
    return nearest
