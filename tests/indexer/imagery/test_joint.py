"""Optical images and the radar images of their days."""

import pickle
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from indexer.imagery.chip import FloatArray
from indexer.imagery.joint import JointImage, JointSources, find_pairs, pair_with_radar
from indexer.imagery.layers import ReadingOptions
from indexer.imagery.reader import Scene
from indexer.imagery.sources import ImageSource, Source, find_sources
from indexer.sensors import MODALITY_BANDS, PROFILES, RADAR_BANDS, parse_bands
from tests.synthetic import TRANSFORM, UTM_31, make_dn, write_band_folder, write_geotiff

L2A = PROFILES["l2a"]
NOON = datetime(2023, 6, 10, 12, tzinfo=UTC)
NAN = float("nan")


def days(number: float) -> str:
    """A time so many days after the optical image's, as files tell it."""
    return (NOON + timedelta(days=number)).isoformat()


def write_optical(path: Path, size: int = 16, time: str | None = days(0), **options: Any) -> Path:  # noqa: ANN401
    tags = {} if time is None else {"ACQUISITION_DATETIME": time}
    return write_geotiff(path, make_dn(size), L2A, tags=tags, **options)


def write_radar(
    path: Path,
    backscatter: float | npt.NDArray[np.float32] = -10.0,
    time: str | None = days(0),
    size: int = 16,
    **options: Any,  # noqa: ANN401 - handed on to write_geotiff
) -> Path:
    """A radar image in dB; of one number, VV has it everywhere and VH 7 dB less."""
    if isinstance(backscatter, float):
        vv = np.full((size, size), backscatter, dtype=np.float32)
        backscatter = np.stack([vv, vv - 7])
    tags = {} if time is None else {"ACQUISITION_DATETIME": time}
    return write_geotiff(path, backscatter, RADAR_BANDS, tags=tags, **options)


def opened(source: Source, options: ReadingOptions) -> Scene:
    assert isinstance(source, ImageSource)
    return Scene.open(source, options)


def scene(path: Path, wanted: Sequence[str]) -> Scene:
    (source,), _ = find_sources([path])
    return Scene.open(source, ReadingOptions(wanted=tuple(wanted)))


def joint(optical: Path, *radar: Path) -> JointImage:
    return JointImage(scene(optical, L2A), tuple(scene(path, RADAR_BANDS) for path in radar))


def paired(optical: Path, *radar: Path) -> list[str]:
    """Names of the radar images that belong to an optical one, the nearest first."""
    pairing = pair_with_radar([scene(optical, L2A)], [scene(path, RADAR_BANDS) for path in radar])
    return [one.source.name for pair in pairing.pairs for one in pair.radar]


def moved(right_px: float, down_px: float, pixel: float = 1.0) -> Affine:
    """The grid of the optical images, shifted, with larger or smaller pixels."""
    return TRANSFORM @ Affine.translation(right_px, down_px) @ Affine.scale(pixel)


def found(folder: Path, *, bands: str | None = None, baseline: str | None = None) -> JointSources:
    sources, _ = find_sources([folder])
    named = None if bands is None else parse_bands(bands)
    return find_pairs(sources, ReadingOptions(bands=named, baseline=baseline), opened)


# Chips


