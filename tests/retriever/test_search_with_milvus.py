"""The same questions to the same parcels, whose vectors lie in files and in Milvus."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.catalog.database import connect
from indexer.generations.history import prune
from indexer.milvus.backend import MilvusBackend
from indexer.milvus.index import MilvusIndex
from indexer.row_sets import RowSet
from indexer.settings import Settings
from indexer.vector_index.index import Found
from retriever.cql2.expression import Expression
from retriever.queries import Bbox, Interval, ParcelFilter
from retriever.results import Matches
from retriever.search import ParcelSearcher
from tests.retriever.planted import (
    FloatArray,
    Seen,
    plant,
    random_vectors,
    searching,
    settings_in,
    uproot,
)

N = 300
CROPS = ("winter wheat", "maize", "rapeseed")
DAYS = ("2023-04-24", "2023-05-29", "2023-08-12")
VECTORS = random_vectors(N, seed=3)
ASKED = random_vectors(1, seed=4)[0]
POLYGON = "POLYGON((2.0 49.0, 2.12 49.0, 2.12 49.06, 2.0 49.0))"

Question = Callable[[ParcelSearcher], Matches]
Both = tuple[ParcelSearcher, ParcelSearcher]


def seen(number: int, vector: FloatArray, day: str) -> Seen:
    """One of the parcels, which lie in a grid of 20 columns."""
    return Seen(
        f"p{number:03d}",
        vector,
        day,
        crop_name=CROPS[number % 3],
        corner=(2 + 0.01 * (number % 20), 49 + 0.01 * (number // 20)),
        attributes={"soil": "loam" if number % 2 else "clay", "slope": number % 7},
        indices={"NDVI": number / N, "NDMI": 0.3},
    )


# One in five was seen on two days.
PARCELS = [
    seen(number % N, vector, DAYS[(number + number // N) % 3])
    for number, vector in enumerate(np.vstack([VECTORS, random_vectors(N // 5, seed=5)]))
]


def in_milvus(settings: Settings) -> Settings:
    """The same, with vectors in Milvus Lite."""
    return settings.model_copy(update={"vector_backend": "milvus"})


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Two indexes of the same parcels; only to be asked."""
    files = settings_in(tmp_path_factory.mktemp("files"))
    milvus = in_milvus(settings_in(tmp_path_factory.mktemp("milvus")))
    for one in (files, milvus):
        plant(one, PARCELS)
    with searching(files) as first, searching(milvus) as second:
        yield first, second
    MilvusBackend.of(milvus).server.close()


def told(matches: Matches) -> list[dict[str, Any]]:
    """All that is said of matches, but their scores."""
    return [{**match.to_dict(), "score": None} for match in matches.matches]


def scores(matches: Matches) -> list[float]:
    return [match.score for match in matches.matches]


def assert_same(first: Matches, second: Matches) -> None:
    assert told(first)
    assert told(second) == told(first)
    np.testing.assert_allclose(scores(second), scores(first), atol=1e-6)


def by_id(**options: Any) -> Question:  # noqa: ANN401 - options of a search
    return lambda searcher: searcher.similar_by_id("p007", **options)


def by_vector(**options: Any) -> Question:  # noqa: ANN401 - options of a search
    return lambda searcher: searcher.similar_by_vector(ASKED, **options)


def matching(text: str) -> ParcelFilter:
    return ParcelFilter(expression=Expression.parse(text))


