from dataclasses import replace

import pytest
import torch
from vit_pytorch.simple_vit import SimpleViT as Oracle

from indexer.encoders.simple_vit import random_network
from indexer.encoders.simple_vit_network import SimpleViT, sincos_positions
from indexer.training.recipes import RECIPES

BANDS = 17


def as_vit_pytorch(network: SimpleViT) -> dict[str, torch.Tensor]:
    """Our parameters under the names of ``vit_pytorch.SimpleViT``."""
    names = {
        "embedding.0": "to_patch_embedding.1",
        "embedding.1": "to_patch_embedding.2",
        "embedding.2": "to_patch_embedding.3",
        "norm": "transformer.norm",
        "head": "linear_head",
    }
    for number in range(len(network.blocks)):
        ours, theirs = f"blocks.{number}", f"transformer.layers.{number}"
        names |= {f"{ours}.attention.{part}": f"{theirs}.0.{part}"
                  for part in ("norm", "to_qkv", "to_out")}  # fmt: skip
        names |= {f"{ours}.mlp.{part}": f"{theirs}.1.net.{part}" for part in range(4)}
    state = {}
    for name, tensor in network.state_dict().items():
        module, _, parameter = name.rpartition(".")
        state[f"{names[module]}.{parameter}"] = tensor
    return state


@pytest.mark.parametrize("training", [True, False])
def test_the_reports_network_computes_what_vit_pytorch_computes(training: bool) -> None:
    network = random_network(BANDS, RECIPES["report"], seed=3).train(training)
    oracle = Oracle(
        image_size=8, patch_size=1, channels=BANDS, num_classes=20, dim=20, depth=5, heads=3,
        dim_head=64, mlp_dim=5,
    )  # fmt: skip
    # Strict: no parameter of either is left over.
    oracle.load_state_dict(as_vit_pytorch(network), strict=True)
    windows = torch.randn(6, BANDS, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(windows), oracle(windows), rtol=1e-4, atol=1e-5)


def test_tokens_made_once_for_each_pixel_give_what_whole_windows_give() -> None:
    network = random_network(BANDS, RECIPES["report"], seed=3)
    windows = torch.randn(6, BANDS, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = windows.permute(0, 2, 3, 1).reshape(-1, BANDS)
    tokens = network.embed(pixels).reshape(6, 64, 20)
    torch.testing.assert_close(network.read(tokens), network(windows))


def test_without_the_norm_on_the_input_brightness_is_seen() -> None:
    window = torch.randn(1, BANDS, 8, 8, generator=torch.Generator().manual_seed(0))
    seen, unseen = (
        random_network(BANDS, replace(RECIPES["report"], input_norm=norm), seed=0)
        for norm in (False, True)
    )
    assert (seen(window) - seen(2 * window)).abs().max().item() > 0.01
    torch.testing.assert_close(unseen(window), unseen(2 * window), rtol=1e-3, atol=1e-3)


def test_the_center_token_is_the_pixel_that_the_window_is_of() -> None:
    recipe = replace(RECIPES["default"], depth=1)
    network = random_network(4, recipe, seed=0)
    torch.nn.init.zeros_(network.get_parameter("blocks.0.attention.to_out.weight"))
    window = torch.randn(1, 4, 7, 7, generator=torch.Generator().manual_seed(0))
    other = window.clone()
    other[:, :, 3, 3] += 1
    elsewhere = window.clone()
    elsewhere[:, :, 3, 4] += 1
    center = network(window)[:, :32]
    # Without attention, a token is of its own pixel only.
    assert torch.equal(network(elsewhere)[:, :32], center)
    assert not torch.equal(network(other)[:, :32], center)


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    positions = sincos_positions(3, 8).reshape(3, 3, 8)
    expected = torch.tensor([2.0, 2e-4, 2.0, 2e-4, 1.0, 1e-4, 1.0, 1e-4])
    expected = torch.cat([expected[:2].sin(), expected[2:4].cos(),
                          expected[4:6].sin(), expected[6:].cos()])  # fmt: skip
    torch.testing.assert_close(positions[1, 2], expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_gives_the_same_network_and_leaves_the_global_one_alone(seed: int) -> None:
    before = torch.get_rng_state()
    first, second = (random_network(5, RECIPES["default"], seed) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
