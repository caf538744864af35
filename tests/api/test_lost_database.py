"""``parcelle serve`` while its PostgreSQL server is away: refusals in time, then as before."""

import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from api.dependencies import LazySearcher
from indexer.settings import Settings
from tests.api.serving import serving_process
from tests.postgres import NoServerError, Server, started_server
from tests.retriever.planted import Seen, at_cosine, plant

pytestmark = pytest.mark.postgres

SIMILAR: Final = "/collections/demo/items/a/similar"
ROUTES: Final = (SIMILAR, "/collections/demo/items", "/collections/demo/items/a", "/health/ready")

AWAY_S: Final = 30 if os.environ.get("PARCELLE_FAULT_ROUNDS") else 3
"""How long the server is away."""

PATIENCE_S: Final = 20
"""Within seconds, on a machine that has much else to do."""

LOSSES: Final[dict[str, tuple[Callable[[Server], None], Callable[[Server], None]]]] = {
    "is stopped": (lambda server: server.stop("fast"), Server.start),
    "is killed": (lambda server: server.stop("immediate"), Server.start),
    "hangs": (Server.pause, Server.resume),
}


@dataclass(frozen=True)
class Asked:
    """One answer, and when it was asked for."""

    at: float
    seconds: float
    response: httpx.Response


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    try:
        with started_server(port) as server:
            yield server
    except NoServerError as error:
        pytest.skip(f"PostgreSQL: none can be started here ({error})")


@pytest.fixture(scope="module")
def service(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service whose index has two parcels on that server."""
    folder = tmp_path_factory.mktemp("lost")
    index = Settings(data_dir=folder, database_url=server.url, croma_weights="untrained")
    plant(index, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))])
    with serving_process(index) as (address, _):
        yield address


class Client:
    """Asks one question all the time, and notes what it is told."""

    def __init__(self, address: str) -> None:
        self.answers: list[Asked] = []
        self._http = httpx.Client(base_url=address, timeout=PATIENCE_S)
        self._done = threading.Event()

    def get(self, path: str) -> Asked:
        """Ask; fails where no answer comes in time."""
        started = time.monotonic()
        response = self._http.get(path)
        return Asked(started, time.monotonic() - started, response)

    def keep_asking(self) -> None:
        """Until told otherwise."""
        while not self._done.is_set():
            self.answers.append(self.get(SIMILAR))
            time.sleep(0.05)

    def end(self) -> None:
        """Stop asking."""
        self._done.set()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()


def is_refusal(response: httpx.Response) -> bool:
    return (
        response.status_code == 503
        and response.headers["Content-Type"] == "application/problem+json"
        and response.json()["kind"] == "database-unreachable"
        and response.headers["Retry-After"] == "5"
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_while_the_database_is_away_all_is_refused_in_time_and_then_answered_as_before(
    server: Server, service: str, loss: str
) -> None:
    with closing(Client(service)) as client:
        lose_and_find(server, client, loss)


def lose_and_find(server: Server, client: Client, loss: str) -> None:
    lose, find = LOSSES[loss]
    before = [client.get(path).response for path in ROUTES]
    assert {response.status_code for response in before} == {200}
    with ThreadPoolExecutor(1) as elsewhere:
        asking = elsewhere.submit(client.keep_asking)
        try:
            lost = time.monotonic()
            lose(server)
            with ThreadPoolExecutor(20) as many:
                refused = list(many.map(client.get, 10 * ROUTES))
            alive = client.get("/health/live")
            time.sleep(max(0.0, lost + AWAY_S - time.monotonic()))
            still_away = [client.get(path) for path in ROUTES]
            found = time.monotonic()
            find(server)
            wait_until(lambda: client.get("/health/ready").response.status_code == 200)
            after = [client.get(path).response for path in ROUTES]
        finally:
            client.end()
        asking.result()
    assert all(is_refusal(one.response) for one in (*refused, *still_away))
    assert alive.response.status_code == 200
    assert [response.json() for response in after] == [response.json() for response in before]
    in_between = [one for one in client.answers if one.response.status_code != 200]
    assert in_between
    assert all(is_refusal(one.response) for one in in_between)
    assert client.answers[-1].response.status_code == 200
    tell(loss, lost, found, refused + still_away, client.answers)


def test_those_who_ask_at_once_for_a_database_that_hangs_do_not_wait_for_one_another(
    server: Server, service: str, tmp_path: Path
) -> None:
    """Nothing is open yet, so that each of them has to."""
    assert httpx.get(f"{service}/health/ready").status_code == 200
    index = Settings(data_dir=tmp_path, database_url=server.url, croma_weights="untrained")
    lazy = LazySearcher(index)
    started = time.monotonic()
    server.pause()
    try:
        with ThreadPoolExecutor(20) as many:
            failed = [asking.exception() for asking in [many.submit(lazy.get) for _ in range(20)]]
    finally:
        server.resume()
    # One after the other, they would take 100 s.
    assert time.monotonic() - started < PATIENCE_S
    assert {getattr(error, "kind", error) for error in failed} == {"database-unreachable"}
    lazy.get()
    lazy.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it does not answer again"
        time.sleep(0.05)


def tell(loss: str, lost: float, found: float, others: list[Asked], asked: list[Asked]) -> None:
    """What clients saw, as one line of JSON."""
    refused = [one for one in asked if one.response.status_code == 503]
    answered = [one for one in asked if one.response.status_code == 200 and one.at > found]
    line: dict[str, Any] = {
        "fault": f"the database {loss}",
        "away_s": round(found - lost, 1),
        "first_503_after_s": round(refused[0].at + refused[0].seconds - lost, 2),
        "slowest_503_s": round(max(one.seconds for one in (*others, *refused)), 2),
        "answers": dict(Counter(one.response.status_code for one in (*others, *asked))),
        "answered_again_after_s": round(answered[0].at + answered[0].seconds - found, 2),
    }
    print(json.dumps(line))
