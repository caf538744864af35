import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from api.app import create_app
from api.settings import ApiSettings
from indexer.catalog.database import connect, upgrade
from indexer.landscape import Landscape, draw_landscape
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from tests.schemas import copy_index, matter_of_sqlite

PARCEL = "/collections/demo/items/demo-003"
ROUTES = ("/", "/api", "/health/ready", "/metrics", PARCEL, f"{PARCEL}/similar", f"{PARCEL}/state")

SEARCH_IN_A_FRESH_INTERPRETER = """
import sys
from fastapi.testclient import TestClient
from api.app import create_app
from api.settings import ApiSettings

settings = ApiSettings(api_keys="")
with TestClient(create_app(settings)) as client:
    for path in sys.argv[1:]:
        assert client.get(path).status_code == 200, path
loaded = [name for name in ("torch", "torchgeo", "torchvision") if name in sys.modules]
assert not loaded, loaded
"""


def api_settings(index: Settings, keys: str = "") -> ApiSettings:
    return ApiSettings(**index.model_dump(), api_keys=keys)


def in_folder(folder: Path) -> ApiSettings:
    return ApiSettings(data_dir=folder, database_url="", api_keys="")


@pytest.fixture
def own_index(tmp_path: Path, demo_index: Settings) -> Settings:
    """A copy of the demo index that a test may change."""
    copy_index(demo_index.data_dir, tmp_path / "index")
    return demo_index.model_copy(update={"data_dir": tmp_path / "index"})


