"""Conditions decided for one value, as SQL decides them: true, false, or None for unknown.

A column of few different values is asked about each value once. Text without case is compared as
``retriever.caseless`` means it: upper and lower case are one, whatever letters they are of. (In
SQLite, a value that mixes the cases of letters beyond ASCII, étÉ, is found by its own spelling
only.)
"""

import re
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from indexer.columns.codes import MISSING, CodedColumn
from indexer.parcels.parcel import JsonScalar
from retriever.attributes import _number_in
from retriever.cql2.nodes import Comparison, Like, OneOf, Scalar
from retriever.cql2.patterns import ANY, Part, _cases, parts_of

Judge = Callable[[Any], bool | None]

Leaf = Comparison | OneOf | Like


def folded(value: str) -> tuple[Hashable, ...]:
    """A text without case, as the one group that it is in."""
    return (value.lower(),)


def folded_pair(crop: tuple[str | None, str | None]) -> tuple[Hashable, ...]:
    """Code and name of a crop without case."""
    return tuple({part.lower() for part in crop if part is not None})


def exact(value: Any) -> tuple[Hashable, ...]:  # noqa: ANN401 - whatever a column holds
    """A value with its kind: 1 is not TRUE."""
    kind = kind_of(value)
    return ((kind, value),) if kind in ("text", "number", "boolean") else ()


def first_of_pair(crop: tuple[str | None, str | None]) -> tuple[Hashable, ...]:
    """The code of a crop."""
    return () if crop[0] is None else (("text", crop[0]),)


def second_of_pair(crop: tuple[str | None, str | None]) -> tuple[Hashable, ...]:
    """The name of a crop."""
    return () if crop[1] is None else (("text", crop[1]),)


def kind_of(value: object) -> str:
    """What a value is to SQL: ``text``, ``number``, ``boolean``, ``null`` or ``other``."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "null" if value is None else "other"


def codes_where(column: CodedColumn, judge: Judge, truth: bool) -> tuple[int, ...]:
    """The codes of the values for which a condition is true, or false."""
    return tuple(
        code
        for code, value in enumerate(column.values)
        if code != MISSING and judge(value) is truth
    )


def crop_codes(column: CodedColumn, words: Iterable[str]) -> tuple[int, ...]:
    """The codes of the crops whose code or name is one of some words, without case."""
    groups = column.groups(folded_pair)
    found = [groups.get(word.lower(), ()) for word in words]
    if len(found) == 1:
        return found[0]
    return tuple({code for codes in found for code in codes})


def has_value(value: JsonScalar) -> Judge:
    """Whether an attribute has a value; see ``retriever.attributes``."""
    if value is None:
        return lambda _: False
    if isinstance(value, bool):
        return lambda found: found is value
    if isinstance(value, str):
        number, lower = _number_in(value), value.lower()
        return lambda found: (
            found.lower() == lower
            if isinstance(found, str)
            else number is not None and _is_number(found, number)
        )
    return lambda found: found == str(value) if isinstance(found, str) else _is_number(found, value)


def _is_number(found: object, number: float) -> bool:
    return kind_of(found) == "number" and found == number


def judge_of(node: Leaf) -> Judge:
    """Whether a value fulfills a condition of CQL2; unknown for those of another type."""
    match node:
        case Comparison():
            return _comparison(node)
        case OneOf():
            return _one_of(node)
    return _of_text(matcher(parts_of(node.pattern), caseless=node.caseless))


def _comparison(node: Comparison) -> Judge:
    value, kind = node.value, kind_of(node.value)
    if node.caseless:
        same = _literally(str(value))
        return _of_text(same if node.op == "=" else lambda text: not same(text))
    compare = _COMPARE[node.op]
    return lambda found: compare(found, value) if kind_of(found) == kind else None


_COMPARE: dict[str, Callable[[Any, Scalar], bool]] = {
    "=": lambda found, value: found == value,
    "<>": lambda found, value: found != value,
    "<": lambda found, value: found < value,
    "<=": lambda found, value: found <= value,
    ">": lambda found, value: found > value,
    ">=": lambda found, value: found >= value,
}


def _one_of(node: OneOf) -> Judge:
    if node.caseless:
        each = [_literally(str(value)) for value in node.values]
        return _of_text(lambda text: any(same(text) for same in each))
    values = {(kind_of(value), value) for value in node.values}
    kinds = {kind for kind, _ in values}

    def judge(found: object) -> bool | None:
        kind = kind_of(found)
        if kind not in kinds:
            return None
        if (kind, found) in values:
            return True
        # It is unknown whether it is one of those of other types.
        return False if len(kinds) == 1 else None

    return judge


def _of_text(holds: Callable[[str], bool]) -> Judge:
    return lambda found: holds(found) if isinstance(found, str) else None


def _literally(text: str) -> Callable[[str], bool]:
    return matcher(tuple(("", character) for character in text), caseless=True)


def matcher(parts: tuple[Part, ...], *, caseless: bool) -> Callable[[str], bool]:
    """Whether a text fits a pattern from its beginning to its end.

    However many wildcards there are, no part is tried at a second place: the earliest place of a
    part leaves the most for those after it, and the last one lies at the end.

    Args:
        parts: The pattern.
        caseless: Whether upper and lower case are one.
    """
    pieces = [""]
    for part in parts:
        if part == (ANY, ""):
            pieces.append("")
        else:
            pieces[-1] += "." if part[0] else _choice(part[1], caseless=caseless)
    first, *others = pieces
    middle = "".join(f"(?>.*?{piece})" for piece in others[:-1])
    last = f".*{others[-1]}" if others else ""
    pattern = re.compile(first + middle + last, re.DOTALL)
    return lambda text: pattern.fullmatch(text) is not None


def _choice(character: str, *, caseless: bool) -> str:
    cases = _cases(character) if caseless else character
    return re.escape(cases) if len(cases) == 1 else f"[{re.escape(cases)}]"
