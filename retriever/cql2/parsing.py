"""CQL2 text -> the JSON of the same expression, in one pass from left to right.

Linear in the length of the text, and at most ``MAX_NESTING`` calls deep, so that no text can stop
the process: parsers that try one rule after another need twice as long for each parenthesis.

What is an operand and what a condition is for ``checking`` to tell; what is read here is only how
they are put together.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from indexer.errors import InvalidInputError
from retriever.cql2.nodes import RESERVED
from retriever.cql2.refusals import refused
from retriever.quoting import quoted

MAX_TEXT: Final = 8192
"""Most characters of a filter."""

MAX_NESTING: Final = 50
"""Most parentheses within each other."""

SPATIAL_FUNCTIONS: Final = ("s_intersects",)
TEMPORAL_FUNCTIONS: Final = (
    "t_after",
    "t_before",
    "t_disjoint",
    "t_during",
    "t_equals",
    "t_intersects",
)
FUNCTIONS: Final = ("casei", *SPATIAL_FUNCTIONS, *TEMPORAL_FUNCTIONS)

GEOMETRIES: Final = {
    name.upper(): name
    for name in (
        "Point",
        "MultiPoint",
        "LineString",
        "MultiLineString",
        "Polygon",
        "MultiPolygon",
        "GeometryCollection",
    )
}
"""GeoJSON's names by those of well-known text."""

# How deep the coordinates of each lie in lists.
_DEPTHS: Final = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}

LITERALS: Final = ("DATE", "TIMESTAMP", "INTERVAL", "BBOX", *GEOMETRIES)

