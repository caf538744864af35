"""Which tiles a scene is cut into, and which parcels each of them serves.

A tile is what the encoder sees at once: 120 x 120 px. Tiles lie on a fixed grid of the scene, so
that a parcel's vector depends on the scene and the parcel, never on the other parcels of a run.
They overlap: a parcel up to 320 m wide lies whole in one of them, and one forward pass over it
serves all such parcels. A larger parcel is looked at in several tiles. Without parcels, an image is
one chip and its own parcel, or is cut into windows that are parcels.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from indexer.embedding_space import Pooling
from indexer.errors import ImageryError
from indexer.imagery.image import Image
from indexer.imagery.reader import MAX_CHIP_PX
from indexer.parcels.parcel import JsonScalar, Parcel, geodesic_area_m2

MAX_VIEW_PX = 1536
"""Longest side of what is looked at of one parcel, in pixels: 15 km."""

WINDOW_ID = re.compile(r"(?P<image>.+)-(?P<side>\d+)px-r\d{5,}-c\d{5,}")
"""The ids of an image's windows."""

# Of a tile's 15 patches, those that lie before the next tile begins. The four others overlap: with
# fewer, more parcels are cut in two; with more, fewer parcels share a forward pass.
_STRIDE_PATCHES, _TILE_PATCHES = 11, 15

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LON_LAT = CRS.from_epsg(4326)
# Points along each edge when a scene's outline is brought to longitude and latitude.
_DENSIFY = 21
# Coordinates that went to degrees and back are right to less than this.
_ROUNDING_PX = 1e-3
# Parcels whose outlines are in memory at once while a scene is planned.
_PARCELS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Target:
    """A parcel in a scene."""

    parcel: Parcel
    geometry: BaseGeometry | None
    """The parcel in the scene's reference system; None where the whole chip is the parcel."""


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of a scene's pixels."""

    row: int
    column: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The row after the last."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """The column after the last."""
        return self.column + self.width


@dataclass(frozen=True)
class Part:
    """What one tile contributes to a parcel that lies in several."""

    tile: Window
    cell: Window
    """The pixels of the tile that count for the parcel; no other of its tiles counts them."""


@dataclass(frozen=True)
class View:
    """A parcel that no single tile holds, and the tiles that hold it together."""

    target: Target
    window: Window
    """Around all of the tiles."""
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ChipPlan:
    """A window of a scene and the parcels that one forward pass over it serves."""

    row: int
    column: int
    height: int
    width: int
    targets: tuple[Target, ...]
    """Parcels that lie whole in it, as far as they lie in the scene."""
    views: tuple[View, ...] = ()
    """Parcels in several tiles, of which this is the first."""
    is_window: bool = False
    """Whether it is one of many windows that are parcels; those without data are no parcels."""

    @property
    def window(self) -> Window:
        """The same rectangle."""
        return Window(self.row, self.column, self.height, self.width)


def stride_px(chip_px: int) -> int:
    """Distance of neighboring tiles: 88 px for tiles of 120 px."""
    return chip_px * _STRIDE_PATCHES // _TILE_PATCHES


def whole_image(scene: Image, collection: str) -> ChipPlan:
    """Take a whole file as one chip and its footprint as the parcel.

    Raises:
        ImageryError: If the file is far larger than a chip (``too-large``).
    """
    height, width = scene.shape
    if max(height, width) > MAX_CHIP_PX:
        raise ImageryError(
            f"{scene.source.location}: {height} x {width} px is a scene, not a chip (at most "
            f"{MAX_CHIP_PX} px a side); give --parcels so that chips are cut around parcels, or "
            "--windows to cut it into windows.",
            kind="too-large",
        )
    return _own_parcel(scene, collection, scene.source.name, 0, 0, height, width)


def image_windows(scene: Image, collection: str, side_px: int) -> list[ChipPlan]:
    """Cut an image into windows of one size, each of them a parcel of its own.

    They do not overlap, but for the last of a row or column: these end where the image ends. Of an
    image that is narrower than a window, all that there is is taken.

    Args:
        scene: Of any size.
        collection: Of the parcels; their ids are ``IMAGE-60px-r00120-c00240``, by the side of a
            window, its first row and its first column, so that windows of two sizes never take
            each other's place.
        side_px: Side of a window.
    """
    height, width = scene.shape
    size = min(side_px, height), min(side_px, width)
    name = f"{scene.source.name}-{side_px}px"
    return [
        replace(
            _own_parcel(scene, collection, f"{name}-r{row:05}-c{column:05}", row, column, *size),
            is_window=True,
        )
        for row in grid_origins(height, side_px, side_px)
        for column in grid_origins(width, side_px, side_px)
    ]


def _own_parcel(
    scene: Image, collection: str, parcel_id: str, row: int, column: int, height: int, width: int
) -> ChipPlan:
    """A chip that is a parcel."""
    attributes: dict[str, JsonScalar] = {}
    if (height, width) != scene.shape:
        # Where there is no reference system, nothing else tells where the parcel lies.
        side = max(height, width)
        attributes = {"window_row": row, "window_column": column, "window_px": side}
    footprint = footprint_lon_lat(scene, row, column, height, width)
    parcel = Parcel(
        collection=collection,
        parcel_id=parcel_id,
        geometry=footprint,
        area_m2=None if footprint is None else geodesic_area_m2(footprint),
        crop_code=None,
        crop_name=scene.source.class_name,
        attributes=attributes,
    )
    return ChipPlan(row, column, height, width, (Target(parcel, None),))


def footprint_lon_lat(
    scene: Image, row: int = 0, column: int = 0, height: int = 0, width: int = 0
) -> shapely.Polygon | None:
    """Outline of a scene or a window in longitude and latitude.

    Args:
        scene: The scene.
        row: First row of the window.
        column: First column.
        height: In pixels; 0 for that of the scene.
        width: Likewise.

    Returns:
        None where no reference system leads to longitude and latitude.
    """
    if scene.crs is None:
        return None
    height, width = height or scene.shape[0], width or scene.shape[1]
    along = np.linspace(0.0, 1.0, _DENSIFY)
    ones, zeros = np.ones(_DENSIFY), np.zeros(_DENSIFY)
    columns = column + np.concatenate([along, ones, along[::-1], zeros]) * width
    rows = row + np.concatenate([zeros, along, ones, along[::-1]]) * height
    to_map = scene.transform
    x = to_map.a * columns + to_map.b * rows + to_map.c
    y = to_map.d * columns + to_map.e * rows + to_map.f
    transformer = _to_lon_lat(scene.crs.to_wkt())
    if transformer is None:
        return None
    outline = np.column_stack(transformer.transform(x, y))
    if not np.isfinite(outline).all():
        return None
    # A rectangle in degrees needs no points between its corners.
    return shapely.simplify(shapely.Polygon(outline), 1e-7)


# An image of many windows asks for the same again and again.
@lru_cache(maxsize=8)
def _to_lon_lat(wkt: str) -> Transformer | None:
    """The way from a reference system to longitude and latitude; None where there is none."""
    try:
        return Transformer.from_crs(wkt, _LON_LAT, always_xy=True)
    except ProjError:
        # A site's local grid, for example.
        return None


@lru_cache(maxsize=8)
def _from_lon_lat(wkt: str) -> Transformer:
    return Transformer.from_crs(_LON_LAT, wkt, always_xy=True)


class ParcelFinder:
    """Finds the parcels that a scene shows, by a spatial tree over all parcels."""

    def __init__(self, parcels: Sequence[Parcel]) -> None:
        self._parcels = parcels
        self._tree = shapely.STRtree([parcel.geometry for parcel in parcels])
        self.seen: set[str] = set()
        """Ids of the parcels that some scene showed."""

    def plan(self, scene: Image, pooling: Pooling, chip_px: int) -> "ScenePlan":
        """Assign every parcel in view to a tile, or to several.

        Raises:
            ImageryError: If the scene has no reference system (``no-crs``).
        """
        footprint = footprint_lon_lat(scene)
        if footprint is None or scene.crs is None:
            raise ImageryError(
                f"{scene.source.location}: it has no CRS that leads to longitude and latitude, so "
                "parcels cannot be found on it; "
                "georeference it, or leave --parcels away to take each file as one parcel.",
                kind="no-crs",
            )
        found = np.sort(self._tree.query(footprint, predicate="intersects"))
        plan = ScenePlan(scene, self._parcels, pooling, chip_px)
        for start in range(0, len(found), _PARCELS_AT_ONCE):
            plan.place(found[start : start + _PARCELS_AT_ONCE])
        self.seen.update(self._parcels[position].parcel_id for position in plan.positions)
        return plan

    def unseen(self) -> list[Parcel]:
        """Parcels that no scene showed so far."""
        return [parcel for parcel in self._parcels if parcel.parcel_id not in self.seen]


class ScenePlan:
    """The tiles of a scene that show parcels, row by row.

    It keeps only which parcel is where; outlines are brought to the scene's reference system tile
    by tile, so that a scene of half a million parcels takes little memory.
    """

    def __init__(
        self, scene: Image, parcels: Sequence[Parcel], pooling: Pooling, chip_px: int
    ) -> None:
        self._scene = scene
        self._parcels = parcels
        self._pooling = pooling
        self._chip_px = chip_px
        self._whole: dict[Window, list[int]] = defaultdict(list)
        self._views: dict[Window, list[tuple[int, tuple[Part, ...]]]] = defaultdict(list)
        self._tiles: set[Window] = set()

    def __len__(self) -> int:
        """Tiles."""
        return len(self._tiles)

    def __iter__(self) -> Iterator[ChipPlan]:
        """The tiles in the order of their rows, then columns."""
        for tile in sorted(self._tiles):
            yield self._tile(tile)

    @property
    def positions(self) -> Iterator[int]:
        """Of the parcels that the scene shows, each once."""
        for whole in self._whole.values():
            yield from whole
        for views in self._views.values():
            yield from (position for position, _ in views)

    @property
    def parcels(self) -> list[Parcel]:
        """Those that the scene shows."""
        return [self._parcels[position] for position in self.positions]

    def place(self, positions: IntArray) -> None:
        """Find the tiles of some parcels; those that the scene does not show are left out."""
        outlines = self._outlines(positions)
        visible = shapely.intersection(outlines, shapely.box(*self._scene.bounds))
        shown = shapely.area(visible) > 0
        positions, visible = positions[shown], visible[shown]
        if not len(positions):
            return
        boxes = _pixel_boxes(self._scene, visible)
        if self._pooling == "image":
            self._place_centered(positions, visible, boxes)
        else:
            self._place_on_grid(positions, visible, boxes)

    def _place_centered(
        self, positions: IntArray, visible: npt.NDArray[np.object_], boxes: FloatArray
    ) -> None:
        """A tile of its own for each parcel."""
        for position, part, box in zip(positions.tolist(), visible, boxes, strict=True):
            tile = _centered(self._scene, box, self._chip_px)
            if not _shows(self._scene, tile, part):
                # Parts far from each other, or a long bend: nothing lies in their middle.
                inside = _pixel_boxes(self._scene, np.array([part.representative_point()]))[0]
                tile = _centered(self._scene, inside, self._chip_px)
            self._whole[tile].append(position)
            self._tiles.add(tile)

    def _place_on_grid(
        self, positions: IntArray, visible: npt.NDArray[np.object_], boxes: FloatArray
    ) -> None:
        for number in np.flatnonzero((boxes[:, 1::2] - boxes[:, ::2] > MAX_VIEW_PX).any(axis=1)):
            boxes[number] = _around(self._scene, visible[number], boxes[number])
        rows = _Axis(self._scene.shape[0], self._chip_px)
        columns = _Axis(self._scene.shape[1], self._chip_px)
        down, across = rows.place(boxes[:, 0], boxes[:, 1]), columns.place(boxes[:, 2], boxes[:, 3])
        for position, part, down_span, across_span in zip(
            positions.tolist(), visible, down.tolist(), across.tolist(), strict=True
        ):
            parts = _parts(rows.cells(*down_span), columns.cells(*across_span))
            if len(parts) > 1:
                # A bend, or parts far from each other: not every tile around shows some of it.
                shown = tuple(one for one in parts if _shows(self._scene, one.cell, part))
                parts = shown or parts[:1]
            if len(parts) == 1:
                self._whole[parts[0].tile].append(position)
            else:
                self._views[min(one.tile for one in parts)].append((position, parts))
            self._tiles.update(one.tile for one in parts)

    def _tile(self, tile: Window) -> ChipPlan:
        whole, views = self._whole.get(tile, []), self._views.get(tile, [])
        targets = self._targets([*whole, *(position for position, _ in views)])
        return ChipPlan(
            tile.row,
            tile.column,
            tile.height,
            tile.width,
            targets[: len(whole)],
            tuple(
                View(target, _hull([part.tile for part in parts]), parts)
                for target, (_, parts) in zip(targets[len(whole) :], views, strict=True)
            ),
        )

    def _targets(self, positions: Sequence[int]) -> tuple[Target, ...]:
        outlines = self._outlines(np.array(positions, dtype=np.int64))
        return tuple(
            Target(self._parcels[position], outline)
            for position, outline in zip(positions, outlines, strict=True)
        )

    def _outlines(self, positions: IntArray) -> npt.NDArray[np.object_]:
        """Parcels in the scene's reference system; empty where that does not reach."""
        geometries = np.array([self._parcels[one].geometry for one in positions], dtype=object)
        if self._scene.crs is None:
            raise TypeError("a scene without a reference system shows no parcels")
        transformer = _from_lon_lat(self._scene.crs.to_wkt())
        moved: npt.NDArray[np.object_] = shapely.transform(
            geometries, lambda points: np.column_stack(transformer.transform(*points.T))
        )
        lost = ~np.isfinite(shapely.bounds(moved)).all(axis=1)
        moved[lost] = shapely.Polygon()
        for number in np.flatnonzero(~shapely.is_valid(moved)):
            moved[number] = _repaired(moved[number])
        return moved