@contextmanager
def served(app: ASGIApp, http: type[asyncio.Protocol] | str = "auto") -> Iterator[str]:
    """The address of a real server on a free port of this machine."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            log_config=None,
            log_level="warning",
            ws="none",
            http=http,
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the server ended before it started"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


# Starting, being ready -----------------------------------------------------------------------


def test_a_real_server_answers_many_at_once(demo_index: Settings) -> None:
    with (
        served(create_app(api_settings(demo_index))) as address,
        httpx.Client(base_url=address) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: client.get(f"{PARCEL}/similar?k=3"), range(24)))
        links = client.get(PARCEL).json()["links"]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert links[0]["href"] == f"{address}{PARCEL}"


def test_a_search_loads_no_torch(demo_index: Settings) -> None:
    subprocess.run(
        [sys.executable, "-c", SEARCH_IN_A_FRESH_INTERPRETER, *ROUTES],
        env=os.environ | {"PARCELLE_DATA_DIR": str(demo_index.data_dir)},
        check=True,
        timeout=120,
    )


def test_ready_tells_the_generations_that_answer(demo_index: Settings) -> None:
    with TestClient(create_app(api_settings(demo_index))) as client:
        assert client.get("/health/live").json() == {"status": "alive"}
        ready = client.get("/health/ready").json()
        space = client.get(f"{PARCEL}/similar").json()["space"]
    assert ready["status"] == "ready"
    (generation,) = ready["generations"]
    assert generation["generation"] == 1
    assert generation["space"] == space
    assert generation["rows"] > 30


def test_without_a_database_the_service_lives_until_there_is_one(
    tmp_path: Path, demo_index: Settings
) -> None:
    folder = tmp_path / "index"
    with TestClient(create_app(in_folder(folder))) as client:
        assert client.get("/health/live").status_code == 200
        for path in ("/health/ready", PARCEL, f"{PARCEL}/similar", f"{PARCEL}/state"):
            response = client.get(path)
            assert response.status_code == 503
            assert response.json()["kind"] == "database-empty"
            assert str(tmp_path) not in response.text
        assert not folder.exists(), "asking must not make an empty database"

        copy_index(demo_index.data_dir, folder)
        assert client.get("/health/ready").status_code == 200
        assert client.get(f"{PARCEL}/similar").status_code == 200


def test_a_database_without_a_generation_is_not_ready(tmp_path: Path) -> None:
    settings = in_folder(tmp_path)
    engine = connect(settings)
    upgrade(engine)
    engine.dispose()
    with TestClient(create_app(settings)) as client:
        response = client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["kind"] == "generation-not-found"


def test_an_empty_database_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "parcelle.db").touch()
    with TestClient(create_app(in_folder(tmp_path))) as client:
        response = client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["kind"] == "database-empty"
    assert str(tmp_path) not in response.text


def test_a_damaged_index_is_not_ready_and_its_path_is_not_told(own_index: Settings) -> None:
    path = own_index.generations_dir / "1" / "vectors.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with TestClient(create_app(api_settings(own_index))) as client:
        for asked in ("/health/ready", f"{PARCEL}/similar"):
            response = client.get(asked)
            assert response.status_code == 503
            assert response.json()["kind"] == "generation-corrupt"
            assert str(own_index.data_dir) not in response.text
        assert client.get(f"{PARCEL}/state").status_code == 200


@matter_of_sqlite("it calls a lost table a failure of its own")
def test_a_failing_database_puts_nothing_that_was_asked_into_the_log(
    own_index: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(create_app(api_settings(own_index))) as client:
        asked = {"filter": "crop:name = 'my-secret'"}
        assert client.get("/collections/demo/items", params=asked).status_code == 200
        searcher = client.app.state.searcher.get()  # type: ignore[attr-defined]
        with searcher.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE parcels RENAME TO gone")
        response = client.get("/collections/demo/items", params=asked)
    assert response.status_code == 503
    assert "parcels" in caplog.text
    assert "my-secret" not in caplog.text


def test_a_generation_published_meanwhile_answers_without_a_restart(
    tmp_path: Path, own_index: Settings, demo_landscape: Landscape, tiny_croma: str
) -> None:
    later = draw_landscape(
        tmp_path / "later", size_px=130, dates=(date(2023, 9, 20),), parcels_across=4
    )
    with TestClient(create_app(api_settings(own_index))) as client:
        before = client.get(f"{PARCEL}/similar").json()
        options = ReindexOptions(
            encoder=tiny_croma,
            parcels=demo_landscape.parcels_file,
            collection="demo",
            device="cpu",
        )
        report = reindex(own_index, later.scenes, options)
        after = client.get(f"{PARCEL}/similar").json()
        ready = client.get("/health/ready").json()
    assert (before["generation"], report.generation, after["generation"]) == (1, 2, 2)
    assert [one["generation"] for one in ready["generations"]] == [2]
    assert before["space"] == after["space"]


def test_settings_come_from_the_environment(
    demo_index: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(demo_index.data_dir))
    monkeypatch.setenv("PARCELLE_API_KEYS", "sesame")
    monkeypatch.delenv("PARCELLE_DATABASE_URL", raising=False)
    with TestClient(create_app()) as client:
        assert client.get(PARCEL).status_code == 401
        assert client.get(PARCEL, headers={"X-API-Key": "sesame"}).status_code == 200


# Keys ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(demo_index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings(demo_index, keys="first,schlüssel"))) as client:
        yield client


@pytest.mark.parametrize("path", ROUTES)
def test_missing_and_wrong_keys_get_the_same_answer(locked: TestClient, path: str) -> None:
    answers = [
        locked.get(path, headers={**headers, b"X-Request-ID": b"same"})
        for headers in (
            {},
            {b"Authorization": b"Bearer second"},
            {b"Authorization": b"Bearer"},
            {b"Authorization": b"Basic Zmlyc3Q6"},
            {b"X-API-Key": b"firs"},
            {b"X-API-Key": "first,schlüssel".encode()},
            {b"X-API-Key": b""},
        )
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["kind"] == "unauthorized"
    assert "first" not in answers[0].text


@pytest.mark.parametrize("key", ["first", "schlüssel"])
def test_each_key_opens_under_either_header(locked: TestClient, key: str) -> None:
    bearer = locked.get(PARCEL, headers={b"Authorization": f"Bearer {key}".encode()})
    header = locked.get(PARCEL, headers={b"X-API-Key": key.encode()})
    assert (bearer.status_code, header.status_code) == (200, 200)


def test_a_key_in_the_address_opens_nothing(locked: TestClient) -> None:
    response = locked.get(f"{PARCEL}?api_key=first")
    assert response.status_code == 401
    assert "first" not in response.text


def test_whether_the_service_lives_is_told_without_a_key(locked: TestClient) -> None:
    assert locked.get("/health/live").status_code == 200


# How every request is treated -----------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(demo_index: Settings) -> Iterator[TestClient]:
    settings = ApiSettings(
        **demo_index.model_dump(),
        api_keys="first",
        max_body_bytes=100,
        cors_origins="https://maps.example.org",
    )
    with TestClient(create_app(settings), headers={"X-API-Key": "first"}) as client:
        yield client


def test_an_unexpected_error_is_treated_as_any_answer(own_index: Settings) -> None:
    settings = ApiSettings(**own_index.model_dump(), api_keys="", cors_origins="*")
    app = create_app(settings)

    @app.get("/fail")
    def fail() -> None:
        raise RuntimeError

    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/fail", headers={"X-Request-ID": "mine", "Origin": "https://a.org"})
    assert response.status_code == 500
    assert response.json()["request_id"] == response.headers["x-request-id"] == "mine"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["access-control-allow-origin"] == "*"


def test_a_parcel_is_sent_once_and_then_confirmed(strict: TestClient) -> None:
    first = strict.get(PARCEL)
    assert first.headers["cache-control"] == "private, no-cache"
    again = strict.get(PARCEL, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.headers["x-request-id"] != first.headers["x-request-id"]


def test_a_tag_opens_nothing_without_a_key(strict: TestClient) -> None:
    headers = {"If-None-Match": "*", "X-API-Key": "wrong"}
    assert strict.get(PARCEL, headers=headers).status_code == 401


@pytest.mark.parametrize("path", [*ROUTES, "/health/live"])
def test_head_answers_wherever_get_does(strict: TestClient, path: str) -> None:
    response = strict.head(path)
    assert response.status_code == 200
    assert response.headers["content-type"]
    assert not response.content


@pytest.mark.parametrize("path", ["/mcp", PARCEL, "/no/such/route"])
def test_a_body_that_is_too_large_is_refused_at_every_path(strict: TestClient, path: str) -> None:
    response = strict.post(path, content=b"x" * 101)
    assert response.status_code == 413
    assert response.json()["kind"] == "body-too-large"


def test_mcp_takes_no_larger_body_in_pieces(strict: TestClient) -> None:
    response = strict.post(
        "/mcp",
        content=iter([b"x" * 60] * 2),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    assert response.status_code == 413
    assert response.json()["kind"] == "body-too-large"


def test_answers_to_mcp_have_an_id(strict: TestClient) -> None:
    for response in (strict.post("/mcp"), strict.get("/mcp")):
        assert response.headers["x-request-id"]


def test_pages_of_an_allowed_origin_may_ask_with_a_key_and_others_may_not(
    strict: TestClient,
) -> None:
    allowed, other = "https://maps.example.org", "https://other.example.org"
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "X-API-Key"}
    answers = [strict.options(PARCEL, headers={"Origin": one, **asked}) for one in (allowed, other)]
    assert [answer.status_code for answer in answers] == [200, 400]
    assert answers[0].headers["access-control-allow-origin"] == allowed
    found = strict.get(PARCEL, headers={"Origin": allowed})
    assert found.headers["access-control-allow-origin"] == allowed
    assert "Origin" in found.headers["vary"]
    assert "ETag" in found.headers["access-control-expose-headers"]
    found = strict.get(PARCEL, headers={"Origin": other})
    assert "access-control-allow-origin" not in found.headers


def test_no_page_from_elsewhere_may_ask_by_default(locked: TestClient) -> None:
    response = locked.get("/health/live", headers={"Origin": "https://maps.example.org"})
    assert not [name for name in response.headers if name.startswith("access-control-")]


def test_without_a_key_an_unknown_path_says_only_that_it_is_no_route(locked: TestClient) -> None:
    problem = locked.get("/no/such/route").json()
    assert problem["kind"] == "route-not-found"
    for unknown in ("/collections/no-such", "/collections/no-such/items/x"):
        assert locked.get(unknown).json()["kind"] == "unauthorized"


def test_the_time_limit_is_the_settings(own_index: Settings) -> None:
    settings = ApiSettings(**own_index.model_dump(), api_keys="", request_timeout_s=0.05)
    app = create_app(settings)

    @app.get("/slow")
    def slow() -> None:
        time.sleep(0.2)

    with TestClient(app) as client:
        response = client.get("/slow")
    assert response.status_code == 503
    assert response.json()["kind"] == "request-timeout"


# What the service says of itself -------------------------------------------------------------


LITERAL = "/collections/demo/items"
"""What stands in the document for GDAL beside the template."""


@pytest.fixture(scope="module")
def document(locked: TestClient) -> dict[str, Any]:
    response = locked.get("/api", headers={"X-API-Key": "first"})
    assert response.headers["content-type"] == "application/vnd.oai.openapi+json;version=3.0"
    found: dict[str, Any] = response.json()
    return found


def test_the_landing_page_links_to_what_there_is(demo_index: Settings) -> None:
    with TestClient(create_app(api_settings(demo_index))) as client:
        page = client.get("/").json()
        assert page["title"] == "Parcelle"
        assert [link["rel"] for link in page["links"]] == [
            "self",
            "service-desc",
            "service-doc",
            "conformance",
            "data",
            "status",
        ]
        for link in page["links"]:
            response = client.get(link["href"])
            assert response.status_code == 200
            assert response.headers["content-type"].startswith(link["type"])


def test_openapi_names_every_route(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.0.")
    assert set(document["paths"]) == {
        LITERAL,
        "/",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/conformance",
        "/collections",
        "/collections/{collection}",
        "/collections/{collection}/queryables",
        "/collections/{collection}/items",
        "/collections/{collection}/items/{parcel_id}",
        "/collections/{collection}/items/{parcel_id}/similar",
        "/collections/{collection}/items/{parcel_id}/state",
        "/collections/{collection}/items/{parcel_id}/preview.png",
        "/search",
        "/clusters",
        "/clusters/{number}/name",
        "/generations",
    }


def test_every_parameter_has_a_description_and_an_example(document: dict[str, Any]) -> None:
    parameters = [
        parameter
        for path, operations in document["paths"].items()
        for operation in operations.values()
        # What attributes a collection's parcels have, nobody knows beforehand.
        if path != LITERAL
        for parameter in operation.get("parameters", [])
    ]
    assert {"k", "crop", "bbox", "datetime", "collections", "observations"} <= {
        parameter["name"] for parameter in parameters
    }
    for parameter in parameters:
        assert parameter["description"], parameter["name"]
        assert "example" in parameter["schema"], parameter["name"]


def test_every_route_declares_its_problems(document: dict[str, Any]) -> None:
    responses = {
        path: operation["responses"]
        for path, operations in document["paths"].items()
        for operation in operations.values()
    }
    for path, declared in responses.items():
        assert {"200", "400", "default"} <= set(declared), path
        for status in set(declared) - {"200"}:
            content = declared[status]["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert "kind" in document["components"]["schemas"]["Problem"]["properties"]


def test_matches_are_declared_as_geojson(document: dict[str, Any]) -> None:
    path = "/collections/{collection}/items/{parcel_id}/similar"
    (media_type,) = document["paths"][path]["get"]["responses"]["200"]["content"]
    assert media_type == "application/geo+json"


@pytest.mark.parametrize("path", ["/redoc", "/openapi.json"])
def test_no_page_loads_scripts_from_elsewhere(locked: TestClient, path: str) -> None:
    assert locked.get(path, headers={"X-API-Key": "first"}).status_code == 404
