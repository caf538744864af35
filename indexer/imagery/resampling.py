"""Bands of coarser pixels brought to a finer grid whose rows and columns run along theirs."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from affine import Affine

from indexer.imagery.chip import FloatArray

Positions = npt.NDArray[np.float64]

# Pixels that differ by less are of one size; a finer file would have to be averaged instead.
_SAME_SIZE: Final = 1e-6


@dataclass(frozen=True)
class Alignment:
    """Where the centers of fine pixels lie on a coarser grid."""

    to_coarse: Affine
    """From fine to coarse pixel coordinates, in which the first pixel reaches from 0 to 1."""

    @classmethod
    def of(cls, fine: Affine, coarse: Affine) -> "Alignment | None":
        """How two grids of one reference system lie to each other, by their transforms.

        Returns:
            None where one is turned or flipped against the other, or ``coarse`` is the finer.
        """
        to_coarse = ~coarse @ fine
        straight = abs(to_coarse.b) < _SAME_SIZE and abs(to_coarse.d) < _SAME_SIZE
        sizes = (to_coarse.a, to_coarse.e)
        coarser = min(sizes) > 0 and max(sizes) < 1 + _SAME_SIZE
        return cls(to_coarse) if straight and coarser else None

    def rows(self, first: int, count: int) -> Positions:
        """Centers of fine rows, in coarse rows; the same for a row whatever window it is in."""
        return _centers(first, count) * self.to_coarse.e + self.to_coarse.f

    def columns(self, first: int, count: int) -> Positions:
        """Centers of fine columns, likewise."""
        return _centers(first, count) * self.to_coarse.a + self.to_coarse.c


def nearest(coarse: FloatArray, rows: Positions, columns: Positions) -> FloatArray:
    """Each fine pixel has the value of the coarse pixel that its center lies in.

    Args:
        coarse: Shape ``(band, y, x)``.
        rows: Of the fine centers, in pixels of ``coarse``.
        columns: Likewise.

    Returns:
        Shape ``(band, len(rows), len(columns))``; NaN beyond ``coarse``.
    """
    _, height, width = coarse.shape
    at = np.ix_(_within(rows, height), _within(columns, width))
    fine: FloatArray = coarse[:, at[0], at[1]]
    _cut(fine, rows, columns, height, width)
    return fine


def bilinear(coarse: FloatArray, rows: Positions, columns: Positions) -> FloatArray:
    """Interpolate between the centers of coarse pixels.

    What has no data takes no part, and what lies in it has none: the weights of the others are
    raised accordingly, as at the edges.

    Args:
        coarse: Shape ``(band, y, x)``; NaN where there is no data.
        rows: Of the fine centers, in pixels of ``coarse``.
        columns: Likewise.

    Returns:
        Shape ``(band, len(rows), len(columns))``; NaN without data and beyond ``coarse``.
    """
    _, height, width = coarse.shape
    seen = np.isfinite(coarse)
    if seen.all():
        fine = _between(coarse, rows, columns)
    else:
        weights = _between(seen.astype(np.float32), rows, columns)
        sums = _between(np.where(seen, coarse, np.float32(0)), rows, columns)
        fine = np.full_like(sums, np.nan)
        np.divide(sums, weights, out=fine, where=weights > 0)
        at = np.ix_(_within(rows, height), _within(columns, width))
        fine[~seen[:, at[0], at[1]]] = np.nan
    _cut(fine, rows, columns, height, width)
    return fine


def _between(values: FloatArray, rows: Positions, columns: Positions) -> FloatArray:
    """Along columns of pixels, then along rows; equal neighbors give exactly their value."""
    above, below, down = _neighbors(rows, values.shape[1])
    tall = values[:, above]
    tall = tall + (values[:, below] - tall) * down[:, None]
    left, right, along = _neighbors(columns, values.shape[2])
    fine = tall[:, :, left]
    blended: FloatArray = fine + (tall[:, :, right] - fine) * along
    return blended


def _neighbors(
    positions: Positions, size: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    """The pixels before and after each position, and how far it lies from the first's center."""
    before = np.floor(positions - 0.5)
    share: FloatArray = (positions - 0.5 - before).astype(np.float32)
    first = before.astype(np.intp)
    return first.clip(0, size - 1), (first + 1).clip(0, size - 1), share


def _centers(first: int, count: int) -> Positions:
    return np.arange(first, first + count, dtype=np.float64) + 0.5


def _within(positions: Positions, size: int) -> npt.NDArray[np.intp]:
    return np.floor(positions).astype(np.intp).clip(0, size - 1)


def _cut(fine: FloatArray, rows: Positions, columns: Positions, height: int, width: int) -> None:
    fine[:, (rows < 0) | (rows >= height)] = np.nan
    fine[:, :, (columns < 0) | (columns >= width)] = np.nan
