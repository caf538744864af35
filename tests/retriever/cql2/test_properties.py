"""What may be named, and its types."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from indexer.catalog.database import connect
from indexer.settings import Settings
from indexer.spectral_indices import INDICES
from retriever.cql2.properties import PROPERTIES, attribute_queryables, fixed_queryables
from tests.retriever.cql2.asking import fitting
from tests.retriever.planted import Seen, at_cosine, plant


@pytest.fixture(scope="module")
def connection(shared: Settings) -> Iterator[Connection]:
    plant(
        shared,
        [
            Seen("a", at_cosine(1), attributes={"farm": "17", "slope": 2, "mixed": "x"}),
            Seen("b", at_cosine(1), attributes={"organic": True, "slope": 2.5, "mixed": 1}),
            Seen("c", at_cosine(1), attributes={"organic": False, "NDVI": "as told", "id": "x"}),
            Seen("d", at_cosine(1), collection="other", attributes={"owner": "Martin"}),
        ],
    )
    engine = connect(shared)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_attributes_have_the_types_of_all_of_their_values(connection: Connection) -> None:
    found = attribute_queryables(connection, ())
    assert [(one.name, one.type) for one in found] == [
        ("farm", "string"),
        ("mixed", None),
        ("organic", "boolean"),
        ("owner", "string"),
        ("slope", "number"),
    ]


def test_attributes_of_other_collections_are_left_out(connection: Connection) -> None:
    assert [one.name for one in attribute_queryables(connection, ("other",))] == ["owner"]
    assert attribute_queryables(connection, ("nowhere",)) == []


def test_a_fixed_property_wins_over_an_attribute_of_its_name(connection: Connection) -> None:
    assert fitting(connection, "NDVI > 0.5") == ["a", "b", "c", "d"]
    assert fitting(connection, "id = 'x'") == []


def test_every_spectral_index_may_be_named() -> None:
    assert INDICES.keys() <= PROPERTIES.keys()
    assert [one.name for one in fixed_queryables()] == list(PROPERTIES)


def test_a_property_is_described_in_json_schema() -> None:
    described = {one.name: one.to_json_schema() for one in fixed_queryables()}
    assert described["metrics:area"] == {
        "title": "Area",
        "description": "Area of the parcel in square meters.",
        "type": "number",
    }
    assert described["datetime"]["type"] == "string"
    assert described["datetime"]["format"] == "date-time"
    assert described["geometry"]["format"] == "geometry-any"
    assert "type" not in described["geometry"]
    assert described["reliable"]["type"] == "boolean"
    assert all(one["title"] and one["description"] for one in described.values())
