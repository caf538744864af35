"""What the fault tests tried, as a table: ``python -m tests.faults.report FILE``.

Each test appends a JSON line to the file that ``PARCELLE_FAULT_REPORT`` names, if it names one.
"""

import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

REPORT = "PARCELLE_FAULT_REPORT"
"""Names the file."""

ROUNDS = "PARCELLE_FAULT_ROUNDS"
"""How many times as many random moments are tried; 1 unless it says otherwise."""


_SHORT = {
    "test_a_command_that_is_killed_before_any_step_loses_nothing_and_is_completed_by_the_next": (
        "any_step"
    ),
    "test_a_command_that_is_killed_at_any_moment_loses_nothing_and_is_completed_by_the_next": (
        "any_moment"
    ),
    "test_a_command_that_dies_within_a_commit_leaves_all_of_it_or_nothing": "within_a_commit",
    "test_a_file_that_cannot_be_flushed_is_never_published": "file_that",
    "test_a_commit_that_cannot_be_flushed_is_an_error_and_leaves_all_of_it_or_nothing": (
        "commit_that"
    ),
    "test_a_command_that_fills_the_disk_says_so_loses_nothing_and_completes_with_more_room": (
        "fills"
    ),
    "test_a_damaged_file_is_refused_at_load_by_name_and_other_spaces_go_on": "at_load",
    "test_verify_and_check_name_a_damaged_file_and_rebuild_mends_it_from_the_database": "verify",
    "test_a_damaged_database_is_named_and_nothing_is_rebuilt_over_it": "database_is",
    "test_a_damaged_database_that_is_moved_away_as_the_message_says_is_restored_from_a_backup": (
        "moved_away"
    ),
    "test_an_empty_database_file_beside_indexes_is_told_of_and_restored_from_a_backup": "empty",
    "test_without_its_write_ahead_log_the_database_is_as_it_was_when_that_was_last_emptied": (
        "write_ahead"
    ),
    "test_what_was_and_is_committed_is_found_after_the_log_was_dropped_and_made_anew": "dropped",
    "test_whoever_goes_on_after_its_lock_was_removed_and_another_wrote_publishes_nothing": (
        "was_removed"
    ),
    "test_whoever_is_stopped_while_it_holds_the_lock_goes_on_when_it_may": "when_it_may",
    "test_on_a_full_disk_a_command_names_the_disk_and_what_is_free_there": "names_the_disk",
    "test_whoever_comes_second_is_told_who_writes_and_gets_in_as_soon_as_that_one_is_killed": (
        "second"
    ),
    "test_of_commands_that_begin_at_once_each_completes_or_names_the_other": "at_once",
    "test_no_answer_fails_or_is_mixed_during_fifty_publications_rollbacks_and_prunings": "fifty",
}


@dataclass(frozen=True)
class Entry:
    """One row of the table, or a part of one."""

    fault: str
    what: str
    """What met the fault."""
    tried: int
    """How often."""
    lost: int
    """How often anything was not as it must be."""
    test: str
    """Where the test is, as pytest takes it."""


def rounds() -> int:
    """How many times as many random moments are to be tried."""
    return max(1, int(os.environ.get(ROUNDS, "1")))


def note(entry: Entry) -> None:
    """Append what was tried to the report, if one is wanted."""
    place = os.environ.get(REPORT)
    if place:
        with Path(place).open("a") as file:
            # One write, so that processes that test side by side do not mix their lines.
            file.write(json.dumps(asdict(entry)) + "\n")


@contextmanager
def counted(fault: str, what: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Note one trial, as a loss if anything is not as it must be.

    Args:
        fault: As ``Entry`` has it.
        what: As ``Entry`` has it.
        request: Of the test.
    """
    lost = 1
    try:
        yield
        lost = 0
    finally:
        note(Entry(fault, what, 1, lost, request.node.nodeid.split("[")[0]))


def table(entries: Iterable[Entry]) -> str:
    """One row for each fault and test, with all that met it."""
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.test, entry.fault].append(entry)
    lines = ["| Fault | Tried | Met by | Lost | Repeat it |", "|---|--:|---|---|---|"]
    for (test, fault), group in sorted(groups.items()):
        tried = Counter[str]()
        for one in group:
            tried[one.what] += one.tried
        met = ", ".join(f"{what} {count}" for what, count in tried.items() if count)
        lost = sum(one.lost for one in group)
        repeat = f"`pytest {test.partition('::')[0]} -k {_words(test)}`"
        lines.append(f"| {fault} | {tried.total()} | {met} | {lost or 'nothing'} | {repeat} |")
    return "\n".join(lines)


def _words(test: str) -> str:
    """As much of a test's name as tells it from the others of its file."""
    return _SHORT.get(test.partition("::")[2], test.partition("::")[2])


def _main(path: str) -> None:
    lines = Path(path).read_text().splitlines()
    print(table(Entry(**json.loads(line)) for line in lines))


if __name__ == "__main__":
    _main(sys.argv[1])
