"""The id of the request that is being answered: for its response, its problem, its log lines."""

import re
import uuid
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final

HEADER: Final = b"x-request-id"

# Short, and free of all that could mean something in a log or a page.
_SAFE: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")

_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def begin(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Give the current request its id, here and in the threads that it goes through.

    Args:
        headers: Of the request. Its own ``X-Request-ID`` is taken if it has up to 64 letters,
            digits, dots, underscores and hyphens; else the id is a new one.
    """
    given = next((value for name, value in headers if name == HEADER), b"")
    request_id = given.decode("ascii") if _SAFE.fullmatch(given) else uuid.uuid4().hex
    _current.set(request_id)
    return request_id


def current() -> str | None:
    """The id of the current request, if there is one."""
    return _current.get()
