"""Two commands write at once: one is told who holds the lock, and death lets go of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.lock import LOCK_FILE
from tests.faults.commands import COMMANDS
from tests.faults.conftest import Beginnings
from tests.faults.report import counted
from tests.faults.states import state_of
from tests.indexer.killed_reindex import ROOT, Moment, Plan, Runs
from tests.retriever.planted import searching, settings_in
from tests.schemas import matter_of_sqlite

PROGRAM = """
import sys
from api.cli import main
from tests.indexer.one_layer import one_layer_installed

with one_layer_installed():
    main(sys.argv[1:])
"""

WRITERS = {
    "reindex": COMMANDS["reindex"].arguments,
    "generations compact": ("generations", "compact"),
}


def start(arguments: tuple[str, ...], place: Path, images: Path) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    environment = os.environ | {
        "PARCELLE_DATA_DIR": str(place),
        "PARCELLE_DATABASE_URL": "",
        "OMP_NUM_THREADS": "1",
    }
    words = [one.replace("IMAGES", str(images)) for one in arguments]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def complete(place: Path, images: Path) -> None:
    """A reindex that nobody disturbs."""
    following = start(WRITERS["reindex"], place, images)
    _, told = following.communicate(timeout=60)
    assert following.returncode == 0, told


def go_on(process: int) -> None:
    """Let a process run again that is stopped, and wait for its end."""
    deadline = time.monotonic() + 60
    while (now := condition(process)) != "Z":
        if now == "T":
            os.kill(process, signal.SIGCONT)
        assert time.monotonic() < deadline, "it did not come to its end"
        time.sleep(0.02)


def condition(process: int) -> str:
    """T for stopped, Z for ended: its parent asks for it later, so its number is its own."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def generation_of(place: Path) -> int:
    """The one that answers, its files undamaged."""
    with searching(settings_in(place)) as searcher:
        return searcher.similar_by_id("image-01").generation


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data folder that is not there yet."""
    return tmp_path / "data"


@pytest.fixture
def standing_still(place: Path, beginnings: Beginnings) -> Iterator[Runs]:
    """A reindex that has written some rows, holds the lock, and is stopped."""
    plan = Plan(str(place), str(beginnings.images), Moment("reindex", "save_observations", call=2))
    runs = Runs({"holder": Plan(**{**plan.__dict__, "stops": True})})
    yield runs
    runs.end()


def test_whoever_comes_second_is_told_who_writes_and_gets_in_as_soon_as_that_one_is_killed(
    place: Path, beginnings: Beginnings, standing_still: Runs, request: pytest.FixtureRequest
) -> None:
    holder = standing_still.stopped["holder"]
    others = {
        name: start(arguments, place, beginnings.images) for name, arguments in WRITERS.items()
    }
    for name, other in others.items():
        _, told = other.communicate(timeout=60)
        with counted("another command writes already", name, request):
            assert other.returncode == 1, name
            assert "Error [reindex-running]" in told
            assert "reindex" in told
            assert str(holder) in told, f"{name} does not name the process that holds the lock"
    os.kill(holder, signal.SIGKILL)
    with counted("the process that holds the lock is killed", "reindex", request):
        complete(place, beginnings.images)


def test_whoever_is_stopped_while_it_holds_the_lock_goes_on_when_it_may(
    place: Path, beginnings: Beginnings, standing_still: Runs, request: pytest.FixtureRequest
) -> None:
    with counted("the process that holds the lock is stopped, then goes on", "reindex", request):
        go_on(standing_still.stopped["holder"])
        assert generation_of(place) == 1


@matter_of_sqlite("on PostgreSQL the lock is the server's, too")
def test_whoever_goes_on_after_its_lock_was_removed_and_another_wrote_publishes_nothing(
    place: Path, beginnings: Beginnings, standing_still: Runs, request: pytest.FixtureRequest
) -> None:
    (place / LOCK_FILE).unlink()
    complete(place, beginnings.images)
    published = generation_of(place)
    fault = "the lock is removed, another writes, and the former holder goes on"
    with counted(fault, "reindex", request):
        go_on(standing_still.stopped["holder"])
        assert generation_of(place) == published
        complete(place, beginnings.images)
        state_of(settings_in(place))


def test_of_commands_that_begin_at_once_each_completes_or_names_the_other(
    tmp_path: Path, beginnings: Beginnings, request: pytest.FixtureRequest
) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    only = start(WRITERS["reindex"], alone, beginnings.images)
    _, told = only.communicate(timeout=60)
    assert only.returncode == 0, told
    started = []
    for _ in range(2):
        started.append(start(WRITERS["reindex"], together, beginnings.images))
        time.sleep(0.05)
    ended = [(one, *one.communicate(timeout=60)) for one in started]
    with counted("two reindexes begin at once", "reindex", request):
        assert any(one.returncode == 0 for one, _, _ in ended)
        for one, _, told in ended:
            if one.returncode != 0:
                assert "Error [reindex-running]" in told
                assert "Traceback" not in told
        assert not state_of(settings_in(together)).differences(state_of(settings_in(alone)))
