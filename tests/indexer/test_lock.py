import fcntl
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from indexer.catalog.database import connect
from indexer.errors import ConflictError, StorageError
from indexer.lock import LOCK_FILE, Writer, find_writer, only_writer
from indexer.settings import Settings
from tests.postgres import new_schema

HOLDER = """
import sys, time
from contextlib import ExitStack
from indexer.catalog.database import connect
from indexer.lock import only_writer
from indexer.settings import Settings

settings = Settings(data_dir=sys.argv[1], database_url=sys.argv[2])
with only_writer(settings, connect(settings) if sys.argv[2] else None, doing="reindex"):
    print("held", flush=True)
    time.sleep(60)
"""

FORKER = """
import os, signal, sys, time
from indexer.catalog.database import connect
from indexer.lock import only_writer
from indexer.settings import Settings

settings = Settings(data_dir=sys.argv[1], database_url=sys.argv[2])
with only_writer(settings, connect(settings) if sys.argv[2] else None, doing="reindex"):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL) if sys.argv[3] == "die" else time.sleep(60)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url="")


@pytest.fixture
def shared(tmp_path: Path, empty_postgres: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=empty_postgres)


def elsewhere(settings: Settings, tmp_path: Path) -> Settings:
    """As on another machine, with the same database."""
    return settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})


@contextmanager
def opened(settings: Settings) -> Iterator[Engine]:
    engine = connect(settings)
    yield engine
    engine.dispose()


@contextmanager
def held_by_another_process(settings: Settings, url: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock from now on."""
    command = [sys.executable, "-c", HOLDER, str(settings.data_dir), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_writes_where_and_since_when(
    settings: Settings,
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    with held_by_another_process(settings) as process:
        with pytest.raises(ConflictError) as caught, only_writer(settings, doing="cluster"):
            pass
    found = re.fullmatch(
        rf"{re.escape(str(settings.data_dir))} is being written already: parcelle reindex "
        rf"\(process {process.pid} on {re.escape(socket.gethostname())}\), "
        r"since (\S+ \S+) UTC; wait until it ends\.",
        caught.value.message,
    )
    assert caught.value.kind == "reindex-running"
    assert found is not None
    since = datetime.fromisoformat(f"{found[1]}+00:00")
    assert before <= since <= datetime.now(UTC)


def test_a_killed_holder_does_not_block_the_next_which_says_so_in_the_log(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with held_by_another_process(settings) as process:
        os.kill(process.pid, signal.SIGKILL)
    with caplog.at_level(logging.DEBUG, "indexer.lock"), only_writer(settings, doing="reindex"):
        pass
    assert f"its last holder died (parcelle reindex (process {process.pid} on" in caplog.text


def test_after_an_orderly_end_nobody_is_said_to_have_died(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "indexer.lock"):
        for _ in range(2):
            with only_writer(settings, doing="reindex"):
                pass
    assert caplog.text == ""


def test_the_lock_file_names_its_holder_as_json(settings: Settings) -> None:
    with only_writer(settings, doing="generations compact"):
        found = json.loads((settings.data_dir / LOCK_FILE).read_text())
    assert found.keys() == {"pid", "host", "command", "started_at"}
    assert (found["pid"], found["host"]) == (os.getpid(), socket.gethostname())
    assert found["command"] == "generations compact"
    assert datetime.fromisoformat(found["started_at"]).utcoffset() == UTC.utcoffset(None)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("4711", "Another command (process 4711); wait"),
        ("", "Another command; wait"),
        ('{"pid": 12, "ho', "Another command; wait"),
        ('{"pid": null}', "Another command; wait"),
        ("[]", "Another command; wait"),
    ],
    ids=["as earlier versions wrote it", "empty", "half", "no number", "no object"],
)
def test_a_holder_that_does_not_say_who_it_is_is_not_made_up(
    settings: Settings, content: str, named: str
) -> None:
    settings.data_dir.mkdir()
    with (settings.data_dir / LOCK_FILE).open("w") as file:
        file.write(content)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConflictError) as caught, only_writer(settings, doing="reindex"):
            pass
    assert named in caught.value.message


def test_the_lock_is_free_again_after_an_error(settings: Settings) -> None:
    with (
        pytest.raises(RuntimeError, match="out of cloud"),
        only_writer(settings, doing="reindex"),
    ):
        raise RuntimeError("out of cloud")
    with only_writer(settings, doing="reindex"):
        pass


