from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from shapely import MultiPolygon, Polygon, box

from indexer.chipping import (
    MAX_VIEW_PX,
    ChipPlan,
    ParcelFinder,
    View,
    footprint_lon_lat,
    grid_origins,
    image_windows,
    stride_px,
    whole_image,
)
from indexer.embedding_space import Pooling
from indexer.errors import ImageryError
from indexer.imagery.reader import MAX_CHIP_PX, Scene
from indexer.imagery.sources import ImageSource
from indexer.parcels.parcel import Parcel
from tests.synthetic import TRANSFORM, UTM_31

CHIP_PX = 120
STRIDE_PX = 88
OVERLAP_PX = CHIP_PX - STRIDE_PX
POOLINGS: list[Pooling] = ["parcel", "image"]

# First row, first column, height and width in pixels.
Box = tuple[float, float, float, float]


def make_scene(
    height: int = 480,
    width: int = 480,
    crs: CRS | None = UTM_31,
    transform: Affine = TRANSFORM,
    class_name: str | None = None,
) -> Scene:
    """A scene of which only the header exists."""
    path = Path("scene.tif")
    return Scene(
        source=ImageSource("scene", path, ((None, path),), class_name),
        layers=(),
        scl=None,
        shape=(height, width),
        transform=transform,
        crs=crs,
        acquired_at=None,
        processing_baseline=None,
    )


def polygon_at(pixels: Box, crs: CRS = UTM_31, transform: Affine = TRANSFORM) -> Polygon:
    """A rectangle of pixels in longitude and latitude."""
    row, column, height, width = pixels
    corners = [(column, row), (column + width, row)]
    corners += [(column + width, row + height), (column, row + height)]
    x, y = np.array([transform @ corner for corner in corners]).T
    to_lon_lat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    return Polygon(np.column_stack(to_lon_lat.transform(x, y)))


def parcel_of(geometry: Polygon | MultiPolygon, parcel_id: str = "1") -> Parcel:
    return Parcel("test", parcel_id, geometry)


def parcels_at(*boxes: Box) -> list[Parcel]:
    """Parcels 0, 1, 2, ... of these pixels."""
    return [parcel_of(polygon_at(pixels), str(number)) for number, pixels in enumerate(boxes)]


def plan(scene: Scene, parcels: list[Parcel], pooling: Pooling = "parcel") -> list[ChipPlan]:
    return list(ParcelFinder(parcels).plan(scene, pooling, CHIP_PX))


def view(scene: Scene, parcel: Parcel) -> View:
    """The tiles of a parcel that no single one holds."""
    (found,) = [view for chip in plan(scene, [parcel]) for view in chip.views]
    return found


def corners_of(plans: Iterable[ChipPlan]) -> dict[str, tuple[int, int]]:
    """First row and column of the chip that serves each parcel."""
    return {
        target.parcel.parcel_id: (chip.row, chip.column)
        for chip in plans
        for target in chip.targets
    }


def tiles_of(plans: list[ChipPlan]) -> dict[str, list[tuple[int, int]]]:
    """First row and column of each tile of each parcel."""
    tiles = {parcel_id: [corner] for parcel_id, corner in corners_of(plans).items()}
    for chip in plans:
        for view in chip.views:
            corners = [(part.tile.row, part.tile.column) for part in view.parts]
            tiles[view.target.parcel.parcel_id] = corners
    return tiles


def area_shown(scene: Scene, chip: ChipPlan) -> float:
    """Square meters of the chip's parcels that lie in the chip."""
    west, north = scene.transform @ (chip.column, chip.row)
    east, south = scene.transform @ (chip.column + chip.width, chip.row + chip.height)
    window = box(west, south, east, north)
    shown = shapely.intersection([target.geometry for target in chip.targets], window)
    return float(shapely.area(shown).sum())


sides = st.integers(CHIP_PX, 700)


