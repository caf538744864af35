from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely

from indexer.chipping import Part, Target, View, Window
from indexer.embedding_space import Pooling
from indexer.errors import ImageryError
from indexer.findings import Findings
from indexer.imagery.chip import Chip
from indexer.normalization import Normalization
from indexer.parcels.parcel import Parcel
from indexer.preparing import Prepared, encoder_input
from indexer.sensors import PROFILES
from tests.indexer.one_chip import PATCHES, in_chip, preparation, prepare, weights_of
from tests.synthetic import make_chip

L2A = PROFILES["l2a"]


def prepare_one(
    chip: Chip, geometry: shapely.Polygon | None = None, pooling: Pooling = "parcel"
) -> Prepared:
    """The parcel of a chip; without geometry the whole chip is the parcel."""
    (prepared,) = prepare(chip, geometry, pooling=pooling)
    return prepared


# Parcels in one tile


def test_a_parcel_without_data_is_skipped_and_the_others_are_prepared() -> None:
    chip = make_chip()
    reflectance = chip.reflectance.copy()
    reflectance[3, :, :60] = np.nan
    chip = make_chip(reflectance=reflectance, source="scene.tif")
    left, right = in_chip(chip, 10, 10, 50, 50), in_chip(chip, 70, 10, 110, 50)
    findings = Findings()
    prepared = prepare(chip, left, right, findings=findings)
    assert [parcel.parcel.parcel_id for parcel in prepared] == ["1"]
    (skipped,) = findings.skipped
    assert (skipped.source, skipped.kind) == ("scene.tif", "no-valid-pixels")
    assert "parcel 0 is nodata" in skipped.reason


def test_an_image_without_data_is_skipped() -> None:
    chip = make_chip(8, reflectance=np.full((12, 8, 8), np.nan, dtype=np.float32))
    findings = Findings()
    assert prepare(chip, None, pooling="image", findings=findings) == []
    assert [item.kind for item in findings.skipped] == ["no-valid-pixels"]
    assert "every pixel is nodata" in findings.skipped[0].reason


@pytest.mark.parametrize(("clouded", "embeddable"), [(0, True), (59, True), (60, False)])
def test_a_parcel_is_embedded_where_less_than_60_percent_of_it_is_lost(
    clouded: int, embeddable: bool
) -> None:
    classes = np.full(100, 4, dtype=np.uint8)
    classes[:clouded] = 9
    prepared = prepare_one(make_chip(10, scl=classes.reshape(10, 10)))
    assert prepared.embeddable is embeddable


def test_a_patch_weighs_by_the_share_of_it_inside_of_the_parcel() -> None:
    chip = make_chip()
    # Patches of 8 px: columns 8 to 12 are half of the second, rows 0 to 10 all of the first
    # and a quarter of the second.
    weights = weights_of(prepare_one(chip, in_chip(chip, 8, 0, 12, 10)))
    expected = np.zeros((PATCHES, PATCHES))
    expected[0, 1], expected[1, 1] = 0.5, 0.125
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_the_patches_of_a_smaller_chip_are_smaller() -> None:
    chip = make_chip(60)
    # 60 px in 15 patches are 4 px a patch.
    weights = weights_of(prepare_one(chip, in_chip(chip, 0, 56, 2, 60)))
    expected = np.zeros((PATCHES, PATCHES))
    expected[14, 0] = 0.5
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_a_parcel_cut_by_the_edge_weighs_with_what_is_left_of_it() -> None:
    chip = make_chip()
    weights = weights_of(prepare_one(chip, in_chip(chip, 116, -50, 300, 8)))
    expected = np.zeros((PATCHES, PATCHES))
    expected[0, 14] = 0.5
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_with_image_pooling_every_patch_weighs_the_same() -> None:
    chip = make_chip()
    for geometry in (None, in_chip(chip, 8, 0, 12, 10)):
        assert (weights_of(prepare_one(chip, geometry, "image")) == 1).all()
    assert (weights_of(prepare_one(chip, None, "parcel")) == 1).all()


def test_the_fingerprint_is_that_of_pixels_and_parcel_not_of_their_names() -> None:
    chip = make_chip()
    geometry = in_chip(chip, 8, 0, 40, 40)
    fingerprint = prepare_one(chip, geometry).fingerprint
    renamed = replace(chip, scene="other", source="other.tif", acquired_at=None)
    assert prepare_one(renamed, geometry).fingerprint == fingerprint
    assert len(fingerprint) == 64


