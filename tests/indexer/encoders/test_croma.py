import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import shapely
import torch
from torchgeo.models import CROMA

from indexer.encoders import croma
from indexer.encoders.agreement import compare_embeddings
from indexer.encoders.croma import (
    ARCHITECTURES,
    BANDS,
    CromaEncoder,
    best_precision,
    check_encoder,
    parameters,
    resize,
)
from indexer.encoders.weights import locate_weights
from indexer.errors import InvalidInputError
from indexer.normalization import Normalization
from indexer.preparing import encoder_input
from indexer.sensors import MODALITY_BANDS, Modality
from tests.indexer import one_chip
from tests.synthetic import compute_position_bias_once, make_chip

FloatArray = npt.NDArray[np.float32]

MODALITIES: tuple[Modality, ...] = get_args(Modality)


@pytest.fixture(scope="module", autouse=True)
def _quick_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        compute_position_bias_once(patch)
        yield


@pytest.fixture(scope="module")
def encoder(tiny_croma: str) -> CromaEncoder:
    return open_tiny(tiny_croma)


@pytest.fixture(scope="module")
def reference(tiny_croma: str) -> CROMA:
    """torchgeo's own network with the encoder's parameters."""
    return torchgeo_network(tiny_croma, "optical")


@pytest.fixture(scope="module")
def deeper() -> Iterator[str]:
    """Name of a CROMA with a layer in each of its encoders."""
    with pytest.MonkeyPatch.context() as patch:
        architecture = {"encoder_dim": 512, "encoder_depth": 2, "num_heads": 16}
        patch.setitem(croma.ARCHITECTURES, "croma-deeper", architecture)
        yield "croma-deeper"


def open_tiny(name: str, precision: str = "fp32", modality: Modality = "optical") -> CromaEncoder:
    weights = locate_weights("untrained", name)
    try:
        encoder = CromaEncoder(name, weights, "cpu", precision, modality)
        encoder.load()
    except InvalidInputError as error:
        if precision != "int8":
            raise
        pytest.skip(error.message)
    return encoder


def torchgeo_network(name: str, modality: Modality) -> CROMA:
    sensors = ["sar", "optical"] if modality == "joint" else [modality]
    with torch.random.fork_rng(devices=[]):
        network = CROMA(sensors, image_size=120, **ARCHITECTURES[name]).eval()
    state = parameters(name, locate_weights("untrained", name), modality)
    assert network.load_state_dict(state, strict=False).unexpected_keys == []
    return network


def images(count: int, seed: int = 0, bands: int = 12) -> FloatArray:
    return np.random.default_rng(seed).random((count, bands, 120, 120), dtype=np.float32)


def everywhere(count: int = 1) -> FloatArray:
    return np.ones((count, 15, 15), dtype=np.float32)


def weights_at(*patches: tuple[int, int, float]) -> FloatArray:
    """One embedding's pooling weights: row, column and share of each patch that counts."""
    weights = np.zeros((1, 15, 15), dtype=np.float32)
    for row, column, share in patches:
        weights[0, row, column] = share
    return weights


def random_weights(count: int, seed: int = 0) -> FloatArray:
    """Pooling weights of parcels, each in some of the patches."""
    generator = np.random.default_rng(seed)
    weights = generator.random((count, 15, 15), dtype=np.float32)
    return np.where(generator.random(weights.shape) < 0.1, weights, np.float32(0))


def output_of(network: CROMA, batch: FloatArray) -> dict[str, torch.Tensor]:
    """What torchgeo's network itself says of images, optical bands first."""
    tensor = torch.from_numpy(batch)
    sees = {"x_optical": tensor[:, :12], "x_sar": tensor[:, -2:]}
    if batch.shape[1] != 14:
        del sees["x_sar" if batch.shape[1] == 12 else "x_optical"]
    with torch.inference_mode():
        output: dict[str, torch.Tensor] = network(**sees)
    return output


