"""How long each phase of a work takes, and how much memory at most (Linux)."""

import re
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

_EVERY_S = 0.02

Phase = dict[str, float]


def resident_mib() -> dict[str, float]:
    """Memory of this process in MiB, as the kernel counts it now.

    Returns:
        ``anon``, its own; ``file``, mapped files, which processes share and the system takes back
        when it needs them; ``peak``, the most of both together so far.
    """
    status = Path("/proc/self/status").read_text()
    found = {name: int(kib) / 1024 for name, kib in re.findall(r"(\w+):\s+(\d+) kB", status)}
    own = found["RssAnon"] + found["RssShmem"]
    return {"anon": own, "file": found["RssFile"], "peak": found["VmHWM"]}


class Phases:
    """Keeps the time and the peak memory of each phase, and tells of it on stderr.

    Memory is looked at fifty times a second. Use as a context manager.
    """

    def __init__(self) -> None:
        self._phases: dict[str, Phase] = {}
        self._now: Phase | None = None
        self._began = time.perf_counter()
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Phases":
        self._watching.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._leave()
        self._over.set()
        self._watching.join()

    def enter(self, name: str) -> None:
        """A phase begins, and the one before is over."""
        self._leave()
        print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
        phase = self._phases.setdefault(name, {"seconds": 0.0, "anon_mib": 0.0, "file_mib": 0.0})
        self._began, self._now = time.perf_counter(), phase
        self._look()

    def result(self) -> dict[str, Phase]:
        """Seconds and MiB of each phase, rounded for people."""
        return {
            name: {what: round(value, 1) for what, value in phase.items()}
            for name, phase in self._phases.items()
        }

    def _leave(self) -> None:
        if self._now is not None:
            self._look()
            self._now["seconds"] += time.perf_counter() - self._began
            self._now = None

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        phase, resident = self._now, resident_mib()
        if phase is not None:
            for name in ("anon", "file"):
                phase[f"{name}_mib"] = max(phase[f"{name}_mib"], resident[name])


def summed(phases: dict[str, Phase]) -> dict[str, Any]:
    """Of all phases: seconds together, and the most memory of any."""
    return {
        "seconds": round(sum(phase["seconds"] for phase in phases.values()), 1),
        "anon_mib": max(phase["anon_mib"] for phase in phases.values()),
        "file_mib": max(phase["file_mib"] for phase in phases.values()),
    }
