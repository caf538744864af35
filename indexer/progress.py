"""Progress of long work, reported to whoever shows it."""

from typing import Protocol


class Progress(Protocol):
    """Receives how far a task has come."""

    def start(self, task: str, total: int, unit: str | None = None) -> None:
        """A task begins.

        Args:
            task: What is done.
            total: Steps that it takes, such as tiles.
            unit: What its steps are called, in the plural; None where that is known.
        """

    def expect(self, total: int) -> None:
        """The number of steps is known better than at the start."""

    def rename(self, task: str) -> None:
        """What is being done has another name for now."""

    def advance(self, done: int) -> None:
        """So many steps more are done."""

    def finish(self) -> None:
        """The task is over."""


class Silent:
    """Shows nothing."""

    def start(self, task: str, total: int, unit: str | None = None) -> None:
        """Ignore the beginning."""

    def expect(self, total: int) -> None:
        """Ignore the number."""

    def rename(self, task: str) -> None:
        """Ignore the name."""

    def advance(self, done: int) -> None:
        """Ignore the step."""

    def finish(self) -> None:
        """Ignore the end."""
