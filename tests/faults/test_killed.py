"""Commands die at any moment: nothing is lost, nothing is left behind, the next run completes."""

from collections.abc import Callable

import pytest

from tests.faults.commands import COMMANDS, COMMITTING
from tests.faults.conftest import Beginnings
from tests.faults.ordeals import Ordeal
from tests.faults.report import rounds
from tests.schemas import matter_of_sqlite

pytestmark = matter_of_sqlite("data folders are copied for each trial")

MOMENTS = 2

Endured = Callable[[Ordeal], None]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_before_any_step_loses_nothing_and_is_completed_by_the_next(
    name: str, beginnings: Beginnings, endured: Endured
) -> None:
    endured(COMMANDS[name].meets("killed at a step", name, beginnings, rounds()))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_at_any_moment_loses_nothing_and_is_completed_by_the_next(
    name: str, beginnings: Beginnings, endured: Endured
) -> None:
    endured(COMMANDS[name].meets("killed at a moment", name, beginnings, MOMENTS * rounds()))


@pytest.mark.parametrize("name", COMMITTING)
def test_a_command_that_dies_within_a_commit_leaves_all_of_it_or_nothing(
    name: str, beginnings: Beginnings, endured: Endured
) -> None:
    endured(COMMANDS[name].meets("killed in a call", name, beginnings, rounds()))
