"""Searches take turns, so that threads do not fight for the one interpreter of their process."""

import sys
from collections.abc import Callable
from typing import Final, TypeVar

from anyio import CapacityLimiter, to_thread

_SWITCH_INTERVAL_S: Final = 0.0005

_Answer = TypeVar("_Answer")


class Turns:
    """Runs searches in threads, one at a time.

    A search computes for a few milliseconds and waits for nothing. Several at once finish later
    than one after the other, since the threads, and the one that answers, take the interpreter
    from each other: 16 clients got half as many answers from two workers without turns. More at
    once takes more workers. Searches with a filter may take long and have a turn of their own.
    """

    def __init__(self) -> None:
        self._unfiltered = CapacityLimiter(1)
        self._filtered = CapacityLimiter(1)
        # Python lets a thread compute for 5 ms while others wait, longer than most searches take.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)

    async def ask(self, question: Callable[[], _Answer], *, filtered: bool) -> _Answer:
        """The answer to a question, once it is its turn.

        Args:
            question: Takes nothing any more.
            filtered: Whether it has conditions, which may cost far more than the search.
        """
        limiter = self._filtered if filtered else self._unfiltered
        return await to_thread.run_sync(question, limiter=limiter)
