import numpy as np
import pytest

from indexer.encoders import pixel_encoder
from indexer.encoders.pixel_encoder import MOST_WINDOWS, PixelEncoder, pixel_input, step_px
from tests.indexer.flight import flight, open_encoder, train, write_flight
from tests.synthetic import make_chip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PixelEncoder:
    folder = tmp_path_factory.mktemp("own")
    return open_encoder(train(write_flight(folder / "flight.tif"), folder / "own.pt", steps=2))


def features(encoder: PixelEncoder, values: pixel_encoder.FloatArray) -> pixel_encoder.FloatArray:
    """Of every pixel, shape ``(y, x, d)``; all must be valid."""
    _, height, width = values.shape
    found = encoder.network.embed_pixels(values, np.ones((height, width), bool))
    return found.reshape(height, width, -1)


def ones(values: pixel_encoder.FloatArray) -> pixel_encoder.FloatArray:
    return np.ones((1, *values.shape[1:]), np.float32)


def test_an_image_is_the_mean_of_its_pixels(encoder: PixelEncoder) -> None:
    values = flight()
    (found,) = encoder.encode([values], [ones(values)])
    expected = features(encoder, values).mean(axis=(0, 1), dtype=np.float64)
    np.testing.assert_allclose(found, expected[None], atol=1e-5)


def test_there_is_no_head_behind_the_mean(encoder: PixelEncoder) -> None:
    values = flight()
    (pooled,) = encoder.pool([values], [ones(values)])
    (found,) = encoder.encode([values], [ones(values)])
    np.testing.assert_array_equal(encoder.finish(pooled), found)


def test_a_pixel_weighs_by_the_share_of_it_inside(encoder: PixelEncoder) -> None:
    values = flight()
    weights = np.zeros((2, *values.shape[1:]), np.float32)
    weights[0, 3, 4], weights[0, 47, 47] = 0.25, 0.75
    weights[1, 0, 0] = 0.5
    (found,) = encoder.encode([values], [weights])
    pixels = features(encoder, values)
    np.testing.assert_allclose(found[0], 0.25 * pixels[3, 4] + 0.75 * pixels[47, 47], atol=1e-5)
    np.testing.assert_allclose(found[1], pixels[0, 0], atol=1e-5)


@pytest.mark.parametrize("corner", [(0, 0), (0, 47), (47, 0), (47, 47), (1, 20), (46, 3)])
def test_a_pixel_at_the_border_has_the_window_of_the_whole_image(
    encoder: PixelEncoder, corner: tuple[int, int]
) -> None:
    values = flight()
    weights = np.zeros_like(ones(values))
    weights[0, *corner] = 1
    (found,) = encoder.encode([values], [weights])
    np.testing.assert_allclose(found[0], features(encoder, values)[corner], atol=1e-5)


def test_pixels_that_are_not_valid_do_not_count(encoder: PixelEncoder) -> None:
    values = flight()
    values[2, :, 10:] = np.nan
    (found,) = encoder.encode([values], [ones(values)])
    valid = np.asarray(np.isfinite(values).all(axis=0))
    expected = encoder.network.embed_pixels(values, valid).mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_images_of_different_sizes_do_not_depend_on_each_other(encoder: PixelEncoder) -> None:
    images = [flight(1), flight(2)[:, :5, :30], flight(3)[:, 7:8, 9:10]]
    weights = [ones(image) for image in images]
    together = encoder.encode(images, weights)
    for image, weight, found in zip(images, weights, together, strict=True):
        (alone,) = encoder.encode([image], [weight])
        np.testing.assert_array_equal(found, alone)


def test_blocks_give_what_the_whole_gives(
    encoder: PixelEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = flight()
    (whole,) = encoder.encode([values], [ones(values)])
    monkeypatch.setattr(pixel_encoder, "_BLOCK_PX", 100)
    (blocks,) = encoder.encode([values], [ones(values)])
    np.testing.assert_allclose(blocks, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "step"),
    [((1, 1), 1), ((128, 128), 1), ((128, 129), 2), ((256, 256), 2), ((1024, 1024), 8)],
)
def test_of_large_chips_an_even_share_of_pixels_is_embedded(
    shape: tuple[int, int], step: int
) -> None:
    assert step_px(shape) == step
    taken = -(-shape[0] // step) * -(-shape[1] // step)
    assert taken <= MOST_WINDOWS


def test_a_share_of_pixels_stands_for_all(
    encoder: PixelEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = flight()
    monkeypatch.setattr(pixel_encoder, "MOST_WINDOWS", 24 * 24)
    (found,) = encoder.encode([values], [ones(values)])
    every_second = features(encoder, values)[::2, ::2].mean(axis=(0, 1), dtype=np.float64)
    np.testing.assert_allclose(found[0], every_second, atol=1e-5)


def test_land_between_the_pixels_that_are_taken_is_found(
    encoder: PixelEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = flight()
    monkeypatch.setattr(pixel_encoder, "MOST_WINDOWS", 12 * 12)
    weights = np.zeros_like(ones(values))
    weights[0, 5, 7] = 1
    (found,) = encoder.encode([values], [weights])
    np.testing.assert_allclose(found[0], features(encoder, values)[5, 7], atol=1e-5)


def test_what_clouds_hide_is_not_handed_to_the_encoder() -> None:
    clear = np.ones((4, 4), bool)
    clear[1, 2] = False
    chip = make_chip(4, ("B02", "B03"), valid_mask=clear)
    values = pixel_input(chip)
    np.testing.assert_array_equal(np.isfinite(values).all(axis=0), clear)
    np.testing.assert_array_equal(values[:, clear], chip.reflectance[:, clear])


def test_an_embedding_of_nothing_is_refused(encoder: PixelEncoder) -> None:
    values = flight()
    with pytest.raises(ValueError, match="no valid pixel"):
        encoder.encode([values], [np.zeros_like(ones(values))])
