from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon, affinity, box

from indexer.parcels import pixel_shares as module
from indexer.parcels.pixel_shares import Covered, pixel_shares

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

SHAPE = (9, 13)


def shares_of(
    polygons: Sequence[Polygon | MultiPolygon], shape: tuple[int, int] = SHAPE
) -> list[Covered]:
    return list(pixel_shares(np.array(polygons, dtype=np.object_), shape))


def on_the_grid(covered: Covered, shape: tuple[int, int] = SHAPE) -> FloatArray:
    grid = np.zeros(shape, dtype=np.float32)
    grid[covered.rows, covered.columns] = covered.share
    return grid


def by_intersection(
    polygon: Polygon | MultiPolygon, shape: tuple[int, int] = SHAPE
) -> Float64Array:
    """The definition: the area that the polygon has in common with each pixel."""
    rows, columns = np.indices(shape)
    pixels = shapely.box(columns, rows, columns + 1, rows + 1)
    shared: Float64Array = shapely.area(shapely.intersection(polygon, pixels))
    return shared


def star(seed: int, column: float, row: float, radius: float, corners: int) -> Polygon:
    """A polygon around a center, which is simple whatever its radii."""
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, corners)) + 1e-3 * np.arange(corners)
    radii = radius * random.uniform(0.3, 1, corners)
    return Polygon(np.column_stack([column + radii * np.cos(angles), row + radii * np.sin(angles)]))


@st.composite
def polygons(draw: st.DrawFn) -> Polygon | MultiPolygon:
    """Stars anywhere near the grid, smaller than a pixel to larger than it, united and pierced."""
    stars = [
        star(
            seed=draw(st.integers(0, 10_000)),
            column=draw(st.floats(-6, 19)),
            row=draw(st.floats(-6, 15)),
            radius=draw(st.sampled_from([0.05, 0.4, 3.0, 8.0, 40.0])),
            corners=draw(st.integers(4, 12)),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]
    first, *others = (shapely.make_valid(one).buffer(0) for one in stars)
    for number, other in enumerate(others):
        first = first.difference(other) if number % 2 else first.union(other)
    if draw(st.booleans()):
        # Corners on pixel borders. As bytes, so that what comes of it is not rounded too.
        return shapely.from_wkb(shapely.to_wkb(shapely.set_precision(first, 0.25)))
    return first


@given(polygons())
def test_the_share_of_a_pixel_is_the_area_that_it_has_in_common(
    polygon: Polygon | MultiPolygon,
) -> None:
    (covered,) = shares_of([polygon])
    np.testing.assert_allclose(on_the_grid(covered), by_intersection(polygon), atol=1e-6)


@given(st.lists(polygons(), min_size=2, max_size=5), st.sampled_from([1, 40, 2**22]))
def test_a_polygon_is_covered_alike_whatever_others_there_are(
    many: list[Polygon | MultiPolygon], at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_PIXELS", at_once)
        together = shares_of(many)
    for covered, polygon in zip(together, many, strict=True):
        (alone,) = shares_of([polygon])
        assert (covered.rows, covered.columns) == (alone.rows, alone.columns)
        np.testing.assert_array_equal(covered.share, alone.share)


@given(polygons())
def test_the_window_is_no_larger_than_what_is_covered(polygon: Polygon | MultiPolygon) -> None:
    (covered,) = shares_of([polygon])
    rows, columns = np.nonzero(on_the_grid(covered))
    if rows.size == 0:
        assert covered.share.shape == (0, 0)
        assert covered.rows == covered.columns == slice(0, 0)
    else:
        assert covered.rows == slice(rows.min(), rows.max() + 1)
        assert covered.columns == slice(columns.min(), columns.max() + 1)
        assert covered.share.shape == (np.ptp(rows) + 1, np.ptp(columns) + 1)


def with_holes_turned(polygon: Polygon | MultiPolygon) -> MultiPolygon:
    parts = shapely.get_parts(polygon)
    return MultiPolygon(
        [Polygon(one.exterior, [hole.reverse() for hole in one.interiors]) for one in parts]
    )


@given(polygons())
def test_it_does_not_matter_which_way_round_rings_are_stored(
    polygon: Polygon | MultiPolygon,
) -> None:
    one, *others = shares_of([polygon, shapely.reverse(polygon), with_holes_turned(polygon)])
    for other in others:
        np.testing.assert_allclose(on_the_grid(one), on_the_grid(other), atol=1e-6)


def test_a_ring_of_land_around_a_lake_with_an_island() -> None:
    land = box(1, 1, 8, 8) - box(2, 2, 7, 7)
    (covered,) = shares_of([MultiPolygon([land, box(4, 4, 5.5, 5)])])
    expected = np.zeros((7, 7))
    expected[[0, -1]] = expected[:, [0, -1]] = 1
    expected[3, 3:5] = 1, 0.5
    assert (covered.rows, covered.columns) == (slice(1, 8), slice(1, 8))
    np.testing.assert_array_equal(covered.share, expected)


def test_a_slanted_sliver_keeps_its_area() -> None:
    # 0.01 pixels wide at every height, over 8 rows.
    sliver = Polygon([(0.1, 0.5), (12.6, 8.5), (12.61, 8.5), (0.11, 0.5)])
    (covered,) = shares_of([sliver])
    assert covered.share.sum(dtype=np.float64) == pytest.approx(0.08, rel=1e-6)
    np.testing.assert_allclose(on_the_grid(covered), by_intersection(sliver), atol=1e-9)


def test_a_polygon_around_everything_covers_every_pixel_wholly() -> None:
    (covered,) = shares_of([star(1, 6, 4, 1e7, 12)])
    assert covered.share.shape == SHAPE
    assert (covered.share == 1).all()


def test_polygons_beside_the_grid_and_empty_ones_have_an_empty_window() -> None:
    beside = [box(-5, 0, 0, 9), box(13, 0, 20, 9), box(0, -4, 13, 0), box(0, 9, 13, 12), Polygon()]
    for covered in shares_of(beside):
        assert covered.share.shape == (0, 0)
    # A bend around a corner: its bounds reach into the grid, its area does not.
    (covered,) = shares_of([box(-3, -3, 4, 4) - box(0, 0, 4, 4)])
    assert covered.share.shape == (0, 0)


def test_no_polygons_give_nothing() -> None:
    assert shares_of([]) == []


@pytest.mark.parametrize("country", ["fr_rpg_2022", "nl_2023", "dk_2026", "at_2025"])
@pytest.mark.parametrize("across_px", [0.7, 20, 300])
def test_real_parcels_of_any_size_are_covered_by_the_area_they_have_in_common(
    test_data: Callable[[str], Path], country: str, across_px: float
) -> None:
    path = test_data("parcels_lpis") / f"{country}_extract100.gpkg"
    _, _, stored, _ = pyogrio.raw.read(path)
    outlines = shapely.force_2d(shapely.from_wkb(stored))
    placed = []
    for number, outline in enumerate(outlines[shapely.is_valid(outlines)]):
        west, south, east, north = outline.bounds
        factor = across_px / max(east - west, north - south)
        small = affinity.scale(outline, factor, factor, origin=(west, south))
        placed.append(affinity.translate(small, number % 12 - west - 1, number % 9 - south - 2))
    assert len(placed) > 50
    for covered, polygon in zip(shares_of(placed), placed, strict=True):
        np.testing.assert_allclose(on_the_grid(covered), by_intersection(polygon), atol=1e-6)
