"""What answers while generations come, go and come back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.catalog.database import connect
from indexer.columns import Columns
from indexer.generations import store
from indexer.generations.backends import Backend, SearchableIndex
from indexer.generations.history import prune, roll_back
from indexer.generations.manifest import Manifest
from indexer.settings import Settings
from retriever import published
from retriever.search import ParcelSearcher
from tests.retriever.planted import UNTRAINED, Seen, at_cosine, plant, searching

A, B = Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))


@pytest.fixture
def searcher(empty: Settings) -> Iterator[ParcelSearcher]:
    plant(empty, [A, B])
    with searching(empty) as searcher:
        yield searcher


def found(searcher: ParcelSearcher) -> dict[str, float]:
    return {one.parcel_id: round(one.score, 2) for one in searcher.similar_by_id("a").matches}


def rolled_back(settings: Settings, generation: int | None = None) -> None:
    engine = connect(settings)
    roll_back(engine, settings.generations_dir, generation)
    engine.dispose()


def test_a_generation_that_is_pruned_while_it_is_opened_gives_way_to_its_successor(
    searcher: ParcelSearcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def open_late(
        folder: Path, manifest: Manifest, backend: Backend
    ) -> tuple[SearchableIndex, Columns]:
        tried.append(manifest.generation)
        if len(tried) == 1:
            # Between the look at the pointer and the look at the files.
            plant(searcher.settings, [Seen("c", at_cosine(0.4))])
            prune(searcher.engine, searcher.settings.generations_dir, 1)
        return store.open_generation(folder, manifest, backend)

    monkeypatch.setattr(published, "open_generation", open_late)
    answer = searcher.similar_by_id("a")
    assert tried == [1, 2]
    assert answer.generation == 2
    assert [one.parcel_id for one in answer.matches] == ["b", "c"]


def test_whoever_searches_sees_a_rollback_with_the_next_question(searcher: ParcelSearcher) -> None:
    plant(searcher.settings, [Seen("c", at_cosine(0.4))])
    assert searcher.similar_by_id("a").generation == 2
    rolled_back(searcher.settings)
    assert searcher.similar_by_id("a").generation == 1
    assert found(searcher) == {"b": 0.5, "c": 0.4}


def test_a_pruned_generation_that_is_open_is_read_to_its_end(searcher: ParcelSearcher) -> None:
    held = searcher._published.for_collection("demo")
    for _ in range(2):
        plant(searcher.settings, [A, B])
    assert not (searcher.settings.generations_dir / "1").exists()
    scores, rows, _ = held.index.search(at_cosine(1), 2)
    assert scores.round(2).tolist() == [1, 0.5]
    assert len(held.columns.ids[rows]) == 2


def test_what_was_committed_while_a_collection_was_elsewhere_is_found_when_it_is_back(
    searcher: ParcelSearcher,
) -> None:
    # Another collection keeps the space, and its generation, open all the time.
    plant(searcher.settings, [Seen("stays", at_cosine(0.3), collection="other")])
    assert searcher.similar_by_id("a", collection="demo").generation == 2
    plant(searcher.settings, [A, B], weights=UNTRAINED)
    # While nobody searches the first space for it, b is written there.
    plant(searcher.settings, [Seen("b", at_cosine(0.7))], publish=False)
    assert searcher.similar_by_id("stays", collection="other").generation == 2
    rolled_back(searcher.settings)
    answer = searcher.similar_by_id("a", collection="demo")
    assert answer.generation == 2
    assert {one.parcel_id: round(one.score, 2) for one in answer.matches}["b"] == 0.7
