"""Progress of long work, reported to whoever shows it."""

from typing import Protocol


class Progress(Protocol):
    """Receives how far a task has come."""

    def start(self, task: str, total: int) -> None:
        """A task begins; ``total`` is the number of steps that it takes, such as chips."""

    def rename(self, task: str) -> None:
        """What is being done has another name for now."""

    def advance(self, done: int) -> None:
        """So many steps more are done."""

    def finish(self) -> None:
        """The task is over."""


class Silent:
    """Shows nothing."""

    def start(self, task: str, total: int) -> None:
        """Ignore the beginning."""

    def rename(self, task: str) -> None:
        """Ignore the name."""

    def advance(self, done: int) -> None:
        """Ignore the step."""

    def finish(self) -> None:
        """Ignore the end."""
