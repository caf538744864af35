"""The JSON of an expression -> nodes, if all of it is allowed: the one definition of what is.

Whatever a filter was written in, it comes by here: sizes first, then operators, the shape of their
arguments, and the types of fixed properties. Which attributes there are, the database knows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, get_args

from indexer.errors import InvalidInputError
from retriever.cql2.nodes import (
    AllOf,
    AnyOf,
    Comparison,
    ComparisonOperator,
    Condition,
    Intersects,
    Like,
    Missing,
    Node,
    Not,
    OneOf,
    Scalar,
    Span,
    Temporal,
    TemporalOperator,
    Truth,
    conditions_in,
)
from retriever.cql2.parsing import MAX_NESTING, TEMPORAL_FUNCTIONS, Tree, unknown_function
from retriever.cql2.patterns import check_length, parts_of
from retriever.cql2.properties import PROPERTIES, Kind
from retriever.cql2.refusals import refused
from retriever.cql2.shapes import is_shape, shape_of
from retriever.cql2.spans import is_span, span_of
from retriever.quoting import quoted

MAX_NODES: Final = 10_000
"""Most values, names and lists of a filter together; a position has three."""

MAX_CONDITIONS: Final = 200
"""Most conditions of a filter; SQLite takes expressions a thousand levels deep."""

MAX_SHAPES: Final = 5
"""Most shapes of a filter; each is held against all parcels around it."""

MAX_DEPTH: Final = 20
"""Most times that AND, OR and NOT alternate; SQLite's parser takes a hundred open parts."""

# A position of a MULTIPOLYGON within an expression.
_MAX_TREE_DEPTH: Final = 2 * MAX_NESTING + 10

_COMPARISONS: Final[tuple[str, ...]] = get_args(ComparisonOperator)
_ARITHMETIC: Final = ("+", "-", "*", "/", "%", "^", "div")
_FLIPPED: Final = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

# The largest that SQLite keeps as an integer.
_MAX_INTEGER: Final = 2**63 - 1

_WORDS: Final[dict[Kind, str]] = {
    "text": "text, written in single quotes",
    "number": "a number",
    "boolean": "TRUE or FALSE",
    "time": "a time; compare it with DATE('2023-05-29') or TIMESTAMP('2023-05-29T10:30:00Z')",
    "geometry": "a geometry; use s_intersects(geometry, BBOX(west, south, east, north))",
}


@dataclass(frozen=True)
class _Name:
    """A property, as an operand."""

    name: str
    caseless: bool


@dataclass(frozen=True)
class _Value:
    """A value, as an operand."""

    value: Scalar
    caseless: bool


_Operand = _Name | _Value | Span


def check(tree: Tree) -> Node:
    """The expression that a tree of JSON is.

    Args:
        tree: Whatever ``json.loads`` returns.

    Raises:
        InvalidInputError: If anything in it is not allowed (``invalid-filter``).
    """
    _check_size(tree)
    node = _condition(tree)
    conditions = conditions_in(node)
    count = sum(map(_weight, conditions))
    if count > MAX_CONDITIONS:
        raise refused(
            f"it has {count} conditions, more than the {MAX_CONDITIONS} that are read, each value "
            "without case counted; write many values of one property as IN (...)."
        )
    if sum(isinstance(one, Intersects) for one in conditions) > MAX_SHAPES:
        raise refused(
            f"it has more than the {MAX_SHAPES} shapes that are read; use a MULTIPOLYGON."
        )
    if _depth(node) > MAX_DEPTH:
        raise refused(f"AND, OR and NOT alternate more than {MAX_DEPTH} times; write it flatter.")
    return node


def _check_size(tree: Tree) -> None:
    """Let a tree pass that can be walked by recursion and stored as it is."""
    waiting: list[tuple[Tree, int]] = [(tree, 1)]
    count = 0
    while waiting:
        one, depth = waiting.pop()
        count += 1
        if depth > _MAX_TREE_DEPTH:
            raise refused(f"it is nested deeper than {MAX_NESTING} levels.")
        if isinstance(one, dict):
            parts = [*one, *one.values()]
        elif isinstance(one, list | tuple):
            parts = list(one)
        else:
            _check_leaf(one)
            continue
        if count + len(waiting) + len(parts) > MAX_NODES:
            raise refused(f"it has more than the {MAX_NODES} values that are read.")
        waiting += [(part, depth + 1) for part in parts]


