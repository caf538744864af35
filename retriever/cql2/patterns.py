r"""Patterns of ``LIKE``, and text without case, in what each database has for them.

``%`` stands for any characters, ``_`` for one, and ``\`` takes the meaning off the character after
it. SQLite's own ``LIKE`` folds ASCII and nothing else; its ``GLOB`` is exact, and takes a choice of
characters, as PostgreSQL's regular expressions do. So É and é are one character without case on
both, whatever the locale of the database. What folds to several characters (ß to ss) does not.
"""

import re
from typing import Any, Final

from sqlalchemy import ColumnElement

from retriever.cql2.refusals import refused

MAX_PATTERN: Final = 1000
"""Most characters of a pattern, and of a text that is compared without case."""

ANY: Final = "%"
ONE: Final = "_"

_ESCAPE: Final = "\\"

Part = tuple[str, str]
"""``("", character)`` for the character itself, or ``(ANY, "")`` or ``(ONE, "")``."""


def parts_of(pattern: str) -> tuple[Part, ...]:
    r"""What a pattern is made of.

    Raises:
        InvalidInputError: If it is too long, or ends with a ``\`` that escapes nothing.
    """
    check_length(pattern)
    parts: list[Part] = []
    characters = iter(pattern)
    for character in characters:
        if character == _ESCAPE:
            escaped = next(characters, None)
            if escaped is None:
                raise refused(
                    r"the pattern of LIKE ends with a \ that escapes nothing; a \ itself is "
                    r"written \\."
                )
            parts.append(("", escaped))
        elif character in (ANY, ONE):
            # More than one in a row means the same, and costs a database dearly.
            if character == ONE or not parts or parts[-1] != (ANY, ""):
                parts.append((character, ""))
        else:
            parts.append(("", character))
    return tuple(parts)


def check_length(text: str) -> None:
    """Let a text pass that is no longer than ``MAX_PATTERN``.

    Raises:
        InvalidInputError: If it is longer.
    """
    if len(text) > MAX_PATTERN:
        raise refused(
            f"a pattern, or a text without case, has {len(text)} characters; at most "
            f"{MAX_PATTERN} are compared."
        )


def fits(
    text: ColumnElement[Any], parts: tuple[Part, ...], dialect: str, *, caseless: bool
) -> ColumnElement[bool]:
    """Whether a text fits a pattern from its beginning to its end.

    Args:
        text: The text.
        parts: The pattern.
        dialect: Name of the database's, as SQLAlchemy has it.
        caseless: Whether upper and lower case are one.
    """
    if dialect == "postgresql":
        pattern = "".join(_regular(part, caseless=caseless) for part in parts)
        return text.bool_op("~")(f"^{pattern}$")
    return text.bool_op("GLOB")("".join(_glob(part, caseless=caseless) for part in parts))


def _regular(part: Part, *, caseless: bool) -> str:
    if part[0]:
        return ".*" if part[0] == ANY else "."
    cases = _cases(part[1]) if caseless else part[1]
    if len(cases) > 1:
        return f"[{cases}]"
    # Only what is neither letter nor digit may be escaped: \d is not d.
    return f"\\{cases}" if re.fullmatch(r"[!-/:-@\[-^`{-~]", cases) else cases


def _glob(part: Part, *, caseless: bool) -> str:
    if part[0]:
        return "*" if part[0] == ANY else "?"
    cases = _cases(part[1]) if caseless else part[1]
    return f"[{cases}]" if len(cases) > 1 or cases in "*?[" else cases


def _cases(character: str) -> str:
    """A character in each case that is one character as well."""
    found = {character}
    for _ in range(2):
        for one in tuple(found):
            found |= {one.lower(), one.upper(), one.title(), one.casefold()}
    return "".join(sorted(one for one in found if len(one) == 1))
