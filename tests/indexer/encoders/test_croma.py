import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
import torch

from indexer.chipping import ChipPlan, Target
from indexer.encoders.croma import BANDS, CromaEncoder, check_encoder, resize
from indexer.encoders.weights import locate_weights
from indexer.errors import InvalidInputError
from indexer.normalization import Normalization
from indexer.parcels.parcel import Parcel
from indexer.pipeline import Findings, encode, encoder_input, prepare
from tests.synthetic import compute_position_bias_once, make_chip

FloatArray = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def encoder(tiny_croma: str) -> Iterator[CromaEncoder]:
    with pytest.MonkeyPatch.context() as patch:
        compute_position_bias_once(patch)
        yield CromaEncoder(tiny_croma, locate_weights("untrained", tiny_croma), device="cpu")


def images(count: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).random((count, 12, 120, 120), dtype=np.float32)


def everywhere(count: int = 1) -> FloatArray:
    return np.ones((count, 15, 15), dtype=np.float32)


def weights_at(*patches: tuple[int, int, float]) -> FloatArray:
    """One embedding's pooling weights: row, column and share of each patch that counts."""
    weights = np.zeros((1, 15, 15), dtype=np.float32)
    for row, column, share in patches:
        weights[0, row, column] = share
    return weights


def output_of(encoder: CromaEncoder, batch: FloatArray) -> dict[str, torch.Tensor]:
    """What torchgeo's network itself says."""
    with torch.inference_mode():
        output: dict[str, torch.Tensor] = encoder._network(x_optical=torch.from_numpy(batch))
    return output


@contextmanager
def counted_passes(encoder: CromaEncoder) -> Iterator[list[int]]:
    """A list that grows by the size of the batch with each forward pass."""
    sizes: list[int] = []

    def note(_: object, __: object, arguments: dict[str, Any], ___: object) -> None:
        sizes.append(len(arguments["x_optical"]))

    hook = encoder._network.register_forward_hook(note, with_kwargs=True)
    yield sizes
    hook.remove()


# Pooling


def test_weights_of_one_everywhere_give_optical_gap(encoder: CromaEncoder) -> None:
    batch = images(3)
    expected = output_of(encoder, batch)["optical_GAP"].numpy()
    embeddings = np.concatenate(encoder.encode(batch, [everywhere()] * 3))
    assert embeddings.shape == (3, encoder.dimensions)
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, expected)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (7, 3), (14, 14)])
def test_weight_on_one_patch_gives_that_token_through_the_gap_head(
    encoder: CromaEncoder, row: int, column: int
) -> None:
    batch = images(1)
    # Tokens come row by row, 15 a row.
    token = output_of(encoder, batch)["optical_encodings"][:, 15 * row + column]
    with torch.inference_mode():
        expected = encoder._network.s2_GAP_FFN(token).numpy()
    (embedding,) = encoder.encode(batch, [weights_at((row, column, 0.25))])
    np.testing.assert_allclose(embedding, expected, atol=1e-6)


def test_a_patch_counts_by_the_share_of_it_that_lies_inside(encoder: CromaEncoder) -> None:
    batch = images(1)
    tokens = output_of(encoder, batch)["optical_encodings"][0]
    mean = (0.75 * tokens[15 * 2 + 3] + 0.25 * tokens[15 * 2 + 4]) / (0.75 + 0.25)
    with torch.inference_mode():
        expected = encoder._network.s2_GAP_FFN(mean[None]).numpy()
    (embedding,) = encoder.encode(batch, [weights_at((2, 3, 0.75), (2, 4, 0.25))])
    np.testing.assert_allclose(embedding, expected, atol=1e-6)


def test_only_the_proportions_of_the_weights_count(encoder: CromaEncoder) -> None:
    batch = images(1)
    weights = weights_at((2, 3, 1.0), (2, 4, 0.5))
    (large,) = encoder.encode(batch, [weights])
    # A parcel of a few square meters covers about a thousandth of a patch.
    (small,) = encoder.encode(batch, [weights * np.float32(1e-3)])
    np.testing.assert_allclose(large, small, atol=1e-6)