class _Axis:
    """The tiles along one axis of a scene, and the pixels that each of them owns.

    Where neighbors overlap, each owns the half on its side: a parcel in several tiles is looked at
    by the tile in which it is farther from the edge.
    """

    def __init__(self, length: int, chip_px: int) -> None:
        self._size = min(length, chip_px)
        self._origins = np.array(grid_origins(length, chip_px, stride_px(chip_px)))
        ends = self._origins[:-1] + self._size
        inner = (self._origins[1:] + ends) // 2
        self._borders = np.concatenate([[0], inner, [length]])

    def place(self, first: FloatArray, last: FloatArray) -> IntArray:
        """First and last tile of intervals: one that holds all of it, else several.

        Args:
            first: Where each interval begins, in pixels, shape ``(n,)``.
            last: Where it ends.

        Returns:
            Shape ``(n, 2)``; among tiles that hold all of it, the one centered nearest.
        """
        begins = first[:, None] + _ROUNDING_PX >= self._origins
        ends = last[:, None] - _ROUNDING_PX <= self._origins + self._size
        off_center = np.abs((first + last)[:, None] / 2 - (self._origins + self._size / 2))
        nearest = np.where(begins & ends, off_center, np.inf)
        held = np.isfinite(nearest).any(axis=1)
        most = len(self._origins) - 1
        inner = self._borders[1:-1]
        low = np.searchsorted(inner, first + _ROUNDING_PX, side="right")
        high = np.searchsorted(inner, last - _ROUNDING_PX, side="left")
        spans = np.clip(np.column_stack([low, np.maximum(low, high)]), 0, most)
        spans[held] = nearest[held].argmin(axis=1)[:, None]
        return np.asarray(spans, dtype=np.int64)

    def cells(self, low: int, high: int) -> list[tuple[int, int, int, int]]:
        """First pixel and length of some tiles, and of what each counts where they are several."""
        if low == high:
            return [(int(self._origins[low]), self._size, int(self._origins[low]), self._size)]
        return [
            (
                int(self._origins[one]),
                self._size,
                int(self._borders[one]),
                int(self._borders[one + 1] - self._borders[one]),
            )
            for one in range(low, high + 1)
        ]


