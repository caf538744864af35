import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from indexer.errors import ImageryError, InvalidInputError, NotFoundError
from indexer.imagery.chip import Chip
from indexer.imagery.reader import (
    MAX_CHIP_PX,
    Layer,
    ReadingOptions,
    Scaling,
    Scene,
    baseline_doubt,
    read_image,
)
from indexer.imagery.sources import ImageSource, find_sources
from indexer.sensors import PROFILES, SENTINEL2_BANDS, parse_bands
from tests.synthetic import TRANSFORM, make_chip, make_dn, write_band_folder, write_geotiff

Floats = npt.NDArray[np.float64]

L2A, L1C, EUROSAT = PROFILES["l2a"], PROFILES["l1c"], PROFILES["eurosat"]
# A number of its own for each band, so that a pixel tells which layer it came from.
DN = {band: 1000 + 100 * number for number, band in enumerate(L1C)}
NAN = float("nan")


def source_of(path: Path) -> ImageSource:
    (source,), skipped = find_sources([path])
    assert skipped == []
    return source


def open_scene(path: Path, **options: Any) -> Scene:  # noqa: ANN401 - fields of ReadingOptions
    return Scene.open(source_of(path), ReadingOptions(**options))


def read(path: Path, **options: Any) -> Chip:  # noqa: ANN401 - fields of ReadingOptions
    return open_scene(path, **options).read()


def refusal(path: Path, **options: Any) -> ImageryError:  # noqa: ANN401 - fields of ReadingOptions
    """The error that names the image."""
    with pytest.raises(ImageryError) as caught:
        read(path, **options)
    assert str(path) in caught.value.message
    return caught.value


def flat(*bands: str) -> npt.NDArray[np.uint16]:
    """Layers of one pixel, each with its band's own number."""
    return np.array([DN[band] for band in bands], dtype=np.uint16)[:, None, None]


def assert_bands_as_named(chip: Chip) -> None:
    assert chip.bands == L2A
    expected = [DN[band] / 10_000 for band in L2A]
    np.testing.assert_allclose(chip.reflectance[:, 0, 0], expected, atol=1e-7)


def mixed_resolution(side_m: int, values: Callable[[str, int], Any]) -> dict[str, Any]:
    """A layer for each band at its own pixel size, from ``values(band, pixels a side)``."""
    return {band: values(band, side_m // SENTINEL2_BANDS[band].gsd_m) for band in L2A}


def random_bands(side_m: int, seed: int) -> dict[str, npt.NDArray[np.uint16]]:
    random = np.random.default_rng(seed)
    return mixed_resolution(
        side_m, lambda _, size: random.integers(300, 4000, (size, size), dtype=np.uint16)
    )


def ramp(east_m: Floats, south_m: Floats) -> Floats:
    """Digital numbers that rise by 2 a meter to the east and by 3 a meter to the south."""
    return 1000.0 + 2.0 * east_m[None, :] + 3.0 * south_m[:, None]


def centers_m(size: int, pixel_m: float, first_m: float = 0.0) -> Floats:
    """How far the centers of a row of pixels lie from the edge of the first."""
    return np.linspace(first_m + pixel_m / 2, first_m + (size - 0.5) * pixel_m, size)


# Bands by name


@pytest.mark.parametrize(
    "spell",
    [
        lambda band: band,
        lambda band: band.lower(),
        lambda band: band.replace("B0", "B"),
        lambda band: SENTINEL2_BANDS[band].common_name,
    ],
    ids=["B04", "b04", "B4", "red"],
)
def test_bands_are_found_by_their_descriptions_in_any_order(
    tmp_path: Path, spell: Callable[[str], str]
) -> None:
    order = ("B12", *L1C[:12][::-1])
    path = write_geotiff(tmp_path / "a.tif", flat(*order), [spell(band) for band in order])
    assert_bands_as_named(read(path))


def test_bands_are_found_by_their_file_names(tmp_path: Path) -> None:
    folder = write_band_folder(tmp_path / "patch", {band: flat(band)[0] for band in L1C[::-1]})
    assert_bands_as_named(read(folder))


@pytest.mark.parametrize("order", [EUROSAT, L1C, L2A], ids=["eurosat", "l1c", "l2a"])
def test_bands_are_found_by_a_profile(tmp_path: Path, order: tuple[str, ...]) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat(*order))
    assert_bands_as_named(read(path, bands=order))


def test_bands_are_found_by_a_list_that_passes_layers_over(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat("B10", *L2A[::-1], "B10"))
    assert_bands_as_named(read(path, bands=("-", *L2A[::-1], "-")))


def test_layers_that_are_no_bands_are_passed_over(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat("B10", *L2A, "B10"), ["NDVI", *L2A, None])
    assert_bands_as_named(read(path))


def test_what_the_file_says_outweighs_the_profile(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat(*L1C), L1C)
    assert_bands_as_named(read(path, bands=EUROSAT))
    assert_bands_as_named(read(path, bands=L2A))


@pytest.mark.parametrize(
    "descriptions",
    [
        ["B2", None],
        # Layers that were numbered, not named: B9 is the ninth, which is B8A.
        [f"B{number}" for number in range(1, 13)],
        ["B02"] * 12,
    ],
    ids=["one", "numbers", "repeated"],
)
def test_the_profile_outweighs_a_file_that_does_not_name_all_bands(
    tmp_path: Path, descriptions: list[str | None]
) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat(*L2A), descriptions)
    assert_bands_as_named(read(path, bands=L2A))


@pytest.mark.parametrize("count", [8, 12, 13])
def test_unnamed_bands_are_never_guessed(tmp_path: Path, count: int) -> None:
    error = refusal(write_geotiff(tmp_path / "a.tif", flat(*L1C[:count])))
    assert error.kind == "bands-unknown"
    assert f"its {count} bands" in error.message
    assert "--bands (eurosat, l1c, l2a" in error.message


