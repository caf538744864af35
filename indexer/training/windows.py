"""The window around each pixel, as views: 100 % coverage through reflected borders."""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def reach(window_px: int) -> tuple[int, int]:
    """How far a pixel's window reaches before it and after it: (3, 3) for 7, (4, 3) for 8."""
    return window_px // 2, window_px - 1 - window_px // 2


def reflected(length: int, before: int, after: int) -> npt.NDArray[np.intp]:
    """Which pixel stands at each place of a line that is continued by reflection at both ends.

    The end itself is not repeated: ``2 1 | 0 1 2 | 1 0``. A line that is shorter than what is asked
    for is reflected again and again; a line of one pixel repeats it.

    Args:
        length: Pixels of the line, at least 1.
        before: Places before its first pixel.
        after: Places after its last.

    Returns:
        Positions within the line, ``before + length + after`` of them.
    """
    places = np.arange(-before, length + after)
    if length == 1:
        return np.zeros_like(places)
    period = 2 * (length - 1)
    places %= period
    return np.minimum(places, period - places)


def windows_of(values: npt.NDArray[Any], window_px: int) -> npt.NDArray[Any]:
    """The window around every pixel, as a view on one padded copy of the image.

    Args:
        values: Shape ``(band, y, x)``.
        window_px: Side of a window.

    Returns:
        Shape ``(y, x, band, window_px, window_px)``; pixel ``(y, x)`` stands at
        ``[window_px // 2, window_px // 2]`` of its window. Not writable.
    """
    before, after = reach(window_px)
    height, width = values.shape[1:]
    rows, columns = reflected(height, before, after), reflected(width, before, after)
    padded = values[:, rows][:, :, columns]
    views = np.lib.stride_tricks.sliding_window_view(padded, (window_px, window_px), axis=(1, 2))
    return np.moveaxis(views, 0, 2)
