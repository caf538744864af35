"""CQL2 in Python, from the standard's words: the reference that SQL is held against.

A parcel is a dictionary of what it has. True, False, or None for what is unknown, as in SQL.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

Parcel = dict[str, Any]
Truth = bool | None


def holds(tree: Any, parcel: Parcel) -> Truth:  # noqa: ANN401 - JSON
    """Whether an expression in CQL2 JSON holds for a parcel."""
    if isinstance(tree, bool):
        return tree
    op, arguments = tree["op"], tree["args"]
    if op in ("and", "or"):
        parts = [holds(one, parcel) for one in arguments]
        decisive = op == "or"
        return decisive if decisive in parts else None if None in parts else not decisive
    if op == "not":
        part = holds(arguments[0], parcel)
        return None if part is None else not part
    if op == "isNull":
        return parcel.get(arguments[0]["property"]) is None
    if op == "between":
        value, lower, upper = arguments
        both = [{"op": ">=", "args": [value, lower]}, {"op": "<=", "args": [value, upper]}]
        return holds({"op": "and", "args": both}, parcel)
    if op == "in":
        value, listed = arguments
        each = [{"op": "=", "args": [value, one]} for one in listed]
        return holds({"op": "or", "args": each}, parcel)
    left, right = (_value(one, parcel) for one in arguments)
    if left is None or not _alike(left, right):
        return None
    if op == "s_intersects":
        return bool(shapely.intersects(left, right))
    if op == "like":
        return _fits(left, right)
    if isinstance(left, datetime):
        return _in_time(op, left, right)
    return _compared(op, left, right)


def _value(tree: Any, parcel: Parcel) -> Any:  # noqa: ANN401
    match tree:
        case {"property": name}:
            return parcel.get(name)
        case {"op": "casei", "args": [inner]}:
            text = _value(inner, parcel)
            # Character by character: what folds to several characters stays as it is.
            return "".join(_folded(one) for one in text) if isinstance(text, str) else None
        case {"bbox": [west, south, east, north]}:
            return shapely.box(west, south, east, north)
        case {"type": _}:
            return shape(tree)
        case dict():
            return tree
    return tree


def _folded(character: str) -> str:
    lower = character.upper().lower() if len(character.upper()) == 1 else character.lower()
    return lower if len(lower) == 1 else character


def _alike(left: object, right: object) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool)
    for kind in (str, int | float, BaseGeometry):
        if isinstance(left, kind):
            return isinstance(right, kind)
    return isinstance(left, datetime) and isinstance(right, dict)


def _compared(op: str, left: Any, right: Any) -> bool:  # noqa: ANN401
    return bool(
        {
            "=": left == right,
            "<>": left != right,
            "<": left < right,
            "<=": left <= right,
            ">": left > right,
            ">=": left >= right,
        }[op]
    )


def _fits(text: str, pattern: str) -> bool:
    parts = re.findall(r"\\.|.", pattern, flags=re.DOTALL)
    meant = {"%": ".*", "_": "."}
    regular = "".join(meant.get(one) or re.escape(one[-1]) for one in parts)
    return re.fullmatch(regular, text, flags=re.DOTALL) is not None


def _in_time(op: str, moment: datetime, span: dict[str, Any]) -> bool:
    """Moments are whole seconds here, so that a second is the smallest step."""
    start, end = _ends(span)
    before = start is not None and moment < start
    after = end is not None and moment > end
    return {
        "t_before": before,
        "<": before,
        "t_after": after,
        ">": after,
        "<=": not after,
        ">=": not before,
        "t_during": not before and not after and moment not in (start, _last(span)),
        "t_disjoint": before or after,
        "<>": before or after,
    }.get(op, not before and not after)


def _ends(span: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
    """First and last second."""
    ((kind, written),) = span.items()
    first, last = written if kind == "interval" else (written, written)
    start = None if first == ".." else _moment(first)
    if last == "..":
        return start, None
    whole_day = timedelta(days=1, seconds=-1) if len(last) == 10 else timedelta(0)
    return start, _moment(last) + whole_day


def _last(span: dict[str, Any]) -> datetime | None:
    """The end of an interval if it is a time, which ``t_during`` leaves out."""
    ((_, written),) = span.items()
    last = written[1]
    return None if len(last) <= 10 else _moment(last)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
