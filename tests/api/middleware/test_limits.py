"""The three layers that refuse: how many, how long, how large."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from api.errors import add_error_handlers
from api.middleware.body_limit import BodyLimit
from api.middleware.capacity import Capacity
from api.middleware.time_limit import TimeLimit
from tests.api.test_app import served


def application() -> FastAPI:
    app = FastAPI()
    add_error_handlers(app)
    return app


def assert_problem(response: httpx.Response, status: int, kind: str) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["kind"] == kind


# How many ------------------------------------------------------------------------------------


def test_what_is_too_many_is_refused_until_others_are_done() -> None:
    app = application()
    entered, leave = threading.Semaphore(0), threading.Event()

    @app.get("/wait")
    def wait() -> str:
        entered.release()
        assert leave.wait(30)
        return "done"

    @app.get("/health/live")
    async def live() -> str:
        return "alive"

    with served(Capacity(app, most=2)) as address, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(httpx.get, f"{address}/wait", timeout=60) for _ in range(2)]
        for _ in waiting:
            assert entered.acquire(timeout=30)
        refused = httpx.get(f"{address}/wait")
        alive = httpx.get(f"{address}/health/live")
        leave.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert httpx.get(f"{address}/wait").status_code == 200
    assert_problem(refused, 503, "too-busy")
    assert int(refused.headers["retry-after"]) >= 1
    assert alive.status_code == 200


def test_requests_that_failed_make_room() -> None:
    app = application()

    @app.get("/fail")
    def fail() -> None:
        raise RuntimeError

    client = TestClient(Capacity(app, most=1), raise_server_exceptions=False)
    assert [client.get("/fail").status_code for _ in range(3)] == [500, 500, 500]


# How long ------------------------------------------------------------------------------------


def test_what_takes_too_long_is_answered_at_the_limit_and_the_connection_goes_on() -> None:
    app = application()
    leave = threading.Event()

    @app.get("/wait")
    def wait() -> str:
        assert leave.wait(30)
        return "late"

    @app.get("/quick")
    async def quick() -> str:
        return "quick"

    with (
        served(TimeLimit(app, limit_s=0.2)) as address,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        given_up = client.get("/wait")
        assert not leave.is_set(), "the answer must not wait for the thread"
        after = client.get("/quick")
        leave.set()
    assert_problem(given_up, 503, "request-timeout")
    assert int(given_up.headers["retry-after"]) >= 1
    assert "0.2 s" in given_up.json()["detail"]
    assert after.json() == "quick"


def test_an_answer_that_started_in_time_may_take_longer() -> None:
    app = application()

    @app.get("/stream")
    def stream() -> StreamingResponse:
        def parts() -> Iterator[bytes]:
            yield b"first "
            time.sleep(0.4)
            yield b"last"

        return StreamingResponse(parts())

    with served(TimeLimit(app, limit_s=0.2)) as address:
        assert httpx.get(f"{address}/stream").text == "first last"


def test_a_body_that_never_comes_is_given_up() -> None:
    app = application()

    @app.post("/")
    async def post(request: Request) -> int:
        return len(await request.body())

    def dripping() -> Iterator[bytes]:
        yield b"x"
        time.sleep(0.6)
        yield b"x"

    with served(TimeLimit(app, limit_s=0.2)) as address:
        response = httpx.post(address, content=dripping())
    assert_problem(response, 503, "request-timeout")


def test_what_fails_after_its_limit_is_logged_and_not_answered_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails_late(*_: object) -> None:
        await asyncio.sleep(0.2)
        raise RuntimeError("the password is secret")

    response = TestClient(TimeLimit(fails_late, limit_s=0.05)).get("/")
    assert response.status_code == 503
    assert response.json()["kind"] == "request-timeout"
    assert "Failed after its time limit: RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_an_answer_that_comes_too_late_is_dropped() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.2)
        await PlainTextResponse("late")(scope, receive, send)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await TimeLimit(late, limit_s=0.05)(scope, receive, send)
    assert [message.get("status") for message in sent] == [503, None]


# How large -----------------------------------------------------------------------------------

LIMIT = 1000


@pytest.fixture(scope="module")
def sized() -> Iterator[str]:
    app = application()

    @app.post("/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.post("/json")
    async def json(numbers: list[int]) -> int:
        return sum(numbers)

    @app.post("/ignore")
    async def ignore() -> str:
        return "not read"

    with served(BodyLimit(app, LIMIT)) as address:
        yield address


def chunks(size: int) -> Iterator[bytes]:
    for start in range(0, size, 100):
        yield b"1" * min(100, size - start)


@pytest.mark.parametrize("path", ["/read", "/json", "/ignore"])
def test_a_declared_body_that_is_too_large_is_refused(sized: str, path: str) -> None:
    response = httpx.post(f"{sized}{path}", content=b"1" * (LIMIT + 1))
    assert_problem(response, 413, "body-too-large")
    assert "1000 bytes" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/read", "/json"])
def test_an_undeclared_body_that_grows_too_large_is_refused(sized: str, path: str) -> None:
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=sized) as client:
        for _ in range(2):
            response = client.post(path, content=chunks(LIMIT + 1), headers=headers)
            assert_problem(response, 413, "body-too-large")
        assert client.post("/read", content=b"x").json() == 1


def test_a_body_of_just_the_limit_passes(sized: str) -> None:
    assert httpx.post(f"{sized}/read", content=b"x" * LIMIT).json() == LIMIT
    assert httpx.post(f"{sized}/read", content=chunks(LIMIT)).json() == LIMIT


async def test_a_refused_body_is_read_no_further() -> None:
    taken = 0
    sent: list[Message] = []

    async def endless() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "http.request":
            pass
        await PlainTextResponse("all of it")(scope, receive, send)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await BodyLimit(reads_all, LIMIT)(scope, endless, send)
    assert taken == 11
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 413


async def test_an_answer_that_has_started_is_not_answered_again() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * (LIMIT + 1), "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    async def answers_first(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b""})

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await BodyLimit(answers_first, LIMIT)(scope, receive, send)
    assert [message.get("status") for message in sent] == [200, None]
