from datetime import UTC, datetime

import pytest

from indexer.errors import InvalidInputError
from indexer.sensors import (
    MODALITY_BANDS,
    PROFILES,
    RADAR_BANDS,
    SENTINEL2_BANDS,
    canonical_band,
    offset_dn,
    parse_bands,
    parse_baseline,
    radar_file,
)

EUROSAT = "B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A"
L1C = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12"
L2A = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12"


@pytest.mark.parametrize(("profile", "order"), [("eurosat", EUROSAT), ("l1c", L1C), ("l2a", L2A)])
def test_a_profile_names_the_bands_in_the_order_of_its_files(profile: str, order: str) -> None:
    assert PROFILES[profile] == tuple(order.split())


def test_the_bands_of_level_1c_are_ordered_by_wavelength() -> None:
    wavelengths_um = [SENTINEL2_BANDS[name].center_wavelength_um for name in PROFILES["l1c"]]
    assert wavelengths_um == sorted(wavelengths_um)


def test_each_band_has_a_common_name_of_its_own() -> None:
    assert len({band.common_name for band in SENTINEL2_BANDS.values()}) == 13


def test_the_bands_lie_on_three_grids() -> None:
    on_grid = {
        gsd_m: {name for name, band in SENTINEL2_BANDS.items() if band.gsd_m == gsd_m}
        for gsd_m in (10, 20, 60)
    }
    assert on_grid == {
        10: {"B02", "B03", "B04", "B08"},
        20: {"B05", "B06", "B07", "B8A", "B11", "B12"},
        60: {"B01", "B09", "B10"},
    }


@pytest.mark.parametrize(
    ("written", "band"),
    [
        ("B04", "B04"),
        ("B4", "B04"),
        ("b04", "B04"),
        (" B04 ", "B04"),
        ("B12", "B12"),
        ("B8A", "B8A"),
        ("b8a", "B8A"),
        ("B08A", "B8A"),
        ("B08", "B08"),
        ("red", "B04"),
        ("Red", "B04"),
        ("nir", "B08"),
        ("nir08", "B8A"),
        ("swir22", "B12"),
        ("scl", "SCL"),
        ("vv", "VV"),
        (" VH ", "VH"),
        ("HH", "HH"),
        ("VV_dB", "VV"),
        ("Sigma0_VH", "VH"),
        ("gamma0-vv-linear", "VV"),
    ],
)
def test_a_band_is_known_by_each_of_its_spellings(written: str, band: str) -> None:
    assert canonical_band(written) == band


@pytest.mark.parametrize(
    "written",
    [
        *("", "B00", "B13", "B4A", "B", "4", "band 4", "B04 red", "rededge", "NDVI", "bands"),
        # Not calibrated, not of the ground, a ratio, an angle.
        *("Amplitude_VV", "Intensity_VH", "Beta0_VV", "VV/VH", "angle", "VVV"),
    ],
)
def test_what_is_no_band_has_no_canonical_name(written: str) -> None:
    assert canonical_band(written) is None


@pytest.mark.parametrize("text", ["l2a", "L2A", " l2a "])
def test_bands_may_be_given_as_a_profile(text: str) -> None:
    assert parse_bands(text) == PROFILES["l2a"]


def test_bands_may_be_given_as_a_list_that_passes_layers_over() -> None:
    names = parse_bands("B4, rededge071,-,nir,SCL,-")
    assert names == ("B04", "B05", "-", "B08", "SCL", "-")


@pytest.mark.parametrize("text", ["s1", "S1", "VV,VH", "vv, vh"])
def test_polarizations_may_be_given_as_a_profile_or_a_list(text: str) -> None:
    assert parse_bands(text) == ("VV", "VH")


def test_profiles_may_be_given_one_after_the_other() -> None:
    assert parse_bands("l2a, s1,SCL") == (*PROFILES["l2a"], "VV", "VH", "SCL")


