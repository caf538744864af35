"""Layers of CROMA in int8, on CPUs.

``y = W x + b`` for the 225 tokens ``x`` of an image, with 8 bits for ``W`` and 8 bits for what is
multiplied with it::

    W = scale_of_output * integers                one scale for each output
    m = mean of the image's tokens                one row
    x = m + scale_of_token * integers + rest      one scale for each token
    y = (integers . integers) * scales + W m + b

- What an image's tokens have in common is most of what they are, channels far out of range among
  it; only their differences are left to 8 bits. ``W m`` costs two rows more in the same product:
  ``m`` in 8 bits, and its rest in another 8.
- Behind a LayerNorm, the gain of each channel is shared between ``x`` and ``W`` in equal parts, so
  that large gains cost neither of them their precision (Xiao et al., 2023, SmoothQuant,
  https://arxiv.org/abs/2211.10438, there with measured maxima in place of gains).
- Nothing is calibrated: scales follow from the weights and the image at hand, so that a vector
  depends on no other image.

This is what the precision ``int8`` names in an embedding space. Another scheme needs another word.
"""

from typing import Final

import torch
from torch import Tensor

from indexer.encoders.croma_network import Layer, Norm, attend_in_bf16

_LARGEST: Final = 127
_ZERO: Final = 128
"""Which unsigned byte stands for 0."""

# Added to a small number, rounds it to an integer that stands in the lowest bits of the sum.
_ROUNDING: Final = float(2**23)

# Keeps divisions finite where a token, an output or a channel is all zeros.
_TINY: Final = 1e-20


class Int8Arithmetic:
    """Products of bytes by oneDNN, attention in bf16."""

    device: Final = "cpu"

    def layer(
        self, norm: Norm | None, weight: Tensor, bias: Tensor | None, *, gelu: bool = False
    ) -> Layer:
        """See ``Arithmetic``; the rows of a call must be those of one image."""
        weight = weight.float()
        if norm is not None:
            norm, weight = share_gain(norm, weight)
        product = _Product(weight, None if bias is None else bias.float())

        def apply(rows: Tensor) -> Tensor:
            found = product(rows if norm is None else norm(rows))
            return torch.ops.aten.gelu_(found) if gelu else found

        return apply

    def position_bias(self, bias: Tensor) -> Tensor:
        """See ``Arithmetic``."""
        return bias.bfloat16()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """See ``Arithmetic``."""
        return attend_in_bf16(q.bfloat16(), k.bfloat16(), v.bfloat16(), bias).float()


def share_gain(norm: Norm, weight: Tensor) -> tuple[Norm, Tensor]:
    """Let a LayerNorm and the layer behind it have equal ranges in every channel.

    Args:
        norm: Of k channels.
        weight: Shape ``(n, k)``.

    Returns:
        Both, for the same product.
    """
    gain, reach = norm.gain.abs(), weight.abs().amax(dim=0)
    # A channel without a gain has no range to share, but may have an offset.
    factor = (gain.clamp_min(1e-4 * gain.max()) / reach.clamp_min(_TINY)).sqrt()
    factor = torch.where((gain > 0) & (reach > 0), factor, torch.ones_like(factor))
    return Norm(norm.gain / factor, norm.offset / factor), weight * factor


class _Product:
    """``y = W x + b`` of the tokens of an image."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scales = (weight.abs().amax(dim=1, keepdim=True) / _LARGEST).clamp_min_(_TINY)
        integers = (weight / scales).round_().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(integers, None)
        self._scales = scales[:, 0].contiguous()
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = torch.zeros(len(weight)) if bias is None else bias

    def __call__(self, tokens: Tensor) -> Tensor:
        """Map tokens ``(t, k)`` in fp32 to ``(t, n)``."""
        count, width = tokens.shape
        mean = tokens.mean(dim=0, keepdim=True)
        differences = tokens - mean
        scales, mean_scale = _scales(differences), _scales(mean)
        integers = torch.empty(count + 2, width, dtype=torch.uint8)
        integers[:count] = _integers(differences, scales)
        integers[count] = _integers(mean, mean_scale)[0]
        rest = mean - (integers[count].float() - _ZERO) * mean_scale
        rest_scale = _scales(rest)
        integers[count + 1] = _integers(rest, rest_scale)[0]
        sums = multiply(integers, self._weight, self._scales, self._zeros)
        shared = self._bias + sums[count] * mean_scale[0] + sums[count + 1] * rest_scale[0]
        tokens_sums = sums[:count]
        return torch.addcmul(shared, tokens_sums, scales, out=tokens_sums)


def _scales(rows: Tensor) -> Tensor:
    """The step of each row, shape ``(rows, 1)``."""
    furthest = torch.maximum(rows.amax(dim=1, keepdim=True), -rows.amin(dim=1, keepdim=True))
    return furthest.div_(_LARGEST).clamp_min_(_TINY)


def _integers(rows: Tensor, scales: Tensor) -> Tensor:
    """Rows in steps, above ``_ZERO``; their low bytes are what counts."""
    zero = rows.new_tensor(_ROUNDING + _ZERO)
    return torch.addcmul(zero, rows, scales.reciprocal()).view(torch.int32)


def multiply(integers: Tensor, packed: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """Products of bytes, summed up exactly.

    Args:
        integers: Shape ``(t, k)``, uint8 above ``_ZERO``.
        packed: Signed bytes ``(n, k)`` in oneDNN's layout.
        scales: Of the n outputs.
        zeros: As many zeros, int32.

    Returns:
        Shape ``(t, n)``, fp32.
    """
    found: Tensor = torch.ops.onednn.qlinear_pointwise(
        integers, 1.0, _ZERO, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


def can_multiply() -> bool:
    """Whether this machine multiplies bytes as this module needs it: exactly.

    PyTorch brings the product only along with oneDNN for x86, and processors without instructions
    for it (AVX-512 VNNI, AVX-VNNI, AMX) let large sums overflow.
    """
    generator = torch.Generator().manual_seed(0)
    left = torch.randint(0, 256, (4, 512), generator=generator, dtype=torch.uint8)
    right = torch.randint(-127, 128, (64, 512), generator=generator, dtype=torch.int8)
    left[0], right[0] = 255, 127
    expected = (left.long() - _ZERO) @ right.long().T
    try:
        packed = torch.ops.onednn.qlinear_prepack(right, None)
        zeros = torch.zeros(64, dtype=torch.int32)
        found = multiply(left, packed, torch.ones(64), zeros)
    # AttributeError where there is no such operator, RuntimeError where it does not run.
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.equal(found.double(), expected.double())
