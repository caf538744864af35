"""Searches in a collection: the answers are those of exact search, nearly all of them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import InvalidInputError
from indexer.milvus.building import build_collection
from indexer.milvus.index import MilvusIndex, _expression
from indexer.milvus.server import MilvusServer
from indexer.row_sets import RowSet
from indexer.vector_index.effort import RECALLS
from tests.indexer.milvus.conftest import DIMENSIONS, N
from tests.indexer.vector_index.drawing import (
    KINDS,
    FloatArray,
    IntArray,
    clustered,
    nearest,
    share_found,
)

VECTORS = clustered(N, DIMENSIONS)
MANY_QUERIES = clustered(N + 400, DIMENSIONS)[N:]
QUERIES = MANY_QUERIES[:40]
ALL = np.arange(N)


def drawn(share: float, seed: int = 1) -> RowSet:
    """So many rows, at least one, wherever they lie."""
    order = np.random.default_rng(seed).permutation(N)
    return RowSet.of_rows(np.sort(order[: max(1, round(share * N))]), N)


def check_answer(query: FloatArray, scores: FloatArray, rows: IntArray, k: int) -> None:
    """As many different rows as there must be, closest first, with their cosine similarities."""
    assert len(rows) == len(set(rows.tolist())) == k
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores, VECTORS[rows] @ query, atol=1e-6)


def test_nearly_all_of_the_true_nearest_are_found_with_their_exact_scores(
    index: MilvusIndex,
) -> None:
    found, true = [], []
    for query in QUERIES:
        scores, rows, plan = index.search(query, 10)
        check_answer(query, scores, rows, 10)
        assert (plan.method, plan.allowed) == ("lists", N)
        found.append(rows)
        true.append(nearest(VECTORS, query, 10, ALL))
    assert share_found(found, true) >= 0.95


@pytest.mark.parametrize("k", [10, 100, 1000])
@pytest.mark.parametrize("recall", RECALLS)
def test_a_recall_that_is_asked_for_is_reached(recall: float, k: int, index: MilvusIndex) -> None:
    queries = MANY_QUERIES[: 4000 // k]
    found = [rows for _, rows in index.search_many(queries, k, recall=recall)]
    true = [nearest(VECTORS, query, k, ALL) for query in queries]
    assert share_found(found, true) >= recall


@pytest.mark.parametrize("share", [0.0002, 0.002, 0.05, 0.15, 0.2, 0.5, 0.9, 1.0])
def test_at_every_selectivity_k_allowed_rows_come_back_and_nearly_all_the_true_ones(
    share: float, index: MilvusIndex
) -> None:
    allowed = drawn(share)
    found, true = [], []
    for query in QUERIES[:20]:
        scores, rows, plan = index.search_among(query, 10, allowed)
        check_answer(query, scores, rows, min(10, allowed.count))
        assert set(rows.tolist()) <= set(allowed.rows.tolist())
        assert plan.allowed == allowed.count
        found.append(rows)
        true.append(nearest(VECTORS, query, 10, allowed.rows))
    assert share_found(found, true) >= 0.95


@pytest.mark.parametrize("kinds", [1, 12, 30])
def test_a_filter_that_leaves_nothing_near_the_query_finds_the_nearest_of_what_is_left(
    kinds: int, index: MilvusIndex
) -> None:
    found, true = [], []
    for number, query in enumerate(QUERIES[:20]):
        # Vector i is of cluster i % KINDS, and so is query N + i; none of its cluster is left.
        own = (N + number) % KINDS
        others = [(own + 1 + step) % KINDS for step in range(kinds)]
        allowed = RowSet.of_mask(np.isin(ALL % KINDS, others))
        scores, rows, _ = index.search_among(query, 10, allowed)
        check_answer(query, scores, rows, 10)
        assert np.isin(rows, allowed.rows).all()
        found.append(rows)
        true.append(nearest(VECTORS, query, 10, allowed.rows))
    assert share_found(found, true) >= 0.95


def test_rows_that_are_gone_are_not_found_and_k_others_are(index: MilvusIndex) -> None:
    for query in QUERIES[:5]:
        gone = nearest(VECTORS, query, 300, ALL)
        live = RowSet.of_rows(np.sort(gone), N).complement
        scores, rows, plan = index.search(query, 10, live=live)
        check_answer(query, scores, rows, 10)
        assert not np.isin(rows, gone).any()
        assert plan.allowed == N - 300
        ((many_scores, many_rows),) = index.search_many(query[None], 10, live=live)
        np.testing.assert_array_equal(many_rows, rows)
        np.testing.assert_array_equal(many_scores, scores)


def test_where_no_row_is_allowed_none_is_found(index: MilvusIndex) -> None:
    none = RowSet.of_rows(np.empty(0, np.int64), N)
    scores, rows, plan = index.search_among(QUERIES[0], 10, none)
    assert (len(scores), len(rows), plan.method) == (0, 0, "nothing")


def test_more_results_than_rows_are_all_rows(index: MilvusIndex) -> None:
    scores, rows, _ = index.search(QUERIES[0], N + 1)
    check_answer(QUERIES[0], scores, rows, N)


def test_more_results_than_milvus_gives_at_once_are_found_all_the_same(
    index: MilvusIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.milvus.index.MOST_RESULTS", 500)
    query, allowed = QUERIES[0], drawn(0.4)
    scores, rows, _ = index.search(query, 1200)
    check_answer(query, scores, rows, 1200)
    np.testing.assert_array_equal(np.sort(rows), np.sort(nearest(VECTORS, query, 1200, ALL)))
    scores, rows, _ = index.search_among(query, 1200, allowed)
    check_answer(query, scores, rows, 1200)
    true = nearest(VECTORS, query, 1200, allowed.rows)
    np.testing.assert_array_equal(np.sort(rows), np.sort(true))


def test_rows_that_are_sent_along_in_several_parts_are_all_scored(
    index: MilvusIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.milvus.index._SENT", 100)
    allowed = drawn(0.1)
    scores, rows, plan = index.search_among(QUERIES[0], 10, allowed)
    check_answer(QUERIES[0], scores, rows, 10)
    assert plan.method == "rows"
    np.testing.assert_array_equal(rows, nearest(VECTORS, QUERIES[0], 10, allowed.rows))


def test_several_searches_at_once_answer_as_each_alone(index: MilvusIndex) -> None:
    together = index.search_many(QUERIES, 10)
    for query, (scores, rows) in zip(QUERIES, together, strict=True):
        alone_scores, alone, _ = index.search(query, 10)
        np.testing.assert_array_equal(rows, alone)
        np.testing.assert_allclose(scores, alone_scores, atol=1e-6)


def test_threads_that_search_at_the_same_time_each_get_their_own_answer(
    index: MilvusIndex,
) -> None:
    alone = [index.search(query, 10)[1] for query in QUERIES]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda query: index.search(query, 10)[1], QUERIES))
    np.testing.assert_array_equal(together, alone)


def test_scores_of_some_rows_are_those_of_their_vectors(index: MilvusIndex) -> None:
    rows = np.array([4000, 3, 77, 78, 79])
    scores, found = index.score(QUERIES[0], rows, 3)
    np.testing.assert_array_equal(found, nearest(VECTORS, QUERIES[0], 3, np.sort(rows)))
    np.testing.assert_allclose(scores, VECTORS[found] @ QUERIES[0], atol=1e-6)
    assert [len(part) for part in index.score(QUERIES[0], rows[:0], 3)] == [0, 0]


def test_vectors_come_back_as_they_were_given_in_any_order_and_more_than_once(
    index: MilvusIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.milvus.index.rows_at_once", lambda dimensions: 3)
    rows = np.array([5, 4, 5999, 4, 0, 100, 101, 102])
    np.testing.assert_array_equal(index.vectors(rows), VECTORS[rows])
    assert index.vectors(rows[:0]).shape == (0, DIMENSIONS)


def test_few_rows_are_searched_whole(milvus: MilvusServer) -> None:
    vectors = clustered(50, DIMENSIONS)
    small = MilvusIndex(milvus, build_collection(milvus, "parcelle_00000000_g2", vectors))
    assert (small.nlist, small.kind) == (1, "Milvus FLAT")
    assert small.efforts[0.95].recall_at_10 == 1
    _, rows, _ = small.search(QUERIES[0], 10)
    np.testing.assert_array_equal(rows, nearest(vectors, QUERIES[0], 10, np.arange(50)))


@pytest.mark.parametrize("shape", [(31,), (1, 32), (0,)])
def test_a_query_of_another_length_is_refused(shape: tuple[int, ...], index: MilvusIndex) -> None:
    query = np.ones(shape, np.float32)
    with pytest.raises(InvalidInputError, match="vectors of 32 numbers") as caught:
        index.search(query, 10)
    assert caught.value.kind == "invalid-vector"
    with pytest.raises(InvalidInputError):
        index.search_among(query, 10, drawn(0.5))


@settings(max_examples=60)
@given(st.sets(st.integers(0, 200), min_size=1))
def test_any_set_of_rows_can_be_named_in_the_language_of_milvus(
    milvus: MilvusServer, index: MilvusIndex, rows: set[int]
) -> None:
    wanted = np.array(sorted(rows))
    found, vectors = milvus.fetch("parcelle_00000000_g1", _expression(wanted))
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(vectors, VECTORS[wanted])
