"""An answer tells how it was found, where that is asked for."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from indexer.settings import Settings
from retriever.cql2.expression import Expression
from retriever.queries import Bbox, Interval, ParcelFilter
from retriever.search import ParcelSearcher
from tests.retriever.planted import Seen, at_cosine, plant, random_vectors, searching, uproot


@pytest.fixture
def searcher(empty: Settings) -> Iterator[ParcelSearcher]:
    """Twelve parcels, the last four of them of rye; one in May, the others in August."""
    plant(
        empty,
        [
            Seen(
                f"p{n:02}",
                vector,
                "2023-05-29" if n == 0 else "2023-08-12",
                crop_name="rye" if n >= 8 else "oats",
                corner=(float(n), 49.0),
            )
            for n, vector in enumerate(random_vectors(12))
        ],
    )
    with searching(empty) as searcher:
        yield searcher


def explained(searcher: ParcelSearcher, where: ParcelFilter, **asking: Any) -> dict[str, Any]:  # noqa: ANN401
    matches = searcher.similar_by_id("p00", where=where, explain=True, **asking)
    assert matches.explanation is not None
    for told in (matches.to_dict(), matches.to_geojson()):
        assert json.loads(json.dumps(told["explanation"])) == matches.explanation
    return matches.explanation


def test_nothing_is_explained_unasked(searcher: ParcelSearcher) -> None:
    matches = searcher.similar_by_id("p00")
    assert matches.explanation is None
    assert "explanation" not in {**matches.to_dict(), **matches.to_geojson()}


def test_an_explanation_tells_the_index_and_what_it_cost(searcher: ParcelSearcher) -> None:
    told = explained(searcher, ParcelFilter(), k=3)
    assert told["index"] == searcher.generations()[0].manifest.index_kind
    assert (told["rows"], told["allowed"], told["scored"]) == (12, 12, 12)
    assert told["conditions"] == []
    assert told["method"] == "rows"
    assert told["since_publication"] == {"rows": 0, "removed": 0}
    assert told["search_ms"] > 0
    assert told["metadata_ms"] > 0


@pytest.mark.parametrize(("asked", "told"), [(0.5, 0.9), (0.9, 0.9), (0.95, 0.95), (0.99, 0.99)])
def test_an_explanation_tells_the_recall_that_was_sought(
    searcher: ParcelSearcher, asked: float, told: float
) -> None:
    assert explained(searcher, ParcelFilter(), recall=asked)["recall"] == told


def test_each_condition_tells_how_many_rows_fulfill_it_the_fewest_first(
    searcher: ParcelSearcher,
) -> None:
    where = ParcelFilter(crops=("oats",), interval=Interval.parse("2023-05"))
    told = explained(searcher, where)
    assert told["conditions"] == [
        {"name": "datetime", "rows": 1},
        {"name": "crop", "rows": 8},
    ]
    # p00 itself is allowed by the filter, and left out as the one that asks.
    assert told["allowed"] == 1


def test_a_place_and_words_are_told_as_conditions(searcher: ParcelSearcher) -> None:
    where = ParcelFilter(bbox=Bbox(2.5, 49, 5.005, 50), text="rye")
    names = [one["name"] for one in explained(searcher, where)["conditions"]]
    assert sorted(names) == ["bbox", "sql"]
    shape = Expression.parse("S_INTERSECTS(geometry, POLYGON((1 48, 4 48, 4 51, 1 51, 1 48)))")
    names = [
        one["name"] for one in explained(searcher, ParcelFilter(expression=shape))["conditions"]
    ]
    assert "sql" not in names


def test_a_filter_that_nothing_fulfills_has_no_row_to_look_at(searcher: ParcelSearcher) -> None:
    told = explained(searcher, ParcelFilter(crops=("rice",)))
    assert told["method"] == "nothing"
    assert (told["allowed"], told["scored"], told["reranked"]) == (0, 0, 0)


def test_rows_since_the_publication_are_told_apart(searcher: ParcelSearcher) -> None:
    plant(
        searcher.settings,
        [Seen("new", at_cosine(1)), Seen("new", at_cosine(0.9), "2023-06-01")],
        publish=False,
    )
    uproot(searcher.settings, "p01", "p02")
    told = explained(searcher, ParcelFilter())
    assert told["since_publication"] == {"rows": 2, "removed": 2}
    assert (told["rows"], told["allowed"]) == (12, 10)
