"""The parcels of a collection, page by page, as OGC API - Features has them."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import shapely
from fastapi.testclient import TestClient
from sqlalchemy import update

from api.app import create_app
from api.links import CRS84
from indexer.catalog.database import open_catalog
from indexer.catalog.tables import Parcel
from indexer.settings import Settings
from tests.api.row_of_parcels import PARCELS, ids, link, plant_row
from tests.api.test_app import api_settings
from tests.retriever.planted import Seen, at_cosine, plant, settings_in


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return plant_row(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def client(index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings(index))) as client:
        yield client


def test_a_page_holds_features_in_order_of_their_ids(client: TestClient) -> None:
    page = client.get("/collections/demo/items").json()
    assert page["type"] == "FeatureCollection"
    assert ids(page) == [f"p{n:03}" for n in range(10)]
    assert page["numberReturned"] == 10
    assert page["features"][1] == {
        key: value
        for key, value in client.get("/collections/demo/items/p001").json().items()
        if key != "links"
    }
    assert page["features"][1]["properties"]["farm"] == 1


@pytest.mark.parametrize("limit", [1, 7, 50, 149, 150, 151, 10**9])
def test_pages_hold_every_parcel_exactly_once(client: TestClient, limit: int) -> None:
    found: list[str] = []
    address: str | None = f"/collections/demo/items?limit={limit}&bbox=0,0,90,90"
    while address is not None:
        page = client.get(address).json()
        assert len(page["features"]) <= limit
        assert page["numberReturned"] == len(page["features"])
        found += ids(page)
        address = link(page, "next")
        # The conditions go on with the pages.
        assert address is None or parse_qs(urlsplit(address).query)["bbox"] == ["0,0,90,90"]
    assert found == [f"p{n:03}" for n in range(PARCELS)]


def test_a_rectangle_and_an_interval_choose_parcels(client: TestClient) -> None:
    # The third parcel begins at 2.04 degrees; one that is only touched counts.
    page = client.get("/collections/demo/items?bbox=2.01,48,2.04,50").json()
    assert ids(page) == ["p000", "p001", "p002"]
    page = client.get("/collections/demo/items?bbox=2.01,48,-10,2.04,50,4810").json()
    assert ids(page) == ["p000", "p001", "p002"]
    page = client.get("/collections/demo/items?datetime=2023-04&limit=1000").json()
    assert ids(page) == [f"p{n:03}" for n in range(0, PARCELS, 3)]
    page = client.get("/collections/demo/items?datetime=../2023-03").json()
    assert (ids(page), page["numberReturned"], link(page, "next")) == ([], 0, None)


def test_only_parcels_whose_outline_meets_the_rectangle_are_on_its_pages(tmp_path: Path) -> None:
    index = settings_in(tmp_path)
    plant(index, [Seen(f"p{n}", at_cosine(1), corner=(2.0, 49.0)) for n in range(5)])
    # Of the second and the last, nothing is left but the south-western half.
    half = shapely.Polygon([(2.0, 49.0), (2.01, 49.0), (2.0, 49.01)])
    engine = open_catalog(index)
    with engine.begin() as connection:
        some = update(Parcel).where(Parcel.parcel_id.in_(["p1", "p4"]))
        connection.execute(some.values(geometry=shapely.to_wkb(half)))
    engine.dispose()
    with TestClient(create_app(api_settings(index))) as client:
        for limit in (1, 2, 3, 10):
            found: list[str] = []
            address: str | None = f"/collections/demo/items?bbox=2.009,49.009,3,50&limit={limit}"
            while address is not None:
                page = client.get(address).json()
                assert len(page["features"]) <= limit
                found += ids(page)
                address = link(page, "next")
            assert found == ["p0", "p2", "p3"]
        page = client.get("/collections/demo/items?bbox=2,49,2,49").json()
        assert ids(page) == ["p0", "p1", "p2", "p3", "p4"]


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("limit=0", "invalid-request"),
        ("limit=many", "invalid-request"),
        ("after=-1", "invalid-request"),
        ("after=99999999999999999999", "invalid-request"),
        ("after=123456789", "cursor-expired"),
        ("bbox=1,2,3", "invalid-bbox"),
        ("datetime=yesterday", "invalid-datetime"),
        ("colour=green", "unknown-parameter"),
        ("farm=here", "invalid-request"),
        ("organic=perhaps", "invalid-request"),
        ("crs=EPSG:3857", "invalid-request"),
        ("filter=NDVI>", "invalid-filter"),
        ("filter=colour='green'", "unknown-property"),
        ("filter=NDVI>0&filter-lang=sql", "invalid-request"),
    ],
)
def test_what_is_asked_wrongly_is_named(client: TestClient, query: str, kind: str) -> None:
    response = client.get(f"/collections/demo/items?{query}")
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["kind"] == kind


def test_a_parcel_shows_the_observation_that_stands_for_it(tmp_path: Path) -> None:
    index = settings_in(tmp_path)
    often = [
        Seen("often", at_cosine(1), day="2023-04-24", indices={"NDVI": 0.2}),
        Seen("often", at_cosine(1), day="2023-05-29", indices={"NDVI": 0.8}),
        Seen("often", day="2023-08-12", valid_fraction=0.2, reliable=False, indices={"NDVI": 0.1}),
        Seen("clouded", day="2023-08-12", valid_fraction=0.3, reliable=False, indices={}),
    ]
    plant(index, often)
    with TestClient(create_app(api_settings(index))) as client:

        def shown(query: str) -> dict[str, tuple[str, float | None, bool]]:
            page = client.get(f"/collections/demo/items?{query}").json()
            properties = [feature["properties"] for feature in page["features"]]
            return {
                one["id"]: (one["datetime"][:10], one["NDVI"], one["reliable"])
                for one in properties
            }

        best = {"often": ("2023-05-29", 0.8, True), "clouded": ("2023-08-12", None, False)}
        assert shown("") == best
        # In an interval, what was seen in it; a condition is held against what is shown.
        assert shown("datetime=2023-04") == {"often": ("2023-04-24", 0.2, True)}
        assert shown("datetime=2023-08")["often"] == ("2023-08-12", 0.1, False)
        assert shown("filter=NDVI>0.5") == {"often": best["often"]}
        assert shown("filter=NDVI<0.5") == {}
        assert shown("filter=NDVI<0.5&datetime=2023-04") == {"often": ("2023-04-24", 0.2, True)}
        assert shown("filter=NOT reliable=true") == {"clouded": best["clouded"]}
        item = client.get("/collections/demo/items/often").json()
        assert item["properties"]["NDVI"] == 0.8


def test_every_queryable_property_is_a_parameter(client: TestClient) -> None:
    def found(query: str) -> list[str]:
        return ids(client.get(f"/collections/demo/items?limit=1000&{query}").json())

    assert found("farm=3") == [f"p{n:03}" for n in range(3, PARCELS, 7)]
    assert found("organic=false&farm=3") == [f"p{n:03}" for n in range(3, PARCELS, 14)]
    assert found("crop:name=winter%20wheat&id=p007") == ["p007"]
    assert found("name=%C3%89tang&id=p007") == ["p007"]
    assert found("crop:code=bth") == [], "equal is equal, as the standard has it"
    assert found("NDVI=0.5") == ["p075"]
    assert found("collection=demo&id=p007") == ["p007"]
    assert found("collection=z%C3%BCrich") == []
    # GDAL writes truth as a number.
    assert found("organic=1&farm=3") == [f"p{n:03}" for n in range(10, PARCELS, 14)]
    assert found("organic=0&farm=3") == found("organic=false&farm=3")


@pytest.mark.parametrize("operator", ["=", "<>", "<", "<=", ">", ">="])
def test_every_comparison_is_taken_with_every_queryable_of_one_type(
    client: TestClient, operator: str
) -> None:
    """OGC 21-065r2, annex A.3.2."""
    values = {"string": "'x'", "number": "0.5", "boolean": "TRUE"}
    queryables = client.get("/collections/demo/queryables").json()["properties"]
    for name, schema in queryables.items():
        if "format" not in schema:
            written = f'"{name}" {operator} {values[schema["type"]]}'
            response = client.get("/collections/demo/items", params={"filter": written})
            assert response.status_code == 200, written


def test_a_filter_is_text_or_json_and_goes_on_with_the_pages(client: TestClient) -> None:
    text = "farm IN (1, 2) AND NDVI >= 0.5"
    tree = {
        "op": "and",
        "args": [
            {"op": "in", "args": [{"property": "farm"}, [1, 2]]},
            {"op": ">=", "args": [{"property": "NDVI"}, 0.5]},
        ],
    }
    expected = [f"p{n:03}" for n in range(75, PARCELS) if n % 7 in (1, 2)]
    for language, written in (("cql2-text", text), ("cql2-json", json.dumps(tree))):
        query = urlencode({"filter": written, "filter-lang": language, "limit": 5})
        address: str | None = f"/collections/demo/items?{query}"
        found: list[str] = []
        while address is not None:
            page = client.get(address).json()
            found += ids(page)
            address = link(page, "next")
        assert found == expected


def test_a_filter_about_places_is_exact(client: TestClient) -> None:
    # A triangle whose bounding box holds the first three parcels, and which touches two of them.
    triangle = "POLYGON((1.99 48.99, 2.035 48.99, 1.99 49.02, 1.99 48.99))"
    query = urlencode({"filter": f"S_INTERSECTS(geometry, {triangle})"})
    assert ids(client.get(f"/collections/demo/items?{query}").json()) == ["p000", "p001"]


def test_the_only_reference_system_may_be_named(client: TestClient) -> None:
    query = urlencode({"crs": CRS84, "bbox-crs": CRS84, "filter-crs": CRS84, "limit": 1})
    response = client.get(f"/collections/demo/items?{query}")
    assert response.status_code == 200
    assert response.headers["Content-Crs"] == f"<{CRS84}>"


def test_a_large_answer_is_sent_while_it_is_read(client: TestClient) -> None:
    whole = client.get("/collections/demo/items?limit=1000")
    streamed = client.get("/collections/demo/items?limit=1001")
    assert "content-length" in whole.headers
    assert "content-length" not in streamed.headers
    assert streamed.json()["features"] == whole.json()["features"]
    assert streamed.json()["numberReturned"] == PARCELS


def test_what_is_wrong_with_a_large_answer_is_still_said_by_its_status(client: TestClient) -> None:
    assert client.get("/collections/demo/items?limit=5000&filter=colour=1").status_code == 400
