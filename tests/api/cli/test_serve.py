"""``parcelle serve`` as processes of its own, as an operator runs it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from api.keys import new_key
from indexer.settings import Settings
from tests.api.test_app import PARCEL
from tests.api.test_metrics import samples, value

SIMILAR = "/collections/{collection}/items/{parcel_id}/similar"
CALL = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'


@dataclass
class Serving:
    """A running service."""

    address: str
    port: int
    process: subprocess.Popen[bytes]
    folder: Path

    def end(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    @property
    def messages(self) -> list[dict[str, object]]:
        """What it has logged."""
        lines = (self.folder / "log").read_text().splitlines()
        assert lines[0].startswith("Serving ")
        return [json.loads(line) for line in lines[1:]]


Serve = Callable[..., Serving]


@pytest.fixture
def serve(tmp_path: Path, demo_index: Settings) -> Iterator[Serve]:
    """Start services on the demo index; all that is left of them is killed."""
    with starting(tmp_path, demo_index) as start:
        yield start


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, demo_index: Settings) -> Iterator[Serving]:
    """One service for tests that only ask it."""
    with starting(tmp_path_factory.mktemp("serving"), demo_index) as start:
        yield start()


@contextlib.contextmanager
def starting(folder: Path, index: Settings) -> Iterator[Serve]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str, **settings: str) -> Serving:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = {
            **{name: text for name, text in os.environ.items() if "PARCELLE" not in name},
            "PARCELLE_DATA_DIR": str(index.data_dir),
            "TMPDIR": str(folder),
            **{f"PARCELLE_{name}": text for name, text in settings.items()},
        }
        command = [str(Path(sys.executable).with_name("parcelle")), "serve", "--port", str(port)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *options], env=environment, stderr=log, start_new_session=True
            )
        started.append(process)
        serving = Serving(f"http://127.0.0.1:{port}", port, process, folder)
        wait_for(lambda: answers(serving))
        return serving

    try:
        yield start
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(serving: Serving) -> bool:
    assert serving.process.poll() is None, "the server ended before it answered"
    try:
        # Without certificates, which take longest to read.
        return httpx.get(f"{serving.address}/health/live", verify=False).status_code == 200
    except httpx.TransportError:
        return False


def processes_of(session: int) -> list[int]:
    """All living processes that a service and its workers are."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name: state, parent, process group, session.
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_request_that_is_running_at_sigterm_is_finished_and_the_exit_code_is_0(
    serve: Serve,
) -> None:
    serving = serve()
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{serving.port}\r\nContent-Length: {len(CALL)}\r\n"
        "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", serving.port)) as client:
        client.sendall(head.encode() + CALL[:10])
        time.sleep(0.3)
        serving.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(serving.port))
        client.sendall(CALL[10:])
        client.settimeout(30)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"find_similar_parcels" in answer
    assert serving.process.wait(60) == 0


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def ask_until_told_to_close(serving: Serving) -> int:
    """Answers on one connection, each of which was whole, until the service ends it."""
    connection = HTTPConnection("127.0.0.1", serving.port, timeout=30)
    with contextlib.closing(connection):
        for answered in range(1, 100_000):
            connection.request("GET", PARCEL)
            response = connection.getresponse()
            assert response.status == 200
            assert json.loads(response.read())["id"]
            if response.getheader("connection") == "close":
                return answered
    raise AssertionError("the service did not end")


def test_a_client_that_keeps_asking_is_told_to_go_and_never_cut_off(serve: Serve) -> None:
    serving = serve()
    with ThreadPoolExecutor(8) as clients:
        asking = [clients.submit(ask_until_told_to_close, serving) for _ in range(8)]
        time.sleep(1)
        serving.process.send_signal(signal.SIGTERM)
        assert all(client.result(60) for client in asking)
    assert serving.process.wait(60) == 0


