"""A disk that fills up: an error says so, the former state answers, and with room all goes on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.commands import COMMANDS
from tests.faults.conftest import Beginnings
from tests.faults.ordeals import Ordeal, can_mount, unshare
from tests.faults.report import counted, rounds
from tests.schemas import matter_of_sqlite

SIZES = 1

Endured = Callable[[Ordeal], None]

pytestmark = [
    matter_of_sqlite("data folders are copied for each trial"),
    pytest.mark.skipif(
        not can_mount(),
        reason="a small disk: neither root nor a namespace of one's own can mount one",
    ),
]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_fills_the_disk_says_so_loses_nothing_and_completes_with_more_room(
    name: str, beginnings: Beginnings, endured: Endured
) -> None:
    endured(COMMANDS[name].meets("disk full", name, beginnings, SIZES * rounds()))


_ON_A_FULL_DISK = """
set -e
mkdir "$2"
mount -t tmpfs -o size=64m tmpfs "$2"
cp -r "$1/." "$2"
dd if=/dev/zero of="$2/filler" bs=4k 2>/dev/null || true
PARCELLE_DATABASE_URL= PARCELLE_DATA_DIR="$2" exec "$3" similar field-05 --collection fields
"""


def test_on_a_full_disk_a_command_names_the_disk_and_what_is_free_there(
    beginnings: Beginnings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = tmp_path / "disk"
    parcelle = Path(sys.executable).with_name("parcelle")
    words = [_ON_A_FULL_DISK, "sh", beginnings["fields"], place, parcelle]
    done = subprocess.run(
        [*unshare(), "sh", "-c", *map(str, words)], capture_output=True, text=True
    )
    with counted("no space left, and nobody has the index open", "`similar`", request):
        assert done.returncode == 1
        assert f"Error [disk-full]: The disk of {place} is full (0 KiB free)" in done.stderr