_COMPARISONS: Final = {"=": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_ARITHMETIC: Final = ("+", "-", "*", "/", "%", "^", "div")

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<name>(?:[^\W\d]|:)[\w.:]*)
    | "(?P<quoted>[^"]*(?:""[^"]*)*)"
    | '(?P<text>[^']*(?:''[^']*)*)'
    | (?P<sign><>|<=|>=|!=|[=<>(),+\-*/^%])
    | (?P<end>\Z)
    )""",
    re.VERBOSE,
)

Tree = Any
"""What ``json.loads`` returns."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    """Where it stands, from 0."""

    def is_word(self, *words: str) -> bool:
        """Whether it is one of some words, which are written without quotes and in any case."""
        return self.kind == "name" and self.text.lower() in words

    def is_sign(self, *signs: str) -> bool:
        """Whether it is one of some signs."""
        return self.kind == "sign" and self.text in signs


def parse(text: str) -> Tree:
    """The JSON of an expression in CQL2 text.

    Args:
        text: Of any length and content.

    Raises:
        InvalidInputError: With the place of what cannot be read, and what could stand there
            (``invalid-filter``).
    """
    if len(text) > MAX_TEXT:
        raise refused(
            f"it has {len(text)} characters, more than the {MAX_TEXT} that are read; write many "
            "values of one property as IN (...)."
        )
    parser = _Parser(text)
    tree = parser.expression()
    if parser.token.kind != "end":
        raise parser.expected("AND, OR or the end")
    return tree


class _Parser:
    """One token ahead, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._nesting = 0
        self._position = 0
        self.token = self._next()

    # Tokens ----------------------------------------------------------------------------------

    def _next(self) -> _Token:
        found = _TOKEN.match(self._text, self._position)
        if found is None:
            raise self._unreadable()
        self._position = found.end()
        kind = str(found.lastgroup)
        content = found[kind]
        start = found.start(kind)
        if kind in ("quoted", "text"):
            mark = '"' if kind == "quoted" else "'"
            return _Token(kind, content.replace(mark + mark, mark), start - 1)
        return _Token(kind, content, start)

    def _unreadable(self) -> InvalidInputError:
        rest = self._text[self._position :]
        start = self._position + len(rest) - len(rest.lstrip())
        place, character = _place(start), self._text[start]
        if character in "'\"":
            return refused(
                f"{place} a quotation begins that does not end; a {character} within one is "
                "written twice."
            )
        return refused(f"{place} {quoted(character)} has no meaning in CQL2.")

    def _take(self) -> _Token:
        taken = self.token
        self.token = self._next()
        return taken

    def _accept(self, sign: str) -> bool:
        if self.token.is_sign(sign):
            self._take()
            return True
        return False

    def _accept_word(self, word: str) -> bool:
        if self.token.is_word(word):
            self._take()
            return True
        return False

    def _require(self, sign: str) -> None:
        if not self._accept(sign):
            raise self.expected(quoted(sign))

    def expected(self, what: str) -> InvalidInputError:
        """The error of a token that stands where something else should."""
        found = self.token
        if found.is_sign(*_ARITHMETIC) or found.is_word(*_ARITHMETIC):
            return refused(
                f"{_place(found.start)} arithmetic ({found.text}) is not supported; compare a "
                "property with a value. Names with other characters than letters, digits, _ . : "
                "stand in double quotes."
            )
        told = "the end" if found.kind == "end" else quoted(found.text, 40)
        escaped = " A ' within text is written ''." if "\\'" in self._text[: found.start] else ""
        return refused(f"{_place(found.start)} found {told}, expected {what}.{escaped}")

    def _enter(self, start: int) -> None:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise refused(
                f"{_place(start)} it is nested deeper than {MAX_NESTING} levels; write fewer "
                "parentheses."
            )

    def _leave(self) -> None:
        self._nesting -= 1

    # Expressions -----------------------------------------------------------------------------

    def expression(self) -> Tree:
        """Terms that ``OR`` joins."""
        return self._joined("or", self._term)

    def _term(self) -> Tree:
        return self._joined("and", self._factor)

    def _joined(self, word: str, part: Callable[[], Tree]) -> Tree:
        parts = [part()]
        while self._accept_word(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else {"op": word, "args": parts}

    def _factor(self) -> Tree:
        negations = 0
        while self._accept_word("not"):
            negations += 1
        tree = self._predicate()
        # Two of them say nothing.
        return {"op": "not", "args": [tree]} if negations % 2 else tree

    def _predicate(self) -> Tree:
        left = self._operand()
        sign = self.token
        if sign.is_sign(*_COMPARISONS):
            self._take()
            return {"op": _COMPARISONS[sign.text], "args": [left, self._operand()]}
        if sign.is_word("is"):
            return self._null_test(left)
        negated = self._accept_word("not")
        if self._accept_word("like"):
            tree = {"op": "like", "args": [left, self._operand()]}
        elif self._accept_word("between"):
            tree = {"op": "between", "args": [left, *self._bounds()]}
        elif self._accept_word("in"):
            tree = {"op": "in", "args": [left, self._list()]}
        elif negated:
            raise self.expected("LIKE, BETWEEN or IN")
        else:
            if sign.is_sign(*_ARITHMETIC) or sign.is_word("div"):
                raise self.expected("a comparison")
            return left
        return {"op": "not", "args": [tree]} if negated else tree

    def _null_test(self, left: Tree) -> Tree:
        self._take()
        negated = self._accept_word("not")
        if not self._accept_word("null"):
            raise self.expected("NULL" if negated else "NULL or NOT NULL")
        tree = {"op": "isNull", "args": [left]}
        return {"op": "not", "args": [tree]} if negated else tree

    def _bounds(self) -> list[Tree]:
        lower = self._operand()
        if not self._accept_word("and"):
            raise self.expected("AND")
        return [lower, self._operand()]

    def _list(self) -> list[Tree]:
        self._require("(")
        values = [self._operand()]
        while self._accept(","):
            values.append(self._operand())
        self._require(")")
        return values

    # Operands --------------------------------------------------------------------------------

    def _operand(self) -> Tree:
        token = self.token
        if token.is_sign("("):
            self._enter(token.start)
            self._take()
            tree = self.expression()
            self._require(")")
            self._leave()
            return tree
        if token.kind == "text":
            return self._take().text
        if token.kind == "number" or token.is_sign("-", "+"):
            return self._number()
        if token.kind == "quoted":
            return {"property": self._take().text}
        if token.is_word("true", "false"):
            return self._take().text.lower() == "true"
        if token.is_word("null"):
            raise refused(f"{_place(token.start)} found NULL; write IS NULL or IS NOT NULL.")
        if token.kind == "name" and token.text.lower() not in RESERVED:
            name = self._take()
            return self._call(name) if self.token.is_sign("(") else self._named(name)
        raise self.expected("a property, a value or a function")

    def _named(self, name: _Token) -> Tree:
        if name.text.upper() in GEOMETRIES and self.token.is_word("z", "m", "zm", "empty"):
            if self.token.is_word("empty"):
                raise refused(f"{_place(name.start)} an empty geometry intersects nothing.")
            self._take()
            return self._geometry(name)
        return {"property": name.text}

    def _number(self) -> int | float:
        negative = False
        if self.token.is_sign("-", "+"):
            sign = self.token
            negative = self._take().text == "-"
            if self.token.kind != "number":
                self.token = sign
                raise self.expected("a number")
        written = self._take().text
        # A text of digits may be longer than Python turns into an integer.
        number = int(written) if written.isdecimal() and len(written) < 20 else float(written)
        return -number if negative else number

    def _call(self, name: _Token) -> Tree:
        word = name.text.lower()
        self._enter(name.start)
        if word.upper() in GEOMETRIES:
            tree = self._geometry(name)
        elif word == "bbox":
            tree = {"bbox": self._numbers()}
        elif word in ("date", "timestamp"):
            tree = {word: self._texts(name, 1)[0]}
        elif word == "interval":
            tree = {"interval": self._texts(name, 2)}
        elif word in FUNCTIONS:
            tree = {"op": word, "args": self._list()}
        else:
            raise unknown_function(name.text, _place(name.start))
        self._leave()
        return tree

    def _texts(self, name: _Token, count: int) -> list[str]:
        """The arguments of a date, time or interval."""
        values: list[str] = []
        for sign in ("(", ",")[:count]:
            self._require(sign)
            if self.token.kind != "text":
                raise self.expected(f"text in single quotes, as {name.text.upper()} takes")
            values.append(self._take().text)
        self._require(")")
        return values

    def _numbers(self) -> list[Tree]:
        self._require("(")
        numbers: list[Tree] = []
        while not numbers or self._accept(","):
            numbers.append(self._coordinate())
        self._require(")")
        return numbers

    # Geometries ------------------------------------------------------------------------------

    def _geometry(self, name: _Token) -> Tree:
        kind = GEOMETRIES.get(name.text.upper())
        if kind is None:
            self.token = name
            raise self.expected(f"a geometry ({', '.join(GEOMETRIES)})")
        if kind == "GeometryCollection":
            return {"type": kind, "geometries": self._members()}
        depth = _DEPTHS[kind]
        if depth:
            return {"type": kind, "coordinates": self._nested(depth, kind)}
        self._require("(")
        position = self._tuple()
        self._require(")")
        return {"type": kind, "coordinates": position}

    def _members(self) -> list[Tree]:
        self._enter(self.token.start)
        self._require("(")
        members: list[Tree] = []
        while not members or self._accept(","):
            name = self._take()
            if self.token.is_word("z", "m", "zm"):
                self._take()
            members.append(self._geometry(name))
        self._require(")")
        self._leave()
        return members

    def _nested(self, depth: int, kind: str) -> list[Tree]:
        """Positions in lists; those of a MULTIPOINT may each stand in parentheses."""
        self._require("(")
        parts: list[Tree] = []
        while not parts or self._accept(","):
            if depth > 1:
                parts.append(self._nested(depth - 1, kind))
            elif kind == "MultiPoint" and self._accept("("):
                parts.append(self._tuple())
                self._require(")")
            else:
                parts.append(self._tuple())
        self._require(")")
        return parts

    def _tuple(self) -> list[Tree]:
        numbers = [self._coordinate()]
        while self.token.kind == "number" or self.token.is_sign("-", "+"):
            numbers.append(self._coordinate())
        return numbers

    def _coordinate(self) -> Tree:
        if self.token.kind != "number" and not self.token.is_sign("-", "+"):
            raise self.expected("a number")
        return self._number()


def unknown_function(name: str, place: str = "") -> InvalidInputError:
    """The error of a function or operator that there is not, with those that there are."""
    return refused(
        f"{place} {quoted(name)} is no function or operator that there is; there are "
        f"{', '.join(FUNCTIONS)}, {', '.join(LITERALS)}, and the operators AND, OR, NOT, =, <>, <, "
        "<=, >, >=, LIKE, BETWEEN, IN and IS NULL.".lstrip()
    )


def _place(start: int) -> str:
    # As one line, whatever line breaks there are: messages are one line as well.
    return f"at character {start + 1}"
