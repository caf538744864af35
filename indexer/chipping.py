"""Which chips an image is cut into, and which parcels each of them serves.

A chip is what the encoder sees at once: 120 x 120 px. Chips lie on a fixed grid of the scene, so
that a parcel's vector depends on the scene and the parcel, never on the other parcels of a run.
Without parcels, an image is one chip and its own parcel, or is cut into windows that are parcels.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from indexer.parcels.coverage import to_crs
from indexer.parcels.parcel import JsonScalar, Parcel, geodesic_area_m2

STRIDE_PX = 60
"""Distance of neighboring chips: a parcel up to 600 m wide lies whole in one of them."""

_LON_LAT = CRS.from_epsg(4326)
# Points along each edge when a scene's outline is brought to longitude and latitude.
_DENSIFY = 21


@dataclass(frozen=True)
class Target:
    """A parcel in a chip."""

    parcel: Parcel
    geometry: BaseGeometry | None
    """The parcel in the scene's reference system; None where the whole chip is the parcel."""


@dataclass(frozen=True)
class ChipPlan:
    """A window of a scene and the parcels that one forward pass over it serves."""

    row: int
    column: int
    height: int
    width: int
    targets: tuple[Target, ...]


def whole_image(scene: Image, collection: str) -> ChipPlan:
    """Take a whole file as one chip and its footprint as the parcel.

    Raises:
        ImageryError: If the file is far larger than a chip (``too-large``).
    """
    height, width = scene.shape
    if max(height, width) > MAX_CHIP_PX:
        raise ImageryError(
            f"{scene.source.path}: {height} x {width} px is a scene, not a chip (at most "
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
        _own_parcel(scene, collection, f"{name}-r{row:05}-c{column:05}", row, column, *size)
        for row in grid_origins(height, side_px, side_px)
        for column in grid_origins(width, side_px, side_px)
    ]


def count_windows(scene: Image, side_px: int) -> int:
    """Windows that an image is cut into."""
    rows, columns = (len(grid_origins(length, side_px, side_px)) for length in scene.shape)
    return rows * columns


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


class ParcelFinder:
    """Finds the parcels that a scene shows, by a spatial tree over all parcels."""

    def __init__(self, parcels: Sequence[Parcel]) -> None:
        self._parcels = parcels
        self._tree = shapely.STRtree([parcel.geometry for parcel in parcels])
        self.seen: set[str] = set()
        """Ids of the parcels that some scene showed."""

    def plan(self, scene: Image, pooling: Pooling, chip_px: int) -> list[ChipPlan]:
        """Assign every parcel in view to a chip.

        Raises:
            ImageryError: If the scene has no reference system (``no-crs``).
        """
        footprint = footprint_lon_lat(scene)
        if footprint is None or scene.crs is None:
            raise ImageryError(
                f"{scene.source.path}: it has no CRS that leads to longitude and latitude, so "
                "parcels cannot be found on it; "
                "georeference it, or leave --parcels away to take each file as one parcel.",
                kind="no-crs",
            )
        targets = list(self._in_view(scene, footprint))
        self.seen.update(target.parcel.parcel_id for target in targets)
        chips: dict[tuple[int, int], list[Target]] = defaultdict(list)
        for target, corner in zip(targets, _corners(scene, targets, pooling, chip_px), strict=True):
            chips[corner].append(target)
        height, width = (min(side, chip_px) for side in scene.shape)
        return [
            ChipPlan(row, column, height, width, tuple(chips[row, column]))
            for row, column in sorted(chips)
        ]

    def unseen(self) -> list[Parcel]:
        """Parcels that no scene showed so far."""
        return [parcel for parcel in self._parcels if parcel.parcel_id not in self.seen]

    def _in_view(self, scene: Image, footprint: shapely.Polygon) -> Iterator[Target]:
        extent = shapely.box(*scene.bounds)
        for position in sorted(self._tree.query(footprint, predicate="intersects")):
            parcel = self._parcels[position]
            if parcel.geometry is None or scene.crs is None:
                continue
            geometry = to_crs(parcel.geometry, scene.crs)
            if geometry.intersection(extent).area > 0:
                yield Target(parcel, geometry)


