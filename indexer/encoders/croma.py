"""CROMA optical encoders through torchgeo: ``(n, 12, 120, 120)`` to ``(n, 1024)``.

Fuller, Millard and Green (2023), CROMA: Remote Sensing Representations with Contrastive
Radar-Optical Masked Autoencoders, https://arxiv.org/abs/2311.00566.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from indexer.encoders.base import FloatArray, Images
from indexer.encoders.weights import UNTRAINED_SEED, Weights, load_optical_state
from indexer.errors import InvalidInputError, WeightsError
from indexer.sensors import PROFILES

if TYPE_CHECKING:
    from torch import Tensor
    from torchgeo.models import CROMA

BANDS: Final = PROFILES["l2a"]
"""Input bands of CROMA's optical encoder, in order."""

IMAGE_PX: Final = 120
PATCH_PX: Final = 8

ARCHITECTURES: dict[str, dict[str, int]] = {
    # As in torchgeo's croma_base and croma_large.
    "croma-base": {"encoder_dim": 768, "encoder_depth": 12, "num_heads": 16},
    "croma-large": {"encoder_dim": 1024, "encoder_depth": 24, "num_heads": 16},
}


def check_encoder(name: str) -> str:
    """Return the encoder's name if it is known.

    Raises:
        InvalidInputError: If it is not (``unknown-encoder``).
    """
    if name not in ARCHITECTURES:
        raise InvalidInputError(
            f"--encoder {name}: unknown; use one of {', '.join(ARCHITECTURES)}.",
            kind="unknown-encoder",
        )
    return name


class CromaEncoder:
    """The optical branch of CROMA with pooling over any part of the image.

    The network is built and its weights are read at the first use.
    """

    def __init__(self, name: str, weights: Weights, device: str = "auto") -> None:
        self.name = check_encoder(name)
        self.weights = weights
        self._device = device

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""
        return ARCHITECTURES[self.name]["encoder_dim"]

    @property
    def image_px(self) -> int:
        """Side of the square input in pixels."""
        return IMAGE_PX

    @property
    def patches_per_side(self) -> int:
        """Tokens along one side of the input; each covers 80 m at 10 m per pixel."""
        return IMAGE_PX // PATCH_PX

    @cached_property
    def device(self) -> str:
        """``cpu`` or ``cuda``.

        Raises:
            InvalidInputError: If a GPU was asked for and there is none.
        """
        import torch

        if self._device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self._device == "cuda" and not torch.cuda.is_available():
            raise InvalidInputError(
                "--device cuda: PyTorch sees no GPU here; use --device cpu or auto.",
                kind="invalid-option",
            )
        return self._device

    def load(self) -> None:
        """Build the network and read its weights now instead of at the first image.

        Raises:
            WeightsError: If the weights do not fit the network.
        """
        _ = self._network

    @property
    def loaded(self) -> bool:
        """Whether the network is in memory already."""
        return "_network" in self.__dict__

    @cached_property
    def _network(self) -> "CROMA":
        import torch
        from torchgeo.models import CROMA

        path = self.weights.path
        # Before the network is built, which takes long: a file may turn out to be unusable.
        state = None if path is None else load_optical_state(path, self.name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(UNTRAINED_SEED)
            network = CROMA(
                modalities=["optical"],
                patch_size=PATCH_PX,
                image_size=IMAGE_PX,
                **ARCHITECTURES[self.name],
            )
        if state is not None:
            # The position bias is computed, not learned; published files do not hold it.
            state = {"attn_bias": network.attn_bias, **state}
            try:
                network.load_state_dict(state, strict=True)
            except RuntimeError as error:
                detail = str(error).strip().splitlines()
                raise WeightsError(
                    f"{path}: not the weights of {self.name} "
                    f"({detail[1 if len(detail) > 1 else 0].strip()[:160]}). "
                    "Give the file that fits --encoder.",
                    kind="weights-mismatch",
                ) from error
        return network.eval().to(self.device)

    def encode(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """Embed images, each pooled once or several times, in one forward pass.

        Args:
            images: Shape ``(n, 12, 120, 120)``, normalized, bands as ``BANDS``.
            pooling_weights: One array for each image, shape ``(m, 15, 15)``; see ``Encoder``.

        Returns:
            One array for each image, shape ``(m, dimensions)``. Weights of one everywhere give
            torchgeo's ``optical_GAP``.
        """
        import torch

        network = self._network
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
            tokens = network(x_optical=batch)["optical_encodings"]
            pooled = [
                _pool(image_tokens, torch.from_numpy(weights).to(self.device))
                for image_tokens, weights in zip(tokens, pooling_weights, strict=True)
            ]
            embeddings = network.s2_GAP_FFN(torch.cat(pooled)).float().cpu().numpy()
        ends = np.cumsum([len(weights) for weights in pooling_weights])
        return np.split(embeddings, ends[:-1])


def _pool(tokens: "Tensor", weights: "Tensor") -> "Tensor":
    """Weighted mean of tokens ``(225, d)`` under weights ``(m, 15, 15)``: shape ``(m, d)``."""
    shares = weights.reshape(len(weights), -1, 1)
    return (tokens * shares).sum(dim=1) / shares.sum(dim=1)


def resize(images: FloatArray, side_px: int) -> FloatArray:
    """Bring images ``(n, band, y, x)`` to a square of ``side_px`` by bilinear interpolation."""
    if images.shape[-2:] == (side_px, side_px):
        return images
    import torch

    resized = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(images)),
        size=(side_px, side_px),
        mode="bilinear",
        align_corners=False,
    )
    return np.asarray(resized.numpy(), dtype=np.float32)
