import math
from collections.abc import Sequence

import numpy as np
import pytest

from indexer.encoders.agreement import FEWEST, NEIGHBORS, compare_embeddings, measure_agreement
from indexer.encoders.base import FloatArray
from indexer.encoders.weights import Weights
from tests.indexer.one_layer import DIMENSIONS, OneLayerEncoder

WEIGHTS = Weights("untrained", "none", None)


def on_a_circle(degrees: Sequence[float] | FloatArray) -> FloatArray:
    """Embeddings of two numbers, at these angles."""
    angles = np.radians(degrees)
    return np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)


def test_cosines_are_those_of_the_same_land() -> None:
    found = compare_embeddings(on_a_circle([0, 30, 90]), 7 * on_a_circle([0, 90, 90]))
    # cos 0, cos 60 and cos 0 degrees.
    assert found.embeddings == 3
    assert found.cosine_mean == pytest.approx((1 + 0.5 + 1) / 3, abs=1e-6)
    assert found.cosine_min == pytest.approx(0.5, abs=1e-6)


def test_neighbors_are_not_compared_where_most_of_the_others_are() -> None:
    few, enough = (np.random.default_rng(0).normal(size=(n, 4)) for n in (FEWEST - 1, FEWEST))
    assert compare_embeddings(few.astype(np.float32), few.astype(np.float32)).neighbors_kept is None
    same = compare_embeddings(enough.astype(np.float32), enough.astype(np.float32))
    assert same.neighbors_kept == 1


def test_neighbors_that_change_are_counted() -> None:
    # Three crowds of 11, a third of a circle apart: the 10 nearest of each are its own crowd.
    crowds = np.repeat([0.0, 120.0, 240.0], 11) + np.tile(np.arange(11), 3)
    moved = crowds.copy()
    # One embedding goes from the first crowd to the second.
    moved[0] = 125.5
    found = compare_embeddings(on_a_circle(moved), on_a_circle(crowds))
    # It keeps none of its 10 neighbors. Each of the 10 that it left keeps 9 and needs another. Each
    # of the 11 that it joined, in their middle, has it in place of the farthest of the crowd.
    assert found.neighbors_kept == pytest.approx(1 - (10 + 10 + 11) / (33 * NEIGHBORS))


def test_an_embedding_is_no_neighbor_of_itself() -> None:
    # All directions are so different that each is its own nearest.
    rows = np.eye(40, dtype=np.float32) + 0.01 * np.random.default_rng(0).random(
        (40, 40), dtype=np.float32
    )
    other = np.eye(40, dtype=np.float32) + 0.01 * np.random.default_rng(1).random(
        (40, 40), dtype=np.float32
    )
    kept = compare_embeddings(rows, other).neighbors_kept
    # By chance 10 of 39 are shared; itself would add a tenth.
    assert kept is not None
    assert kept == pytest.approx(10 / 39, abs=0.08)


def test_nothing_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="no embeddings"):
        compare_embeddings(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32))


def test_an_encoder_agrees_with_itself() -> None:
    encoder = OneLayerEncoder("one", WEIGHTS)
    generator = np.random.default_rng(0)
    images = generator.random((2, 12, 120, 120), dtype=np.float32)
    weights = [generator.random((20, 15, 15), dtype=np.float32) for _ in images]
    agreement = measure_agreement(encoder, encoder, images, weights)
    assert agreement.to_dict() == {
        "embeddings": 40,
        "cosine_mean": pytest.approx(1),
        "cosine_min": pytest.approx(1),
        "neighbors_kept": 1,
    }


def test_encoders_that_differ_do_not_agree() -> None:
    class Turned(OneLayerEncoder):
        def finish(self, pooled: FloatArray) -> FloatArray:
            # By 60 degrees, in planes of two numbers.
            cos, sin = math.cos(math.pi / 3), math.sin(math.pi / 3)
            first, second = pooled[:, : DIMENSIONS // 2], pooled[:, DIMENSIONS // 2 :]
            return np.concatenate((cos * first - sin * second, sin * first + cos * second), axis=1)

    image = np.random.default_rng(0).random((1, 12, 120, 120), dtype=np.float32)
    everywhere = [np.ones((1, 15, 15), np.float32)]
    agreement = measure_agreement(
        Turned("turned", WEIGHTS), OneLayerEncoder("one", WEIGHTS), image, everywhere
    )
    assert agreement.cosine_mean == pytest.approx(0.5, abs=1e-5)
