"""The disk refuses to keep what it was given: nothing of it is published."""

from collections.abc import Callable

import pytest

from tests.faults.commands import COMMANDS, COMMITTING
from tests.faults.conftest import Beginnings
from tests.faults.ordeals import Ordeal
from tests.faults.report import rounds
from tests.schemas import matter_of_sqlite

pytestmark = matter_of_sqlite("data folders are copied for each trial")

Endured = Callable[[Ordeal], None]

FLUSHING = ["reindex into an empty folder", "reindex", "generations compact", "backup", "restore"]
"""Commands that write files of an index; the others leave flushing to the database."""


@pytest.mark.parametrize("name", FLUSHING)
def test_a_file_that_cannot_be_flushed_is_never_published(
    name: str, beginnings: Beginnings, endured: Endured
) -> None:
    endured(COMMANDS[name].meets("flush fails", name, beginnings, rounds()))


@pytest.mark.parametrize("name", COMMITTING)
def test_a_commit_that_cannot_be_flushed_is_an_error_and_leaves_all_of_it_or_nothing(
    name: str, beginnings: Beginnings, endured: Endured
) -> None:
    endured(COMMANDS[name].meets("every flush fails", name, beginnings, rounds()))
