"""Giving memory back that questions needed for a moment.

A question may need megabytes for milliseconds, in whichever thread answers it. The C library keeps
what a thread freed for that thread's next need, so a service of forty threads would go on growing
for minutes, up to forty times the most that one question ever needed.
"""

import asyncio
import ctypes
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from fastapi.concurrency import run_in_threadpool

EVERY_S: Final = 10


@asynccontextmanager
async def giving_memory_back() -> AsyncIterator[None]:
    """Have the C library return free memory to the system now and then, where it can (glibc)."""
    # https://man7.org/linux/man-pages/man3/malloc_trim.3.html: since glibc 2.8 also what lies
    # between blocks in use, in the memory of every thread.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        yield
        return
    task = asyncio.create_task(_keep_trimming(trim))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _keep_trimming(trim: Callable[[int], int]) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        # Takes a few milliseconds, and lets other threads run.
        await run_in_threadpool(trim, 0)
