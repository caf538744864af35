import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.utils import get_openapi
from fastapi.testclient import TestClient
from jsonschema import validate

from api.app import create_app
from api.routers import clusters
from api.settings import ApiSettings
from indexer.embedding_space import UNTRAINED_NOTE
from indexer.landscape import Landscape
from indexer.settings import Settings
from retriever.clusters import Clusters
from retriever.search import ParcelSearcher
from tests.api.row_of_parcels import ids
from tests.api.test_app import api_settings, in_folder
from tests.retriever.planted import Seen, at_cosine, plant
from tests.retriever.stored import store_clusters

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
    assert (k["minimum"], k["maximum"]) == (2, 50)


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

    def slow(searcher: ParcelSearcher, collection: str, *, k: int | None) -> Clusters:
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


# Stored clusters and their names ---------------------------------------------------------------

NAME = "/clusters/{}/name?collection=demo"


def group_parcels(folder: Path) -> ApiSettings:
    settings = in_folder(folder)
    plant(settings, [Seen(f"p{n}", at_cosine(0.9 - n / 10)) for n in range(6)])
    store_clusters(settings, (("p0", "p1", "p2"), ("p3", "p4"), ("p5",)), {2: "maize"})
    return settings


@pytest.fixture
def grouped(tmp_path: Path) -> ApiSettings:
    return group_parcels(tmp_path)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """For requests that change nothing."""
    with TestClient(create_app(group_parcels(tmp_path_factory.mktemp("unchanged")))) as client:
        yield client


@pytest.fixture
def naming(grouped: ApiSettings) -> Iterator[TestClient]:
    with TestClient(create_app(grouped)) as client:
        yield client


def names(client: TestClient) -> list[str | None]:
    return [one["name"] for one in answer(client, CLUSTERS)["clusters"]]


def test_stored_clusters_are_told_unless_others_are_asked_for(unchanged: TestClient) -> None:
    stored, others = (
        answer(unchanged, f"{CLUSTERS}&members=true"),
        answer(unchanged, f"{CLUSTERS}&k=2"),
    )
    assert (stored["stored"], stored["k"], len(stored["members"])) == (True, 3, 6)
    assert (others["stored"], others["k"]) == (False, 2)
    document = get_openapi(title="Clusters", version="1", routes=clusters.router.routes)
    content = document["paths"]["/clusters"]["get"]["responses"]["200"]["content"]
    for found in (stored, others):
        validate(found, content["application/json"]["schema"])


def test_a_name_is_given_and_taken_away(naming: TestClient) -> None:
    assert names(naming) == [None, "maize", None]
    given = naming.put(NAME.format(1), json={"name": "  winter wheat "})
    assert given.status_code == 200
    assert given.json() == {"collection": "demo", "cluster": 1, "name": "winter wheat"}
    assert names(naming) == ["winter wheat", "maize", None]
    taken = naming.delete(NAME.format(2))
    assert taken.json() == {"collection": "demo", "cluster": 2, "name": None}
    assert names(naming) == ["winter wheat", None, None]
    assert naming.delete(NAME.format(2)).status_code == 200


def asked(client: TestClient, path: str) -> list[str]:
    return ids(answer(client, path))


def test_a_name_is_a_filter_of_every_route(naming: TestClient) -> None:
    naming.put(NAME.format(1), json={"name": "winter wheat"})
    filtered = "filter=cluster%20%3D%20'winter%20wheat'"
    items = "/collections/demo/items"
    assert asked(naming, f"{items}?{filtered}") == ["p0", "p1", "p2"]
    assert asked(naming, f"{items}?cluster=winter%20wheat") == ["p0", "p1", "p2"]
    assert asked(naming, f"{items}?cluster:number=3") == ["p5"]
    assert asked(naming, f"{items}/p0/similar?{filtered}") == ["p1", "p2"]
    found = naming.post("/search", json={"positive": ["p5"], "filter": "cluster = 'maize'"})
    assert set(ids(found.json())) == {"p3", "p4"}
    properties = answer(naming, "/collections/demo/queryables")["properties"]
    assert (properties["cluster"]["type"], properties["cluster:number"]["type"]) == (
        "string", "number",
    )  # fmt: skip


def test_features_and_states_tell_the_cluster(unchanged: TestClient) -> None:
    told = {"cluster": "maize", "cluster:number": 2, "cluster:score": 0.75}
    none = dict.fromkeys(told)
    item = answer(unchanged, "/collections/demo/items/p3")
    assert told.items() <= item["properties"].items()
    assert told.items() <= answer(unchanged, "/collections/demo/items/p3/state").items()
    similar = answer(unchanged, "/collections/demo/items/p3/similar?k=1")
    assert similar["features"][0]["properties"]["cluster:number"] in (1, 2)
    unnamed = answer(unchanged, "/collections/demo/items/p0")["properties"]
    assert (unnamed["cluster"], unnamed["cluster:number"]) == (None, 1)
    assert none.keys() <= unnamed.keys()