def _parts(
    rows: Sequence[tuple[int, int, int, int]], columns: Sequence[tuple[int, int, int, int]]
) -> tuple[Part, ...]:
    return tuple(
        Part(Window(row, column, height, width), Window(top, left, high, wide))
        for row, height, top, high in rows
        for column, width, left, wide in columns
    )


def _hull(windows: Sequence[Window]) -> Window:
    row, column = min(one.row for one in windows), min(one.column for one in windows)
    bottom, right = max(one.bottom for one in windows), max(one.right for one in windows)
    return Window(row, column, bottom - row, right - column)


def _around(scene: Image, part: BaseGeometry, box: FloatArray) -> FloatArray:
    """Of a parcel that is too large to be looked at whole, the pixels around a point inside."""
    inside = _pixel_boxes(scene, np.array([part.representative_point()]))[0]
    half = MAX_VIEW_PX / 2
    low, high = box[[0, 0, 2, 2]], box[[1, 1, 3, 3]]
    # A tile's length less, because the tiles at the ends reach beyond.
    around: FloatArray = np.clip(inside + np.array([-1, 1, -1, 1]) * half, low, high)
    return around


def _shows(scene: Image, window: Window, geometry: BaseGeometry) -> bool:
    pixels = [
        (window.column, window.row),
        (window.right, window.row),
        (window.right, window.bottom),
        (window.column, window.bottom),
    ]
    outline = shapely.Polygon([scene.transform @ pixel for pixel in pixels])
    return bool(geometry.intersection(outline).area > 0)


