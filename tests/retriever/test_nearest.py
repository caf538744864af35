"""The nearest vectors of an index of many lists, with some rows changed since its publication."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from indexer.catalog.database import connect
from indexer.catalog.tables import Embedding, Observation, Parcel
from indexer.catalog.writing import delete_parcels, set_vectors
from indexer.errors import InvalidInputError
from indexer.settings import Settings
from retriever.nearest import Nearest
from retriever.queries import Bbox, ParcelFilter
from retriever.search import ParcelSearcher
from retriever.statements import AnyRow
from tests.drawn_index import draw_index
from tests.retriever.planted import Seen, at_cosine, plant, random_vectors, searching, settings_in

FloatArray = npt.NDArray[np.float32]

PARCELS, ACROSS = 4200, 300
"""More than are searched one by one; the drawn index lays them in rows of 300."""

# Copies of the vectors have 11 bits of precision.
ROUNDING = 2e-3


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An index of which every tenth parcel got another vector since, and every eleventh is gone."""
    chosen = draw_index(tmp_path_factory.mktemp("drawn"), PARCELS)
    with searching(chosen) as searcher:
        assert searcher.generations()[0].index.nlist > 1
    engine = connect(chosen)
    with engine.begin() as connection:
        anew = np.arange(10, PARCELS + 1, 10)
        set_vectors(connection, anew.tolist(), random_vectors(len(anew), seed=3))
        delete_parcels(connection, list(range(11, PARCELS + 1, 11)))
    engine.dispose()
    return chosen


@pytest.fixture(scope="module")
def searcher(drawn: Settings) -> Iterator[ParcelSearcher]:
    with searching(drawn) as searcher:
        yield searcher


@pytest.fixture(scope="module")
def stored(drawn: Settings) -> dict[int, tuple[FloatArray, AnyRow]]:
    """Vector and parcel of each embedding, as the catalog has them."""
    engine = connect(drawn)
    with engine.connect() as connection:
        rows = connection.execute(
            select(Embedding.id, Embedding.vector, Parcel.__table__)
            .join(Observation, Observation.id == Embedding.observation_id)
            .join(Parcel, Parcel.id == Observation.parcel_id)
        ).all()
    engine.dispose()
    return {row[0]: (np.frombuffer(row[1], "<f4"), row) for row in rows}


def in_a_row(row: int, first: int, count: int) -> ParcelFilter:
    """The parcels of one row of the grid, from one on; neighbors do not touch each other."""
    west, south = 2.0 + 0.002 * first, 48.0 + 0.0015 * row
    return ParcelFilter(bbox=Bbox(west, south, west + 0.002 * count - 0.0004, south + 0.0005))


def scores_by_id(
    stored: dict[int, tuple[FloatArray, AnyRow]], query: FloatArray
) -> dict[int, float]:
    return {number: float(vector @ query) for number, (vector, _) in stored.items()}


def check(found: Nearest, allowed: dict[int, float], k: int) -> None:
    """As many as there are, each once, with their own scores, closest first."""
    ids = found.ids.tolist()
    assert len(ids) == min(k, len(allowed))
    assert len(set(ids)) == len(ids)
    assert len(set(found.parcels.tolist())) == len(ids)
    assert set(ids) <= set(allowed)
    assert found.scores.tolist() == pytest.approx([allowed[one] for one in ids], abs=ROUNDING)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


