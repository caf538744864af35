"""Searches take turns, so that threads do not fight for the one interpreter of their process."""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from anyio import CapacityLimiter, to_thread

from retriever.waiting import WouldWait, without_waiting

_SWITCH_INTERVAL_S: Final = 0.0005

_Answer = TypeVar("_Answer")


class Turns:
    """Answers short searches at once, and the others in a thread, one at a time.

    A search without conditions computes for a few milliseconds and waits for nothing. In a thread
    of its own it would cost a third more: the thread and the one that accepts requests take the
    interpreter from each other, and move between cores. Several threads at once are worse: 16
    clients got half as many answers from two workers. More searches at once take more workers.
    """

    def __init__(self) -> None:
        self._limiter = CapacityLimiter(1)
        # Python lets a thread compute for 5 ms while others wait, longer than most searches take.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)

    async def ask(self, question: Callable[[], _Answer]) -> _Answer:
        """The answer to a question to the searcher, which is asked again where it has to wait."""
        with suppress(WouldWait), without_waiting():
            return question()
        return await to_thread.run_sync(question, limiter=self._limiter)
