import asyncio
from typing import Any

import pytest
from langchain_core.tools import BaseTool

from retriever.search import ParcelSearcher
from retriever.toolkit import ParcelToolkit
from retriever.tools import TOOLS, ToolDefinition
from retriever.tools.arguments import DEFAULT_TOOL_K, MAX_TOOL_K
from tests.retriever.tools.asking import refusal

BOUNDS = {
    "find_similar_parcels": ("k", ["parcel_id"]),
    "get_parcel_state": (None, ["parcel_id"]),
    "search_parcels": ("limit", []),
    "compare_parcels": (None, ["parcel_ids"]),
}


@pytest.mark.parametrize("definition", TOOLS, ids=lambda tool: tool.name)
def test_every_argument_is_described_and_nothing_else_is_taken(
    definition: ToolDefinition, searcher: ParcelSearcher
) -> None:
    (asked,) = [
        tool for tool in ParcelToolkit(searcher).get_tools() if tool.name == definition.name
    ]
    schema = asked.get_input_jsonschema()
    assert schema["additionalProperties"] is False
    assert schema.get("required", []) == BOUNDS[definition.name][1]
    assert all(field["description"] for field in schema["properties"].values())
    assert set(asked.args) == set(schema["properties"])
    assert schema["properties"]["response_format"]["enum"] == ["concise", "detailed"]
    assert "At most 500 tokens, detailed 2000." in asked.description


@pytest.mark.parametrize("definition", TOOLS, ids=lambda tool: tool.name)
def test_every_text_and_list_has_a_bound(definition: ToolDefinition) -> None:
    def unbounded(schema: dict[str, Any]) -> bool:
        if "anyOf" in schema:
            return any(map(unbounded, schema["anyOf"]))
        bound = {"string": "maxLength", "array": "maxItems", "object": "maxProperties"}
        kind = schema.get("type", "")
        if "enum" in schema or kind not in bound:
            return False
        parts = [schema[name] for name in ("items", "additionalProperties") if name in schema]
        return bound[kind] not in schema or any(map(unbounded, parts))

    properties = definition.arguments.model_json_schema()["properties"]
    assert not [name for name, schema in properties.items() if unbounded(schema)]


@pytest.mark.parametrize("tool", ["find_similar_parcels", "search_parcels"])
def test_the_model_is_told_the_bounds_of_a_page(tool: str) -> None:
    (definition,) = [one for one in TOOLS if one.name == tool]
    name = BOUNDS[tool][0]
    assert name is not None
    size = definition.arguments.model_json_schema()["properties"][name]
    assert (size["minimum"], size["maximum"], size["default"]) == (1, 50, 10)
    assert (MAX_TOOL_K, DEFAULT_TOOL_K) == (50, 10)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "Argument parcel_id is missing. Id of a stored parcel"),
        ({"parcel_id": ""}, 'Argument parcel_id: found ""; string should have at least 1 char'),
        ({"parcel_id": 17}, "Argument parcel_id: found 17; input should be a valid string"),
        ({"parcel_id": "a" * 301}, "string should have at most 300 characters"),
        ({"parcel_id": "a", "k": 0}, "Argument k: found 0; input should be greater than or equal"),
        ({"parcel_id": "a", "k": 51}, "Argument k: found 51; input should be less than or equal"),
        ({"parcel_id": "a", "k": "many"}, 'Argument k: found "many"; input should be a valid int'),
        ({"parcel_id": "a", "crops": "BTH"}, 'Argument crops: found "BTH"; input should be a val'),
        ({"parcel_id": "a", "crops": [""]}, 'Argument crops: found ""; string should have at le'),
        ({"parcel_id": "a", "crops": ["x"] * 21}, "list should have at most 20 items"),
        ({"parcel_id": "a", "like": ["x"] * 11}, "list should have at most 10 items"),
        ({"parcel_id": "a", "response_format": "long"}, "input should be 'concise' or 'detailed'"),
        (
            {"parcel_id": "a", "crop": ["BTH"]},
            'Argument "crop" is unknown; there are parcel_id, collection, like, unlike, k, crops',
        ),
        ({"parcel_id": "a\0"}, 'Argument parcel_id: found "a"; null characters are not allowed.'),
        ({"parcel_id": "a", "crops": ["a", "b\0"]}, "null characters are not allowed."),
        ({"parcel_id": "a", "\x1b\n" + "x" * 10**6: 1}, 'Argument "xxx'),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_found_and_what_is_allowed(
    similar: BaseTool, arguments: dict[str, Any], complaint: str
) -> None:
    text = refusal(similar, **arguments)
    assert complaint in text
    assert text.endswith("Correct this and call find_similar_parcels again.")
    assert len(text) < 700


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"parcel_ids": ["a"]}, "list should have at least 2 items"),
        ({"parcel_ids": list("abcdef")}, "list should have at most 5 items"),
        ({}, "Argument parcel_ids is missing. Ids of 2 to 5 stored parcels"),
        ({"parcel_ids": ["a", "a"]}, "A parcel was given twice"),
    ],
)
def test_a_comparison_takes_two_to_five_parcels_that_differ(
    compare: BaseTool, arguments: dict[str, Any], complaint: str
) -> None:
    text = refusal(compare, **arguments)
    assert complaint in text
    assert text.endswith("Correct this and call compare_parcels again.")


def test_null_characters_in_names_of_attributes_are_refused(search: BaseTool) -> None:
    for attributes in ({"far\0m": "17"}, {"farm": "1\0"}):
        assert "null characters are not allowed" in refusal(search, attributes=attributes)


def test_every_wrong_argument_is_named_at_once(similar: BaseTool) -> None:
    text = refusal(similar, parcel_id="a", k=0, crops=["x"] * 21)
    assert "Argument k: found 0" in text
    assert "Argument crops: found" in text
    many = refusal(similar, parcel_id="a", **{f"wrong{n}": n for n in range(100)})
    assert len(many) < 1000


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("find_similar_parcels", {"parcel_id": "a"}),
        ("get_parcel_state", {"parcel_id": "a"}),
        ("search_parcels", {"text": "wheat"}),
        ("compare_parcels", {"parcel_ids": ["a", "b"]}),
    ],
)
def test_a_tool_answers_the_same_when_it_is_awaited(
    name: str, arguments: dict[str, Any], searcher: ParcelSearcher
) -> None:
    (asked,) = [tool for tool in ParcelToolkit(searcher).get_tools() if tool.name == name]
    request = {"type": "tool_call", "id": "1", "name": name, "args": arguments}
    awaited = asyncio.run(asked.ainvoke(request))
    assert awaited == asked.invoke(request)
    assert awaited.status == "success"
    refused = asyncio.run(asked.ainvoke({**request, "args": {"wrong": 1}}))
    assert refused.status == "error"