def test_the_same_process_cannot_write_twice_at_once(settings: Settings) -> None:
    with only_writer(settings, doing="reindex"):
        with (
            pytest.raises(ConflictError, match=f"process {os.getpid()}"),
            only_writer(settings, doing="cluster"),
        ):
            pass


def test_the_folder_is_made_where_there_is_none(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new" / "data")
    with only_writer(settings, doing="reindex"):
        assert settings.data_dir.is_dir()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    settings = Settings(data_dir=tmp_path / "data")
    with (
        pytest.raises(
            StorageError, match=r"data.*PARCELLE_DATA_DIR has to name a folder"
        ) as caught,
        only_writer(settings, doing="reindex"),
    ):
        pass
    assert caught.value.kind == "write-failed"


def test_two_folders_have_two_writers(tmp_path: Path) -> None:
    one, other = (Settings(data_dir=tmp_path / name) for name in ("one", "other"))
    with only_writer(one, doing="reindex"), only_writer(other, doing="reindex"):
        pass


def test_who_only_looks_does_not_keep_a_writer_from_beginning(settings: Settings) -> None:
    settings.data_dir.mkdir()
    path = settings.data_dir / LOCK_FILE
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    looked = threading.Timer(0.02, os.close, [descriptor])
    looked.start()
    with only_writer(settings, doing="reindex"):
        assert find_writer(settings) is not None
    looked.join()


def test_the_writer_is_found_only_while_there_is_one(settings: Settings) -> None:
    assert find_writer(settings) is None
    with held_by_another_process(settings) as process:
        found = find_writer(settings)
        assert found is not None
        assert (found.doing, found.process, found.host) == (
            *("reindex", process.pid),
            socket.gethostname(),
        )
    assert find_writer(settings) is None
    with only_writer(settings, doing="reindex"):
        pass


def test_a_writer_whose_lock_file_was_removed_finds_out(settings: Settings) -> None:
    with only_writer(settings, doing="reindex") as held:
        held.still_held()
        (settings.data_dir / LOCK_FILE).unlink()
        with pytest.raises(ConflictError, match="was removed or replaced") as caught:
            held.still_held()
        with only_writer(settings, doing="reindex") as other:
            other.still_held()
            with pytest.raises(ConflictError):
                held.still_held()
    assert caught.value.kind == "lock-lost"


# Processes that a holder starts -------------------------------------------------------------------


@contextmanager
def forked_child_of_a_holder(settings: Settings, url: str, then: str) -> Iterator[int]:
    command = [sys.executable, "-c", FORKER, str(settings.data_dir), url, then]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        if then == "die":
            assert process.wait() == -signal.SIGKILL
        yield child
        os.kill(child, signal.SIGKILL)
        process.kill()


def test_a_forked_child_that_outlives_a_killed_holder_holds_nothing(settings: Settings) -> None:
    with forked_child_of_a_holder(settings, "", "die") as child:
        with only_writer(settings, doing="reindex"):
            os.kill(child, 0)


def test_the_end_of_a_forked_child_leaves_the_lock_with_its_holder(settings: Settings) -> None:
    with only_writer(settings, doing="reindex") as held:
        child = os.fork()
        if child == 0:
            # As a child that unwinds what its parent opened.
            held._folder.release()
            os._exit(0)
        os.waitpid(child, 0)
        held.still_held()
        with pytest.raises(ConflictError, match=f"process {os.getpid()}"):
            with only_writer(settings, doing="reindex"):
                pass


def test_a_program_that_a_holder_starts_does_not_inherit_the_lock(settings: Settings) -> None:
    with only_writer(settings, doing="reindex"):
        # Even where somebody passes on all that may be passed on.
        process = subprocess.Popen([sys.executable, "-c", "input()"], close_fds=False, stdin=-1)
    with process, only_writer(settings, doing="reindex"):
        assert process.poll() is None
        process.communicate(b"\n")


# PostgreSQL ---------------------------------------------------------------------------------------


def test_two_machines_on_one_database_are_one_writer(shared: Settings, tmp_path: Path) -> None:
    other = elsewhere(shared, tmp_path)
    before = datetime.now(UTC).replace(microsecond=0)
    with held_by_another_process(shared, shared.database_url) as process, opened(other) as engine:
        with pytest.raises(ConflictError) as caught, only_writer(other, engine, doing="cluster"):
            pass
        found = find_writer(other, engine)
    assert caught.value.kind == "reindex-running"
    assert f"parcelle reindex (process {process.pid} on {socket.gethostname()})" in str(
        caught.value
    )
    assert "postgresql" in caught.value.message
    assert found is not None
    assert (found.doing, found.process) == ("reindex", process.pid)
    assert found.since is not None
    assert before <= found.since <= datetime.now(UTC)


def test_the_database_forgets_a_killed_holder(shared: Settings, tmp_path: Path) -> None:
    other = elsewhere(shared, tmp_path)
    with held_by_another_process(shared, shared.database_url) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with opened(other) as engine, only_writer(other, engine, doing="reindex") as held:
            held.still_held()


def test_a_forked_child_does_not_keep_the_database_locked(shared: Settings, tmp_path: Path) -> None:
    other = elsewhere(shared, tmp_path)
    with forked_child_of_a_holder(shared, shared.database_url, "die") as child:
        with opened(other) as engine, only_writer(other, engine, doing="reindex"):
            os.kill(child, 0)


def test_a_forked_child_does_not_end_the_session_of_its_parent(shared: Settings) -> None:
    with opened(shared) as engine, only_writer(shared, engine, doing="reindex") as held:
        child = os.fork()
        if child == 0:
            assert held._session is not None
            held._session.release()
            os._exit(0)
        os.waitpid(child, 0)
        held.still_held()


def test_a_child_that_is_forked_after_the_session_broke_holds_nothing(
    shared: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as ending, opened(shared) as engine:
        held = ending.enter_context(only_writer(shared, engine, doing="reindex"))
        end_sessions_of_writers(engine)
        with pytest.raises(ConflictError):
            held.still_held()
        with monkeypatch.context() as patch:
            # The broken one first, of a set that has no order.
            patch.setattr("indexer.lock._locks", [held._session, held._folder])
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
        try:
            ending.close()
            with only_writer(shared, engine, doing="reindex"):
                pass
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_the_database_is_free_again_at_the_end(shared: Settings, tmp_path: Path) -> None:
    other = elsewhere(shared, tmp_path)
    with opened(shared) as engine, opened(other) as other_engine:
        with only_writer(shared, engine, doing="reindex"):
            pass
        # The first engine's pool is still open.
        assert find_writer(other, other_engine) is None
        with only_writer(other, other_engine, doing="reindex"):
            pass


def test_two_schemas_of_one_database_have_two_writers(
    shared: Settings, postgres_url: str, tmp_path: Path
) -> None:
    with new_schema(postgres_url) as url:
        other = Settings(data_dir=tmp_path / "elsewhere", database_url=url)
        with opened(shared) as engine, opened(other) as other_engine:
            with (
                only_writer(shared, engine, doing="reindex"),
                only_writer(other, other_engine, doing="reindex"),
            ):
                pass


def end_sessions_of_writers(engine: Engine) -> None:
    """As a database does that is restarted, or that a firewall has cut off."""
    with engine.begin() as connection:
        ended = connection.scalars(
            text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE application_name LIKE :name"
            ),
            {"name": f"parcelle % {socket.gethostname()}:{os.getpid()}"},
        ).all()
    assert ended == [True]


def test_a_writer_whose_session_the_database_ended_may_not_publish(shared: Settings) -> None:
    with opened(shared) as engine, only_writer(shared, engine, doing="reindex") as held:
        with engine.begin() as connection:
            held.still_held(connection)
        end_sessions_of_writers(engine)
        with engine.begin() as connection, pytest.raises(ConflictError) as caught:
            held.still_held(connection)
        with pytest.raises(ConflictError):
            held.still_held()
    assert caught.value.kind == "lock-lost"


def test_who_takes_over_waits_for_a_publication_that_was_allowed(
    shared: Settings, tmp_path: Path
) -> None:
    other = elsewhere(shared, tmp_path)
    events = []

    def take_over() -> None:
        with opened(other) as engine, only_writer(other, engine, doing="reindex"):
            events.append("took over")

    with opened(shared) as engine, only_writer(shared, engine, doing="reindex") as held:
        with engine.begin() as connection:
            held.still_held(connection)
            end_sessions_of_writers(engine)
            thread = threading.Thread(target=take_over)
            thread.start()
            thread.join(0.3)
            events.append("published")
        thread.join()
        with engine.begin() as connection, pytest.raises(ConflictError):
            held.still_held(connection)
    assert events == ["published", "took over"]


def test_a_long_name_of_a_host_leaves_the_process_readable() -> None:
    writer = Writer("generations compact", 4194304, "h" * 200, datetime.now(UTC))
    assert len(writer.session) == 63
    assert writer.session.endswith("h:4194304")
