import numpy as np
import numpy.typing as npt
import pytest

from indexer.training.separation import center_share, separation, unwhitened


def clouds(spread: float, groups: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Points around so many corners of a cube of side 1, which are at least 1 apart."""
    random = np.random.default_rng(seed)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])[:groups]
    points = np.repeat(corners, 200, axis=0) + random.normal(0, spread, (200 * groups, 3))
    return points.astype(np.float32)


def test_groups_far_apart_are_clear_and_one_cloud_is_not() -> None:
    assert separation(clouds(0.02, 8)) > 0.7
    assert separation(np.random.default_rng(1).normal(size=(2000, 8)).astype(np.float32)) < 0.3


def test_the_wider_the_groups_the_less_clear_they_are() -> None:
    found = [separation(clouds(spread, 6)) for spread in (0.02, 0.1, 0.4)]
    assert found == sorted(found, reverse=True)


def test_fewer_different_pixels_than_groups_are_as_clear_as_can_be() -> None:
    assert separation(np.repeat(np.eye(5, dtype=np.float32), 50, axis=0)) == 1


def test_center_and_surroundings_count_the_same_at_the_threshold() -> None:
    assert center_share(0.5, 0.5) == 0.5
    assert center_share(0.65, 0.5) > 0.999
    assert center_share(0.35, 0.5) < 0.001


@pytest.mark.parametrize("whitening", [0.0, 0.25, 0.5, 0.9])
def test_amplitudes_come_back_in_their_ratios(whitening: float) -> None:
    random = np.random.default_rng(2)
    amplitudes = np.array([8.0, 2.0, 0.5])
    sources = random.normal(size=(5000, 3))
    sources /= sources.std(axis=0)
    channels = (sources * amplitudes ** (1 - whitening)).astype(np.float32)
    back = unwhitened(channels, whitening).std(axis=0)
    np.testing.assert_allclose(back / back[0], amplitudes / amplitudes[0], rtol=1e-3)
