"""A map beside others of the same image, where the truth is known: what does the encoder add?

For each way of making a map, classes are fitted and scored twice: with the number that was chosen
and with that of the truth.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.encoders.simple_vit import SimpleViTEncoder
from indexer.mapping.blocks import Source, Survey
from indexer.mapping.methods import MAX_CLASSES, METHODS, Fitted
from indexer.mapping.pixel_features import (
    EncoderFeatures,
    PixelFeatures,
    minimum_noise_fraction,
    z_scored,
)
from indexer.mapping.scores import MapScore, count_pairs, score_counts
from indexer.progress import Progress

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """Known classes of an image."""

    labels: npt.NDArray[np.integer[Any]]
    """Shape ``(y, x)``; 0 is unlabelled and not scored."""
    names: Mapping[int, str]

    @property
    def classes(self) -> int:
        """How many different ones there are."""
        return int(np.count_nonzero(np.bincount(self.labels.ravel())[1:]))


@dataclass(frozen=True)
class Scored:
    """One way of making a map, with one number of classes."""

    features: str
    """``simple-vit``, ``simple-vit, untrained``, ``z-scored pixels`` or ``MNF``."""
    method: str
    """``kmeans``, ``spectral``, ``gmm`` or ``clusters``."""
    k: int
    score: MapScore

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "features": self.features,
            "method": self.method,
            "k": self.k,
            **self.score.to_dict(),
        }


def compare_others(
    source: Source,
    method: str,
    encoder: SimpleViTEncoder | None,
    truth: Truth,
    ks: Sequence[int],
    seed: int,
    progress: Progress,
) -> list[Scored]:
    """Score the untrained encoder, then the plain methods, beside a map.

    Args:
        source: What the map was made of.
        method: How features are clustered.
        encoder: Trained; None where the map needs none.
        truth: Known classes.
        ks: Numbers of classes.
        seed: As for the map.
        progress: Is told how far the work has come.
    """
    scored: list[Scored] = []
    for features, plain in _others(source.survey, encoder, method):
        if (features.digest, plain) != (source.features.digest, method):
            other = Source.draw(source.image, features, source.survey, seed, progress)
            prepared = METHODS[plain](other.sample, seed)
            ways = {k: prepared.fit(k) for k in dict.fromkeys(ks)}
            scored += score_ways(other, plain, ways, truth, progress)
    return scored


def score_ways(
    source: Source,
    method: str,
    ways: Mapping[int, Fitted],
    truth: Truth,
    progress: Progress,
    numbers: npt.NDArray[np.uint8] | None = None,
) -> list[Scored]:
    """Score one way of making a map with each number of classes.

    Args:
        source: Image and features.
        method: How they are clustered.
        ways: Classes that were fitted, by their number.
        truth: Known classes.
        progress: Is told how far the work has come.
        numbers: Number in the map of each class of the first way; position 0 is no data. None
            where there is no map.
    """
    first = next(iter(ways))
    classes = int(truth.labels.max(initial=1))
    counts: dict[int, IntArray] = {
        k: np.zeros((classes, MAX_CLASSES), dtype=np.int64) for k in ways
    }
    for block, features in source.blocks(progress, f"Scoring ({source.features.name})"):
        known = truth.labels[block.tile.slices][block.valid].astype(np.int64)
        for k, way in ways.items():
            labels = way.predict(features) + 1
            if numbers is not None and k == first:
                labels = numbers[labels].astype(np.int64)
            counts[k] += count_pairs(labels, known, MAX_CLASSES, classes)
    return [
        Scored(source.features.name, method, k, score_counts(counts[k][:, :k], truth.names))
        for k in ways
    ]


def _others(
    survey: Survey, encoder: SimpleViTEncoder | None, method: str
) -> Iterator[tuple[PixelFeatures, str]]:
    if encoder is not None:
        yield EncoderFeatures(encoder.untrained()), method
    if survey.statistics is None:
        raise TypeError("plain methods need statistics of the image")
    z_scores = z_scored(survey.statistics)
    yield z_scores, "kmeans"
    yield minimum_noise_fraction(survey.statistics), "kmeans"
    yield z_scores, "gmm"
