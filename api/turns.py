"""Searches take turns, so that threads do not fight for the one interpreter of their process."""

import functools
import sys
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

SEARCHES_AT_ONCE: Final = 2
"""One that waits for the database leaves the interpreter to the other."""

_SWITCH_INTERVAL_S: Final = 0.0005

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


class Turns:
    """Runs questions in threads, a few at a time.

    A search computes for a few milliseconds. Ten at once finish later than ten in a row, and
    whoever answers the finished ones waits for its share among them.
    """

    def __init__(self) -> None:
        self._limiter = CapacityLimiter(SEARCHES_AT_ONCE)
        # Python lets a thread compute for 5 ms while others wait, longer than most searches take.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)

    async def ask(
        self,
        question: Callable[_Asked, _Answer],
        *args: _Asked.args,
        **kwargs: _Asked.kwargs,
    ) -> _Answer:
        """The answer to a question, once it is its turn."""
        call = functools.partial(question, *args, **kwargs)
        return await to_thread.run_sync(call, limiter=self._limiter)
