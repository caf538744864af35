import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import ImageryError
from indexer.imagery.spectral_bands import (
    SpectralBand,
    match_bands,
    named_bands,
    tolerances_um,
    visible_bands,
    wavelengths_um,
)
from indexer.sensors import PROFILES, SENTINEL2_BANDS


def at(*nm: float | None, fwhm_nm: float | None = None) -> tuple[SpectralBand, ...]:
    """Bands at wavelengths in nanometers, named by them."""
    wavelengths = [None if one is None else one / 1000 for one in nm]
    width = None if fwhm_nm is None else fwhm_nm / 1000
    return named_bands(len(nm), None, wavelengths, [width] * len(nm))


def refusal(found: tuple[SpectralBand, ...], wanted: tuple[SpectralBand, ...]) -> ImageryError:
    with pytest.raises(ImageryError) as caught:
        match_bands("image.hdr", found, wanted)
    assert caught.value.message.startswith("image.hdr: ")
    return caught.value


def test_wavelengths_decide_whatever_the_order() -> None:
    assert match_bands("", at(700, 600, 500, 400), at(400, 600)) == (3, 1)


def test_a_band_stands_for_another_within_half_the_spacing() -> None:
    wanted = at(400, 410, 420)
    assert match_bands("", at(404.9, 414.9, 424.9, 500), wanted) == (0, 1, 2)
    error = refusal(at(405.1, 415.1, 425.1), wanted)
    # 405.1 is out of reach of 400, but 415.1 and 405.1 are within reach of 420 and 410.
    assert error.kind == "missing-band"
    assert "1 of 3" in error.message
    assert "400 nm" in error.message
    assert "405 to 425 nm" in error.message


def test_bands_far_apart_do_not_reach_for_each_other() -> None:
    # Half the way from B12 to B11 is 294 nm, but nothing at 2000 nm sees what B12 sees.
    wanted = tuple(
        SpectralBand(band.name, band.center_wavelength_um, band.fwhm_um)
        for band in (SENTINEL2_BANDS["B11"], SENTINEL2_BANDS["B12"])
    )
    assert tolerances_um(wanted) == pytest.approx([0.045, 0.087])
    assert refusal(at(1610, 2000), wanted).kind == "missing-band"
    assert match_bands("", at(1570, 2280), wanted) == (0, 1)


def test_one_band_does_not_stand_for_two() -> None:
    error = refusal(at(403, 500), at(400, 406))
    assert error.kind == "missing-band"
    assert "406 nm" in error.message


def test_names_decide_where_wavelengths_do_not_speak_against_them() -> None:
    found = (SpectralBand("nir", 0.84), SpectralBand("red", 0.66))
    assert match_bands("", found, (SpectralBand("red", None), SpectralBand("nir", None))) == (1, 0)
    same_names = (SpectralBand("nir", 0.66), SpectralBand("red", 0.84))
    assert match_bands("", found, same_names) == (1, 0)


def test_a_place_in_the_file_is_no_name() -> None:
    found = (SpectralBand("band 1", 0.5), SpectralBand("band 2", 0.6))
    wanted = (SpectralBand("band 1", 0.6), SpectralBand("band 2", 0.5))
    assert match_bands("", found, wanted) == (1, 0)


def test_without_wavelengths_the_position_decides_if_the_count_is_equal() -> None:
    assert match_bands("", named_bands(3), named_bands(3)) == (0, 1, 2)
    error = refusal(named_bands(4), named_bands(3))
    assert error.kind == "band-count"
    assert "4 bands" in error.message
    assert "3 are wanted" in error.message


def test_where_one_side_has_no_wavelengths_nothing_is_guessed() -> None:
    for found, wanted in ((named_bands(2), at(500, 600)), (at(500, 600), named_bands(2))):
        assert refusal(found, wanted).kind == "no-wavelengths"


def test_bands_that_are_known_only_in_part_match_themselves() -> None:
    bands = at(400, None, 420, 0.0, 420)
    assert match_bands("", bands, bands) == (0, 1, 2, 3, 4)


@given(
    st.lists(st.floats(350, 2500), min_size=2, max_size=40, unique_by=lambda nm: round(nm)),
    st.randoms(use_true_random=False),
)
def test_bands_are_found_again_in_any_order(nm: list[float], random: object) -> None:
    bands = at(*nm)
    order = list(range(len(bands)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert match_bands("", bands, [bands[position] for position in order]) == tuple(order)


def test_names_are_unique_and_hold_no_control_characters() -> None:
    names = ["red", "red", "a\x1b[31m\nb", "", None, "Band 6", "x" * 500]
    found = [band.name for band in named_bands(7, names)]
    assert found[:6] == ["red (band 1)", "red (band 2)", "a [31m b", "band 4", "band 5", "band 6"]
    assert found[6] == "x" * 80


@pytest.mark.parametrize(
    ("values", "units", "expected"),
    [
        ([400.0, 2500.0], "nm", [0.4, 2.5]),
        ([0.4, 2.5], "Micrometers", [0.4, 2.5]),
        ([0.4, 14.0], "µm", [0.4, 14.0]),
        ([400.0, 0.0, -1.0, float("nan")], "Nanometers", [0.4, None, None, None]),
        ([25_000.0, 4000.0], "Wavenumber", [None, None]),
        ([0.0, 0.0], "nm", [None, None]),
        ([], "nm", []),
    ],
)
def test_wavelengths_are_given_in_micrometers(
    values: list[float], units: str, expected: list[float | None]
) -> None:
    found, note, _ = wavelengths_um(values, units)
    assert found == [None if one is None else pytest.approx(one) for one in expected]
    assert (note is not None) == (units == "Wavenumber")


def test_the_visible_bands_are_the_nearest_to_red_green_and_blue() -> None:
    sentinel2 = [
        SpectralBand(name, SENTINEL2_BANDS[name].center_wavelength_um) for name in PROFILES["l2a"]
    ]
    # B04, B03 and B02 of B01 B02 B03 B04...
    assert visible_bands(sentinel2) == (3, 2, 1)
    assert visible_bands(at(1000, 1500, 2000)) is None
    assert visible_bands(at(560, 665)) is None
    assert visible_bands(named_bands(9)) is None
