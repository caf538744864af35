import asyncio
import ctypes
from pathlib import Path
from threading import Thread

import pytest

from api import memory
from api.memory import giving_memory_back

LIBC = ctypes.CDLL(None)
BLOCKS, BLOCK_BYTES = 2_000, 64_000

if not hasattr(LIBC, "malloc_trim"):
    pytest.skip("memory is given back by glibc alone", allow_module_level=True)

LIBC.malloc.restype = ctypes.c_void_p
LIBC.malloc.argtypes = [ctypes.c_size_t]
LIBC.free.argtypes = [ctypes.c_void_p]


def private_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])


def needed_for_a_moment(kept: list[int]) -> None:
    """Take much memory and let go of all but the last block, behind which the rest lies free."""
    blocks = [LIBC.malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    for block in blocks[:-1]:
        LIBC.free(block)
    kept.append(blocks[-1])


async def test_what_a_thread_needed_for_a_moment_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "EVERY_S", 0.02)
    kept: list[int] = []
    thread = Thread(target=needed_for_a_moment, args=(kept,))
    thread.start()
    thread.join()
    before = private_bytes()
    async with giving_memory_back():
        for _ in range(500):
            await asyncio.sleep(0.02)
            given_back = before - private_bytes()
            if given_back > BLOCKS * BLOCK_BYTES / 2:
                break
    LIBC.free(kept[0])
    assert given_back > BLOCKS * BLOCK_BYTES / 2


async def test_nothing_goes_on_after_the_service_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY_S", 0.001)
    async with giving_memory_back():
        await asyncio.sleep(0.01)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