def test_names_that_nobody_knows_are_quoted(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat("B02", "B03"), ["Band 1", "bands"])
    error = refusal(path)
    assert error.kind == "bands-unknown"
    assert "'Band 1', 'bands'" in error.message


def test_two_layers_of_one_name_are_not_chosen_between(tmp_path: Path) -> None:
    # Two dates in one file, for example.
    path = write_geotiff(tmp_path / "a.tif", flat(*L2A, *L2A), L2A * 2)
    error = refusal(path)
    assert error.kind == "bands-unknown"
    assert "B01, B02" in error.message
    assert_bands_as_named(read(path, bands=L2A + ("-",) * 12))


def test_two_layers_of_classes_are_not_chosen_between(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat(*L2A, "B01", "B01"), [*L2A, "SCL", "SCL"])
    assert refusal(path).kind == "bands-unknown"
    assert_bands_as_named(read(path, bands=(*L2A, "-", "-")))


@pytest.mark.parametrize("count", [11, 13])
def test_a_profile_for_another_number_of_bands_is_refused(tmp_path: Path, count: int) -> None:
    error = refusal(write_geotiff(tmp_path / "a.tif", flat(*L1C[:count])), bands=L2A)
    assert error.kind == "band-count"
    assert f"it has {count} bands, but --bands names 12" in error.message


def test_missing_bands_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat("B02", "B08"), ["B02", "B08"])
    error = refusal(path, wanted=("B02", "B8A", "B09"))
    assert error.kind == "missing-band"
    assert "required band B8A, B09 is missing; it has B02, B08" in error.message


def test_a_band_folder_that_lacks_a_band_is_refused(tmp_path: Path) -> None:
    layers = {band: flat(band)[0] for band in L2A if band != "B11"}
    error = refusal(write_band_folder(tmp_path / "patch", layers))
    assert error.kind == "missing-band"
    assert "required band B11 is missing" in error.message


def test_only_wanted_bands_are_read_in_the_wanted_order(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat("B02", "B04", "B08"), ["B02", "B04", "B08"])
    chip = read(path, wanted=("B08", "B04"))
    assert chip.bands == ("B08", "B04")
    np.testing.assert_allclose(chip.reflectance[:, 0, 0], [DN["B08"] / 1e4, DN["B04"] / 1e4])


def reopened(scene: Scene, *bands: str) -> Chip:
    """Some bands of an image, as it was read the first time."""
    return Scene.reopen(
        source_of(Path(scene.source.location)),
        bands,
        layer_bands=scene.layer_bands,
        baseline=scene.processing_baseline,
    ).read()


@pytest.mark.parametrize(
    ("descriptions", "named"),
    [
        (None, True),
        (L2A, False),
        # Right for the bands that are asked for again, but not enough for all.
        (["B12", "B11", *[None] * 10], True),
        # Numbered, not named: the second layer is not B02.
        ([f"B{number}" for number in range(1, 13)], True),
    ],
    ids=["none", "all", "some", "numbers"],
)
def test_an_image_is_read_again_under_the_names_that_it_had(
    tmp_path: Path, descriptions: list[str | None] | None, named: bool
) -> None:
    order = L2A[::-1] if named else L2A
    path = write_geotiff(tmp_path / "a.tif", flat(*order), descriptions)
    scene = open_scene(path, bands=order)
    assert scene.layer_bands == (order if named else None)
    assert scene.read().layer_bands == scene.layer_bands
    chip = reopened(scene, "B11", "B02")
    assert chip.bands == ("B11", "B02")
    np.testing.assert_allclose(chip.reflectance[:, 0, 0], [DN["B11"] / 1e4, DN["B02"] / 1e4])


def test_layers_that_were_passed_over_are_passed_over_again(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat("B10", "B02", "B10", "B04"))
    scene = open_scene(path, bands=("-", "B02", "SCL", "B04"), wanted=("B02", "B04"))
    chip = reopened(scene, "B04")
    np.testing.assert_allclose(chip.reflectance[:, 0, 0], [DN["B04"] / 1e4])


def test_a_baseline_that_was_told_holds_when_an_image_is_read_again(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat(*L2A), L2A, tags={"PROCESSING_BASELINE": "03.01"})
    scene = open_scene(path, baseline="05.09")
    np.testing.assert_allclose(reopened(scene, "B04").reflectance, (DN["B04"] - 1000) / 1e4)


def test_a_band_that_was_never_named_cannot_be_read_again(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat("B02", "B04"))
    scene = open_scene(path, bands=("B02", "B04"), wanted=("B02",))
    with pytest.raises(ImageryError, match="required band B08 is missing; it has B02, B04") as it:
        reopened(scene, "B08", "B04")
    assert it.value.kind == "missing-band"


def test_of_a_band_at_several_pixel_sizes_the_finest_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "T31TCJ_20170601T105031"
    for suffix, value, size in (("20m", 2000, 2), ("10m", 1000, 4), ("60m", 3000, 1)):
        layer = np.full((size, size), value, dtype=np.uint16)
        write_band_folder(folder, {f"B02_{suffix}": layer})
    chip = read(folder, wanted=("B02",))
    assert chip.shape == (4, 4)
    np.testing.assert_allclose(chip.reflectance, 0.1)


# Coarser bands