def test_backscatter_lies_beside_the_reflectance_of_the_same_ground(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    stack = random.uniform(-25, -5, (2, 40, 30)).astype(np.float32)
    optical = write_optical(tmp_path / "o.tif")
    # Radar that begins 5 px further left and 7 px further up.
    radar = write_radar(tmp_path / "r.tif", stack, transform=moved(-5, -7))
    chip = joint(optical, radar).read()
    assert chip.bands == MODALITY_BANDS["joint"]
    np.testing.assert_array_equal(chip.reflectance[:12], scene(optical, L2A).read().reflectance)
    np.testing.assert_array_equal(chip.reflectance[12:], stack[:, 7:23, 5:21])
    assert chip.valid_mask.all()
    assert chip.scene == "o"
    assert chip.source == str(optical)
    assert chip.acquired_at == NOON


def test_a_window_of_a_joint_image_is_that_part_of_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    stack = random.uniform(-25, -5, (2, 16, 16)).astype(np.float32)
    image = joint(write_optical(tmp_path / "o.tif"), write_radar(tmp_path / "r.tif", stack))
    whole, part = image.read(), image.read(3, 4, 5, 6)
    np.testing.assert_array_equal(part.reflectance, whole.window(3, 4, 5, 6).reflectance)
    assert part.transform == whole.window(3, 4, 5, 6).transform


def test_a_pixel_is_valid_where_both_instruments_saw_it(tmp_path: Path) -> None:
    stack = np.full((2, 16, 16), -12.0, dtype=np.float32)
    stack[0, :, :4] = NAN
    dn = make_dn(16)
    dn[0, :2] = 0
    classes = np.full((1, 16, 16), 4, dtype=np.uint16)
    classes[0, 8:] = 9
    optical = write_geotiff(tmp_path / "o.tif", np.concatenate([dn, classes]), [*L2A, "SCL"])
    chip = joint(optical, write_radar(tmp_path / "r.tif", stack)).read()
    expected = np.zeros((16, 16), dtype=bool)
    expected[2:8, 4:] = True
    np.testing.assert_array_equal(chip.valid_mask, expected)
    assert chip.scl is not None


def test_what_the_nearest_radar_did_not_see_comes_from_the_next(tmp_path: Path) -> None:
    stack = np.full((2, 16, 16), -12.0, dtype=np.float32)
    stack[:, :, :6] = NAN
    nearest = write_radar(tmp_path / "near.tif", stack)
    # The second begins at column 4; nothing sees columns 0 to 3.
    second = write_radar(tmp_path / "next.tif", -20.0, transform=moved(4, 0))
    chip = joint(write_optical(tmp_path / "o.tif"), nearest, second).read()
    vv = chip.band("VV")
    assert np.isnan(vv[:, :4]).all()
    assert (vv[:, 4:6] == -20).all()
    assert (vv[:, 6:] == -12).all()
    assert chip.valid_mask.sum() == 16 * 12


def test_radar_that_is_not_needed_is_not_read(tmp_path: Path) -> None:
    nearest, second = (write_radar(tmp_path / f"{name}.tif") for name in ("near", "next"))
    image = joint(write_optical(tmp_path / "o.tif"), nearest, second)
    second.unlink()
    assert image.read().valid_mask.all()


def test_power_is_averaged_and_not_decibels(tmp_path: Path) -> None:
    vv = np.tile(np.array([-10.0, -30.0], dtype=np.float32), (16, 8))
    radar = write_radar(tmp_path / "r.tif", np.stack([vv, vv]), transform=moved(0.5, 0))
    chip = joint(write_optical(tmp_path / "o.tif"), radar).read()
    # Halfway between powers of 0.1 and 0.001.
    np.testing.assert_allclose(
        chip.band("VV")[2:-2, 2:-2], 10 * np.log10((0.1 + 0.001) / 2), atol=1e-3
    )


def test_radar_of_larger_pixels_is_brought_to_the_optical_grid(tmp_path: Path) -> None:
    radar = write_radar(tmp_path / "r.tif", -13.0, size=10, transform=moved(-2, -2, pixel=2))
    chip = joint(write_optical(tmp_path / "o.tif"), radar).read()
    np.testing.assert_allclose(chip.band("VV"), -13, atol=1e-4)
    np.testing.assert_allclose(chip.band("VH"), -20, atol=1e-4)


def rising_east(x: FloatArray, west: float) -> Any:  # noqa: ANN401 - an array of any float
    """Power that rises by a thousandth for each meter to the east."""
    return 0.1 + 0.001 * (x - west)


def test_radar_of_another_zone_is_brought_to_the_optical_grid(tmp_path: Path) -> None:
    # At 6 degrees east, where zones 31 and 32 meet.
    x, y = Transformer.from_crs("EPSG:4326", UTM_31, always_xy=True).transform(6.0, 45.0)
    grid = Affine(10, 0, round(x), 0, -10, round(y))
    zone_32 = CRS.from_epsg(32632)
    x_32, y_32 = Transformer.from_crs(UTM_31, zone_32, always_xy=True).transform(grid.c, grid.f)
    other = Affine(10, 0, x_32 - 300, 0, -10, y_32 + 300)
    columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(80) + 0.5)
    to_31 = Transformer.from_crs(zone_32, UTM_31, always_xy=True)
    east, _ = to_31.transform(*(other @ (columns.ravel(), rows.ravel())))
    power = rising_east(np.reshape(east, (80, 80)), grid.c - 500).astype(np.float32)
    optical = write_optical(tmp_path / "o.tif", transform=grid)
    radar = write_geotiff(
        tmp_path / "r.tif",
        np.stack([power, power / 10]),
        RADAR_BANDS,
        crs=zone_32,
        transform=other,
        tags={"ACQUISITION_DATETIME": days(0)},
    )
    assert paired(optical, radar) == ["r"]
    chip = joint(optical, radar).read()
    centers = grid.c + 10 * (np.arange(16) + 0.5)
    expected = np.tile(10 * np.log10(rising_east(centers, grid.c - 500)), (16, 1))
    # A quarter of a pixel, the precision of GDAL's grid, is 0.0025 in about 0.6.
    np.testing.assert_allclose(chip.band("VV"), expected, atol=0.02)
    np.testing.assert_allclose(chip.band("VH"), expected - 10, atol=0.02)


