"""What a person sees: results on stdout, progress and messages on stderr."""

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from indexer.plain_text import plain, plain_json, plain_lines

# A table that goes to a file or pipe must not be cut to the width of a terminal.
_WIDTH_WITHOUT_TERMINAL = 2000
_SHOWN_SKIPS = 10


def stdout() -> Console:
    """Where results go."""
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=not sys.stdout.isatty())


def stderr() -> Console:
    """Where progress and messages go."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """A line of result; the text is no markup, and a terminal obeys nothing in it."""
    stdout().print(plain_lines(text), markup=False)


def tell(text: str) -> None:
    """A message beside the result, on stderr; likewise."""
    stderr().print(plain_lines(text), markup=False)


def tell_notes(notes: Iterable[str]) -> None:
    """What must be said beside an answer."""
    for note in notes:
        tell(f"Note: {note}")


def say_json(content: dict[str, Any] | list[Any]) -> None:
    """One JSON value on stdout, characters of every script as they are.

    What a terminal would obey is written as an escape of JSON, so that the value is the same.
    """
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)
    sys.stdout.write(plain_json(text) + "\n")


def say_table(columns: Iterable[str], rows: Iterable[Iterable[str]], *, right: set[str]) -> None:
    """A plain table; ``right`` names the columns of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        # Crop names and ids are data, not markup.
        table.add_row(*(Text(plain(cell)) for cell in row))
    stdout().print(table)


def tell_skipped(skipped: list[Any]) -> None:
    """Name what a batch left out, the first of many."""
    for entry in skipped[:_SHOWN_SKIPS]:
        tell(f"Skipped [{entry.kind}] {entry.reason}")
    if len(skipped) > _SHOWN_SKIPS:
        tell(f"... and {len(skipped) - _SHOWN_SKIPS} more; --json names them all.")


class _PaceColumn(ProgressColumn):
    """Steps per second since the start, and the time that the rest takes at that pace.

    Steps come in batches; a rate over the last moments would jump with each.
    """

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Both, or nothing before the first batch is done."""
        if not task.completed or not task.elapsed:
            return Text("")
        rate = task.completed / task.elapsed
        left_s = round(((task.total or 0) - task.completed) / rate)
        left = f"{left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02}"
        return Text(f"{rate:.2f} {self._unit}/s, {left} left", no_wrap=True)


class Bar:
    """A progress bar on stderr with rate and remaining time.

    Args:
        unit: What a task's steps are called, in the plural.
    """

    def __init__(self, unit: str = "chips") -> None:
        self._unit = unit
        self._progress: Progress | None = None

    def start(self, task: str, total: int, unit: str | None = None) -> None:
        """Show a bar for a task of so many steps."""
        task, unit = plain(task), unit or self._unit
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            _PaceColumn(unit),
            console=stderr(),
        )
        self._task = self._progress.add_task(task, total=total)
        self._progress.start()

    def expect(self, total: int) -> None:
        """Show another number of steps."""
        if self._progress is not None:
            self._progress.update(self._task, total=total)

    def rename(self, task: str) -> None:
        """Say what is being done now."""
        if self._progress is not None:
            self._progress.update(self._task, description=plain(task))

    def advance(self, done: int) -> None:
        """Move on."""
        if self._progress is not None:
            self._progress.advance(self._task, done)

    def finish(self) -> None:
        """Leave the finished bar standing."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
