from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.errors import ImageryError
from indexer.imagery.image_blocks import block_rows
from indexer.imagery.spectral_cube import SpectralImage
from indexer.imagery.spectral_image import open_spectral_image
from indexer.progress import Silent
from indexer.training.recipes import RECIPES, PretrainRecipe
from indexer.training.samples import TILE_PX, TrainingSample, draw_sample
from indexer.training.statistics import SpectralStatistics, measure
from indexer.training.windows import windows_of
from tests.indexer.training.cubes import FloatArray, make_cube, save_cube

DEFAULT, REPORT = RECIPES["default"], RECIPES["report"]


def image_of(folder: Path, cube: FloatArray, name: str = "image") -> SpectralImage:
    return open_spectral_image(save_cube(folder / f"{name}.npz", cube))


def with_gap(cube: FloatArray) -> FloatArray:
    """The same with a corner without data."""
    cube = cube.copy()
    cube[:4, :5] = np.nan
    return cube


def sample_of(
    image: SpectralImage, recipe: PretrainRecipe, seed: int = 0, memory_bytes: int = 2**28
) -> TrainingSample:
    generator = torch.Generator().manual_seed(seed)
    found = measure([image], recipe, Silent())
    return draw_sample([image], found, recipe, generator, Silent(), memory_bytes)


def test_bands_are_measured_over_the_valid_pixels_of_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = with_gap(make_cube(seed=1)), make_cube(height=7, seed=2)
    # Some rows at a time, as with images larger than memory.
    few_rows = partial(block_rows, memory_mib=0.02)
    monkeypatch.setattr("indexer.training.statistics.block_rows", few_rows)
    images = [image_of(tmp_path, first, "first"), image_of(tmp_path, second, "second")]
    found = measure(images, REPORT, Silent())
    bands = first.shape[2]
    pixels = np.concatenate([first.reshape(-1, bands), second.reshape(-1, bands)]).astype(float)
    pixels = pixels[np.isfinite(pixels).all(axis=1)]
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.std, pixels.std(axis=0), rtol=1e-6)


