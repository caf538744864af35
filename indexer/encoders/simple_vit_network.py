"""SimpleViT: a small vision transformer over the pixels of a window.

Beyer, Zhai and Kolesnikov (2022), Better plain ViT baselines for ImageNet-1k,
https://arxiv.org/abs/2205.01580, in the arrangement of ``vit_pytorch.SimpleViT``: patches of one
pixel, fixed sine and cosine positions, pre-norm blocks, no class token.

::

    pixels (n, c, w, w)
      embedding   [LayerNorm] -> Linear -> LayerNorm            of each pixel by itself
      + positions                                               (n, w * w, dim)
      depth times:
        + attention  LayerNorm -> q, k, v -> heads -> Linear
        + mlp        LayerNorm -> Linear -> GELU -> Linear
      LayerNorm
      readout     mean | center token beside mean  -> [Linear]  (n, d)
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.training.recipes import PretrainRecipe

_TEMPERATURE = 10_000


class Attention(nn.Module):
    """Multi-head self-attention of all pixels of a window."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(n, t, dim)`` to the same shape."""
        n, t, dim = tokens.shape
        tokens = self.norm(tokens)
        if dim < self.to_out.in_features // self.heads:
            return self._between_tokens(tokens)
        qkv = self.to_qkv(tokens).view(n, t, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(mixed.transpose(1, 2).reshape(n, t, -1))  # type: ignore[no-any-return]

    def _between_tokens(self, tokens: Tensor) -> Tensor:
        """The same for heads that are longer than a token, with less work.

        ``(x Q) (x K)^T = (x Q K^T) x^T`` and ``P (x V) O = (P x) (V O)``: with ``Q K^T`` and
        ``V O`` multiplied out, everything is as long as a token.
        """
        dim = tokens.shape[-1]
        q, k, v = self.to_qkv.weight.view(3, self.heads, -1, dim)
        out = self.to_out.weight.view(dim, self.heads, -1).transpose(0, 1)
        keys = tokens[:, None].expand(-1, self.heads, -1, -1)
        queries = tokens[:, None] @ (q.mT @ k)
        mixed = F.scaled_dot_product_attention(queries, keys, keys, scale=q.shape[1] ** -0.5)
        attended: Tensor = (mixed @ (out @ v).mT).sum(dim=1)
        return attended


class Mlp(nn.Sequential):
    """Two layers on each token by itself."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)
        )


class Block(nn.Module):
    """One layer: pixels look at each other, then each thinks for itself."""

    def __init__(self, dim: int, heads: int, dim_head: int, mlp_dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, dim_head)
        self.mlp = Mlp(dim, mlp_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(n, t, dim)`` to the same shape."""
        tokens = tokens + self.attention(tokens)
        return tokens + self.mlp(tokens)  # type: ignore[no-any-return]


class SimpleViT(nn.Module):
    """The network of a recipe.

    Args:
        channels: Values of a pixel: bands or components.
        recipe: Its shape.
    """

    positions: Tensor

    def __init__(self, channels: int, recipe: PretrainRecipe) -> None:
        super().__init__()
        self.window_px = recipe.window_px
        self.readout = recipe.readout
        self.embedding = nn.Sequential(
            nn.LayerNorm(channels) if recipe.input_norm else nn.Identity(),
            nn.Linear(channels, recipe.dim),
            nn.LayerNorm(recipe.dim),
        )
        positions = sincos_positions(recipe.window_px, recipe.dim)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(
            Block(recipe.dim, recipe.heads, recipe.dim_head, recipe.mlp_dim)
            for _ in range(recipe.depth)
        )
        self.norm = nn.LayerNorm(recipe.dim)
        width = recipe.dim * (2 if recipe.readout == "center+mean" else 1)
        self.head = nn.Linear(width, recipe.head) if recipe.head else nn.Identity()

    def forward(self, windows: Tensor) -> Tensor:
        """Embed windows ``(n, c, w, w)``: shape ``(n, d)``."""
        return self.read(self.embed(windows.flatten(2).mT))

    def embed(self, pixels: Tensor) -> Tensor:
        """Tokens of pixels ``(..., c)``, without positions: shape ``(..., dim)``.

        A pixel's token is the same in every window that holds it, so that an image needs this once.
        """
        return self.embedding(pixels)  # type: ignore[no-any-return]

    def read(self, tokens: Tensor) -> Tensor:
        """Embed windows of tokens ``(n, w * w, dim)``, in row-major order: shape ``(n, d)``."""
        tokens = tokens + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        mean = tokens.mean(dim=1)
        if self.readout == "mean":
            return self.head(mean)  # type: ignore[no-any-return]
        half = self.window_px // 2
        center = tokens[:, half * self.window_px + half]
        return self.head(torch.cat((center, mean), dim=1))  # type: ignore[no-any-return]


def sincos_positions(side_px: int, dim: int) -> Tensor:
    """Fixed positions of a square's pixels in row-major order, shape ``(side_px ** 2, dim)``.

    Columns of sin(x), cos(x), sin(y), cos(y) at ``dim / 4`` frequencies each, from 1 down to
    1 / 10000.
    """
    y, x = torch.meshgrid(torch.arange(side_px), torch.arange(side_px), indexing="ij")
    frequencies = _TEMPERATURE ** -(torch.arange(dim // 4) / (dim // 4 - 1))
    x_angles = x.reshape(-1, 1) * frequencies
    y_angles = y.reshape(-1, 1) * frequencies
    return torch.cat((x_angles.sin(), x_angles.cos(), y_angles.sin(), y_angles.cos()), dim=1)


@contextmanager
def in_one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone.

    The network is so small that several threads mostly wait for each other: a little faster on an
    idle machine, and ten times slower on a busy one. With one, sums do not depend on how many there
    are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