def test_the_grid_is_that_of_the_optical_image(tmp_path: Path) -> None:
    image = joint(
        write_optical(tmp_path / "o.tif"),
        write_radar(tmp_path / "r.tif", transform=moved(-3, -3, pixel=2)),
    )
    optical = image.optical
    assert (image.shape, image.transform, image.crs) == ((16, 16), TRANSFORM, UTM_31)
    assert image.bounds == optical.bounds
    assert image.source is optical.source


# Pairs


@pytest.mark.parametrize(("apart", "belongs"), [(0, True), (6, True), (-6, True), (6.01, False)])
def test_radar_of_up_to_six_days_belongs_to_an_optical_image(
    tmp_path: Path, apart: float, belongs: bool
) -> None:
    radar = write_radar(tmp_path / "r.tif", time=days(apart))
    assert paired(write_optical(tmp_path / "o.tif"), radar) == (["r"] if belongs else [])


def test_the_nearest_radar_comes_first(tmp_path: Path) -> None:
    radar = [
        write_radar(tmp_path / f"{name}.tif", time=days(apart))
        for name, apart in (("late", 5), ("near", -1), ("early", -3), ("far", 9))
    ]
    assert paired(write_optical(tmp_path / "o.tif"), *radar) == ["near", "early", "late"]


def test_radar_beside_an_optical_image_does_not_belong_to_it(tmp_path: Path) -> None:
    radar = write_radar(tmp_path / "r.tif", transform=moved(16, 0))
    assert paired(write_optical(tmp_path / "o.tif"), radar) == []


def test_radar_on_the_other_side_of_the_earth_does_not_belong(tmp_path: Path) -> None:
    # The same numbers in another zone lie elsewhere.
    radar = write_radar(tmp_path / "r.tif", crs=CRS.from_epsg(32655))
    assert paired(write_optical(tmp_path / "o.tif"), radar) == []


def test_an_image_without_time_belongs_to_one_of_its_name(tmp_path: Path) -> None:
    radar = [
        write_radar(tmp_path / "S1RTC" / "637U.tif", time=days(300)),
        write_radar(tmp_path / "S1RTC" / "282D.tif", time=days(0)),
    ]
    assert paired(write_optical(tmp_path / "S2" / "637U.tif", time=None), *radar) == ["637U"]