def test_a_slope_in_coarser_bands_is_the_same_slope_at_10_m(tmp_path: Path) -> None:
    def slope(band: str, size: int) -> npt.NDArray[np.uint16]:
        along_m = centers_m(size, SENTINEL2_BANDS[band].gsd_m)
        return ramp(along_m, along_m).astype(np.uint16)

    chip = read(write_band_folder(tmp_path / "patch", mixed_resolution(1200, slope)))

    along_m = centers_m(120, 10)
    expected = ramp(along_m, along_m) / 10_000
    assert chip.shape == (120, 120)
    assert chip.transform == TRANSFORM
    # Beyond the centers of the outermost 60 m pixels nothing tells how the slope goes on.
    inner = slice(3, -3)
    for band in L2A:
        np.testing.assert_allclose(
            chip.band(band)[inner, inner], expected[inner, inner], atol=1e-6, err_msg=band
        )


@pytest.mark.parametrize(
    ("hole", "options"), [(0, {}), (65_535, {}), (9999, {"nodata": 9999})], ids=["0", "max", "9999"]
)
def test_nodata_does_not_bleed_into_its_neighbors(
    tmp_path: Path, hole: int, options: dict[str, Any]
) -> None:
    layers = mixed_resolution(1200, lambda _, size: np.full((size, size), 2500, dtype=np.uint16))
    layers["B09"][5, 7] = hole
    chip = read(write_band_folder(tmp_path / "patch", layers, **options))
    # One 60 m pixel is 6 x 6 pixels of 10 m.
    gap = np.zeros((120, 120), dtype=np.bool_)
    gap[30:36, 42:48] = True
    np.testing.assert_array_equal(np.isnan(chip.band("B09")), gap)
    np.testing.assert_array_equal(chip.valid_mask, ~gap)
    np.testing.assert_allclose(chip.band("B09")[~gap], 0.25, rtol=1e-6)


def test_classes_at_20_m_are_repeated_not_mixed(tmp_path: Path) -> None:
    layers: dict[str, Any] = random_bands(120, seed=0)
    layers["SCL"] = np.array([[4, 8], [11, 5]], dtype=np.uint8).repeat(3, 0).repeat(3, 1)
    chip = read(write_band_folder(tmp_path / "patch", layers, side_m=120))
    assert chip.scl is not None
    np.testing.assert_array_equal(chip.scl, layers["SCL"].repeat(2, 0).repeat(2, 1))


def test_bands_need_no_reference_system_to_be_laid_over_each_other(tmp_path: Path) -> None:
    layers: dict[str, Any] = random_bands(1200, seed=1)
    layers["SCL"] = np.full((60, 60), 4, dtype=np.uint8)
    with_crs = read(write_band_folder(tmp_path / "with", layers))
    without = read(write_band_folder(tmp_path / "without", layers, crs=None))
    assert without.crs is None
    np.testing.assert_array_equal(without.reflectance, with_crs.reflectance)
    np.testing.assert_array_equal(without.valid_mask, with_crs.valid_mask)


def test_a_band_shifted_by_part_of_a_pixel_is_interpolated(tmp_path: Path) -> None:
    folder = tmp_path / "patch"
    along_m = centers_m(20, 10)
    write_band_folder(folder, {"B02": ramp(along_m, along_m)}, side_m=200)
    shifted = ramp(centers_m(20, 10, first_m=4.0), along_m)
    to_map = TRANSFORM @ Affine.translation(0.4, 0)
    write_band_folder(folder, {"B03": shifted}, transform=to_map)
    chip = read(folder, wanted=("B02", "B03"))
    np.testing.assert_allclose(chip.band("B03")[:, 1:], chip.band("B02")[:, 1:], atol=1e-6)


@pytest.mark.parametrize("band", ["B05", "SCL"])
@pytest.mark.parametrize(
    "place",
    [
        {"transform": TRANSFORM @ Affine.translation(120, 0) @ Affine.scale(2)},
        {"crs": CRS.from_epsg(32632)},
        {"crs": None},
    ],
    ids=["elsewhere", "other CRS", "no CRS"],
)
def test_bands_of_different_ground_are_no_image(
    tmp_path: Path, band: str, place: dict[str, Any]
) -> None:
    folder = tmp_path / "patch"
    layers: dict[str, Any] = random_bands(1200, seed=0)
    layers["SCL"] = np.full((60, 60), 4, dtype=np.uint8)
    stray = layers.pop(band)
    write_band_folder(folder, layers)
    write_band_folder(folder, {band: stray}, **place)
    error = refusal(folder)
    assert error.kind == "grids-differ"
    assert f"band {band} covers other ground" in error.message


# Windows


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Scene, Chip], ...]:
    """A stack and a band folder of 36 x 36 pixels with gaps and classes, and each as a whole."""
    folder = tmp_path_factory.mktemp("windows")
    layers: dict[str, Any] = random_bands(360, seed=2)
    layers["B01"][1, 4] = layers["B04"][20, 3] = 0
    layers["SCL"] = np.random.default_rng(3).integers(0, 12, (18, 18), dtype=np.uint8)
    stack = np.stack([layers["B04"], layers["B08"], layers["SCL"].repeat(2, 0).repeat(2, 1)])
    write_band_folder(folder / "patch", layers, side_m=360)
    write_geotiff(folder / "stack.tif", stack, ["B04", "B08", "SCL"])
    scenes = (
        open_scene(folder / "patch"),
        open_scene(folder / "stack.tif", wanted=("B04", "B08")),
    )
    return tuple((scene, scene.read()) for scene in scenes)