@st.composite
def boxes_within(draw: st.DrawFn, height: int, width: int, largest_px: float) -> Box:
    """A rectangle inside of a scene, at most ``largest_px`` high and wide."""
    high, wide = (draw(st.floats(0.5, largest_px, width=16)) for _ in range(2))
    row = draw(st.floats(0, height - high))
    column = draw(st.floats(0, width - wide))
    return row, column, high, wide


# The grid of chips


@given(st.integers(1, 3000))
def test_the_grid_covers_an_axis_from_its_beginning_to_its_end(length: int) -> None:
    origins = grid_origins(length, CHIP_PX, STRIDE_PX)
    assert origins[0] == 0
    assert origins[-1] == max(0, length - CHIP_PX)
    assert (np.diff(origins) > 0).all()
    assert (np.diff(origins) <= STRIDE_PX).all()


def test_the_grid_of_a_known_length() -> None:
    assert grid_origins(296, CHIP_PX, STRIDE_PX) == [0, 88, 176]
    assert grid_origins(297, CHIP_PX, STRIDE_PX) == [0, 88, 176, 177]


def test_a_tile_of_half_the_pixels_has_half_the_stride() -> None:
    assert stride_px(120) == STRIDE_PX
    assert stride_px(60) == 44


@pytest.mark.parametrize("length", [1, 119, 120])
def test_an_axis_no_longer_than_a_chip_has_one(length: int) -> None:
    assert grid_origins(length, CHIP_PX, STRIDE_PX) == [0]


# Parcel pooling


@settings(max_examples=60)
@given(st.data())
def test_a_parcel_up_to_320_m_wide_lies_whole_in_its_chip(data: st.DataObject) -> None:
    height, width = data.draw(sides), data.draw(sides)
    row, column, high, wide = pixels = data.draw(boxes_within(height, width, OVERLAP_PX))
    (chip,) = plan(make_scene(height, width), parcels_at(pixels))
    # A thousandth of a pixel, 1 cm, is for the way to degrees and back.
    assert chip.row <= row + 1e-3
    assert row + high <= chip.row + chip.height + 1e-3
    assert chip.column <= column + 1e-3
    assert column + wide <= chip.column + chip.width + 1e-3


@settings(max_examples=60)
@given(st.data())
def test_every_chip_lies_inside_the_scene(data: st.DataObject) -> None:
    height, width = data.draw(sides), data.draw(sides)
    boxes = data.draw(st.lists(boxes_within(height, width, 115.0), min_size=1, max_size=5))
    pooling = data.draw(st.sampled_from(POOLINGS))
    for chip in plan(make_scene(height, width), parcels_at(*boxes), pooling):
        assert (chip.height, chip.width) == (CHIP_PX, CHIP_PX)
        assert 0 <= chip.row <= height - CHIP_PX
        assert 0 <= chip.column <= width - CHIP_PX


@settings(max_examples=60)
@given(st.data())
def test_the_chip_of_a_parcel_does_not_depend_on_the_other_parcels(data: st.DataObject) -> None:
    boxes = data.draw(st.lists(boxes_within(300, 400, 115.0), min_size=2, max_size=6))
    pooling = data.draw(st.sampled_from(POOLINGS))
    scene, parcels = make_scene(300, 400), parcels_at(*boxes)
    together = tiles_of(plan(scene, parcels, pooling))
    assert together.keys() == {parcel.parcel_id for parcel in parcels}
    for parcel in parcels:
        assert tiles_of(plan(scene, [parcel], pooling)) == {
            parcel.parcel_id: together[parcel.parcel_id]
        }


def test_neighbors_share_a_chip() -> None:
    (chip,) = plan(make_scene(), parcels_at((10, 10, 20, 20), (40, 50, 10, 30)))
    assert (chip.row, chip.column) == (0, 0)
    assert [target.parcel.parcel_id for target in chip.targets] == ["0", "1"]


def test_of_two_chips_that_hold_a_parcel_whole_the_nearer_one_serves_it() -> None:
    # Chips begin at 0, 88, 176, ...; those at 0 and 88 both hold rows 88 to 120, whose middle
    # is 104, halfway between their centers at 60 and 148.
    scene = make_scene()
    assert corners_of(plan(scene, parcels_at((90, 0, 20, 20))))["0"] == (0, 0)
    assert corners_of(plan(scene, parcels_at((98, 0, 20, 20))))["0"] == (88, 0)


