import logging
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from starlette.requests import ClientDisconnect

from api.errors import STATUS, RequestError, add_error_handlers, status_of
from indexer.errors import (
    ConflictError,
    GenerationMismatchError,
    ImageryError,
    InvalidInputError,
    NotFoundError,
    ParcelleError,
    ParcelsError,
    StorageError,
    WeightsError,
)

EXPECTED = [
    (NotFoundError("No parcel x.", kind="parcel-not-found"), 404),
    (InvalidInputError("k is 0.", kind="invalid-k"), 400),
    (ImageryError("No data.", kind="no-valid-pixels"), 422),
    (ParcelsError("No CRS.", kind="crs-missing"), 422),
    (WeightsError("/secret/croma.pt is gone.", kind="weights-not-found"), 503),
    (GenerationMismatchError("Another space.", kind="space-mismatch"), 409),
    (ConflictError("Somebody writes.", kind="reindex-running"), 409),
    (StorageError("/secret/parcelle.db is gone.", kind="database-empty"), 503),
]

errors: dict[str, Exception] = {error.kind: error for error, _ in EXPECTED} | {
    "lost": OperationalError("SELECT secret", {}, Exception("server at 10.0.0.7 went away")),
    "gone": ClientDisconnect(),
    "unexpected": RuntimeError("the password is secret"),
    "refused": RequestError(
        HTTPStatus.UNAUTHORIZED, kind="unauthorized", detail="No.", headers={"X-Why": "so"}
    ),
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/raise/{name}")
    def fail(name: str) -> None:
        raise errors[name]

    @app.get("/count")
    def count(k: int) -> int:
        return k

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_every_branch_of_the_error_tree_has_a_status() -> None:
    assert set(STATUS) == set(ParcelleError.__subclasses__())
    assert {type(error) for error, _ in EXPECTED} == set(STATUS)


def test_a_class_further_down_has_the_status_of_its_branch() -> None:
    class NarrowError(NotFoundError):
        pass

    assert status_of(NarrowError("x", kind="parcel-not-found")) == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(("error", "status"), EXPECTED, ids=lambda value: str(value)[:20])
def test_an_error_is_a_problem_with_its_status_and_kind(
    client: TestClient, error: ParcelleError, status: int
) -> None:
    response = client.get(f"/raise/{error.kind}")
    problem = response.json()
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert problem.keys() == {"type", "title", "status", "detail", "instance", "kind"}
    assert problem["type"] == f"urn:parcelle:problem:{error.kind}"
    assert problem["status"] == status
    assert problem["kind"] == error.kind
    assert problem["instance"] == f"/raise/{error.kind}"


def test_the_message_is_the_detail(client: TestClient) -> None:
    problem = client.get("/raise/parcel-not-found").json()
    assert problem["detail"] == "No parcel x."
    assert problem["title"] == "Parcel not found"


@pytest.mark.parametrize("kind", ["database-empty", "weights-not-found"])
def test_what_only_the_operator_may_read_goes_to_the_log(
    client: TestClient, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = client.get(f"/raise/{kind}").text
    assert "secret" not in body
    assert "/secret/" in caplog.text


def test_a_lost_database_is_503_and_says_nothing_of_the_database(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get("/raise/lost")
    assert response.status_code == 503
    assert response.json()["kind"] == "database-unreachable"
    assert "secret" not in response.text
    assert "10.0.0.7" not in response.text
    assert "10.0.0.7" in caplog.text


def test_an_unexpected_error_is_500_and_leaks_nothing(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        response = client.get("/raise/unexpected?token=secret")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["kind"] == "internal"
    assert "secret" not in response.text
    assert "RuntimeError" not in response.text
    assert "GET /raise/unexpected: unexpected RuntimeError" in caplog.text


def test_problems_are_not_to_be_kept(client: TestClient) -> None:
    for path in ("/raise/refused", "/nowhere", "/raise/unexpected"):
        assert client.get(path).headers["cache-control"] == "no-store"


def test_a_client_that_went_away_is_no_failure_of_the_service(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get("/raise/gone")
    assert response.status_code == 400
    assert response.json()["kind"] == "client-disconnected"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_request_error_keeps_its_headers(client: TestClient) -> None:
    response = client.get("/raise/refused")
    assert response.status_code == 401
    assert response.json()["kind"] == "unauthorized"
    assert response.headers["x-why"] == "so"


def test_an_unknown_route_is_a_problem(client: TestClient) -> None:
    response = client.get("/no/such%20place")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["kind"] == "route-not-found"
    assert response.json()["instance"] == "/no/such%20place"


def test_a_wrong_method_is_a_problem_that_names_the_right_one(client: TestClient) -> None:
    response = client.delete("/count")
    assert response.status_code == 405
    assert response.json()["kind"] == "method-not-allowed"
    assert response.json()["detail"] == "/count does not answer DELETE; use GET."
    assert response.headers["allow"] == "GET, HEAD"


def test_an_invalid_parameter_is_named_with_its_value(client: TestClient) -> None:
    response = client.get("/count?k=many")
    assert response.status_code == 400
    assert response.json()["kind"] == "invalid-request"
    assert response.json()["detail"].startswith("Parameter k is 'many': ")


def test_a_missing_parameter_is_named(client: TestClient) -> None:
    assert client.get("/count").json()["detail"] == "Parameter k: Field required."


def test_a_long_value_is_cut(client: TestClient) -> None:
    assert len(client.get("/count", params={"k": "x" * 10_000}).text) < 1_000