def test_radar_without_time_belongs_to_an_image_of_its_name(tmp_path: Path) -> None:
    optical = write_optical(tmp_path / "spring_s2_p30.tif")
    radar = [write_radar(tmp_path / f"spring_s1_p{number}.tif", time=None) for number in (30, 31)]
    assert paired(optical, *radar) == ["spring_s1_p30"]


def test_images_without_a_place_are_paired_by_name_and_shape(tmp_path: Path) -> None:
    nowhere: dict[str, Any] = {"crs": None, "transform": None}
    optical = write_optical(tmp_path / "S2" / "a.tif", **nowhere)
    radar = [
        write_radar(tmp_path / "S1" / "a.tif", **nowhere),
        write_radar(tmp_path / "S1" / "b.tif", **nowhere),
        write_radar(tmp_path / "small" / "a.tif", size=8, **nowhere),
    ]
    pairing = pair_with_radar([scene(optical, L2A)], [scene(path, RADAR_BANDS) for path in radar])
    assert [one.source.location for one in pairing.pairs[0].radar] == [str(radar[0])]
    assert (pairing.pairs[0].read().band("VV") == -10).all()


# The edge of zones 60 and 1; what lies west of it in one is 180 degrees east in the other.
@pytest.mark.parametrize(("zone", "other", "longitude"), [(60, 1, 179.9995), (1, 60, -179.9995)])
def test_images_meet_across_the_180th_meridian(
    tmp_path: Path, zone: int, other: int, longitude: float
) -> None:
    here, there = (CRS.from_epsg(32600 + number) for number in (zone, other))
    x, y = Transformer.from_crs("EPSG:4326", here, always_xy=True).transform(longitude, 52.0)
    x_2, y_2 = Transformer.from_crs(here, there, always_xy=True).transform(x, y)
    optical = write_optical(tmp_path / "o.tif", crs=here, transform=Affine(10, 0, x, 0, -10, y))
    grid = Affine(10, 0, x_2 - 100, 0, -10, y_2 + 100)
    radar = write_radar(tmp_path / "r.tif", crs=there, transform=grid, size=60)
    assert paired(optical, radar) == ["r"]
    np.testing.assert_allclose(joint(optical, radar).read().band("VV"), -10, atol=1e-4)


def test_an_optical_image_without_radar_says_which_came_nearest(tmp_path: Path) -> None:
    optical = write_optical(tmp_path / "o.tif")
    radar = [write_radar(tmp_path / f"r{apart}.tif", time=days(apart)) for apart in (-20, 9, 30)]
    pairing = pair_with_radar([scene(optical, L2A)], [scene(path, RADAR_BANDS) for path in radar])
    ((alone, error),) = pairing.unpaired
    assert alone.source.location == str(optical)
    assert error.kind == "no-radar"
    assert error.message.startswith(f"{optical}: no radar image of the 6 days")
    assert "r9, is 9.0 days away" in error.message


# Sources


def test_headers_tell_optical_from_radar_images(tmp_path: Path) -> None:
    write_optical(tmp_path / "S2B_20230610T120000.tif")
    write_radar(tmp_path / "whatever.tif")
    write_band_folder(
        tmp_path / "S1A_IW_GRDH_1SDV_20230609T054321_rtc",
        {band: np.full((16, 16), -14, dtype=np.float32) for band in RADAR_BANDS},
        side_m=160,
    )
    joined = found(tmp_path)
    assert joined.skipped == []
    assert [source.name for source in joined.sources] == ["S2B_20230610T120000"]
    image = joined.reading.open(joined.sources[0])
    assert isinstance(image, JointImage)
    names = ["whatever", "S1A_IW_GRDH_1SDV_20230609T054321_rtc"]
    assert [one.source.name for one in image.radar] == names