def test_a_copy_is_no_longer_good_once_a_name_changed(naming: TestClient) -> None:
    for path in (CLUSTERS, "/collections/demo/items", "/collections/demo/items/p0/state"):
        tag = naming.get(path).headers["etag"]
        again = {"If-None-Match": tag}
        assert naming.get(path, headers=again).status_code == 304
        naming.put(NAME.format(1), json={"name": f"after {path}"})
        changed = naming.get(path, headers=again)
        assert changed.status_code == 200
        assert f"after {path}" in changed.text


def test_a_name_given_by_one_worker_is_told_by_the_others(grouped: ApiSettings) -> None:
    with TestClient(create_app(grouped)) as one, TestClient(create_app(grouped)) as other:
        assert names(other) == [None, "maize", None]
        one.put(NAME.format(3), json={"name": "beet"})
        assert names(other) == [None, "maize", "beet"]


BODIES: Sequence[tuple[Any, str, str]] = (
    ({"name": ""}, "invalid-name", "1 to 100"),
    ({"name": "x" * 101}, "invalid-name", "101 characters"),
    ({"name": "a\nb"}, "invalid-name", "cannot be seen"),
    ({"name": None}, "invalid-request", "name"),
    ({"name": 3}, "invalid-request", "name"),
    ({"name": "a", "color": "red"}, "invalid-request", "color"),
    ({}, "invalid-request", "name"),
    ("maize", "invalid-request", "dictionary"),
)


@pytest.mark.parametrize(("body", "kind", "said"), BODIES)
def test_a_body_that_names_nothing_is_refused(
    unchanged: TestClient, body: object, kind: str, said: str
) -> None:
    response = unchanged.put(NAME.format(1), json=body)
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["kind"]) == (400, kind)
    assert said in response.json()["detail"]
    assert names(unchanged) == [None, "maize", None]


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        (NAME.format(9), 404, "cluster-not-found"),
        (NAME.format(0), 400, "invalid-request"),
        (NAME.format("first"), 400, "invalid-request"),
        ("/clusters/1/name?collection=dmo", 404, "collection-not-found"),
        ("/clusters/1/name", 400, "invalid-request"),
        (f"{NAME.format(1)}&k=3", 400, "unknown-parameter"),
        (f"{NAME.format(1)}&clustering=99", 404, "cluster-not-found"),
    ],
)
def test_what_cannot_be_named_is_told(
    unchanged: TestClient, path: str, status: int, kind: str
) -> None:
    for response in (unchanged.put(path, json={"name": "maize"}), unchanged.delete(path)):
        assert (response.status_code, response.json()["kind"]) == (status, kind)
    assert names(unchanged) == [None, "maize", None]


def test_naming_asks_for_a_key_and_for_a_small_body(grouped: ApiSettings) -> None:
    locked = ApiSettings(data_dir=grouped.data_dir, database_url="", api_keys="sesame")
    with TestClient(create_app(locked)) as client:
        for response in (
            client.put(NAME.format(1), json={"name": "maize"}),
            client.delete(NAME.format(1)),
        ):
            assert (response.status_code, response.json()["kind"]) == (401, "unauthorized")
        key = {"X-API-Key": "sesame"}
        assert client.put(NAME.format(1), json={"name": "beet"}, headers=key).status_code == 200
    small = grouped.model_copy(update={"max_body_bytes": 1000})
    with TestClient(create_app(small)) as client:
        response = client.put(NAME.format(1), json={"name": "x" * 2000})
        assert (response.status_code, response.json()["kind"]) == (413, "body-too-large")


def test_naming_asks_for_a_key_that_may_write(grouped: ApiSettings) -> None:
    keys = "read:reader,write:writer"
    locked = ApiSettings(data_dir=grouped.data_dir, database_url="", api_keys=keys)
    reader, writer = ({"X-API-Key": key} for key in ("reader", "writer"))
    with TestClient(create_app(locked)) as client:
        assert client.get("/clusters?collection=demo", headers=reader).status_code == 200
        for response in (
            client.put(NAME.format(1), json={"name": "maize"}, headers=reader),
            client.delete(NAME.format(1), headers=reader),
        ):
            assert (response.status_code, response.json()["kind"]) == (403, "forbidden")
            assert "scope write" in response.json()["detail"]
        assert client.put(NAME.format(1), json={"name": "x"}, headers=writer).status_code == 200
        assert client.get("/clusters?collection=demo", headers=writer).status_code == 200
        assert client.delete(NAME.format(1), headers=writer).status_code == 200
