import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from api.metrics import Metrics
from indexer.settings import Settings
from tests.api.test_app import PARCEL, api_settings, in_folder

COUNT_AND_STAY = """
import sys
from api.metrics import Metrics

metrics = Metrics()
metrics.count_request(method="GET", route="/", status=200, seconds=0.02)
metrics.in_flight.inc()
print("counted", flush=True)
sys.stdin.read()
"""

SCRAPE = """
from api.metrics import Metrics

print(Metrics().exposition(list).decode())
"""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


@pytest.fixture
def client(demo_index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings(demo_index))) as client:
        yield client


def scraped(client: TestClient) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return samples(response.text)


def test_requests_are_counted_by_the_template_of_their_route(client: TestClient) -> None:
    similar = "/collections/{collection}/items/{parcel_id}/similar"
    for parcel in ("demo-003", "demo-004", "no-such"):
        client.get(f"/collections/demo/items/{parcel}/similar")
    client.head("/health/live")
    client.get("/no/such/route")
    client.request("BREW", "/no/such/route")
    found = scraped(client)
    name = "parcelle_http_requests_total"
    assert value(found, name, method="GET", route=similar, status="200") == 2
    assert value(found, name, method="GET", route=similar, status="404") == 1
    assert value(found, name, method="HEAD", route="/health/live", status="200") == 1
    assert value(found, name, method="GET", route="unmatched", status="404") == 1
    assert value(found, name, method="other", route="unmatched", status="404") == 1
    assert value(found, "parcelle_http_request_seconds_count", route=similar) == 3
    assert value(found, "parcelle_http_request_seconds_bucket", route=similar, le="+Inf") == 3
    assert value(found, "parcelle_http_requests_in_flight") == 1, "this one"
    assert not [labels for _, labels in found if "no-such" in str(labels)]


def test_searches_are_timed_whichever_door_they_come_through(client: TestClient) -> None:
    client.get(f"{PARCEL}/similar")
    client.get(f"{PARCEL}/state")
    assert value(scraped(client), "parcelle_search_seconds_count") == 1
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "find_similar_parcels", "arguments": {"parcel_id": "demo-003"}},
    }
    headers = {"Accept": "application/json, text/event-stream", "Host": "127.0.0.1"}
    answer = client.post("/mcp", json=call, headers=headers)
    assert answer.status_code == 200
    assert not answer.json()["result"]["isError"]
    found = scraped(client)
    assert value(found, "parcelle_search_seconds_count") == 2
    name = "parcelle_http_requests_total"
    assert value(found, name, method="POST", route="/mcp", status="200") == 1


def test_the_index_that_answers_is_told(client: TestClient) -> None:
    (ready,) = client.get("/health/ready").json()["generations"]
    space = ready["space"]
    found = scraped(client)
    assert value(found, "parcelle_index_rows", space=space["id"]) == ready["rows"]
    assert value(found, "parcelle_generation", space=space["id"]) == 1
    info = {"space": space["id"], "encoder": "croma-tiny", "weights": "untrained"}
    assert value(found, "parcelle_space_info", **info) == 1


def test_applications_of_one_process_count_apart(demo_index: Settings) -> None:
    with (
        TestClient(create_app(api_settings(demo_index))) as first,
        TestClient(create_app(api_settings(demo_index))) as second,
    ):
        first.get("/health/live")
        labels = {"method": "GET", "route": "/health/live", "status": "200"}
        assert value(scraped(first), "parcelle_http_requests_total", **labels) == 1
        assert value(scraped(second), "parcelle_http_requests_total", **labels) is None


def test_metrics_are_there_without_an_index(tmp_path: Path) -> None:
    with TestClient(create_app(in_folder(tmp_path / "nothing"))) as client:
        found = scraped(client)
    names = {name for name, _ in found}
    assert "parcelle_build_info" in names
    assert "parcelle_index_rows" not in names


def test_metrics_need_a_key_where_keys_are_set(demo_index: Settings) -> None:
    with TestClient(create_app(api_settings(demo_index, keys="sesame"))) as client:
        assert client.get("/metrics").status_code == 401
        opened = client.get("/metrics", headers={"Authorization": "Bearer sesame"})
        assert opened.status_code == 200
        assert "sesame" not in opened.text


def test_a_failing_catalog_hides_the_index_only() -> None:
    from indexer.errors import StorageError

    def gone() -> list[object]:
        raise StorageError("The database is gone.", kind="database-unreachable")

    metrics = Metrics()
    metrics.count_search(0.02)
    found = samples(metrics.exposition(gone).decode())  # type: ignore[arg-type]
    assert value(found, "parcelle_search_seconds_bucket", le="0.01") == 0
    assert value(found, "parcelle_search_seconds_bucket", le="0.025") == 1
    assert value(found, "parcelle_search_seconds_sum") == 0.02


def test_processes_that_share_a_folder_are_told_together_and_the_dead_hold_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    def scrape() -> Samples:
        ran = subprocess.run(
            [sys.executable, "-c", SCRAPE], capture_output=True, text=True, check=True, timeout=60
        )
        return samples(ran.stdout)

    def counted(found: Samples) -> float | None:
        labels = {"method": "GET", "route": "/", "status": "200"}
        return value(found, "parcelle_http_requests_total", **labels)

    command = [sys.executable, "-c", COUNT_AND_STAY]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"counted\n"
        both = scrape()
        workers[0].kill()
        workers[0].wait(30)
        one = scrape()
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate(timeout=30)
    assert (counted(both), counted(one)) == (2, 2)
    assert value(both, "parcelle_http_request_seconds_bucket", route="/", le="0.025") == 2
    assert value(both, "parcelle_http_requests_in_flight") == 2
    assert value(one, "parcelle_http_requests_in_flight") == 1
