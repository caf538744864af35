from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient

from api.middleware.security import SecurityHeaders


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI()

    @app.get("/page")
    def page() -> HTMLResponse:
        return HTMLResponse("<p>")

    @app.get("/own")
    def own() -> HTMLResponse:
        policies = {
            "Content-Security-Policy": "default-src 'none'",
            "Referrer-Policy": "same-origin",
        }
        return HTMLResponse("<p>", headers=policies)

    @app.get("/json")
    def json() -> dict[str, int]:
        return {}

    with TestClient(SecurityHeaders(app)) as client:
        yield client


@pytest.mark.parametrize("path", ["/page", "/json", "/nowhere"])
def test_every_answer_is_not_sniffed_and_not_referred_to(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_a_page_loads_from_this_service_only(client: TestClient) -> None:
    policy = client.get("/page").headers["content-security-policy"]
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == "'self'"
    assert set(directives.values()) == {"'self'", "'none'"}


def test_a_page_keeps_policies_of_its_own(client: TestClient) -> None:
    headers = client.get("/own").headers
    assert headers.get_list("referrer-policy") == ["same-origin"]
    assert headers.get_list("content-security-policy") == ["default-src 'none'"]


def test_data_has_no_policy(client: TestClient) -> None:
    assert "content-security-policy" not in client.get("/json").headers
