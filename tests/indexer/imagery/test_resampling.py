import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from indexer.imagery.chip import FloatArray
from indexer.imagery.resampling import Alignment, bilinear, nearest

FINE = Affine(10, 0, 500_000, 0, -10, 5_000_000)
NAN = float("nan")


def grid(size_m: float, east_m: float = 0.0, south_m: float = 0.0) -> Affine:
    return Affine(size_m, 0, 500_000 + east_m, 0, -size_m, 5_000_000 - south_m)


def aligned(coarse: Affine) -> Alignment:
    alignment = Alignment.of(FINE, coarse)
    assert alignment is not None
    return alignment


def test_centers_of_fine_pixels_lie_where_the_ground_says() -> None:
    # Centers at 5 m, 15 m, 25 m from the edge.
    np.testing.assert_allclose(aligned(grid(20)).columns(0, 3), [0.25, 0.75, 1.25])
    np.testing.assert_allclose(aligned(grid(60, south_m=30)).rows(2, 2), [-5 / 60, 5 / 60])


@pytest.mark.parametrize(
    "other",
    [grid(5), grid(20) @ Affine.rotation(1), Affine(20, 0, 500_000, 0, 20, 4_990_000)],
    ids=["finer", "turned", "south up"],
)
def test_other_grids_have_no_alignment(other: Affine) -> None:
    assert Alignment.of(FINE, other) is None


def test_bilinear_weighs_by_the_distance_of_centers() -> None:
    coarse = np.array([[[0, 4], [8, 12]]], dtype=np.float32)
    rows = aligned(grid(20)).rows(0, 4)
    # Outside of the outermost centers there is nothing to go towards.
    expected = [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    np.testing.assert_array_equal(bilinear(coarse, rows, rows)[0], expected)


def test_nearest_repeats() -> None:
    coarse = np.array([[[1, 2], [3, 4]]], dtype=np.float32)
    rows = aligned(grid(20)).rows(1, 3)
    np.testing.assert_array_equal(nearest(coarse, rows, rows)[0], [[1, 2, 2], [3, 4, 4], [3, 4, 4]])


def test_pixels_without_data_stay_so_and_do_not_bleed() -> None:
    coarse = np.array([[[NAN, 4], [8, 12]], [[1, 1], [1, 1]]], dtype=np.float32)
    rows = aligned(grid(20)).rows(0, 4)
    fine = bilinear(coarse, rows, rows)
    assert np.isnan(fine[0, :2, :2]).all()
    # At (0, 2) only the pixel of 4 is seen; at (1, 2) 4 with 9/16 and 12 with 3/16 and 8 with 1/16.
    assert fine[0, 0, 2] == 4
    np.testing.assert_allclose(fine[0, 1, 2], (9 * 4 + 3 * 12 + 8) / 13, rtol=1e-6)
    np.testing.assert_array_equal(fine[1], np.ones((4, 4)))


def test_nothing_is_read_beyond_the_coarse_pixels() -> None:
    coarse = np.ones((1, 1, 1), dtype=np.float32)
    rows = aligned(grid(20, south_m=20)).rows(0, 6)
    columns = aligned(grid(20)).columns(0, 2)
    for resample in (bilinear, nearest):
        fine = resample(coarse, rows, columns)[0]
        assert np.isnan(fine[:2]).all()
        np.testing.assert_array_equal(fine[2:4], np.ones((2, 2)))
        assert np.isnan(fine[4:]).all()


@pytest.mark.parametrize(("size_m", "east_m"), [(20, 0), (60, 0), (20, -7.5), (10, 3), (60, -20)])
def test_gdal_finds_the_same(size_m: float, east_m: float) -> None:
    random = np.random.default_rng(0)
    coarse = random.uniform(300, 4000, (2, 30, 30)).astype(np.float32)
    coarse[0, random.integers(0, 30, 40), random.integers(0, 30, 40)] = NAN
    alignment = aligned(grid(size_m, east_m))
    rows, columns = alignment.rows(0, 100), alignment.columns(0, 100)
    for resample, resampling in ((bilinear, Resampling.bilinear), (nearest, Resampling.nearest)):
        expected: FloatArray = np.full((2, 100, 100), NAN, dtype=np.float32)
        for source, destination in zip(coarse, expected, strict=True):
            reproject(
                source,
                destination,
                src_transform=grid(size_m, east_m),
                dst_transform=FINE,
                src_crs=CRS.from_epsg(32631),
                dst_crs=CRS.from_epsg(32631),
                src_nodata=NAN,
                dst_nodata=NAN,
                resampling=resampling,
            )
        np.testing.assert_allclose(resample(coarse, rows, columns), expected, rtol=1e-5)


def test_windows_are_resampled_as_they_are_cut_from_the_whole() -> None:
    coarse = np.random.default_rng(1).uniform(300, 4000, (1, 40, 40)).astype(np.float32)
    alignment = aligned(grid(60, 20))
    whole = bilinear(coarse, alignment.rows(0, 200), alignment.columns(0, 200))
    part = bilinear(
        coarse[:, 10:25, 4:30], alignment.rows(80, 50) - 10, alignment.columns(40, 100) - 4
    )
    np.testing.assert_array_equal(part, whole[:, 80:130, 40:140])
