"""Searches among some of the rows."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.row_sets import BoolArray, RowSet
from indexer.vector_index.effort import RECALLS, Effort
from indexer.vector_index.index import FEW_ROWS, VectorIndex
from indexer.vector_index.sizing import Shape
from tests.indexer.vector_index.conftest import Build
from tests.indexer.vector_index.drawing import (
    DIMENSIONS,
    KINDS,
    clustered,
    contents,
    nearest,
    share_found,
)

N = 5_000
MANY = 20_000


def listed(mask: BoolArray) -> RowSet:
    return RowSet.of_rows(np.flatnonzero(mask), len(mask))


FORMS = [listed, RowSet.of_mask]
Form = Callable[[BoolArray], RowSet]


def at_random(n: int, share: float, seed: int = 1) -> BoolArray:
    """A mask of exactly so many rows, at least one, wherever they lie."""
    mask = np.zeros(n, np.bool_)
    mask[np.random.default_rng(seed).permutation(n)[: max(1, round(share * n))]] = True
    return mask


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.0002, 0.002, 0.05, 0.15, 0.25, 0.5, 0.9, 1.0])
def test_at_every_selectivity_k_allowed_rows_come_back_and_nearly_all_the_true_ones(
    share: float, form: Form, build: Build
) -> None:
    index = build(N).opened
    held, allowed = contents(index), form(at_random(N, share))
    found, true = [], []
    for query in clustered(N + 100)[N:]:
        scores, rows, plan = index.search_among(query, 10, allowed)
        assert len(rows) == len(set(rows.tolist())) == min(10, allowed.count)
        assert set(rows.tolist()) <= set(allowed.rows.tolist())
        assert (np.diff(scores) <= 0).all()
        np.testing.assert_allclose(scores, held[rows] @ query, atol=1e-5)
        assert plan.allowed == allowed.count
        found.append(rows)
        true.append(nearest(held, query, 10, allowed.rows))
    assert share_found(found, true) >= 0.95


@pytest.mark.parametrize("form", FORMS)
def test_few_allowed_rows_are_found_exactly_in_any_index(form: Form, build: Build) -> None:
    for n in (1, 2, 5, 100, N):
        index = build(n).opened
        held = contents(index)
        allowed = form(at_random(n, min(1.0, FEW_ROWS / n)))
        for query in clustered(n + 20)[n:]:
            _, rows, plan = index.search_among(query, 10, allowed)
            np.testing.assert_array_equal(rows, nearest(held, query, 10, allowed.rows))
            assert plan.method == "rows"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("recall", RECALLS)
def test_a_filter_that_leaves_the_querys_own_kind_out_still_finds_the_closest_of_the_others(
    recall: float, form: Form, build: Build
) -> None:
    _, index, order, _, _ = build(MANY)
    held, kinds = contents(index), order % KINDS
    found, true, methods = [], [], set()
    for number, query in enumerate(clustered(MANY + 10 * KINDS)[MANY:]):
        # Half of the other kinds, every other row of each.
        others = ((kinds - number) % KINDS > KINDS // 2) & (np.arange(MANY) % 2 == 0)
        allowed = form(others)
        _, rows, plan = index.search_among(query, 10, allowed, recall=recall)
        methods.add((plan.method, plan.lists > 0))
        found.append(rows)
        true.append(nearest(held, query, 10, allowed.rows))
    assert share_found(found, true) >= recall
    assert methods <= {("sketches", True), ("sketches", False)}


@pytest.mark.parametrize("form", FORMS)
def test_each_way_of_searching_is_taken_and_finds_what_it_should(
    form: Form, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was measured decides how many rows are scored, and not that they cost so little.
    monkeypatch.setattr("indexer.vector_index.index.LEAST_SCORED", 0)
    index = build(MANY).opened
    held = contents(index)
    ways = {}
    for share in (0.005, 0.03, 0.5, 0.9):
        allowed = form(at_random(MANY, share))
        found, true = [], []
        for query in clustered(MANY + 200)[MANY:]:
            _, rows, plan = index.search_among(query, 10, allowed)
            found.append(rows)
            true.append(nearest(held, query, 10, allowed.rows))
        ways[share] = (plan.method, plan.lists > 0, plan.scored < allowed.count)
        assert share_found(found, true) >= 0.95
    assert ways == {
        0.005: ("rows", False, False),
        0.03: ("sketches", False, False),
        0.5: ("sketches", True, True),
        0.9: ("sketches", True, True),
    }


@pytest.mark.parametrize("form", FORMS)
def test_lists_are_looked_into_until_they_hold_as_many_allowed_rows_as_were_asked_for(
    form: Form, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.vector_index.index.LEAST_SCORED", 0)
    built = build(N)
    index = VectorIndex(built.folder)
    index.efforts = {0.95: Effort(1, 50, 0.0, 50, ((1, 1), (N, 600)))}
    allowed = form(at_random(N, 0.5))
    starts, members = index.starts, allowed.rows
    for query in clustered(20):
        _, _, plan = index.search_among(query, 10, allowed)
        wanted = 1 + (600 - 1) * (allowed.count - 1) // (N - 1)
        # The lists nearest to the query, by definition.
        held = np.diff(np.searchsorted(members, starts))
        closeness = index.centroids @ (index.centroid_axes @ query)
        order = [one for one in np.argsort(-closeness, kind="stable") if held[one]]
        lists = int(np.searchsorted(np.cumsum(held[order]), wanted)) + 1
        assert plan.lists == lists
        assert plan.scored >= wanted


@settings(max_examples=60)
@given(data=st.data(), form=st.sampled_from(FORMS), row=st.integers(0, N - 1))
def test_a_search_returns_allowed_rows_only_and_as_many_as_there_are(
    data: st.DataObject, form: Form, row: int, build: Build
) -> None:
    # Fewer rows a list than a word of a bitmap has bits, and the least effort that there is.
    built = build(N, DIMENSIONS, Shape(512, "fp16", 16, 32))
    index = VectorIndex(built.folder)
    index.efforts = {0.95: Effort(1, 20, 0.0, 20, ((1, 1),))}
    first = data.draw(st.integers(0, N - 1))
    last = data.draw(st.integers(first, N - 1))
    mask = at_random(N, data.draw(st.floats(0, 1)), data.draw(st.integers(0, 100)))
    mask[: data.draw(st.sampled_from([0, first]))] = False
    mask[data.draw(st.sampled_from([N, last])) :] = False
    allowed = form(mask)
    k = data.draw(st.one_of(st.integers(1, 60), st.integers(1, N + 1), st.just(allowed.count or 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.vector_index.index.LEAST_SCORED", 0)
        scores, rows, _ = index.search_among(clustered(N)[row], k, allowed)
    assert mask[rows].all()
    assert len(rows) == len(scores) == len(set(rows.tolist())) == min(k, allowed.count)
    assert (np.diff(scores) <= 0).all()


def test_both_forms_of_a_set_find_the_same(build: Build) -> None:
    index = build(N).opened
    for share in (0.001, 0.05, 0.3, 1.0):
        mask = at_random(N, share)
        for query in clustered(50):
            scores, rows, _ = index.search_among(query, 10, RowSet.of_mask(mask))
            same_scores, same, _ = index.search_among(query, 10, listed(mask))
            # Of a bitmap whole words are scored, and so a little more.
            assert len(rows) == len(same)
            assert scores.sum() >= same_scores.sum() - 1e-5


@pytest.mark.parametrize("n", [10, N])
@pytest.mark.parametrize("form", FORMS)
def test_nothing_allowed_finds_nothing(n: int, form: Form, build: Build) -> None:
    nothing = form(np.zeros(n, np.bool_))
    scores, rows, plan = build(n).opened.search_among(clustered(n)[0], 5, nothing)
    assert scores.shape == rows.shape == (0,)
    assert plan == ("nothing", 0, 0, 0, 0)


@pytest.mark.parametrize("form", FORMS)
def test_one_allowed_row_is_the_answer_wherever_it_is(form: Form, build: Build) -> None:
    index = build(N).opened
    for row in (0, 63, 64, N - 1):
        _, rows, _ = index.search_among(clustered(1)[0], 10, form(np.arange(N) == row))
        assert rows.tolist() == [row]
