import numpy as np
import pytest

from indexer.mapping.pixel_features import PixelStatistics, minimum_noise_fraction, z_scored


def noisy(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Band 0 holds a smooth signal, band 1 a weaker one under strong noise, band 2 noise alone."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:60, 0:70] / 10
    signal = np.stack([10 * np.sin(y), 4 * np.cos(x), 0 * x])
    noise = random.normal(size=signal.shape) * np.array([0.1, 2, 5])[:, None, None]
    mask = np.ones(y.shape, dtype=np.bool_)
    mask[:5, :9] = False
    values = (signal + noise).astype(np.float32)
    values[:, ~mask] = np.nan
    return values, mask


def measured(values: np.ndarray, mask: np.ndarray) -> PixelStatistics:
    statistics = PixelStatistics(len(values))
    statistics.update(values, mask)
    return statistics


def test_statistics_are_those_of_numpy_over_valid_pixels() -> None:
    values, mask = noisy()
    statistics = measured(values, mask)
    pixels = values[:, mask].astype(np.float64)
    assert statistics.count == mask.sum()
    np.testing.assert_allclose(statistics.mean, pixels.mean(axis=1))
    np.testing.assert_allclose(statistics.covariance, np.cov(pixels, bias=True))


def test_noise_is_what_differs_between_neighbors() -> None:
    values, mask = noisy()
    noise = np.sqrt(np.diag(measured(values, mask).noise_covariance))
    # The smooth signal's own slope adds a little to the first.
    np.testing.assert_allclose(noise[1:], [2, 5], rtol=0.05)
    assert noise[0] < 1


def test_statistics_of_blocks_are_those_of_the_whole() -> None:
    values, mask = noisy()
    whole = measured(values, mask)
    blocks = PixelStatistics(3)
    for row in range(0, 60, 13):
        blocks.update(values[:, row : row + 13], mask[row : row + 13])
    blocks.update(values[:, :0], mask[:0])
    assert blocks.count == whole.count
    np.testing.assert_allclose(blocks.mean, whole.mean)
    np.testing.assert_allclose(blocks.covariance, whole.covariance)
    # Pairs across the edges of blocks are left out.
    np.testing.assert_allclose(blocks.noise_covariance, whole.noise_covariance, rtol=0.1, atol=0.1)


def test_z_scored_pixels_have_mean_0_and_standard_deviation_1() -> None:
    values, mask = noisy()
    features = z_scored(measured(values, mask)).of(values, mask, mask)
    assert features.shape == (mask.sum(), 3)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-5)


def test_a_constant_band_becomes_zero() -> None:
    values, mask = noisy()
    values[1, mask] = 7
    features = z_scored(measured(values, mask)).of(values, mask, mask)
    assert (features[:, 1] == 0).all()
    assert np.isfinite(features).all()


def test_mnf_orders_components_by_signal_and_makes_their_noise_one() -> None:
    values, mask = noisy()
    statistics = measured(values, mask)
    mnf = minimum_noise_fraction(statistics)
    features = mnf.of(values, mask, mask)
    # Each component: noise 1, and the signal-to-noise ratio falls from one to the next.
    noise = mnf.matrix.T @ statistics.noise_covariance @ mnf.matrix
    np.testing.assert_allclose(np.diag(noise), 1, rtol=1e-6)
    spread = features.std(axis=0)
    assert (np.diff(spread) < 0).all()
    assert abs(np.corrcoef(features[:, 0], values[0, mask])[0, 1]) > 0.99
    assert spread[2] == pytest.approx(1, rel=0.1)


def test_mnf_keeps_ten_components_at_most() -> None:
    random = np.random.default_rng(0)
    mask = np.ones((20, 20), dtype=np.bool_)
    values = random.normal(size=(14, 20, 20)).astype(np.float32)
    assert minimum_noise_fraction(measured(values, mask)).matrix.shape == (14, 10)


def test_mnf_of_an_image_without_noise_is_finite() -> None:
    mask = np.ones((1, 1), dtype=np.bool_)
    values = np.ones((4, 1, 1), np.float32)
    mnf = minimum_noise_fraction(measured(values, mask))
    assert np.isfinite(mnf.of(values, mask, mask)).all()


def test_features_of_two_images_have_different_digests() -> None:
    one, other = (z_scored(measured(*noisy(seed))).digest for seed in (0, 1))
    assert one != other
    assert one == z_scored(measured(*noisy(0))).digest