def _repaired(outline: BaseGeometry) -> BaseGeometry:
    """The polygons of an outline that crosses itself.

    A long edge bends on its way to another reference system, the points that a file keeps do not:
    a vertex that lay close to the edge may come to lie beyond it.
    """
    parts = shapely.get_parts(shapely.make_valid(outline))
    # What is left of a place that has no area are lines and points.
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def _pixel_boxes(scene: Image, geometries: npt.NDArray[np.object_]) -> FloatArray:
    """First and last row and column of each geometry within the scene, shape ``(n, 4)``."""
    to_pixels = ~scene.transform
    points, owners = shapely.get_coordinates(geometries, return_index=True)
    columns = to_pixels.a * points[:, 0] + to_pixels.b * points[:, 1] + to_pixels.c
    rows = to_pixels.d * points[:, 0] + to_pixels.e * points[:, 1] + to_pixels.f
    starts = np.searchsorted(owners, np.arange(len(geometries)))
    boxes = np.column_stack(
        [
            extreme.reduceat(values, starts)
            for values in (rows, columns)
            for extreme in (np.minimum, np.maximum)
        ]
    )
    height, width = scene.shape
    return np.asarray(np.clip(boxes, 0, [height, height, width, width]), dtype=np.float64)


def grid_origins(length: int, chip_px: int, stride_px: int) -> list[int]:
    """Origins of chips along an axis of ``length`` pixels; the last chip ends at its end."""
    if length <= chip_px:
        return [0]
    last = length - chip_px
    return [*range(0, last, stride_px), last]


def _centered(scene: Image, box: FloatArray, chip_px: int) -> Window:
    """A tile centered on a box as far as the scene reaches."""
    (height, width), (top, bottom, left, right) = scene.shape, box
    row = int(np.clip(round((top + bottom - chip_px) / 2), 0, max(0, height - chip_px)))
    column = int(np.clip(round((left + right - chip_px) / 2), 0, max(0, width - chip_px)))
    return Window(row, column, min(height, chip_px), min(width, chip_px))
