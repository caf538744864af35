"""A service without keys is asked by its own name."""

from collections.abc import Collection
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import RequestError, refuse

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
"""What a machine calls itself."""


class OwnHosts:
    """Refuses requests under other names, with 421 (RFC 9110, section 15.5.20).

    A page that a stranger serves may have its name resolve to this machine after it was loaded
    (DNS rebinding). The browser then takes this service for the page's own; only the ``Host``
    header still tells.

    Args:
        app: The layers within.
        hosts: Names and addresses in lower case, without port; IPv6 in brackets.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] == "http":
            asked = _without_port(Headers(scope=scope).get("host", "").lower())
            if asked not in self._hosts:
                await refuse(_misdirected(asked), scope, receive, send)
                return
        await self._app(scope, receive, send)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (port.isdecimal() or not port) else host


def _misdirected(asked: str) -> RequestError:
    return RequestError(
        HTTPStatus.MISDIRECTED_REQUEST,
        kind="host-refused",
        detail=f"Host is {asked[:60]!r}, which is no name of this service; its operator can name "
        "it in PARCELLE_ALLOWED_HOSTS, or set keys.",
    )
