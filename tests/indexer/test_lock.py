import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.errors import ConflictError
from indexer.lock import only_writer

HOLDER = """
import sys, time
from pathlib import Path
from indexer.lock import only_writer

with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold_in_another_process(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock, and wait until it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    with hold_in_another_process(tmp_path) as process:
        with pytest.raises(ConflictError, match=f"process {process.pid}.*wait") as caught:
            with only_writer(tmp_path):
                pass
        process.kill()
    assert caught.value.kind == "reindex-running"
    assert str(tmp_path) in caught.value.message


def test_a_killed_holder_does_not_block_the_next(tmp_path: Path) -> None:
    with hold_in_another_process(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
    with only_writer(tmp_path):
        pass


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of cloud"), only_writer(tmp_path):
        raise RuntimeError("out of cloud")
    with only_writer(tmp_path):
        pass


def test_the_same_process_cannot_write_twice_at_once(tmp_path: Path) -> None:
    with only_writer(tmp_path):
        with pytest.raises(ConflictError, match=f"process {os.getpid()}"), only_writer(tmp_path):
            pass


def test_the_folder_is_made_where_there_is_none(tmp_path: Path) -> None:
    with only_writer(tmp_path / "new" / "data"):
        assert (tmp_path / "new" / "data").is_dir()


def test_two_folders_have_two_writers(tmp_path: Path) -> None:
    with only_writer(tmp_path / "one"), only_writer(tmp_path / "other"):
        pass
