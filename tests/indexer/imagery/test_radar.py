"""Backscatter in dB, whatever the units of the file."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from indexer.errors import ImageryError
from indexer.imagery.chip import Chip, FloatArray
from indexer.imagery.preview import Style, draw_preview
from indexer.imagery.radar import decibels, linear_power, radar_gaps
from indexer.imagery.radar_preview import shown_radar
from indexer.imagery.reader import Layer, ReadingOptions, Scaling, Scene, baseline_doubt
from indexer.imagery.sources import ImageSource, find_sources
from indexer.sensors import MODALITY_BANDS, PROFILES, RADAR_BANDS, parse_bands
from tests.synthetic import TRANSFORM, make_chip, make_dn, write_band_folder, write_geotiff

NAN = float("nan")
# Power and what it is in dB, by hand: 10 log10(0.1) and so on.
POWER = np.array([[[0.1, 1.0]], [[0.01, 0.001]]], dtype=np.float32)
DECIBELS = np.array([[[-10.0, 0.0]], [[-20.0, -30.0]]], dtype=np.float32)

land_db = hnp.arrays(np.float32, (2, 3, 3), elements=st.floats(-30, -1, width=32))


def of(*rows: list[float]) -> FloatArray:
    """A row of pixels for each polarization, shape ``(band, 1, x)``."""
    return np.array(rows, dtype=np.float32)[:, None, :]


# Units


def test_linear_power_becomes_ten_times_its_logarithm() -> None:
    np.testing.assert_allclose(decibels(POWER), DECIBELS, atol=1e-5)


def test_decibels_stay_as_they_are() -> None:
    np.testing.assert_array_equal(decibels(DECIBELS), DECIBELS)


@given(land_db)
def test_power_and_decibels_of_the_same_ground_read_alike(backscatter: FloatArray) -> None:
    np.testing.assert_allclose(
        decibels(linear_power(backscatter)), decibels(backscatter), atol=1e-4
    )


def test_the_lower_polarization_tells_the_units_where_a_city_is_above_0_db() -> None:
    city = of([3.0, 5.0, 1.0], [-4.0, -2.0, -3.0])
    np.testing.assert_array_equal(decibels(city), city)


def test_power_from_which_noise_was_taken_off_is_no_decibels() -> None:
    water = of([0.01, 0.02, 0.01], [-0.001, -0.002, 0.001])
    expected = of([-20, 10 * np.log10(0.02), -20], [NAN, NAN, -30])
    np.testing.assert_allclose(decibels(water), expected, atol=1e-4)


def test_no_decibels_are_made_up_where_there_is_no_data() -> None:
    nothing = of([NAN, 0.0], [NAN, 0.0])
    assert np.isnan(decibels(nothing)).all()


def test_power_of_0_is_no_data_in_one_polarization_alone() -> None:
    np.testing.assert_allclose(
        decibels(of([0.1, 0.0], [0.0, 0.01])), of([-10, NAN], [NAN, -20]), atol=1e-5
    )


def test_0_db_is_backscatter_unless_both_polarizations_say_so() -> None:
    border = of([0.0, 0.0, -5.0], [0.0, -9.0, -12.0])
    np.testing.assert_array_equal(decibels(border), of([NAN, 0.0, -5.0], [NAN, -9.0, -12.0]))


def test_a_wide_border_of_zeros_does_not_hide_the_units() -> None:
    border = of([0.0] * 9 + [-8.0], [0.0] * 9 + [-14.0])
    assert decibels(border)[:, 0, 9].tolist() == [-8.0, -14.0]


# Gaps


@pytest.mark.parametrize("missing", [NAN, float("inf"), -float("inf"), -9999.0, -32768.0, 1e20])
def test_what_is_no_backscatter_is_a_gap(missing: float) -> None:
    raw = of([missing, -12.0], [missing, -18.0])
    np.testing.assert_array_equal(decibels(radar_gaps(raw, None)), of([NAN, -12], [NAN, -18]))


def test_numbers_that_fill_gaps_do_not_hide_the_units() -> None:
    power = of([-9999.0, -9999.0, 0.1], [-9999.0, -9999.0, 0.01])
    np.testing.assert_allclose(decibels(power)[:, 0, 2], [-10, -20], atol=1e-5)


def test_the_declared_nodata_is_a_gap_however_plausible() -> None:
    raw = np.array([-50.0, -12.0])
    np.testing.assert_array_equal(radar_gaps(raw, -50.0), np.array([NAN, -12], dtype=np.float32))


def test_0_is_no_gap_by_itself() -> None:
    assert radar_gaps(np.array([0.0]), None).tolist() == [0.0]


def test_gaps_leave_the_raw_values_alone() -> None:
    raw = np.array([-9999.0, -12.0], dtype=np.float32)
    radar_gaps(raw, -12.0)
    assert raw.tolist() == [-9999.0, -12.0]


# Scenes


def source_of(path: Path) -> ImageSource:
    (source,), skipped = find_sources([path])
    assert skipped == []
    return source


def open_radar(path: Path, **options: Any) -> Scene:  # noqa: ANN401 - fields of ReadingOptions
    return Scene.open(source_of(path), ReadingOptions(**{"wanted": RADAR_BANDS} | options))


def read(path: Path, **options: Any) -> Chip:  # noqa: ANN401 - fields of ReadingOptions
    return open_radar(path, **options).read()


def refusal(path: Path, **options: Any) -> ImageryError:  # noqa: ANN401 - fields of ReadingOptions
    with pytest.raises(ImageryError) as caught:
        read(path, **options)
    assert str(path) in caught.value.message
    return caught.value


def test_polarizations_are_found_by_their_descriptions_in_any_order(tmp_path: Path) -> None:
    angle = np.full((1, 1, 2), 38.0, dtype=np.float32)
    stack = np.concatenate([DECIBELS[::-1], angle])
    chip = read(write_geotiff(tmp_path / "a.tif", stack, ["VH", "Sigma0_VV_db", "angle"]))
    assert chip.bands == ("VV", "VH")
    np.testing.assert_array_equal(chip.reflectance, DECIBELS)
    assert chip.valid_mask.all()
    assert chip.scl is None
    assert chip.processing_baseline is None


def test_radar_has_no_processing_baseline_of_sentinel_2(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", DECIBELS, RADAR_BANDS)
    chip = read(path, baseline="05.09")
    assert chip.processing_baseline is None
    np.testing.assert_array_equal(chip.reflectance, DECIBELS)


@pytest.mark.parametrize("bands", ["s1", "VV,VH", "vv, vh"])
def test_polarizations_without_names_are_named_by_an_option(tmp_path: Path, bands: str) -> None:
    path = write_geotiff(tmp_path / "a.tif", POWER)
    np.testing.assert_allclose(
        read(path, bands=parse_bands(bands)).reflectance, DECIBELS, atol=1e-5
    )
    assert refusal(path).kind == "bands-unknown"


def test_a_file_for_each_polarization_is_one_image(tmp_path: Path) -> None:
    folder = write_band_folder(
        tmp_path / "S1A_IW_GRDH_1SDV_20230601T054321_20230601T054346_rtc",
        {"VV": POWER[0], "VH": POWER[1]},
    )
    chip = read(folder)
    np.testing.assert_allclose(chip.reflectance, DECIBELS, atol=1e-5)
    assert chip.acquired_at == datetime(2023, 6, 1, 5, 43, 21, tzinfo=UTC)


def test_the_names_of_sentinel_1_itself_are_understood(tmp_path: Path) -> None:
    took = "20230601t054321-20230601t054346-048789-05de19"
    for number, band in enumerate(("vv", "vh")):
        path = tmp_path / f"s1a-iw-grd-{band}-{took}-00{number + 1}.tiff"
        write_geotiff(path, DECIBELS[number : number + 1])
    chip = read(tmp_path)
    np.testing.assert_array_equal(chip.reflectance, DECIBELS)
    assert chip.scene == f"s1a-iw-grd-{took}"
    assert chip.acquired_at == datetime(2023, 6, 1, 5, 43, 21, tzinfo=UTC)


@pytest.mark.parametrize("value", [0.0, NAN, -9999.0])
def test_a_border_is_not_valid(tmp_path: Path, value: float) -> None:
    stack = np.full((2, 2, 2), -12.0, dtype=np.float32)
    stack[:, 0] = value
    chip = read(write_geotiff(tmp_path / "a.tif", stack, RADAR_BANDS))
    assert chip.valid_mask.tolist() == [[False, False], [True, True]]
    assert np.isnan(chip.reflectance[:, 0]).all()


def test_integers_are_refused_with_what_to_do(tmp_path: Path) -> None:
    dn = np.full((2, 2, 2), 300, dtype=np.uint16)
    error = refusal(write_geotiff(tmp_path / "a.tif", dn, RADAR_BANDS))
    assert error.kind == "not-calibrated"
    assert "uint16" in error.message
    assert "calibrate" in error.message


def test_integers_are_read_where_the_file_says_what_they_mean(tmp_path: Path) -> None:
    hundredths = np.array([[[-1000, 0]], [[-2000, -3000]]], dtype=np.int16)
    chip = read(write_geotiff(tmp_path / "a.tif", hundredths, RADAR_BANDS, scale=0.01))
    np.testing.assert_allclose(chip.reflectance, DECIBELS, atol=1e-5)


def test_horizontal_polarizations_are_refused_by_name(tmp_path: Path) -> None:
    error = refusal(write_geotiff(tmp_path / "a.tif", DECIBELS, ["HH", "HV"]))
    assert error.kind == "missing-band"
    assert "VV, VH is missing; it has HH, HV" in error.message


def test_a_window_of_a_radar_image_is_that_part_of_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    stack = random.uniform(-25, -5, (2, 12, 10)).astype(np.float32)
    scene = open_radar(write_geotiff(tmp_path / "a.tif", stack, RADAR_BANDS))
    np.testing.assert_array_equal(scene.read(2, 3, 4, 5).reflectance, stack[:, 2:6, 3:8])


def test_reflectance_and_backscatter_may_lie_in_one_file(tmp_path: Path) -> None:
    optical = np.full((12, 1, 2), 1500, dtype=np.float32)
    path = write_geotiff(
        tmp_path / "a.tif", np.concatenate([POWER, optical]), ["VV", "VH", *PROFILES["l2a"]]
    )
    chip = read(path, wanted=MODALITY_BANDS["joint"], baseline="03.01")
    assert chip.bands == (*PROFILES["l2a"], "VV", "VH")
    np.testing.assert_allclose(chip.reflectance[:12], 0.15, atol=1e-6)
    np.testing.assert_allclose(chip.reflectance[12:], DECIBELS, atol=1e-5)


def test_optical_values_are_as_without_the_radar_beside_them(tmp_path: Path) -> None:
    optical = np.full((12, 1, 2), 0.15, dtype=np.float32)
    optical[:, 0, 1] = 0.0
    stack = np.concatenate([optical, DECIBELS])
    path = write_geotiff(tmp_path / "a.tif", stack, MODALITY_BANDS["joint"])
    chip = read(path, wanted=MODALITY_BANDS["joint"])
    alone = read(path, wanted=PROFILES["l2a"])
    np.testing.assert_array_equal(chip.reflectance[:12], alone.reflectance)
    assert chip.valid_mask.tolist() == [[True, False]]


def test_radar_of_larger_pixels_is_averaged_as_power_and_without_its_border(tmp_path: Path) -> None:
    bands: dict[str, npt.NDArray[Any]] = dict(zip(PROFILES["l2a"], make_dn(8), strict=True))
    for band in RADAR_BANDS:
        # A border of zeros, then stripes of -10 and -30 dB, in pixels of 20 m.
        bands[band] = np.tile(np.array([0, -10, -30, -10], dtype=np.float32), (4, 1))
    folder = write_band_folder(tmp_path / "both", bands, side_m=80)
    vv = read(folder, wanted=MODALITY_BANDS["joint"]).band("VV")
    # The fourth pixel of 10 m lies a quarter of the way from 0.1 to 0.001.
    np.testing.assert_allclose(vv[:, 3], 10 * np.log10(0.75 * 0.1 + 0.25 * 0.001), atol=1e-3)
    assert np.isnan(vv[:, 0]).all()
    assert np.nanmax(vv) < -9.99


def test_metadata_may_say_what_integers_mean(tmp_path: Path) -> None:
    hundredths = np.array([[[-1000, 0]], [[-2000, -3000]]], dtype=np.int16)
    path = write_geotiff(tmp_path / "a.tif", hundredths)
    stated = [
        Layer(band, str(path), number, Scaling(0.01, 0.0))
        for number, band in enumerate(RADAR_BANDS, start=1)
    ]
    silent = [Layer(band, str(path), number) for number, band in enumerate(RADAR_BANDS, start=1)]
    options = ReadingOptions(wanted=RADAR_BANDS)
    known: dict[str, Any] = {"acquired_at": None, "baseline": None}
    chip = Scene.of_layers(source_of(path), stated, options, **known).read()
    np.testing.assert_allclose(chip.reflectance, DECIBELS, atol=1e-5)
    with pytest.raises(ImageryError, match="int16") as caught:
        Scene.of_layers(source_of(path), silent, options, **known)
    assert caught.value.kind == "not-calibrated"


# Doubts


def test_radar_raises_no_doubt_about_the_processing_baseline() -> None:
    assert baseline_doubt(make_chip(8, RADAR_BANDS, reflectance=np.full((2, 8, 8), -12.0))) is None


def test_radar_hides_no_doubt_about_the_optical_bands_beside_it() -> None:
    bright = np.full((14, 8, 8), 0.3, dtype=np.float32)
    bright[12:] = -12.0
    chip = make_chip(8, MODALITY_BANDS["joint"], reflectance=bright, processing_baseline="03.01")
    doubt = baseline_doubt(chip)
    assert doubt is not None
    assert "--baseline 04.00" in doubt


# Pictures


def shown(tmp_path: Path, style: Style, values: FloatArray) -> Chip:
    scene = open_radar(write_geotiff(tmp_path / "a.tif", values, RADAR_BANDS))
    return shown_radar(scene, style).read()


def test_a_picture_of_radar_is_gray(tmp_path: Path) -> None:
    chip = shown(tmp_path, "true-color", of([-22.0, -11.0, 0.0], [-25.0, -20.0, -15.0]))
    for band in chip.reflectance:
        np.testing.assert_allclose(band, [[0.0, 0.5, 1.0]], atol=1e-6)


def test_false_color_shows_both_polarizations_and_their_ratio(tmp_path: Path) -> None:
    chip = shown(tmp_path, "false-color", of([-11.0], [-18.0]))
    # VV in the middle of -22 to 0 dB, VH of -29 to -7, and 7 dB between 2 and 14.
    np.testing.assert_allclose(chip.reflectance[:, 0, 0], [0.5, 0.5, 5 / 12], atol=1e-6)


def test_a_picture_of_radar_can_be_drawn(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.uniform(-25, -5, (2, 16, 16)).astype(np.float32)
    values[:, 0] = NAN
    scene = open_radar(write_geotiff(tmp_path / "a.tif", values, RADAR_BANDS))
    drawn = draw_preview(shown_radar(scene, "true-color"), None, "true-color", 16)
    pixels = np.asarray(Image.open(io.BytesIO(drawn)))
    assert (pixels[0, :, 3] == 0).all()
    assert (pixels[1:, :, 3] == 255).all()
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
    # What is brighter in VV is no darker in the picture.
    order = np.argsort(values[0, 1:].ravel())
    assert (np.diff(pixels[1:, :, 0].ravel()[order].astype(int)) >= 0).all()


# Real data


@pytest.mark.parametrize("name", ["637U_59R_1_3", "282D_485L_3_3"])
def test_real_radar_lies_where_land_lies(test_data: Callable[[str], Path], name: str) -> None:
    folder = test_data("terramesh_scenes")
    chip = read(folder / "S1RTC" / f"{name}.tif", bands=RADAR_BANDS)
    assert chip.valid_mask.all()
    vv, vh = np.median(chip.reflectance, axis=(1, 2)).tolist()
    assert -20 < vv < -5
    assert vh < vv
    assert chip.acquired_at is not None
    assert chip.transform.a == TRANSFORM.a
