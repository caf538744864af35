"""SQL answers as the standard says, on SQLite and PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from shapely import box, to_wkb
from sqlalchemy import Connection, insert

from indexer.catalog.database import connect
from indexer.catalog.tables import Parcel
from indexer.errors import InvalidInputError
from indexer.settings import Settings
from retriever.cql2.checking import MAX_CONDITIONS, MAX_DEPTH
from retriever.cql2.expression import Expression
from retriever.queries import ParcelFilter
from tests.retriever.cql2 import evaluation
from tests.retriever.cql2.asking import fitting
from tests.retriever.cql2.strategies import TEXTS, call, expressions, named
from tests.retriever.planted import Seen, at_cosine, plant, searching

QUOTES = "name with \"quotes\" and 'more'"

SEEN = [
    Seen(
        "a",
        at_cosine(1),
        crop_code="BTH",
        crop_name="Été wheat",
        attributes={"x": "17", "y": True, QUOTES: "a%b"},
    ),
    Seen("b", at_cosine(0.9), crop_name="maize", corner=(2.005, 49.0), attributes={"x": 17}),
    Seen(
        "c",
        at_cosine(0.8),
        day="2023-06-01",
        corner=None,
        area_m2=None,
        indices={},
        reliable=False,
        valid_fraction=0.5,
        attributes={"x": False, "y": 0.5},
    ),
    Seen("d", at_cosine(0.7), day=None, collection="other", corner=(3.0, 49.0)),
    *(
        Seen(f"text {n}", at_cosine(0.6), crop_name=text or None, attributes={"x": text})
        for n, text in enumerate(TEXTS)
    ),
    *(
        Seen(f"number {n}", at_cosine(0.6), indices={"NDVI": 0.5}, attributes={"x": n, "y": value})
        for n, value in enumerate([-1, 0.5, 2.25, 2**53, 2**53 + 1, 1e300])
    ),
]


def as_parcel(seen: Seen) -> evaluation.Parcel:
    west, south = seen.corner or (0.0, 0.0)
    return {
        **seen.attributes,
        **seen.indices,
        "id": seen.parcel_id,
        "collection": seen.collection,
        "crop:code": seen.crop_code,
        "crop:name": seen.crop_name,
        "metrics:area": seen.area_m2,
        "valid_fraction": seen.valid_fraction,
        "reliable": seen.reliable,
        "datetime": None if seen.day is None else evaluation._moment(f"{seen.day}T10:50:31Z"),
        "geometry": seen.corner and box(west, south, west + 0.01, south + 0.01),
    }


PARCELS = {seen.parcel_id: as_parcel(seen) for seen in SEEN}


@contextmanager
def connected(empty: Settings) -> Iterator[Connection]:
    engine = connect(empty)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.fixture(scope="module")
def catalog(shared: Settings) -> Settings:
    """The index of all that was seen; only to be read."""
    plant(shared, SEEN)
    return shared


@pytest.fixture
def planted(catalog: Settings) -> Iterator[Connection]:
    with connected(catalog) as connection:
        yield connection


def test_sql_answers_as_the_standard_says(planted: Connection) -> None:
    @settings(max_examples=300)
    @given(expressions())
    def check(tree: Any) -> None:  # noqa: ANN401
        expected = [name for name, one in PARCELS.items() if evaluation.holds(tree, one)]
        assert fitting(planted, Expression.from_json(tree)) == sorted(expected)

    check()


def test_what_is_unknown_stays_unknown_when_it_is_negated(planted: Connection) -> None:
    assert fitting(planted, "y = TRUE") == ["a"]
    assert fitting(planted, "NOT y = TRUE") == []
    assert fitting(planted, "NDVI IS NULL OR NDVI < 0") == ["c"]
    assert "c" not in fitting(planted, "NOT NDVI > 0.6")
    inside = "s_intersects(geometry, BBOX(1, 48, 2.9, 50))"
    assert "c" not in fitting(planted, inside)
    assert fitting(planted, f"NOT {inside}") == ["d"]
    # True whatever the unknown part is.
    assert "c" in fitting(planted, f"NOT ({inside} AND id = 'a')")


def test_a_parcel_that_was_never_observed_has_no_state(empty: Settings) -> None:
    plant(empty, [Seen("seen", at_cosine(1), attributes={"x": 1})])
    never = {"collection_id": 1, "parcel_id": "never", "attributes": {"x": 1}}
    with connected(empty) as connection:
        connection.execute(insert(Parcel), [never])
        assert fitting(connection, "x = 1") == ["never", "seen"]
        for condition in ("reliable = TRUE", "NDVI < 2", "valid_fraction <= 1"):
            assert fitting(connection, condition) == ["seen"]
            assert fitting(connection, f"NOT {condition}") == []
        for name in ("datetime", "NDVI", "reliable", "geometry"):
            assert fitting(connection, f"{name} IS NULL") == ["never"]
        assert fitting(connection, "datetime IS NULL AND x = 1 OR NDVI > 2") == ["never"]


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("x = '17'", ["a"]),
        ("x = 17", ["b"]),
        ("x = FALSE", ["c"]),
        ("x IN ('17', 17, FALSE)", ["a", "b", "c"]),
        ('"name with ""quotes"" and \'more\'" = \'a%b\'', ["a"]),
        ("y = 9007199254740993", ["number 4"]),
        ("y = 9007199254740992", ["number 3"]),
        # None of them rounds another.
        ("y IN (0.5, 9007199254740993)", ["c", "number 1", "number 4"]),
        ("y < TRUE", []),
        ("y >= FALSE", ["a"]),
        ("x <= FALSE", ["c"]),
        ("y > 1e299", ["number 5"]),
        ("crop:name = 'été wheat'", []),
        ("casei(crop:name) = casei('ÉTÉ WHEAT')", ["a"]),
        ("casei(crop:name) LIKE casei('ÉT_ WH%')", ["a"]),
        ("crop:code LIKE 'BT_'", ["a"]),
        ("crop:code LIKE 'bt_'", []),
        (r"x LIKE 'a\%%'", ["text 8"]),
        ("datetime > TIMESTAMP('2023-05-31T23:59:59Z')", ["c"]),
        ("x LIKE '[a_'", ["text 11"]),
        ("x LIKE '*'", ["text 10"]),
        ("x LIKE '^.$'", ["text 12"]),
        ("datetime > TIMESTAMP('2023-06-01T10:50:30.999999Z')", ["c"]),
        ("datetime > TIMESTAMP('2023-06-01T10:50:31Z')", []),
        ("datetime = TIMESTAMP('2023-06-01T12:50:31+02:00')", ["c"]),
        ("datetime = DATE('2023-06-01')", ["c"]),
        ("datetime < DATE('2023-05-29')", []),
        ("datetime > DATE('2023-06-01') OR datetime IS NULL", ["d"]),
        ("t_during(datetime, INTERVAL('2023-05-30', '2023-06-01'))", ["c"]),
        ("t_during(datetime, INTERVAL('2023-05-30', '2023-06-01T10:50:31Z'))", []),
        ("t_intersects(datetime, INTERVAL('2023-05-30', '2023-06-01T10:50:31Z'))", ["c"]),
        ("t_before(datetime, INTERVAL('..', '2023-06-01'))", []),
        ("metrics:area IS NULL", ["c"]),
        ("collection = 'other' AND crop:code IS NULL", ["d"]),
        ("reliable <> TRUE", ["c"]),
        ("valid_fraction BETWEEN 0.4 AND 0.6", ["c"]),
    ],
)
def test_conditions_choose_parcels(planted: Connection, condition: str, ids: list[str]) -> None:
    assert fitting(planted, condition) == ids


def test_a_shape_is_met_exactly_not_by_its_rectangle(empty: Settings) -> None:
    # The squares have sides of 0.01 degrees; the diagonal of the triangle leaves "far" out.
    plant(
        empty,
        [Seen("near", at_cosine(1), corner=(2.0, 49.0)), Seen("far", corner=(2.9, 49.9))],
    )
    triangle = "POLYGON((2 49, 3 49, 2 50, 2 49))"
    with connected(empty) as connection:
        assert fitting(connection, "s_intersects(geometry, BBOX(2, 49, 3, 50))") == ["far", "near"]
        assert fitting(connection, f"s_intersects(geometry, {triangle})") == ["near"]
        assert fitting(connection, f"NOT s_intersects(geometry, {triangle})") == ["far"]
        line = "LINESTRING(1.9 48.9, 2.5 49.5)"
        assert fitting(connection, f"s_intersects(geometry, {line})") == ["near"]
        both = f"GEOMETRYCOLLECTION({line}, POINT(2.905 49.905))"
        assert fitting(connection, f"s_intersects(geometry, {both})") == ["far", "near"]
        assert fitting(connection, "s_intersects(geometry, POINT Z(2.01 49.01 70))") == ["near"]


def test_a_rectangle_may_cross_the_antimeridian(empty: Settings) -> None:
    plant(
        empty,
        [
            Seen("east", at_cosine(1), corner=(179.5, -17.0)),
            Seen("west", corner=(-179.5, -17.0)),
            Seen("elsewhere", corner=(2.0, -17.0)),
        ],
    )
    with connected(empty) as connection:
        found = fitting(connection, "s_intersects(geometry, BBOX(179, -18, -179, -16))")
    assert found == ["east", "west"]


def test_more_parcels_may_meet_a_shape_than_a_statement_binds_values(empty: Settings) -> None:
    # SQLite takes 32,766 values in one statement, PostgreSQL 65,535.
    count = 70_000 if empty.database_url else 40_000
    plant(empty, [Seen("first", at_cosine(1))])
    outline = to_wkb(box(2.0, 49.0, 2.01, 49.01))
    place = {"geometry": outline, "west": 2.0, "south": 49.0, "east": 2.01, "north": 49.01}
    rows = [
        {"collection_id": 1, "parcel_id": f"{n}", "attributes": {}, **place} for n in range(count)
    ]
    with connected(empty) as connection:
        connection.execute(insert(Parcel), rows)
        found = fitting(connection, "s_intersects(geometry, POLYGON((0 48, 9 48, 0 57, 0 48)))")
    assert len(found) == count + 1


def test_the_largest_filters_that_are_read_are_answered(planted: Connection) -> None:
    flat = call("or", *(call("=", named("y"), n) for n in range(MAX_CONDITIONS)))
    assert fitting(planted, flat) == []
    deep: Any = call("=", named("id"), "a")
    for level in range(MAX_DEPTH):
        deep = call("and" if level % 2 else "or", deep, call("=", named("x"), "a"))
    assert fitting(planted, deep) == fitting(planted, "x = 'a'")
    negated: Any = call("=", named("id"), "a")
    for _ in range(MAX_DEPTH // 2):
        negated = call("not", call("or", negated, call("isNull", named("id"))))
    assert fitting(planted, negated) == ["a"]
    listed = call("in", named("x"), [str(n) for n in range(9000)])
    assert fitting(planted, listed) == ["a"]
    caseless = [call("casei", f"{n:0>100}") for n in range(MAX_CONDITIONS)]
    assert fitting(planted, call("in", call("casei", named("x")), caseless)) == []
    for pattern in ("%a" * 500, "%_" * 400 + "x", "[" * 1000):
        assert fitting(planted, call("like", named("x"), pattern)) == []


def test_text_of_strangers_is_a_value_and_nothing_else(planted: Connection) -> None:
    for text in (
        "' OR 1=1 --",
        "\\",
        "%s",
        ":id",
        "?",
        '"; DROP TABLE parcels',
        "$1",
        "{}",
        "\ue000",
    ):
        assert fitting(planted, call("=", named("id"), text)) == []
        assert fitting(planted, call("isNull", named(text))) == sorted(PARCELS)
        assert fitting(planted, call("=", call("casei", named(text)), call("casei", text))) == []


# In a search ---------------------------------------------------------------------------------


def test_each_observation_of_a_search_is_held_against_the_filter(empty: Settings) -> None:
    green, brown = {"NDVI": 0.8}, {"NDVI": 0.2}
    plant(
        empty,
        [
            Seen("a", at_cosine(1), indices=green),
            Seen("b", at_cosine(0.9), indices=brown),
            Seen("b", at_cosine(0.8), day="2023-08-12", indices=green),
            Seen("c", at_cosine(0.7), indices=brown),
        ],
    )
    where = ParcelFilter(expression=Expression.parse("NDVI > 0.5"))
    with searching(empty) as searcher:
        matches = searcher.similar_by_id("a", where=where)
    assert [(one.parcel_id, one.scene) for one in matches.matches] == [("b", "scene-2023-08-12")]
    assert matches.query["filter"] == {"filter": "NDVI > 0.5"}


def test_a_filter_names_the_unknown_property(catalog: Settings) -> None:
    where = ParcelFilter(expression=Expression.parse("x = 1 AND crop_name = 'maize'"))
    with searching(catalog) as searcher, pytest.raises(InvalidInputError) as caught:
        searcher.similar_by_vector(at_cosine(1), where=where)
    assert caught.value.kind == "unknown-property"
    assert caught.value.message.startswith(
        'Property "crop_name" is unknown; there are id, collection, crop:code, crop:name, '
    )
    assert caught.value.message.endswith(
        'of attributes there are "name with \\"quotes\\" and \'more\'", "x", "y".'
    )
