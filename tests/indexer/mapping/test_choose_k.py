import numpy as np
import pytest
from sklearn.datasets import make_blobs

from indexer.mapping.choose_k import choose_k
from indexer.mapping.methods import METHODS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("groups", [3, 6])
def test_groups_that_lie_apart_are_counted(method: str, groups: int) -> None:
    points, _ = make_blobs(
        240, n_features=8, centers=groups, cluster_std=0.4, center_box=(-20, 20), random_state=3
    )
    choice = choose_k(points.astype(np.float32), method, candidates=range(2, 9))
    assert choice.k == groups
    assert f"k = {groups}" in choice.reason
    assert choice.k in choice.candidates
    assert len(choice.candidates) == len(choice.score)


def test_the_choice_does_not_change_from_run_to_run() -> None:
    points = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    one, other = (choose_k(points, "kmeans", seed=2, candidates=range(2, 6)) for _ in range(2))
    assert one == other


def test_pixels_that_are_all_alike_are_one_class() -> None:
    choice = choose_k(np.ones((50, 3), np.float32), "kmeans")
    assert choice.k == 1
    assert "alike" in choice.reason


def test_no_more_classes_are_tried_than_there_are_different_rows() -> None:
    points = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0)
    choice = choose_k(points, "kmeans")
    assert choice.k == 4
    assert choice.candidates == (2, 3, 4)
