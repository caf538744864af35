"""Which questions are answered in a few milliseconds, and which say that they would wait."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexer.settings import Settings
from retriever.queries import ParcelFilter
from retriever.search import ParcelSearcher
from retriever.statements import snapshot
from retriever.waiting import WouldWait, without_waiting
from tests.retriever.planted import Seen, at_cosine, plant, searching, settings_in
from tests.schemas import matter_of_sqlite

NOT_ACROSS_A_NETWORK = matter_of_sqlite("a server is always waited for")


@pytest.fixture
def index(tmp_path: Path) -> Settings:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))])
    return chosen


@pytest.fixture
def searcher(index: Settings) -> Iterator[ParcelSearcher]:
    with searching(index) as searcher:
        yield searcher


def waits(question: Callable[[], object]) -> bool:
    try:
        with without_waiting():
            question()
    except WouldWait:
        return True
    return False


@NOT_ACROSS_A_NETWORK
def test_an_index_is_loaded_where_one_may_wait(searcher: ParcelSearcher) -> None:
    assert waits(lambda: searcher.similar_by_id("a"))
    searcher.similar_by_id("a")
    assert not waits(lambda: searcher.similar_by_id("a"))


def test_a_generation_published_meanwhile_is_loaded_where_one_may_wait(
    index: Settings, searcher: ParcelSearcher
) -> None:
    searcher.similar_by_id("a")
    plant(index, [Seen("c", at_cosine(0.9))])
    assert waits(lambda: searcher.similar_by_id("a"))
    assert searcher.similar_by_id("a").generation == 2


@pytest.mark.parametrize(
    "question",
    [
        lambda searcher: searcher.similar_by_id("a", where=ParcelFilter(crops=("maize",))),
        lambda searcher: searcher.similar_by_id("a", k=1000),
        lambda searcher: searcher.similar_by_id("nobody"),
    ],
    ids=["a filter", "many matches", "an unknown parcel"],
)
def test_what_may_read_much_of_the_catalog_waits(
    searcher: ParcelSearcher, question: Callable[[ParcelSearcher], object]
) -> None:
    searcher.similar_by_id("a")
    assert waits(lambda: question(searcher))


@NOT_ACROSS_A_NETWORK
def test_many_examples_wait(index: Settings, searcher: ParcelSearcher) -> None:
    several = [f"e{n}" for n in range(6)]
    plant(index, [Seen(name, at_cosine(0.9, axis=2 + n)) for n, name in enumerate(several)])
    searcher.similar_by_id("a")
    assert waits(lambda: searcher.similar_by_examples(several))
    assert not waits(lambda: searcher.similar_by_examples(several[:3], several[3:5]))


@NOT_ACROSS_A_NETWORK
def test_a_search_that_parcels_of_many_dates_widen_does_not_wait(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    # So many of the nearest are one parcel that more has to be asked for.
    often = [Seen("b", at_cosine(0.9), day=f"2023-05-{day:02}") for day in range(1, 20)]
    plant(chosen, [Seen("a", at_cosine(1)), *often, Seen("c", at_cosine(0.5))])
    with searching(chosen) as searcher:
        assert len(searcher.similar_by_id("a", k=2).matches) == 2
        assert not waits(lambda: searcher.similar_by_id("a", k=2))


@NOT_ACROSS_A_NETWORK
def test_what_was_committed_meanwhile_is_read_where_one_may_wait(
    index: Settings, searcher: ParcelSearcher
) -> None:
    searcher.similar_by_id("a")
    plant(index, [Seen("c", at_cosine(0.9))], publish=False)
    assert waits(lambda: searcher.similar_by_id("a"))
    assert [match.parcel_id for match in searcher.similar_by_id("a").matches] == ["c", "b"]
    assert not waits(lambda: searcher.similar_by_id("a"))


@NOT_ACROSS_A_NETWORK
def test_a_question_without_a_free_connection_waits(searcher: ParcelSearcher) -> None:
    searcher.similar_by_id("a")
    taken = [snapshot(searcher.engine) for _ in range(5)]
    for one in taken:
        one.__enter__()
    assert waits(lambda: searcher.similar_by_id("a"))
    for one in taken:
        one.__exit__(None, None, None)
    assert not waits(lambda: searcher.similar_by_id("a"))


def test_other_threads_may_wait_meanwhile(searcher: ParcelSearcher) -> None:
    with without_waiting(), ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(searcher.similar_by_id, "a").result().matches


@pytest.mark.postgres
def test_a_database_across_a_network_is_waited_for(empty: Settings) -> None:
    plant(empty, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))])
    with searching(empty) as searcher:
        searcher.similar_by_id("a")
        is_remote = searcher.engine.dialect.name != "sqlite"
        assert waits(lambda: searcher.similar_by_id("a")) == is_remote