def _corners(
    scene: Image, targets: Sequence[Target], pooling: Pooling, chip_px: int
) -> list[tuple[int, int]]:
    """First row and column of the chip for each parcel; the chip shows some of it."""
    place = _centered_windows if pooling == "image" else _grid_windows
    extent = shapely.box(*scene.bounds)
    visible = [shapely.intersection(target.geometry, extent) for target in targets]
    corners = place(scene, _pixel_boxes(scene, visible), chip_px)
    for number, part in enumerate(visible):
        if not _shows(scene, corners[number], part, chip_px):
            # Parts far from each other, or a long bend: nothing lies in their middle.
            inside = _pixel_boxes(scene, [part.representative_point()])
            (corners[number],) = place(scene, inside, chip_px)
    return corners


def _shows(scene: Image, corner: tuple[int, int], geometry: BaseGeometry, chip_px: int) -> bool:
    row, column = corner
    pixels = [
        (column + x * chip_px, row + y * chip_px) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))
    ]
    chip = shapely.Polygon([scene.transform @ pixel for pixel in pixels])
    return bool(geometry.intersection(chip).area > 0)


def _pixel_boxes(scene: Image, geometries: Sequence[BaseGeometry]) -> npt.NDArray[np.float64]:
    """First and last row and column of each geometry within the scene, shape ``(n, 4)``."""
    to_pixels = ~scene.transform
    boxes = np.empty((len(geometries), 4))
    for number, geometry in enumerate(geometries):
        points = shapely.get_coordinates(geometry)
        columns = to_pixels.a * points[:, 0] + to_pixels.b * points[:, 1] + to_pixels.c
        rows = to_pixels.d * points[:, 0] + to_pixels.e * points[:, 1] + to_pixels.f
        boxes[number] = rows.min(), rows.max(), columns.min(), columns.max()
    height, width = scene.shape
    return np.clip(boxes, 0, [height, height, width, width])


def _grid_windows(
    scene: Image, boxes: npt.NDArray[np.float64], chip_px: int
) -> list[tuple[int, int]]:
    """The grid chip that holds most of each box; among equals, the one centered nearest."""
    rows = _best_origins(boxes[:, 0], boxes[:, 1], scene.shape[0], chip_px)
    columns = _best_origins(boxes[:, 2], boxes[:, 3], scene.shape[1], chip_px)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _best_origins(
    first: npt.NDArray[np.float64], last: npt.NDArray[np.float64], length: int, chip_px: int
) -> npt.NDArray[np.int64]:
    """Along one axis, the origin of the grid chip for each interval, shape ``(n,)``."""
    origins = np.array(grid_origins(length, chip_px))
    held = np.minimum(last[:, None], origins + chip_px) - np.maximum(first[:, None], origins)
    off_center = np.abs((first + last)[:, None] / 2 - (origins + chip_px / 2))
    # Most of the parcel first; the distance only decides between chips that hold as much.
    preference = np.round(held, 6) - off_center / (10 * max(length, chip_px)) * 1e-3
    best: npt.NDArray[np.int64] = origins[preference.argmax(axis=1)]
    return best


def grid_origins(length: int, chip_px: int, stride_px: int = STRIDE_PX) -> list[int]:
    """Origins of chips along an axis of ``length`` pixels; the last chip ends at its end."""
    if length <= chip_px:
        return [0]
    last = length - chip_px
    return [*range(0, last, stride_px), last]


def _centered_windows(
    scene: Image, boxes: npt.NDArray[np.float64], chip_px: int
) -> list[tuple[int, int]]:
    """A chip of its own for each box, centered on it as far as the scene reaches."""
    height, width = scene.shape
    corners: list[tuple[int, int]] = []
    for top, bottom, left, right in boxes:
        row = int(np.clip(round((top + bottom - chip_px) / 2), 0, max(0, height - chip_px)))
        column = int(np.clip(round((left + right - chip_px) / 2), 0, max(0, width - chip_px)))
        corners.append((row, column))
    return corners
