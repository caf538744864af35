"""``parcelle reindex`` whose PostgreSQL server dies: it says so, and the next run finishes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from indexer.catalog.tables import Generation
from indexer.reindex import reindex
from indexer.settings import Settings
from tests.indexer.farm import (
    assert_same_vectors,
    options,
    reading,
    searching,
    states,
    vectors,
    write_images,
)
from tests.indexer.killed_reindex import ROOT, Moment, Plan
from tests.indexer.paused_reindex import arguments_of
from tests.postgres import NoServerError, Server, new_schema, started_server

pytestmark = [pytest.mark.postgres, pytest.mark.usefixtures("one_layer")]

IMAGES = 4

ALL_EMBEDDED = Moment("reindex", "build_generation")

MOMENTS = {
    "when the third batch is to be saved": Moment("reindex", "save_observations", call=3),
    "in its transaction": Moment("reindex", "save_observations", call=3, done=True),
    "before the index is built": ALL_EMBEDDED,
    "in the transaction that publishes": Moment("store", "publish_generation", done=True),
}
COMMITTED = dict(zip(MOMENTS, (2, 2, 4, 4), strict=True))
"""Images."""

RESTARTED = "restarted"
"""The run that only goes on when the server is there again."""


@dataclass(frozen=True)
class Ended:
    """A run that lost its database, and where."""

    settings: Settings
    code: int
    results: str
    messages: str
    published: int
    """Generations."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, IMAGES)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    try:
        with started_server(port) as server:
            yield server
    except NoServerError as error:
        pytest.skip(f"PostgreSQL: none can be started here ({error})")


@pytest.fixture(scope="module")
def ended(
    server: Server, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Ended]]:
    """A run for each moment, all at once, in databases of their own on one server."""
    with ExitStack() as stack:
        runs: dict[str, tuple[Settings, subprocess.Popen[str]]] = {}
        for name, moment in {**MOMENTS, RESTARTED: ALL_EMBEDDED}.items():
            url = stack.enter_context(new_schema(server.url))
            settings = Settings(data_dir=tmp_path_factory.mktemp("lost"), database_url=url)
            process = stack.enter_context(started(settings, images, moment))
            runs[name] = settings, process
        for _, process in runs.values():
            wait_until_it_stands(process)
        server.stop("immediate")
        told = {name: go_on(process) for name, (_, process) in runs.items() if name in MOMENTS}
        server.start()
        told[RESTARTED] = go_on(runs[RESTARTED][1])
        yield {
            name: Ended(settings, process.returncode, *told[name], published_in(settings))
            for name, (settings, process) in runs.items()
        }


@contextmanager
def started(settings: Settings, images: Path, moment: Moment) -> Iterator[subprocess.Popen[str]]:
    """A reindex that will stand still when a moment has come."""
    plan = Plan(str(settings.data_dir), str(images), moment, stops=True)
    told = {
        "PARCELLE_DATA_DIR": str(settings.data_dir),
        "PARCELLE_DATABASE_URL": settings.database_url,
    }
    with subprocess.Popen(
        [sys.executable, *arguments_of(plan)],
        cwd=ROOT,
        env=os.environ | told,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_it_stands(process: subprocess.Popen[str]) -> None:
    # Without taking the status of one that ended, which ``communicate`` tells better.
    found = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert found is not None
    assert found.si_code == os.CLD_STOPPED, process.communicate()


def go_on(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Let it run to its end: results and messages."""
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=60)


def published_in(settings: Settings) -> int:
    with reading(settings) as connection:
        return connection.scalars(select(func.count()).select_from(Generation)).one()


@pytest.mark.parametrize("name", MOMENTS)
def test_a_run_that_loses_its_database_says_so_in_one_sentence(
    ended: dict[str, Ended], name: str
) -> None:
    assert (ended[name].code, ended[name].results, ended[name].published) == (1, "", 0)
    assert error_of(ended[name]).startswith(
        "Error [database-unreachable]: The database does not answer ("
    )


def test_a_run_whose_lock_was_lost_meanwhile_publishes_nothing(ended: dict[str, Ended]) -> None:
    """Another writer may have begun when the server was there again."""
    run = ended[RESTARTED]
    assert (run.code, run.results, run.published) == (1, "", 0)
    assert error_of(run).startswith("Error [lock-lost]: ")


@pytest.mark.parametrize("name", [*MOMENTS, RESTARTED])
def test_the_run_after_one_that_lost_its_database_leaves_what_an_undisturbed_one_does(
    ended: dict[str, Ended], images: Path, tmp_path: Path, name: str
) -> None:
    settings = ended[name].settings
    report = reindex(settings, [images], options())
    assert report.unchanged == COMMITTED.get(name, IMAGES)
    assert report.embedded == IMAGES - report.unchanged
    assert_is_undisturbed(settings, images, tmp_path)


def error_of(run: Ended) -> str:
    """The one line that tells of the error; a traceback would have more."""
    assert "Traceback" not in run.messages
    (line,) = [line for line in run.messages.splitlines() if "rror" in line]
    return line


def assert_is_undisturbed(settings: Settings, images: Path, folder: Path) -> None:
    """The index is what a run makes of the images that loses nothing."""
    undisturbed = Settings(data_dir=folder, database_url="")
    reindex(undisturbed, [images], options())
    assert_same_vectors(vectors(settings), vectors(undisturbed))
    assert states(settings) == states(undisturbed)
    assert {path.name for path in settings.generations_dir.iterdir()} == {"1"}
    with searching(settings) as found, searching(undisturbed) as expected:
        for name in ("image-00", "image-03"):
            one, other = found.similar_by_id(name), expected.similar_by_id(name)
            assert one.generation == other.generation == 1
            matches = zip(one.matches, other.matches, strict=True)
            for match, same in matches:
                assert match.parcel_id == same.parcel_id
                assert match.score == pytest.approx(same.score, abs=1e-6)
