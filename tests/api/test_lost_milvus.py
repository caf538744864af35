"""A service whose Milvus server goes away and comes back."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.settings import ApiSettings
from indexer.milvus import server as milvus_server
from indexer.milvus.backend import MilvusBackend
from indexer.settings import Settings
from tests.indexer.milvus.conftest import Process
from tests.retriever.planted import Seen, at_cosine, plant, settings_in

PARCELS = [Seen(f"p{number}", at_cosine(0.9 - 0.1 * number)) for number in range(5)]
SIMILAR = "/collections/demo/items/p1/similar"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    """Milvus Lite as a server of its own."""
    one = Process(tmp_path / "served")
    yield one
    one.kill()


@pytest.fixture
def index(server: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Five parcels, whose vectors that server holds."""
    monkeypatch.setattr(milvus_server, "SECONDS", 2.0)
    settings = settings_in(tmp_path / "data").model_copy(
        update={"vector_backend": "milvus", "milvus_uri": server.uri}
    )
    plant(settings, PARCELS)
    yield settings
    MilvusBackend.of(settings).server.close()


def served(index: Settings) -> TestClient:
    return TestClient(create_app(ApiSettings(**index.model_dump(), api_keys="")))


def assert_away(response: httpx2.Response, index: Settings) -> None:
    assert response.status_code == 503
    assert response.json()["kind"] == "milvus-unreachable"
    assert response.headers["Retry-After"] == "5"
    # What strangers are told holds no address.
    assert index.milvus_uri.removeprefix("http://") not in response.text


def answer_of(client: TestClient) -> httpx2.Response:
    """What the service answers as soon as the server is there again."""
    until = time.monotonic() + 30
    while (response := client.get(SIMILAR)).status_code == 503 and time.monotonic() < until:
        time.sleep(0.1)
    return response


def ids(response: httpx2.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [one["id"] for one in response.json()["features"]]


def test_searches_are_refused_while_milvus_is_away_and_go_on_when_it_is_back(
    server: Process, index: Settings
) -> None:
    with served(index) as client:
        before = ids(client.get(SIMILAR))
        assert sorted(before) == ["p0", "p2", "p3", "p4"]
        server.kill()
        assert_away(client.get(SIMILAR), index)
        # What asks no vector goes on.
        assert client.get("/collections/demo/items/p1").status_code == 200
        server.start()
        assert ids(answer_of(client)) == before


def test_a_service_that_starts_before_milvus_does_answers_when_it_is_there(
    server: Process, index: Settings
) -> None:
    server.kill()
    with served(index) as client:
        assert_away(client.get(SIMILAR), index)
        assert_away(client.get("/health/ready"), index)
        server.start()
        assert sorted(ids(answer_of(client))) == ["p0", "p2", "p3", "p4"]
        assert client.get("/health/ready").status_code == 200


def test_a_setting_that_names_the_other_backend_is_refused_without_a_word_of_where(
    index: Settings,
) -> None:
    with served(index.model_copy(update={"vector_backend": "faiss"})) as client:
        response = client.get(SIMILAR)
    assert (response.status_code, response.json()["kind"]) == (503, "backend-differs")
    assert "Retry-After" not in response.headers
    assert str(index.data_dir) not in response.text
