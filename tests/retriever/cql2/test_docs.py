"""``docs/filters.md`` says what runs."""

import json
import re
from pathlib import Path

import pytest

from indexer.settings import Settings
from retriever.cql2.checking import MAX_CONDITIONS, MAX_NODES, MAX_SHAPES
from retriever.cql2.expression import MAX_JSON, Expression
from retriever.cql2.parsing import FUNCTIONS, GEOMETRIES, MAX_NESTING, MAX_TEXT
from retriever.cql2.patterns import MAX_PATTERN
from retriever.cql2.properties import PROPERTIES
from retriever.queries import ParcelFilter
from retriever.tools.arguments import MAX_FILTER
from tests.retriever.planted import Seen, at_cosine, plant, searching

PAGE = (Path(__file__).parents[3] / "docs" / "filters.md").read_text()

EXAMPLES = re.findall(r"```cql2\n(.*?)```", PAGE, flags=re.DOTALL)

JSON = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_example_runs_in_a_search(empty: Settings) -> None:
    plant(empty, [Seen("a", at_cosine(1), attributes={"farm": "17", "soil": "clay"})])
    read = [Expression.parse(example) for example in EXAMPLES]
    read += [Expression.parse_json(example) for example in JSON]
    assert len(read) > 12
    with searching(empty) as searcher:
        for expression in read:
            searcher.similar_by_vector(at_cosine(1), where=ParcelFilter(expression=expression))


def test_every_property_function_and_shape_is_named() -> None:
    for name in (*PROPERTIES, *FUNCTIONS):
        assert f"`{name}" in PAGE, name
    for name in GEOMETRIES:
        assert name.removeprefix("MULTI") in PAGE, name


BOUNDS = (
    *(MAX_TEXT, MAX_NESTING, MAX_CONDITIONS, MAX_SHAPES, MAX_PATTERN, MAX_FILTER),
    *(f"{MAX_JSON:,}", f"{MAX_NODES:,}"),
)


@pytest.mark.parametrize("number", BOUNDS)
def test_every_bound_is_told(number: object) -> None:
    assert re.search(rf"\b{number}\b", PAGE)


def test_what_is_said_to_be_refused_is() -> None:
    read = json.loads(JSON[0])
    assert {one["op"] for one in read["args"]} == {"like", "in", "t_after", "s_intersects"}
    assert Expression.parse("id != 'a'") == Expression.parse("id <> 'a'")
