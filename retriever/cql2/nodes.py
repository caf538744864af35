"""The parts of a checked filter: immutable, hashable, and written as CQL2 text by ``str``."""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import UnionType
from typing import Literal

import shapely
from shapely.geometry.base import BaseGeometry

Scalar = str | int | float | bool

ComparisonOperator = Literal["=", "<>", "<", "<=", ">", ">="]

TemporalOperator = (
    ComparisonOperator
    | Literal["t_after", "t_before", "t_disjoint", "t_during", "t_equals", "t_intersects"]
)

RESERVED = frozenset({"and", "between", "false", "in", "is", "like", "not", "null", "or", "true"})
"""Words that name a property only in double quotes."""

_BARE_NAME = re.compile(r"[^\W\d_][\w.:]*")


@dataclass(frozen=True)
class Truth:
    """True or false for every parcel."""

    value: bool

    def __str__(self) -> str:
        return str(self.value).upper()


@dataclass(frozen=True)
class AllOf:
    """All parts hold; none of them is an ``AllOf``."""

    parts: tuple["Node", ...]

    def __str__(self) -> str:
        return " AND ".join(_enclosed(part, AnyOf) for part in self.parts)


@dataclass(frozen=True)
class AnyOf:
    """Some part holds; none of them is an ``AnyOf``."""

    parts: tuple["Node", ...]

    def __str__(self) -> str:
        return " OR ".join(map(str, self.parts))


@dataclass(frozen=True)
class Not:
    """The part does not hold; unknown where the part is."""

    part: "Node"

    def __str__(self) -> str:
        return f"NOT {_enclosed(self.part, AllOf | AnyOf)}"


@dataclass(frozen=True)
class Comparison:
    """A property beside a value of its type; unknown where the parcel has none of that type."""

    op: ComparisonOperator
    name: str
    value: Scalar
    caseless: bool = False

    def __str__(self) -> str:
        value = _folded(_literal(self.value), self.caseless)
        return f"{_property(self.name, self.caseless)} {self.op} {value}"


@dataclass(frozen=True)
class OneOf:
    """A property has one of some values."""

    name: str
    values: tuple[Scalar, ...]
    caseless: bool = False

    def __str__(self) -> str:
        values = (_folded(_literal(value), self.caseless) for value in self.values)
        return f"{_property(self.name, self.caseless)} IN ({', '.join(values)})"


@dataclass(frozen=True)
class Like:
    r"""A text fits a pattern of ``%`` (any characters) and ``_`` (one), which ``\`` escapes."""

    name: str
    pattern: str
    caseless: bool = False

    def __str__(self) -> str:
        pattern = _folded(_literal(self.pattern), self.caseless)
        return f"{_property(self.name, self.caseless)} LIKE {pattern}"


@dataclass(frozen=True)
class Missing:
    """The parcel, or its observation, lacks a property."""

    name: str

    def __str__(self) -> str:
        return f"{_property(self.name)} IS NULL"


@dataclass(frozen=True)
class Span:
    """A date, a time or an interval, aware UTC; a date stands for all of its day."""

    start: datetime | None
    """Its first moment; None is open."""
    until: datetime | None
    """Its end: the time that was written, or midnight after the date; None is open."""
    end: datetime | None
    """The first moment after it; None is open."""
    text: str
    """As CQL2 writes it."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Temporal:
    """When the observation was acquired, beside a date, a time or an interval."""

    op: TemporalOperator
    name: str
    span: Span

    def __str__(self) -> str:
        if self.op.startswith("t_"):
            return f"{self.op}({_property(self.name)}, {self.span})"
        return f"{_property(self.name)} {self.op} {self.span}"


@dataclass(frozen=True)
class Shape:
    """A geometry in longitude and latitude (degrees)."""

    wkb: bytes
    """Well-known binary."""
    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north of a rectangle that was written as one; ``west > east`` crosses
    the antimeridian."""

    @cached_property
    def geometry(self) -> BaseGeometry:
        """The geometry itself."""
        return shapely.from_wkb(self.wkb)

    def __str__(self) -> str:
        if self.bbox is not None:
            return f"BBOX({', '.join(map(_literal, self.bbox))})"
        return str(shapely.to_wkt(self.geometry, rounding_precision=-1))


@dataclass(frozen=True)
class Intersects:
    """The parcel's geometry and a shape have a point in common."""

    name: str
    shape: Shape

    def __str__(self) -> str:
        return f"s_intersects({_property(self.name)}, {self.shape})"


Condition = Comparison | OneOf | Like | Missing | Temporal | Intersects

Node = Truth | AllOf | AnyOf | Not | Condition


def conditions_in(node: Node) -> list[Condition]:
    """The conditions of a filter, from left to right."""
    match node:
        case AllOf() | AnyOf():
            return [condition for part in node.parts for condition in conditions_in(part)]
        case Not():
            return conditions_in(node.part)
        case Truth():
            return []
    return [node]


def _enclosed(node: Node, kinds: type | UnionType) -> str:
    return f"({node})" if isinstance(node, kinds) else str(node)


def _property(name: str, caseless: bool = False) -> str:
    bare = _BARE_NAME.fullmatch(name) and name.lower() not in RESERVED
    return _folded(name if bare else '"' + name.replace('"', '""') + '"', caseless)


def _folded(text: str, caseless: bool) -> str:
    return f"casei({text})" if caseless else text


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)