def _check_leaf(one: object) -> None:
    if isinstance(one, str):
        if "\0" in one:
            raise refused("null characters are not allowed.")
        if any("\ud800" <= character <= "\udfff" for character in one):
            raise refused("half of a surrogate pair is no character.")
    elif isinstance(one, float) and not math.isfinite(one):
        raise refused("a number is too large, or not a number; write finite ones.")
    elif not (one is None or isinstance(one, bool | int | float)):
        raise refused(f"{quoted(type(one).__name__)} is no type of JSON.")


def _weight(condition: Condition) -> int:
    """How many conditions it becomes in SQL."""
    if isinstance(condition, OneOf) and condition.caseless:
        return len(condition.values)
    return 1


def _depth(node: Node) -> int:
    match node:
        case AllOf() | AnyOf():
            return 1 + max(map(_depth, node.parts))
        case Not():
            return 1 + _depth(node.part)
    return 0


# Conditions ----------------------------------------------------------------------------------


def _condition(tree: Tree) -> Node:
    if isinstance(tree, bool):
        return Truth(tree)
    if isinstance(tree, dict) and isinstance(tree.get("property"), str):
        name = quoted(tree["property"])
        raise refused(f"{name} alone is no condition; compare it with a value, or use IS NULL.")
    if not (isinstance(tree, dict) and isinstance(tree.get("op"), str)):
        raise refused(
            f"found {_shown(tree)} where a condition should stand; conditions are TRUE, FALSE, or "
            "comparisons and functions, as id = 'a', in JSON "
            '{"op": "=", "args": [{"property": "id"}, "a"]}.'
        )
    op, arguments = tree["op"], tree.get("args")
    if not isinstance(arguments, list | tuple) or set(tree) != {"op", "args"}:
        raise refused(f'operator {quoted(op)}: write {{"op": ..., "args": [...]}}.')
    if op in _COMPARISONS:
        return _comparison(op, arguments)
    known = _OPERATORS.get(op)
    if known is None:
        raise _unknown(op)
    return known(op, arguments)


def _unknown(op: str) -> InvalidInputError:
    if op in _ARITHMETIC:
        return refused(f"arithmetic ({op}) is not supported; compare a property with a value.")
    if op == "casei":
        return refused("casei(...) is text, no condition; write casei(a) = casei('b').")
    return unknown_function(op)


def _joined(op: str, arguments: Sequence[Tree]) -> Node:
    kind = AllOf if op == "and" else AnyOf
    parts: list[Node] = []
    for argument in arguments:
        part = _condition(argument)
        parts += part.parts if isinstance(part, kind) else [part]
    if not parts:
        raise refused(f"operator {quoted(op)} joins nothing; give it conditions.")
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


def _negation(op: str, arguments: Sequence[Tree]) -> Node:
    (argument,) = _counted(op, arguments, 1)
    part = _condition(argument)
    return part.part if isinstance(part, Not) else Not(part)


def _comparison(op: str, arguments: Sequence[Tree]) -> Node:
    left, right = map(_operand, _counted(op, arguments, 2))
    if not isinstance(left, _Name):
        left, right, op = right, left, _FLIPPED[op]
    if not isinstance(left, _Name) or isinstance(right, _Name):
        raise refused(
            f"operator {quoted(op)} compares a property with a value; found two properties, or two "
            "values. Text stands in single quotes."
        )
    return _compared(op, left, right)