# Parcels in several tiles


def test_a_long_parcel_is_looked_at_in_the_tiles_that_show_it() -> None:
    # Rows 50 to 150: the tile at 0 reaches to 120, that at 88 to 208. They meet halfway in what
    # they share, at 104.
    chips = plan(make_scene(), parcels_at((50, 0, 100, 20)))
    assert [(chip.row, chip.column) for chip in chips] == [(0, 0), (88, 0)]
    assert [len(chip.targets) for chip in chips] == [0, 0]
    (found,) = chips[0].views
    assert [(part.tile.row, part.cell.row, part.cell.bottom) for part in found.parts] == [
        (0, 0, 104),
        (88, 104, 192),
    ]
    assert (found.window.row, found.window.bottom) == (0, 208)
    assert chips[1].views == ()


@settings(max_examples=60)
@given(st.data())
def test_the_parts_of_a_parcel_are_all_of_it_and_share_nothing(data: st.DataObject) -> None:
    height, width = data.draw(sides), data.draw(sides)
    scene = make_scene(height, width)
    pixels = data.draw(boxes_within(height, width, float(min(height, width))))
    plans = plan(scene, parcels_at(pixels))
    for found in (view for chip in plans for view in chip.views):
        row, column, high, wide = pixels
        cells = [
            box(part.cell.column, part.cell.row, part.cell.right, part.cell.bottom)
            for part in found.parts
        ]
        shown = shapely.intersection(cells, box(column, row, column + wide, row + high))
        assert shapely.area(shown).sum() == pytest.approx(high * wide, abs=2e-3 * (high + wide))
        assert shapely.union_all(cells).area == pytest.approx(shapely.area(cells).sum())
        for part in found.parts:
            assert part.tile.row <= part.cell.row < part.cell.bottom <= part.tile.bottom
            assert part.tile.column <= part.cell.column < part.cell.right <= part.tile.right
            assert (part.tile.height, part.tile.width) == (CHIP_PX, CHIP_PX)


def test_tiles_that_show_nothing_of_a_bent_parcel_are_left_out() -> None:
    # A frame along the edges of 3 x 3 tiles: the tile in the middle shows none of it.
    frame = polygon_at((0, 0, 296, 296)).difference(polygon_at((20, 20, 256, 256)))
    found = view(make_scene(296, 296), parcel_of(frame))
    assert {(part.tile.row, part.tile.column) for part in found.parts} == {
        (row, column)
        for row in (0, 88, 176)
        for column in (0, 88, 176)
        if (row, column) != (88, 88)
    }


def test_of_a_parcel_far_larger_than_a_tile_the_pixels_around_a_point_inside_are_looked_at() -> (
    None
):
    scene = make_scene(4000, 300)
    chips = plan(scene, parcels_at((0, 0, 4000, 100)))
    (found,) = [view for chip in chips for view in chip.views]
    assert found.window.row <= 2000 <= found.window.bottom
    assert found.window.height <= MAX_VIEW_PX + 2 * CHIP_PX
    assert len(chips) == len(found.parts)


def test_neighbors_share_the_tiles_of_a_large_parcel() -> None:
    chips = plan(make_scene(), parcels_at((50, 0, 100, 20), (10, 30, 20, 20), (150, 30, 20, 20)))
    assert [(chip.row, chip.column) for chip in chips] == [(0, 0), (88, 0)]
    assert corners_of(chips) == {"1": (0, 0), "2": (88, 0)}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_parcel_cut_by_the_edge_is_served_by_a_chip_at_the_edge(pooling: Pooling) -> None:
    scene = make_scene()
    finder = ParcelFinder(parcels_at((-30, 465, 40, 40)))
    (chip,) = finder.plan(scene, pooling, CHIP_PX)
    assert (chip.row, chip.column) == (0, 360)
    assert finder.unseen() == []
    # 10 rows and 15 columns of 10 m lie inside; the parcel keeps what lies outside.
    assert area_shown(scene, chip) == pytest.approx(100 * 150, rel=1e-4)
    (target,) = chip.targets
    assert target.geometry is not None
    assert target.geometry.area == pytest.approx(400 * 400, rel=1e-4)