def test_each_image_gets_the_embeddings_that_it_was_asked_for(encoder: CromaEncoder) -> None:
    batch = images(3)
    asked = [
        np.concatenate([weights_at((0, 0, 1)), weights_at((5, 5, 1))]),
        everywhere(),
        np.concatenate([weights_at((1, 1, 1)), everywhere(), weights_at((9, 9, 1))]),
    ]
    together = encoder.encode(batch, asked)
    assert [rows.shape for rows in together] == [(2, 512), (1, 512), (3, 512)]
    for number, weights in enumerate(asked):
        (alone,) = encoder.encode(batch[number : number + 1], [weights])
        np.testing.assert_allclose(together[number], alone, atol=1e-5)


# Parcels in a chip


def embed_polygons(encoder: CromaEncoder, *polygons: shapely.Polygon) -> FloatArray:
    """Embeddings of parcels in one chip, shape ``(n, d)``."""
    chip = make_chip()
    targets = tuple(
        Target(Parcel("test", str(number), None), polygon)
        for number, polygon in enumerate(polygons)
    )
    plan = ChipPlan(0, 0, 120, 120, targets)
    prepared = prepare(chip, plan, "parcel", encoder.patches_per_side, Findings())
    image = encoder_input(chip, Normalization.ssl4eo(), encoder.image_px)
    (rows,) = encode(encoder, [image], [prepared])
    return np.stack(rows)


def in_chip(left_m: float, top_m: float, right_m: float, bottom_m: float) -> shapely.Polygon:
    """A rectangle in meters from the chip's upper left corner."""
    west, _, _, north = make_chip().bounds
    return shapely.box(west + left_m, north - bottom_m, west + right_m, north - top_m)


def test_two_parcels_in_one_chip_get_different_vectors_from_one_forward_pass(
    encoder: CromaEncoder,
) -> None:
    parcels = in_chip(100, 100, 300, 250), in_chip(700, 800, 900, 1000)
    with counted_passes(encoder) as passes:
        first, second = embed_polygons(encoder, *parcels)
    assert passes == [1]
    assert np.abs(first - second).max() > 1e-2


def test_a_polygon_over_the_whole_chip_gives_optical_gap(encoder: CromaEncoder) -> None:
    image = encoder_input(make_chip(), Normalization.ssl4eo(), encoder.image_px)
    expected = output_of(encoder, image[None])["optical_GAP"].numpy()
    for polygon in (in_chip(0, 0, 1200, 1200), in_chip(-500, -500, 2000, 2000)):
        np.testing.assert_allclose(embed_polygons(encoder, polygon), expected, atol=1e-6)


@pytest.mark.parametrize(
    "polygon",
    [
        in_chip(-300, -300, 60, 60),
        in_chip(1195, 500, 1500, 600),
        in_chip(402, 402, 418, 418),
        in_chip(399, 399, 401, 401),
        in_chip(500, 500, 500.5, 500.5),
    ],
    ids=["over the corner", "5 m inside", "16 m wide", "on four patches", "50 cm wide"],
)
def test_a_parcel_cut_by_the_edge_or_smaller_than_a_patch_gets_its_share(
    encoder: CromaEncoder, polygon: shapely.Polygon
) -> None:
    (embedding,) = embed_polygons(encoder, polygon)
    assert np.isfinite(embedding).all()
    assert np.linalg.norm(embedding) > 0


def test_a_small_parcel_gets_the_vector_of_the_patch_it_lies_in(encoder: CromaEncoder) -> None:
    # 402 to 418 m: within the sixth patch of 80 m in both directions.
    (embedding,) = embed_polygons(encoder, in_chip(402, 402, 418, 418))
    image = encoder_input(make_chip(), Normalization.ssl4eo(), encoder.image_px)
    (expected,) = encoder.encode(image[None], [weights_at((5, 5, 1.0))])
    np.testing.assert_allclose(embedding, expected[0], atol=1e-6)


