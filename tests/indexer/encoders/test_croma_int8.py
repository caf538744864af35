import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from indexer.encoders.croma_int8 import Int8Arithmetic, can_multiply, share_gain
from indexer.encoders.croma_network import Norm

pytestmark = pytest.mark.skipif(not can_multiply(), reason="no byte products on this processor")

TOKENS, INPUTS, OUTPUTS = 225, 256, 64


@pytest.fixture
def numbers() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def error_of(found: Tensor, expected: Tensor) -> float:
    """Length of the difference, beside that of what tells one token from another."""
    differences = expected - expected.mean(dim=0)
    return float((found - expected).norm() / differences.norm())


def product_error(tokens: Tensor, weight: Tensor) -> float:
    bias = torch.linspace(-1, 1, len(weight))
    layer = Int8Arithmetic().layer(None, weight, bias)
    return error_of(layer(tokens), F.linear(tokens, weight, bias))


def test_what_8_bits_hold_is_multiplied_exactly() -> None:
    # Every weight and every difference from the mean, which is 3, is a whole number of steps.
    weight = torch.tensor([[127.0, -1.0], [-64.0, 127.0]])
    tokens = torch.tensor([[127.0, 0.0], [-127.0, 100.0], [0.0, -100.0]]) + 3
    found = Int8Arithmetic().layer(None, weight, torch.tensor([0.5, -0.5]))(tokens)
    expected = [
        [127 * 130 - 3 + 0.5, -64 * 130 + 127 * 3 - 0.5],
        [127 * -124 - 103 + 0.5, -64 * -124 + 127 * 103 - 0.5],
        [127 * 3 + 97 + 0.5, -64 * 3 + 127 * -97 - 0.5],
    ]
    # The mean is held in 16 bits.
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=0.2)


def test_an_error_is_that_of_rounding_to_8_bits(numbers: torch.Generator) -> None:
    tokens = torch.randn(TOKENS, INPUTS, generator=numbers)
    weight = torch.randn(OUTPUTS, INPUTS, generator=numbers)
    # The largest of 256 normal numbers is about 2.8; rounding to 127 steps below it leaves a
    # standard deviation of 2.8 / 127 / sqrt(12) = 0.0064 on either side: 0.9 % together.
    assert 0.007 < product_error(tokens, weight) < 0.011


def test_what_all_tokens_share_costs_no_precision(numbers: torch.Generator) -> None:
    tokens = torch.randn(TOKENS, INPUTS, generator=numbers)
    weight = torch.randn(OUTPUTS, INPUTS, generator=numbers)
    shared = 2 * torch.randn(INPUTS, generator=numbers)
    shared[[3, 5]] = torch.tensor([60.0, -40.0])
    quiet = product_error(tokens, weight)
    layer = Int8Arithmetic().layer(None, weight, None)
    # The weights' own rounding adds the same to every token, which tells none from another.
    found, expected = layer(tokens + shared), F.linear(tokens + shared, weight)
    drift = (found - expected).mean(dim=0)
    assert error_of(found - drift, expected) < 1.1 * quiet


def test_a_large_token_costs_the_others_no_precision(numbers: torch.Generator) -> None:
    tokens = torch.randn(TOKENS, INPUTS, generator=numbers)
    weight = torch.randn(OUTPUTS, INPUTS, generator=numbers)
    large = tokens.clone()
    large[7] *= 50
    layer = Int8Arithmetic().layer(None, weight, None)
    others = [number for number in range(TOKENS) if number != 7]
    expected = F.linear(large, weight)
    assert error_of(layer(large)[others], expected[others]) < 0.015


@pytest.mark.parametrize("channels", [1, 8])
def test_a_norm_with_large_gains_costs_little_precision(
    numbers: torch.Generator, channels: int
) -> None:
    tokens = torch.randn(TOKENS, INPUTS, generator=numbers)
    weight = torch.randn(OUTPUTS, INPUTS, generator=numbers)
    gain, offset = torch.ones(INPUTS), torch.randn(INPUTS, generator=numbers)
    gain[:channels] = 50
    layer = Int8Arithmetic().layer(Norm(gain, offset), weight, None)
    expected = F.linear(F.layer_norm(tokens, (INPUTS,), gain, offset), weight)
    assert error_of(layer(tokens), expected) < 0.02


def test_gelu_follows_where_it_is_wanted(numbers: torch.Generator) -> None:
    tokens = torch.randn(TOKENS, INPUTS, generator=numbers)
    weight = torch.randn(OUTPUTS, INPUTS, generator=numbers) / INPUTS**0.5
    plain, gelu = (
        Int8Arithmetic().layer(None, weight, None, gelu=wanted) for wanted in (False, True)
    )
    torch.testing.assert_close(gelu(tokens), F.gelu(plain(tokens)))


def test_tokens_of_zeros_give_the_bias() -> None:
    bias = torch.tensor([1.0, -2.0])
    layer = Int8Arithmetic().layer(None, torch.ones(2, 8), bias)
    torch.testing.assert_close(layer(torch.zeros(5, 8)), bias.expand(5, 2))


def test_sharing_a_gain_changes_no_product(numbers: torch.Generator) -> None:
    gain = torch.tensor([50.0, 1.0, 0.0, -0.2, 1.0])
    offset = torch.tensor([0.0, 1.0, 2.0, -1.0, 3.0])
    weight = torch.randn(3, 5, generator=numbers)
    weight[:, 4] = 0
    rows = torch.randn(7, 5, generator=numbers)
    norm, shared = share_gain(Norm(gain, offset), weight)
    expected = F.linear(F.layer_norm(rows, (5,), gain, offset), weight)
    torch.testing.assert_close(F.linear(norm(rows), shared), expected)
    # Where both have a range, it is the same on both sides.
    torch.testing.assert_close(norm.gain.abs()[[0, 1, 3]], shared.abs().amax(dim=0)[[0, 1, 3]])
