"""OGC API - Features as its clients use it."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pyogrio
import pytest
from fastapi.testclient import TestClient
from shapely import box

from api.app import create_app
from api.routers.collections import CONFORMS_TO
from indexer.settings import Settings
from retriever.search import ParcelSearcher
from tests.api.test_app import api_settings
from tests.retriever.planted import Seen, at_cosine, plant, settings_in

PARCELS = 150
SIDE = 0.01


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A row of parcels from west to east, every third seen in April, the others in May."""
    chosen = settings_in(tmp_path_factory.mktemp("index"))
    plant(
        chosen,
        [
            Seen(
                f"p{n:03}",
                at_cosine(0.5),
                day="2023-04-24" if n % 3 == 0 else "2023-05-29",
                crop_code="BTH",
                crop_name="winter wheat",
                corner=(2 + 2 * SIDE * n, 49.0),
                attributes={"farm": n % 7, "name": "Étang"},
            )
            for n in range(PARCELS)
        ]
        + [Seen("chip", at_cosine(0.4), day=None, corner=None, collection="zürich")],
    )
    return chosen


@pytest.fixture(scope="module")
def client(index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings(index))) as client:
        yield client


@contextmanager
def served_by_a_process(index: Settings) -> Iterator[str]:
    """The address of a server of its own: GDAL's readers let no other thread run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PARCELLE_DATA_DIR": str(index.data_dir),
        "PARCELLE_DATABASE_URL": index.database_url,
    }
    command = [str(Path(sys.executable).with_name("parcelle")), "serve", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not answers(address):
            assert server.poll() is None, "the server ended before it answered"
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def answers(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/health/live").status_code == 200
    except httpx2.TransportError:
        return False


def ids(page: dict[str, Any]) -> list[str]:
    return [feature["id"] for feature in page["features"]]


def link(page: dict[str, Any], rel: str) -> str | None:
    found = [link["href"] for link in page["links"] if link["rel"] == rel]
    assert len(found) <= 1
    return found[0] if found else None


def test_the_service_names_the_classes_that_it_conforms_to(client: TestClient) -> None:
    assert client.get("/conformance").json() == {"conformsTo": list(CONFORMS_TO)}
    assert all(
        one.startswith("http://www.opengis.net/spec/ogcapi-features-1") for one in CONFORMS_TO
    )


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


def test_a_page_holds_features_in_order_of_their_ids(client: TestClient) -> None:
    page = client.get("/collections/demo/items").json()
    assert page["type"] == "FeatureCollection"
    assert ids(page) == [f"p{n:03}" for n in range(10)]
    assert page["numberReturned"] == 10
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", page["timeStamp"])
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
        assert len(page["features"]) <= min(limit, 1000)
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
    page = client.get("/collections/demo/items?datetime=2023-04&limit=1000").json()
    assert ids(page) == [f"p{n:03}" for n in range(0, PARCELS, 3)]
    page = client.get("/collections/demo/items?datetime=../2023-03").json()
    assert (ids(page), page["numberReturned"], link(page, "next")) == ([], 0, None)


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
    ],
)
def test_what_is_asked_wrongly_is_named(client: TestClient, query: str, kind: str) -> None:
    response = client.get(f"/collections/demo/items?{query}")
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["kind"] == kind


def test_keys_are_asked_for(index: Settings) -> None:
    with TestClient(create_app(api_settings(index, keys="secret"))) as client:
        for path in (
            "/conformance",
            "/collections",
            "/collections/demo",
            "/collections/demo/items",
        ):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"X-API-Key": "secret"}).status_code == 200


def test_gdal_reads_all_pages_and_filters_by_rectangle(index: Settings) -> None:
    with served_by_a_process(index) as address:
        source = f"OAPIF:{address}"
        pyogrio.set_gdal_config_options({"GDAL_HTTP_TIMEOUT": "30"})
        layers = {str(name) for name, _ in pyogrio.list_layers(source)}
        # Pages of 40: four requests for 150 parcels.
        everything = pyogrio.read_dataframe(source, layer="demo", PAGE_SIZE=40)
        some = pyogrio.read_dataframe(source, layer="demo", bbox=(2.005, 48.9, 2.045, 49.1))
    assert layers == {"demo", "zürich"}
    with ParcelSearcher.open(index) as searcher:
        stored = searcher.parcels(limit=1000, count=False).parcels
    assert sorted(everything["id"]) == sorted(
        one.parcel.parcel_id for one in stored if one.parcel.collection == "demo"
    )
    assert set(everything["crop:name"]) == {"winter wheat"}
    assert set(everything["name"]) == {"Étang"}
    first = everything.loc[everything["id"] == "p000"].geometry.iloc[0]
    assert first.equals(box(2.0, 49.0, 2.01, 49.01))
    assert sorted(some["id"]) == ["p000", "p001", "p002"]
