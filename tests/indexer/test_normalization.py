import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from indexer.normalization import Normalization
from indexer.sensors import PROFILES

FloatArray = npt.NDArray[np.float32]

SSL4EO = Normalization.ssl4eo()
# SSL4EO-S12 as CROMA was pretrained on it, Sentinel-2 L2A, digital numbers without offset.
MEAN_DN = {
    "B01": 752.40, "B02": 884.30, "B03": 1144.16, "B04": 1297.47, "B05": 1624.91, "B06": 2194.64,
    "B07": 2422.21, "B08": 2517.76, "B8A": 2581.65, "B09": 2645.52, "B11": 2368.51, "B12": 1805.06,
}  # fmt: skip
STD_DN = {
    "B01": 1108.03, "B02": 1155.15, "B03": 1183.63, "B04": 1368.11, "B05": 1370.27, "B06": 1355.55,
    "B07": 1416.51, "B08": 1474.79, "B8A": 1439.31, "B09": 1582.28, "B11": 1455.52, "B12": 1343.48,
}  # fmt: skip

reflectances = hnp.arrays(np.float32, (12, 2, 2), elements=st.floats(-0.25, 2.0, width=32))


def mean_plus(deviations: float) -> FloatArray:
    """Each band of one pixel at its mean plus so many standard deviations, unitless."""
    values = [(MEAN_DN[band] + deviations * STD_DN[band]) / 10_000 for band in PROFILES["l2a"]]
    return np.array(values, dtype=np.float32)[:, None, None]


def two_bands(*, std: tuple[float, float] = (0.1, 0.2)) -> Normalization:
    return Normalization.dataset(("B04", "B08"), np.array([0.1, 0.3]), np.array(std))


@pytest.mark.parametrize(
    ("deviations", "expected"),
    [(-3, 0.0), (-2, 0.0), (-1, 0.25), (0, 0.5), (1, 0.75), (1.5, 0.875), (2, 1.0), (9, 1.0)],
)
def test_ssl4eo_maps_two_standard_deviations_around_the_mean_to_0_and_1(
    deviations: float, expected: float
) -> None:
    np.testing.assert_allclose(SSL4EO.apply(mean_plus(deviations)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("vv_db", "vh_db", "expected"),
    [
        (-12.548, -20.192, 0.5),
        # One standard deviation, 5.257 and 5.912 dB, is a quarter of the range.
        (-12.548 - 5.257, -20.192 - 5.912, 0.25),
        (-12.548 + 5.257, -20.192 + 5.912, 0.75),
        (-50.0, -50.0, 0.0),
        (5.0, 0.0, 1.0),
    ],
)
def test_backscatter_is_mapped_around_its_own_mean(
    vv_db: float, vh_db: float, expected: float
) -> None:
    backscatter = np.array([vv_db, vh_db], dtype=np.float32)[:, None, None]
    normalized = Normalization.ssl4eo("sar").apply(backscatter)
    np.testing.assert_allclose(normalized, expected, atol=1e-6)


def test_both_instruments_are_normalized_as_each_alone() -> None:
    joint = Normalization.ssl4eo("joint")
    optical, radar = mean_plus(1), np.array([-10.0, -15.0], dtype=np.float32)[:, None, None]
    normalized = joint.apply(np.concatenate([optical, radar]))
    assert joint.bands == (*PROFILES["l2a"], "VV", "VH")
    np.testing.assert_array_equal(normalized[:12], SSL4EO.apply(optical))
    np.testing.assert_array_equal(normalized[12:], Normalization.ssl4eo("sar").apply(radar))


@given(reflectances)
def test_ssl4eo_stays_within_0_and_1_and_is_float32(reflectance: FloatArray) -> None:
    normalized = SSL4EO.apply(reflectance)
    assert normalized.min() >= 0
    assert normalized.max() <= 1
    assert normalized.dtype == np.float32


@given(reflectances, reflectances)
def test_a_brighter_pixel_is_never_normalized_to_less(left: FloatArray, right: FloatArray) -> None:
    darker, brighter = np.minimum(left, right), np.maximum(left, right)
    assert (SSL4EO.apply(darker) <= SSL4EO.apply(brighter)).all()


@given(st.lists(reflectances, min_size=2, max_size=4))
def test_an_image_is_normalized_alike_whatever_lies_beside_it(images: list[FloatArray]) -> None:
    together = SSL4EO.apply(np.stack(images))
    for image, normalized in zip(images, together, strict=True):
        np.testing.assert_array_equal(SSL4EO.apply(image), normalized)


def test_dataset_counts_standard_deviations_from_the_mean() -> None:
    reflectance = np.array([[[0.3]], [[0.1]]], dtype=np.float32)
    # (0.3 - 0.1) / 0.1 and (0.1 - 0.3) / 0.2; nothing is clipped.
    np.testing.assert_allclose(two_bands().apply(reflectance), [[[2]], [[-1]]], atol=1e-6)


def test_a_band_that_does_not_vary_becomes_0() -> None:
    reflectance = np.array([[[0.1]], [[0.1]]], dtype=np.float32)
    normalized = two_bands(std=(0.0, 0.2)).apply(reflectance)
    np.testing.assert_allclose(normalized, [[[0]], [[-1]]], atol=1e-6)


@pytest.mark.parametrize(("normalization", "neutral"), [(SSL4EO, 0.5), (two_bands(), 0.0)])
def test_a_gap_becomes_what_the_mean_becomes(normalization: Normalization, neutral: float) -> None:
    gaps = np.full((len(normalization.bands), 2, 3), np.nan, dtype=np.float32)
    filled = normalization.fill_gaps(gaps)
    assert filled.dtype == np.float32
    np.testing.assert_allclose(normalization.apply(filled), neutral, atol=1e-6)


def test_only_gaps_are_filled() -> None:
    reflectance = np.array([[[np.nan, 0.25]], [[0.5, np.nan]]], dtype=np.float32)
    filled = two_bands().fill_gaps(reflectance)
    np.testing.assert_array_equal(filled, np.array([[[0.1, 0.25]], [[0.5, 0.3]]], np.float32))


@pytest.mark.parametrize(
    "normalization",
    [SSL4EO, Normalization.ssl4eo("joint"), two_bands()],
    ids=["ssl4eo", "joint", "dataset"],
)
def test_a_normalization_survives_json(normalization: Normalization) -> None:
    fields = json.loads(json.dumps(normalization.to_dict()))
    assert Normalization.from_dict(fields) == normalization
