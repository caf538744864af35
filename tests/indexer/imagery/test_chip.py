from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine

from indexer.errors import ImageryError
from indexer.imagery.chip import Chip
from tests.synthetic import make_chip


def scl_of(classes: list[list[int]]) -> npt.NDArray[np.uint8]:
    return np.array(classes, dtype=np.uint8)


def test_a_band_is_found_by_its_name() -> None:
    chip = make_chip(4, bands=("B08", "B04"))
    np.testing.assert_array_equal(chip.band("B04"), chip.reflectance[1])


def test_bands_are_stacked_in_the_order_in_which_they_are_named() -> None:
    chip = make_chip(4, bands=("B08", "B04", "B02"))
    stacked = chip.stack(("B02", "B08"))
    np.testing.assert_array_equal(stacked, chip.reflectance[[2, 0]])


def test_a_missing_band_is_named_with_those_that_are_there() -> None:
    chip = make_chip(4, bands=("B08", "B04"), source="field.tif")
    with pytest.raises(ImageryError, match=r"field\.tif.*B11.*B08, B04") as caught:
        chip.stack(("B08", "B11"))
    assert caught.value.kind == "missing-band"


@pytest.mark.parametrize(
    "wrong",
    [{"bands": ("B04",)}, {"valid_mask": np.ones((4, 5), dtype=np.bool_)}],
    ids=["bands", "mask"],
)
def test_parts_that_do_not_fit_each_other_are_no_chip(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"bands": ("B04", "B08")}
    fields["reflectance"] = np.full((2, 4, 4), 0.1, dtype=np.float32)
    with pytest.raises(ValueError, match="does not fit"):
        make_chip(4, **fields | wrong)


def test_bounds_and_footprint_follow_from_transform_and_shape() -> None:
    reflectance = np.full((1, 3, 5), 0.1, dtype=np.float32)
    to_map = Affine(10, 0, 600_000, 0, -20, 5_400_000)
    chip = make_chip(bands=("B04",), reflectance=reflectance, transform=to_map)
    # 5 columns of 10 m to the east, 3 rows of 20 m to the south.
    assert list(chip.bounds) == [600_000, 5_399_940, 600_050, 5_400_000]
    assert chip.footprint.bounds == chip.bounds
    assert chip.footprint.area == 50 * 60


def test_a_window_holds_the_same_pixels_at_the_same_place() -> None:
    classes = np.arange(100, dtype=np.uint8).reshape(10, 10) % 12
    chip = make_chip(10, scl=classes)
    part = chip.window(2, 3, 4, 5)
    assert part.shape == (4, 5)
    np.testing.assert_array_equal(part.reflectance, chip.reflectance[:, 2:6, 3:8])
    np.testing.assert_array_equal(part.valid_mask, chip.valid_mask[2:6, 3:8])
    assert part.scl is not None
    np.testing.assert_array_equal(part.scl, classes[2:6, 3:8])
    west, _, _, north = chip.bounds
    assert part.bounds == (west + 30, north - 60, west + 80, north - 20)
    assert (part.scene, part.acquired_at, part.crs) == (chip.scene, chip.acquired_at, chip.crs)


def test_a_window_copies_no_pixels() -> None:
    chip = make_chip(10)
    assert np.shares_memory(chip.window(2, 3, 4, 5).reflectance, chip.reflectance)


def test_a_pixel_has_data_where_every_band_has() -> None:
    reflectance = np.full((2, 1, 3), 0.1, dtype=np.float32)
    reflectance[0, 0, 0] = reflectance[1, 0, 2] = np.nan
    chip = make_chip(bands=("B04", "B08"), reflectance=reflectance)
    assert chip.data_mask.tolist() == [[False, True, False]]


def test_cloud_and_its_shadow_are_cloud_cover_and_nothing_else_is() -> None:
    # Shadow 3, cloud of medium and high probability 8 and 9, cirrus 10.
    chip = make_chip(4, scl=scl_of([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [4, 4, 4, 4]]))
    assert chip.cloud_mask is not None
    assert np.argwhere(chip.cloud_mask).tolist() == [[0, 3], [2, 0], [2, 1], [2, 2]]


def test_without_classes_nobody_knows_about_clouds() -> None:
    chip: Chip = make_chip(4)
    assert chip.cloud_mask is None
