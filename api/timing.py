"""A searcher that tells how long its searches take; the retriever knows nothing of metrics."""

import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from sqlalchemy import Engine

from indexer.settings import Settings
from retriever.results import Matches
from retriever.search import ParcelSearcher
from retriever.waiting import WouldWait

_Asked = ParamSpec("_Asked")


def _timed(
    search: Callable[Concatenate[ParcelSearcher, _Asked], Matches],
) -> Callable[Concatenate["TimedSearcher", _Asked], Matches]:
    def timed(self: "TimedSearcher", /, *args: _Asked.args, **kwargs: _Asked.kwargs) -> Matches:
        began = time.perf_counter()
        waits = False
        try:
            return search(self, *args, **kwargs)
        except WouldWait:
            # It is asked again where it may, and counted there.
            waits = True
            raise
        finally:
            if not waits:
                self.on_search(time.perf_counter() - began)

    return timed


class TimedSearcher(ParcelSearcher):
    """Answers as its base does, and tells how many seconds each search took.

    Args:
        settings: As the base takes them.
        engine: As the base takes it.
        on_search: Told the seconds, from any thread.
    """

    def __init__(
        self, settings: Settings, engine: Engine, on_search: Callable[[float], None]
    ) -> None:
        super().__init__(settings, engine)
        self.on_search = on_search

    # ``similar_by_id`` asks the first of them.
    similar_by_examples = _timed(ParcelSearcher.similar_by_examples)
    similar_by_vector = _timed(ParcelSearcher.similar_by_vector)
    similar_by_chip = _timed(ParcelSearcher.similar_by_chip)
