"""Documents and files of servers that may be slow, broken or hostile."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urljoin

import orjson
import requests
import urllib3
from pystac_client.stac_api_io import StacApiIO

from indexer.errors import ImageryError, NotFoundError
from indexer.imagery.stac.addresses import Home, check_url, is_url, shown
from indexer.imagery.stac.limits import Limits

MAX_REDIRECTS: Final = 5
"""Servers that a request is sent on to, one after another."""

_GONE = (404, 410)
_REDIRECTS = (301, 302, 303, 307, 308)
_WITH_SAME_BODY = (307, 308)
_LATER = (429, 500, 502, 503, 504)
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PIECE_BYTES = 1 << 16

T = TypeVar("T")


class _TryAgainError(Exception):
    """What another attempt may put right."""

    def __init__(self, reason: str, wait_s: float = 0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class _Question:
    url: str
    method: str = "GET"
    headers: dict[str, str] | None = None
    params: dict[str, Any] | None = None
    json: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Answer:
    url: str
    """Where the answer came from, after all redirects."""
    status: int
    body: bytes


class PoliteIO(StacApiIO):
    """Reads documents for the STAC client, within limits of time, size and place.

    Args:
        home: Where the catalog lies, which decides where it may lead.
        limits: Of time and size.
        once: Whether asking for the same page again means that the pages go in a circle.
    """

    def __init__(self, home: Home, limits: Limits, *, once: bool = False) -> None:
        super().__init__(max_retries=None)
        self._home = home
        self._limits = limits
        self._once = once
        self._asked: set[tuple[str, str, bytes]] = set()
        self._page = ""

    def read_object(self, location: str) -> dict[str, Any]:
        """A JSON object from a server or a file.

        Raises:
            NotFoundError: ``file-not-found``, if there is none.
            ImageryError: ``unreachable``, ``href-refused``, ``catalog-invalid``, or
                ``catalog-limit`` if it is too large.
        """
        text = self.request(location) if is_url(location) else self._read_file(Path(location))
        try:
            content = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ImageryError(
                f"{shown(location)}: is no JSON ({error}); name a STAC document.",
                kind="catalog-invalid",
            ) from None
        if not isinstance(content, dict):
            raise ImageryError(
                f"{shown(location)}: is no JSON object; name a STAC document.",
                kind="catalog-invalid",
            )
        return content

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The text of a document; how the STAC client asks for everything.

        Raises:
            NotFoundError: ``file-not-found``.
            ImageryError: As ``read_object``; ``catalog-loop``, if pages go in a circle.
        """
        method = (method or "GET").upper()
        url = urljoin(self._page, href)
        self._note(method, url, parameters)
        self._page = url
        if method == "POST":
            question = _Question(url, method, headers, json=parameters)
        elif method == "GET":
            question = _Question(url, method, headers, params=parameters)
        else:
            raise _invalid(url, f"asks for a request {method[:20]}")
        answer = self._ask(question, self._limits.document_bytes)
        try:
            return answer.body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise _invalid(url, "is no text") from None

    def settle(self, url: str) -> str:
        """Where a GeoTIFF on a server finally lies, after redirects that are allowed.

        Raises:
            NotFoundError: ``file-not-found``.
            ImageryError: ``unreachable``, ``href-refused``; ``unreadable``, if it is no GeoTIFF.
        """
        # Of a compressed answer the first bytes would not be the file's.
        headers = {"Range": "bytes=0-3", "Accept-Encoding": "identity"}
        answer = self._ask(_Question(url, headers=headers), _PIECE_BYTES)
        if answer.status != 206:
            raise ImageryError(
                f"{shown(url)}: the server does not send parts of files (HTTP {answer.status} to "
                "a request for a range); download the file and name it on disk.",
                kind="unreadable",
            )
        if answer.body[:4] not in _TIFF:
            raise ImageryError(
                f"{shown(url)}: is no GeoTIFF; only GeoTIFF is read from servers.",
                kind="unreadable",
            )
        return answer.url

    def _read_file(self, path: Path) -> bytes:
        try:
            if path.exists() and not path.is_file():
                raise OSError("it is no file")
            with path.open("rb") as file:
                content = file.read(self._limits.document_bytes + 1)
        except FileNotFoundError:
            raise NotFoundError(f"{path}: no such file.", kind="file-not-found") from None
        except (OSError, ValueError) as error:
            raise ImageryError(f"{path}: cannot be read ({error}).", kind="unreadable") from None
        self._check_size(str(path), len(content))
        return content

    def _note(self, method: str, url: str, parameters: dict[str, Any] | None) -> None:
        asked = method, url, orjson.dumps(parameters, option=orjson.OPT_SORT_KEYS, default=str)
        if self._once and asked in self._asked:
            raise ImageryError(
                f"{shown(url)}: its pages lead back to one that was read; the rest is left out.",
                kind="catalog-loop",
            )
        self._asked.add(asked)
        if len(self._asked) > self._limits.documents:
            raise ImageryError(
                f"{shown(url)}: the catalog has more than {self._limits.documents} documents; "
                "name a part of it.",
                kind="catalog-limit",
            )

    def _ask(self, question: _Question, most_bytes: int) -> _Answer:
        """Ask until there is an answer, the server says no, or patience is at its end."""
        attempts = 1
        while True:
            try:
                return self._attempt(question, most_bytes)
            except _TryAgainError as trouble:
                if attempts > self._limits.retries:
                    raise ImageryError(
                        f"{shown(question.url)}: {trouble} ({attempts} attempts); try again later.",
                        kind="unreachable",
                    ) from None
                wait_s = max(self._limits.delay_s * 2 ** (attempts - 1), trouble.wait_s)
            time.sleep(min(wait_s, self._limits.longest_delay_s))
            attempts += 1

    def _attempt(self, question: _Question, most_bytes: int) -> _Answer:
        """One attempt, on a thread of its own that is left behind when time is up.

        Time limits of sockets hold for each read only: a server that sends a header's letters
        one by one would keep them for ever.
        """
        stop = threading.Event()
        session = self.session
        try:
            return _within(
                self._limits.request_s, lambda: self._follow(session, question, most_bytes, stop)
            )
        except FutureTimeoutError:
            stop.set()
            # The thread that is left behind goes on with the old one.
            self.session = requests.Session()
            raise _TryAgainError(f"no answer within {self._limits.request_s:g} s") from None
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise _TryAgainError("the server is silent") from None
        except urllib3.exceptions.ProtocolError:
            raise _TryAgainError("the connection ended in the middle") from None
        except requests.exceptions.SSLError:
            raise ImageryError(
                f"{shown(question.url)}: its certificate is not trusted; name the authority that "
                "signed it with CURL_CA_BUNDLE=FILE and GDAL_CURL_CA_BUNDLE=FILE.",
                kind="unreachable",
            ) from None
        except requests.exceptions.ConnectionError:
            raise _TryAgainError("the server cannot be reached") from None
        except (ValueError, TypeError, AttributeError):
            # Addresses that only look like one, and headers that a page asks to send.
            raise _invalid(question.url, "asks for a request that cannot be made") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _TryAgainError(f"the request failed ({type(error).__name__})") from None

    def _follow(
        self,
        session: requests.Session,
        question: _Question,
        most_bytes: int,
        stop: threading.Event,
    ) -> _Answer:
        """Send a request, and send it on where redirects lead that are allowed."""
        asked = question
        for _ in range(MAX_REDIRECTS + 1):
            self._check(asked, question)
            prepared = session.prepare_request(requests.Request(**vars(asked)))
            with session.send(
                prepared,
                timeout=(self._limits.connect_s, self._limits.silence_s),
                stream=True,
                allow_redirects=False,
                **_environment(session, prepared),
            ) as response:
                if response.status_code not in _REDIRECTS:
                    return self._taken(response, most_bytes, stop)
                url = urljoin(asked.url, response.headers.get("Location", ""))
                asked = replace(asked, url=url, params=None)
                if response.status_code not in _WITH_SAME_BODY:
                    asked = replace(asked, method="GET", json=None)
        raise ImageryError(
            f"{shown(question.url)}: is redirected more than {MAX_REDIRECTS} times; name the "
            "address where it ends.",
            kind="unreachable",
        )

    def _check(self, asked: _Question, question: _Question) -> None:
        try:
            check_url(asked.url, self._home)
        except ImageryError as error:
            if asked is question:
                raise
            raise ImageryError(
                f"{shown(question.url)}: redirects to {error.message}", kind=error.kind
            ) from None

    def _taken(
        self, response: requests.Response, most_bytes: int, stop: threading.Event
    ) -> _Answer:
        status, url = response.status_code, str(response.url)
        if status in _LATER:
            asked = response.headers.get("Retry-After", "")
            raise _TryAgainError(f"HTTP {status}", float(asked) if asked.isdecimal() else 0)
        if status in _GONE:
            raise NotFoundError(
                f"{shown(url)}: is not there (HTTP {status}).", kind="file-not-found"
            )
        if not 200 <= status < 300:
            raise ImageryError(
                f"{shown(url)}: the server refuses (HTTP {status}).", kind="unreachable"
            )
        if status != 206 and "Range" in response.request.headers:
            # The whole file would come.
            return _Answer(url, status, b"")
        body = bytearray()
        while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
            body += piece
            self._check_size(url, len(body), most_bytes)
            if stop.is_set():
                break
        return _Answer(url, status, bytes(body))

    def _check_size(self, location: str, size: int, most: int | None = None) -> None:
        most = self._limits.document_bytes if most is None else most
        if size > most:
            raise ImageryError(
                f"{shown(location)}: holds more than {most} bytes, which are the most that are "
                "read; name a smaller document.",
                kind="catalog-limit",
            )


def _environment(session: requests.Session, prepared: requests.PreparedRequest) -> dict[str, Any]:
    """Proxies and certificates that the environment names."""
    settings = session.merge_environment_settings(prepared.url or "", {}, None, None, None)
    return {name: settings[name] for name in ("proxies", "verify", "cert")}


def _within(limit_s: float, work: Callable[[], T]) -> T:
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(timeout=limit_s)


def _invalid(url: str, what: str) -> ImageryError:
    return ImageryError(f"{shown(url)}: {what}; name a STAC document.", kind="catalog-invalid")
