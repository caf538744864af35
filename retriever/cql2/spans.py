"""Dates, times and intervals of a filter."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeGuard

from retriever.cql2.nodes import Span
from retriever.cql2.parsing import Tree
from retriever.cql2.refusals import refused
from retriever.quoting import quoted

# Python reads more forms of ISO 8601 than these.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})",
    re.IGNORECASE,
)

# Times are kept to the microsecond; the next one is the first that is outside.
_MOMENT = timedelta(microseconds=1)

_Ends = tuple[datetime, datetime, datetime]
"""Start, end as it is written, first moment after."""


def is_span(tree: Tree) -> TypeGuard[dict[str, Tree]]:
    """Whether a tree is a date, a time or an interval."""
    return isinstance(tree, dict) and len(tree) == 1 and tree.keys() <= set(_READERS)


def span_of(tree: dict[str, Tree]) -> Span:
    """The date, time or interval that a tree is.

    Raises:
        InvalidInputError: If it cannot be read, or ends before it starts.
    """
    ((kind, written),) = tree.items()
    return _READERS[kind](written)


def _date(written: Tree) -> Span:
    return Span(*_instant(written, "DATE", _date_ends), f"DATE('{written}')")


def _timestamp(written: Tree) -> Span:
    return Span(*_instant(written, "TIMESTAMP", _time_ends), f"TIMESTAMP('{written}')")


def _interval(written: Tree) -> Span:
    if not (
        isinstance(written, list | tuple)
        and len(written) == 2
        and all(isinstance(one, str) for one in written)
    ):
        raise refused("INTERVAL takes a start and an end: INTERVAL('2023-05-01', '..').")
    first, last = written
    start = None if first == ".." else _instant(first, "INTERVAL", _either_ends)[0]
    until = end = None
    if last != "..":
        _, until, end = _instant(last, "INTERVAL", _either_ends)
    if start is not None and end is not None and end <= start:
        raise refused(f"INTERVAL({quoted(first)}, {quoted(last)}) ends before it starts.")
    return Span(start, until, end, f"INTERVAL('{first}', '{last}')")


_READERS = {"date": _date, "timestamp": _timestamp, "interval": _interval}


def _instant(written: Tree, what: str, read: Callable[[str], _Ends]) -> _Ends:
    try:
        if isinstance(written, str):
            return read(written)
    except (ValueError, OverflowError):
        pass
    found = quoted(written) if isinstance(written, str) else "no text"
    forms = {
        "DATE": "a date as 2023-05-29",
        "TIMESTAMP": "a time with its zone as 2023-05-29T10:30:00Z",
        "INTERVAL": "dates as 2023-05-29, times as 2023-05-29T10:30:00Z, or .. for an open end",
    }
    raise refused(f"{what}: found {found}; write {forms[what]}.") from None


def _either_ends(text: str) -> _Ends:
    return _date_ends(text) if _DATE.fullmatch(text) else _time_ends(text)


def _date_ends(text: str) -> _Ends:
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    start = datetime.fromisoformat(text).replace(tzinfo=UTC)
    after = start + timedelta(days=1)
    return start, after, after


def _time_ends(text: str) -> _Ends:
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
    return moment, moment, moment + _MOMENT