# The network


def test_the_network_is_built_at_the_first_use_and_once(tiny_croma: str) -> None:
    encoder = CromaEncoder(tiny_croma, locate_weights("untrained", tiny_croma), device="cpu")
    assert "_network" not in vars(encoder)
    assert (encoder.dimensions, encoder.image_px, encoder.patches_per_side) == (512, 120, 15)
    encoder.load()
    network = encoder._network
    encoder.load()
    assert encoder._network is network
    assert not network.training


@pytest.mark.parametrize(("name", "dimensions"), [("croma-large", 1024), ("croma-base", 768)])
def test_an_encoder_is_described_without_building_it(name: str, dimensions: int) -> None:
    encoder = CromaEncoder(name, locate_weights("untrained", name))
    assert encoder.dimensions == dimensions
    assert "_network" not in vars(encoder)


def test_an_unknown_encoder_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"croma-huge.*croma-base, croma-large") as caught:
        check_encoder("croma-huge")
    assert caught.value.kind == "unknown-encoder"


def test_the_input_bands_are_those_of_level_2a() -> None:
    bands = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12"
    assert tuple(bands.split()) == BANDS


def test_a_gpu_that_is_not_there_is_refused(
    tiny_croma: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    weights = locate_weights("untrained", tiny_croma)
    with pytest.raises(InvalidInputError, match="--device cuda: PyTorch sees no GPU") as caught:
        CromaEncoder(tiny_croma, weights, device="cuda").load()
    assert caught.value.kind == "invalid-option"
    assert CromaEncoder(tiny_croma, weights, device="auto").device == "cpu"


def test_a_gpu_is_taken_where_there_is_one(
    tiny_croma: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    weights = locate_weights("untrained", tiny_croma)
    assert CromaEncoder(tiny_croma, weights, device="auto").device == "cuda"
    assert CromaEncoder(tiny_croma, weights, device="cpu").device == "cpu"


# Size of the input


def test_an_image_of_the_right_size_is_not_touched() -> None:
    batch = images(1)
    assert resize(batch, 120) is batch


def test_enlarging_interpolates_between_the_centers_of_pixels() -> None:
    # Two pixels to four: the new centers lie at -1/4, 1/4, 3/4 and 5/4 of the way.
    batch = np.array([0.0, 1.0], dtype=np.float32).reshape(1, 1, 1, 2).repeat(2, axis=2)
    np.testing.assert_allclose(resize(batch, 4)[0, 0], [[0, 0.25, 0.75, 1]] * 4)


def test_shrinking_takes_the_value_at_the_center() -> None:
    # Four pixels to two: the new centers lie in the middle of each pair.
    row = np.array([0.0, 0.2, 0.6, 1.0], dtype=np.float32)
    batch = row.reshape(1, 1, 1, 4).repeat(4, axis=2)
    np.testing.assert_allclose(resize(batch, 2)[0, 0], [[0.1, 0.8]] * 2, rtol=1e-6)


@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (37, 120), (1, 1)])
def test_a_uniform_image_stays_uniform_at_any_size(shape: tuple[int, int]) -> None:
    resized = resize(np.full((2, 12, *shape), 0.3, dtype=np.float32), 120)
    assert resized.shape == (2, 12, 120, 120)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, 0.3, rtol=1e-6)


# The full size


@pytest.mark.full_size
def test_croma_large_embeds_two_chips_as_torchgeo_does() -> None:
    encoder = CromaEncoder("croma-large", locate_weights("untrained", "croma-large"), device="cpu")
    batch = images(2)
    embeddings = np.concatenate(encoder.encode(batch, [everywhere(), everywhere()]))
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert embeddings.shape == (2, 1024)
    assert np.isfinite(embeddings).all()
    expected = output_of(encoder, batch)["optical_GAP"].numpy()
    np.testing.assert_array_equal(embeddings, expected)
    # 311 million parameters of 4 bytes are 1.2 GB; libraries and activations come to it.
    assert peak_bytes < 4e9
