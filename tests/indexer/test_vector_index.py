import hashlib
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import InvalidInputError, StorageError
from indexer.vector_index import RECALL_TARGET, Tuning, VectorIndex, choose_nlist

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

DIMENSIONS = 64
KINDS = 40
"""Clusters of the vectors below: land that looks alike."""


@cache
def clustered(n: int, seed: int = 0) -> FloatArray:
    """Unit vectors of ``KINDS`` clusters; row ``i`` belongs to cluster ``i % KINDS``."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((KINDS, DIMENSIONS))
    vectors = centers[np.arange(n) % KINDS] + 0.6 * random.standard_normal((n, DIMENSIONS))
    return unit(vectors)


def unit(vectors: npt.NDArray[np.floating]) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


@cache
def built(n: int) -> tuple[VectorIndex, Tuning]:
    return VectorIndex.build(np.arange(n), clustered(n))


def brute_force(vectors: FloatArray, query: FloatArray, k: int, allowed: IntArray) -> IntArray:
    """Ids of the k allowed rows with the largest cosine, id and row being the same."""
    scores = vectors[allowed] @ query
    return allowed[np.argsort(-scores, kind="stable")[:k]]


@pytest.mark.parametrize("n", [1, 2, 10, 100])
def test_few_rows_are_found_exactly(n: int) -> None:
    index, tuning = built(n)
    vectors = clustered(n)
    assert tuning.recall_at_10 == 1
    for query in vectors:
        scores, ids = index.search(query, 10)
        expected = brute_force(vectors, query, 10, np.arange(n))
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(scores, vectors[expected] @ query, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "nlist"), [(1, 1), (77, 1), (78, 2), (5_000, 128), (1_000_000, 4000)]
)
def test_each_list_gets_39_training_points_and_large_indexes_4_sqrt_n_lists(
    n: int, nlist: int
) -> None:
    assert choose_nlist(n) == nlist


def test_the_tuned_index_finds_19_of_20_true_neighbors() -> None:
    index, tuning = built(5_000)
    vectors = clustered(5_000)
    found = 0
    for row in range(0, 5_000, 50):
        _, ids = index.search(vectors[row], 11)
        true = brute_force(vectors, vectors[row], 11, np.arange(5_000))
        found += len(set(ids) - {row} & set(true) - {row})
    assert found / (100 * 10) >= RECALL_TARGET
    assert tuning.recall_at_10 >= RECALL_TARGET
    assert tuning.nprobe < index.nlist, "clusters this clear need no exhaustive search"


def test_recall_of_the_tuning_is_that_of_its_queries() -> None:
    index, tuning = built(100)
    vectors = clustered(100)
    assert tuning.queries == 100
    hits = 0
    for row, query in enumerate(vectors):
        _, ids = index.search(query, 11)
        true = set(brute_force(vectors, query, 11, np.arange(100))) - {row}
        hits += len(true & set(ids.tolist()))
    assert tuning.recall_at_10 == pytest.approx(hits / 1000)


@pytest.mark.parametrize("share", [0.0002, 0.002, 0.05, 0.15, 0.25, 0.5, 0.9, 1.0])
def test_k_results_come_back_at_every_selectivity_and_are_the_true_ones(share: float) -> None:
    index, _ = built(5_000)
    vectors = clustered(5_000)
    random = np.random.default_rng(1)
    allowed = np.sort(random.permutation(5_000)[: round(share * 5_000)])
    for row in range(0, 5_000, 500):
        _, ids = index.search(vectors[row], 10, allowed)
        np.testing.assert_array_equal(ids, brute_force(vectors, vectors[row], 10, allowed))


def test_a_filter_that_leaves_the_querys_own_kind_out_still_finds_the_closest_of_the_others() -> (
    None
):
    index, _ = built(5_000)
    vectors = clustered(5_000)
    rows = np.arange(5_000)
    for kind in range(10):
        others = rows[rows % KINDS != kind]
        _, ids = index.search(vectors[kind], 10, others)
        np.testing.assert_array_equal(ids, brute_force(vectors, vectors[kind], 10, others))


@settings(max_examples=50)
@given(
    allowed=st.sets(st.integers(0, 5_100), min_size=0, max_size=40),
    k=st.integers(1, 50),
    row=st.integers(0, 4_999),
)
def test_a_search_returns_allowed_rows_only_and_as_many_as_there_are(
    allowed: set[int], k: int, row: int
) -> None:
    index, _ = built(5_000)
    ids_allowed = np.array(sorted(allowed), dtype=np.int64)
    scores, ids = index.search(clustered(5_000)[row], k, ids_allowed)
    stored = allowed & set(range(5_000))
    assert set(ids.tolist()) <= stored
    assert len(ids) == len(scores) == min(k, len(stored))
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("few_allowed", [0, 100_000], ids=["probing", "looking at everything"])
def test_a_broad_filter_returns_k_rows_however_many_lists_are_probed(
    few_allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.vector_index._FEW_ALLOWED", few_allowed)
    index, _ = built(5_000)
    rows = np.arange(5_000)
    half = rows[rows % KINDS >= KINDS // 2]
    for row in range(KINDS):
        _, ids = index.search(clustered(5_000)[row], 300, half)
        assert len(ids) == len(set(ids.tolist())) == 300
        assert set(ids.tolist()) <= set(half.tolist())


def test_more_results_than_rows_are_all_rows() -> None:
    index, _ = built(10)
    _, ids = index.search(clustered(10)[0], 1000)
    assert sorted(ids.tolist()) == list(range(10))


def test_nothing_allowed_finds_nothing() -> None:
    index, _ = built(10)
    scores, ids = index.search(clustered(10)[0], 5, np.empty(0, dtype=np.int64))
    assert scores.shape == ids.shape == (0,)


@pytest.mark.parametrize("first", [2**31 - 5, 2**40, 2**62])
def test_ids_beyond_32_bits_are_found_and_filtered(first: int) -> None:
    vectors = clustered(10)
    ids = first + np.arange(10)
    index, _ = VectorIndex.build(ids, vectors)
    _, found = index.search(vectors[3], 1)
    assert found.tolist() == [first + 3]
    allowed = ids[[2, 7, 9]]
    _, found = index.search(vectors[7], 10, allowed)
    assert found[0] == first + 7
    assert sorted(found.tolist()) == allowed.tolist()


def test_scores_are_cosines_of_unit_vectors() -> None:
    vectors = unit(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]))
    index, _ = VectorIndex.build(np.arange(4), vectors)
    scores, ids = index.search(vectors[0], 4)
    assert ids.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(scores, [1, np.sqrt(0.5), 0, -1], atol=1e-6)


@pytest.mark.parametrize("length", [0, DIMENSIONS - 1, DIMENSIONS + 1])
def test_a_query_of_another_length_is_refused_with_both_lengths(length: int) -> None:
    index, _ = built(10)
    with pytest.raises(InvalidInputError, match=rf"\({length},\).*{DIMENSIONS} numbers") as caught:
        index.search(np.ones(length, dtype=np.float32), 1)
    assert caught.value.kind == "invalid-vector"


def test_several_queries_at_once_are_refused() -> None:
    index, _ = built(10)
    with pytest.raises(InvalidInputError, match="shape"):
        index.search(clustered(10)[:1], 1)


@pytest.mark.parametrize("n", [2, 5_000])
def test_the_same_rows_give_the_same_bytes(n: int) -> None:
    again, tuning = VectorIndex.build(np.arange(n), clustered(n))
    assert again.to_bytes() == built(n)[0].to_bytes()
    assert tuning == built(n)[1]


def written(folder: Path, index: VectorIndex) -> tuple[Path, str]:
    """A file of an index, and the file's digest."""
    content = index.to_bytes()
    path = folder / "index.faiss"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def test_an_index_read_back_answers_as_before(tmp_path: Path) -> None:
    index, tuning = built(5_000)
    path, sha256 = written(tmp_path, index)
    restored = VectorIndex.open(path, nprobe=tuning.nprobe, sha256=sha256)
    assert (restored.rows, restored.dimensions, restored.nlist) == (5_000, DIMENSIONS, index.nlist)
    for row in range(0, 5_000, 500):
        for before, after in zip(
            index.search(clustered(5_000)[row], 20),
            restored.search(clustered(5_000)[row], 20),
            strict=True,
        ):
            np.testing.assert_array_equal(before, after)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is mapped on Linux only")