@given(
    west=st.integers(0, 299),
    south=st.integers(0, 13),
    across=st.integers(1, 300),
    up=st.integers(1, 14),
    crop=st.sampled_from([None, "maize", "Winter Wheat"]),
    k=st.sampled_from([1, 2, 10, 11, 100, 1000]),
    recall=st.sampled_from([0.5, 0.9, 0.95, 0.99]),
    seed=st.integers(0, 20),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_k_parcels_come_back_whenever_k_exist_whatever_a_filter_leaves(
    searcher: ParcelSearcher,
    stored: dict[int, tuple[FloatArray, AnyRow]],
    west: int,
    south: int,
    across: int,
    up: int,
    crop: str | None,
    k: int,
    recall: float,
    seed: int,
) -> None:
    box = Bbox(
        2.0 + 0.002 * west,
        48.0 + 0.0015 * south,
        2.0 + 0.002 * (west + across),
        48.0 + 0.0015 * (south + up),
    )
    where = ParcelFilter(bbox=box, crops=() if crop is None else (crop,))
    query = random_vectors(1, seed=seed)[0]
    allowed = {
        number: float(vector @ query)
        for number, (vector, row) in stored.items()
        if row.west <= box.east
        and row.east >= box.west
        and row.south <= box.north
        and row.north >= box.south
        and (crop is None or row.crop_name == crop.casefold())
    }
    check(searcher.nearest(query, k=k, where=where, recall=recall), allowed, k)


@pytest.mark.parametrize("k", [1, 5, 100])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_k_of_about_k_that_a_filter_leaves_are_the_true_nearest(
    searcher: ParcelSearcher,
    stored: dict[int, tuple[FloatArray, AnyRow]],
    k: int,
    more: int,
) -> None:
    # Of the first row of the grid, on which every tenth and eleventh parcel was changed or deleted.
    there = [number for number in sorted(stored) if number <= ACROSS]
    last = there[max(k + more, 1) - 1]
    where = in_a_row(0, 0, last)
    query = random_vectors(1, seed=9)[0]
    scores = scores_by_id(stored, query)
    allowed = {number: scores[number] for number in there if number <= last}
    found = searcher.nearest(query, k=k, where=where)
    check(found, allowed, k)
    worst = sorted(allowed.values(), reverse=True)[:k][-1]
    assert found.scores[-1] == pytest.approx(worst, abs=ROUNDING)


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_without_a_filter_k_come_back_singly_and_by_many(
    searcher: ParcelSearcher, stored: dict[int, tuple[FloatArray, AnyRow]], k: int
) -> None:
    queries = random_vectors(5, seed=4)
    many = searcher.nearest_many(queries, k=k, threads=2)
    assert len(many) == 5
    for query, found in zip(queries, many, strict=True):
        scores = scores_by_id(stored, query)
        check(found, scores, k)
        check(searcher.nearest(query, k=k), scores, k)


def test_a_vector_finds_itself_in_base_and_delta(
    searcher: ParcelSearcher, stored: dict[int, tuple[FloatArray, AnyRow]]
) -> None:
    numbers = [9, 10, 4000, 4001]
    vectors = np.stack([stored[number][0] for number in numbers])
    assert [int(one.ids[0]) for one in searcher.nearest_many(vectors, k=3)] == numbers
    assert [int(searcher.nearest(one, k=3).ids[0]) for one in vectors] == numbers


def test_a_recall_that_was_not_measured_takes_the_next(searcher: ParcelSearcher) -> None:
    query = random_vectors(1, seed=2)[0]
    for asked, taken in ((0.01, 0.9), (0.9, 0.9), (0.91, 0.95), (0.95, 0.95), (0.97, 0.99)):
        less, more = (searcher.nearest(query, recall=one) for one in (asked, taken))
        assert less.plan == more.plan
        assert less.ids.tolist() == more.ids.tolist()


@pytest.mark.parametrize("recall", [0.0, -0.5, 0.991, 1.0, 95, float("nan")])
def test_a_recall_out_of_range_is_refused(searcher: ParcelSearcher, recall: float) -> None:
    query = random_vectors(1)[0]
    for ask in (
        lambda: searcher.nearest(query, recall=recall),
        lambda: searcher.nearest_many(query[None], recall=recall),
        lambda: searcher.similar_by_vector(query, recall=recall),
        lambda: searcher.similar_by_id("p000000", recall=recall),
        lambda: searcher.nearest(query, recall=recall, where=in_a_row(0, 0, 5)),
    ):
        with pytest.raises(InvalidInputError, match=r"ask for one of 0.9, 0.95, 0.99") as caught:
            ask()
        assert caught.value.kind == "invalid-recall"


def test_many_vectors_find_what_was_committed_since(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    chosen = settings_in(tmp_path_factory.mktemp("small"))
    plant(chosen, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))])
    with searching(chosen) as searcher:
        queries = np.stack([at_cosine(1), at_cosine(0.9)])
        assert [len(one.ids) for one in searcher.nearest_many(queries)] == [2, 2]
        plant(chosen, [Seen("c", at_cosine(0.9)), Seen("b", at_cosine(0.8))], publish=False)
        first, second = searcher.nearest_many(queries)
        assert first.scores.tolist() == pytest.approx([1, 0.9, 0.8], abs=1e-6)
        assert second.scores[0] == pytest.approx(1, abs=1e-6)
        # Of another day: the parcel answers once all the same.
        plant(chosen, [Seen("c", at_cosine(0.7), day="2023-08-12")], publish=False)
        for one in searcher.nearest_many(queries):
            assert len(one.ids) == len(set(one.parcels.tolist())) == 3
    assert len(first.ids) == 3


def test_no_vectors_find_nothing(searcher: ParcelSearcher) -> None:
    assert searcher.nearest_many(np.empty((0, 512), np.float32)) == []
