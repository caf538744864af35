"""Progress of long work, reported to whoever shows it."""

from typing import Protocol


class Progress(Protocol):
    """Receives how far a task has come."""

    def start(self, task: str, total: int) -> None:
        """A task begins; ``total`` is the number of chips it is expected to take."""

    def extend(self, more: int) -> None:
        """The task turns out to take so many chips more, or fewer if negative."""

    def advance(self, done: int) -> None:
        """So many chips more are done."""

    def finish(self) -> None:
        """The task is over."""


class Silent:
    """Shows nothing."""

    def start(self, task: str, total: int) -> None:
        """Ignore the beginning."""

    def extend(self, more: int) -> None:
        """Ignore the correction."""

    def advance(self, done: int) -> None:
        """Ignore the step."""

    def finish(self) -> None:
        """Ignore the end."""
