import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import array_bounds
from shapely import MultiPolygon, Point, Polygon, affinity, box

from indexer.parcels.coverage import (
    HasWkt,
    coverage,
    coverages,
    covered_fractions,
    inner_buffers,
    to_crs,
)

FloatArray = npt.NDArray[np.float32]

UTM = CRS.from_epsg(32631)
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_300_000)


def polygon_of(corners: list[tuple[float, float]], transform: Affine) -> Polygon:
    """A polygon given in columns and rows, in map coordinates."""
    a, b, c, d, e, f = transform[:6]
    return Polygon([(a * x + b * y + c, d * x + e * y + f) for x, y in corners])


def rectangle(
    left: float, top: float, right: float, bottom: float, transform: Affine = NORTH_UP
) -> Polygon:
    """A rectangle given in columns and rows, in map coordinates."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return polygon_of(corners, transform)


def assert_covered(covered: FloatArray, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(covered, np.array(expected), atol=1e-6)


def test_a_polygon_along_pixel_borders_covers_whole_pixels_only() -> None:
    covered = coverage(rectangle(1, 1, 3, 2), NORTH_UP, (3, 4))
    expected = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(covered, expected)
    assert covered.dtype == np.float32


def test_half_pixels_count_half() -> None:
    covered = coverage(rectangle(0.5, 0.5, 2, 2), NORTH_UP, (2, 3))
    assert_covered(covered, [[0.25, 0.5, 0], [0.5, 1, 0]])


def test_a_triangle_covers_half_of_its_diagonal_pixels() -> None:
    triangle = polygon_of([(0, 0), (0, 2), (2, 2)], NORTH_UP)
    assert_covered(coverage(triangle, NORTH_UP, (2, 2)), [[0.5, 0], [1, 0.5]])


def test_a_polygon_over_everything_covers_every_pixel_exactly_once() -> None:
    covered = coverage(rectangle(-3, -2, 30, 20), NORTH_UP, (12, 15))
    assert (covered == 1).all()


def test_a_polygon_as_large_as_the_grid_covers_every_pixel_exactly_once() -> None:
    covered = coverage(box(*array_bounds(12, 15, NORTH_UP)), NORTH_UP, (12, 15))
    assert (covered == 1).all()


def test_a_polygon_cut_by_the_edge_covers_what_lies_inside() -> None:
    covered = coverage(rectangle(-1, -1, 1.5, 1), NORTH_UP, (2, 3))
    assert_covered(covered, [[1, 0.5, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    "elsewhere",
    [
        rectangle(50, 50, 60, 60),
        rectangle(-9, -9, 0, 0),
        Polygon(),
        Polygon([(np.inf, np.inf), (np.inf, 0), (0, 0)]),
    ],
    ids=["apart", "touching a corner", "empty", "not finite"],
)
def test_a_polygon_elsewhere_covers_nothing(elsewhere: Polygon) -> None:
    covered = coverage(elsewhere, NORTH_UP, (3, 4))
    assert covered.shape == (3, 4)
    assert not covered.any()


def test_a_polygon_smaller_than_a_pixel_keeps_its_area() -> None:
    covered = coverage(rectangle(1.4, 2.4, 1.5, 2.6), NORTH_UP, (4, 4))
    assert covered[2, 1] == pytest.approx(0.02)
    assert np.count_nonzero(covered) == 1


def test_a_hole_is_not_covered() -> None:
    holed = rectangle(0, 0, 3, 3) - rectangle(1, 1, 2, 1.5)
    covered = coverage(holed, NORTH_UP, (3, 3))
    assert_covered(covered, [[1, 1, 1], [1, 0.5, 1], [1, 1, 1]])


def test_the_parts_of_a_multipolygon_are_all_covered() -> None:
    parts = MultiPolygon([rectangle(0, 0, 1, 1), rectangle(2, 1, 2.5, 2)])
    assert_covered(coverage(parts, NORTH_UP, (2, 3)), [[1, 0, 0], [0, 0, 0.5]])


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 500_000, 0, -20, 5_300_000),
        Affine(1e-4, 0, 2.0, 0, -7e-5, 48.0),
        Affine(10, 0, 500_000, 0, 10, 5_300_000),
        Affine(8, 9, 500_000, 6, -12, 5_300_000),
    ],
    ids=["not square", "degrees", "south-up", "rotated"],
)
def test_rows_and_columns_are_right_on_any_grid(transform: Affine) -> None:
    covered = coverage(rectangle(1, 0, 2.5, 1, transform), transform, (2, 4))
    assert_covered(covered, [[0, 1, 0.5, 0], [0, 0, 0, 0]])


@given(
    seed=st.integers(0, 10_000),
    radius=st.floats(0.05, 12),
    column=st.floats(-4, 16),
    row=st.floats(-4, 12),
    pixel=st.tuples(st.floats(0.5, 30), st.floats(0.5, 30)),
)
def test_covered_area_equals_the_area_of_the_intersection(
    seed: int, radius: float, column: float, row: float, pixel: tuple[float, float]
) -> None:
    height, width = 8, 12
    transform = Affine(pixel[0], 0, 500_000, 0, -pixel[1], 5_300_000)
    # A star around a center is simple whatever its radii.
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9)) + 1e-3 * np.arange(9)
    radii = radius * rng.uniform(0.3, 1, 9)
    columns, rows = column + radii * np.cos(angles), row + radii * np.sin(angles)
    star = shapely.make_valid(polygon_of(list(zip(columns, rows, strict=True)), transform))
    expected = star.intersection(box(*array_bounds(height, width, transform))).area

    covered = coverage(star, transform, (height, width))

    assert covered.min() >= 0
    assert covered.max() <= 1
    pixel_area = pixel[0] * pixel[1]
    assert float(covered.sum(dtype=np.float64)) * pixel_area == pytest.approx(
        expected, rel=1e-5, abs=1e-5 * pixel_area
    )


def test_many_polygons_are_covered_as_each_of_them_is() -> None:
    transform = Affine(8, 9, 500_000, 6, -12, 5_300_000)
    polygons = [
        rectangle(1, 0, 2.5, 1, transform),
        Polygon(),
        rectangle(-3, -2, 30, 20, transform),
        Polygon([(np.inf, np.inf), (np.inf, 0), (0, 0)]),
        MultiPolygon([rectangle(0, 0, 0.3, 1, transform), rectangle(3.1, 4.2, 5, 4.7, transform)]),
    ]
    parts = list(coverages(polygons, transform, (6, 7)))
    assert len(parts) == len(polygons)
    for part, polygon in zip(parts, polygons, strict=True):
        covered = np.zeros((6, 7), dtype=np.float32)
        covered[part.rows, part.columns] = part.share
        np.testing.assert_array_equal(covered, coverage(polygon, transform, (6, 7)))


def test_no_polygons_cover_nothing() -> None:
    assert list(coverages([], NORTH_UP, (3, 4))) == []
    assert covered_fractions([], box(0, 0, 1, 1)).shape == (0,)
    assert inner_buffers([], UTM, 5) == []


def test_covered_fractions_are_shares_of_the_polygons_not_of_the_image() -> None:
    polygons = [box(0, 0, 4, 1), Polygon(), box(3, 0, 4, 1), box(3, -20, 4, 20), box(60, 0, 61, 1)]
    fractions = covered_fractions(polygons, box(3, -10, 50, 50))
    np.testing.assert_allclose(fractions, [0.25, 0, 1, 0.75, 0])
    # Nothing lost to rounding where nothing is cut off.
    assert fractions[2] == 1


def test_covered_fractions_know_an_image_that_is_not_upright() -> None:
    diamond = Polygon([(2, 0), (4, 2), (2, 4), (0, 2)])
    corner, middle, half = box(0, 0, 1, 1), box(1, 1, 3, 3), box(0, 1, 2, 3)
    fractions = covered_fractions([corner, middle, half], diamond)
    np.testing.assert_allclose(fractions, [0, 1, 0.75])


def test_to_crs_agrees_with_pyproj() -> None:
    polygon = box(2.0, 48.0, 2.01, 48.01)
    x, y = pyproj.Transformer.from_crs(4326, 32631, always_xy=True).transform(2.0, 48.0)
    moved = to_crs(polygon, UTM)
    assert moved.distance(Point(x, y)) < 1e-6
    assert to_crs(polygon, pyproj.CRS.from_epsg(32631)).equals(moved)


def test_to_crs_keeps_longitude_before_latitude() -> None:
    polygon = box(2.0, 48.0, 2.01, 48.01)
    assert to_crs(polygon, CRS.from_epsg(4326)).equals(polygon)


def test_a_polygon_beyond_the_reach_of_a_crs_comes_back_empty() -> None:
    pole = box(10, -90, 20, -89)
    lambert = to_crs(pole, CRS.from_epsg(2154))
    assert lambert.is_empty
    assert not coverage(lambert, NORTH_UP, (3, 4)).any()


def shrink(parcel: Polygon, crs: HasWkt) -> Polygon | MultiPolygon:
    """The inner buffer of 5 m of one parcel."""
    (shrunk,) = inner_buffers([parcel], crs, 5)
    return shrunk


def test_the_inner_buffer_takes_the_distance_from_every_side() -> None:
    inner = shrink(box(500_000, 5_300_000, 500_100, 5_300_050), UTM)
    assert inner.equals(box(500_005, 5_300_005, 500_095, 5_300_045))


def test_the_inner_buffer_of_a_narrow_parcel_is_empty() -> None:
    assert shrink(box(500_000, 5_300_000, 500_100, 5_300_009), UTM).is_empty


def test_the_inner_buffer_of_nothing_is_nothing() -> None:
    assert shrink(Polygon(), UTM).is_empty


@pytest.mark.parametrize("epsg", [4326, 3857, 2263, 6933], ids=str)
def test_the_inner_buffer_is_in_meters_on_the_ground_in_any_crs(epsg: int) -> None:
    crs = pyproj.CRS.from_epsg(epsg)
    # On the central meridian of the UTM zone, where a map meter is 0.9996 meters.
    parcel = affinity.translate(box(0, 0, 100, 60), 500_000, 5_300_000)
    there = pyproj.Transformer.from_crs(32631, crs, always_xy=True)
    back = pyproj.Transformer.from_crs(crs, 32631, always_xy=True)

    def move(geometry: Polygon, transformer: pyproj.Transformer) -> Polygon:
        return shapely.transform(
            geometry, lambda points: np.column_stack(transformer.transform(*points.T))
        )

    inner = move(shrink(move(parcel, there), crs), back)
    assert inner.hausdorff_distance(parcel.buffer(-5)) < 0.02


@pytest.mark.parametrize("epsg", [32631, 4326, 3857, 2263], ids=str)
def test_the_inner_buffers_of_many_are_those_of_each(epsg: int) -> None:
    crs = pyproj.CRS.from_epsg(epsg)
    there = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    # Some of them so far apart that they do not share a local projection.
    corners = [(2.2, 48.1), (2.21, 48.1), (2.7, 48.9), (3.4, 47.4)]
    parcels = [
        shapely.transform(
            box(x, y, x + 0.002, y + 0.001),
            lambda points: np.column_stack(there.transform(*points.T)),
        )
        for x, y in corners
    ]
    parcels.insert(2, Polygon())
    for shrunk, parcel in zip(inner_buffers(parcels, crs, 5), parcels, strict=True):
        assert shapely.equals_exact(shrunk, shrink(parcel, crs), tolerance=0)
    assert sum(not one.is_empty for one in inner_buffers(parcels, crs, 5)) == 4


def test_round_corners_are_as_fine_as_shapely_makes_them() -> None:
    bend = box(500_000, 5_300_000, 500_100, 5_300_100) - box(500_050, 5_300_050, 500_100, 5_300_100)
    assert shrink(bend, UTM).equals(bend.buffer(-5))