@contextmanager
def counted_passes(encoder: CromaEncoder) -> Iterator[list[int]]:
    """A list that grows by the size of the batch with each forward pass."""
    sizes: list[int] = []
    network = encoder._network
    forward = network.tokens

    def note(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        return forward(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "tokens", note)
        yield sizes


# torchgeo's network


@pytest.mark.parametrize("modality", MODALITIES)
def test_weights_of_one_everywhere_give_the_embedding_of_torchgeo(
    deeper: str, modality: Modality
) -> None:
    encoder = open_tiny(deeper, modality=modality)
    assert encoder.bands == MODALITY_BANDS[modality]
    batch = images(2, bands=len(encoder.bands))
    expected = output_of(torchgeo_network(deeper, modality), batch)[f"{modality}_GAP"].numpy()
    embeddings = np.concatenate(encoder.encode(batch, [everywhere()] * 2))
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_tokens_are_those_of_torchgeo(deeper: str, modality: Modality) -> None:
    encoder = open_tiny(deeper, modality=modality)
    batch = images(1, bands=len(encoder.bands))
    expected = output_of(torchgeo_network(deeper, modality), batch)[f"{modality}_encodings"]
    # A weight on a single patch pools its token alone.
    single = np.eye(225, dtype=np.float32).reshape(225, 15, 15)
    (tokens,) = encoder.pool(batch, [single])
    np.testing.assert_allclose(tokens, expected[0].numpy(), atol=1e-5)


@pytest.mark.parametrize(("precision", "least"), [("bf16", 0.9999), ("int8", 0.9995)])
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_precision_agrees_with_fp32(
    deeper: str, modality: Modality, precision: str, least: float
) -> None:
    exact, quick = (open_tiny(deeper, word, modality) for word in ("fp32", precision))
    batch = images(3, bands=len(exact.bands))
    weights = [random_weights(20, seed) for seed in range(3)]
    found, expected = (np.concatenate(one.encode(batch, weights)) for one in (quick, exact))
    agreement = compare_embeddings(found, expected)
    assert agreement.cosine_min > least
    # Else it would be fp32 by another name.
    assert agreement.cosine_min < 1 - 1e-7


# Pooling


@pytest.mark.parametrize(("row", "column"), [(0, 0), (7, 3), (14, 14)])
def test_weight_on_one_patch_gives_that_token_through_the_gap_head(
    encoder: CromaEncoder, reference: CROMA, row: int, column: int
) -> None:
    batch = images(1)
    # Tokens come row by row, 15 a row.
    token = output_of(reference, batch)["optical_encodings"][:, 15 * row + column]
    with torch.inference_mode():
        expected = reference.s2_GAP_FFN(token).numpy()
    (embedding,) = encoder.encode(batch, [weights_at((row, column, 0.25))])
    np.testing.assert_allclose(embedding, expected, atol=1e-6)


def test_a_patch_counts_by_the_share_of_it_that_lies_inside(
    encoder: CromaEncoder, reference: CROMA
) -> None:
    batch = images(1)
    tokens = output_of(reference, batch)["optical_encodings"][0]
    mean = (0.75 * tokens[15 * 2 + 3] + 0.25 * tokens[15 * 2 + 4]) / (0.75 + 0.25)
    with torch.inference_mode():
        expected = reference.s2_GAP_FFN(mean[None]).numpy()
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
        np.testing.assert_array_equal(together[number], alone)


def test_no_images_give_no_embeddings(encoder: CromaEncoder) -> None:
    assert encoder.encode([], []) == []
    assert encoder.finish(np.zeros((0, 512), np.float32)).shape == (0, 512)


def test_pooling_over_two_images_equals_pooling_over_all_their_tokens(
    encoder: CromaEncoder,
) -> None:
    batch = images(2)
    weights = [random_weights(1, seed=seed) for seed in (1, 2)]
    single = np.eye(225, dtype=np.float32).reshape(225, 15, 15)
    tokens = np.concatenate(encoder.pool(batch, [single, single])).astype(np.float64)
    union = np.concatenate([one.reshape(-1) for one in weights])
    expected = (union / union.sum()) @ tokens

    means = encoder.pool(batch, weights)
    sums = [one.sum() for one in weights]
    pooled = sum(total * mean for total, mean in zip(sums, means, strict=True)) / sum(sums)

    np.testing.assert_allclose(pooled[0], expected, atol=1e-5)


def test_finishing_pooled_tokens_is_embedding(encoder: CromaEncoder) -> None:
    batch, weights = images(2), [random_weights(3), random_weights(50)]
    finished = [encoder.finish(rows) for rows in encoder.pool(batch, weights)]
    for one, other in zip(finished, encoder.encode(batch, weights), strict=True):
        np.testing.assert_array_equal(one, other)


def test_joint_embeddings_have_no_head(deeper: str) -> None:
    encoder = open_tiny(deeper, modality="joint")
    pooled = np.random.default_rng(0).random((3, 512), dtype=np.float32)
    np.testing.assert_array_equal(encoder.finish(pooled), pooled)


# What else is asked for


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_an_embedding_is_the_same_to_the_last_bit_whatever_else_is_asked_for(
    tiny_croma: str, precision: str
) -> None:
    encoder = open_tiny(tiny_croma, precision)
    batch = images(3)
    # More than one block of rows, and not a multiple of it.
    weights = [random_weights(count, seed=count) for count in (70, 1, 33)]
    together = encoder.encode(batch, weights)
    # Another batch, another order, and each parcel by itself.
    shuffled = encoder.encode(batch[[2, 0]], [weights[2][::-1], weights[0][::-1]])
    np.testing.assert_array_equal(shuffled[0][::-1], together[2])
    np.testing.assert_array_equal(shuffled[1][::-1], together[0])
    for number in (0, 13, 32):
        (alone,) = encoder.encode(batch[2:], [weights[2][[number]]])
        np.testing.assert_array_equal(alone[0], together[2][number])


# Parcels in a chip


def embed_polygons(encoder: CromaEncoder, *polygons: shapely.Polygon) -> FloatArray:
    """Embeddings of parcels in one chip, shape ``(n, d)``."""
    chip = make_chip()
    image = encoder_input(chip, Normalization.ssl4eo(), encoder.image_px)
    return one_chip.embed(encoder, image, one_chip.prepare(chip, *polygons))


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


def test_a_polygon_over_the_whole_chip_gives_optical_gap(
    encoder: CromaEncoder, reference: CROMA
) -> None:
    image = encoder_input(make_chip(), Normalization.ssl4eo(), encoder.image_px)
    expected = output_of(reference, image[None])["optical_GAP"].numpy()
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


# Precision and modality


def test_an_unknown_precision_and_modality_are_refused_with_the_known_ones(
    tiny_croma: str,
) -> None:
    weights = locate_weights("untrained", tiny_croma)
    with pytest.raises(InvalidInputError, match=r"--precision fp8: .*fp32, bf16, int8") as caught:
        CromaEncoder(tiny_croma, weights, precision="fp8")
    assert caught.value.kind == "invalid-option"
    with pytest.raises(InvalidInputError, match=r"--modality x: .*optical, sar, joint") as caught:
        CromaEncoder(tiny_croma, weights, modality="x")  # type: ignore[arg-type]
    assert caught.value.kind == "invalid-option"


def test_int8_is_refused_on_a_gpu(tiny_croma: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    encoder = CromaEncoder(
        tiny_croma, locate_weights("untrained", tiny_croma), "cuda", precision="int8"
    )
    with pytest.raises(InvalidInputError, match=r"made for CPUs.*--precision bf16") as caught:
        encoder.load()
    assert caught.value.kind == "invalid-option"


def test_int8_is_refused_where_bytes_are_not_multiplied(
    tiny_croma: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in PyTorch without oneDNN.
    monkeypatch.setattr(torch.ops, "onednn", object())
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    encoder = CromaEncoder(
        tiny_croma, locate_weights("untrained", tiny_croma), "cpu", precision="int8"
    )
    with pytest.raises(InvalidInputError, match=r"VNNI.*use --precision fp32") as caught:
        encoder.load()
    assert caught.value.kind == "invalid-option"


@pytest.mark.parametrize(
    ("capabilities", "best"),
    [({"avx512_bf16": True}, "bf16"), ({"avx2": True, "avx512_bf16": False}, "fp32")],
)
def test_the_best_precision_of_a_processor_is_what_it_has_instructions_for(
    capabilities: dict[str, bool], best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert best_precision("cpu") == best


@pytest.mark.parametrize(("capability", "best"), [((9, 0), "bf16"), ((7, 5), "fp32")])
def test_the_best_precision_of_a_gpu_is_what_it_has_instructions_for(
    capability: tuple[int, int], best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert best_precision("auto") == best


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
    weights = locate_weights("untrained", "croma-large")
    encoder = CromaEncoder("croma-large", weights, device="cpu")
    batch = images(2)
    embeddings = np.concatenate(encoder.encode(batch, [everywhere(), everywhere()]))
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert embeddings.shape == (2, 1024)
    assert np.isfinite(embeddings).all()
    expected = output_of(torchgeo_network("croma-large", "optical"), batch)["optical_GAP"].numpy()
    np.testing.assert_allclose(embeddings, expected, atol=1e-4)
    # 311 million parameters of 4 bytes are 1.2 GB; libraries and activations come to it.
    assert peak_bytes < 4e9


@pytest.mark.full_size
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_precision_of_croma_large_agrees_with_fp32(precision: str) -> None:
    found, expected = (
        np.concatenate(open_tiny("croma-large", word).encode(images(2), [random_weights(30)] * 2))
        for word in (precision, "fp32")
    )
    agreement = compare_embeddings(found, expected)
    assert agreement.cosine_min > 0.999
