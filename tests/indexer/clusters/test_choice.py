import json

import numpy as np
import numpy.typing as npt
import pytest

from indexer.clusters import choice
from indexer.clusters.choice import Choice, choose_k, mean_silhouette
from indexer.errors import InvalidInputError

FloatArray = npt.NDArray[np.float32]


def around_axes(groups: int, each: int, spread: float = 0.1, seed: int = 0) -> FloatArray:
    """Unit vectors around the first axes, shape ``(groups * each, 32)``."""
    random = np.random.default_rng(seed)
    rows = np.repeat(np.eye(32)[:groups], each, axis=0)
    rows = rows + random.normal(0, spread / np.sqrt(32), rows.shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("groups", [2, 3, 5, 8, 13])
@pytest.mark.parametrize("seed", [0, 1])
def test_as_many_clusters_are_chosen_as_were_planted(groups: int, seed: int) -> None:
    assert choose_k(around_axes(groups, 30, seed=seed), seed).k == groups


def test_the_silhouette_is_that_of_its_definition() -> None:
    # On a line at 0, 1 and 4, 6; (b - a) / max(a, b) by hand for each.
    places = np.array([0.0, 1.0, 4.0, 6.0])
    distances = np.abs(places[:, None] - places[None]).astype(np.float32)
    expected = [(5 - 1) / 5, (4 - 1) / 4, (3.5 - 2) / 3.5, (5.5 - 2) / 5.5]
    found = mean_silhouette(distances, np.array([0, 0, 1, 1]))
    assert found == pytest.approx(sum(expected) / 4)


def test_a_vector_alone_in_its_cluster_counts_nothing() -> None:
    distances = np.array([[0, 1, 3], [1, 0, 2], [3, 2, 0]], np.float32)
    # The third is alone; of the others a is 1, and b is 3 and 2.
    expected = ((3 - 1) / 3 + (2 - 1) / 2 + 0) / 3
    assert mean_silhouette(distances, np.array([4, 4, 9])) == pytest.approx(expected)


def test_one_cluster_has_no_silhouette() -> None:
    assert mean_silhouette(np.ones((3, 3), np.float32), np.array([2, 2, 2])) is None


def test_a_choice_tells_what_it_tried_and_why() -> None:
    found = choose_k(around_axes(4, 10))
    assert [k for k, _ in found.candidates] == list(range(2, 21))
    assert found.sample == 40
    scores = dict(found.candidates)
    assert scores[4] == max(scores.values()) > 0.8
    stored = found.to_dict()
    assert json.loads(json.dumps(stored)) == stored
    assert "k = 4 has the highest mean silhouette" in stored["reason"]
    assert "no substantial structure" not in stored["reason"]


def test_vectors_without_groups_are_said_to_have_no_structure() -> None:
    rows = np.random.default_rng(0).standard_normal((200, 64))
    vectors = np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
    assert "no substantial structure" in choose_k(vectors).reason


def test_a_choice_looks_at_a_sample_that_the_seed_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "MAX_SAMPLE", 60)
    vectors = around_axes(3, 100)
    first = choose_k(vectors, seed=1)
    assert (first.k, first.sample) == (3, 60)
    assert choose_k(vectors, seed=1) == first
    assert choose_k(vectors, seed=2).candidates != first.candidates


def test_no_more_clusters_are_tried_than_can_be_told_apart() -> None:
    assert [k for k, _ in choose_k(around_axes(2, 3)).candidates] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "vectors",
    [around_axes(1, 1), around_axes(2, 1), np.tile(around_axes(1, 1), (9, 1))],
    ids=["one", "two", "alike"],
)
def test_what_cannot_be_told_apart_leaves_no_choice(vectors: FloatArray) -> None:
    with pytest.raises(InvalidInputError, match=r"k cannot be chosen.*--k") as caught:
        choose_k(vectors)
    assert caught.value.kind == "invalid-k"


def test_a_k_that_was_given_says_so() -> None:
    given = Choice(7, auto=False, seed=3)
    assert given.to_dict() == {"k": 7, "auto": False, "seed": 3, "reason": "k = 7 was asked for."}
