"""What must not change a vector: the order of bands and chips, B10, the offset, its neighbors."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from indexer.encoders.croma import CromaEncoder
from indexer.encoders.weights import locate_weights
from indexer.imagery.reader import ReadingOptions, Scene
from indexer.imagery.sources import find_sources
from indexer.normalization import Normalization
from indexer.preparing import encoder_input
from indexer.projection import Projection, unit_rows
from indexer.sensors import PROFILES
from tests.indexer.one_chip import embed, prepare
from tests.synthetic import compute_position_bias_once, make_chip, make_dn, write_geotiff

FloatArray = npt.NDArray[np.float32]

L2A, L1C, EUROSAT = PROFILES["l2a"], PROFILES["l1c"], PROFILES["eurosat"]
BATCH = 6


@pytest.fixture(scope="module")
def encoder(tiny_croma: str) -> Iterator[CromaEncoder]:
    with pytest.MonkeyPatch.context() as patch:
        compute_position_bias_once(patch)
        yield CromaEncoder(tiny_croma, locate_weights("untrained", tiny_croma), device="cpu")


@pytest.fixture(scope="module")
def images() -> list[FloatArray]:
    """Inputs of different chips."""
    normalization = Normalization.ssl4eo()
    return [encoder_input(make_chip(seed=seed), normalization, 120) for seed in range(BATCH)]


def embed_images(encoder: CromaEncoder, images: Sequence[FloatArray]) -> FloatArray:
    everywhere = np.ones((1, 15, 15), dtype=np.float32)
    return np.concatenate(encoder.encode(np.stack(images), [everywhere] * len(images)))


def embed_image(encoder: CromaEncoder, image: FloatArray) -> FloatArray:
    (embedding,) = embed_images(encoder, [image])
    return np.asarray(embedding)


def embed_file(
    encoder: CromaEncoder,
    path: Path,
    **options: Any,  # noqa: ANN401 - fields of ReadingOptions
) -> FloatArray:
    """The vector of one file, on the way that ``reindex`` and ``embed`` take."""
    (source,), _ = find_sources([path])
    scene = Scene.open(source, ReadingOptions(**options))
    chip = scene.read()
    (prepared,) = prepare(chip, None, pooling="image")
    image = encoder_input(chip, Normalization.ssl4eo(), encoder.image_px)
    (embedding,) = embed(encoder, image, [prepared])
    return np.asarray(embedding)


def layers_of(stack: npt.NDArray[Any], *order: str) -> npt.NDArray[Any]:
    """Layers of a Level-1C stack in another order."""
    return stack[[L1C.index(band) for band in order]]


# The order of bands


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_permuted_but_correctly_named_bands_give_the_same_vector(
    encoder: CromaEncoder, tmp_path: Path, seed: int
) -> None:
    stack = make_dn(64, L1C)
    order = np.random.default_rng(seed).permutation(L1C).tolist()
    plain = write_geotiff(tmp_path / "plain.tif", layers_of(stack, *L2A), L2A)
    described = write_geotiff(tmp_path / "described.tif", layers_of(stack, *order), order)
    unnamed = write_geotiff(tmp_path / "unnamed.tif", layers_of(stack, *order))
    expected = embed_file(encoder, plain)
    np.testing.assert_array_equal(embed_file(encoder, described), expected)
    np.testing.assert_array_equal(embed_file(encoder, unnamed, bands=tuple(order)), expected)


@pytest.mark.parametrize("profile", [L1C, EUROSAT], ids=["l1c", "eurosat"])
def test_a_stack_with_and_without_b10_gives_the_same_vector(
    encoder: CromaEncoder, tmp_path: Path, profile: tuple[str, ...]
) -> None:
    stack = make_dn(64, L1C)
    with_b10 = write_geotiff(tmp_path / "with.tif", layers_of(stack, *profile))
    without = write_geotiff(tmp_path / "without.tif", layers_of(stack, *L2A))
    np.testing.assert_array_equal(
        embed_file(encoder, with_b10, bands=profile), embed_file(encoder, without, bands=L2A)
    )


def test_wrongly_named_bands_do_not_give_the_same_vector(
    encoder: CromaEncoder, tmp_path: Path
) -> None:
    # Else the tests above would show nothing.
    path = write_geotiff(tmp_path / "a.tif", make_dn(64, L1C))
    right, wrong = (embed_file(encoder, path, bands=bands) for bands in (L1C, EUROSAT))
    assert np.abs(right - wrong).max() > 1e-3


# The offset


def test_digital_numbers_with_and_without_offset_give_the_same_vector(
    encoder: CromaEncoder, tmp_path: Path
) -> None:
    with_offset = make_dn(64)
    new = write_geotiff(tmp_path / "field_N0510.tif", with_offset, L2A)
    old = write_geotiff(tmp_path / "field_N0209.tif", with_offset - 1000, L2A)
    unnamed = write_geotiff(tmp_path / "field.tif", with_offset, L2A)
    expected = embed_file(encoder, new)
    np.testing.assert_array_equal(embed_file(encoder, old), expected)
    np.testing.assert_array_equal(embed_file(encoder, unnamed, baseline="05.10"), expected)
    assert np.abs(embed_file(encoder, unnamed) - expected).max() > 1e-3


def test_digital_numbers_and_reflectance_give_the_same_vector(
    encoder: CromaEncoder, tmp_path: Path
) -> None:
    dn = make_dn(64)
    reflectance = (dn / 10_000).astype(np.float32)
    numbers = write_geotiff(tmp_path / "numbers.tif", dn, L2A)
    units = write_geotiff(tmp_path / "units.tif", reflectance, L2A)
    np.testing.assert_allclose(embed_file(encoder, units), embed_file(encoder, numbers), atol=1e-5)


# The batch


def test_a_chip_gives_the_same_vector_alone_and_in_a_batch_of_any_size(
    encoder: CromaEncoder, images: list[FloatArray]
) -> None:
    alone = np.stack([embed_image(encoder, image) for image in images])
    for size in range(2, BATCH + 1):
        together = embed_images(encoder, images[:size])
        np.testing.assert_allclose(together, alone[:size], atol=1e-5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_chip_gives_the_same_vector_in_any_order(
    encoder: CromaEncoder, images: list[FloatArray], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(BATCH)
    in_order = embed_images(encoder, images)
    shuffled = embed_images(encoder, [images[position] for position in order])
    np.testing.assert_allclose(shuffled, in_order[order], atol=1e-5)


def test_a_chip_gives_the_same_vector_beside_chips_of_another_brightness(
    encoder: CromaEncoder, images: list[FloatArray]
) -> None:
    # A normalization by the batch's own mean and standard deviation would fail here.
    extremes = [np.zeros_like(images[0]), np.ones_like(images[0])]
    beside = embed_images(encoder, [images[0], *extremes])[0]
    np.testing.assert_allclose(beside, embed_image(encoder, images[0]), atol=1e-5)


def test_what_is_searched_is_the_same_alone_and_in_a_batch(
    encoder: CromaEncoder, images: list[FloatArray]
) -> None:
    rows = embed_images(encoder, images)
    projection = Projection.fit(rows)
    together = projection.apply(rows)
    alone = np.concatenate(
        [projection.apply(embed_image(encoder, image)[None]) for image in images]
    )
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.abs(unit_rows(rows)[0] - unit_rows(rows)[1]).max() > 1e-4
