"""HTTP/1.1 as uvicorn reads it by httptools, with bounded headers and a soft end."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
"""What uvicorn's other reader of HTTP allows; httptools allows any number."""

GRACE_S: Final = 0.5
"""How long a connection without a request stays open when the service ends."""


class BoundedHttpToolsProtocol(HttpToolsProtocol):
    """Answers 400 and closes where the address and headers of a request come to no end.

    The first piece of them is not counted, since it may hold the end of the request before; the
    event loop reads pieces of at most 256 KiB.
    """

    _in_head = False
    _head_bytes = 0
    _ending = False

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        was_in_head = self._in_head
        super().data_received(data)
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._in_head = False
                self.send_400_response("Request headers are too large.")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its headers are complete."""
        self._in_head = False
        super().on_headers_complete()
        if self._ending:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close once what is on its way has come and is answered.

        Uvicorn closes a connection that waits for its next request at once, and so resets the
        request that its client is just sending.
        """
        # Before the first request there is no cycle, whatever its annotation says.
        is_idle = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]
        if self._ending or not is_idle:
            super().shutdown()
            return
        self._ending = True
        self.loop.call_later(GRACE_S, self.shutdown)
