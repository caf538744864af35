"""The rectangles of parcels: which of them touch another, by their sides or by their places."""

from collections.abc import Mapping
from functools import cached_property
from math import inf, nextafter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexer.columns.numbers import AnyArray, BoolArray, NumberColumn

FloatArray = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]

Limits = tuple[float, float, float, float]
"""Most that west, south, -east and -north of a rectangle may be."""

PER_CELL: Final = 4
"""Rows of a cell, where rows are spread evenly."""

# Rectangles that are wider or higher than this share of all are tried in every question.
_LARGE_SHARE: Final = 1e-4
_SOME: Final = 64
"""But at least so many may be."""

# Degrees; about ten centimeters.
_SMALLEST_CELL: Final = 1e-6

_FEW_LINES: Final = 16
"""Lines of cells that are looked up one by one."""

_COARSE: Final = 256
"""Cells of the map of inhabited land, along each axis."""

# Four bytes of True, in either order of bytes.
_ALL_FOUR: Final = 0x01010101


def limits_of(west: float, south: float, east: float, north: float) -> Limits:
    """What rectangles fulfill that touch this one; infinite sides are allowed."""
    return east, north, -west, -south


class Boxes:
    """A rectangle for each row, or none.

    Args:
        corners: West, south, -east, -north in degrees; shape ``(n, 4)``, NaN for no rectangle. So
            whether two touch is four times the same comparison.
        derived: What ``derived`` gave before; made when it is first asked for where it is not here.
    """

    def __init__(self, corners: FloatArray, derived: Mapping[str, AnyArray] | None = None) -> None:
        self.corners = corners
        self._derived = derived or {}

    @cached_property
    def sides(self) -> tuple[NumberColumn, NumberColumn, NumberColumn, NumberColumn]:
        """West, south, -east and -north, each as a column."""
        west, south, east, north = (
            NumberColumn(self.corners[:, side], _below(f"side{side}", self._derived))
            for side in range(4)
        )
        return west, south, east, north

    @cached_property
    def grid(self) -> "Grid":
        """The rectangles by their places."""
        found = _below("grid", self._derived)
        return Grid(**found) if found else Grid.of(self.corners)

    def derived(self) -> dict[str, AnyArray]:
        """What is made of the rectangles, by name, to be kept with them."""
        sides = {
            f"side{number}.{name}": array
            for number, side in enumerate(self.sides)
            for name, array in side.derived().items()
        }
        return sides | {f"grid.{name}": array for name, array in self.grid.arrays().items()}

    def most(self, limits: Limits) -> int:
        """Rows that touch at most."""
        return min(side.ranks(None, _above(limit))[1] for side, limit in self._pairs(limits))

    def mask(self, limits: Limits) -> BoolArray:
        """Which rows touch; shape ``(n,)``."""
        (first, limit), *others = self._pairs(limits)
        found = first.mask(*first.ranks(None, _above(limit)))
        for side, limit in others:
            side.narrow(found, *side.ranks(None, _above(limit)))
        return found

    def _pairs(self, limits: Limits) -> list[tuple[NumberColumn, float]]:
        return list(zip(self.sides, limits, strict=True))

    def among(self, rows: AnyArray, limits: Limits) -> BoolArray:
        """Which of some rows touch; shape of ``rows``."""
        return fit(self.corners.take(rows, axis=0), limits)

    def rows_at(self, spans: list[tuple[int, int]], limits: Limits) -> Int32Array:
        """Rows at some places of the grid that touch; in any order."""
        grid = self.grid
        if len(spans) == 1:
            ((start, stop),) = spans
            return grid.rows[start:stop][fit(grid.corners[start:stop], limits)]
        if not spans:
            return grid.rows[:0]
        corners = np.concatenate([grid.corners[start:stop] for start, stop in spans])
        rows = np.concatenate([grid.rows[start:stop] for start, stop in spans])
        return rows[fit(corners, limits)]


def fit(corners: FloatArray, limits: Limits) -> BoolArray:
    """Which corners, shape ``(n, 4)``, keep within limits; shape ``(n,)``."""
    found: BoolArray = (corners <= limits).view(np.uint32)[:, 0] == _ALL_FOUR
    return found


def _above(limit: float) -> float | None:
    """The first number that is beyond a limit; None where none is."""
    return None if limit == inf else nextafter(limit, inf)


def _below(prefix: str, arrays: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    start = prefix + "."
    return {
        name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)
    }


