"""Every artifact has the form that its tool declares."""

from typing import Any

import jsonschema
import pytest
from langchain_core.tools import BaseTool

from indexer.settings import Settings
from retriever.search import ParcelSearcher
from retriever.tools import TOOLS
from tests.retriever.planted import searching
from tests.retriever.tools.asking import artifact, tool_of

OUTPUT = {
    tool.name: tool.artifact.model_json_schema(by_alias=True, mode="serialization")
    for tool in TOOLS
}

QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("find_similar_parcels", {"parcel_id": "a"}),
    ("find_similar_parcels", {"parcel_id": "d", "like": ["b"], "unlike": ["c"], "k": 2}),
    ("find_similar_parcels", {"parcel_id": "a", "crops": ["rice"], "datetime": "2023"}),
    ("get_parcel_state", {"parcel_id": "a"}),
    ("get_parcel_state", {"parcel_id": "d"}),
    ("get_parcel_state", {"parcel_id": "e"}),
    ("search_parcels", {}),
    ("search_parcels", {"text": "no such words"}),
    ("search_parcels", {"attributes": {"farm": "17"}, "limit": 1}),
    ("compare_parcels", {"parcel_ids": ["a", "b", "d", "e"]}),
]


@pytest.mark.parametrize(("name", "arguments"), QUESTIONS)
def test_an_artifact_has_the_declared_form(
    searcher: ParcelSearcher, name: str, arguments: dict[str, Any]
) -> None:
    jsonschema.validate(artifact(tool_of(searcher, name), **arguments), OUTPUT[name])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("find_similar_parcels", {"parcel_id": "demo-012"}),
        ("get_parcel_state", {"parcel_id": "demo-012"}),
        ("search_parcels", {}),
        ("compare_parcels", {"parcel_ids": ["demo-001", "demo-012"]}),
    ],
)
def test_an_artifact_of_a_real_index_has_the_declared_form(
    demo_index: Settings, name: str, arguments: dict[str, Any]
) -> None:
    with searching(demo_index) as searcher:
        jsonschema.validate(artifact(tool_of(searcher, name), **arguments), OUTPUT[name])


def test_the_declared_forms_take_nothing_else(similar: BaseTool) -> None:
    for name, schema in OUTPUT.items():
        assert schema["type"] == "object", name
        parts = [schema, *schema.get("$defs", {}).values()]
        assert all(part["additionalProperties"] is False for part in parts if "title" in part)
    found = artifact(similar, parcel_id="a")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**found, "more": 1}, OUTPUT["find_similar_parcels"])
