"""CROMA's forward pass over torchgeo's parameters, made for speed.

The arithmetic is that of ``torchgeo.models.CROMA``; its order and its precision differ::

    image (n, bands, 120, 120) -> patches (n * 225, bands * 64) -> Linear
      depth times:
        + attention       LayerNorm -> q, k, v -> heads, ALiBi as mask -> Linear
        [+ the same with k, v of the optical tokens, in the joint encoder]
        + feed-forward    LayerNorm -> Linear -> GELU -> Linear
      LayerNorm                                                   tokens (n, 225, d)
    pooled tokens (m, d) -> LayerNorm -> Linear -> GELU -> Linear (m, d); not in the joint encoder

A precision says how the matrices of the layers are multiplied. In each of them pixels enter, and
tokens are summed up, normalized, pooled and sent through the head, in fp32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from indexer.sensors import MODALITY_BANDS, Modality

State = dict[str, Tensor]
"""Parameters by the names that torchgeo gives them."""

Layer = Callable[[Tensor], Tensor]
"""Maps rows ``(rows, k)`` to ``(rows, n)``."""

PATCH_PX: Final = 8
PATCHES_PER_SIDE: Final = 15
PATCHES: Final = PATCHES_PER_SIDE**2
RADAR_CHANNELS: Final = len(MODALITY_BANDS["sar"])

HEAD_ROWS: Final = 32
"""Rows that are pooled, or sent through the head, at once: always as many, so that a row comes out
the same to the last bit however many there are."""


@dataclass(frozen=True)
class Norm:
    """LayerNorm of rows in fp32."""

    gain: Tensor
    offset: Tensor

    @classmethod
    def taken(cls, state: State, name: str, device: str) -> "Norm":
        """Take a norm's parameters out of a state dict."""
        gain, offset = (state.pop(f"{name}.{part}") for part in ("weight", "bias"))
        return cls(gain.to(device, torch.float32), offset.to(device, torch.float32))

    def __call__(self, rows: Tensor) -> Tensor:
        """Normalize rows ``(rows, k)``."""
        return F.layer_norm(rows, self.gain.shape, self.gain, self.offset)


class Arithmetic(Protocol):
    """How matrices are multiplied on a device."""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""

    def layer(
        self, norm: Norm | None, weight: Tensor, bias: Tensor | None, *, gelu: bool = False
    ) -> Layer:
        """LayerNorm, if any, linear layer and GELU, if wanted.

        Args:
            norm: Before the layer.
            weight: Shape ``(n, k)``; not held after the call unless it is used as it is.
            bias: Shape ``(n,)``.
            gelu: Whether GELU follows.
        """

    def position_bias(self, bias: Tensor) -> Tensor:
        """The position bias as ``attend`` takes it."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Mix values ``(n, heads, t, l)`` by scores under a bias ``(1, heads, t, t)``."""