# A busy machine may take longer than usual to read a file.
@settings(max_examples=40)
@given(st.data())
def test_a_window_is_read_as_it_is_cut_from_the_whole(
    windowed: tuple[tuple[Scene, Chip], ...], data: st.DataObject
) -> None:
    scene, whole = data.draw(st.sampled_from(windowed))
    row, column = data.draw(st.integers(0, 35)), data.draw(st.integers(0, 35))
    height, width = data.draw(st.integers(1, 36 - row)), data.draw(st.integers(1, 36 - column))

    part = scene.read(row, column, height, width)

    expected = whole.window(row, column, height, width)
    # Coarser bands are interpolated anew, with other roundings.
    np.testing.assert_allclose(part.reflectance, expected.reflectance, atol=1e-6)
    np.testing.assert_array_equal(part.valid_mask, expected.valid_mask)
    assert part.scl is not None
    assert expected.scl is not None
    np.testing.assert_array_equal(part.scl, expected.scl)
    assert part.transform.almost_equals(expected.transform)
    assert part.scene == whole.scene


def write_sparse(path: Path, band: str, size: int, pixel_m: float = 10.0) -> Path:
    """A file of one band of which nothing is written but the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_map = TRANSFORM @ Affine.scale(pixel_m / 10)
    grid = {"height": size, "width": size, "crs": "EPSG:32631", "transform": to_map}
    storage = {"sparse_ok": True, "tiled": True, "compress": "deflate", "bigtiff": "yes"}
    with rasterio.open(path, "w", "GTiff", count=1, dtype="uint16", **grid, **storage) as file:
        file.set_band_description(1, band)
    return path


def test_a_window_of_a_huge_scene_takes_the_memory_of_a_window(tmp_path: Path) -> None:
    for band, size, pixel_m in (("B04", 60_000, 10), ("B05", 30_000, 20), ("B01", 10_000, 60)):
        write_sparse(tmp_path / "tile" / f"tile_{band}.tif", band, size, pixel_m)
    scene = open_scene(tmp_path / "tile", wanted=("B01", "B04", "B05"))
    tracemalloc.start()
    chip = scene.read(30_000, 40_000, 120, 120)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert chip.shape == (120, 120)
    # Three bands of 120 x 120 float32 are 0.2 MB; the 60 m band as a whole would be 400 MB.
    assert peak_bytes < 5e6


# Scale, offset and units


PLAIN = "field"
BASELINE_4 = "S2A_MSIL2A_20220601T105031_N0400_R051"
BASELINE_3 = "S2A_MSIL2A_20210601T105031_N0301_R051"
BY_HAND_2022 = "S2A_MSIL2A_20220601T105031_N9999_R051"


@pytest.mark.parametrize(
    ("name", "tags", "option", "baseline", "reflectance"),
    [
        # (3000 + 0) / 10000 or (3000 - 1000) / 10000.
        (PLAIN, {}, None, None, 0.3),
        (PLAIN, {}, "03.01", "03.01", 0.3),
        (PLAIN, {}, "04.00", "04.00", 0.2),
        (BASELINE_4, {}, None, "04.00", 0.2),
        (BASELINE_3, {}, None, "03.01", 0.3),
        (PLAIN, {"PROCESSING_BASELINE": "05.09"}, None, "05.09", 0.2),
        (PLAIN, {"PROCESSING_BASELINE": "N0301"}, None, "03.01", 0.3),
        (PLAIN, {"ACQUISITION_DATE": "2022-01-24"}, None, None, 0.3),
        (PLAIN, {"ACQUISITION_DATE": "2022-01-25"}, None, None, 0.2),
        ("field_2021-07-01", {}, None, None, 0.3),
        ("field_2022-07-01", {}, None, None, 0.2),
        # What stands nearer to the user wins.
        (BASELINE_4, {"PROCESSING_BASELINE": "05.09"}, "03.01", "03.01", 0.3),
        (BASELINE_4, {"PROCESSING_BASELINE": "03.01"}, None, "03.01", 0.3),
        (BASELINE_3, {"ACQUISITION_DATE": "2022-06-01"}, None, "03.01", 0.3),
        # What tells nothing is asked for no more.
        (BASELINE_4, {"PROCESSING_BASELINE": "unknown"}, None, "04.00", 0.2),
        (BASELINE_3, {"PROCESSING_BASELINE": "99.99"}, None, "03.01", 0.3),
        (BY_HAND_2022, {}, None, None, 0.2),
    ],
)
def test_the_offset_follows_from_the_best_knowledge_of_the_baseline(
    tmp_path: Path,
    name: str,
    tags: dict[str, str],
    option: str | None,
    baseline: str | None,
    reflectance: float,
) -> None:
    dn = np.full((1, 1, 1), 3000, dtype=np.uint16)
    path = write_geotiff(tmp_path / f"{name}.tif", dn, ["B04"], tags=tags)
    chip = read(path, wanted=("B04",), baseline=option)
    assert chip.processing_baseline == baseline
    np.testing.assert_allclose(chip.reflectance, reflectance, rtol=1e-6)


def test_dark_pixels_may_become_negative_and_stay_valid(tmp_path: Path) -> None:
    dn = np.array([[[990, 1, 1000, 4000]]], dtype=np.uint16)
    path = write_geotiff(tmp_path / "a.tif", dn, ["B04"])
    chip = read(path, wanted=("B04",), baseline="04.00")
    np.testing.assert_allclose(chip.reflectance, [[[-0.001, -0.0999, 0.0, 0.3]]], atol=1e-7)
    assert chip.valid_mask.all()


@pytest.mark.parametrize("baseline", [None, "03.01", "05.09"])
def test_a_scale_and_offset_that_the_file_declares_are_all_there_is(
    tmp_path: Path, baseline: str | None
) -> None:
    dn = np.array([[[3000, 0, 500]]], dtype=np.uint16)
    path = write_geotiff(tmp_path / "a.tif", dn, ["B04"], nodata=0, scale=0.0001, offset=-0.1)
    chip = read(path, wanted=("B04",), baseline=baseline)
    np.testing.assert_allclose(chip.reflectance, [[[0.2, NAN, -0.05]]], atol=1e-7)


@pytest.mark.parametrize("baseline", [None, "03.01", "05.09"])
def test_a_file_in_units_of_reflectance_stays_as_it_is(
    tmp_path: Path, baseline: str | None
) -> None:
    values = np.array([[[0.3, 0.0005, 1.4, NAN]]], dtype=np.float32)
    path = write_geotiff(tmp_path / "a.tif", values, ["B04"])
    chip = read(path, wanted=("B04",), baseline=baseline)
    np.testing.assert_array_equal(chip.reflectance, values)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_digital_numbers_are_the_same_in_every_type(tmp_path: Path, dtype: str) -> None:
    path = write_geotiff(tmp_path / "a.tif", flat(*L2A).astype(dtype), L2A)
    assert_bands_as_named(read(path))


# Acquisition time


@pytest.mark.parametrize(
    ("name", "tags", "moment"),
    [
        (PLAIN, {}, None),
        (BASELINE_3, {}, datetime(2021, 6, 1, 10, 50, 31, tzinfo=UTC)),
        (PLAIN, {"datetime": "2021-07-23T13:22:41.000000000"}, datetime(2021, 7, 23, 13, 22, 41)),
        (
            PLAIN,
            {"ACQUISITION_DATETIME": "2021-07-23T13:22:41Z"},
            datetime(2021, 7, 23, 13, 22, 41),
        ),
        (PLAIN, {"DATETIME": "2021-07-23T15:22:41+02:00"}, datetime(2021, 7, 23, 13, 22, 41)),
        (PLAIN, {"ACQUISITION_DATE": "20210723"}, datetime(2021, 7, 23)),
        (PLAIN, {"ACQUISITION_DATE": "on 2021-07-23"}, datetime(2021, 7, 23)),
        (BASELINE_3, {"ACQUISITION_DATE": "2021-07-23"}, datetime(2021, 7, 23)),
        (BASELINE_3, {"datetime": "summer"}, datetime(2021, 6, 1, 10, 50, 31)),
        (PLAIN, {"datetime": "summer", "DATETIME": "2021-07-23"}, datetime(2021, 7, 23)),
    ],
)
def test_the_acquisition_time_comes_from_the_tags_else_the_name_in_utc(
    tmp_path: Path, name: str, tags: dict[str, str], moment: datetime | None
) -> None:
    path = write_geotiff(tmp_path / f"{name}.tif", flat("B04"), ["B04"], tags=tags)
    expected = None if moment is None else moment.replace(tzinfo=UTC)
    assert read(path, wanted=("B04",)).acquired_at == expected


# Gaps and clouds


@pytest.mark.parametrize(
    ("dtype", "gap", "nodata"),
    [
        ("uint16", 0, None),
        ("uint16", 65_535, None),
        ("uint16", 65_535, 65_535),
        ("uint16", 7777, 7777),
        ("int16", -1, None),
        ("int16", -9999, -9999),
        ("float32", NAN, None),
        ("float32", NAN, NAN),
        ("float32", 1e20, NAN),
        ("float32", 0.0, 0.0),
    ],
)
def test_a_gap_in_one_band_makes_the_pixel_invalid(
    tmp_path: Path, dtype: str, gap: float, nodata: float | None
) -> None:
    dn = np.full((2, 2, 3), 2500).astype(dtype)
    dn[1, 0, 2] = gap
    path = write_geotiff(tmp_path / "a.tif", dn, ["B04", "B08"], nodata=nodata)
    chip = read(path, wanted=("B04", "B08"))
    np.testing.assert_allclose(chip.band("B04"), 0.25)
    np.testing.assert_allclose(chip.band("B08"), [[0.25, 0.25, NAN], [0.25, 0.25, 0.25]])
    assert chip.valid_mask.tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_an_image_without_any_data_is_read_as_all_gaps(tmp_path: Path, dtype: str) -> None:
    path = write_geotiff(tmp_path / "a.tif", np.zeros((12, 3, 3), dtype=dtype), L2A)
    chip = read(path)
    assert np.isnan(chip.reflectance).all()
    assert not chip.valid_mask.any()


def test_the_classes_decide_what_is_valid_but_take_no_reflectance_away(tmp_path: Path) -> None:
    stack = np.full((3, 1, 12), 2500, dtype=np.uint16)
    stack[2] = np.arange(12)
    path = write_geotiff(tmp_path / "a.tif", stack, ["B04", "B08", "SCL"])
    chip = read(path, wanted=("B04", "B08"))
    assert chip.bands == ("B04", "B08")
    assert chip.scl is not None
    assert chip.scl.tolist() == [list(range(12))]
    assert np.flatnonzero(chip.valid_mask).tolist() == [4, 5, 6]
    np.testing.assert_allclose(chip.reflectance, 0.25)


def test_gaps_among_classes_of_a_float_file_are_class_0(tmp_path: Path) -> None:
    stack = np.array([[[0.1, 0.2]], [[4, NAN]]], dtype=np.float32)
    path = write_geotiff(tmp_path / "a.tif", stack, ["B04", "SCL"])
    chip = read(path, wanted=("B04",))
    assert chip.scl is not None
    assert chip.scl.tolist() == [[4, 0]]
    assert chip.valid_mask.tolist() == [[True, False]]


def test_a_file_without_classes_has_none(tmp_path: Path) -> None:
    assert (
        read(write_geotiff(tmp_path / "a.tif", flat("B04"), ["B04"]), wanted=("B04",)).scl is None
    )


# Bands that metadata point to


def of_layers(*layers: Layer, baseline: str | None = None, told: str | None = None) -> Scene:
    """A scene whose metadata name ``baseline``, read by somebody who says ``told``."""
    return Scene.of_layers(
        ImageSource("item", Path("catalog.json"), ((None, Path("catalog.json")),)),
        layers,
        ReadingOptions(wanted=("B08", "B04"), baseline=told),
        acquired_at=datetime(2023, 6, 1, tzinfo=UTC),
        baseline=baseline,
    )


def test_a_scene_is_made_of_layers_of_several_files(tmp_path: Path) -> None:
    two = str(write_geotiff(tmp_path / "two.tif", flat("B03", "B04")))
    one = str(write_geotiff(tmp_path / "one.tif", flat("B08")))
    scene = of_layers(Layer("B03", two), Layer("B04", two, 2), Layer("B08", one), baseline="02.14")
    chip = scene.read()
    assert (chip.bands, chip.scene, chip.source) == (("B08", "B04"), "item", "catalog.json")
    assert (chip.acquired_at, chip.processing_baseline) == (scene.acquired_at, "02.14")
    expected = [DN["B08"] / 1e4, DN["B04"] / 1e4]
    np.testing.assert_allclose(chip.reflectance[:, 0, 0], expected, atol=1e-7)


@pytest.mark.parametrize(
    ("told", "reflectance"),
    [(None, 2000 * 0.001 + 9), ("05.00", 2000 * 0.001 + 9), ("02.14", 0.2), ("04.00", 0.1)],
    ids=["metadata", "user of the same opinion", "user of another", "another with offset"],
)
def test_the_scaling_of_metadata_holds_unless_the_user_names_another_baseline(
    tmp_path: Path, told: str | None, reflectance: float
) -> None:
    path = str(write_geotiff(tmp_path / "a.tif", np.full((2, 1, 1), 2000, dtype=np.uint16)))
    # More than 10, and yet not taken for digital numbers.
    scaling = Scaling(0.001, 9)
    layers = [Layer("B08", path, 1, scaling), Layer("B04", path, 2, scaling)]
    chip = of_layers(*layers, baseline="05.00", told=told).read()
    np.testing.assert_allclose(chip.reflectance, reflectance, rtol=1e-6)


def test_a_layer_that_a_file_does_not_have_is_refused(tmp_path: Path) -> None:
    path = str(write_geotiff(tmp_path / "a.tif", flat("B08")))
    with pytest.raises(ImageryError, match=r"layer 2 of .*a\.tif, which has 1") as caught:
        of_layers(Layer("B08", path), Layer("B04", path, 2))
    assert caught.value.kind == "missing-band"


def test_a_band_that_metadata_do_not_name_is_refused(tmp_path: Path) -> None:
    path = str(write_geotiff(tmp_path / "a.tif", flat("B08")))
    with pytest.raises(
        ImageryError, match=r"catalog\.json: required band B04 is missing"
    ) as caught:
        of_layers(Layer("B08", path))
    assert caught.value.kind == "missing-band"


# Files that cannot be used


# Where the file names its bands, the names stand at its end; else its end is pixels.
@pytest.mark.parametrize("descriptions", [L2A, None], ids=["named", "unnamed"])
@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_by_name(
    tmp_path: Path, kept: float, descriptions: tuple[str, ...] | None
) -> None:
    path = write_geotiff(tmp_path / "field.tif", make_dn(64), descriptions)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    error = refusal(path, bands=L2A)
    assert error.kind == "unreadable"
    assert "Fetch it again" in error.message


@pytest.mark.parametrize("content", [b"", b"B04;B08\n12;34\n", bytes(range(256)) * 9])
def test_a_file_that_is_no_geotiff_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "field.tif"
    path.write_bytes(content)
    assert refusal(path).kind == "unreadable"


def test_a_band_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    folder = write_band_folder(tmp_path / "patch", {band: flat(band)[0] for band in L2A})
    (folder / "patch_B11.tif").write_text("lost", encoding="utf-8")
    assert refusal(folder).kind == "unreadable"


# rasterio cannot log what GDAL says about damaged bytes where it quotes them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(8))
def test_damaged_headers_never_end_in_anything_but_an_imagery_error(
    tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    path = write_geotiff(tmp_path / "field.tif", make_dn(16), L2A)
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for _ in range(10):
        damaged = content.copy()
        # Some anywhere, some in the header and the names of the bands.
        damaged[random.integers(0, len(content), 12)] = random.integers(0, 256, 12)
        damaged[-random.integers(1, 1500, 6)] = random.integers(0, 256, 6)
        path.write_bytes(damaged.tobytes())
        with suppress(ImageryError):
            read(path)


def test_a_vrt_under_the_name_of_a_geotiff_is_not_followed(tmp_path: Path) -> None:
    secret = write_geotiff(tmp_path / "elsewhere" / "secret.tif", flat("B04"))
    path = tmp_path / "field.tif"
    path.write_text(
        '<VRTDataset rasterXSize="1" rasterYSize="1"><GeoTransform>0,10,0,0,0,-10</GeoTransform>'
        '<VRTRasterBand dataType="UInt16" band="1">'
        f"<Description>B04</Description><SimpleSource><SourceFilename>{secret}</SourceFilename>"
        "</SimpleSource></VRTRasterBand></VRTDataset>",
        encoding="utf-8",
    )
    with rasterio.open(path) as opened:
        assert opened.read(1)[0, 0] == DN["B04"], "the trap works where no driver is named"
    assert refusal(path, wanted=("B04",)).kind == "unreadable"


def test_a_file_named_as_overviews_of_another_is_not_read(tmp_path: Path) -> None:
    secret = write_geotiff(tmp_path / "secret.tif", np.full((1, 8, 8), 7777, dtype=np.uint16))
    layers = {
        "B04": np.full((4, 4), 2500, dtype=np.uint16),
        "SCL": np.full((16, 16), 4, dtype=np.uint16),
    }
    folder = write_band_folder(tmp_path / "patch", layers)
    for file in folder.iterdir():
        with rasterio.open(file, "r+") as opened:
            opened.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(secret))
    chip = read(folder, wanted=("B04",))
    np.testing.assert_allclose(chip.reflectance, 0.25)
    assert chip.scl is not None
    assert (chip.scl == 4).all()


def test_an_image_without_a_reference_system_is_a_chip(tmp_path: Path) -> None:
    chip = read(write_geotiff(tmp_path / "a.tif", flat(*L2A), L2A, crs=None, transform=None))
    assert chip.crs is None
    assert_bands_as_named(chip)


# One image as a whole


def test_a_band_folder_is_one_image(tmp_path: Path) -> None:
    folder = write_band_folder(tmp_path / "patch", {band: flat(band)[0] for band in L2A})
    assert_bands_as_named(read_image(folder, ReadingOptions()))


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"field\.tif: no such file") as caught:
        read_image(tmp_path / "field.tif", ReadingOptions())
    assert caught.value.kind == "file-not-found"


def test_several_images_are_not_one(tmp_path: Path) -> None:
    for name in "ab":
        write_geotiff(tmp_path / f"{name}.tif", flat(*L2A), L2A)
    with pytest.raises(InvalidInputError, match="holds 2 images"):
        read_image(tmp_path, ReadingOptions())


@pytest.mark.parametrize("height", [MAX_CHIP_PX + 1, 100_000])
def test_a_scene_is_no_chip_and_its_pixels_are_not_read(tmp_path: Path, height: int) -> None:
    path = write_sparse(tmp_path / "scene.tif", "B04", height)
    with pytest.raises(ImageryError, match=f"{height} x {height} px is a scene") as caught:
        read_image(path, ReadingOptions(wanted=("B04",)))
    assert caught.value.kind == "too-large"
    assert "--parcels" in caught.value.message


# Doubts about the baseline


def chip_of(*reflectance: float, baseline: str | None) -> Chip:
    """One band; each value fills as many of the pixels as the others."""
    values = np.array(reflectance, dtype=np.float32).repeat(100).reshape(1, -1, 10)
    return make_chip(
        bands=("B04",), reflectance=values, processing_baseline=baseline, acquired_at=None
    )


def test_much_negative_reflectance_says_that_the_offset_was_subtracted_twice() -> None:
    doubt = baseline_doubt(chip_of(-0.05, 0.1, 0.2, 0.3, baseline="05.09"))
    assert doubt is not None
    assert "25% of the reflectance is negative with baseline 05.09" in doubt
    assert "--baseline 03.01" in doubt


@pytest.mark.parametrize("baseline", [None, "03.01"])
def test_a_bright_floor_says_that_the_offset_is_still_in(baseline: str | None) -> None:
    doubt = baseline_doubt(chip_of(0.12, 0.2, 0.3, baseline=baseline))
    assert doubt is not None
    assert "no band falls below reflectance 0.12" in doubt
    assert "--baseline 04.00" in doubt


@pytest.mark.parametrize(
    ("reflectance", "baseline"),
    [
        ((0.03, 0.2, 0.3), "05.09"),
        ((0.03, 0.2, 0.3), None),
        # Cloud or desert, from which the offset was subtracted already.
        ((0.3, 0.4, 0.5), "05.09"),
        # 1 in 24 is below 5 %: noise over dark water.
        ((-0.001, *[0.2] * 23), "05.09"),
        ((NAN, NAN), "05.09"),
    ],
)
def test_plausible_reflectance_raises_no_doubt(
    reflectance: tuple[float, ...], baseline: str | None
) -> None:
    assert baseline_doubt(chip_of(*reflectance, baseline=baseline)) is None


def test_a_band_without_data_raises_no_doubt() -> None:
    reflectance = np.stack([np.full((4, 4), 0.3), np.full((4, 4), NAN)]).astype(np.float32)
    chip = make_chip(bands=("B04", "B08"), reflectance=reflectance, processing_baseline=None)
    assert baseline_doubt(chip) is None


# Real images


def raw(path: Path) -> Floats:
    with rasterio.open(path) as file:
        values: Floats = file.read().astype(np.float64)
    return values


def assert_ndvi(chip: Chip, red: Floats, nir: Floats) -> None:
    """The chip's NDVI is that of the digital numbers."""
    b04, b08 = (chip.band(band).astype(np.float64) for band in ("B04", "B08"))
    np.testing.assert_allclose((b08 - b04) / (b08 + b04), (nir - red) / (nir + red), atol=1e-6)


