"""Headers that tell browsers not to trust an answer further than it means to go."""

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_POLICY: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""Content Security Policy of a page that brings none of its own: only files of this service."""

_ALWAYS: Final = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


class SecurityHeaders:
    """Sets ``nosniff`` and ``no-referrer`` on every answer, and a policy on every HTML page.

    What a route sets itself stays as it is.

    Args:
        app: The layers within.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _secured(message["headers"])}
            await send(message)

        await self._app(scope, receive, with_headers)


def _secured(raw: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    headers = Headers(raw=raw)
    wanted = list(_ALWAYS)
    if headers.get("content-type", "").startswith("text/html"):
        wanted.append((b"content-security-policy", PAGE_POLICY.encode()))
    set_already = {name for name, _ in raw}
    return [*raw, *(header for header in wanted if header[0] not in set_already)]