class FloatArithmetic:
    """Layers in fp32 or bf16, on any device.

    On a CPU, oneDNN brings each matrix into a layout of its own, once, where it can: a third faster
    in fp32.

    Args:
        dtype: Of the matrices.
        device: ``cpu`` or ``cuda``.
        rows: That a layer is mostly given.
    """

    def __init__(self, dtype: torch.dtype, device: str, rows: int = PATCHES) -> None:
        self.device = device
        self._dtype = dtype
        self._rows = rows
        self._packs = device == "cpu" and _onednn_multiplies(dtype)

    def layer(
        self, norm: Norm | None, weight: Tensor, bias: Tensor | None, *, gelu: bool = False
    ) -> Layer:
        """See ``Arithmetic``."""
        weight = weight.to(self.device, self._dtype)
        if bias is not None:
            bias = bias.to(self.device, self._dtype)
        linear = (
            _packed(weight, bias, gelu, self._rows) if self._packs else _plain(weight, bias, gelu)
        )

        def apply(rows: Tensor) -> Tensor:
            return linear((rows if norm is None else norm(rows)).to(self._dtype))

        return apply

    def position_bias(self, bias: Tensor) -> Tensor:
        """See ``Arithmetic``."""
        bias = bias.to(self.device, self._dtype)
        if self.device == "cpu":
            return bias
        # The fused kernels want rows that begin at multiples of 16 bytes; otherwise PyTorch copies
        # the mask at every call.
        width = bias.shape[-1]
        return F.pad(bias, (0, -width % 8))[..., :width]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """See ``Arithmetic``."""
        if self._packs and self._dtype == torch.bfloat16:
            return attend_in_bf16(q, k, v, bias)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def attend_in_bf16(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention of one image on a CPU, everything in bf16.

    Of so few tokens, all scores at once, begun from the bias, take less time than PyTorch's fused
    kernel, which goes through them block by block.
    """
    scores = torch.baddbmm(bias[0], q[0], k[0].mT, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(dim=-1), v[0])[None]


def _onednn_multiplies(dtype: torch.dtype) -> bool:
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available:
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _plain(weight: Tensor, bias: Tensor | None, gelu: bool) -> Layer:
    def apply(rows: Tensor) -> Tensor:
        found = F.linear(rows, weight, bias)
        return F.gelu(found) if gelu else found

    return apply


def _packed(weight: Tensor, bias: Tensor | None, gelu: bool, rows: int) -> Layer:
    # What torch.compile makes of a linear layer on CPUs, called by itself.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    after, how = ("gelu", "none") if gelu else ("none", "")

    def apply(rows: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, after, [], how)
        return found

    return apply


def _linear(
    arithmetic: Arithmetic,
    state: State,
    name: str,
    norm: Norm | None = None,
    *,
    gelu: bool = False,
) -> Layer:
    """The linear layer of a name, taken out of a state dict."""
    bias = state.pop(f"{name}.bias", None)
    return arithmetic.layer(norm, state.pop(f"{name}.weight"), bias, gelu=gelu)


class Attention:
    """Tokens look at each other."""

    def __init__(self, state: State, name: str, heads: int, arithmetic: Arithmetic) -> None:
        norm = Norm.taken(state, f"{name}.input_norm", arithmetic.device)
        self._heads = heads
        self._arithmetic = arithmetic
        self._to_qkv = _linear(arithmetic, state, f"{name}.to_qkv", norm)
        self._to_out = _linear(arithmetic, state, f"{name}.to_out")

    def __call__(self, rows: Tensor, bias: Tensor) -> Tensor:
        """What is added to tokens ``(n * 225, d)``."""
        q, k, v = _to_heads(self._to_qkv(rows), 3, self._heads)
        return self._to_out(_from_heads(self._arithmetic.attend(q, k, v, bias)))


class CrossAttention:
    """Tokens look at those of another image of the same place."""

    def __init__(self, state: State, name: str, heads: int, arithmetic: Arithmetic) -> None:
        norm = Norm.taken(state, f"{name}.input_norm", arithmetic.device)
        to_kv = torch.cat([state.pop(f"{name}.to_{part}.weight") for part in "kv"])
        self._heads = heads
        self._arithmetic = arithmetic
        self._to_q = _linear(arithmetic, state, f"{name}.to_q", norm)
        self._to_kv = arithmetic.layer(norm, to_kv, None)
        self._to_out = _linear(arithmetic, state, f"{name}.to_out")

    def __call__(self, rows: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        """What is added to tokens ``(n * 225, d)`` that look at ``context``, of the same shape."""
        (q,) = _to_heads(self._to_q(rows), 1, self._heads)
        k, v = _to_heads(self._to_kv(context), 2, self._heads)
        return self._to_out(_from_heads(self._arithmetic.attend(q, k, v, bias)))


def _to_heads(rows: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Rows ``(n * 225, parts * d)`` as ``parts`` times ``(n, heads, 225, d / heads)``."""
    return (
        rows.view(-1, PATCHES, parts, heads, rows.shape[1] // parts // heads)
        .permute(2, 0, 3, 1, 4)
        .unbind()
    )


def _from_heads(mixed: Tensor) -> Tensor:
    """Rows ``(n * 225, d)`` of ``(n, heads, 225, d / heads)``."""
    n, heads, patches, length = mixed.shape
    return mixed.transpose(1, 2).reshape(n * patches, heads * length)


class FeedForward:
    """Each token thinks for itself."""

    def __init__(self, state: State, name: str, arithmetic: Arithmetic) -> None:
        norm = Norm.taken(state, f"{name}.input_norm", arithmetic.device)
        self._first = _linear(arithmetic, state, f"{name}.net.0", norm, gelu=True)
        self._second = _linear(arithmetic, state, f"{name}.net.3")

    def __call__(self, rows: Tensor) -> Tensor:
        """What is added to tokens ``(n * 225, d)``."""
        return self._second(self._first(rows))


class Encoder:
    """Tokens of images of one sensor."""

    def __init__(
        self, state: State, name: str, depth: int, heads: int, arithmetic: Arithmetic
    ) -> None:
        exact = FloatArithmetic(torch.float32, arithmetic.device)
        self._input = _linear(exact, state, f"{name}.linear_input")
        layers = f"{name}.transformer.layers"
        self._layers = [
            (
                Attention(state, f"{layers}.{number}.0", heads, arithmetic),
                FeedForward(state, f"{layers}.{number}.1", arithmetic),
            )
            for number in range(depth)
        ]
        self._norm = Norm.taken(state, f"{name}.transformer.norm_out", arithmetic.device)

    def __call__(self, images: Tensor, bias: Tensor) -> Tensor:
        """Tokens of images ``(n, bands, 120, 120)``, shape ``(n * 225, d)``."""
        rows = self._input(_patches(images))
        for attention, feed_forward in self._layers:
            rows = rows + attention(rows, bias)
            rows = rows + feed_forward(rows)
        return self._norm(rows)


def _patches(images: Tensor) -> Tensor:
    """Pixels of each patch, band by band, shape ``(n * 225, bands * 64)``."""
    n, bands, _, _ = images.shape
    side = PATCHES_PER_SIDE
    parts = images.reshape(n, bands, side, PATCH_PX, side, PATCH_PX).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(n * PATCHES, bands * PATCH_PX**2)


class JointEncoder:
    """Tokens of radar that look at the optical tokens of the same place."""

    def __init__(self, state: State, depth: int, heads: int, arithmetic: Arithmetic) -> None:
        self._optical = Encoder(state, "s2_encoder", depth, heads, arithmetic)
        self._radar = Encoder(state, "s1_encoder", depth // 2, heads, arithmetic)
        layers = "joint_encoder.layers"
        self._layers = [
            (
                Attention(state, f"{layers}.{number}.0", heads, arithmetic),
                CrossAttention(state, f"{layers}.{number}.1", heads, arithmetic),
                FeedForward(state, f"{layers}.{number}.2", arithmetic),
            )
            for number in range(depth // 2)
        ]
        self._norm = Norm.taken(state, "joint_encoder.norm_out", arithmetic.device)

    def __call__(self, images: Tensor, bias: Tensor) -> Tensor:
        """Tokens of images ``(n, 14, 120, 120)``, optical bands first: ``(n * 225, d)``."""
        optical = self._optical(images[:, :-RADAR_CHANNELS], bias)
        rows = self._radar(images[:, -RADAR_CHANNELS:], bias)
        for attention, cross_attention, feed_forward in self._layers:
            rows = rows + attention(rows, bias)
            rows = rows + cross_attention(rows, optical, bias)
            rows = rows + feed_forward(rows)
        return self._norm(rows)


class Network:
    """The part of CROMA that one modality needs.

    Args:
        state: Its parameters; each is taken out before the next is brought into the arithmetic's
            form, so that both forms are never in memory as a whole.
        modality: Which encoder sees the images.
        depth: Of the optical encoder; the others have half of it.
        heads: Of every attention.
        arithmetic: Of the encoder.
    """

    def __init__(
        self, state: State, modality: Modality, depth: int, heads: int, arithmetic: Arithmetic
    ) -> None:
        self.device = arithmetic.device
        self._bias = arithmetic.position_bias(position_bias(heads))
        self._encoder: Encoder | JointEncoder
        self._head: Layer | None = None
        if modality == "joint":
            self._encoder = JointEncoder(state, depth, heads, arithmetic)
            return
        sensor, layers = ("s2", depth) if modality == "optical" else ("s1", depth // 2)
        self._encoder = Encoder(state, f"{sensor}_encoder", layers, heads, arithmetic)
        self._head = _head(state, f"{sensor}_GAP_FFN", self.device)

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens of images ``(n, bands, 120, 120)``: shape ``(n, 225, d)``."""
        rows = self._encoder(images.to(self.device), self._bias)
        return rows.view(len(images), PATCHES, -1)

    def pool(self, tokens: Tensor, shares: Tensor) -> Tensor:
        """Sums of one image's tokens ``(225, d)`` under shares ``(m, 225)``: shape ``(m, d)``."""
        return _in_blocks(lambda block: block @ tokens, shares.to(self.device))

    def head(self, pooled: Tensor) -> Tensor:
        """What pooled tokens ``(m, d)`` are embedded as, of the same shape."""
        if self._head is None:
            return pooled
        return _in_blocks(self._head, pooled.to(self.device))


def _head(state: State, name: str, device: str) -> Layer:
    arithmetic = FloatArithmetic(torch.float32, device, HEAD_ROWS)
    norm = Norm.taken(state, f"{name}.0", device)
    first = _linear(arithmetic, state, f"{name}.1", norm, gelu=True)
    second = _linear(arithmetic, state, f"{name}.3")
    return lambda rows: second(first(rows))


def _in_blocks(layer: Layer, rows: Tensor) -> Tensor:
    """Send rows through a layer, always as many at once."""
    count = len(rows)
    padded = F.pad(rows, (0, 0, 0, -count % HEAD_ROWS))
    return torch.cat([layer(block) for block in torch.split(padded, HEAD_ROWS)])[:count]


def position_bias(heads: int) -> Tensor:
    """Two-dimensional ALiBi: what a score loses by the distance of two patches.

    Args:
        heads: Of the attention; the loss per patch falls from head to head, from 2^(-8 / heads) to
            2^-8.

    Returns:
        Shape ``(1, heads, 225, 225)``, fp32.

    References:
        Press, Smith and Lewis (2022), Train Short, Test Long, https://arxiv.org/abs/2108.12409;
        with distances in the plane: Fuller, Millard and Green (2023), as in ``croma``.
    """
    slopes = torch.tensor([2 ** (-8 * number / heads) for number in range(1, heads + 1)])
    side = torch.arange(PATCHES_PER_SIDE, dtype=torch.float64)
    places = torch.cartesian_prod(side, side)
    distances = (places[:, None] - places).square().sum(dim=-1).sqrt().float()
    return -slopes[None, :, None, None] * distances