def assert_plausible(chip: Chip) -> None:
    """Reflectance as of land: hardly ever negative, hardly ever above 1.5, dark somewhere."""
    reflectance = chip.reflectance[:, chip.data_mask]
    assert reflectance.size > 0
    assert (reflectance < 0).mean() < 0.05
    assert (reflectance < 1.5).mean() > 0.99
    assert np.percentile(reflectance, 1, axis=1).min() < 0.1
    assert baseline_doubt(chip) is None


def test_eurosat_is_read_in_its_own_band_order(test_data: Callable[[str], Path]) -> None:
    sources, skipped = find_sources([test_data("eurosat_ms_mini")])
    assert {source.class_name for source in sources} == {"AnnualCrop", "Forest"}
    assert len(sources) == 4
    assert skipped == []
    for source in sources:
        chip = Scene.open(source, ReadingOptions(bands=EUROSAT)).read()
        dn = raw(source.path)
        np.testing.assert_allclose(chip.band("B8A"), dn[12] / 10_000, rtol=1e-6)
        np.testing.assert_allclose(chip.band("B09"), dn[8] / 10_000, rtol=1e-6)
        assert_ndvi(chip, red=dn[3], nir=dn[7])
        assert_plausible(chip)
        # The two near-infrared bands see the same; B09 and B10, which lie where B8A might be
        # looked for, do not.
        assert 0.8 < np.median(chip.band("B8A") / chip.band("B08")) < 1.3