def test_the_bands_of_both_instruments_are_the_optical_then_the_radar_ones() -> None:
    assert MODALITY_BANDS["joint"] == (*L2A.split(), "VV", "VH")
    assert MODALITY_BANDS["sar"] == RADAR_BANDS


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("field_VV", ("field", "VV")),
        ("field-vh", ("field", "VH")),
        ("field_VH_db", ("field", "VH")),
        ("a_b_Sigma0_VV", ("a_b", "VV")),
        ("VH", ("", "VH")),
        # The mode of the instrument is no name.
        ("iw-vv", ("", "VV")),
        ("iw-vh.rtc", ("", "VH")),
        (
            "S1A_IW_20230601T054321_DVP_RTC10_G_gpuned_ABCD_VV",
            ("S1A_IW_20230601T054321_DVP_RTC10_G_gpuned_ABCD", "VV"),
        ),
        (
            "s1a-iw-grd-vv-20230601t054321-20230601t054346-048789-05de19-001",
            ("s1a-iw-grd-20230601t054321-20230601t054346-048789-05de19", "VV"),
        ),
        (
            "s1a-iw-grd-vh-20230601t054321-20230601t054346-048789-05de19-002-cog",
            ("s1a-iw-grd-20230601t054321-20230601t054346-048789-05de19", "VH"),
        ),
        ("fieldVV", None),
        ("field_VV_2", None),
        ("field_VV_VH", None),
        ("vv-vh", None),
        ("field_B04", None),
    ],
)
def test_the_file_of_a_polarization_is_known_by_its_name(
    stem: str, expected: tuple[str, str] | None
) -> None:
    assert radar_file(stem) == expected


@pytest.mark.parametrize(
    ("text", "word"), [("l3a", "l3a"), ("B02,B99", "B99"), ("", "''"), ("B02,,B04", "''")]
)
def test_an_unknown_band_or_profile_is_refused_by_name(text: str, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word) as caught:
        parse_bands(text)
    assert caught.value.kind == "invalid-bands"


def test_a_band_that_is_named_twice_is_refused_whatever_its_spelling() -> None:
    with pytest.raises(InvalidInputError, match=r"B04 is named more than once") as caught:
        parse_bands("B04,B03,red")
    assert caught.value.kind == "invalid-bands"


@pytest.mark.parametrize(
    ("written", "baseline"),
    [
        ("4", "04.00"),
        ("04", "04.00"),
        ("4.0", "04.00"),
        ("04.00", "04.00"),
        ("0400", "04.00"),
        ("N0400", "04.00"),
        ("n0400", "04.00"),
        ("5.1", "05.10"),
        ("5.09", "05.09"),
        ("510", "05.10"),
        (" N0209 ", "02.09"),
    ],
)
def test_a_baseline_is_known_by_each_of_its_spellings(written: str, baseline: str) -> None:
    assert parse_baseline(written) == baseline


@pytest.mark.parametrize("written", ["", "four", "4.123", "N", "04.00.1", "-4", "12345"])
def test_what_is_no_baseline_is_refused_by_name(written: str) -> None:
    with pytest.raises(InvalidInputError, match="not a processing baseline") as caught:
        parse_baseline(written)
    assert caught.value.kind == "invalid-baseline"
    assert f"--baseline {written}:" in caught.value.message


@pytest.mark.parametrize(
    ("baseline", "offset"),
    [("02.09", 0), ("03.01", 0), ("04.00", -1000), ("05.10", -1000), ("10.00", -1000)],
)
def test_the_offset_begins_with_baseline_4(baseline: str, offset: int) -> None:
    assert offset_dn(baseline, None) == offset


@pytest.mark.parametrize(
    ("acquired_at", "offset"),
    [
        (None, 0),
        (datetime(2022, 1, 24, 23, 59, tzinfo=UTC), 0),
        (datetime(2022, 1, 25, tzinfo=UTC), -1000),
    ],
)
def test_the_date_tells_the_offset_where_nothing_names_the_baseline(
    acquired_at: datetime | None, offset: int
) -> None:
    assert offset_dn(None, acquired_at) == offset


def test_the_baseline_outweighs_the_date() -> None:
    # Collection 1 is the archive of 2015 on, processed anew with baseline 05.00.
    assert offset_dn("05.00", datetime(2017, 6, 17, tzinfo=UTC)) == -1000
    assert offset_dn("03.01", datetime(2023, 6, 17, tzinfo=UTC)) == 0