def _compared(op: Any, name: _Name, value: _Value | Span) -> Comparison | Temporal:  # noqa: ANN401
    """A comparison whose sides go together."""
    if isinstance(value, Span):
        _require_time(op, name)
        if _is_interval(value):
            raise refused(
                f"operator {quoted(op)} takes a DATE or TIMESTAMP; with an INTERVAL use "
                f"t_intersects({name.name}, ...)."
            )
        return Temporal(op, name.name, value)
    _require_alike(name, value)
    if value.caseless:
        if op not in ("=", "<>"):
            raise refused("casei(...) has no order; compare it with =, <>, LIKE or IN.")
        check_length(str(value.value))
    return Comparison(op, name.name, value.value, value.caseless)


def _between(op: str, arguments: Sequence[Tree]) -> Node:
    name, lower, upper = map(_operand, _counted(op, arguments, 3))
    if not isinstance(name, _Name) or isinstance(lower, _Name) or isinstance(upper, _Name):
        raise refused("BETWEEN holds a property between two values: NDVI BETWEEN 0.3 AND 0.6.")
    return AllOf((_compared(">=", name, lower), _compared("<=", name, upper)))


def _membership(op: str, arguments: Sequence[Tree]) -> Node:
    left, listed = _counted(op, arguments, 2)
    name = _operand(left)
    if not isinstance(name, _Name) or not isinstance(listed, list | tuple) or not listed:
        raise refused("IN looks for a property in a list of values: id IN ('a', 'b').")
    values = [_operand(one) for one in listed]
    if not all(isinstance(value, _Value) for value in values):
        raise refused(f"IN takes a list of text, numbers, TRUE and FALSE for {quoted(name.name)}.")
    for value in values:
        _compared("=", name, value)  # type: ignore[arg-type]
    wanted = dict.fromkeys((type(one.value), one.value) for one in values if _is_value(one))
    return OneOf(name.name, tuple(value for _, value in wanted), name.caseless)


def _like(op: str, arguments: Sequence[Tree]) -> Node:
    name, pattern = map(_operand, _counted(op, arguments, 2))
    if (
        not isinstance(name, _Name)
        or not isinstance(pattern, _Value)
        or not isinstance(pattern.value, str)
    ):
        raise refused("LIKE holds a property against a pattern: \"crop:name\" LIKE 'winter%'.")
    _require_alike(name, pattern)
    parts_of(pattern.value)
    return Like(name.name, pattern.value, name.caseless)


def _missing(op: str, arguments: Sequence[Tree]) -> Node:
    (argument,) = _counted(op, arguments, 1)
    name = _operand(argument)
    if not isinstance(name, _Name) or name.caseless:
        raise refused('IS NULL asks whether a property is missing: "crop:code" IS NULL.')
    return Missing(name.name)


def _temporal(op: str, arguments: Sequence[Tree]) -> Node:
    name, span = map(_operand, _counted(op, arguments, 2))
    if not isinstance(name, _Name) or not isinstance(span, Span):
        raise refused(
            f"{op} takes datetime and a DATE, TIMESTAMP or INTERVAL, in this order: "
            f"{op}(datetime, {_EXAMPLES.get(op, _EXAMPLE)})."
        )
    _require_time(op, name)
    if op in _EXAMPLES and (op == "t_during") != _is_interval(span):
        raise refused(f"write {op}(datetime, {_EXAMPLES[op]}).")
    found: TemporalOperator = op  # type: ignore[assignment]
    return Temporal(found, name.name, span)


_EXAMPLE: Final = "DATE('2023-05-29')"
_EXAMPLES: Final = {
    "t_during": "INTERVAL('2023-05-01', '2023-06-30')",
    "t_equals": "TIMESTAMP('2023-05-29T10:30:00Z')",
}


def _intersection(op: str, arguments: Sequence[Tree]) -> Node:
    left, right = _counted(op, arguments, 2)
    name = None if is_shape(left) else _operand(left)
    if not isinstance(name, _Name) or not is_shape(right):
        raise refused(
            f"{op} takes geometry and a shape, in this order: "
            f"{op}(geometry, BBOX(2.3, 48.8, 2.5, 48.9))."
        )
    if name.name != "geometry":
        raise refused(f"{op}: {quoted(name.name)} is no geometry; the parcel's is geometry.")
    return Intersects(name.name, shape_of(right))