def test_ctrl_c_ends_it_with_exit_code_0(serve: Serve) -> None:
    serving = serve()
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.wait(60) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_workers_answer_are_counted_together_and_leave_nothing_behind(serve: Serve) -> None:
    serving = serve("--workers", "2", LOG_LEVEL="INFO")
    asked = 0

    def both_have_answered() -> bool:
        nonlocal asked
        asked += 8
        # A connection stays with one worker, so each request makes its own.
        with ThreadPoolExecutor(4) as pool:
            urls = [f"{serving.address}{PARCEL}/similar?k=3"] * 8
            assert {found.status_code for found in pool.map(httpx.get, urls)} == {200}
        lines = [one for one in serving.messages if one.get("route") == SIMILAR]
        return len({one["process"] for one in lines}) == 2

    wait_for(both_have_answered)
    # A request is counted when its answer is out, so the last may come a moment later.
    wait_for(lambda: counted_searches(serving) == asked)
    found = samples(httpx.get(f"{serving.address}/metrics").text)
    assert value(found, "parcelle_search_seconds_count") == asked
    assert list(serving.folder.glob("parcelle-metrics-*"))
    pid = serving.process.pid
    assert len(processes_of(pid)) >= 3
    assert serving.end() == 0
    wait_for(lambda: not processes_of(pid))
    assert not list(serving.folder.glob("parcelle-metrics-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_worker_that_died_is_replaced(serve: Serve) -> None:
    serving = serve("--workers", "2", LOG_LEVEL="INFO")

    def started() -> set[object]:
        messages = [one for one in serving.messages if "Started server" in str(one["message"])]
        return {one["process"] for one in messages}

    wait_for(lambda: len(started()) == 2)
    (first, *_) = started()
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(started()) == 3)
    wait_for(lambda: answers(serving))
    assert serving.end() == 0


def counted_searches(serving: Serving) -> float | None:
    found = samples(httpx.get(f"{serving.address}/metrics").text)
    labels = {"method": "GET", "route": SIMILAR, "status": "200"}
    return value(found, "parcelle_http_requests_total", **labels)


def test_the_log_has_a_line_of_json_for_each_request_and_no_secret(serve: Serve) -> None:
    serving = serve(LOG_LEVEL="INFO", API_KEYS="sesame")
    headers = {"X-API-Key": "sesame", "X-Request-ID": "mine"}
    url = f"{serving.address}{PARCEL}?datetime=2023-04-24/hidden"
    assert httpx.get(url, headers=headers).status_code == 400
    assert serving.end() == 0
    (line,) = [one for one in serving.messages if one.get("request_id") == "mine"]
    assert line["level"] == "INFO"
    assert (line["method"], line["path"], line["status"]) == ("GET", PARCEL, 400)
    written = (serving.folder / "log").read_text()
    assert "sesame" not in written
    assert "hidden" not in written


def test_by_default_the_log_is_silent_about_what_goes_well(serve: Serve) -> None:
    serving = serve()
    assert httpx.get(f"{serving.address}{PARCEL}").status_code == 200
    assert serving.end() == 0
    assert serving.messages == []


def test_keys_stored_in_plain_form_are_warned_of_and_kept_by_no_worker(serve: Serve) -> None:
    key, kept = new_key("read")
    serving = serve("--workers", "2", API_KEYS=f"sesame,{kept.entry}")
    for one, status in ((key, 200), ("sesame", 200), (kept.entry, 401)):
        answer = httpx.get(f"{serving.address}{PARCEL}", headers={"X-API-Key": one})
        assert answer.status_code == status
    workers = [pid for pid in processes_of(serving.process.pid) if pid != serving.process.pid]
    held = [Path(f"/proc/{pid}/environ").read_bytes() for pid in workers]
    assert [environ for environ in held if b"sesame" in environ] == []
    assert serving.end() == 0
    (warning,) = [one for one in serving.messages if one["level"] == "WARNING"]
    assert str(warning["message"]).startswith("1 of the keys in PARCELLE_API_KEYS can be read")
    assert "sesame" not in str(serving.messages)


def test_without_keys_only_names_of_this_machine_may_be_asked(serve: Serve) -> None:
    serving = serve(ALLOWED_HOSTS="maps.example.org")
    for host, status in (("maps.example.org", 200), ("localhost", 200), ("evil.example", 421)):
        answer = httpx.get(f"{serving.address}{PARCEL}", headers={"Host": host})
        assert answer.status_code == status


def test_an_upload_that_ends_its_process_costs_the_service_nothing(serve: Serve) -> None:
    serving = serve()
    files = {"image": ("a.tif", b"no image", "image/tiff")}

    def asked() -> int:
        return httpx.post(f"{serving.address}/search", files=files, timeout=60).status_code

    assert asked() == 422
    server = serving.process.pid
    (decoder,) = [pid for pid in processes_of(server) if pid != server]
    os.kill(decoder, signal.SIGSEGV)
    assert asked() == 422
    (other,) = [pid for pid in processes_of(server) if pid != server]
    assert other != decoder
    assert serving.end() == 0
    wait_for(lambda: not processes_of(server))
    assert not list(serving.folder.glob("parcelle-decoding-*"))


def test_a_password_of_the_database_is_not_logged(serve: Serve) -> None:
    url = "postgresql+psycopg://parcelle:sesame@127.0.0.1:1/parcelle"
    serving = serve(DATABASE_URL=url, LOG_LEVEL="INFO")
    response = httpx.get(f"{serving.address}{PARCEL}", headers={"X-Request-ID": "mine"})
    assert response.status_code == 503
    assert serving.end() == 0
    assert [one for one in serving.messages if one.get("request_id") == "mine"]
    assert "sesame" not in (serving.folder / "log").read_text() + response.text


def test_the_server_does_not_tell_what_it_runs_on(shared: Serving) -> None:
    assert "server" not in httpx.get(f"{shared.address}/health/live").headers
    for request in (
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"\x00" * 10 + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", shared.port)) as client:
            client.settimeout(30)
            client.sendall(request)
            assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert answers(shared)


def test_headers_that_come_to_no_end_are_refused(shared: Serving) -> None:
    with socket.create_connection(("127.0.0.1", shared.port)) as client:
        client.settimeout(30)
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                client.sendall(b"x" * 10_000)
        with contextlib.suppress(ConnectionError):
            assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert answers(shared)


def test_long_headers_that_end_are_read_on_one_connection(shared: Serving) -> None:
    with httpx.Client(base_url=shared.address) as client:
        for _ in range(3):
            headers = {f"X-Long-{number}": "x" * 5_000 for number in range(10)}
            assert client.get("/health/live", headers=headers).status_code == 200
            assert client.post("/mcp", content=b"x" * 500_000).status_code == 400


def test_a_port_that_is_taken_is_a_failure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [str(Path(sys.executable).with_name("parcelle")), "serve", "--port", port]
        environment = {**os.environ, "PARCELLE_DATA_DIR": str(tmp_path)}
        ran = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert ran.returncode == 1
    assert b"address already in use" in ran.stderr