def test_eurosat_is_not_guessed(test_data: Callable[[str], Path]) -> None:
    path = test_data("eurosat_ms_mini") / "Forest" / "Forest_1.tif"
    assert refusal(path).kind == "bands-unknown"


def test_bigearthnet_is_read_at_10_m(test_data: Callable[[str], Path]) -> None:
    sources, _ = find_sources([test_data("bigearthnet_tiny")])
    assert len(sources) == 7
    for source in sources:
        chip = Scene.open(source, ReadingOptions()).read()
        files = {band: raw(path)[0] for band, path in source.files}
        assert chip.shape == (120, 120)
        assert chip.acquired_at is not None
        assert chip.acquired_at.year in (2017, 2018)
        valid = chip.valid_mask
        assert valid.mean() > 0.5
        for band in ("B02", "B04", "B08"):
            expected = files[band][valid] / 10_000
            np.testing.assert_allclose(chip.band(band)[valid], expected, rtol=1e-6)
        assert_plausible(chip)


def test_ndvi_of_bigearthnet_is_that_of_its_files(test_data: Callable[[str], Path]) -> None:
    folder = test_data("bigearthnet_tiny") / "S2A_MSIL2A_20170617T113321_36_85"
    red, nir = (raw(folder / f"{folder.name}_{band}.tif")[0] for band in ("B04", "B08"))
    assert_ndvi(read(folder), red, nir)


