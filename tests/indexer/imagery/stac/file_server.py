"""A file server on loopback that speaks ranges, counts what it sends, and misbehaves on demand."""

import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.indexer.imagery.stac.search_api import SearchApi

_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


@dataclass(frozen=True)
class Fault:
    """How the answers for one path go wrong."""

    status: int = 0
    """Answer with this status instead of the file; 0 answers with the file."""
    times: int | None = None
    """Only so many first requests go wrong; None means all of them."""
    skips: int = 0
    """So many first requests are answered well."""
    headers: dict[str, str] = field(default_factory=dict)
    cut: float = 1.0
    """Share of the promised bytes that is sent before the connection is closed."""
    hangs: bool = False
    """Take the request and never answer."""
    drips: bool = False
    """Send a byte every 50 ms."""
    content: bytes | None = None
    """Other bytes than the file's."""
    ignores_ranges: bool = False

    def __str__(self) -> str:
        """What is unusual, as the name of a test."""
        usual = Fault()
        unusual = {name: value for name, value in vars(self).items() if value != vars(usual)[name]}
        return ", ".join(f"{name} {str(value)[:20]}" for name, value in unusual.items())


@dataclass(frozen=True)
class Request:
    """One request as the server saw it."""

    method: str
    path: str
    range: tuple[int, int] | None


class FileServer:
    """Serves a folder, and on ``/api`` a STAC API if there is one."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.faults: dict[str, Fault] = {}
        self.api: SearchApi | None = None
        self.requests: list[Request] = []
        self.stopped = threading.Event()
        self._sent: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    def count(self, path: str) -> int:
        """Requests for a path."""
        return sum(request.path == path for request in self.requests)

    def sent(self, ending: str = "") -> int:
        """Bytes of bodies sent, of the paths with this ending."""
        return sum(size for path, size in self._sent.items() if path.endswith(ending))

    def forget(self) -> None:
        """Count from zero."""
        with self._lock:
            self.requests.clear()
            self._sent.clear()

    def note(self, request: Request) -> int:
        """Remember a request; how many there were before it for the same path."""
        with self._lock:
            self.requests.append(request)
            return self.count(request.path) - 1

    def add_sent(self, path: str, size: int) -> None:
        """Count bytes that went out."""
        with self._lock:
            self._sent[path] += size

    def fault(self, path: str, before: int) -> Fault:
        """How this request is to go wrong, if it is."""
        fault = self.faults.get(path, Fault())
        if before < fault.skips:
            return Fault()
        return Fault() if fault.times is not None and before >= fault.times else fault


@contextmanager
def serve_files(folder: Path) -> Iterator[FileServer]:
    """Serve a folder on a free port of loopback."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads = True
    server = FileServer(folder, http.server_address[1])
    http.files = server  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        http.shutdown()
        thread.join()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and bodies are written apart: with it, each answer would wait 40 ms.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.files: FileServer = self.server.files  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""

    def handle(self) -> None:
        # Whoever asked may have lost patience.
        with _ignore_closed():
            super().handle()

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes) -> None:
        path = urlsplit(self.path).path
        match = _RANGE.match(self.headers.get("Range", ""))
        asked = (int(match[1]), int(match[2] or 1 << 62)) if match else None
        before = self.files.note(Request(self.command, path, asked))
        fault = self.files.fault(path, before)
        if fault.hangs:
            self.files.stopped.wait(30)
            self.close_connection = True
            return
        if fault.status:
            self._send(fault.status, b"", fault, path)
            return
        content = fault.content if fault.content is not None else self._content(path, body)
        if content is None:
            self._send(404, b"no such file", fault, path)
        elif asked is None or fault.ignores_ranges:
            self._send(200, content, fault, path)
        else:
            self._send_range(content, asked, fault, path)

    def _content(self, path: str, body: bytes) -> bytes | None:
        api = self.files.api
        if api is not None and path.startswith("/api"):
            return api.answer(self.files.url, self.command, self.path, body)
        file = self.files.folder / path.lstrip("/")
        return file.read_bytes() if file.is_file() else None

    def _send_range(self, content: bytes, asked: tuple[int, int], fault: Fault, path: str) -> None:
        first, last = asked[0], min(asked[1], len(content) - 1)
        if first > last:
            self._send(416, b"", fault, path)
            return
        said = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self._send(206, content[first : last + 1], fault, path, said)

    def _send(
        self,
        status: int,
        content: bytes,
        fault: Fault,
        path: str,
        said: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        headers = {"Accept-Ranges": "bytes", "Content-Length": str(len(content))}
        for name, value in {**headers, **(said or {}), **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        content = content[: int(len(content) * fault.cut)]
        self.close_connection = self.close_connection or fault.cut < 1
        for piece in _pieces(content, 1 if fault.drips else 1 << 16):
            self.wfile.write(piece)
            self.files.add_sent(path, len(piece))
            if fault.drips and self.files.stopped.wait(0.05):
                return


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


@contextmanager
def _ignore_closed() -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, ConnectionResetError):
        pass
