"""Text that strangers wrote, made harmless where it is shown.

File names, crop names and the messages that repeat them may hold what a terminal obeys (colors, the
title of its window, a cursor that moves up) or what a reader is deceived by (line breaks, letters
that run backwards).
"""

import re
from typing import Final

# Controls C0 and C1 (ISO 6429), line and paragraph separators, bytes of a file name that are no
# UTF-8, and marks of direction (Unicode TR 36, 3.4; CVE-2021-42574).
_UNPLAIN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def is_plain(text: str) -> bool:
    """Whether a text is one line that a terminal only shows."""
    return _UNPLAIN.search(text) is None


def plain(text: str) -> str:
    r"""A text with each character that a terminal would obey written as its number.

    Returns:
        The same text where it is plain; else with ``\x1b``, ``\u202e`` or, for a byte of a file
        name, ``\udcff`` in place of such characters.
    """
    return _UNPLAIN.sub(lambda found: _numbered(found[0]), text)


def plain_lines(text: str) -> str:
    """As ``plain``, but line breaks and tabs, which are harmless in a message, stay."""
    return _UNPLAIN.sub(lambda found: found[0] if found[0] in "\n\t" else _numbered(found[0]), text)


def plain_json(text: str) -> str:
    """A text of JSON, its line breaks kept, that says the same in characters that are plain."""
    return _UNPLAIN.sub(
        lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text
    )


def _numbered(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
