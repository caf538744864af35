"""Clients that are slow, too many, too large or not who they say, at a real ``parcelle serve``."""

import contextlib
import gzip
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from api import http_protocol
from api.app import create_app
from api.http_protocol import BoundedHttpToolsProtocol
from api.settings import ApiSettings
from indexer.settings import Settings
from tests.api.test_app import PARCEL, api_settings, served

FORM = "multipart/form-data; boundary=x"


@pytest.fixture(scope="module")
def address(demo_index: Settings) -> Iterator[str]:
    with served(create_app(api_settings(demo_index)), http=BoundedHttpToolsProtocol) as address:
        yield address


@contextlib.contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 30) as client:
        yield client


def is_cut_off(client: socket.socket) -> bool:
    """Whether the other side closes it, whatever it says before."""
    client.settimeout(20)
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def drip(client: socket.socket) -> None:
    """Send a byte now and then."""
    for _ in range(200):
        client.sendall(b"x")
        time.sleep(0.05)


# Slow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", [b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "]
)
def test_a_request_whose_head_never_comes_is_cut_off(
    address: str, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.5)
    with connected(address) as client:
        client.sendall(start)
        assert is_cut_off(client)


def test_a_head_that_drips_is_cut_off_however_often_some_of_it_comes(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.5)
    with connected(address) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        with pytest.raises(ConnectionError):
            drip(client)


def test_so_is_one_on_a_connection_that_was_answered_before(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.5)
    with connected(address) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"GET /health/li")
        assert is_cut_off(client)


def test_the_rest_of_a_refused_body_may_not_drip_without_end(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "REST_TIMEOUT_S", 0.5)
    head = b"POST /search HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
    with connected(address) as client:
        client.sendall(head + b"Content-Length: 900000\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 415 ")
        with pytest.raises(ConnectionError):
            drip(client)


def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "STALL_TIMEOUT_S", 0.5)
    script = "/docs/swagger-ui-bundle.js"
    whole = len(httpx.get(f"{address}{script}").content)
    asked = 40
    with connected(address) as client:
        client.sendall(f"GET {script} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * asked)
        time.sleep(1.5)
        client.settimeout(20)
        taken = 0
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(1 << 20):
                taken += len(piece)
    # What lay in the system's buffers still came.
    assert whole < 2 << 20
    assert taken < asked * whole / 2


def test_slow_clients_do_not_keep_others_waiting(address: str) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(100):
            held.enter_context(connected(address)).sendall(b"POST /search HTTP/1.1\r\nHost: a\r\nX")
        assert httpx.get(f"{address}{PARCEL}").status_code == 200


def test_connections_beyond_the_bound_are_closed_and_the_others_answered(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "MAX_CONNECTIONS", 5)
    with contextlib.ExitStack() as held:
        first = held.enter_context(connected(address))
        first.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        others = [held.enter_context(connected(address)) for _ in range(8)]
        assert is_cut_off(others[-1])
        first.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")


# Large ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/search", "application/json"),
        ("POST", "/mcp", "application/json"),
        ("PUT", "/clusters/1/name?collection=demo", "application/json"),
        ("POST", "/search", "text/plain"),
    ],
)
def test_a_body_that_would_be_parsed_at_once_is_at_most_a_mebibyte(
    address: str, method: str, path: str, kind: str
) -> None:
    """64 MiB of empty lists take gigabytes once they are parsed."""
    response = httpx.request(
        method, f"{address}{path}", content=b"[[]," * (1 << 19), headers={"Content-Type": kind}
    )
    assert response.status_code == 413
    assert response.json()["kind"] == "body-too-large"


