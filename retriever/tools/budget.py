"""How long an answer may get, in tokens of the model that reads it."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, Literal

from retriever.quoting import quoted

TOKENS: Final = {"concise": 500, "detailed": 2000}
"""Most tokens of an answer's text. A test holds the answers against a real tokenizer."""

# The estimate is rough; what it is wrong by must not break the promise.
_SAFETY = 0.97

# Quotation marks seldom stand alone: tokenizers join them with commas and with each other.
_QUOTES = 0.8

_PARTS = re.compile(r'(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<own>[^"]+|")')
_PIECES = re.compile(
    r"(?P<lower>[a-z]+)|(?P<upper>[A-Z]+)|(?P<digit> ?[0-9])|(?P<newline>\n)|(?P<space> +)"
    r"|(?P<signs>[!-/:-@\[-`{-~]+)|(?P<other>.)",
    re.DOTALL,
)


def estimate_tokens(text: str) -> int:
    """About as many tokens as a byte-level tokenizer makes of a text, seldom fewer.

    Digits count one each, as in tokenizers that never join them. Letters of our own words are
    cheap, as English is. Text in double quotes is a stranger's, so its letters are counted as if
    they spelled nothing, and what is not ASCII as one token a byte.
    """
    total = 0.0
    for part in _PARTS.finditer(text):
        told = part["quoted"]
        if told is None:
            total += sum(_cost(piece, strange=False) for piece in _PIECES.finditer(part["own"]))
        else:
            total += _QUOTES
            total += sum(_cost(piece, strange=True) for piece in _PIECES.finditer(told[1:-1]))
    return round(total + 0.5)


def _cost(piece: re.Match[str], *, strange: bool) -> float:
    found = piece[0]
    match piece.lastgroup:
        case "digit":
            # Between a word and a digit even the space is a token.
            return len(found)
        case "newline":
            return 1
        case "space":
            return 0.3 * len(found) if strange else 0
        case "lower":
            return _rate(found) * len(found) if strange else max(1, 0.2 * len(found))
        case "upper":
            return (0.75 if strange else 0.6) * len(found)
        case "signs":
            return 0.9 * len(found) if strange else 1 + 0.2 * (len(found) - 1)
        case _:
            return len(found.encode())


def _rate(letters: str) -> float:
    """Tokens a letter of a stranger's word; letters that nobody could pronounce cost most."""
    return 0.5 if 5 * sum(letter in "aeiouy" for letter in letters) >= len(letters) else 0.9


def fitted(
    head: Sequence[str],
    lines: Sequence[str],
    tail: Callable[[int], Sequence[str]],
    detail: Literal["concise", "detailed"],
    *,
    extras: Sequence[str] = (),
) -> str:
    """An answer with as many of its lines as it may have.

    Args:
        head: What comes before the lines.
        lines: In order of importance; the first is always told.
        tail: What comes after, given how many lines are told.
        detail: Chooses the bound.
        extras: Lines between them and the tail, in order of importance. They are left out only
            where even one line leaves them no room.
    """

    def text(told: int, more: int) -> str:
        return "\n".join([*head, *lines[:told], *extras[:more], *tail(told)])

    def too_long(told: int, more: int) -> bool:
        return estimate_tokens(text(told, more)) > _SAFETY * TOKENS[detail]

    # The longest text that fits: of all lines, else of the first and all extras, else of fewer.
    counts = range(1, len(lines) + 1)
    told = bisect_left(counts, True, key=lambda count: too_long(count, len(extras)))
    told = min(max(told, 1), len(lines))
    more = len(extras)
    while more and too_long(told, more):
        more -= 1
    return text(told, more)


def shortened(text: str, characters: int, tokens: int) -> str:
    """A stranger's text in quotes, cut so that it stays within both bounds.

    Args:
        text: Any text, of any length.
        characters: Most characters between the quotes.
        tokens: About the most tokens.
    """
    line = quoted(text, characters)
    while characters > 1 and estimate_tokens(line) > tokens:
        characters = min(characters - 1, characters * tokens // estimate_tokens(line))
        line = quoted(text, max(characters, 1))
    return line
