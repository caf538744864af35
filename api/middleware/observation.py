"""Each request has an id, is counted, and leaves a line in the log."""

import logging
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import request_ids
from api.logs import FIELDS
from api.metrics import Metrics

UNMATCHED: Final = "unmatched"
"""Stands for the route where none answers, or the request was refused before it was looked for."""

CLIENT_GONE: Final = 499
"""Stands for the status where none was sent, as nginx has it."""

_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_LONGEST_PATH: Final = 1000

_log = logging.getLogger(__name__)


class Observation:
    """Gives each request an id, counts and logs it when its answer is out.

    The id goes into ``X-Request-ID`` of every answer. The log line is at level INFO, at WARNING
    where the service failed; of the address it holds the path alone, since a query, a header or
    a body may hold what is secret.

    Args:
        app: The layers within.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Never taken back: the server logs an unexpected error after this returns.
        request_id = request_ids.begin(scope["headers"])
        exchange = _Exchange(scope, send, request_id, self._metrics)
        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, exchange.send)
            finally:
                exchange.finish()


class _Exchange:
    """One request and what became of it so far."""

    def __init__(self, scope: Scope, send: Send, request_id: str, metrics: Metrics) -> None:
        self._scope = scope
        self._send = send
        self._header = (request_ids.HEADER, request_id.encode())
        self._metrics = metrics
        self._began = time.perf_counter()
        self._status = CLIENT_GONE
        self._size = 0
        self._finished = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message = {**message, "headers": [*message["headers"], self._header]}
            await self._send(message)
            return
        await self._send(message)
        self._size += len(message.get("body", b""))
        # The application may go on for long after its answer was given up at the time limit.
        if not message.get("more_body", False):
            self.finish()

    def finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        seconds = time.perf_counter() - self._began
        method = self._scope["method"]
        self._metrics.count_request(
            method=method if method in _METHODS else "other",
            route=route_of(self._scope),
            status=self._status,
            seconds=seconds,
        )
        level = logging.WARNING if self._status >= 500 else logging.INFO
        if _log.isEnabledFor(level):
            self._log(level, method, seconds)

    def _log(self, level: int, method: str, seconds: float) -> None:
        path = self._scope["path"][:_LONGEST_PATH]
        client = self._scope.get("client")
        fields: dict[str, Any] = {
            "method": method,
            "path": path,
            "route": route_of(self._scope),
            "status": self._status,
            "duration_ms": round(seconds * 1000, 3),
            "bytes": self._size,
            "client": client[0] if client else None,
        }
        _log.log(level, "%s %s: %d", method, path, self._status, extra={FIELDS: fields})


def route_of(scope: Scope) -> str:
    """The template of the route that answers, ``/collections/{collection}``.

    Args:
        scope: Of a request that the router has seen.
    """
    return getattr(scope.get("route"), "path_format", UNMATCHED)
