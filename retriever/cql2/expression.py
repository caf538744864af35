"""Expression: a filter that has been read and checked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from retriever.cql2.checking import check
from retriever.cql2.nodes import AllOf, Node, conditions_in
from retriever.cql2.parsing import parse
from retriever.cql2.properties import PROPERTIES
from retriever.cql2.refusals import refused
from retriever.quoting import quoted

MAX_JSON: Final = 262_144
"""Most characters of a filter in JSON."""


@dataclass(frozen=True, eq=False)
class Expression:
    """A CQL2 expression: which parcels and observations may be returned.

    Two of the same text are equal, in whatever form they were written.
    """

    root: Node

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """Read CQL2 text, ``"crop:code" = 'BTH' AND NDVI > 0.5``.

        Raises:
            InvalidInputError: If it cannot be read, or asks for what there is not
                (``invalid-filter``).
        """
        return cls(check(parse(text)))

    @classmethod
    def parse_json(cls, text: str) -> "Expression":
        """Read CQL2 JSON as text.

        Raises:
            InvalidInputError: If it cannot be read, or asks for what there is not
                (``invalid-filter``).
        """
        if len(text) > MAX_JSON:
            raise refused(f"it has {len(text)} characters, more than the {MAX_JSON} that are read.")
        try:
            tree = json.loads(text)
        except RecursionError:
            raise refused("it is nested too deeply.") from None
        except ValueError as error:
            # Only the place: what JSON says of it quotes the text.
            place = (
                f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
            )
            raise refused(f"it is no JSON{place}; text goes with filter-lang=cql2-text.") from None
        return cls(check(tree))

    @classmethod
    def from_json(cls, tree: Any) -> "Expression":  # noqa: ANN401 - whatever JSON holds
        """Read CQL2 JSON that is no text any more.

        Args:
            tree: What ``json.loads`` returned.

        Raises:
            InvalidInputError: If it asks for what there is not (``invalid-filter``).
        """
        return cls(check(tree))

    @classmethod
    def read(cls, written: str | dict[str, Any], language: str | None = None) -> "Expression":
        """Read a filter in the language that is named, or else that its form tells.

        Args:
            written: The filter.
            language: ``cql2-text`` or ``cql2-json``; None where the form tells.

        Raises:
            InvalidInputError: If it cannot be read, or there is no such language
                (``invalid-filter``).
        """
        if language not in (None, "cql2-text", "cql2-json"):
            raise refused(
                f"language {quoted(str(language))} is unknown; write cql2-text or cql2-json."
            )
        if not isinstance(written, str):
            if language == "cql2-text":
                raise refused("it is JSON, no text; say filter-lang=cql2-json.")
            return cls.from_json(written)
        return cls.parse_json(written) if language == "cql2-json" else cls.parse(written)

    @classmethod
    def all_of(cls, expressions: Sequence["Expression"]) -> "Expression":
        """What holds where all of them do; at least one."""
        parts = [
            part
            for each in expressions
            for part in (each.root.parts if isinstance(each.root, AllOf) else (each.root,))
        ]
        return cls(parts[0] if len(parts) == 1 else AllOf(tuple(parts)))

    @property
    def names(self) -> tuple[str, ...]:
        """The properties that it names, each once, from left to right."""
        return tuple(dict.fromkeys(condition.name for condition in conditions_in(self.root)))

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names that are not fixed, and so must be attributes of parcels."""
        return tuple(name for name in self.names if name not in PROPERTIES)

    @cached_property
    def text(self) -> str:
        """It as CQL2 text, which reads as the same expression."""
        return str(self.root)

    def __str__(self) -> str:
        return self.text

    # Not by the nodes: in Python, 1 equals True.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)
