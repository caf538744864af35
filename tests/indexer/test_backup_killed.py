import json
import os
import subprocess
import sys
from typing import Any

import pytest

from indexer.backup.making import back_up
from tests.indexer.backups import field, plant_fields
from tests.retriever.planted import plant, settings_in
from tests.schemas import matter_of_sqlite

pytestmark = matter_of_sqlite("data folders are copied for each death")

EVERY = 1 if int(os.environ.get("PARCELLE_FAULT_ROUNDS", "0")) else 20
"""Steps from one death to the next."""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Commands that were killed and run again, with what was found wrong."""
    folder = tmp_path_factory.mktemp("killed")
    index, other = settings_in(folder / "index"), settings_in(folder / "other")
    plant_fields(index)
    plant(other, [field(number, seed=5) for number in range(3)])
    back_up(index, folder / "backup")
    (folder / "scratch").mkdir()
    paths = [index.data_dir, other.data_dir, folder / "backup", folder / "scratch"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.indexer.killed_backup", *map(str, paths), str(EVERY)],
        # Threads would not survive the forks.
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    print(json.dumps({name: {**one, "complaints": []} for name, one in found.items()}))
    return found


@pytest.mark.parametrize(
    ("command", "promise"),
    [
        ("backup", "leaves a whole backup or none"),
        ("restore", "leaves a whole index or none"),
        ("replace", "leaves the former index or the restored one"),
    ],
)
def test_a_command_that_is_killed_keeps_its_promise_and_can_be_run_again(
    tried: dict[str, dict[str, Any]], command: str, promise: str
) -> None:
    assert tried[command]["complaints"] == [], promise
    assert tried[command]["killed"] == tried[command]["trials"] > 2
