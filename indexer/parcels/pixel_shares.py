"""Which share of each pixel a polygon covers: exactly, and for many polygons at once.

The area between an edge and a grid's right border, summed over the edges of a ring with the sign of
their direction, leaves the area within the ring, as in Green's theorem. Each edge is cut where it
crosses rows and columns. A buffer takes the area of each piece to its right within its own pixel,
and one pixel further what all pixels to the right of it have in common; the running sum along a row
is the share. Font renderers fill letters this way; see Levien (2016), Inside the fastest font
renderer in the world.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Geometries = npt.NDArray[np.object_]

# Two coordinates that should be equal differ in their last digits, so that a polygon along a pixel
# border seems to reach into the next pixel. float32 cannot tell such a share from none beside 1.
_ROUNDING = float(np.finfo(np.float32).eps)

# Pixels that are looked at together: 32 MiB of float64.
_MOST_PIXELS = 2**22


@dataclass(frozen=True)
class Covered:
    """The pixels of a grid that a polygon covers: a window of it, no larger than needed."""

    rows: slice
    """Rows of the window; empty where nothing is covered."""
    columns: slice
    """Columns of the window."""
    share: FloatArray
    """Share of each pixel's area inside the polygon, 0 to 1, in the shape of the window."""


def pixel_shares(polygons: Geometries, shape: tuple[int, int]) -> Iterator[Covered]:
    """Share of each pixel's area that lies inside each of many polygons.

    What is found for a polygon does not depend on the others, to the last bit.

    Args:
        polygons: Valid polygons and multipolygons of finite coordinates, in columns and rows of
            the grid, shape ``(n,)``.
        shape: Height and width of the grid in pixels.

    Yields:
        The window of each polygon, in order; empty where the polygon is empty or lies elsewhere.
    """
    windows = _windows(polygons, shape)
    for group in _groups(windows):
        yield from _cover(polygons[group], windows[group])


def _windows(polygons: Geometries, shape: tuple[int, int]) -> IntArray:
    """Rows from, to and columns from, to that each polygon can touch, shape ``(n, 4)``.

    All 0 where a polygon touches no pixel.
    """
    height, width = shape
    left, top, right, bottom = np.nan_to_num(shapely.bounds(polygons)).T
    windows = np.column_stack(
        [
            np.clip(np.floor(top), 0, height),
            np.clip(np.ceil(bottom), 0, height),
            np.clip(np.floor(left), 0, width),
            np.clip(np.ceil(right), 0, width),
        ]
    ).astype(np.int64)
    touched = (windows[:, 0] < windows[:, 1]) & (windows[:, 2] < windows[:, 3])
    windows[~touched] = 0
    return windows


def _groups(windows: IntArray) -> Iterator[slice]:
    """Polygons that follow each other and are few enough pixels to be looked at together."""
    start, held = 0, 0
    for number, (top, bottom, left, right) in enumerate(windows.tolist()):
        pixels = (bottom - top) * (right - left)
        if number > start and held + pixels > _MOST_PIXELS:
            yield slice(start, number)
            start, held = number, 0
        held += pixels
    if start < len(windows):
        yield slice(start, len(windows))


def _cover(polygons: Geometries, windows: IntArray) -> Iterator[Covered]:
    """The shares of one group."""
    heights, widths = windows[:, 1] - windows[:, 0], windows[:, 3] - windows[:, 2]
    # A column more than the pixels, for what is passed on beyond the last one.
    ends = np.cumsum(heights * (widths + 1))
    starts = ends - heights * (widths + 1)
    pieces = _cut_at_rows(_edges(polygons, windows), heights)
    areas = _areas_to_the_right(pieces, starts, widths, int(ends[-1]))
    for number, (top, _, left, _) in enumerate(windows.tolist()):
        mine = areas[starts[number] : ends[number]]
        passed_on = mine.reshape(heights[number], widths[number] + 1)[:, :-1]
        share = np.clip(np.cumsum(passed_on, axis=1), 0, 1).astype(np.float32)
        share[share < _ROUNDING] = 0
        yield _trim(share, top, left)


def _trim(share: FloatArray, top: int, left: int) -> Covered:
    """The part of a window around everything above 0."""
    rows = np.flatnonzero(share.any(axis=1))
    if rows.size == 0:
        return Covered(slice(0, 0), slice(0, 0), np.zeros((0, 0), dtype=np.float32))
    columns = np.flatnonzero(share.any(axis=0))
    first, last = int(rows[0]), int(rows[-1]) + 1
    west, east = int(columns[0]), int(columns[-1]) + 1
    return Covered(
        slice(top + first, top + last),
        slice(left + west, left + east),
        share[first:last, west:east],
    )


