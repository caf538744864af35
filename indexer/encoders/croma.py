"""CROMA's encoders: ``(n, bands, 120, 120)`` to tokens, and these to embeddings.

Fuller, Millard and Green (2023), CROMA: Remote Sensing Representations with Contrastive
Radar-Optical Masked Autoencoders, https://arxiv.org/abs/2311.00566. Parameters, their names and
random ones come from torchgeo; ``croma_network`` multiplies them.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

import numpy as np

from indexer.encoders.base import FloatArray, Images
from indexer.encoders.cores import Cores
from indexer.encoders.simple_vit import choose_device
from indexer.encoders.weights import PARTS, UNTRAINED_SEED, Weights, load_state
from indexer.errors import InvalidInputError, WeightsError
from indexer.sensors import MODALITY_BANDS, Modality

if TYPE_CHECKING:
    from indexer.encoders.croma_network import Arithmetic, Network

Precision = Literal["fp32", "bf16", "int8"]
"""How matrices are multiplied; ``int8`` as ``croma_int8`` describes it."""

BANDS: Final = MODALITY_BANDS["optical"]
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


def check_precision(precision: str) -> str:
    """Return the precision's name if it is known.

    Raises:
        InvalidInputError: If it is not (``invalid-option``).
    """
    return _checked("precision", precision, get_args(Precision))


def check_modality(modality: str) -> str:
    """Return the modality's name if it is known.

    Raises:
        InvalidInputError: If it is not (``invalid-option``).
    """
    return _checked("modality", modality, get_args(Modality))


def _checked(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise InvalidInputError(
            f"--{option} {value}: unknown; use one of {', '.join(known)}.", kind="invalid-option"
        )
    return value


def best_precision(device: str = "auto") -> Precision:
    """The fastest precision that a device has instructions for and that is not ``int8``.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        ``bf16`` on GPUs from compute capability 8.0 on and on processors that multiply bf16 by
        themselves; else ``fp32``.

    Raises:
        InvalidInputError: As ``choose_device``.
    """
    import torch

    if choose_device(device) == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32"
    # Before PyTorch 2.9 it does not say.
    tell = getattr(torch.cpu, "get_capabilities", dict)
    capabilities: dict[str, Any] = tell()
    native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))
    return "bf16" if native else "fp32"


class CromaEncoder:
    """One branch of CROMA with pooling over any part of the image.

    The network is built and its weights are read at the first use.

    Args:
        name: ``croma-large`` or ``croma-base``.
        weights: Of the modality's parts at least.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``fp32``, ``bf16``, or, on CPUs, ``int8``.
        modality: What it sees; radar in dB as in SSL4EO-S12.
    """

    def __init__(
        self,
        name: str,
        weights: Weights,
        device: str = "auto",
        precision: str = "fp32",
        modality: Modality = "optical",
    ) -> None:
        self.name = check_encoder(name)
        self.weights = weights
        self.precision = check_precision(precision)
        self.modality: Modality = modality
        check_modality(modality)
        self._device = device

    def in_precision(self, precision: Precision) -> Self:
        """The same network that computes with other numbers."""
        return type(self)(self.name, self.weights, self._device, precision, self.modality)

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of an image, in order."""
        return MODALITY_BANDS[self.modality]

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
        return choose_device(self._device)

    def load(self) -> None:
        """Build the network and read its weights now instead of at the first image.

        Raises:
            InvalidInputError: If the device lacks the precision (``invalid-option``).
            WeightsError: If the weights do not fit the network.
        """
        _ = self._network

    @property
    def loaded(self) -> bool:
        """Whether the network is in memory already."""
        return "_network" in self.__dict__

    @cached_property
    def _network(self) -> "Network":
        from indexer.encoders.croma_network import Network

        arithmetic = _arithmetic(self.precision, self.device)
        architecture = ARCHITECTURES[self.name]
        return Network(
            parameters(self.name, self.weights, self.modality),
            self.modality,
            architecture["encoder_depth"],
            architecture["num_heads"],
            arithmetic,
        )

    def pool(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """Mean of the tokens that count; see ``Encoder``.

        On a CPU each image goes through the network by itself, several side by side on a core
        each, and comes out the same whatever is beside it. On a GPU they go together.

        Args:
            images: Shape ``(n, bands, 120, 120)``, normalized, bands as ``bands``.
            pooling_weights: One array for each image, shape ``(m, 15, 15)``.

        Returns:
            One array for each image, shape ``(m, dimensions)``.
        """
        import torch

        if self.device == "cpu":
            # Loaded before several threads ask for it.
            self.load()
            return self._cores.each(self._pool_one, images, pooling_weights)
        if not len(images):
            return []
        network = self._network
        with torch.inference_mode():
            tokens = network.tokens(torch.from_numpy(np.ascontiguousarray(images)))
            pooled = [
                network.pool(image_tokens, torch.from_numpy(_shares(weights)))
                for image_tokens, weights in zip(tokens, pooling_weights, strict=True)
            ]
            return [rows.cpu().numpy() for rows in pooled]

    @cached_property
    def _cores(self) -> Cores:
        return Cores()

    def _pool_one(self, image: FloatArray, weights: FloatArray) -> FloatArray:
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(image)[None])
            (tokens,) = self._network.tokens(batch)
            pooled = self._network.pool(tokens, torch.from_numpy(_shares(weights)))
            return np.asarray(pooled.numpy(), dtype=np.float32)

    def finish(self, pooled: FloatArray) -> FloatArray:
        """Send pooled tokens through the head, which joint embeddings have none of.

        Args:
            pooled: Shape ``(m, dimensions)``.

        Returns:
            The same shape. The mean of all tokens gives torchgeo's ``optical_GAP``, ``sar_GAP`` or
            ``joint_GAP``.
        """
        import torch

        with torch.inference_mode():
            found = self._network.head(torch.from_numpy(np.ascontiguousarray(pooled)))
            return np.asarray(found.cpu().numpy(), dtype=np.float32)

    def encode(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """Embed images, each pooled once or several times; see ``Encoder``.

        Args:
            images: As for ``pool``.
            pooling_weights: As for ``pool``.

        Returns:
            One array for each image, shape ``(m, dimensions)``. Weights of one everywhere give
            torchgeo's ``optical_GAP``, ``sar_GAP`` or ``joint_GAP``.
        """
        pooled = self.pool(images, pooling_weights)
        if not pooled:
            return []
        ends = np.cumsum([len(rows) for rows in pooled])
        return np.split(self.finish(np.concatenate(pooled)), ends[:-1])


def _shares(weights: FloatArray) -> FloatArray:
    """Weights ``(m, 15, 15)`` as parts of one, shape ``(m, 225)``."""
    rows = np.ascontiguousarray(weights, dtype=np.float32).reshape(len(weights), -1)
    shares: FloatArray = rows / rows.sum(axis=1, keepdims=True)
    return shares


def _arithmetic(precision: str, device: str) -> "Arithmetic":
    """How a precision multiplies on a device.

    Raises:
        InvalidInputError: If it does not (``invalid-option``).
    """
    import torch

    from indexer.encoders.croma_int8 import Int8Arithmetic, can_multiply
    from indexer.encoders.croma_network import FloatArithmetic

    if precision != "int8":
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        return FloatArithmetic(dtype, device)
    if device != "cpu":
        raise InvalidInputError(
            f"--precision int8: made for CPUs, but --device is {device}; use --precision bf16 "
            "there, or --device cpu.",
            kind="invalid-option",
        )
    if not can_multiply():
        raise InvalidInputError(
            "--precision int8: this processor, or PyTorch as it is installed here, does not "
            "multiply bytes (it takes an x86 processor with VNNI); use --precision "
            f"{best_precision('cpu')}.",
            kind="invalid-option",
        )
    return Int8Arithmetic()


def parameters(name: str, weights: Weights, modality: Modality) -> dict[str, Any]:
    """The parameters that a modality needs, by the names that torchgeo gives them.

    Args:
        name: ``croma-large`` or ``croma-base``.
        weights: A file, or untrained.
        modality: What is seen.

    Returns:
        Those of the file, or random ones, the same each time.

    Raises:
        WeightsError: If the file does not hold the network, and nothing but it.
    """
    import torch
    from torch import nn
    from torchgeo.models import CROMA

    sensors = ["sar", "optical"] if modality == "joint" else [modality]
    if weights.path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(UNTRAINED_SEED)
            random = CROMA(sensors, image_size=IMAGE_PX, **ARCHITECTURES[name])
        return {
            key: value
            for key, value in random.state_dict().items()
            if key.startswith(tuple(f"{part}." for part in PARTS[modality]))
        }
    state = load_state(weights.path, name, modality)
    # Only to compare names and shapes: its tensors hold nothing, and as the position bias is
    # computed and not learned, the size of the image does not matter.
    with torch.device("meta"):
        empty = CROMA(sensors, image_size=PATCH_PX, **ARCHITECTURES[name])
    expected = nn.ModuleDict({part: getattr(empty, part) for part in PARTS[modality]})
    try:
        expected.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        detail = str(error).strip().splitlines()
        raise WeightsError(
            f"{weights.path}: not the weights of {name} "
            f"({detail[1 if len(detail) > 1 else 0].strip()[:160]}). "
            "Give the file that fits --encoder.",
            kind="weights-mismatch",
        ) from error
    return state


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
