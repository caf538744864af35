"""A request's body is not larger than it may be."""

from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestError, refuse

MAX_TEXT_BYTES: Final = 1 << 20
"""Of a body that is no form: far more than the longest search, and little enough to be parsed at
once. 64 MiB of ``[[],[],`` would take gigabytes, and the event loop for seconds."""


class BodyLimit:
    """Refuses larger bodies with 413: a declared size at once, others where they pass the limit.

    The connection stays open and the server discards the rest, since a client that sends all
    before it reads would not see the answer otherwise.

    Args:
        app: The layers within.
        most: Bytes of a form with files; other bodies have at most ``MAX_TEXT_BYTES`` as well.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most if _is_form(scope) else min(self._most, MAX_TEXT_BYTES)
        if _declared(scope) > most:
            await refuse(_too_large(most), scope, receive, send)
            return
        size = 0
        started = False
        refused = False

        async def counted() -> Message:
            nonlocal size, refused
            message = await receive()
            size += len(message.get("body", b""))
            if size <= most:
                return message
            if not started and not refused:
                refused = True
                await refuse(_too_large(most), scope, receive, send)
            # So that whoever reads stops; what it answers is dropped.
            return {"type": "http.disconnect"}

        async def unless_refused(message: Message) -> None:
            nonlocal started
            if not refused:
                started = True
                await send(message)

        await self._app(scope, counted, unless_refused)


def _is_form(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data")


def _declared(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _too_large(most: int) -> RequestError:
    return RequestError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        kind="body-too-large",
        detail=f"The request's body is larger than {most} bytes; send less at once.",
    )
