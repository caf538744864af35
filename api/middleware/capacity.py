"""A process takes on so many requests at once and no more."""

from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import RequestError, refuse

RETRY_AFTER_S: Final = 1

# Whoever asks whether the process lives would end it if it did not answer.
_ALWAYS_ANSWERED: Final = "/health/live"


class Capacity:
    """Refuses requests while too many are at work, with 503 and ``Retry-After``.

    Better refused at once than kept waiting in a line that only grows.

    Args:
        app: The layers within.
        most: Requests at work at once; further ones are refused.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http" or scope["path"] == _ALWAYS_ANSWERED:
            await self._app(scope, receive, send)
            return
        if self._at_work >= self._most:
            await refuse(_busy(self._at_work), scope, receive, send)
            return
        self._at_work += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._at_work -= 1


def _busy(at_work: int) -> RequestError:
    return RequestError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        kind="too-busy",
        detail=f"{at_work} requests are being answered; try again in a moment.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )
