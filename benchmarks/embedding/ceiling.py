"""How fast a device multiplies matrices of the network's shapes, and nothing else."""

import time
from typing import Final

import torch

from indexer.encoders.croma import ARCHITECTURES, BANDS, PATCH_PX
from indexer.encoders.croma_network import PATCHES, FloatArithmetic

# Images whose tokens are multiplied at once, as in the encoder.
_IMAGES: Final = {"cpu": 1, "cuda": 64}
_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}
_ROUNDS: Final = 30


def layer_shapes(encoder: str) -> list[tuple[int, int]]:
    """Inputs and outputs of the four matrices of a layer."""
    width = ARCHITECTURES[encoder]["encoder_dim"]
    return [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]


def chip_flops(encoder: str) -> float:
    """Additions and multiplications of one chip's matrix products.

    Those of the linear layers and of attention; norms, GELU and the head are left out.
    """
    architecture = ARCHITECTURES[encoder]
    width, depth = architecture["encoder_dim"], architecture["encoder_depth"]
    linear = sum(inputs * outputs for inputs, outputs in layer_shapes(encoder))
    attention = 2 * PATCHES * width
    first = len(BANDS) * PATCH_PX**2 * width
    return 2.0 * PATCHES * (depth * (linear + attention) + first)


def measure_ceiling(encoder: str, device: str, precision: str) -> float:
    """Floating point operations a second of the matrices of one layer, one after the other.

    The products are made by the same kernels as in the encoder; the fastest of many rounds counts.
    """
    arithmetic = FloatArithmetic(_DTYPES[precision], device)
    rows = PATCHES * _IMAGES[device]
    shapes = layer_shapes(encoder)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        products = [
            (
                arithmetic.layer(None, torch.randn(outputs, inputs, generator=generator), None),
                torch.randn(rows, inputs, generator=generator).to(device, _DTYPES[precision]),
            )
            for inputs, outputs in shapes
        ]
        seconds = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            for product, given in products:
                product(given)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    flops = 2.0 * rows * sum(inputs * outputs for inputs, outputs in shapes)
    return flops / min(seconds)
