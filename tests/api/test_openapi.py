"""The OpenAPI document as the generators, GDAL and QGIS of this world read it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openapi_spec_validator import OpenAPIV30SpecValidator

from api.app import create_app
from api.openapi import as_openapi_3_0
from indexer.settings import Settings
from tests.api.row_of_parcels import plant_row
from tests.api.test_app import api_settings, in_folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return plant_row(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def client(index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings(index))) as client:
        yield client


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    response = client.get("/api")
    assert response.headers["content-type"] == "application/vnd.oai.openapi+json;version=3.0"
    found: dict[str, Any] = response.json()
    return found


def test_the_document_is_openapi_3_0(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.0.3"
    OpenAPIV30SpecValidator(document).validate()


def test_each_collection_has_its_own_path_with_its_properties(document: dict[str, Any]) -> None:
    own = {
        parameter["name"]: parameter
        for parameter in document["paths"]["/collections/demo/items"]["get"]["parameters"]
    }
    assert {"crop:name", "farm", "organic", "NDVI", "id", "collection", "limit", "bbox"} <= set(own)
    assert own["farm"]["schema"] == {"type": "number"}
    assert own["organic"]["schema"] == {"type": "boolean"}
    assert [one for one in own.values() if one["in"] != "query"] == []
    elsewhere = document["paths"]["/collections/z%C3%BCrich/items"]["get"]["parameters"]
    assert "farm" not in {parameter["name"] for parameter in elsewhere}


def test_every_property_parameter_is_answered(client: TestClient, document: dict[str, Any]) -> None:
    values = {"string": "x", "number": "1", "boolean": "true"}
    asked: dict[str, str] = {}
    for parameter in document["paths"]["/collections/demo/items"]["get"]["parameters"]:
        if "example" not in parameter["schema"]:
            name = parameter["name"]
            asked[name] = values[parameter["schema"]["type"]]
            response = client.get("/collections/demo/items", params={name: asked[name]})
            assert response.status_code == 200, name
    assert {"crop:name", "metrics:area", "NDVI", "farm", "organic", "id"} <= set(asked)


def test_without_an_index_the_document_is_there_all_the_same(tmp_path: Path) -> None:
    with TestClient(create_app(in_folder(tmp_path))) as client:
        paths = client.get("/api").json()["paths"]
    assert "/collections/{collection}/items" in paths
    assert "/collections/demo/items" not in paths


def test_keys_are_named_where_they_are_asked_for(index: Settings, document: dict[str, Any]) -> None:
    assert "securitySchemes" not in document["components"]
    assert "security" not in document["paths"]["/collections"]["get"]
    with TestClient(create_app(api_settings(index, keys="secret"))) as client:
        locked = client.get("/api", headers={"X-API-Key": "secret"}).json()
    assert locked["paths"]["/collections"]["get"]["security"]
    schemes = locked["components"]["securitySchemes"]
    told = " ".join(scheme["description"] for scheme in schemes.values())
    assert "`read` asks, `write` asks and changes" in told
    changing = locked["paths"]["/clusters/{number}/name"]
    assert {"401", "403"} <= set(changing["put"]["responses"])
    assert "`write`" in changing["delete"]["description"]
    assert "403" not in locked["paths"]["/collections"]["get"]["responses"]


def test_the_words_of_openapi_3_1_are_translated() -> None:
    newer = {
        "openapi": "3.1.0",
        "components": {
            "schemas": {
                "one": {"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]},
                "several": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]},
                "listed": {"type": ["object", "null"]},
                "fixed": {"const": "Feature"},
                "shown": {"type": "integer", "examples": [5, 6]},
                "open": {"type": "number", "exclusiveMinimum": 0},
                "file": {"type": "string", "contentMediaType": "application/octet-stream"},
                "named": {"properties": {"const": {"const": 1}, "examples": {"type": "array"}}},
            }
        },
    }
    assert as_openapi_3_0(newer)["components"]["schemas"] == {
        "one": {"type": "string", "minLength": 1, "nullable": True},
        "several": {"anyOf": [{"type": "string"}, {"type": "number"}], "nullable": True},
        "listed": {"type": "object", "nullable": True},
        "fixed": {"enum": ["Feature"]},
        "shown": {"type": "integer", "example": 5},
        "open": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
        "file": {"type": "string", "format": "binary"},
        "named": {"properties": {"const": {"enum": [1]}, "examples": {"type": "array"}}},
    }
