"""Text and JSON are one language: what is allowed, refused, equal."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import InvalidInputError
from retriever.cql2.checking import MAX_NODES
from retriever.cql2.expression import MAX_JSON, Expression
from retriever.queries import ParcelFilter
from tests.retriever.cql2.strategies import call, casei, expressions, named

AREA, CODE, WHEN, PLACE = map(named, ("metrics:area", "crop:code", "datetime", "geometry"))
DATE = {"date": "2023-05-29"}
INTERVAL = {"interval": ["2023-05-01", ".."]}
BOX = {"bbox": [2, 48, 3, 49]}


@given(expressions())
def test_an_expression_reads_the_same_from_its_text_and_from_json(tree: Any) -> None:  # noqa: ANN401
    expression = Expression.from_json(tree)
    assert Expression.parse(expression.text) == expression
    assert Expression.parse_json(json.dumps(tree)) == expression
    assert Expression.read(json.dumps(tree), "cql2-json") == expression
    assert hash(Expression.parse(expression.text)) == hash(expression)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("((id = 'a'))", "id = 'a'"),
        ("not (not (id='a'))", "id = 'a'"),
        ("(id='a' and id='b') and id='c'", "id = 'a' AND id = 'b' AND id = 'c'"),
        ("id='a' and (id='b' or id='c')", "id = 'a' AND (id = 'b' OR id = 'c')"),
        ("not (id='a' or id='b')", "NOT (id = 'a' OR id = 'b')"),
        ("'BTH' = crop:code", "crop:code = 'BTH'"),
        ("5 < metrics:area", "metrics:area > 5"),
        ("id not in ('a','a','O''B')", "NOT id IN ('a', 'O''B')"),
        ('"soil type" is null', '"soil type" IS NULL'),
        ("NDVI between 0.3 and 0.6", "NDVI >= 0.3 AND NDVI <= 0.6"),
        ("reliable=true", "reliable = TRUE"),
        ("casei(id) like casei('A%')", "casei(id) LIKE casei('A%')"),
        (
            "s_intersects(geometry,bbox(2,48,3,49))",
            "s_intersects(geometry, BBOX(2.0, 48.0, 3.0, 49.0))",
        ),
        ("s_intersects(geometry,point(0.1 49))", "s_intersects(geometry, POINT (0.1 49))"),
        ("t_after(datetime,DATE('2023-05-29'))", "t_after(datetime, DATE('2023-05-29'))"),
    ],
)
def test_an_expression_is_written_in_one_way(text: str, written: str) -> None:
    assert Expression.parse(text).text == written


def test_expressions_of_numbers_and_truth_values_differ() -> None:
    # In Python, 1 equals True.
    assert Expression.parse("x = 1") != Expression.parse("x = TRUE")
    assert Expression.parse("x = '1'") != Expression.parse("x = 1")


def test_an_expression_names_properties_and_attributes_once() -> None:
    expression = Expression.parse("farm = 1 AND NOT (NDVI > 0 OR farm = 2) AND soil IS NULL")
    assert expression.names == ("farm", "NDVI", "soil")
    assert expression.attributes == ("farm", "soil")


def test_a_filter_tells_its_expression_as_text() -> None:
    where = ParcelFilter(expression=Expression.from_json(call("=", named("id"), "a")))
    assert not where.is_empty
    assert where.to_dict() == {"filter": "id = 'a'"}
    assert where == ParcelFilter(expression=Expression.parse("id='a'"))


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        (None, "found null where a condition should stand"),
        (1, "found 1 where a condition should stand"),
        ("x", 'found "x" where a condition should stand'),
        ([], "found a list where a condition should stand"),
        ({}, "found an object where a condition should stand"),
        (named("reliable"), '"reliable" alone is no condition; compare it with a value'),
        ({"op": "="}, 'operator "=": write {"op": ..., "args": [...]}'),
        ({"op": "=", "args": [CODE, "x"], "more": 1}, 'operator "=": write'),
        (call("=", CODE), 'operator "=" has 1 arguments; it takes 2'),
        (call("and"), 'operator "and" joins nothing'),
        (call("accenti", CODE), '"accenti" is no function or operator that there is'),
        (call("s_within", PLACE, BOX), '"s_within" is no function or operator that there is'),
        (call("=", call("lower", CODE), "x"), '"lower" is no function or operator'),
        (call("=", call("+", AREA, 1), 2), "arithmetic (+) is not supported"),
        (call("casei", CODE), "casei(...) is text, no condition"),
        (call("=", CODE, None), "found null where a property or a value should stand"),
        (call("=", CODE, ["x"]), "found a list where a property or a value should stand"),
        (call("=", CODE, call("=", CODE, "x")), 'found operator "=" where a property or a value'),
        (call("=", CODE, named("id")), 'operator "=" compares a property with a value'),
        (call("=", 1, 1), 'operator "=" compares a property with a value'),
        (call("=", CODE, 1), '"crop:code" is text, written in single quotes; found 1.'),
        (call("=", AREA, "1"), '"metrics:area" is a number; found "1".'),
        (call("in", AREA, [1, "x"]), '"metrics:area" is a number; found "x".'),
        (call("=", named("reliable"), 1), '"reliable" is TRUE or FALSE; found 1.'),
        (call("=", WHEN, "2023"), '"datetime" is a time; compare it with DATE('),
        (call("=", PLACE, "x"), '"geometry" is a geometry; use s_intersects('),
        (call("=", AREA, DATE), '"metrics:area" is a number.'),
        (call("<", named("sown"), DATE), "attributes hold dates as text, so write sown >= '"),
        (call("=", WHEN, INTERVAL), "with an INTERVAL use t_intersects(datetime, ...)"),
        (call("=", casei(CODE), "x"), "write casei(...) on both sides, or on none"),
        (call("=", CODE, casei("x")), "write casei(...) on both sides, or on none"),
        (call("<", casei(CODE), casei("x")), "casei(...) has no order"),
        (call("=", casei(casei(CODE)), casei("x")), "casei(...) takes one property or one text"),
        (call("=", casei(CODE), casei("x" * 1001)), "has 1001 characters; at most 1000"),
        (call("like", CODE, 1), "LIKE holds a property against a pattern"),
        (call("like", AREA, "x"), '"metrics:area" is a number; found "x".'),
        (call("like", CODE, "x\\"), "ends with a \\ that escapes nothing"),
        (call("like", CODE, "x" * 1001), "has 1001 characters; at most 1000"),
        (call("between", 1, AREA, 2), "BETWEEN holds a property between two values"),
        (call("in", CODE, []), "IN looks for a property in a list of values"),
        (call("in", CODE, "x"), "IN looks for a property in a list of values"),
        (call("in", WHEN, [DATE]), "IN takes a list of text, numbers, TRUE and FALSE"),
        (call("isNull", 1), "IS NULL asks whether a property is missing"),
        (call("t_after", DATE, WHEN), "t_after takes datetime and a DATE, TIMESTAMP or INTERVAL"),
        (call("t_after", WHEN, "2023-05-29"), "t_after(datetime, DATE('2023-05-29'))"),
        (call("t_during", WHEN, DATE), "write t_during(datetime, INTERVAL('"),
        (call("t_equals", WHEN, INTERVAL), "write t_equals(datetime, TIMESTAMP('"),
        (call("t_after", WHEN, {"date": "2023-02-30"}), 'DATE: found "2023-02-30"; write a date'),
        (call("t_after", WHEN, {"date": "2023-5-1"}), 'DATE: found "2023-5-1"'),
        (call("t_after", WHEN, {"date": "9999-12-31"}), 'DATE: found "9999-12-31"'),
        (call("t_after", WHEN, {"date": 2023}), "DATE: found no text"),
        (
            call("t_after", WHEN, {"timestamp": "2023-05-29T10:30:00"}),
            "write a time with its zone as 2023-05-29T10:30:00Z",
        ),
        (call("t_during", WHEN, {"interval": ["2023"]}), "INTERVAL takes a start and an end"),
        (
            call("t_during", WHEN, {"interval": ["2023-06-01", "2023-05-01"]}),
            'INTERVAL("2023-06-01", "2023-05-01") ends before it starts',
        ),
        (
            call("s_intersects", BOX, PLACE),
            "s_intersects takes geometry and a shape, in this order",
        ),
        (call("s_intersects", CODE, BOX), '"crop:code" is no geometry; the parcel\'s is geometry'),
        (call("s_intersects", PLACE, {"bbox": [2, 49, 3, 48]}), "BBOX takes west, south, east"),
        (call("s_intersects", PLACE, {"bbox": [2, 48, 300, 49]}), "BBOX takes west, south, east"),
        (call("s_intersects", PLACE, {"bbox": [2, 48, "3", 49]}), "BBOX takes west, south, east"),
        (call("s_intersects", PLACE, {"bbox": [2, 48]}), "BBOX takes west, south, east"),
        (call("s_intersects", PLACE, {"type": "Circle"}), '"Circle" is no geometry; write BBOX or'),
        (
            call("s_intersects", PLACE, {"type": "Point", "coordinates": [49, 200]}),
            "position 49 200 is not on Earth; write longitude before latitude",
        ),
        (
            call("s_intersects", PLACE, {"type": "Point", "coordinates": ["a", "b"]}),
            "the coordinates of POINT cannot be read",
        ),
        (
            call("s_intersects", PLACE, {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}),
            "the coordinates of POLYGON cannot be read",
        ),
        (
            call(
                "s_intersects",
                PLACE,
                {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]},
            ),
            "the POLYGON is not valid: Self-intersection",
        ),
        (
            call("or", *[call("s_intersects", PLACE, BOX)] * 6),
            "it has more than the 5 shapes that are read",
        ),
        (call("=", CODE, "a\0b"), "null characters are not allowed"),
        (call("=", named("a\0b"), "x"), "null characters are not allowed"),
        (call("=", CODE, "\ud800"), "half of a surrogate pair is no character"),
        (call("=", AREA, float("nan")), "write finite ones"),
        (call("=", AREA, float("-inf")), "write finite ones"),
        (call("=", AREA, 10**400), "write finite ones"),
        (call("=", CODE, b"x"), '"bytes" is no type of JSON'),
        (call("in", CODE, ["x"] * MAX_NODES), "it has more than the 10000 values that are read"),
    ],
)
def test_what_is_not_allowed_is_refused_in_words(tree: Any, complaint: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidInputError) as caught:
        Expression.from_json(tree)
    assert caught.value.kind == "invalid-filter"
    assert complaint in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


def test_deep_json_is_refused() -> None:
    nested: Any = True
    for _ in range(100_000):
        nested = call("not", nested)
    with pytest.raises(InvalidInputError, match="nested deeper than 50 levels"):
        Expression.from_json(nested)
    alternating: Any = call("=", CODE, "x")
    for level in range(22):
        alternating = call("and" if level % 2 else "or", alternating, call("=", CODE, "y"))
    with pytest.raises(InvalidInputError, match="alternate more than 20 times"):
        Expression.from_json(alternating)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["op", "args", "property", "bbox", "type"]), inner)
        | st.builds(
            lambda op, args: {"op": op, "args": args},
            st.sampled_from(["=", "and", "not", "in", "like", "casei", "t_after", "s_intersects"]),
            st.lists(inner, max_size=3),
        )
    ),
)


@given(_JSON)
def test_any_json_is_read_or_refused(tree: Any) -> None:  # noqa: ANN401
    try:
        found = Expression.from_json(tree)
    except InvalidInputError as error:
        fine = error.kind == "invalid-filter" and error.message.isprintable()
    else:
        fine = Expression.parse(found.text) == found
    assert fine


@pytest.mark.parametrize(
    ("written", "language", "complaint"),
    [
        ("{", "cql2-json", "it is no JSON at character 2"),
        ("id = 'a'", "cql2-json", "it is no JSON at character 1; text goes with filter-lang=cql2-"),
        ("9" * 5000, "cql2-json", "it is no JSON"),
        (" " * (MAX_JSON + 1), "cql2-json", "characters, more than the"),
        ("[" * 200_000, "cql2-json", "it is nested too deeply"),
        ('{"op":"=","args":[{"property":"id"},NaN]}', "cql2-json", "write finite ones"),
        ({"op": "not", "args": [True]}, "cql2-text", "it is JSON, no text"),
        ("id = 'a'", "ecql", 'language "ecql" is unknown; write cql2-text or cql2-json'),
    ],
)
def test_what_is_not_in_its_language_is_refused(
    written: Any,  # noqa: ANN401
    language: str,
    complaint: str,
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Expression.read(written, language)
    assert complaint in caught.value.message
    assert caught.value.kind == "invalid-filter"