@pytest.mark.parametrize("scene", ["282D_485L_3_3", "609U_541L_3_0", "637U_59R_1_3"])
def test_terramesh_level_2a_is_plausible(test_data: Callable[[str], Path], scene: str) -> None:
    path = test_data("terramesh_scenes") / "S2L2A" / f"{scene}.tif"
    chip = read(path, bands=L2A)
    assert_plausible(chip)
    valid = chip.valid_mask
    np.testing.assert_allclose(chip.reflectance[:, valid], raw(path)[:, valid] / 10_000, rtol=1e-6)


@pytest.mark.parametrize(
    ("scene", "right", "wrong"),
    [
        ("282D_485L_3_3", "04.00", "03.01"),
        ("609U_541L_3_0", "04.00", "03.01"),
        ("637U_59R_1_3", "03.01", "04.00"),
    ],
)
def test_terramesh_level_1c_is_plausible_with_its_own_baseline_only(
    test_data: Callable[[str], Path], scene: str, right: str, wrong: str
) -> None:
    path = test_data("terramesh_scenes") / "S2L1C" / f"{scene}.tif"
    assert_plausible(read(path, bands=L1C, baseline=right))
    doubt = baseline_doubt(read(path, bands=L1C, baseline=wrong))
    assert doubt is not None
    assert f"--baseline {right}" in doubt


