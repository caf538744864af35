"""How well a precision agrees with another: of the same images, the same embeddings?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexer.encoders.base import Encoder, FloatArray, Images

NEIGHBORS: Final = 10
"""Nearest embeddings that are compared."""

FEWEST: Final = 3 * NEIGHBORS
"""Embeddings below which neighbors are not compared: most of the others would be neighbors."""

# Rows whose scores to all others are held at once.
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Agreement:
    """Embeddings of one encoder beside those of another, of the same land."""

    embeddings: int
    """How many were compared."""
    cosine_mean: float
    """Mean cosine of the two embeddings of the same land."""
    cosine_min: float
    """The least of them."""
    neighbors_kept: float | None
    """Share of each one's 10 nearest, by cosine, that the other names too; None below 30."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def measure_agreement(
    encoder: Encoder,
    reference: Encoder,
    images: Images,
    pooling_weights: Sequence[FloatArray],
) -> Agreement:
    """Embed the same images with two encoders and compare.

    Args:
        encoder: The one that is judged.
        reference: The one that it should agree with.
        images: As both take them.
        pooling_weights: One array for each image; see ``Encoder``.

    Returns:
        How alike their embeddings are; every pooled part of an image counts as one.

    Raises:
        ValueError: If there is no embedding.
    """
    found, expected = (
        np.concatenate(one.encode(images, pooling_weights)) for one in (encoder, reference)
    )
    return compare_embeddings(found, expected)


def compare_embeddings(found: FloatArray, expected: FloatArray) -> Agreement:
    """Compare embeddings of the same land, row by row.

    Args:
        found: Shape ``(n, d)``.
        expected: The same shape.

    Raises:
        ValueError: If there is none.
    """
    if not len(found):
        raise ValueError("there are no embeddings to compare")
    left, right = _unit(found), _unit(expected)
    cosines = (left * right).sum(axis=1)
    kept = None
    if len(found) >= FEWEST:
        pairs = zip(_nearest(left), _nearest(right), strict=True)
        kept = float(np.mean([len(np.intersect1d(*pair)) / NEIGHBORS for pair in pairs]))
    return Agreement(len(found), float(cosines.mean()), float(cosines.min()), kept)


def _unit(rows: FloatArray) -> npt.NDArray[np.float64]:
    # In double precision: cosines of good precisions differ from 1 in the sixth digit.
    exact = rows.astype(np.float64)
    unit: npt.NDArray[np.float64] = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return unit


def _nearest(unit: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Each row's nearest others, in no order: shape ``(n, NEIGHBORS)``."""
    found = []
    for start in range(0, len(unit), _BLOCK_ROWS):
        scores = unit[start : start + _BLOCK_ROWS] @ unit.T
        itself = np.arange(len(scores))
        scores[itself, start + itself] = -np.inf
        found.append(np.argpartition(-scores, NEIGHBORS, axis=1)[:, :NEIGHBORS])
    return np.concatenate(found)
