"""CQL2 text becomes the JSON that the standard gives for it, and no text stops the process."""

import json
import subprocess
import sys
import time
from typing import Any

import cql2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import InvalidInputError
from retriever.cql2.expression import Expression
from retriever.cql2.parsing import FUNCTIONS, MAX_NESTING, MAX_TEXT, parse
from tests.retriever.cql2.strategies import call, casei, expressions, named

A = named("a")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a = 1", call("=", A, 1)),
        ("a <> -1.5e2", call("<>", A, -150.0)),
        ("a != .5", call("<>", A, 0.5)),
        ("a>=+1.", call(">=", A, 1.0)),
        ("a = 9007199254740993", call("=", A, 9007199254740993)),
        ("'x' = a", call("=", "x", A)),
        ("a = 'O''Brien'", call("=", A, "O'Brien")),
        ("a = ''", call("=", A, "")),
        ("a = TRUE", call("=", A, True)),
        ("crop:code = 'BTH'", call("=", named("crop:code"), "BTH")),
        ('"crop code" = 1', call("=", named("crop code"), 1)),
        ('"a""b" = 1', call("=", named('a"b'), 1)),
        ('"and" = 1', call("=", named("and"), 1)),
        ("café = 1", call("=", named("café"), 1)),
        ("date = 1", call("=", named("date"), 1)),
        ("a IS NULL", call("isNull", A)),
        ("a is not null", call("not", call("isNull", A))),
        ("a LIKE 'x%'", call("like", A, "x%")),
        ("a NOT LIKE 'x%'", call("not", call("like", A, "x%"))),
        ("a BETWEEN 1 AND 2 AND TRUE", call("and", call("between", A, 1, 2), True)),
        ("a NOT BETWEEN 1 AND 2", call("not", call("between", A, 1, 2))),
        ("a IN (1, 'x')", call("in", A, [1, "x"])),
        ("a NOT IN (1)", call("not", call("in", A, [1]))),
        ("CASEI(a) = casei('X')", call("=", casei(A), casei("X"))),
        ("NOT TRUE", call("not", True)),
        ("not not TRUE", True),
        ("((TRUE))", True),
        ("(a) = (1)", call("=", A, 1)),
        ("TRUE OR FALSE AND TRUE", call("or", True, call("and", False, True))),
        ("(TRUE OR FALSE) AND TRUE", call("and", call("or", True, False), True)),
        ("NOT TRUE AND FALSE", call("and", call("not", True), False)),
        ("a = DATE('2023-05-29')", call("=", A, {"date": "2023-05-29"})),
        (
            "T_During(a,INTERVAL ( '2023-05-29' , '..' ))",
            call("t_during", A, {"interval": ["2023-05-29", ".."]}),
        ),
        ("s_intersects(a, BBOX(1,-2,3,4))", call("s_intersects", A, {"bbox": [1, -2, 3, 4]})),
        (
            "s_intersects(a, Point(1 2))",
            call("s_intersects", A, {"type": "Point", "coordinates": [1, 2]}),
        ),
        (
            "s_intersects(a, POINT Z (1 2 3))",
            call("s_intersects", A, {"type": "Point", "coordinates": [1, 2, 3]}),
        ),
        (
            "s_intersects(a, MULTIPOINT(1 2, (3 4)))",
            call("s_intersects", A, {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}),
        ),
        (
            "s_intersects(a, POLYGON((0 0, 1 0, 1 1, 0 0)))",
            call(
                "s_intersects",
                A,
                {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
            ),
        ),
        (
            "s_intersects(a, MULTIPOLYGON(((0 0, 1 0, 1 1, 0 0))))",
            call(
                "s_intersects",
                A,
                {"type": "MultiPolygon", "coordinates": [[[[0, 0], [1, 0], [1, 1], [0, 0]]]]},
            ),
        ),
        (
            "s_intersects(a, GEOMETRYCOLLECTION(POINT(1 2), LINESTRING(1 2, 3 4)))",
            call(
                "s_intersects",
                A,
                {
                    "type": "GeometryCollection",
                    "geometries": [
                        {"type": "Point", "coordinates": [1, 2]},
                        {"type": "LineString", "coordinates": [[1, 2], [3, 4]]},
                    ],
                },
            ),
        ),
    ],
)
def test_text_becomes_the_json_of_the_same_expression(text: str, tree: Any) -> None:  # noqa: ANN401
    assert parse(text) == tree
    # 1 and True are equal in Python.
    assert json.dumps(parse(text)) == json.dumps(tree)


