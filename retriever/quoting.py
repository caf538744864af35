"""Text of strangers, made fit for a message: cleaned, bounded, quoted.

Crop names, parcel ids and collection names come from files that anybody may have written, and
what a caller sends is no better. In a message they reach terminals and language models, so they
must neither move a cursor, nor turn the direction of writing, nor begin a line, nor read as part
of the sentence around them.
"""

import json
import unicodedata

MAX_QUOTED = 100
"""Most characters of a quoted text: as many as a collection's name may have."""

# Far more than any text loses by cleaning, far less than somebody may have stored.
_SCANNED = 10

# Control, format (bidirectional, zero-width and tag characters among them), surrogate, private and
# unassigned. Scripts that join letters by zero-width characters stay readable without them.
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def quoted(text: str, limit: int = MAX_QUOTED) -> str:
    """One line in double quotes, as JSON writes a string; nothing in it can end the quotation.

    Ids and names that consist of printable characters and are no longer than ``limit`` come out
    as they are, so that they can be used in the next question.

    Args:
        text: Any text, of any length.
        limit: Most characters between the quotes, before JSON's backslashes.
    """
    return json.dumps(cleaned(text, limit), ensure_ascii=False)


def cleaned(text: str, limit: int) -> str:
    """Text on one line, without unseen characters; an ellipsis marks what was cut off.

    Args:
        text: Any text, of any length.
        limit: Most characters that are returned, at least 1.
    """
    beginning = text[: _SCANNED * limit]
    seen = "".join(" " if char.isspace() else char for char in beginning if _is_seen(char))
    line = " ".join(seen.split())
    if len(line) > limit or len(beginning) < len(text):
        line = f"{line[: limit - 1]}…"
    return line


def _is_seen(char: str) -> bool:
    return char.isspace() or not (
        unicodedata.category(char) in _UNSEEN_CATEGORIES or _is_variation_selector(char)
    )


def _is_variation_selector(char: str) -> bool:
    """Whether it chooses between glyphs; a row of them can carry a hidden message."""
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