def test_the_fingerprint_tells_of_every_change() -> None:
    chip = make_chip()
    geometry = in_chip(chip, 8, 0, 40, 40)
    brighter, masked = chip.reflectance.copy(), chip.valid_mask.copy()
    brighter[5, 100, 100] += np.float32(1e-4)
    masked[100, 100] = False
    changed = [
        prepare_one(chip, geometry),
        prepare_one(chip, in_chip(chip, 8, 0, 40, 40.001)),
        prepare_one(chip, geometry, "image"),
        prepare_one(make_chip(reflectance=brighter), geometry),
        prepare_one(make_chip(valid_mask=masked), geometry),
        prepare_one(make_chip(bands=L2A[::-1]), geometry),
    ]
    assert len({prepared.fingerprint for prepared in changed}) == len(changed)


# Parcels in several tiles


def view_over_two_tiles(chip: Chip, geometry: shapely.Polygon) -> View:
    """A chip of 120 x 208 px is two tiles, which meet at column 104."""
    tiles = Window(0, 0, 120, 120), Window(0, 88, 120, 120)
    cells = Window(0, 0, 120, 104), Window(0, 104, 120, 104)
    parts = tuple(Part(tile, cell) for tile, cell in zip(tiles, cells, strict=True))
    return View(Target(Parcel("test", "0", None), geometry), Window(0, 0, 120, 208), parts)


def wide_chip(**overrides: npt.NDArray[Any]) -> Chip:
    fields: dict[str, Any] = {
        "reflectance": np.concatenate([make_chip().reflectance] * 2, axis=2)[:, :, :208],
        "valid_mask": np.ones((120, 208), np.bool_),
    }
    return make_chip(**(fields | overrides))


def test_each_pixel_of_a_parcel_in_two_tiles_counts_in_one_of_them() -> None:
    chip = wide_chip()
    geometry = in_chip(chip, 80, 0, 140, 8)
    prepared = preparation().view(chip, view_over_two_tiles(chip, geometry), Findings())
    assert prepared is not None
    assert prepared.state.pixels_inside == pytest.approx(60 * 8)
    (first, left), (second, right) = prepared.parts
    assert (first.column, second.column) == (0, 88)
    # Columns 80 to 104 of the first tile are its patches 10, 11 and 12; columns 104 to 140 are
    # columns 16 to 52 of the second: patches 2, 3, 4, 5 and half of 6.
    expected = np.zeros((2, PATCHES))
    expected[0, 10:13] = 1
    expected[1, 2:6], expected[1, 6] = 1, 0.5
    np.testing.assert_allclose(left[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(right[0], expected[1], atol=1e-6)
    assert left[1:].sum() + right[1:].sum() == 0


def test_a_tile_in_which_clouds_hide_all_of_a_parcel_is_not_asked() -> None:
    valid = np.ones((120, 208), np.bool_)
    valid[:, 104:] = False
    chip = wide_chip(valid_mask=valid)
    plan = view_over_two_tiles(chip, in_chip(chip, 20, 0, 140, 8))
    prepared = preparation().view(chip, plan, Findings())
    assert prepared is not None
    assert prepared.embeddable
    assert [tile.column for tile, _ in prepared.parts] == [0]


def test_a_parcel_in_several_tiles_without_data_is_skipped() -> None:
    chip = wide_chip(
        reflectance=np.full((12, 120, 208), np.nan, np.float32),
        valid_mask=np.zeros((120, 208), np.bool_),
    )
    findings = Findings()
    plan = view_over_two_tiles(chip, in_chip(chip, 80, 0, 140, 8))
    assert preparation().view(chip, plan, findings) is None
    assert [skipped.kind for skipped in findings.skipped] == ["no-valid-pixels"]


# The encoder's input


def test_the_encoder_gets_its_bands_by_name_whatever_the_order_of_the_chip() -> None:
    chip = make_chip(64)
    turned = replace(chip, bands=L2A[::-1], reflectance=chip.reflectance[::-1])
    image = encoder_input(chip, Normalization.ssl4eo(), 120)
    assert image.shape == (12, 120, 120)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(encoder_input(turned, Normalization.ssl4eo(), 120), image)


def test_gaps_are_neutral_and_do_not_spread() -> None:
    reflectance = make_chip(120).reflectance.copy()
    clean = encoder_input(make_chip(reflectance=reflectance), Normalization.ssl4eo(), 120)
    reflectance[:, 10:20, 30:40] = np.nan
    image = encoder_input(make_chip(reflectance=reflectance), Normalization.ssl4eo(), 120)
    # The stored mean is the middle of [0, 1].
    np.testing.assert_allclose(image[:, 10:20, 30:40], 0.5, atol=1e-6)
    untouched = np.ones((120, 120), dtype=np.bool_)
    untouched[10:20, 30:40] = False
    np.testing.assert_array_equal(image[:, untouched], clean[:, untouched])


def test_a_chip_without_one_of_the_bands_cannot_be_encoded() -> None:
    with pytest.raises(ImageryError, match="B01"):
        encoder_input(make_chip(8, bands=L2A[1:]), Normalization.ssl4eo(), 120)
