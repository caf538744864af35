from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import ImageryError, InvalidInputError
from indexer.imagery.chip import Chip
from indexer.sensors import PROFILES, QUANTIFICATION, SENTINEL2_BANDS
from indexer.spectral_indices import INDICES, compute_index
from indexer.statistics import summarize
from tests.synthetic import make_chip

# Reflectance of a green crop, in round numbers that allow a check by hand.
CROP = {
    "B02": 0.04,
    "B03": 0.10,
    "B04": 0.06,
    "B05": 0.15,
    "B06": 0.25,
    "B08": 0.50,
    "B11": 0.30,
}

BY_HAND = {
    "NDVI": 0.44 / 0.56,
    "NDMI": 0.20 / 0.80,
    "NDWI": -0.40 / 0.60,
    # 2.5 * 0.44 = 1.1; 0.50 + 0.36 - 0.30 + 1 = 1.56
    "EVI": 1.1 / 1.56,
    "NDREI": 0.35 / 0.65,
    # 0.50 + 0.06 + 0.16 = 0.72
    "OSAVI": 0.44 / 0.72,
    # 0.36 - 0.54 = -0.18; 0.36 + 0.54 = 0.90
    "BI": -0.18 / 0.90,
    "PSRI": 0.02 / 0.25,
}

ZERO_DENOMINATOR = {
    "NDVI": {"B08": 0.0, "B04": 0.0},
    "NDMI": {"B08": 0.0, "B11": 0.0},
    "NDWI": {"B03": 0.0, "B08": 0.0},
    # 0.5 + 0 - 7.5 * 0.2 + 1 is 0.
    "EVI": {"B08": 0.5, "B04": 0.0, "B02": 0.2},
    "NDREI": {"B08": 0.0, "B05": 0.0},
    "OSAVI": {"B08": -0.16, "B04": 0.0},
    "BI": {"B11": 0.5, "B04": 0.0, "B08": -0.5, "B02": 0.0},
    "PSRI": {"B04": 0.1, "B02": 0.2, "B06": 0.0},
}


def one_pixel(values: dict[str, float]) -> Chip:
    reflectance = np.array(list(values.values()), dtype=np.float32).reshape(-1, 1, 1)
    return make_chip(bands=tuple(values), reflectance=reflectance)


def test_the_tables_of_this_file_name_every_index() -> None:
    assert set(BY_HAND) == set(ZERO_DENOMINATOR) == set(INDICES)


@pytest.mark.parametrize("name", INDICES)
def test_an_index_has_the_value_computed_by_hand(name: str) -> None:
    result = compute_index(name, one_pixel(CROP))
    assert result.dtype == np.float64
    assert result.shape == (1, 1)
    # Reflectance is float32, the hand's is decimal.
    assert result[0, 0] == pytest.approx(BY_HAND[name], abs=1e-6)


@pytest.mark.parametrize("name", INDICES)
@given(values=st.lists(st.floats(0.001, 1.0), min_size=4, max_size=4))
def test_the_formula_in_words_is_the_formula_computed(name: str, values: list[float]) -> None:
    index = INDICES[name]
    named = dict(zip(index.bands, values, strict=False))
    arrays = {band: np.array([value]) for band, value in named.items()}
    try:
        expected = eval(index.formula, {}, named)
    except ZeroDivisionError:
        expected = np.nan
    np.testing.assert_allclose(index.compute(arrays), [expected], rtol=1e-12)


@pytest.mark.parametrize("name", INDICES)
def test_a_zero_denominator_gives_nan(name: str) -> None:
    values = ZERO_DENOMINATOR[name]
    arrays = {band: np.array([value, CROP[band]]) for band, value in values.items()}
    result = INDICES[name].compute(arrays)
    assert np.isnan(result[0])
    assert result[1] == pytest.approx(BY_HAND[name])


@pytest.mark.parametrize("name", INDICES)
def test_an_index_is_nan_where_any_of_its_bands_is(name: str) -> None:
    for missing in INDICES[name].bands:
        result = compute_index(name, one_pixel(CROP | {missing: np.nan}))
        assert np.isnan(result).all()


@pytest.mark.parametrize("name", INDICES)
def test_an_index_finds_its_bands_by_name_in_any_order(name: str) -> None:
    backwards = dict(reversed(CROP.items()))
    np.testing.assert_array_equal(
        compute_index(name, one_pixel(backwards)), compute_index(name, one_pixel(CROP))
    )


@pytest.mark.parametrize("name", INDICES)
def test_an_index_needs_all_its_bands(name: str) -> None:
    for missing in INDICES[name].bands:
        chip = one_pixel({band: value for band, value in CROP.items() if band != missing})
        with pytest.raises(ImageryError, match=f"band {missing} is missing") as caught:
            compute_index(name, chip)
        assert caught.value.kind == "missing-band"


@pytest.mark.parametrize("name", INDICES)
def test_an_index_names_sentinel_bands_and_its_source(name: str) -> None:
    index = INDICES[name]
    assert index.name == name
    assert set(index.bands) <= set(SENTINEL2_BANDS)
    assert set(index.bands) == {band for band in SENTINEL2_BANDS if band in index.formula}
    assert any(year in index.citation for year in ("1974", "1994", "1996", "1999", "2002"))


def test_an_unknown_index_is_refused_with_the_names_to_choose_from() -> None:
    with pytest.raises(InvalidInputError, match=r"LAI.*NDVI") as caught:
        compute_index("LAI", one_pixel(CROP))
    assert caught.value.kind == "invalid-option"


def test_an_index_of_a_chip_has_the_shape_of_the_chip() -> None:
    chip = make_chip(size=7)
    result = compute_index("NDVI", chip)
    assert result.shape == chip.shape
    red, nir = float(chip.band("B04")[2, 5]), float(chip.band("B08")[2, 5])
    assert result[2, 5] == pytest.approx((nir - red) / (nir + red), rel=1e-12)


@pytest.mark.parametrize("name", INDICES)
def test_an_index_of_some_pixels_is_theirs(name: str) -> None:
    chip = make_chip(size=7)
    rows, columns = np.array([6, 0, 3, 3]), np.array([2, 0, 5, 5])
    result = compute_index(name, chip, (rows, columns))
    np.testing.assert_array_equal(result, compute_index(name, chip)[rows, columns])


@pytest.mark.parametrize("stem", ["AnnualCrop/AnnualCrop_1", "Forest/Forest_1"])
def test_ndvi_of_a_real_chip_equals_that_of_its_raw_layers(
    test_data: Callable[[str], Path], stem: str
) -> None:
    path = test_data("eurosat_ms_mini") / f"{stem}.tif"
    with rasterio.open(path) as dataset:
        digital_numbers = dataset.read()
        red, nir = (dataset.read(layer).astype(np.float64) for layer in (4, 8))
        chip = make_chip(
            reflectance=digital_numbers.astype(np.float32) / QUANTIFICATION,
            bands=PROFILES["eurosat"],
            transform=dataset.transform,
            crs=dataset.crs,
        )
    expected = (nir - red) / (nir + red)
    result = compute_index("NDVI", chip)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    summary = summarize(result, np.ones(chip.shape))
    assert summary is not None
    assert summary.mean == pytest.approx(expected.mean(), abs=1e-6)
    assert summary.median == pytest.approx(np.median(expected), abs=1e-6)
