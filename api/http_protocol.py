"""HTTP/1.1 as uvicorn reads it by httptools, with bounded headers, patience and a soft end."""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
"""What uvicorn's other reader of HTTP allows; httptools allows any number."""

GRACE_S: Final = 0.5
"""How long a connection without a request stays open when the service ends."""


HEAD_TIMEOUT_S = 20.0
"""How long the address and headers of a request may take to come. How long its body may take is a
matter of ``TimeLimit``."""

REST_TIMEOUT_S = 30.0
"""How long the rest of a body may take that nobody waits for, since the answer is out already."""

STALL_TIMEOUT_S = 30.0
"""How long a client may take no part of its answer; it holds memory, or a page of the database."""

MAX_CONNECTIONS = 800
"""Connections to one process, below the 1,024 files that most systems let a process open."""


class BoundedHttpToolsProtocol(HttpToolsProtocol):
    """Answers 400 and closes where the address and headers of a request come to no end.

    The first piece of them is not counted, since it may hold the end of the request before; the
    event loop reads pieces of at most 256 KiB. Who sends or takes too slowly is cut off, and so is
    who comes while ``MAX_CONNECTIONS`` are there.
    """

    _in_head = False
    _in_body = False
    _head_bytes = 0
    _ending = False
    _late: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._expect(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._expect_no_more()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """It takes its answer slower than that is sent."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALL_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken some."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        was_in_head = self._in_head
        super().data_received(data)
        if self._is_idle and self.timeout_keep_alive_task is None:
            # Empty lines before a request are none of it, and would be waited for without end.
            self._expect(HEAD_TIMEOUT_S)
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._in_head = False
                self.send_400_response("Request headers are too large.")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        self._head_bytes = 0
        self._expect(HEAD_TIMEOUT_S)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its headers are complete."""
        self._in_head = False
        self._in_body = True
        self._expect_no_more()
        super().on_headers_complete()
        if self._ending:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Its body is complete."""
        self._in_body = False
        self._expect_no_more()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is out."""
        super().on_response_complete()
        if self._in_body and not self.transport.is_closing():
            self._expect(REST_TIMEOUT_S)

    def shutdown(self) -> None:
        """Close once what is on its way has come and is answered.

        Uvicorn closes a connection that waits for its next request at once, and so resets the
        request that its client is just sending.
        """
        if self._ending or not self._is_idle:
            super().shutdown()
            return
        self._ending = True
        self.loop.call_later(GRACE_S, self.shutdown)

    @property
    def _is_idle(self) -> bool:
        # Before the first request there is no cycle, whatever its annotation says.
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]

    def _expect(self, seconds: float) -> None:
        if self._late is None:
            self._late = self.loop.call_later(seconds, self._give_up)

    def _expect_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._is_idle:
            self.transport.abort()
        else:
            # The start of a next request waits until the one before is answered.
            self._expect(HEAD_TIMEOUT_S)