def test_a_file_of_both_needs_no_pair(tmp_path: Path) -> None:
    optical = make_dn(4).astype(np.float32)
    radar = np.full((2, 4, 4), -12.0, dtype=np.float32)
    write_geotiff(tmp_path / "a.tif", np.concatenate([optical, radar]), MODALITY_BANDS["joint"])
    joined = found(tmp_path, baseline="03.01")
    chip = joined.reading.open(joined.sources[0]).read()
    assert chip.bands == MODALITY_BANDS["joint"]
    np.testing.assert_allclose(chip.reflectance[:12], optical / 10_000, atol=1e-6)
    assert (chip.reflectance[12:] == -12).all()


def test_layers_of_both_instruments_may_be_named_together(tmp_path: Path) -> None:
    dn = make_dn(4)
    radar = np.full((2, 4, 4), -12.0, dtype=np.float32)
    write_geotiff(tmp_path / "S2" / "a.tif", dn)
    write_geotiff(tmp_path / "S1" / "a.tif", radar)
    write_geotiff(tmp_path / "both.tif", np.concatenate([dn.astype(np.float32), radar]))
    joined = found(tmp_path, bands="l2a,s1", baseline="03.01")
    assert joined.skipped == []
    assert sorted(source.name for source in joined.sources) == ["a", "both"]
    for source in joined.sources:
        chip = joined.reading.open(source).read()
        np.testing.assert_allclose(chip.reflectance[:12], dn / np.float32(10_000), atol=1e-6)
        assert (chip.reflectance[12:] == -12).all()


def test_names_of_one_instrument_are_not_those_of_the_other(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "S2" / "a.tif", make_dn(4))
    write_radar(tmp_path / "S1" / "a.tif", size=4)
    joined = found(tmp_path, bands="l2a")
    assert joined.skipped == []
    assert joined.reading.open(joined.sources[0]).read().valid_mask.all()


def test_what_cannot_be_paired_is_skipped_by_name(tmp_path: Path) -> None:
    write_optical(tmp_path / "alone.tif", time=days(100))
    write_geotiff(tmp_path / "dn.tif", np.full((2, 4, 4), 300, dtype=np.uint16), RADAR_BANDS)
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    write_geotiff(tmp_path / "polar.tif", np.full((2, 4, 4), -9.0, dtype=np.float32), ["HH", "HV"])
    joined = found(tmp_path)
    assert joined.sources == []
    kinds = {Path(skip.source).name: skip.kind for skip in joined.skipped}
    assert kinds == {
        "alone.tif": "no-radar",
        "broken.tif": "unreadable",
        "dn.tif": "not-calibrated",
        "polar.tif": "missing-band",
    }


def test_how_pairs_are_read_can_be_sent_to_another_process(tmp_path: Path) -> None:
    write_optical(tmp_path / "o.tif")
    write_radar(tmp_path / "r.tif")
    joined = found(tmp_path)
    reading = pickle.loads(pickle.dumps(joined.reading))
    chip = reading.open(joined.sources[0]).read()
    np.testing.assert_array_equal(
        chip.reflectance, joined.reading.open(joined.sources[0]).read().reflectance
    )


# Real data


@pytest.mark.parametrize("name", ["637U_59R_1_3", "282D_485L_3_3", "609U_541L_3_0"])
def test_real_images_of_one_name_are_a_pair(test_data: Callable[[str], Path], name: str) -> None:
    folder = test_data("terramesh_scenes")
    sources, _ = find_sources([folder / "S2L2A", folder / "S1RTC"])
    joined = find_pairs(sources, ReadingOptions(bands=parse_bands("l2a,s1")), opened)
    assert joined.skipped == []
    (source,) = [one for one in joined.sources if one.name == name]
    chip = joined.reading.open(source).read(40, 60, 120, 120)
    (s1,), _ = find_sources([folder / "S1RTC" / f"{name}.tif"])
    radar = Scene.open(s1, ReadingOptions(bands=RADAR_BANDS, wanted=RADAR_BANDS))
    np.testing.assert_array_equal(chip.reflectance[12:], radar.read(40, 60, 120, 120).reflectance)
    assert chip.valid_mask.mean() > 0.9
