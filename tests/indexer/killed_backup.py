"""Backups and restores that die by SIGKILL before each of their steps; a program that runs many.

What is left is looked at, and the command is run again, undisturbed. Everything forks from one
process, because importing takes longer than any of it.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from indexer.backup.making import back_up
from indexer.backup.restoring import restore
from indexer.catalog.database import connect
from indexer.generations.recovery import recover
from indexer.settings import Settings
from tests.faults.steps import watch
from tests.indexer.backups import Rows, answers_of, damages_of, rows_of
from tests.retriever.planted import settings_in

_AT_ONCE = 3

Trial = Callable[[Path, int], None]
"""Meets its death before a step, in a folder of its own; 0 dies of nothing."""


def _backups(index: Settings) -> tuple[Trial, Callable[[Path], None]]:
    def die(folder: Path, last: int) -> None:
        _watch(folder, last)
        back_up(index, folder / "backup")

    def look(folder: Path) -> None:
        backup = folder / "backup"
        if not backup.exists():
            back_up(index, backup)
        assert damages_of(backup) == [], damages_of(backup)
        assert [path.name for path in folder.iterdir()] == ["backup"], list(folder.iterdir())

    return die, look


def _restores(
    index: Settings, backup: Path, other: Settings | None
) -> tuple[Trial, Callable[[Path], None]]:
    """Into an empty place, or in place of another index."""

    def die(folder: Path, last: int) -> None:
        if other is not None:
            shutil.copytree(other.data_dir, folder / "there")
        _watch(folder, last)
        restore(settings_in(folder / "there"), backup, replace=other is not None)

    def look(folder: Path) -> None:
        there = settings_in(folder / "there")
        found = _rows(there)
        assert found in (_rows(index), None if other is None else _rows(other)), "half an index"
        if found != _rows(index):
            restore(there, backup, replace=other is not None)
        engine = connect(there)
        recover(engine, there.generations_dir)
        engine.dispose()
        assert _rows(there) == _rows(index), "another index"
        answers_of(there)
        there_now = {path.name for path in there.data_dir.rglob("*") if path.is_dir()}
        numbers = {str(row["id"]) for row in rows_of(there)["generations"]}
        assert there_now == {"generations", *numbers}, there_now
        names = {path.name for path in there.data_dir.iterdir()}
        assert names <= {
            *("generations", "reindex.lock"),
            *("parcelle.db", "parcelle.db-wal", "parcelle.db-shm"),
        }, names

    return die, look


_NUMBERED = {"current_generation_id", "clustering_id", "generation_id", "manifest"}


def _rows(settings: Settings) -> Rows | None:
    """All rows without the numbers that a replaced index gets anew; None where there are none."""
    if not (settings.data_dir / "parcelle.db").exists():
        return None
    rows = rows_of(settings)
    del rows["changes"]
    return {
        table: [
            {
                name: value
                for name, value in row.items()
                if name not in _NUMBERED
                and not (name == "id" and table in {"generations", "clusterings"})
            }
            for row in some
        ]
        for table, some in rows.items()
    }


def _watch(folder: Path, last: int) -> None:
    def step(number: int, name: str) -> None:
        if last == 0:
            (folder.parent / f"{folder.name}.steps").write_text(str(number))
        elif number == last:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(folder, step)


def _tried(
    die: Trial, look: Callable[[Path], None], scratch: Path, every: int
) -> dict[str, object]:
    """Die before every so many-th step."""
    scratch.mkdir()
    (scratch / "0").mkdir()
    _wait([_forked(partial(die, scratch / "0", 0), scratch / "0")])
    steps = int((scratch / "0.steps").read_text())
    complaints: list[str] = []
    killed = 0
    trials = list(range(1, steps + 1, every))
    for start in range(0, len(trials), _AT_ONCE):
        some = trials[start : start + _AT_ONCE]
        for number in some:
            (scratch / str(number)).mkdir()
        statuses = _wait(
            [_forked(partial(die, scratch / str(n), n), scratch / str(n)) for n in some]
        )
        killed += sum(os.WIFSIGNALED(status) for status in statuses)
        looks = [_forked(partial(look, scratch / str(n)), scratch / str(n)) for n in some]
        for number, status in zip(some, _wait(looks), strict=True):
            if status:
                complaints.append((scratch / f"{number}.said").read_text()[-600:])
            shutil.rmtree(scratch / str(number))
    return {"steps": steps, "trials": len(trials), "killed": killed, "complaints": complaints}


def _forked(task: Callable[[], None], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        task()
    except BaseException:
        folder.with_name(f"{folder.name}.said").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def _wait(children: list[int]) -> list[int]:
    return [os.waitpid(child, 0)[1] for child in children]


def _main(index: str, other: str, backup: str, scratch: str, every: str) -> None:
    """Try all three."""
    source, room = settings_in(Path(index)), Path(scratch)
    trials = {
        "backup": _backups(source),
        "restore": _restores(source, Path(backup), None),
        "replace": _restores(source, Path(backup), settings_in(Path(other))),
    }
    found = {name: _tried(*both, room / name, int(every)) for name, both in trials.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
