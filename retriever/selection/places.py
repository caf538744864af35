"""Which parcels meet a shape: by their rectangles where these tell, else by their outlines."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from indexer.columns import Columns
from indexer.columns.numbers import AnyArray, BoolArray
from retriever.cql2.nodes import Shape
from retriever.selection.lowering import limits_of_shape

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

Outlines = Callable[[IntArray], Sequence[bytes | None]]
"""Well-known binary of some parcels (rows in SQL), in their order; None where there is none."""


def meeting(
    columns: Columns, rows: AnyArray | None, shape: Shape, outlines: Outlines | None
) -> BoolArray:
    """Which rows are of parcels that meet a shape.

    Args:
        columns: The columns.
        rows: The rows that are asked about, shape ``(n,)``; None for all.
        shape: The shape.
        outlines: Reads the outlines of the parcels whose rectangles do not tell.

    Returns:
        Shape ``(n,)``.
    """
    limits = limits_of_shape(shape)
    if rows is None:
        near = reduce(np.logical_or, [columns.boxes.mask(one) for one in limits])
        found, around = near, np.flatnonzero(near)
        places: IntArray = around
    else:
        near = reduce(np.logical_or, [columns.boxes.among(rows, one) for one in limits])
        places = np.flatnonzero(near)
        found, around = near, rows[places]
    corners = columns.boxes.corners[around]
    sure = _within(corners, shape) if _is_one_box(shape) else _covered(corners, shape)
    open_ = np.flatnonzero(~sure)
    if len(open_):
        assert outlines is not None
        parcels, of_parcel = np.unique(columns.parcels[around[open_]], return_inverse=True)
        meets = _intersecting(shape, outlines(parcels))
        found[places[open_]] = meets[of_parcel]
    return found


def _is_one_box(shape: Shape) -> bool:
    return shape.bbox is not None and shape.bbox[0] <= shape.bbox[2]


def _intersecting(shape: Shape, outlines: Sequence[bytes | None]) -> BoolArray:
    found: Any = shapely.from_wkb(np.array(outlines, dtype=object))
    geometry = shape.geometry
    shapely.prepare(geometry)
    meets: BoolArray = shapely.intersects(geometry, found)
    return meets


def _within(corners: FloatArray, shape: Shape) -> BoolArray:
    """Of rectangles that touch a rectangle, those whose parcels surely meet it.

    A parcel has a point on each side of its own rectangle. Where that side lies within the other
    rectangle, so does the point.
    """
    assert shape.bbox is not None
    left, bottom, right, top = shape.bbox
    west, south, east, north = corners[:, 0], corners[:, 1], -corners[:, 2], -corners[:, 3]
    wide = (west >= left) & (east <= right)
    high = (south >= bottom) & (north <= top)
    some_longitude = (west >= left) | (east <= right)
    some_latitude = (south >= bottom) | (north <= top)
    found: BoolArray = (wide & some_latitude) | (high & some_longitude)
    return found


def _covered(corners: FloatArray, shape: Shape) -> BoolArray:
    """Of rectangles, those with a side that lies within a shape: their parcels surely meet it."""
    geometry = shape.geometry
    if geometry.area == 0:
        return np.zeros(len(corners), dtype=np.bool_)
    shapely.prepare(geometry)
    west, south, east, north = corners[:, 0], corners[:, 1], -corners[:, 2], -corners[:, 3]
    found = np.zeros(len(corners), dtype=np.bool_)
    sides = ((west, south, east, south), (west, north, east, north),
             (west, south, west, north), (east, south, east, north))  # fmt: skip
    for x0, y0, x1, y1 in sides:
        left = np.flatnonzero(~found)
        ends = np.stack([x0[left], y0[left], x1[left], y1[left]], axis=1).reshape(-1, 2, 2)
        found[left] = shapely.covers(geometry, shapely.linestrings(ends))
    return found