def test_an_open_index_is_mapped_so_that_processes_share_it(tmp_path: Path) -> None:
    path, sha256 = written(tmp_path, built(5_000)[0])
    index = VectorIndex.open(path, nprobe=1, sha256=sha256)
    assert str(path) in Path("/proc/self/maps").read_text()
    # Those who still ask do not notice that the file is gone.
    path.unlink()
    assert len(index.search(clustered(1)[0], 10)[1]) == 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    ],
    ids=["cut short", "empty", "too long", "one bit flipped"],
)
def test_a_damaged_index_is_refused_by_name(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path, sha256 = written(tmp_path, built(100)[0])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StorageError, match=rf"^{re.escape(str(path))}: .*damaged") as caught:
        VectorIndex.open(path, nprobe=1, sha256=sha256)
    assert caught.value.kind == "generation-corrupt"


@pytest.mark.parametrize("n", [1, 2, 10, 100, 5_000])
def test_building_and_searching_print_nothing(n: int, capfd: pytest.CaptureFixture[str]) -> None:
    index, _ = VectorIndex.build(np.arange(n), clustered(n))
    index.search(clustered(n)[0], 10, np.arange(n))
    assert capfd.readouterr() == ("", "")


def test_identical_vectors_can_be_indexed(capfd: pytest.CaptureFixture[str]) -> None:
    vectors = np.repeat(clustered(1), 500, axis=0)
    index, _ = VectorIndex.build(np.arange(500), vectors)
    scores, ids = index.search(vectors[0], 500)
    assert sorted(ids.tolist()) == list(range(500))
    np.testing.assert_allclose(scores, 1, atol=1e-6)
    assert capfd.readouterr() == ("", "")


def test_searches_from_several_threads_do_not_disturb_each_other() -> None:
    from concurrent.futures import ThreadPoolExecutor

    index, _ = built(5_000)
    vectors = clustered(5_000)
    rows = np.arange(5_000)

    def ask(row: int) -> list[int]:
        allowed = rows[rows % KINDS == row % KINDS] if row % 2 else None
        ids: list[int] = index.search(vectors[row], 10, allowed)[1].tolist()
        return ids

    alone = [ask(row) for row in range(100)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(100))) == alone
