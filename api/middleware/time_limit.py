"""An answer begins within a time limit, or is given up."""

import asyncio
import logging
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestError, refuse

RETRY_AFTER_S: Final = 10

_log = logging.getLogger(__name__)


class TimeLimit:
    """Answers with 503 and ``Retry-After`` what is not answered in time.

    The limit counts until an answer starts; one that has started may take as long as it takes.
    A thread cannot be stopped: the one that works on a request goes on to its end, holds its
    place in the pool of threads and in ``Capacity`` until then, and its answer is dropped.

    Args:
        app: The layers within.
        limit_s: Seconds until an answer must have started.
    """

    def __init__(self, app: ASGIApp, limit_s: float) -> None:
        self._app = app
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given_up: asyncio.Task[None] | None = None

        def give_up() -> None:
            nonlocal given_up
            given_up = loop.create_task(refuse(_too_late(self._limit_s), scope, receive, send))

        async def in_time(message: Message) -> None:
            if given_up is None:
                timer.cancel()
                await send(message)

        loop = asyncio.get_running_loop()
        # A timer, not a cancellation: that would let go of the thread's place, not of the thread.
        timer = loop.call_later(self._limit_s, give_up)
        try:
            await self._app(scope, receive, in_time)
        except Exception as error:
            if given_up is None:
                raise
            _log.warning("Failed after its time limit: %s", type(error).__name__)
        finally:
            timer.cancel()
            if given_up is not None:
                await given_up


def _too_late(limit_s: float) -> RequestError:
    return RequestError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        kind="request-timeout",
        detail=f"No answer within {limit_s:g} s; ask for less, or try again later.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )
