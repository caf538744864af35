import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from indexer.imagery.chip import BoolArray, Chip, FloatArray
from indexer.observation_state import ObservationState, observe
from indexer.spectral_indices import INDICES
from tests.synthetic import make_chip

# rasterio 1.4 multiplies transforms with `*` inside Chip.window; affine 3 wants `@` some day.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

SIZE = 12
VEGETATION, SHADOW, CLOUD, NO_DATA = 4, 3, 9, 0


def scl_of(value: int) -> npt.NDArray[np.uint8]:
    return np.full((SIZE, SIZE), value, dtype=np.uint8)


def square(top: int, left: int, size: int) -> FloatArray:
    coverage = np.zeros((SIZE, SIZE), dtype=np.float32)
    coverage[top : top + size, left : left + size] = 1
    return coverage


def look(
    chip: Chip,
    coverage: FloatArray,
    whole_pixels: BoolArray | None = None,
    covered_fraction: float = 1.0,
) -> ObservationState:
    whole = coverage == 1 if whole_pixels is None else whole_pixels
    return observe(chip, coverage, whole_pixels=whole, covered_fraction=covered_fraction)


def red_and_nir(red: FloatArray, nir: FloatArray, **overrides: Any) -> Chip:  # noqa: ANN401
    return make_chip(reflectance=np.stack([red, nir]), bands=("B04", "B08"), **overrides)


def test_a_clear_parcel_is_seen_whole() -> None:
    state = look(make_chip(SIZE, scl=scl_of(VEGETATION)), square(2, 3, 4))
    assert state.pixels_inside == 16
    assert state.valid_pixels == 16
    assert state.valid_fraction == 1
    assert state.data_fraction == 1
    assert state.cloud_cover_percent == 0
    assert state.covered_fraction == 1
    assert state.whole_valid_pixels == 16
    assert state.reliable
    assert set(state.indices) == set(INDICES)


def test_cloudy_pixels_are_excluded() -> None:
    # NDVI is 0.6 on the clear half and 0 under the cloud.
    nir = np.full((SIZE, SIZE), 0.4, dtype=np.float32)
    red = np.full((SIZE, SIZE), 0.1, dtype=np.float32)
    scl = scl_of(VEGETATION)
    red[:, 6:] = 0.4
    scl[:, 6:] = CLOUD
    state = look(red_and_nir(red, nir, scl=scl), square(4, 4, 4))
    assert state.pixels_inside == 16
    assert state.valid_pixels == 8
    assert state.valid_fraction == 0.5
    assert state.data_fraction == 1
    assert state.cloud_cover_percent == 50
    assert state.whole_valid_pixels == 8
    assert state.indices["NDVI"].mean == pytest.approx(0.6)
    assert state.indices["NDVI"].std == pytest.approx(0, abs=1e-7)


def test_a_parcel_under_cloud_has_no_indices_and_is_not_reliable() -> None:
    state = look(make_chip(SIZE, scl=scl_of(CLOUD)), square(0, 0, 6))
    assert state.pixels_inside == 36
    assert state.valid_pixels == 0
    assert state.valid_fraction == 0
    assert state.data_fraction == 1
    assert state.cloud_cover_percent == 100
    assert state.whole_valid_pixels == 0
    assert not state.reliable
    assert state.indices == {}


def test_an_index_counts_a_pixel_by_its_share_inside_the_parcel() -> None:
    nir = np.full((SIZE, SIZE), 0.4, dtype=np.float32)
    red = np.full((SIZE, SIZE), 0.1, dtype=np.float32)
    red[0, 1] = 0.4
    coverage = np.zeros((SIZE, SIZE), dtype=np.float32)
    coverage[0, 0], coverage[0, 1] = 0.75, 0.25
    state = look(red_and_nir(red, nir), coverage)
    assert state.pixels_inside == 1
    # 0.75 * 0.6 + 0.25 * 0
    assert state.indices["NDVI"].mean == pytest.approx(0.45)
    assert state.indices["NDVI"].std == pytest.approx(math.sqrt(0.75 * 0.15**2 + 0.25 * 0.45**2))


def test_cloud_cover_is_a_share_of_the_pixels_with_data() -> None:
    scl = scl_of(VEGETATION)
    scl[0, :2] = CLOUD
    scl[0, 2] = SHADOW
    scl[1] = NO_DATA
    reflectance = make_chip(SIZE).reflectance.copy()
    reflectance[:, 1] = np.nan
    coverage = np.zeros((SIZE, SIZE), dtype=np.float32)
    coverage[:2, :6] = 0.5
    state = look(make_chip(SIZE, scl=scl, reflectance=reflectance), coverage)
    assert state.pixels_inside == 6
    assert state.data_fraction == 0.5
    assert state.cloud_cover_percent == 50
    assert state.valid_fraction == 0.25


def test_cloud_cover_is_unknown_without_a_scene_classification() -> None:
    assert look(make_chip(SIZE), square(0, 0, 4)).cloud_cover_percent is None


def test_cloud_cover_is_unknown_where_nothing_has_data() -> None:
    reflectance = np.full((12, SIZE, SIZE), np.nan, dtype=np.float32)
    state = look(make_chip(reflectance=reflectance, scl=scl_of(NO_DATA)), square(0, 0, 4))
    assert state.cloud_cover_percent is None
    assert state.data_fraction == 0
    assert state.indices == {}


def test_a_parcel_beside_the_chip_has_no_pixels() -> None:
    nothing = np.zeros((SIZE, SIZE), dtype=np.float32)
    state = look(make_chip(SIZE, scl=scl_of(VEGETATION)), nothing, covered_fraction=0.0)
    assert state == ObservationState(
        pixels_inside=0.0,
        valid_pixels=0.0,
        valid_fraction=0.0,
        data_fraction=0.0,
        cloud_cover_percent=None,
        covered_fraction=0.0,
        whole_valid_pixels=0,
        reliable=False,
        indices={},
    )


def test_an_index_whose_bands_the_chip_lacks_is_left_out() -> None:
    chip = make_chip(SIZE, bands=("B02", "B03", "B04", "B08"))
    assert set(look(chip, square(0, 0, 4)).indices) == {"NDVI", "NDWI", "EVI", "OSAVI"}


@pytest.mark.parametrize(("whole", "reliable"), [(7, False), (8, True)])
def test_a_parcel_is_reliable_from_eight_whole_pixels_on(whole: int, reliable: bool) -> None:
    whole_pixels = np.zeros((SIZE, SIZE), dtype=np.bool_)
    whole_pixels[3, 2 : 2 + whole] = True
    state = look(make_chip(SIZE), square(1, 1, 10), whole_pixels)
    assert state.whole_valid_pixels == whole
    assert state.reliable is reliable


@pytest.mark.parametrize(("cloudy_rows", "reliable"), [(5, True), (6, False), (7, False)])
def test_a_parcel_is_reliable_while_less_than_60_percent_of_its_pixels_are_lost(
    cloudy_rows: int, reliable: bool
) -> None:
    scl = scl_of(VEGETATION)
    scl[:cloudy_rows] = CLOUD
    state = look(make_chip(SIZE, scl=scl), square(0, 0, 10))
    assert state.valid_fraction == pytest.approx(1 - cloudy_rows / 10)
    assert state.reliable is reliable


@pytest.mark.parametrize(("covered_fraction", "reliable"), [(0.4, False), (0.41, True)])
def test_a_parcel_mostly_outside_the_image_is_not_reliable(
    covered_fraction: float, reliable: bool
) -> None:
    state = look(make_chip(SIZE), square(0, 0, 4), covered_fraction=covered_fraction)
    assert state.covered_fraction == covered_fraction
    assert state.reliable is reliable


def test_a_whole_pixel_under_cloud_does_not_count() -> None:
    scl = scl_of(VEGETATION)
    scl[0, 0] = CLOUD
    state = look(make_chip(SIZE, scl=scl), square(0, 0, 3))
    assert state.whole_valid_pixels == 8


def test_what_lies_beyond_the_parcel_does_not_matter() -> None:
    coverage = square(3, 5, 4)
    coverage[2, 6] = 0.3
    clear = make_chip(SIZE, scl=scl_of(VEGETATION))
    scl = np.where(coverage > 0, VEGETATION, CLOUD).astype(np.uint8)
    reflectance = np.where(coverage > 0, clear.reflectance, np.float32(np.nan))
    assert look(make_chip(reflectance=reflectance, scl=scl), coverage) == look(clear, coverage)


def test_the_state_reads_as_json_with_plain_numbers() -> None:
    state = look(make_chip(SIZE, scl=scl_of(VEGETATION)), square(2, 2, 5))
    told = json.loads(json.dumps(state.to_dict(), allow_nan=False))
    assert told["valid_fraction"] == 1.0
    assert told["reliable"] is True
    assert set(told["indices"]["NDVI"]) == {"median", "mean", "std", "p10", "p90"}
    assert told == state.to_dict()


@pytest.mark.parametrize("wrong", ["coverage", "whole_pixels"])
def test_arrays_of_another_shape_than_the_chip_are_refused(wrong: str) -> None:
    coverage = np.ones((SIZE, SIZE - (wrong == "coverage")), dtype=np.float32)
    whole_pixels = np.ones((SIZE, SIZE - (wrong == "whole_pixels")), dtype=np.bool_)
    with pytest.raises(ValueError, match=f"{wrong} .* does not fit"):
        observe(make_chip(SIZE), coverage, whole_pixels=whole_pixels, covered_fraction=1.0)
