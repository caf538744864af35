import asyncio
import threading
import time

from api.turns import Turns
from retriever.waiting import about_to_wait


def slowly() -> int:
    """Tells the thread that answers, which must be one that may wait."""
    about_to_wait()
    return threading.get_ident()


async def test_what_does_not_wait_is_answered_at_once() -> None:
    assert await Turns().ask(threading.get_ident) == threading.get_ident()


async def test_what_waits_is_answered_by_another_thread() -> None:
    assert await Turns().ask(slowly) != threading.get_ident()


async def test_those_that_wait_are_answered_one_at_a_time() -> None:
    turns = Turns()
    at_work = 0
    most = 0

    def question() -> None:
        nonlocal at_work, most
        about_to_wait()
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.01)
        at_work -= 1

    await asyncio.gather(*(turns.ask(question) for _ in range(10)))
    assert most == 1


async def test_what_waits_holds_up_nothing_that_does_not() -> None:
    turns = Turns()
    may_end = threading.Event()

    def slow() -> bool:
        about_to_wait()
        return may_end.wait(30)

    waiting = asyncio.create_task(turns.ask(slow))
    await asyncio.sleep(0)
    assert await turns.ask(lambda: "at once") == "at once"
    may_end.set()
    assert await waiting