def test_boadella_is_read_in_degrees(test_data: Callable[[str], Path]) -> None:
    path = test_data("eotdl_boadella") / "Boadella_2020-01-28.tif"
    chip = read(path, bands=L2A)
    assert chip.crs == CRS.from_epsg(4326)
    assert chip.acquired_at == datetime(2020, 1, 28, tzinfo=UTC)
    west, south, east, north = chip.bounds
    # The reservoir of Boadella lies at 2.82 degrees east and 42.35 degrees north.
    assert west < 2.82 < east
    assert south < 42.35 < north
    assert_plausible(chip)


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        ("worldcereal_belgium_series", "B01, B8A, B09"),
        ("swiss_future_farm_2022", "B01, B08, B09"),
    ],
)
def test_a_series_that_lacks_bands_is_refused_by_their_names(
    test_data: Callable[[str], Path], data: str, missing: str
) -> None:
    sources, _ = find_sources([test_data(data)])
    assert len(sources) > 9
    for source in sources:
        with pytest.raises(ImageryError, match=f"required band {missing} is missing") as caught:
            Scene.open(source, ReadingOptions())
        assert caught.value.kind == "missing-band"
        assert source.path.name in caught.value.message


def test_two_windows_of_four_bands_are_not_taken_for_eight(
    test_data: Callable[[str], Path],
) -> None:
    path = test_data("ftw_two_window_austria") / "inference-img.tif"
    assert refusal(path).kind == "bands-unknown"
    error = refusal(path, bands=L2A)
    assert error.kind == "band-count"
    assert "it has 8 bands" in error.message


@pytest.mark.parametrize(
    ("bands", "kind"), [(None, "bands-unknown"), ("B02,B03,B04,B08", "missing-band")]
)
def test_four_bands_are_refused_named_or_not(
    test_data: Callable[[str], Path], bands: str | None, kind: str
) -> None:
    path = test_data("wheat_mustard_india") / "rasterlayer_11_37.tif"
    error = refusal(path, bands=None if bands is None else parse_bands(bands))
    assert error.kind == kind
    if bands is not None:
        assert "B01, B05, B06, B07, B8A, B09, B11, B12" in error.message


def test_integers_are_digital_numbers_however_small(tmp_path: Path) -> None:
    path = write_geotiff(
        tmp_path / "dark.tif", np.full((12, 4, 4), 9, dtype=np.uint16), descriptions=PROFILES["l2a"]
    )
    chip = read_image(path, ReadingOptions(baseline="03.01"))
    np.testing.assert_allclose(chip.reflectance, 9 / 10_000, rtol=1e-6)
