"""Reindexes that die by SIGKILL, or stop, at chosen moments; a program that does many at once.

Each run is a fork of one process, because importing takes longer than reindexing a few images.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from indexer import projection, reindex
from indexer.generations import store
from indexer.settings import Settings
from tests.indexer.farm import options
from tests.indexer.one_layer import one_layer_installed

ROOT = Path(__file__).parents[2]

OWNERS: dict[str, Any] = {"reindex": reindex, "store": store, "path": Path}
"""Where the steps of a reindex are looked up."""


@dataclass(frozen=True)
class Moment:
    """A step of a reindex that is the last one."""

    owner: str
    """One of ``OWNERS``."""
    step: str
    """Name of a function there."""
    call: int = 1
    """Which call of it, counted from 1."""
    done: bool = False
    """Whether the step is still taken."""


@dataclass(frozen=True)
class Plan:
    """A run that does not end."""

    data_dir: str
    images: str
    moment: Moment
    full: bool = False
    frozen_at: int | None = None
    """Rows at which the projection is fitted and frozen; None leaves the usual number."""
    stops: bool = False
    """Stand still at the moment, alive, instead of dying."""


class Runs:
    """Runs that have come to their moments."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        text = json.dumps({name: asdict(plan) for name, plan in plans.items()})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.indexer.killed_reindex", text],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        report = json.loads(self._process.stdout.readline())
        self.signals: dict[str, int] = report["signals"]
        """The signal that each run died of; 0 if it came to its end."""
        self.stopped: dict[str, int] = report["stopped"]
        """Process of each run that stands still."""

    def end(self) -> None:
        """Kill what stands still, and wait until it is gone."""
        self._process.communicate()


def _main(text: str) -> None:
    plans = {
        name: Plan(**{**fields, "moment": Moment(**fields["moment"])})
        for name, fields in json.loads(text).items()
    }
    _warm_up(next(iter(plans.values())))
    children = {name: _start(plan) for name, plan in plans.items()}
    statuses = {name: os.waitpid(child, os.WUNTRACED)[1] for name, child in children.items()}
    stopped = {name: children[name] for name, it in statuses.items() if os.WIFSTOPPED(it)}
    signals = {
        name: os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        for name, status in statuses.items()
        if name not in stopped
    }
    print(json.dumps({"signals": signals, "stopped": stopped}), flush=True)
    # Until whoever started this lets go.
    sys.stdin.read()
    for child in stopped.values():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _warm_up(plan: Plan) -> None:
    """Let the libraries load once what each child would load for itself."""
    settings = Settings(data_dir=Path(plan.data_dir), database_url="")
    with one_layer_installed():
        reindex.reindex(settings, [plan.images], options(dry_run=True))


def _start(plan: Plan) -> int:
    child = os.fork()
    if child != 0:
        return child
    if plan.frozen_at is not None:
        for module, limit in (
            (reindex, "MAX_ROWS_FOR_PCA"),
            (projection, "MIN_ROWS_FOR_PCA"),
            (projection, "MIN_ROWS_FOR_MEAN"),
        ):
            setattr(module, limit, plan.frozen_at)
    install(plan)
    settings = Settings(data_dir=Path(plan.data_dir), database_url="")
    with one_layer_installed():
        reindex.reindex(settings, [plan.images], options(batch_size=1, full=plan.full))
    # Nothing stopped it: the moment never came.
    os._exit(0)


def install(plan: Plan) -> None:
    """Let the plan's step be the last, in this process."""
    owner, moment, calls = OWNERS[plan.moment.owner], plan.moment, 0
    real = getattr(owner, moment.step)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP if plan.stops else signal.SIGKILL)

    def step(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as the real step
        nonlocal calls
        calls += 1
        if calls == moment.call and not moment.done:
            stop()
        result = real(*arguments, **named)
        if calls == moment.call:
            stop()
        return result

    setattr(owner, moment.step, step)


if __name__ == "__main__":
    _main(sys.argv[1])