def test_the_own_chip_of_a_parcel_of_distant_parts_shows_one() -> None:
    scene = make_scene()
    parts = MultiPolygon([polygon_at((20, 20, 10, 10)), polygon_at((440, 440, 20, 20))])
    (chip,) = plan(scene, [parcel_of(parts)], "image")
    assert area_shown(scene, chip) > 0
    # On the grid, each part has its tile.
    found = view(scene, parcel_of(parts))
    assert [(part.tile.row, part.tile.column) for part in found.parts] == [(0, 0), (360, 360)]


def test_the_own_chip_of_a_parcel_around_the_middle_of_a_scene_shows_some() -> None:
    scene = make_scene()
    ring = polygon_at((20, 20, 440, 440)).difference(polygon_at((30, 30, 420, 420)))
    (chip,) = plan(scene, [parcel_of(ring)], "image")
    assert area_shown(scene, chip) > 0


@pytest.mark.parametrize("pooling", POOLINGS)
def test_only_the_part_inside_of_the_scene_decides_about_the_chip(pooling: Pooling) -> None:
    # An angle whose long arm passes by outside; its short one reaches in at the lower left.
    angle = shapely.union(polygon_at((0, -40, 480, 20)), polygon_at((450, -40, 20, 50)))
    (chip,) = plan(make_scene(), [parcel_of(angle)], pooling)
    assert (chip.row, chip.column) == (360, 0)


# Image pooling


def test_a_chip_of_its_own_is_centered_on_each_parcel() -> None:
    parcels = parcels_at((190, 290, 20, 20), (200, 300, 20, 20))
    plans = plan(make_scene(), parcels, "image")
    # Centers at 200, 300 and 210, 310; a chip begins 60 pixels before.
    assert corners_of(plans) == {"0": (140, 240), "1": (150, 250)}
    assert [len(chip.targets) for chip in plans] == [1, 1]


def test_near_the_edge_the_chip_moves_in() -> None:
    parcels = parcels_at((5, 470, 4, 4), (473, 3, 4, 4))
    assert corners_of(plan(make_scene(), parcels, "image")) == {"0": (0, 360), "1": (360, 0)}


# Small and large scenes


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (119, 300), (300, 64)])
def test_a_scene_smaller_than_a_chip_is_taken_as_far_as_it_reaches(
    shape: tuple[int, int], pooling: Pooling
) -> None:
    height, width = shape
    (chip,) = plan(make_scene(height, width), parcels_at((0, 0, 1, 1)), pooling)
    assert (chip.row, chip.column) == (0, 0)
    assert (chip.height, chip.width) == (min(height, CHIP_PX), min(width, CHIP_PX))


def test_an_image_may_be_a_parcel_of_its_own() -> None:
    chip = whole_image(make_scene(120, 120, class_name="Maize"), "chips")
    assert (chip.row, chip.column, chip.height, chip.width) == (0, 0, 120, 120)
    (target,) = chip.targets
    assert target.geometry is None
    parcel = target.parcel
    assert (parcel.collection, parcel.parcel_id, parcel.crop_name) == ("chips", "scene", "Maize")
    assert parcel.geometry is not None
    outline = polygon_at((0, 0, 120, 120))
    # Its edges are bent by a few centimeters between the corners.
    assert parcel.geometry.symmetric_difference(outline).area < 1e-4 * outline.area
    # 1.2 km x 1.2 km on the map, where the central meridian is shrunk by 0.9996.
    assert parcel.area_m2 == pytest.approx(1200**2 / 0.9996**2, rel=1e-6)


@pytest.mark.parametrize("shape", [(MAX_CHIP_PX + 1, 10), (10, MAX_CHIP_PX + 1)])
def test_a_large_scene_needs_parcels(shape: tuple[int, int]) -> None:
    with pytest.raises(ImageryError, match="give --parcels") as caught:
        whole_image(make_scene(*shape), "chips")
    assert caught.value.kind == "too-large"


