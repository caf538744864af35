"""A process that opens damaged files, watched and replaced when it dies or takes too long."""

import json
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from tests.fuzz.seeds import Seed

TIME_LIMIT_S: Final = 20.0
"""Longest that one file may take, on a machine that does other things besides."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    kind: str | None
    """``read``, or the kind of the error that refused it; None if neither happened."""
    trouble: str = ""
    """What happened else."""


class Reader:
    """Runs ``tests.fuzz.doors``; a context manager."""

    def __init__(self, warm_up: list[Seed], errors: Path) -> None:
        self._warm_up = warm_up
        self._errors = errors
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop()

    def read(self, door: str, path: Path) -> Outcome:
        """Have a file opened."""
        process = self._running()
        told = self._ask(process, {"door": door, "path": str(path)})
        if isinstance(told, Outcome):
            return told
        return Outcome(told.get("kind"), told.get("unexpected", ""))

    def _running(self) -> "subprocess.Popen[str]":
        """The process, its libraries loaded by valid files before its memory is limited."""
        if self._process is not None:
            return self._process
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.doors"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=Path(__file__).parents[2],
            )
        for seed in self._warm_up:
            told = self._ask(
                self._process, {"door": seed.door, "path": str(seed.folder / seed.opened)}
            )
            assert told == {"kind": "read"}, f"{seed.name}: {told}"
        assert self._ask(self._process, {"limit": True}) == {"kind": "limited"}
        return self._process

    def _ask(
        self, process: "subprocess.Popen[str]", question: dict[str, Any]
    ) -> dict[str, Any] | Outcome:
        stdin, stdout = _pipe(process.stdin), _pipe(process.stdout)
        try:
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
        except BrokenPipeError:
            return self._died(process)
        while True:
            ready, _, _ = select.select([stdout], [], [], TIME_LIMIT_S)
            if not ready:
                self._stop()
                return Outcome(None, f"took longer than {TIME_LIMIT_S:g} s")
            line = stdout.readline()
            if not line:
                return self._died(process)
            if line.startswith("FUZZ "):
                told: dict[str, Any] = json.loads(line.removeprefix("FUZZ "))
                return told

    def _died(self, process: "subprocess.Popen[str]") -> Outcome:
        process.wait()
        self._stop()
        return Outcome(None, f"the process died ({process.returncode})")

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