def test_json_is_not_followed_down_without_end(address: str) -> None:
    for content in (
        b"[" * 500_000,
        b'{"filter":' * 50_000,
        b'{"filter":' + b"[" * 900 + b"]" * 900,
    ):
        response = httpx.post(
            f"{address}/search", content=content, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 400, response.text[:300]


def test_the_last_of_members_that_repeat_counts_and_none_is_executed_twice(address: str) -> None:
    content = b'{"positive": ["demo-001"], "k": 500000, "k": 1, "positive": ["demo-003"]}'
    response = httpx.post(
        f"{address}/search", content=content, headers={"Content-Type": "application/json"}
    )
    assert len(response.json()["features"]) == 1


def test_a_form_of_very_many_parts_is_refused(address: str) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n'
    content = b"".join(part % number for number in range(100_000)) + b"--x--\r\n"
    response = httpx.post(f"{address}/search", content=content, headers={"Content-Type": FORM})
    assert response.status_code == 400
    assert response.json()["kind"] == "invalid-request"


def test_a_form_of_many_files_and_one_with_endless_headers_are_refused(address: str) -> None:
    file = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n1\r\n'
    endless = b'--x\r\nContent-Disposition: form-data; name="image"; filename="' + b"a" * (4 << 20)
    for content in (file * 3 + b"--x--\r\n", endless + b'"\r\n\r\n1\r\n--x--\r\n'):
        response = httpx.post(f"{address}/search", content=content, headers={"Content-Type": FORM})
        assert response.status_code in {400, 422}, response.text[:300]


def test_a_compressed_body_is_not_unpacked(address: str) -> None:
    bomb = gzip.compress(b'{"positive": ["demo-003"]}' + b" " * (16 << 20))
    response = httpx.post(
        f"{address}/search",
        content=bomb,
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    )
    assert response.status_code == 400
    assert "no JSON" in response.json()["detail"]


# Elsewhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../settings.py",
        "/static/x/..%2f..%2f..%2fsettings.py",
        "/static/%2e%2e/%2e%2e/settings.py",
        "/docs/..%2fsettings.py",
        "/docs/%2e%2e%5csettings.py",
        "/docs//etc/passwd",
        "/static/x//etc/passwd",
    ],
)
def test_no_path_leads_to_another_file(address: str, path: str) -> None:
    with connected(address) as client:
        # As it is: clients would tidy it up.
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"root:" not in answer
    assert b"pydantic" not in answer


def test_pages_of_other_origins_get_no_credentials(demo_index: Settings) -> None:
    settings = ApiSettings(**demo_index.model_dump(), api_keys="", cors_origins="https://a.org")
    with served(create_app(settings)) as address:
        for origin in ("https://a.org", "https://evil.org", "null"):
            answer = httpx.get(f"{address}{PARCEL}", headers={"Origin": origin})
            assert "access-control-allow-credentials" not in answer.headers
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == ("https://a.org" if origin == "https://a.org" else None)


def test_a_page_whose_name_was_made_to_resolve_to_this_machine_reads_and_changes_nothing(
    demo_index: Settings,
) -> None:
    settings = ApiSettings(**demo_index.model_dump(), api_keys="", allowed_hosts="a.example.org")
    with served(create_app(settings)) as address:
        port = address.rpartition(":")[2]
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "127.0.0.1.evil.example",
            "",
            "a:b:80",
        ):
            for method, path in (("GET", PARCEL), ("DELETE", "/clusters/1/name?collection=demo")):
                answer = httpx.request(method, f"{address}{path}", headers={"Host": host})
                assert answer.status_code == 421
                assert answer.json()["kind"] == "host-refused"
                assert "PARCELLE_ALLOWED_HOSTS" in answer.json()["detail"]
        for host in ("127.0.0.1", f"LOCALHOST:{port}", f"[::1]:{port}", "a.example.org"):
            answer = httpx.get(f"{address}{PARCEL}", headers={"Host": host})
            assert answer.status_code == 200


def test_with_a_key_any_name_will_do(demo_index: Settings) -> None:
    settings = ApiSettings(**demo_index.model_dump(), api_keys="k", allowed_hosts="127.0.0.1")
    with served(create_app(settings)) as address:
        headers = {"Host": "maps.example.org", "X-API-Key": "k"}
        assert httpx.get(f"{address}{PARCEL}", headers=headers).status_code == 200