@settings(max_examples=300)
@given(expressions())
def test_the_same_text_means_the_same_to_another_parser(tree: Any) -> None:  # noqa: ANN401
    text = str(Expression.from_json(tree))
    theirs = cql2.parse_text(text).to_json()
    assert _as_floats(theirs) == _as_floats(parse(text))


def _as_floats(tree: Any) -> Any:  # noqa: ANN401
    """A tree whose numbers are floats and whose times are in UTC, as the other parser has them."""
    if isinstance(tree, dict):
        return {name: _as_floats(one) for name, one in tree.items()}
    if isinstance(tree, list):
        return [_as_floats(one) for one in tree]
    if isinstance(tree, int) and not isinstance(tree, bool):
        return float(tree)
    # The other parser shifts times to UTC.
    return "2023-06-01T00:00:00Z" if tree == "2023-06-01T02:00:00+02:00" else tree


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "at character 1 found the end, expected a property, a value or a function"),
        ("a =", "at character 4 found the end, expected a property, a value or a function"),
        ("a == 1", 'at character 4 found "=", expected a property, a value or a function'),
        ("a = 1 = 2", 'at character 7 found "=", expected AND, OR or the end'),
        ("(a = 1", 'at character 7 found the end, expected ")"'),
        ("a = 1)", 'at character 6 found ")", expected AND, OR or the end'),
        ("a = 1 b = 2", 'at character 7 found "b", expected AND, OR or the end'),
        ("a IS 1", 'at character 6 found "1", expected NULL or NOT NULL'),
        ("a NOT 1", 'at character 7 found "1", expected LIKE, BETWEEN or IN'),
        ("a BETWEEN 1 OR 2", 'at character 13 found "OR", expected AND'),
        ("a IN 1", 'at character 6 found "1", expected "("'),
        ("a IN ()", 'at character 7 found ")", expected a property'),
        ("a = NULL", "at character 5 found NULL; write IS NULL or IS NOT NULL"),
        ("a = 'x", "at character 5 a quotation begins that does not end"),
        ('"a = 1', "at character 1 a quotation begins that does not end"),
        ("a = 'O\\'Brien'", "A ' within text is written ''."),
        ("a = \u201cx\u201d", 'at character 5 "\u201c" has no meaning in CQL2'),
        ("a = 1 # x", 'at character 7 "#" has no meaning in CQL2'),
        ("a + 1 = 2", "at character 3 arithmetic (+) is not supported"),
        ("a = 1 * 2", "at character 7 arithmetic (*) is not supported"),
        ("a = -b", "at character 5 arithmetic (-) is not supported"),
        ("a DIV 2 = 1", "at character 3 arithmetic (DIV) is not supported"),
        ("crop-code = 'x'", "stand in double quotes"),
        ("upper(a) = 'X'", 'at character 1 "upper" is no function or operator that there is'),
        ("accenti(a) = 'x'", '"accenti" is no function or operator that there is; there are casei'),
        ("s_within(a, BBOX(1,2,3,4))", '"s_within" is no function or operator that there is'),
        ("DATE(2023) = a", 'at character 6 found "2023", expected text in single quotes'),
        ("s_intersects(a, POINT EMPTY)", "an empty geometry intersects nothing"),
        ("s_intersects(a, POINT(1, 2))", 'at character 24 found ",", expected ")"'),
        ("s_intersects(a, GEOMETRYCOLLECTION(x(1 2)))", "expected a geometry (POINT, "),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place_and_what_could_stand_there(
    text: str, complaint: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(text)
    assert caught.value.kind == "invalid-filter"
    assert complaint in caught.value.message
    assert caught.value.message.startswith("Filter: ")


def test_an_unknown_function_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse("lower(a) = 'x'")
    assert all(name in caught.value.message for name in FUNCTIONS)


# Hostile text --------------------------------------------------------------------------------

HOSTILE = {
    "parentheses": "(" * 10_000,
    "parentheses that end": "(" * 4000 + "a=1" + ")" * 4000,
    "parentheses below the bound that do not end": "(" * 50 + "a=1",
    "parentheses around an error": "(" * 50 + "a==1" + ")" * 50,
    "lists in lists": "a in " + "(" * 50 + "1" + ",1)" * 50,
    "negations": "NOT " * 2000 + "a=1",
    "negations of parentheses": "NOT (" * 1500 + "a=1" + ")" * 1500,
    "functions": "casei(" * 1300 + "a",
    "signs": "a = " + "-" * 8000 + "1",
    "comparisons": "a" + " = a" * 2000,
    "powers": "a" + "^a" * 4000,
    "alternatives": " OR ".join(["a=1"] * 5000),
    "alternatives below the bound": " OR ".join(["a=1"] * 1000),
    "quotes": "'" * 8001,
    "double quotes": '"' * 8001,
    "a megabyte": "a = '" + "x" * 1_000_000 + "'",
    "a long number": "a = " + "9" * 8000,
    "a number too large": "a = 1e400",
    "collections of geometries": "s_intersects(geometry," + "GEOMETRYCOLLECTION(" * 400,
    "a line of many points": "s_intersects(geometry,LINESTRING(" + "1 2,3 4," * 1000 + "1 2))",
    "null characters": "a = 'x\0y'",
    "half a character": "a = '\ud800'",
    "half a character in a name": '"\ud800" = 1',
    "spaces": " " * 8192,
    "escapes": "a LIKE '" + "\\" * 1001 + "'",
    "wildcards": "a LIKE '" + "%_" * 3000 + "'",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_answered_at_once(name: str) -> None:
    start = time.process_time()
    try:
        Expression.parse(HOSTILE[name])
    except InvalidInputError as error:
        told = error.message
    else:
        told = ""
    assert time.process_time() - start < 0.5
    read = {"a line of many points", "negations"}
    assert (told == "") == (name in read)
    assert told.isprintable()
    assert len(told) < 800


def test_many_alternatives_are_refused_in_words() -> None:
    with pytest.raises(InvalidInputError, match="characters, more than the 8192 that are read"):
        Expression.parse(HOSTILE["alternatives"])
    with pytest.raises(InvalidInputError, match="it has 1000 conditions, more than the 200"):
        Expression.parse(HOSTILE["alternatives below the bound"])


def test_parentheses_up_to_the_bound_are_read() -> None:
    assert parse("(" * MAX_NESTING + "TRUE" + ")" * MAX_NESTING) is True
    with pytest.raises(InvalidInputError, match="nested deeper than 50 levels"):
        parse("(" * (MAX_NESTING + 1) + "TRUE" + ")" * (MAX_NESTING + 1))
    # As GDAL writes a filter of many conditions.
    joined = "a = 1"
    for number in range(MAX_NESTING):
        joined = f"({joined}) AND b{number} = 1"
    assert len(parse(joined)["args"]) == 2


def test_text_up_to_the_bound_is_read() -> None:
    longest = "a IN (" + ",".join(["1"] * 4092) + ")"
    assert len(longest) == MAX_TEXT - 2
    assert len(parse(longest)["args"][1]) == 4092


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    _read_or_refuse(text)


_WORDS = st.sampled_from(
    "( ) ( ) , a 'x' 1 - + = < >= AND OR NOT LIKE BETWEEN IN IS NULL casei( s_intersects( BBOX( "
    "POINT( POLYGON(( INTERVAL( DATE( TRUE \" ' geometry datetime t_after( % \\ .. \0".split(" ")
)


@settings(max_examples=500)
@given(st.lists(_WORDS, max_size=60))
def test_any_words_of_the_language_are_read_or_refused(words: list[str]) -> None:
    _read_or_refuse(" ".join(words))


def _read_or_refuse(text: str) -> None:
    start = time.process_time()
    try:
        expression = Expression.parse(text)
    except InvalidInputError as error:
        # Not by pytest.raises: most of what is made up is refused, some is read.
        told = error.message.isprintable()
    else:
        told = Expression.parse(expression.text) == expression
    assert told
    assert time.process_time() - start < 1


def test_no_hostile_text_ends_the_process() -> None:
    # In a process of its own, whose end would otherwise be that of all tests.
    program = (
        "import json, sys\n"
        "from indexer.errors import InvalidInputError\n"
        "from retriever.cql2.expression import Expression\n"
        "for text in json.load(sys.stdin):\n"
        "    for read in (Expression.parse, Expression.parse_json):\n"
        "        try:\n"
        "            read(text)\n"
        "        except InvalidInputError:\n"
        "            pass\n"
        "print('alive')\n"
    )
    texts = [*HOSTILE.values(), "[" * 100_000, '{"a":' * 40_000, "[" * 100_000 + "]" * 100_000]
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "alive\n"), ran.stderr
