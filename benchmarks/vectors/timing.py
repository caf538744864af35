"""Time of single questions, and the machine's own speed to hold it against."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Question = TypeVar("Question")
Answer = TypeVar("Answer")

Seconds = npt.NDArray[np.float64]

_STREAMED_NUMBERS = 1 << 26


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep all threads of this process to one core, the last, where the system can (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        _pin({max(before)})
        yield
    finally:
        _pin(before)


def _pin(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)


def timed(
    ask: Callable[[Question], Answer], questions: Iterable[Question]
) -> tuple[Seconds, list[Answer]]:
    """Ask one by one; the seconds of each question, shape ``(n,)``, and the answers."""
    seconds, answers = [], []
    for question in questions:
        began = time.perf_counter()
        answer = ask(question)
        seconds.append(time.perf_counter() - began)
        answers.append(answer)
    return np.array(seconds), answers


def percentiles_ms(seconds: Seconds) -> dict[str, float]:
    """Questions a second, median and 99th percentile in milliseconds."""
    return {
        "per_s": round(len(seconds) / float(seconds.sum()), 1),
        "p50_ms": round(1e3 * float(np.percentile(seconds, 50)), 4),
        "p99_ms": round(1e3 * float(np.percentile(seconds, 99)), 4),
    }


def recall_of(found: npt.NDArray[np.int64], truth: Iterable[int], k: int) -> float:
    """Share of the k true neighbors that were found; 1 where there are none."""
    true = set(truth)
    return len(true & set(found[:k].tolist())) / min(k, len(true)) if true else 1.0


def streaming_gb_per_s(tries: int = 5) -> float:
    """What one core reads in a second: the best of several maxima over 256 MB of float32."""
    numbers = np.ones(_STREAMED_NUMBERS, np.float32)
    best = min(float(timed(lambda _: numbers.max(), [None])[0][0]) for _ in range(tries))
    return numbers.nbytes / best / 1e9