@dataclass(frozen=True)
class _Pieces:
    """Edges, or pieces of them; all arrays of shape ``(n,)``, columns and rows of the window."""

    owner: IntArray
    """Position of the polygon."""
    sign: Float64Array
    """1 where the polygon lies to the right, -1 where it lies to the left."""
    x0: Float64Array
    """Column of the upper end."""
    y0: Float64Array
    """Row of the upper end."""
    x1: Float64Array
    """Column of the lower end."""
    y1: Float64Array
    """Row of the lower end."""


def _edges(polygons: Geometries, windows: IntArray) -> _Pieces:
    """The edges of all polygons that touch their window; level ones bound nothing to their right.

    Which way round rings are stored does not matter.
    """
    touched = np.flatnonzero(windows[:, 1])
    parts, of_part = shapely.get_parts(polygons[touched], return_index=True)
    rings, of_ring = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    owner = touched[of_part][of_ring][ring]
    points -= windows[owner][:, [2, 0]]
    first = np.flatnonzero(ring[1:] == ring[:-1])
    (x0, y0), (x1, y1), ring, owner = (
        points[first].T,
        points[first + 1].T,
        ring[first],
        owner[first],
    )
    # Twice the area, positive where x turns toward y. The first ring of a part is its outline.
    turn = np.bincount(ring, weights=x0 * y1 - x1 * y0, minlength=len(rings))
    outline = np.diff(of_ring, prepend=-1) > 0
    sign = np.where((turn > 0) == outline, -1.0, 1.0)[ring]
    slanted, down = y0 != y1, y0 < y1
    return _Pieces(
        owner=owner[slanted],
        sign=np.where(down, sign, -sign)[slanted],
        x0=np.where(down, x0, x1)[slanted],
        y0=np.minimum(y0, y1)[slanted],
        x1=np.where(down, x1, x0)[slanted],
        y1=np.maximum(y0, y1)[slanted],
    )


def _cut_at_rows(edges: _Pieces, heights: IntArray) -> _Pieces:
    """Pieces that lie in one row each; what is above or below the window is left out."""
    height = heights[edges.owner]
    first = np.clip(np.floor(edges.y0), 0, height).astype(np.int64)
    last = np.clip(np.ceil(edges.y1), 0, height).astype(np.int64)
    edge, row = _spread(first, last)
    x0, y0, x1, y1 = edges.x0[edge], edges.y0[edge], edges.x1[edge], edges.y1[edge]
    upper, lower = np.maximum(y0, row), np.minimum(y1, row + 1)
    return _Pieces(
        owner=edges.owner[edge],
        sign=edges.sign[edge],
        x0=x0 + (x1 - x0) * ((upper - y0) / (y1 - y0)),
        y0=upper,
        x1=x0 + (x1 - x0) * ((lower - y0) / (y1 - y0)),
        y1=lower,
    )


def _areas_to_the_right(
    pieces: _Pieces, starts: IntArray, widths: IntArray, size: int
) -> Float64Array:
    """The buffer whose running sum along each row is the share.

    Args:
        pieces: Each in one row.
        starts: Where the buffer of each polygon's window starts.
        widths: Of each polygon's window; a row of its buffer is one longer.
        size: Of the buffer.
    """
    width = widths[pieces.owner]
    # A piece that ends on a row's lower border belongs to that row, so its upper end decides.
    row_start = starts[pieces.owner] + np.floor(pieces.y0).astype(np.int64) * (width + 1)
    area = pieces.sign * (pieces.y1 - pieces.y0)
    left, right = np.minimum(pieces.x0, pieces.x1), np.maximum(pieces.x0, pieces.x1)
    # Left of the window: all pixels of the row lie to the right of it.
    over = np.maximum(-left, 0)
    outside = np.divide(
        over, np.maximum(right - left, over), where=over > 0, out=np.zeros_like(over)
    )
    first = np.clip(np.floor(left), 0, width).astype(np.int64)
    last = np.clip(np.maximum(np.ceil(right), np.floor(left) + 1), 0, width).astype(np.int64)
    piece, column = _spread(first, last)
    left, right, area_here = left[piece], right[piece], area[piece]
    west, east = np.maximum(left, column), np.minimum(right, column + 1)
    upright = left == right
    part = np.divide(east - west, right - left, where=~upright, out=np.ones_like(west))
    area_here = area_here * part
    beyond = (west + east) / 2 - column
    pixel = row_start[piece] + column
    return np.bincount(
        np.concatenate([row_start, pixel, pixel + 1]),
        weights=np.concatenate([area * outside, area_here * (1 - beyond), area_here * beyond]),
        minlength=size,
    ).astype(np.float64, copy=False)


def _spread(first: IntArray, last: IntArray) -> tuple[IntArray, IntArray]:
    """All integers of many ranges.

    Returns:
        Position of the range, and the integer, each of shape ``(sum of lengths,)``; a range that
        ends before it starts has none.
    """
    lengths = np.maximum(last - first, 0)
    owner = np.repeat(np.arange(len(first)), lengths)
    before = np.cumsum(lengths) - lengths
    return owner, np.arange(len(owner)) - before[owner] + first[owner]