# Windows


def test_an_image_is_cut_into_windows_that_are_parcels() -> None:
    plans = image_windows(make_scene(240, 360, class_name="Maize"), "flights", 120)
    assert [(plan.row, plan.column, plan.height, plan.width) for plan in plans] == [
        (row, column, 120, 120) for row in (0, 120) for column in (0, 120, 240)
    ]
    (target,) = plans[-1].targets
    assert target.geometry is None
    parcel = target.parcel
    assert (parcel.collection, parcel.parcel_id) == ("flights", "scene-120px-r00120-c00240")
    assert parcel.crop_name == "Maize"
    assert parcel.attributes == {"window_row": 120, "window_column": 240, "window_px": 120}
    assert parcel.geometry is not None
    outline = polygon_at((120, 240, 120, 120))
    assert parcel.geometry.symmetric_difference(outline).area < 1e-4 * outline.area


def test_the_last_windows_end_where_the_image_ends() -> None:
    plans = image_windows(make_scene(100, 130), "flights", 60)
    assert len(plans) == 6
    assert [(plan.row, plan.column) for plan in plans] == [
        (row, column) for row in (0, 40) for column in (0, 60, 70)
    ]
    assert all((plan.height, plan.width) == (60, 60) for plan in plans)


def test_an_image_that_is_narrower_than_a_window_is_taken_as_far_as_it_reaches() -> None:
    plans = image_windows(make_scene(40, 130), "flights", 60)
    assert {(plan.height, plan.width) for plan in plans} == {(40, 60)}
    (whole,) = image_windows(make_scene(40, 50), "flights", 60)
    assert (whole.height, whole.width) == (40, 50)