QUESTIONS: dict[str, Question] = {
    "a parcel": by_id(),
    "examples": lambda searcher: searcher.similar_by_examples(["p001", "p002"], ["p003"], k=20),
    "a vector": by_vector(k=25),
    "all there are": by_vector(k=1000),
    "a crop": by_id(where=ParcelFilter(crops=("maize",))),
    "a box": by_id(where=ParcelFilter(bbox=Bbox(2.0, 49.0, 2.055, 49.045))),
    "a time": by_id(where=ParcelFilter(interval=Interval.parse("2023-05"))),
    "attributes": by_id(where=ParcelFilter(attributes=(("soil", "LOAM"), ("slope", 3)))),
    "words": by_id(where=ParcelFilter(text="p01 rapeseed")),
    "CQL2": by_vector(where=matching("NDVI > 0.4 AND \"crop:name\" LIKE 'm%'")),
    "a polygon": by_vector(where=matching(f"S_INTERSECTS(geometry, {POLYGON})")),
    "one row": by_vector(where=matching("slope = 3 AND soil = 'clay' AND NDVI < 0.04")),
    "all of it at once": by_id(
        k=5,
        where=ParcelFilter(
            crops=("maize", "rapeseed"),
            bbox=Bbox(2.0, 49.0, 2.15, 49.1),
            interval=Interval.parse("2023-04/2023-06"),
            expression=Expression.parse("slope BETWEEN 1 AND 5"),
        ),
    ),
    "observations": by_vector(k=100, observations=True),
    "a recall of .9": by_vector(recall=0.9),
    "a recall of .99": by_id(recall=0.99, where=ParcelFilter(crops=("maize",))),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_same_question_finds_the_same_parcels_with_the_same_scores(
    both: Both, name: str
) -> None:
    first, second = (QUESTIONS[name](searcher) for searcher in both)
    assert_same(first, second)


def test_nobody_finds_what_no_row_fulfills(both: Both) -> None:
    for searcher in both:
        assert by_id(where=ParcelFilter(crops=("rice",)))(searcher).matches == ()


def test_many_vectors_at_once_find_what_each_finds_alone(both: Both) -> None:
    queries = random_vectors(30, seed=6)
    first, second = (searcher.nearest_many(queries, k=7) for searcher in both)
    assert len(first) == len(second) == 30
    for of_files, of_milvus in zip(first, second, strict=True):
        assert len(of_files.ids) == 7
        assert of_milvus.ids.tolist() == of_files.ids.tolist()
        np.testing.assert_allclose(of_milvus.scores, of_files.scores, atol=1e-6)


def test_the_state_of_a_parcel_names_the_same_peers(both: Both) -> None:
    first, second = (searcher.state("p007").to_dict() for searcher in both)
    assert first["peers"]
    assert second == first


def test_an_explanation_names_milvus_and_the_same_conditions(both: Both) -> None:
    question = by_id(explain=True, where=ParcelFilter(crops=("maize",)))
    first, second = (question(searcher).explanation for searcher in both)
    assert first is not None
    assert second is not None
    assert second["index"] == "Milvus FLAT"
    for name in ("rows", "conditions", "allowed", "recall", "recall_measured"):
        assert second[name] == first[name], name
    everything = by_id(explain=True)(both[1]).explanation
    assert everything is not None
    assert (everything["method"], "Milvus" in everything["method_means"]) == ("lists", True)


def test_what_is_committed_since_is_found_and_what_is_deleted_is_not(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    milvus = in_milvus(settings_in(tmp_path_factory.mktemp("since")))
    plant(milvus, PARCELS[:40])
    with searching(milvus) as searcher:
        nearest = [one.parcel_id for one in searcher.similar_by_vector(VECTORS[3], k=2).matches]
        assert nearest[0] == "p003"
        plant(milvus, [Seen("new", VECTORS[3])], publish=False)
        uproot(milvus, "p003", nearest[1])
        answer = searcher.similar_by_vector(VECTORS[3], k=100)
        found = [one.parcel_id for one in answer.matches]
        assert found[0] == "new"
        assert not {"p003", nearest[1]} & set(found)
        assert len(found) == 40 - 2 + 1
        assert answer.generation == 1
        plant(milvus, PARCELS[40:50])
        assert searcher.similar_by_vector(VECTORS[44], k=1).matches[0].parcel_id == "p044"
        assert searcher.similar_by_vector(VECTORS[44], k=1).generation == 2
    MilvusBackend.of(milvus).server.close()


def test_a_question_whose_collection_is_dropped_meanwhile_is_put_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = in_milvus(settings_in(tmp_path))
    plant(settings, [Seen("a", VECTORS[0]), Seen("b", VECTORS[1])])
    overtaken: list[bool] = []
    search = MilvusIndex.search

    def late(
        index: MilvusIndex, query: FloatArray, k: int, *, recall: float, live: RowSet | None
    ) -> Found:
        if not overtaken:
            overtaken.append(True)
            plant(settings, [Seen("c", VECTORS[2])])
            engine = connect(settings)
            prune(engine, settings.generations_dir, 1, backend=MilvusBackend.of(settings))
            engine.dispose()
        return search(index, query, k, recall=recall, live=live)

    with searching(settings) as searcher:
        searcher.similar_by_id("a")
        monkeypatch.setattr(MilvusIndex, "search", late)
        found = searcher.similar_by_id("a")
    assert {match.parcel_id for match in found.matches} == {"b", "c"}
    MilvusBackend.of(settings).server.close()
