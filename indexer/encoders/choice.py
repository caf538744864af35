"""The encoder that ``--encoder`` names."""

from pathlib import Path
from typing import Final

from indexer.encoders.croma import (
    ARCHITECTURES,
    CromaEncoder,
    check_modality,
    check_precision,
)
from indexer.encoders.pixel_encoder import PixelEncoder
from indexer.encoders.simple_vit import NAME
from indexer.encoders.weights import locate_weights
from indexer.errors import InvalidInputError
from indexer.sensors import Modality

_PREFIX: Final = f"{NAME}:"


def check_encoder_choice(
    encoder: str, weights: str | None = None, normalization: str | None = None
) -> None:
    """Refuse an unknown encoder, and what contradicts a file that says all of itself.

    Args:
        encoder: ``croma-large``, ``croma-base`` or ``simple-vit:FILE``.
        weights: As ``--weights``; None where not given.
        normalization: As ``--normalization``; None where not given.

    Raises:
        InvalidInputError: ``unknown-encoder`` or ``invalid-option``.
    """
    if encoder in ARCHITECTURES:
        return
    file = encoder_file(encoder)
    if file is None:
        raise InvalidInputError(
            f"--encoder {encoder}: unknown; use one of {', '.join(ARCHITECTURES)}, or "
            f"{_PREFIX}FILE with a file that parcelle pretrain made.",
            kind="unknown-encoder",
        )
    for option, value in (("weights", weights), ("normalization", normalization)):
        if value is not None:
            raise InvalidInputError(
                f"--{option} {value}: {file} holds its own {option}; leave --{option} away, or "
                "name another file.",
                kind="invalid-option",
            )


def encoder_file(encoder: str) -> Path | None:
    """The file that ``simple-vit:FILE`` names; None for another word."""
    file = encoder.removeprefix(_PREFIX)
    return None if file == encoder or not file else Path(file).expanduser()


def open_pixel_encoder(encoder: str, device: str = "auto") -> PixelEncoder | None:
    """The encoder that ``simple-vit:FILE`` names; None for another word.

    Raises:
        WeightsError: If the file cannot be used.
    """
    file = encoder_file(encoder)
    return None if file is None else PixelEncoder.open(file, device)


def open_croma(
    encoder: str,
    weights: str,
    device: str = "auto",
    precision: str = "fp32",
    modality: Modality = "optical",
) -> CromaEncoder:
    """CROMA with weights that are fetched if need be.

    Args:
        encoder: ``croma-large`` or ``croma-base``.
        weights: ``pretrained``, ``untrained`` or a file.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``fp32``, ``bf16`` or ``int8``.
        modality: ``optical``, ``sar`` or ``joint``.

    Raises:
        InvalidInputError: If the precision or the modality is none of these (``invalid-option``).
        WeightsError: If the weights cannot be had.
    """
    check_precision(precision)
    check_modality(modality)
    return CromaEncoder(encoder, locate_weights(weights, encoder), device, precision, modality)
