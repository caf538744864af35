"""Where an answer ended: a short word that a model hands back to read on."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from indexer.errors import InvalidInputError
from retriever.quoting import quoted

_FORM = re.compile(
    r"(?P<position>[0-9]{1,12})\.(?P<version>[0-9]{1,12})\.(?P<question>[0-9a-f]{6})"
)

# The same question may go on in another form, or in steps of another size.
_FREE = {"cursor", "k", "limit", "response_format"}


@dataclass(frozen=True)
class Cursor:
    """How far a question was answered; its text is ``position.version.question``."""

    position: int
    """What was told already: a number of matches, or the last row."""
    version: int
    """What the position counts in: a generation, or a number of observations."""
    question: str
    """Digest of the arguments."""

    def __str__(self) -> str:
        return f"{self.position}.{self.version}.{self.question}"


def question_of(arguments: BaseModel) -> str:
    """Digest of the arguments that a cursor belongs to, six hexadecimal digits."""
    fields: dict[str, Any] = arguments.model_dump(mode="json", exclude=_FREE)
    canonical = repr(sorted(fields.items()))
    return hashlib.sha256(canonical.encode()).hexdigest()[:6]


def read_cursor(text: str | None, question: str) -> Cursor | None:
    """The cursor that a model handed back.

    Raises:
        InvalidInputError: If it is none (``invalid-cursor``), or of another question
            (``cursor-expired``).
    """
    if text is None:
        return None
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise InvalidInputError(
            f"cursor {quoted(text)}: hand back exactly what an earlier answer gave.",
            kind="invalid-cursor",
        )
    if found["question"] != question:
        raise InvalidInputError(
            f"cursor {quoted(text)} belongs to a question with other arguments.",
            kind="cursor-expired",
        )
    return Cursor(int(found["position"]), int(found["version"]), found["question"])


def check_version(cursor: Cursor | None, version: int) -> int:
    """The position to go on from; 0 at the beginning.

    Raises:
        InvalidInputError: If what the position counts in has changed (``cursor-expired``).
    """
    if cursor is None:
        return 0
    if cursor.version != version:
        raise InvalidInputError(
            "What the cursor points into was replaced by newer data.", kind="cursor-expired"
        )
    return cursor.position
