"""Chips a second: the encoder in each precision beside the plain loop, and what they agree on."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torchgeo.models import croma_base, croma_large

from benchmarks.embedding.ceiling import chip_flops, measure_ceiling
from benchmarks.embedding.turns import in_turns, median, ratio, rounded, say
from indexer.encoders.agreement import compare_embeddings
from indexer.encoders.base import FloatArray
from indexer.encoders.croma import IMAGE_PX, CromaEncoder, Precision, parameters
from indexer.encoders.weights import locate_weights
from indexer.errors import InvalidInputError
from indexer.pipeline import TileWork

PLAIN_BATCH: Final = 16
"""Chips that the plain loop sends through the network at once."""

PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "bf16", "int8")

_PUBLISHED = {"croma-large": croma_large, "croma-base": croma_base}


@dataclass(frozen=True)
class Choice:
    """The network that is measured."""

    encoder: str
    weights: str
    """``pretrained`` or a file."""
    device: Literal["cpu", "cuda"]

    def open(self, precision: Precision) -> CromaEncoder:
        """The encoder, not yet loaded."""
        weights = locate_weights(self.weights, self.encoder)
        return CromaEncoder(self.encoder, weights, self.device, precision)

    def load_all(self) -> dict[Precision, CromaEncoder]:
        """The encoder in every precision that the device has."""
        loaded = {}
        for precision in PRECISIONS:
            encoder = self.open(precision)
            with suppress(InvalidInputError):
                encoder.load()
                loaded[precision] = encoder
        return loaded


def write_untrained(encoder: str, path: Path) -> Path:
    """Write random weights once, as drawing them takes longer than reading them."""
    torch.save(parameters(encoder, locate_weights("untrained", encoder), "optical"), path)
    return path


class PlainLoop:
    """The network as torchgeo publishes it, in fp32, with the same weights."""

    def __init__(self, choice: Choice) -> None:
        network = _PUBLISHED[choice.encoder](modalities=["optical"], image_size=IMAGE_PX)
        weights = locate_weights(choice.weights, choice.encoder)
        learned = parameters(choice.encoder, weights, "optical")
        # The position bias is computed, and stands in no file.
        network.load_state_dict(network.state_dict() | learned)
        self._network = network.eval().to(choice.device)
        self._device = choice.device

    def __call__(self, images: FloatArray) -> FloatArray:
        """Embed a batch of images."""
        with torch.inference_mode():
            batch = torch.from_numpy(images).to(self._device)
            return np.asarray(self._network(x_optical=batch)["optical_GAP"].cpu().numpy())


def measure_chips(
    choice: Choice, plain: PlainLoop, works: Sequence[TileWork], rounds: int, fused_chips: int
) -> dict[str, Any]:
    """Rates of the plain loop and of each precision, and how each agrees with fp32.

    Args:
        choice: The network.
        plain: The same, as published.
        works: Tiles with parcels; rates are of the first, agreement is of all.
        rounds: In which all take turns.
        fused_chips: That a precision embeds in a round; the plain loop embeds a batch.
    """
    encoders = choice.load_all()
    batch = np.stack([works[number % len(works)].image for number in range(PLAIN_BATCH)])
    whole = [np.ones((1, 15, 15), np.float32)] * fused_chips
    many = np.resize(batch, (fused_chips, *batch.shape[1:]))
    # What a first pass sets up is not timed.
    published = plain(batch[:2])
    few = many[:2], whole[:2]
    fused = {name: np.concatenate(one.encode(*few)) for name, one in encoders.items()}
    ways: dict[str, Callable[[], float]] = {"plain": lambda: _rate(plain, batch)}
    for name, encoder in encoders.items():
        ways[name] = lambda encoder=encoder: _rate(  # type: ignore[misc]
            lambda images: encoder.encode(images, whole), many
        )
    rates = in_turns(ways, rounds)
    say("chips: agreement and ceilings")
    expected = embed_parcels(encoders["fp32"], works)
    return {
        "plain_batch": PLAIN_BATCH,
        "plain_chips_per_s": median(rates["plain"]),
        "chips_per_s_by_round": rounded(rates),
        "fp32_cosine_to_plain_min": compare_embeddings(fused["fp32"], published).cosine_min,
        "precisions": {
            name: {
                "chips_per_s": median(rates[name]),
                "times_plain": ratio(rates[name], rates["plain"]),
                "agreement_with_fp32": compare_embeddings(
                    embed_parcels(encoder, works), expected
                ).to_dict(),
                **_against_ceiling(choice, name, max(rates[name])),
            }
            for name, encoder in encoders.items()
        },
    }


def _against_ceiling(choice: Choice, precision: Precision, chips_per_s: float) -> dict[str, Any]:
    """The fastest round beside the fastest that matrices are multiplied."""
    if precision == "int8":
        return {}
    ceiling = measure_ceiling(choice.encoder, choice.device, precision)
    return {
        "matrix_ceiling_gflops": round(ceiling / 1e9, 1),
        "share_of_ceiling": round(chip_flops(choice.encoder) * chips_per_s / ceiling, 3),
    }


def embed_parcels(encoder: CromaEncoder, works: Sequence[TileWork]) -> FloatArray:
    """One row for each parcel, or its part, in each tile."""
    rows = []
    for start in range(0, len(works), PLAIN_BATCH):
        part = works[start : start + PLAIN_BATCH]
        images = np.stack([work.image for work in part])
        rows += encoder.encode(
            images, [np.stack([weights for _, weights in work.jobs]) for work in part]
        )
    return np.concatenate(rows)


def _rate(embed: Callable[[FloatArray], object], images: FloatArray) -> float:
    began = time.perf_counter()
    embed(images)
    return len(images) / (time.perf_counter() - began)
