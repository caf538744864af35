import numpy as np
import numpy.typing as npt
import pytest

from indexer.mapping.pixel_features import PixelStatistics, minimum_noise_fraction
from indexer.mapping.views import NOISE, SIGNAL, PixelViews

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def scene() -> tuple[FloatArray, BoolArray]:
    """Six bands of different units over 20 x 30 pixels, some without data."""
    random = np.random.default_rng(0)
    mixed = random.normal(size=(6, 4)) @ random.normal(size=(4, 600))
    values = (mixed * 10.0 ** np.arange(6)[:, None] + 5).reshape(6, 20, 30)
    mask = np.ones((20, 30), dtype=np.bool_)
    mask[3:6, 4:9] = mask[0, 0] = False
    values[:, ~mask] = np.nan
    return values.astype(np.float32), mask


def viewed(values: FloatArray, mask: BoolArray) -> PixelViews:
    statistics = PixelStatistics(len(values))
    statistics.update(values, mask)
    return PixelViews.of_image(statistics)


def test_components_keep_the_distances_of_z_scored_bands() -> None:
    values, mask = scene()
    views = viewed(values, mask)
    components = views.components.of(values, mask, mask)
    pixels = values[:, mask].T.astype(np.float64)
    z_scores = (pixels - pixels.mean(axis=0)) / pixels.std(axis=0)
    for one, other in ((0, 1), (7, 300), (20, 21)):
        expected = np.linalg.norm(z_scores[one] - z_scores[other])
        assert np.linalg.norm(components[one] - components[other]) == pytest.approx(expected, 1e-4)
    # The first holds most, and each is uncorrelated with the others.
    covariance = np.cov(components.T, bias=True)
    assert (np.diff(np.diag(covariance)) < 1e-5).all()
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-4)


def test_neighborhoods_are_means_over_valid_pixels_and_end_with_the_image() -> None:
    values, mask = scene()
    views = viewed(values, mask)
    found = views.of(values, mask, mask)
    count = views.components.matrix.shape[1]
    components = np.full((*mask.shape, count), np.nan)
    components[mask] = found[:, :count]
    rows, columns = np.nonzero(mask)
    for at in (0, 1, 95, 130, len(rows) - 1):
        row, column = rows[at], columns[at]
        around = components[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        expected = np.nanmean(around.reshape(-1, count), axis=0)
        np.testing.assert_allclose(found[at, count : 2 * count], expected, atol=1e-5)


def test_a_block_with_its_margin_gives_what_the_whole_image_gives() -> None:
    values, mask = scene()
    views = viewed(values, mask)
    whole = views.of(values, mask, mask)
    wanted = np.zeros_like(mask)
    wanted[8:15, 10:20] = mask[8:15, 10:20]
    margin = views.margin_px
    block = np.s_[8 - margin : 15 + margin, 10 - margin : 20 + margin]
    part = views.of(values[:, *block], mask[block], wanted[block])
    np.testing.assert_allclose(part, whole[wanted[mask]], atol=1e-5)


def test_a_pixel_counts_as_much_as_its_neighborhood() -> None:
    values, mask = scene()
    views = viewed(values, mask)
    split = views.split(views.of(values, mask, mask))
    assert list(split) == [SIGNAL, NOISE]
    count = views.components.matrix.shape[1]
    signal = split[SIGNAL]
    for block in (signal[:, :count], signal[:, count:]):
        np.testing.assert_allclose(block.mean(axis=0), 0, atol=1e-5)
        assert (block**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-5)


def test_the_other_view_is_mnf() -> None:
    values, mask = scene()
    statistics = PixelStatistics(6)
    statistics.update(values, mask)
    views = PixelViews.of_image(statistics)
    expected = minimum_noise_fraction(statistics).of(values, mask, mask)
    np.testing.assert_array_equal(views.split(views.of(values, mask, mask))[NOISE], expected)


def test_an_image_of_one_color_has_views_without_variance() -> None:
    values, mask = np.full((3, 6, 7), 4, np.float32), np.ones((6, 7), dtype=np.bool_)
    views = viewed(values, mask)
    for view in views.split(views.of(values, mask, mask)).values():
        assert np.isfinite(view).all()
        assert view.std(axis=0).max() == 0
