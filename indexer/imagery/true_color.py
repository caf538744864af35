"""An image of any number of bands as a picture for the eye."""

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.imagery.chip import BoolArray, FloatArray
from indexer.imagery.image_blocks import block_rows
from indexer.imagery.spectral_cube import SpectralImage

MAX_PX: Final = 1024
"""Longest side of a picture, unless told otherwise."""

_WHITE: Final = 255
# Dark and light ends of the stretch of each band, in percent of the valid pixels shown.
_DARK_PERCENTILE, _LIGHT_PERCENTILE = 1.0, 99.0
# Measurements are linear in light and screens are not; as in indexer/imagery/preview.py.
_GAMMA = 1.5


def true_color(image: SpectralImage, max_px: int = MAX_PX) -> npt.NDArray[np.uint8]:
    """Draw an image in its own colors, or in three of its bands where it has none.

    Of an image larger than ``max_px``, every n-th pixel is shown; the image is read block by
    block. Each band is stretched from the 1st to the 99th percentile of the valid pixels shown.

    Args:
        image: Of any number of bands; ``true_color_bands`` tells which are shown.
        max_px: Longest side of the picture, in pixels.

    Returns:
        Red, green and blue, shape ``(y, x, 3)``; white where there is no valid pixel.

    Raises:
        ImageryError: If the pixels cannot be read.
    """
    step = max(1, math.ceil(max(image.shape) / max_px))
    shown, _ = true_color_bands(image)
    parts = [
        (values[list(shown), :, ::step], valid_mask[:, ::step])
        for values, valid_mask in _every_nth_row(image, step)
    ]
    values = np.concatenate([part for part, _ in parts], axis=1)
    valid_mask = np.concatenate([mask for _, mask in parts])
    return _picture(values, valid_mask)


def true_color_bands(image: SpectralImage) -> tuple[tuple[int, int, int], str | None]:
    """Which bands are shown as red, green and blue, and a note where these are not their colors.

    Returns:
        Positions in ``image.bands``: the default bands, else three spread over all, the last as
        red; and the note.
    """
    if image.default_bands is not None:
        return image.default_bands, None
    count = len(image.bands)
    blue, green, red = (round((count - 1) * share) for share in (1 / 6, 1 / 2, 5 / 6))
    names = ", ".join(image.bands[at].name for at in (red, green, blue))
    return (red, green, blue), f"no bands of red, green and blue: {names} are shown as these"


def _every_nth_row(image: SpectralImage, step: int) -> Iterator[tuple[FloatArray, BoolArray]]:
    """Rows 0, ``step``, 2 ``step``... of an image, with all of their columns."""
    if step > image.pixels.block_rows:
        for row in range(0, image.shape[0], step):
            chip = image.read(row, height=1)
            yield chip.reflectance, chip.valid_mask
        return
    for rows in block_rows(image):
        chip = image.read(rows.start, height=rows.stop - rows.start)
        first = -rows.start % step
        yield chip.reflectance[:, first::step], chip.valid_mask[first::step]


def _picture(values: FloatArray, valid_mask: BoolArray) -> npt.NDArray[np.uint8]:
    """Three bands, shape ``(3, y, x)``, stretched over their valid pixels."""
    picture = np.full((*valid_mask.shape, 3), _WHITE, dtype=np.uint8)
    if not valid_mask.any():
        return picture
    for channel, band in enumerate(values):
        seen = band[valid_mask]
        dark, light = np.percentile(seen, (_DARK_PERCENTILE, _LIGHT_PERCENTILE)).tolist()
        # What is even all over is shown as a middling gray.
        share = np.clip((seen - dark) / (light - dark), 0, 1) if light > dark else seen * 0 + 0.5
        picture[valid_mask, channel] = np.round(255 * share ** (1 / _GAMMA))
    return picture
