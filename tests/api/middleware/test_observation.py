import json
import logging
import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.testclient import TestClient

from api import request_ids
from api.errors import add_error_handlers
from api.logs import FIELDS, JsonFormatter
from api.metrics import Metrics
from api.middleware.observation import Observation
from tests.api.test_app import served

LOGGER = "api.middleware.observation"


@pytest.fixture(scope="module")
def counted() -> Metrics:
    return Metrics()


@pytest.fixture(scope="module")
def client(counted: Metrics) -> Iterator[TestClient]:
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/parcels/{parcel_id:path}/state")
    def state(parcel_id: str) -> Response:
        return Response(f"{parcel_id} {request_ids.current()}")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"12345", b"678"]))

    @app.get("/fail")
    def fail() -> None:
        raise RuntimeError("the password is secret")

    with TestClient(Observation(app, counted), raise_server_exceptions=False) as client:
        yield client


def line(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    (found,) = [record for record in caplog.records if record.name == LOGGER]
    return found


@pytest.mark.parametrize("given", ["a", "req-1.2_3", "x" * 64])
def test_a_short_plain_request_id_is_kept(client: TestClient, given: str) -> None:
    response = client.get("/stream", headers={"X-Request-ID": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", '"}', "<script>", "é"])
def test_any_other_request_id_is_replaced(client: TestClient, given: str) -> None:
    response = client.get("/stream", headers={b"X-Request-ID": given.encode()})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


def test_requests_without_an_id_get_different_ones(client: TestClient) -> None:
    ids = {client.get("/stream").headers["x-request-id"] for _ in range(10)}
    assert len(ids) == 10


def test_the_id_is_known_in_the_thread_that_answers(client: TestClient) -> None:
    response = client.get("/parcels/a/state", headers={"X-Request-ID": "mine"})
    assert response.text == "a mine"


def test_a_problem_carries_the_id(client: TestClient) -> None:
    response = client.get("/nowhere", headers={"X-Request-ID": "mine"})
    assert response.json()["request_id"] == "mine"
    assert response.headers["x-request-id"] == "mine"


def test_a_request_is_logged_without_anything_secret(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        client.get(
            "/parcels/a%2Fb/state?key=secret",
            headers={"X-API-Key": "secret", "X-Request-ID": "mine"},
        )
    record = line(caplog)
    fields = getattr(record, FIELDS)
    assert record.levelno == logging.INFO
    assert record.getMessage() == "GET /parcels/a/b/state: 200"
    assert fields.pop("duration_ms") > 0
    assert fields == {
        "method": "GET",
        "path": "/parcels/a/b/state",
        "route": "/parcels/{parcel_id}/state",
        "status": 200,
        "bytes": len("a/b mine"),
        "client": "testclient",
    }
    assert "secret" not in f"{record.__dict__}"


def test_the_bytes_of_a_stream_are_added_up(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        client.get("/stream")
    assert getattr(line(caplog), FIELDS)["bytes"] == 8


def test_a_long_path_is_cut_in_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        client.get("/" + "x" * 50_000)
    assert len(line(caplog).getMessage()) < 1100


def test_only_failures_are_logged_at_the_level_warning(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, LOGGER):
        client.get("/stream")
        client.get("/nowhere")
        client.get("/fail")
    assert line(caplog).getMessage() == "GET /fail: 500"


def test_a_traceback_goes_to_the_log_with_the_id_and_not_to_the_client(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(JsonFormatter())
    with served(client.app) as address:
        response = httpx.get(f"{address}/fail", headers={"X-Request-ID": "mine"})
    assert response.json()["kind"] == "internal"
    assert response.json()["request_id"] == response.headers["x-request-id"] == "mine"
    assert "secret" not in response.text
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    (found,) = [line for line in lines if "traceback" in line]
    assert "RuntimeError: the password is secret" in found["traceback"]
    assert {line["request_id"] for line in lines} == {"mine"}


def test_what_becomes_of_a_request_without_an_answer_is_counted_as_client_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def silent(*_: object) -> None:
        pass

    client = TestClient(Observation(silent, Metrics()), raise_server_exceptions=False)
    with caplog.at_level(logging.INFO, LOGGER):
        client.get("/")
    assert getattr(line(caplog), FIELDS)["status"] == 499


def test_a_reused_response_gets_the_header_of_each_request_once(counted: Metrics) -> None:
    shared = Response("x")
    app = FastAPI()

    @app.get("/")
    async def same(request: Request) -> Response:
        return shared

    client = TestClient(Observation(app, counted))
    client.get("/", headers={"X-Request-ID": "first"})
    second = client.get("/", headers={"X-Request-ID": "second"})
    assert second.headers.get_list("x-request-id") == ["second"]
