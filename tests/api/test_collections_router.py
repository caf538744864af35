"""OGC API - Features as its clients use it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from api.app import create_app
from api.routers.collections import CONFORMS_TO
from indexer.settings import Settings
from tests.api.row_of_parcels import PARCELS, SIDE, link, plant_row
from tests.api.test_app import api_settings
from tests.retriever.planted import Seen, at_cosine, plant, settings_in


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return plant_row(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def client(index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings(index))) as client:
        yield client


def test_the_service_names_the_classes_that_it_conforms_to(client: TestClient) -> None:
    assert client.get("/conformance").json() == {"conformsTo": list(CONFORMS_TO)}
    # QGIS filters on the server only where these four stand together.
    assert {
        "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter",
        "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter",
        "http://www.opengis.net/spec/cql2/1.0/conf/basic-cql2",
        "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text",
    } <= set(CONFORMS_TO)


def test_queryables_describe_what_a_filter_may_name(client: TestClient) -> None:
    response = client.get("/collections/demo/queryables")
    assert response.headers["content-type"] == "application/schema+json"
    schema = response.json()
    Draft202012Validator.check_schema(schema)
    properties = schema["properties"]
    assert properties["farm"]["type"] == "number"
    assert properties["organic"]["type"] == "boolean"
    assert properties["name"]["type"] == "string"
    assert properties["geometry"]["format"] == "geometry-any"
    assert properties["datetime"]["format"] == "date-time"
    assert "square meters" in properties["metrics:area"]["description"]
    # What is shown can be asked for.
    feature = client.get("/collections/demo/items/p001").json()
    assert set(feature["properties"]) <= set(properties)
    # Attributes are a collection's own.
    elsewhere = client.get("/collections/zürich/queryables").json()["properties"]
    assert "farm" not in elsewhere
    assert "NDVI" in elsewhere


def test_collections_are_listed_with_where_and_when_they_are(client: TestClient) -> None:
    demo, nowhere = client.get("/collections").json()["collections"]
    assert demo["id"] == "demo"
    assert demo["itemType"] == "feature"
    assert demo["description"] == "Agricultural parcels: 150"
    (bbox,) = demo["extent"]["spatial"]["bbox"]
    assert bbox == pytest.approx([2.0, 49.0, 2 + 2 * SIDE * (PARCELS - 1) + SIDE, 49.0 + SIDE])
    assert demo["extent"]["spatial"]["crs"].endswith("CRS84")
    assert demo["extent"]["temporal"]["interval"] == [
        ["2023-04-24T10:50:31Z", "2023-05-29T10:50:31Z"]
    ]
    assert nowhere["id"] == "zürich"
    assert "extent" not in nowhere


def test_a_publication_brings_collections_up_to_date(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen("a", at_cosine(1))])
    with TestClient(create_app(api_settings(chosen))) as client:
        (demo,) = client.get("/collections").json()["collections"]
        assert demo["description"] == "Agricultural parcels: 1"
        plant(chosen, [Seen("b", at_cosine(1), day="2023-08-12"), Seen("c", at_cosine(1))])
        demo = client.get("/collections/demo").json()
        assert demo["description"] == "Agricultural parcels: 3"
        assert demo["extent"]["temporal"]["interval"][0][1] == "2023-08-12T10:50:31Z"
        plant(chosen, [Seen("d", at_cosine(1), collection="new")], publish=False)
        names = [found["id"] for found in client.get("/collections").json()["collections"]]
        assert names == ["demo", "new"]


def test_every_link_of_a_collection_leads_to_what_it_says(client: TestClient) -> None:
    for found in client.get("/collections").json()["collections"]:
        for one in found["links"]:
            response = client.get(one["href"])
            assert response.status_code == 200, one
            assert response.headers["content-type"] == one["type"]
        assert client.get(link(found, "self") or "").json() == found


def test_an_unknown_collection_is_named_with_those_that_there_are(client: TestClient) -> None:
    for path in ("/collections/demos", "/collections/demos/items"):
        response = client.get(path)
        assert response.status_code == 404
        assert response.json()["kind"] == "collection-not-found"
        assert '"demo"' in response.json()["detail"]


def test_keys_are_asked_for(index: Settings) -> None:
    with TestClient(create_app(api_settings(index, keys="secret"))) as client:
        for path in (
            "/conformance",
            "/collections",
            "/collections/demo",
            "/collections/demo/items",
            "/collections/demo/queryables",
        ):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"X-API-Key": "secret"}).status_code == 200