class Grid:
    """Rectangles in the order of the cells that their middles are in.

    The cells are lines from south to north, each from west to east. Few rectangles are much larger
    than all others; they come after the last cell and are always tried. So however far a question
    looks beyond its rectangle, it is no farther than half of the largest of the others.

    Args:
        frame: West, south, width and height of a cell, and how far half of a rectangle reaches
            along both axes; degrees, shape ``(6,)``.
        shape: Cells of a line, lines.
        offsets: Where the rows of each cell begin; shape ``(cells + 1,)``.
        rows: Those of the first cell, the second, ..., and the large ones.
        corners: Their rectangles, as ``Boxes`` has them; shape ``(len(rows), 4)``.
    """

    def __init__(
        self,
        frame: FloatArray,
        shape: npt.NDArray[np.int64],
        offsets: Int32Array,
        rows: Int32Array,
        corners: FloatArray,
    ) -> None:
        self.frame, self.shape, self.offsets = frame, shape, offsets
        self.rows, self.corners = rows, corners
        self._starts = offsets.data
        self._place: tuple[float, ...] = tuple(frame.tolist())
        self._columns, self._lines = shape.tolist()

    @classmethod
    def of(cls, corners: FloatArray) -> "Grid":
        """The grid of the rectangles of all rows."""
        known = np.flatnonzero(~np.isnan(corners).any(axis=1))
        extents = -corners[known, 2:] - corners[known, :2]
        large = _are_large(extents)
        small = known[~large]
        reach = extents[~large].max(axis=0, initial=0.0) / 2
        # Rounding must not carry a rectangle out of reach.
        reach = reach * 1.001 + _SMALLEST_CELL / 1000
        middles = (corners[small, :2] - corners[small, 2:]) / 2
        corner, cell, shape = _cells(middles)
        places = ((middles - corner) / cell).astype(np.int64)
        np.clip(places, 0, shape - 1, out=places)
        cells = places[:, 1] * shape[0] + places[:, 0]
        by_cell = np.argsort(cells, kind="stable")
        counts = np.bincount(cells, minlength=int(shape.prod()))
        offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
        rows = np.concatenate([small[by_cell], known[large]]).astype(np.int32)
        frame = np.concatenate([corner, cell, reach])
        return cls(frame, shape, offsets, rows, corners[rows])

    def arrays(self) -> dict[str, AnyArray]:
        """All that it is made of, by name."""
        return {
            "frame": self.frame,
            "shape": self.shape,
            "offsets": self.offsets,
            "rows": self.rows,
            "corners": self.corners,
        }

    def spans(self, limits: Limits, most: int) -> tuple[list[tuple[int, int]], int] | None:
        """Where the rows lie that may keep within limits.

        Args:
            limits: Of a rectangle that they touch.
            most: Rows beyond which there is no answer.

        Returns:
            Places in ``rows``, and how many rows there are; None if there are more than ``most``.
        """
        starts, columns = self._starts, self._columns
        x0, x1, y0, y1 = self._window(limits)
        placed = starts[len(starts) - 1]
        found = []
        count = len(self.rows) - placed
        if count:
            found.append((placed, placed + count))
        if x1 < x0:
            return None if count > most else (found, count)
        if y1 - y0 > _FEW_LINES:
            begin = self.offsets[y0 * columns + x0 : y1 * columns + x0 + 1 : columns]
            end = self.offsets[y0 * columns + x1 + 1 : y1 * columns + x1 + 2 : columns]
            # At the end of the last line there is one more.
            if count + int((end - begin).sum(dtype=np.int64)) > most:
                return None
        for line in range(y0 * columns, (y1 + 1) * columns, columns):
            start, stop = starts[line + x0], starts[line + x1 + 1]
            if start < stop:
                found.append((start, stop))
                count += stop - start
        return None if count > most else (found, count)

    def _window(self, limits: Limits) -> tuple[int, int, int, int]:
        """First and last column and line of the cells that matter."""
        east, north, west, south = limits
        left, bottom, width, height, reach_x, reach_y = self._place
        x0 = (-west - reach_x - left) / width
        x1 = (east + reach_x - left) / width
        y0 = (-south - reach_y - bottom) / height
        y1 = (north + reach_y - bottom) / height
        columns, lines = self._columns, self._lines
        if x1 < -1 or y1 < -1 or x0 > columns + 1 or y0 > lines + 1:
            return 0, -1, 0, -1
        return (
            int(min(max(x0 - 1e-6, 0), columns - 1)),
            int(min(max(x1 + 1e-6, 0), columns - 1)),
            int(min(max(y0 - 1e-6, 0), lines - 1)),
            int(min(max(y1 + 1e-6, 0), lines - 1)),
        )


def _are_large(extents: FloatArray) -> BoolArray:
    """Which extents, shape ``(n, 2)``, are among the few largest along either axis."""
    found = np.zeros(len(extents), dtype=np.bool_)
    few = max(_SOME, int(len(extents) * _LARGE_SHARE))
    if len(extents) <= few:
        return found
    for axis in range(2):
        along = extents[:, axis]
        # None where many are as large: they are the ordinary ones.
        found |= along > 2 * np.partition(along, len(along) - 1 - few)[len(along) - 1 - few]
    return found


def _cells(middles: FloatArray) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """West and south of the grid, width and height of a cell, and how many there are.

    Where parcels lie in few regions that are far apart, cells are as small as their land asks.
    """
    if len(middles) == 0:
        return np.zeros(2), np.ones(2), np.ones(2, dtype=np.int64)
    corner = middles.min(axis=0)
    extent = np.maximum(middles.max(axis=0) - corner, _SMALLEST_CELL)
    places = np.minimum((middles - corner) / extent * _COARSE, _COARSE - 1).astype(np.int64)
    inhabited = len(np.unique(places[:, 0] * _COARSE + places[:, 1])) / _COARSE**2
    wanted = max(1.0, len(middles) / PER_CELL / inhabited)
    # More cells than rows would cost more than they spare.
    wanted = min(wanted, float(len(middles)))
    side = max(np.sqrt(extent.prod() / wanted), _SMALLEST_CELL)
    # Along a narrow strip of land there is one line, of no more cells than were wanted.
    shape = np.ceil(np.clip(extent / side, 1, wanted)).astype(np.int64)
    return corner, extent / shape, shape


def corners_of(bounds: npt.NDArray[Any]) -> FloatArray:
    """Rectangles as ``Boxes`` has them, from west, south, east, north; shape ``(n, 4)``."""
    corners = np.array(bounds, dtype=np.float64)
    corners[:, 2:] *= -1
    return corners
