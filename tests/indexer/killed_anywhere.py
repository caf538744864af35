"""Reindexes of scenes that die by SIGKILL at any moment, and their ends; a program that runs many.

Moments are counted in calls of functions, Python's own included, so that the same seed gives the
same moments whatever else the computer does.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from indexer import projection, reindex
from indexer.settings import Settings
from tests.indexer.farm import options
from tests.indexer.one_layer import one_layer_installed

ROOT = Path(__file__).parents[2]

_AT_ONCE = 4


@dataclass(frozen=True)
class Scenario:
    """A run that is killed several times, each time in another data folder."""

    folder: str
    """Its data folders are made beside each other in it: ``undisturbed``, and ``0``, ``1``..."""
    imagery: str
    parcels: str
    deaths: int
    seed: int
    frozen_at: int | None = None
    """Rows at which the projection is fitted and frozen; None leaves the usual number."""
    steps: tuple[str, ...] = ()
    """Functions at whose first call further runs die."""

    @property
    def data_dirs(self) -> list[Path]:
        """Of the runs that are killed and then brought to their end."""
        names = [*map(str, range(self.deaths)), *self.steps]
        return [Path(self.folder) / name for name in names]

    @property
    def undisturbed(self) -> Path:
        """The data folder of a run that nobody kills."""
        return Path(self.folder) / "undisturbed"


def run_all(scenarios: Sequence[Scenario]) -> list[list[int]]:
    """Make all data folders; what they hold already is what the runs begin with.

    Returns:
        For each scenario, the signals that its runs died of before they were brought to their end.
    """
    text = json.dumps([asdict(scenario) for scenario in scenarios])
    command = [sys.executable, "-m", "tests.indexer.killed_anywhere", text]
    # Threads would not survive the forks, and so many runs at once have none to spare.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    signals: list[list[int]] = json.loads(done.stdout)
    return signals


def _main(text: str) -> None:
    scenarios = [Scenario(**fields) for fields in json.loads(text)]
    # The libraries load once what each child would load for itself.
    with tempfile.TemporaryDirectory() as folder:
        _run(scenarios[0], Path(folder))
    counts = _forked([_counting(scenario) for scenario in scenarios])
    killed: list[Callable[[], None]] = []
    ended: list[Callable[[], None]] = []
    for scenario, status in zip(scenarios, counts, strict=True):
        if status:
            raise RuntimeError(f"{scenario.undisturbed}: the run was not brought to its end")
        calls = int((Path(scenario.folder) / "calls").read_text())
        seeded = random.Random(scenario.seed)
        moments: list[int | str] = [seeded.randrange(1, calls) for _ in range(scenario.deaths)]
        moments += scenario.steps
        for data_dir, moment in zip(scenario.data_dirs, moments, strict=True):
            killed.append(_dying(scenario, data_dir, moment))
            ended.append(_to_the_end(scenario, data_dir))
    signals = [os.WTERMSIG(one) if os.WIFSIGNALED(one) else 0 for one in _forked(killed)]
    if any(_forked(ended)):
        raise RuntimeError("a run was not brought to its end")
    print(json.dumps([[signals.pop(0) for _ in one.data_dirs] for one in scenarios]))


def _forked(tasks: Sequence[Callable[[], None]]) -> list[int]:
    """Status of each task's process; some run at once."""
    statuses: dict[int, int] = {}
    order: list[int] = []
    running: set[int] = set()
    for task in tasks:
        if len(running) == _AT_ONCE:
            _wait(running, statuses)
        child = os.fork()
        if child == 0:
            _be(task)
        order.append(child)
        running.add(child)
    while running:
        _wait(running, statuses)
    return [statuses[child] for child in order]


def _wait(running: set[int], statuses: dict[int, int]) -> None:
    child, status = os.wait()
    running.remove(child)
    statuses[child] = status


def _be(task: Callable[[], None]) -> None:
    """Do a task, and nothing that this process would do afterwards."""
    try:
        task()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def _counting(scenario: Scenario) -> Callable[[], None]:
    """The undisturbed run, which tells how many calls there are."""

    def task() -> None:
        calls = _watched(scenario, scenario.undisturbed, 0)
        (Path(scenario.folder) / "calls").write_text(str(calls))

    return task


def _dying(scenario: Scenario, data_dir: Path, moment: int | str) -> Callable[[], None]:
    def task() -> None:
        _watched(scenario, data_dir, moment)

    return task


def _to_the_end(scenario: Scenario, data_dir: Path) -> Callable[[], None]:
    def task() -> None:
        _run(scenario, data_dir)

    return task


def _watched(scenario: Scenario, data_dir: Path, last: int | str) -> int:
    """Run, and die at the last call, or at the first of a function; 0 counts them all."""
    calls = 0

    def count(frame: types.FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1
            if last in (calls, frame.f_code.co_name):
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    try:
        _run(scenario, data_dir)
    finally:
        sys.setprofile(None)
    return calls


def _run(scenario: Scenario, data_dir: Path) -> None:
    if scenario.frozen_at is not None:
        for module, limit in (
            (reindex, "MAX_ROWS_FOR_PCA"),
            (projection, "MIN_ROWS_FOR_PCA"),
            (projection, "MIN_ROWS_FOR_MEAN"),
        ):
            setattr(module, limit, scenario.frozen_at)
    settings = Settings(data_dir=data_dir, database_url="")
    chosen = options(parcels=Path(scenario.parcels), batch_size=2, precision="fp32")
    with one_layer_installed():
        reindex.reindex(settings, [scenario.imagery], chosen)


if __name__ == "__main__":
    _main(sys.argv[1])