@pytest.mark.parametrize(("whitening", "power"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_components_are_uncorrelated_and_whitening_brings_their_variances_closer(
    whitening: float, power: float, tmp_path: Path
) -> None:
    cube = make_cube(bands=6)
    recipe = replace(DEFAULT, clip_std=None, components=4, whitening=whitening)
    found = measure([image_of(tmp_path, cube)], recipe, Silent())
    channels = found.channels_of(np.moveaxis(cube, 2, 0), np.ones(cube.shape[:2], dtype=bool))
    flat = channels.reshape(-1, 4).astype(float)
    covariance = flat.T @ flat / len(flat)
    pixels = cube.reshape(-1, 6).astype(float)
    variances = np.linalg.eigvalsh(np.corrcoef(pixels.T))[::-1][:4] ** power
    np.testing.assert_allclose(covariance, np.diag(variances / variances.mean()), atol=1e-4)
    assert flat.std() == pytest.approx(1, abs=1e-4)


def test_a_dead_pixel_hides_no_band(tmp_path: Path) -> None:
    cube = make_cube(height=40, width=50, bands=6)
    pixels = cube.reshape(-1, 6).astype(float)
    mean, spread = pixels.mean(axis=0), pixels.std(axis=0)
    cube[3, 3, 2] = 1e6
    found = measure([image_of(tmp_path, cube)], DEFAULT, Silent())
    np.testing.assert_allclose(found.mean, mean, atol=0.1 * spread.min())
    np.testing.assert_allclose(found.std, spread, rtol=0.02)
    cut = (found.cut(cube[3, 3][None]) - found.mean) / found.std
    # Its limits were measured while a little of it was left in the spread.
    assert cut[0, 2] == pytest.approx(4, abs=0.05)
    # Uncut, its z-score would be the root of the number of pixels.
    plain = measure([image_of(tmp_path, cube, "plain")], replace(DEFAULT, clip_std=None), Silent())
    assert (1e6 - plain.mean[2]) / plain.std[2] == pytest.approx(np.sqrt(2000), rel=1e-3)


def test_no_more_components_than_bands(tmp_path: Path) -> None:
    found = measure([image_of(tmp_path, make_cube(bands=3))], DEFAULT, Silent())
    assert found.channels == 3


def test_pixels_without_data_are_filled_with_the_mean() -> None:
    found = SpectralStatistics(np.array([5.0, 7.0]), np.array([2.0, 1.0]), None)
    values = np.array([[[7.0, np.nan]], [[7.0, 9.0]]], dtype=np.float32)
    channels = found.channels_of(values, np.array([[True, False]]))
    np.testing.assert_array_equal(channels, [[[1, 0], [0, 0]]])


@pytest.mark.parametrize("recipe", [DEFAULT, REPORT], ids=["default", "report"])
def test_a_band_that_never_changes_becomes_zero(tmp_path: Path, recipe: PretrainRecipe) -> None:
    cube = make_cube()
    cube[:, :, 2] = 1234.5
    found = measure([image_of(tmp_path, cube)], recipe, Silent())
    other = cube.copy()
    other[:, :, 2] += 0.25
    mask = np.ones(cube.shape[:2], dtype=bool)
    channels = found.channels_of(np.moveaxis(cube, 2, 0), mask)
    assert np.isfinite(channels).all()
    np.testing.assert_array_equal(found.channels_of(np.moveaxis(other, 2, 0), mask), channels)


def test_an_image_of_one_color_holds_nothing_to_learn(tmp_path: Path) -> None:
    image = image_of(tmp_path, np.full((9, 9, 3), 7.7, dtype=np.float32))
    with pytest.raises(ImageryError, match="alike") as refused:
        measure([image], DEFAULT, Silent())
    assert refused.value.kind == "no-contrast"


def test_every_valid_pixel_of_a_small_image_is_trained_on_with_its_own_window(
    tmp_path: Path,
) -> None:
    # Larger than a tile in one direction, so that tiles and their margins meet.
    cube = with_gap(make_cube(height=TILE_PX + 9, width=11))
    image = image_of(tmp_path, cube)
    recipe = replace(REPORT, min_mean_z=None)
    sample = sample_of(image, recipe)
    valid = np.asarray(np.isfinite(cube).all(axis=2))
    assert len(sample.anchors) == valid.sum()
    found = measure([image], recipe, Silent())
    channels = found.channels_of(np.moveaxis(cube, 2, 0), valid)
    expected = windows_of(np.moveaxis(channels, 2, 0), 8)[valid].reshape(valid.sum(), -1)
    windows = sample.windows(sample.anchors).numpy().reshape(valid.sum(), -1)
    np.testing.assert_allclose(sorted(windows.tolist()), sorted(expected.tolist()), atol=1e-6)


def test_the_reports_filter_keeps_windows_above_its_mean(tmp_path: Path) -> None:
    sample = sample_of(image_of(tmp_path, make_cube()), REPORT)
    everything = sample_of(image_of(tmp_path, make_cube()), replace(REPORT, min_mean_z=None))
    means = everything.windows(everything.anchors).mean(dim=(1, 2, 3))
    assert 0 < len(sample.anchors) == int((means > 0.1).sum()) < len(everything.anchors)


def test_a_large_image_gives_a_random_part_within_the_memory(tmp_path: Path) -> None:
    image = image_of(tmp_path, make_cube(height=4 * TILE_PX, width=4 * TILE_PX, bands=4))
    side = TILE_PX + 2 * 5
    limit = 3 * side * side * (4 * 4 + 1)
    samples = [sample_of(image, DEFAULT, seed, limit) for seed in (0, 0, 1)]
    assert all(len(sample.anchors) == 3 * TILE_PX**2 for sample in samples)
    first, again, other = (sample.windows(sample.anchors) for sample in samples)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_line_of_pixels_can_be_trained_on(tmp_path: Path) -> None:
    sample = sample_of(image_of(tmp_path, make_cube(height=1, width=15)), DEFAULT)
    assert len(sample.anchors) == 15
    assert sample.windows(sample.anchors).shape == (15, 6, 7, 7)


def test_one_valid_pixel_is_too_few(tmp_path: Path) -> None:
    cube = make_cube(bands=3)
    cube[1:] = np.nan
    cube[0, 2:] = np.nan
    found = measure([image_of(tmp_path, cube)], DEFAULT, Silent())
    cube[0, 1:] = np.nan
    alone = image_of(tmp_path, cube, "alone")
    with pytest.raises(ImageryError, match="alone: 1 windows") as refused:
        draw_sample([alone], found, DEFAULT, torch.Generator(), Silent())
    assert refused.value.kind == "too-few-pixels"


def test_a_positive_is_the_most_alike_of_the_neighbors_drawn() -> None:
    channels = torch.zeros(1, 5, 5, 1)
    channels[0, 2, 2], channels[0, 2, 3], channels[0, 1, 2], channels[0, 3, 2] = 5, 9, 4, 7
    valid = torch.ones(1, 5, 5, dtype=torch.bool)
    sample = TrainingSample(channels, valid, margin_px=1, window_px=3)
    place = torch.tensor([[0, 2, 2]])
    # To the right (4 away), up (1 away), down (2 away), and to itself, which does not count.
    shifts = torch.tensor([[[0, 1], [-1, 0], [1, 0], [0, 0]]])
    assert sample.most_alike(place, shifts).tolist() == [[0, 1, 2]]
    valid[0, 1, 2] = False
    sample = TrainingSample(channels, valid, margin_px=1, window_px=3)
    assert sample.most_alike(place, shifts).tolist() == [[0, 3, 2]]
    assert sample.most_alike(place, shifts[:, 3:]).tolist() == [[0, 2, 2]]