_OPERATORS: Final[dict[str, Callable[[str, Sequence[Tree]], Node]]] = {
    "and": _joined,
    "or": _joined,
    "not": _negation,
    "between": _between,
    "in": _membership,
    "like": _like,
    "isNull": _missing,
    "s_intersects": _intersection,
    **dict.fromkeys(TEMPORAL_FUNCTIONS, _temporal),
}


# Operands ------------------------------------------------------------------------------------


def _counted(op: str, arguments: Sequence[Tree], count: int) -> Sequence[Tree]:
    if len(arguments) != count:
        raise refused(f"operator {quoted(op)} has {len(arguments)} arguments; it takes {count}.")
    return arguments


def _operand(tree: Tree) -> _Operand:
    if isinstance(tree, str | bool):
        return _Value(tree, False)
    if isinstance(tree, int | float):
        return _Value(_stored(tree), False)
    if isinstance(tree, dict):
        if set(tree) == {"property"} and isinstance(tree["property"], str):
            return _Name(tree["property"], False)
        if is_span(tree):
            return span_of(tree)
        if tree.get("op") == "casei":
            return _folded(tree)
        if isinstance(tree.get("op"), str) and tree["op"] not in {*_OPERATORS, *_COMPARISONS}:
            raise _unknown(tree["op"])
    raise refused(
        f"found {_shown(tree)} where a property or a value should stand; values are text, numbers, "
        "TRUE, FALSE, DATE(...) and TIMESTAMP(...), and missing ones are found with IS NULL."
    )


def _folded(tree: dict[str, Tree]) -> _Name | _Value:
    arguments = tree.get("args")
    inner = None
    if isinstance(arguments, list | tuple) and len(arguments) == 1 and len(tree) == 2:
        inner = arguments[0]
    if isinstance(inner, str):
        return _Value(inner, True)
    if isinstance(inner, dict) and isinstance(inner.get("property"), str):
        return _Name(inner["property"], True)
    raise refused("casei(...) takes one property or one text.")


def _stored(number: int | float) -> int | float:
    """A number as both databases can take it."""
    if isinstance(number, int) and abs(number) > _MAX_INTEGER:
        try:
            return float(number)
        except OverflowError:
            raise refused("a number is too large; write finite ones.") from None
    return number


def _require_alike(name: _Name, value: _Value) -> None:
    """Let a property pass beside a value of its kind, both with case or both without."""
    found = _kind(value.value)
    wanted = PROPERTIES[name.name].kind if name.name in PROPERTIES else found
    if found != wanted:
        raise refused(f"{quoted(name.name)} is {_WORDS[wanted]}; found {_shown(value.value)}.")
    if name.caseless != value.caseless:
        raise refused(
            f"write casei(...) on both sides, or on none: casei({name.name}) = casei('...')."
        )
    if name.caseless and found != "text":
        raise refused("casei(...) takes text.")


def _require_time(op: str, name: _Name) -> None:
    known = PROPERTIES.get(name.name)
    if known is None:
        raise refused(
            f"operator {quoted(op)}: only datetime is a time; attributes hold dates as text, so "
            f"write {name.name} >= '2023-05-29'."
        )
    if known.kind != "time" or name.caseless:
        raise refused(f"operator {quoted(op)}: {quoted(name.name)} is {_WORDS[known.kind]}.")


def _kind(value: Scalar) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _is_interval(span: Span) -> bool:
    return span.text.startswith("INTERVAL")


def _is_value(one: _Operand) -> TypeGuard[_Value]:
    return isinstance(one, _Value)


def _shown(tree: Tree) -> str:
    """What was found, in a few words."""
    if tree is None:
        return "null"
    if isinstance(tree, bool):
        return str(tree).upper()
    if isinstance(tree, str):
        return quoted(tree, 40)
    if isinstance(tree, int | float):
        return f"{float(tree):g}"
    if isinstance(tree, dict) and isinstance(tree.get("op"), str):
        return f"operator {quoted(tree['op'], 40)}"
    return "a list" if isinstance(tree, list | tuple) else "an object"
