import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.openapi.utils import get_openapi
from fastapi.testclient import TestClient
from jsonschema import validate

from api.app import create_app
from api.routers import clusters
from indexer.embedding_space import UNTRAINED_NOTE
from indexer.landscape import Landscape
from indexer.settings import Settings
from retriever.clusters import Clusters
from retriever.search import ParcelSearcher
from tests.api.test_app import api_settings

CLUSTERS = "/clusters?collection=demo"


@pytest.fixture(scope="module")
def client(demo_index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings(demo_index))) as client:
        yield client


def answer(client: TestClient, path: str) -> Any:  # noqa: ANN401 - JSON
    response = client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


def test_clusters_are_those_of_the_searcher(client: TestClient, demo_index: Settings) -> None:
    searcher = ParcelSearcher.open(demo_index)
    try:
        found = searcher.clusters("demo", k=4)
    finally:
        searcher.close()
    assert answer(client, f"{CLUSTERS}&k=4") == json.loads(json.dumps(found.to_dict()))
    with_members = json.loads(json.dumps(found.to_dict(members=True)))
    assert answer(client, f"{CLUSTERS}&k=4&members=true") == with_members


def test_every_parcel_is_in_a_cluster(client: TestClient, demo_landscape: Landscape) -> None:
    found = answer(client, f"{CLUSTERS}&members=true")
    assert set(found["members"]) == set(demo_landscape.crops)
    assert found["k"] == 8
    sizes = [cluster["parcels"] for cluster in found["clusters"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == len(demo_landscape.crops)
    for cluster in found["clusters"]:
        own = {
            parcel for parcel, number in found["members"].items() if number == cluster["cluster"]
        }
        assert len(own) == cluster["parcels"]
        assert set(cluster["examples"]) <= own
        named = {demo_landscape.crops[parcel] for parcel in own}
        assert {crop["crop:name"] for crop in cluster["crops"]} == named
    assert UNTRAINED_NOTE in found["notes"]


def test_the_answer_is_as_openapi_declares_it(client: TestClient) -> None:
    document = get_openapi(title="Clusters", version="1", routes=clusters.router.routes)
    operation = document["paths"]["/clusters"]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    validate(answer(client, f"{CLUSTERS}&members=true"), schema)
    k = next(one for one in operation["parameters"] if one["name"] == "k")["schema"]
    assert (k["minimum"], k["maximum"], k["default"]) == (2, 50, 8)


@pytest.mark.parametrize(
    ("path", "status", "kind", "said"),
    [
        (f"{CLUSTERS}&k=1", 400, "invalid-k", "at least 2"),
        (f"{CLUSTERS}&k=51", 400, "invalid-k", "at most 50"),
        (f"{CLUSTERS}&k=50", 400, "invalid-k", "parcels with a vector"),
        (f"{CLUSTERS}&k=many", 400, "invalid-request", "k"),
        (f"{CLUSTERS}&crop=wheat", 400, "unknown-parameter", "collection, k, members"),
        ("/clusters", 400, "invalid-request", "collection"),
        ("/clusters?collection=dmo", 404, "collection-not-found", "demo"),
    ],
)
def test_clusters_that_cannot_be_had_are_told_why(
    client: TestClient, path: str, status: int, kind: str, said: str
) -> None:
    response = client.get(path)
    assert response.status_code == status, response.text
    assert response.json()["kind"] == kind
    assert said in response.json()["detail"]


def test_those_who_wait_for_clusters_leave_threads_to_other_requests(
    demo_index: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, enough = threading.Semaphore(0), threading.Event()
    found = ParcelSearcher.clusters

    def slow(searcher: ParcelSearcher, collection: str, *, k: int) -> Clusters:
        begun.release()
        assert enough.wait(30)
        return found(searcher, collection, k=k)

    monkeypatch.setattr(ParcelSearcher, "clusters", slow)
    app = create_app(api_settings(demo_index))
    # More than the 40 threads that all requests of a process share.
    with TestClient(app) as client, ThreadPoolExecutor(51) as pool:
        waiting = [pool.submit(client.get, f"{CLUSTERS}&k=2") for _ in range(50)]
        try:
            assert all([begun.acquire(timeout=10) for _ in range(4)])
            assert not begun.acquire(timeout=1)
            state = pool.submit(client.get, "/collections/demo/items/demo-003/state")
            assert state.result(10).status_code == 200
        finally:
            enough.set()
        assert {one.result(30).status_code for one in waiting} == {200}
