"""Parcels page by page: what a filter lets through, in which order, how many."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event

from indexer.errors import InvalidInputError, NotFoundError
from indexer.parcels.parcel import JsonScalar
from indexer.settings import Settings
from retriever import listing, search
from retriever.listing import ParcelList
from retriever.queries import Bbox, Interval, ParcelFilter
from retriever.search import ParcelSearcher
from tests.retriever.planted import Seen, at_cosine, plant, searching, settings_in
from tests.schemas import matter_of_sqlite


def parcel(parcel_id: str, **others: object) -> Seen:
    """A parcel whose vector does not matter."""
    return replace(Seen(parcel_id, at_cosine(1)), **others)  # type: ignore[arg-type]


def ids(page: ParcelList) -> list[str]:
    return [listed.parcel.parcel_id for listed in page.parcels]


Listed = Callable[..., list[str]]


@pytest.fixture
def listed(empty: Settings) -> Iterator[Listed]:
    """Plants parcels, then lists the ids of those that fit a filter."""
    searchers: list[ParcelSearcher] = []

    def fitting(planted: Sequence[Seen] = (), **where: object) -> list[str]:
        if planted:
            plant(empty, planted)
        if not searchers:
            searchers.append(ParcelSearcher.open(empty))
        chosen = ParcelFilter(**where)  # type: ignore[arg-type]
        page = searchers[0].parcels(where=chosen, limit=1000)
        assert page.matched == len(page.parcels)
        assert page.counted
        assert not page.more
        return ids(page)

    yield fitting
    for searcher in searchers:
        searcher.close()


# Text ----------------------------------------------------------------------------------------

CALLED = [
    parcel("FR-Nord-1", crop_code="BTH", crop_name="winter wheat"),
    parcel("FR-Nord-2", crop_code="MIS", crop_name="Maïs"),
    parcel("FR-Sud-3", crop_name="Épeautre", attributes={"farm": "La Brévière", "slope": 12}),
    parcel("DE-Süd-4", crop_name="ÉPEAUTRE D'ÉTÉ", attributes={"farm": "Hof BRÉVIÈRE"}),
    parcel("plain", attributes={"owner": "100% organic", "key": "a_b", "path": "x/y\\z"}),
    parcel("quoted", attributes={"owner": 'O\'Brien "Bob"', "note": "axb; DROP TABLE parcels --"}),
]

WORDS = {
    "nord": ["FR-Nord-1", "FR-Nord-2"],
    "NORD": ["FR-Nord-1", "FR-Nord-2"],
    "bth": ["FR-Nord-1"],
    "wheat": ["FR-Nord-1"],
    "WINTER": ["FR-Nord-1"],
    "nord wheat": ["FR-Nord-1"],
    "  wheat \t nord ": ["FR-Nord-1"],
    "wheat maïs": [],
    "maïs": ["FR-Nord-2"],
    "MAÏS": ["FR-Nord-2"],
    "épeautre": ["DE-Süd-4", "FR-Sud-3"],
    "Épeautre": ["DE-Süd-4", "FR-Sud-3"],
    "ÉPEAUTRE": ["DE-Süd-4", "FR-Sud-3"],
    "épeautre été": ["DE-Süd-4"],
    "brévière": ["DE-Süd-4", "FR-Sud-3"],
    "BRÉVIÈRE la": ["FR-Sud-3"],
    "sud": ["FR-Sud-3"],
    "süd": ["DE-Süd-4"],
    "SÜD": ["DE-Süd-4"],
    "12": ["FR-Sud-3"],
    "%": ["plain"],
    "100%": ["plain"],
    "_": ["plain"],
    "a_b": ["plain"],
    "x/y": ["plain"],
    "\\": ["plain"],
    "y\\z": ["plain"],
    "'": ["DE-Süd-4", "quoted"],
    "o'brien": ["quoted"],
    '"bob"': ["quoted"],
    "axb;": ["quoted"],
    "--": ["quoted"],
    "%nord%": [],
    "farm": [],
    "nothing": [],
}


def test_words_stand_in_the_id_the_crop_or_an_attribute_in_any_case(listed: Listed) -> None:
    listed(CALLED)
    assert {text: sorted(listed(text=text)) for text in WORDS} == WORDS


def test_no_words_let_everything_through(listed: Listed) -> None:
    assert len(listed(CALLED, text="")) == len(CALLED)
    assert len(listed(text=" \n")) == len(CALLED)


# Attributes ----------------------------------------------------------------------------------

VALUES: dict[str, JsonScalar] = {
    "text": "Ferme de l'Étang",
    "number": 17,
    "negative": -3,
    "zero": 0,
    "fraction": 12.5,
    "whole": 4.0,
    "tiny": 1e-7,
    "third": 1 / 3,
    "sum": 0.1 + 0.2,
    "huge": 1e22,
    "large": 9_007_199_254_740_993,
    "yes": True,
    "no": False,
}


def test_an_attribute_is_found_by_the_value_that_it_has(listed: Listed) -> None:
    listed([parcel(name, attributes={name: value}) for name, value in VALUES.items()])
    found = {name: listed(attributes=((name, value),)) for name, value in VALUES.items()}
    assert found == {name: [name] for name in VALUES}


def test_an_attribute_of_another_value_is_not_found(listed: Listed) -> None:
    listed([parcel("a", attributes=VALUES)])
    others: dict[str, JsonScalar] = {
        "text": "Ferme",
        "number": 18,
        "negative": 3,
        "zero": 1,
        "fraction": 12.25,
        "sum": 0.3,
        "large": 9_007_199_254_740_992,
        "yes": False,
        "no": True,
    }
    found = {name: listed(attributes=((name, value),)) for name, value in others.items()}
    assert found == {name: [] for name in others}


def test_a_number_is_found_however_it_is_written(listed: Listed) -> None:
    stored: dict[str, JsonScalar] = {"number": 17, "text": "17", "real": 2.5}
    listed([parcel("a", attributes=stored)])
    asked: list[tuple[str, JsonScalar]] = [
        ("number", "17"),
        ("text", 17),
        ("text", "17"),
        ("real", "2.50"),
        ("number", 17.0),
    ]
    assert [listed(attributes=(one,)) for one in asked] == [["a"]] * 5
    others: list[tuple[str, JsonScalar]] = [
        ("number", "18"),
        ("text", 18),
        ("number", True),
        ("real", "nan"),
        ("real", "1e999"),
        ("number", "9" * 400),
        ("number", "9" * 5000),
        ("number", 10**400),
        ("text", None),
    ]
    assert [listed(attributes=(one,)) for one in others] == [[]] * 9


def test_the_text_of_an_attribute_is_compared_without_case(listed: Listed) -> None:
    listed([parcel("a", attributes=VALUES)])
    for text in ("ferme de l'étang", "FERME DE L'ÉTANG", "Ferme De L'Étang"):
        assert listed(attributes=(("text", text),)) == ["a"]


def test_whole_numbers_are_equal_however_they_are_written(listed: Listed) -> None:
    planted = [parcel("int", attributes={"n": 4}), parcel("real", attributes={"n": 4.0})]
    assert listed(planted, attributes=(("n", 4),)) == ["int", "real"]
    assert listed(attributes=(("n", 4.0),)) == ["int", "real"]


def test_all_attributes_must_fit(listed: Listed) -> None:
    planted = [
        parcel("both", attributes={"farm": "17", "organic": True}),
        parcel("one", attributes={"farm": "17", "organic": False}),
        parcel("none", attributes={}),
    ]
    listed(planted)
    assert listed(attributes=(("farm", "17"),)) == ["both", "one"]
    assert listed(attributes=(("farm", "17"), ("organic", True))) == ["both"]
    assert listed(attributes=(("farm", "17"), ("farm", "18"))) == []


HOSTILE = (
    "it's",
    'say "x"',
    "a.b",
    "$.a[0]",
    "a%b_c",
    "'; DROP TABLE parcels --",
    "crop:type",
    " ",
    "",
    "é",
    "%s",
    ":name",
)


def test_an_attribute_may_have_any_name(listed: Listed) -> None:
    planted = [
        parcel(f"p{n:02}", attributes={name: "here", f"not {name}": "there"})
        for n, name in enumerate(HOSTILE)
    ]
    listed(planted)
    found = {name: listed(attributes=((name, "here"),)) for name in HOSTILE}
    assert found == {name: [f"p{n:02}"] for n, name in enumerate(HOSTILE)}


def test_values_are_never_patterns(listed: Listed) -> None:
    planted = [parcel("a", attributes={"v": "a_b%"}), parcel("b", attributes={"v": "axbyy"})]
    assert listed(planted, attributes=(("v", "a_b%"),)) == ["a"]
    assert listed(attributes=(("v", "%"),)) == []
    assert listed(attributes=(("v", "' OR '1'='1"),)) == []


def test_an_unknown_attribute_names_those_that_there_are(listed: Listed) -> None:
    listed([parcel("a", attributes={"farm": 1, "owner": None}), parcel("b", attributes={"age": 2})])
    with pytest.raises(InvalidInputError, match='"fram"') as caught:
        listed(attributes=(("fram", 1),))
    assert caught.value.kind == "unknown-property"
    assert 'there are "age", "farm", "owner"' in caught.value.message


def test_attributes_are_known_by_collection(listed: Listed) -> None:
    listed([parcel("a", attributes={"farm": 1}), parcel("b", collection="bare")])
    with pytest.raises(InvalidInputError, match="no parcel has any"):
        listed(attributes=(("farm", 1),), collections=("bare",))
    assert listed(attributes=(("farm", 1),), collections=("bare", "demo")) == ["a"]


# The other conditions ------------------------------------------------------------------------

COUNTRY = [
    parcel("a", crop_code="BTH", crop_name="winter wheat", corner=(2.0, 49.0)),
    parcel("b", crop_code="MIS", crop_name="Maize", corner=(2.5, 49.0), day="2023-08-12"),
    parcel("c", crop_name="Épeautre", corner=(179.985, -17.0), collection="islands", day=None),
    parcel("d", corner=(-179.995, -17.0), collection="islands", reliable=False, vector=None),
    parcel("e", corner=None, collection="islands", day="2024-01-01"),
]


def test_a_crop_is_listed_by_code_or_name_in_any_case(listed: Listed) -> None:
    listed(COUNTRY)
    assert listed(crops=("bth",)) == ["a"]
    assert listed(crops=("MAIZE", "Winter Wheat")) == ["a", "b"]
    assert listed(crops=("épeautre",)) == listed(crops=("ÉPEAUTRE",)) == ["c"]
    assert listed(crops=("wheat",)) == []


def test_a_bbox_lets_through_what_it_touches(listed: Listed) -> None:
    listed(COUNTRY)
    assert listed(bbox=Bbox(2.005, 49.005, 2.006, 49.006)) == ["a"]
    assert listed(bbox=Bbox(2.01, 48, 2.5, 50)) == ["a", "b"]
    assert listed(bbox=Bbox(2.0101, 48, 2.4999, 50)) == []
    assert listed(bbox=Bbox(179, -18, -179, -16)) == ["c", "d"]
    assert listed(bbox=Bbox(-180, -90, 180, 90)) == ["a", "b", "c", "d"]


def test_an_interval_lets_through_what_was_observed_in_it_reliably_or_not(listed: Listed) -> None:
    twice = replace(COUNTRY[0], day="2023-08-13")
    listed([*COUNTRY, twice])
    assert listed(interval=Interval.parse("2023-05")) == ["a", "d"]
    assert listed(interval=Interval.parse("2023-08")) == ["a", "b"]
    assert listed(interval=Interval.parse("2023-09/..")) == ["e"]
    assert listed(interval=Interval.parse("2019")) == []


def test_collections_choose_parcels_and_an_unknown_one_is_named(listed: Listed) -> None:
    listed(COUNTRY)
    assert listed(collections=("islands",)) == ["c", "d", "e"]
    assert listed(collections=("islands", "demo")) == ["a", "b", "c", "d", "e"]
    with pytest.raises(NotFoundError, match='No collection "island"'):
        listed(collections=("island",))


def test_all_conditions_must_hold(listed: Listed) -> None:
    listed(COUNTRY)
    chosen = {"collections": ("demo",), "crops": ("BTH", "MIS"), "text": "maize"}
    assert listed(**chosen) == ["b"]
    assert listed(**chosen, interval=Interval.parse("2023-08")) == ["b"]
    assert listed(**chosen, bbox=Bbox(0, 0, 2.2, 50)) == []


def test_a_parcel_is_told_with_its_attributes_and_what_was_observed(empty: Settings) -> None:
    seen = parcel("a", crop_code="BTH", attributes={"farm": "17", "n": 2})
    plant(empty, [seen, replace(seen, day="2023-08-12", reliable=False), replace(seen, day=None)])
    with searching(empty) as searcher:
        told = searcher.parcels(where=ParcelFilter(text="a")).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told == {
        "query": {"text": "a"},
        "matched": 1,
        "matched_is_exact": True,
        "parcels": [
            {
                "collection": "demo",
                "id": "a",
                "crop:code": "BTH",
                "crop:name": None,
                "metrics:area": 12345.0,
                "attributes": {"farm": "17", "n": 2},
                "longitude": 2.005,
                "latitude": 49.005,
                "observations": 3,
                "datetime": "2023-08-12T10:50:31Z",
                "cluster": None,
                "cluster:number": None,
                "cluster:score": None,
            }
        ],
    }


def test_a_parcel_without_a_place_or_a_date_is_listed(listed: Listed, empty: Settings) -> None:
    listed([parcel("a", corner=None, day=None)])
    with searching(empty) as searcher:
        (found,) = searcher.parcels().parcels
    assert (found.longitude, found.latitude, found.latest) == (None, None, None)
    assert found.observations == 1
    assert found.parcel.geometry is None


# Pages ---------------------------------------------------------------------------------------

MANY = [
    parcel(f"p{(7 * n) % 23:02}", collection=("first", "second")[n % 2], crop_name=f"crop {n % 3}")
    for n in range(46)
]


def walked(searcher: ParcelSearcher, limit: int, where: ParcelFilter) -> list[ParcelList]:
    """Every page, each asked for by the last parcel of the page before."""
    pages = [searcher.parcels(where=where, limit=limit)]
    while pages[-1].more:
        assert len(pages[-1].parcels) == limit
        pages.append(searcher.parcels(where=where, limit=limit, after=pages[-1].parcels[-1].row))
    return pages


def test_every_parcel_stands_on_one_page_in_the_order_of_collection_and_id(
    empty: Settings,
) -> None:
    plant(empty, MANY)
    keys = sorted((seen.collection, seen.parcel_id) for seen in MANY)
    thirds = {(one.collection, one.parcel_id) for one in MANY if one.crop_name == "crop 1"}
    with searching(empty) as searcher:
        for where, expected in (
            (ParcelFilter(), keys),
            (ParcelFilter(crops=("crop 1",)), [key for key in keys if key in thirds]),
            (ParcelFilter(collections=("second",)), [key for key in keys if key[0] == "second"]),
            (ParcelFilter(text="nothing"), []),
        ):
            for limit in (1, 7, 23, 45, 46, 47, 1000):
                pages = walked(searcher, limit, where)
                assert [
                    (one.parcel.collection, one.parcel.parcel_id)
                    for page in pages
                    for one in page.parcels
                ] == expected
                assert {page.matched for page in pages} == {len(expected)}
                assert len(pages) == max(1, -(-len(expected) // limit))


def test_a_page_may_begin_behind_a_parcel_that_does_not_fit(empty: Settings) -> None:
    plant(empty, [parcel(name, crop_name=name * 2) for name in "abcd"])
    with searching(empty) as searcher:
        behind = searcher.parcels().parcels[1].row
        page = searcher.parcels(where=ParcelFilter(crops=("aa", "cc")), after=behind)
    assert ids(page) == ["c"]
    assert page.matched == 2


def test_a_limit_out_of_bounds_is_refused(empty: Settings) -> None:
    plant(empty, [parcel("a")])
    with searching(empty) as searcher:
        for limit in (0, -1, 1001):
            with pytest.raises(InvalidInputError, match=f"is {limit}"):
                searcher.parcels(limit=limit)


@pytest.mark.parametrize(("most", "exact"), [(4, False), (6, True)])
def test_beyond_the_most_that_are_counted_the_count_is_not_exact(
    most: int, exact: bool, empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MOST_COUNTED", most)
    monkeypatch.setattr(listing, "MOST_COUNTED", most)
    plant(empty, [parcel(name) for name in "abcde"])
    with searching(empty) as searcher:
        page = searcher.parcels(limit=2)
        assert (page.matched, page.counted, page.more) == (min(5, most), exact, True)
        assert page.to_dict()["matched_is_exact"] is exact
        assert (
            len([one for page in walked(searcher, 2, ParcelFilter()) for one in page.parcels]) == 5
        )


@matter_of_sqlite("the steps of its machine")
def test_the_last_page_costs_what_the_first_does(tmp_path: Path) -> None:
    """In steps of SQLite's machine, which are the same however busy ours is."""
    chosen = settings_in(tmp_path)
    plant(chosen, [parcel(f"p{n:03}") for n in range(300)])
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with searching(chosen) as searcher:

        @event.listens_for(searcher.engine, "connect")
        def _(connection: sqlite3.Connection, _record: object) -> None:
            connection.set_progress_handler(count, 10)

        def cost(where: ParcelFilter, after: int) -> int:
            nonlocal steps
            steps = 0
            page = searcher.parcels(where=where, limit=9, after=after, count=False)
            assert len(page.parcels) == 9
            return steps

        # The connection that is open already counts nothing.
        searcher.engine.dispose()
        everything = searcher.parcels(limit=290, count=False).parcels
        first, last = everything[0], everything[-1]
        for where in (ParcelFilter(), ParcelFilter(collections=("demo",))):
            assert 0 < cost(where, last.row) < 1.5 * cost(where, first.row)
