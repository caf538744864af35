"""SQL about the attributes of parcels, which lie in one column of JSON.

SQLite and PostgreSQL both expand a JSON object into rows; what a row holds they say differently.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Float,
    Numeric,
    String,
    case,
    cast,
    exists,
    false,
    func,
    literal_column,
    not_,
    select,
)

from indexer.catalog.tables import Collection, Parcel
from indexer.parcels.parcel import JsonScalar
from retriever.caseless import contains, is_any

# The largest that SQLite keeps as an integer.
_MAX_INTEGER = 2**63 - 1

Condition = ColumnElement[bool]


class _Attribute:
    """One attribute of a parcel, as columns of a row that the database makes of it.

    Args:
        dialect: Name of the database's, as SQLAlchemy has it.
    """

    def __init__(self, dialect: str) -> None:
        if dialect == "postgresql":
            row = func.json_each(Parcel.attributes).table_valued(
                "key", "value", joins_implicitly=True
            )
            kind = func.json_typeof(row.c.value)
            self.text: ColumnElement[str] = row.c.value.op("#>>")(literal_column("'{}'"))
            self.kind: ColumnElement[str] = kind
            self.is_text: Condition = kind == "string"
            self.is_number: Condition = kind == "number"
            self.is_truth: Condition = kind == "boolean"
            self.truth: ColumnElement[Any] = case((self.is_truth, cast(self.text, Boolean)))
            # Not AND: PostgreSQL may cast before it looks at the kind.
            self.whole: ColumnElement[Any] = case((self.is_number, cast(self.text, Numeric)))
            self.real: ColumnElement[Any] = case((self.is_number, cast(self.text, Float)))
            self._truth: Callable[[str], Condition] = lambda word: (
                (kind == "boolean") & (self.text == word)
            )
        else:
            row = func.json_each(Parcel.attributes).table_valued(
                "key", "value", "type", joins_implicitly=True
            )
            self.text = cast(row.c.value, String)
            self.kind = row.c.type
            self.is_text = row.c.type == "text"
            self.is_number = row.c.type.in_(("integer", "real"))
            self.is_truth = row.c.type.in_(("true", "false"))
            # 1 and 0, as SQLite has its truth values.
            self.truth = cast(row.c.value, Boolean)
            # SQLite's text of a number has fewer digits than the number.
            self.whole = self.real = row.c.value
            self._truth = lambda word: row.c.type == word
        self.name: ColumnElement[str] = row.c.key

    def equals(self, value: JsonScalar) -> Condition:
        """Whether it has a value; text is compared without case, and as a number if it is one."""
        if value is None:
            # What is not known is not stored.
            return false()
        if isinstance(value, bool):
            return self._truth("true" if value else "false")
        if isinstance(value, str):
            number = _number_in(value)
            as_text = self.is_text & is_any(self.text, [value])
            return as_text if number is None else as_text | self._is(number)
        # Whoever asks for farm 17 means "17" as well.
        return self._is(value) | (self.is_text & (self.text == str(value)))

    def _is(self, number: float) -> Condition:
        if isinstance(number, int) and abs(number) <= _MAX_INTEGER:
            # As a float, one of more than 15 digits would equal its neighbors.
            return self.is_number & (self.whole == number)
        try:
            return self.is_number & (self.real == float(number))
        except OverflowError:
            return false()


def _number_in(text: str) -> float | None:
    """The number that a text spells, if it spells one."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def has_attribute(name: str, value: JsonScalar, dialect: str) -> Condition:
    """Whether a parcel has an attribute of this name and value.

    Args:
        name: Of the attribute.
        value: Text, a number, or a truth value.
        dialect: Name of the database's, as SQLAlchemy has it.
    """
    attribute = _Attribute(dialect)
    return exists().where(attribute.name == name, attribute.equals(value))


def has_name(name: str, dialect: str) -> Condition:
    """Whether a parcel has an attribute of this name."""
    return exists().where(_Attribute(dialect).name == name)


def mentions(word: str, dialect: str) -> Condition:
    """Whether a word stands in any attribute's text, or number as it is written."""
    attribute = _Attribute(dialect)
    readable = attribute.is_text | attribute.is_number
    return exists().where(readable, contains(attribute.text, word))


def text_of(name: str, dialect: str) -> ColumnElement[Any]:
    """A parcel's attribute of this name where it is text, else NULL."""
    attribute = _Attribute(dialect)
    return _only(attribute, attribute.text, name, attribute.is_text)


def number_of(name: str, dialect: str) -> ColumnElement[Any]:
    """A parcel's attribute of this name where it is a number, else NULL."""
    attribute = _Attribute(dialect)
    return _only(attribute, attribute.whole, name, attribute.is_number)


def truth_of(name: str, dialect: str) -> ColumnElement[Any]:
    """A parcel's attribute of this name where it is true or false, else NULL."""
    attribute = _Attribute(dialect)
    return _only(attribute, attribute.truth, name, attribute.is_truth)


def _only(
    attribute: _Attribute, value: ColumnElement[Any], name: str, known: Condition
) -> ColumnElement[Any]:
    return select(value).where(attribute.name == name, known).limit(1).scalar_subquery()


def lacks(name: str, dialect: str) -> Condition:
    """Whether a parcel has no attribute of this name, or none that is known."""
    attribute = _Attribute(dialect)
    return not_(exists().where(attribute.name == name, attribute.kind != "null"))


_JSON_TYPES = {
    "text": "string",
    "string": "string",
    "integer": "number",
    "real": "number",
    "number": "number",
    "true": "boolean",
    "false": "boolean",
    "boolean": "boolean",
}
"""JSON Schema's types by those that the databases tell."""


def kinds_of_attributes(
    connection: Connection, collections: Sequence[str]
) -> dict[str, frozenset[str]]:
    """Every attribute that some parcels have, with the types of its values; reads all parcels.

    Args:
        connection: Open connection.
        collections: Of these; empty means of all.

    Returns:
        ``string``, ``number`` and ``boolean`` by name, the names in order.
    """
    attribute = _Attribute(connection.dialect.name)
    statement = select(attribute.name, attribute.kind).select_from(Parcel).distinct()
    if collections:
        statement = statement.join(Collection).where(Collection.name.in_(collections))
    found: dict[str, set[str]] = defaultdict(set)
    for name, kind in connection.execute(statement):
        if kind in _JSON_TYPES:
            found[name].add(_JSON_TYPES[kind])
    return {name: frozenset(found[name]) for name in sorted(found)}