@given(st.integers(1, 500), st.integers(8, 200))
def test_windows_cover_every_pixel(length: int, side_px: int) -> None:
    origins = grid_origins(length, side_px, side_px)
    covered = {pixel for origin in origins for pixel in range(origin, origin + side_px)}
    assert covered >= set(range(length))
    assert length < side_px or max(covered) == length - 1
    assert len(origins) == max(1, -(-length // side_px))


def test_a_window_without_a_reference_system_has_no_geometry() -> None:
    plans = image_windows(make_scene(64, 64, crs=None), "flights", 32)
    assert [plan.targets[0].parcel.geometry for plan in plans] == [None] * 4


# Parcels that are not there


def test_a_parcel_that_no_scene_shows_is_reported() -> None:
    finder = ParcelFinder(parcels_at((10, 10, 20, 20), (10, 490, 20, 20), (900, 900, 20, 20)))
    plans = finder.plan(make_scene(), "parcel", CHIP_PX)
    assert corners_of(plans) == {"0": (0, 0)}
    assert [parcel.parcel_id for parcel in finder.unseen()] == ["1", "2"]

    east = make_scene(transform=TRANSFORM @ Affine.translation(480, 0))
    assert corners_of(finder.plan(east, "parcel", CHIP_PX)) == {"1": (0, 0)}
    assert [parcel.parcel_id for parcel in finder.unseen()] == ["2"]


def test_a_scene_without_parcels_has_no_chips() -> None:
    assert plan(make_scene(), parcels_at((900, 900, 20, 20))) == []


# Reference systems

LOCAL_GRID = CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]')


@pytest.mark.parametrize("crs", [None, LOCAL_GRID], ids=["none", "local"])
def test_without_a_way_to_degrees_an_image_is_a_parcel_without_geometry(crs: CRS | None) -> None:
    chip = whole_image(make_scene(64, 64, crs=crs), "chips")
    (target,) = chip.targets
    assert target.parcel.geometry is None
    assert target.parcel.area_m2 is None


@pytest.mark.parametrize("crs", [None, LOCAL_GRID], ids=["none", "local"])
def test_without_a_way_to_degrees_parcels_cannot_be_found(crs: CRS | None) -> None:
    with pytest.raises(ImageryError, match=r"scene\.tif: it has no CRS") as caught:
        plan(make_scene(crs=crs), parcels_at((0, 0, 10, 10)))
    assert caught.value.kind == "no-crs"


def test_a_scene_beyond_the_reach_of_its_reference_system_has_no_footprint() -> None:
    nowhere = Affine(10, 0, 9e9, 0, -10, 9e9)
    assert footprint_lon_lat(make_scene(transform=nowhere)) is None


def test_a_scene_in_degrees_is_planned_like_any_other() -> None:
    # About 10 m: pixels are not square in degrees.
    degrees = Affine(0.00012, 0, 2.8, 0, -0.00009, 42.4)
    lon_lat = CRS.from_epsg(4326)
    scene = make_scene(crs=lon_lat, transform=degrees)
    geometry = polygon_at((190, 290, 20, 20), lon_lat, degrees)
    (chip,) = plan(scene, [parcel_of(geometry)], "image")
    assert (chip.row, chip.column) == (140, 240)
    (target,) = chip.targets
    assert target.geometry is not None
    assert target.geometry.equals_exact(geometry, 1e-12)


def test_scenes_of_two_zones_show_the_same_parcel_each_in_its_own_system() -> None:
    # On the border of UTM zones 31 and 32, at 6 degrees east.
    parcel = parcel_of(box(6.000, 45.000, 6.002, 45.002))
    finder = ParcelFinder([parcel])
    for epsg in (32631, 32632):
        crs = CRS.from_epsg(epsg)
        to_map = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
        x, y = to_map.transform(6.001, 45.001)
        # The parcel's center lies in row 250 and column 230.
        scene = make_scene(crs=crs, transform=Affine(10, 0, x - 2300, 0, -10, y + 2500))
        (chip,) = finder.plan(scene, "image", CHIP_PX)
        assert (chip.row, chip.column) == (190, 170)
        (target,) = chip.targets
        assert target.geometry is not None
        assert target.geometry.centroid.distance(shapely.Point(x, y)) < 1


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_parcel_whose_outline_crosses_itself_in_the_scene_is_shown(pooling: Pooling) -> None:
    # An edge of 3.9 km along a parallel, of which a straight line in UTM lies 0.3 m to the north
    # halfway. There the lowest corner of the hole is 2 cm north of the parallel.
    edge, middle = 45.0, 3.025
    hole = [(middle, edge + 2e-7), (middle + 0.005, edge + 0.005), (middle - 0.005, edge + 0.005)]
    parcel = Polygon([(3.0, edge), (3.05, edge), (3.05, edge + 0.01), (3.0, edge + 0.01)], [hole])
    assert parcel.is_valid
    to_map = pyproj.Transformer.from_crs(4326, UTM_31, always_xy=True)
    x, y = to_map.transform(3.0, edge + 0.01)
    scene = make_scene(transform=Affine(10, 0, x - 100, 0, -10, y + 100))
    plans = plan(scene, [parcel_of(parcel)], pooling)
    targets = [one for chip in plans for one in chip.targets]
    targets += [view.target for chip in plans for view in chip.views]
    (target,) = targets
    assert target.geometry is not None
    assert target.geometry.is_valid
    outline = shapely.transform(parcel, lambda points: np.column_stack(to_map.transform(*points.T)))
    assert not outline.is_valid
    # The hole's corner beyond the edge is a triangle of a few square decimeters.
    assert target.geometry.area == pytest.approx(outline.area, abs=1)


# rasterio 1.4 multiplies rotated transforms in a way that affine 3 means to end some day.
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_a_rotated_scene_shows_what_lies_on_it() -> None:
    rotated = TRANSFORM @ Affine.rotation(30)
    inside = polygon_at((200, 300, 20, 20), transform=rotated)
    scene = make_scene(transform=rotated)
    (chip,) = plan(scene, [parcel_of(inside)])
    assert chip.row <= 200 <= 220 <= chip.row + CHIP_PX
    assert chip.column <= 300 <= 320 <= chip.column + CHIP_PX
