"""From what a request says to the filter that the searcher takes."""

import re
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from api.errors import RequestError
from retriever.cql2.expression import Expression
from retriever.cql2.properties import Queryable
from retriever.queries import Bbox, Interval, ParcelFilter
from retriever.quoting import quoted

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")


def filter_from(
    *,
    collections: Sequence[str] = (),
    crops: Sequence[str] = (),
    bbox: str | None = None,
    interval: str | None = None,
    expression: str | dict[str, Any] | None = None,
    language: str | None = None,
    besides: Sequence[Expression] = (),
) -> ParcelFilter:
    """A filter from its parts as they were written.

    Args:
        collections: Names of collections.
        crops: Crop codes or names, any of them.
        bbox: ``west,south,east,north`` in degrees.
        interval: Of acquisition, as OGC API writes it.
        expression: CQL2 as text or JSON.
        language: ``cql2-text`` or ``cql2-json``; None where the form of the expression tells.
        besides: What must hold as well.

    Raises:
        InvalidInputError: If a part cannot be read.
    """
    expressions = list(besides)
    if expression is not None:
        expressions.insert(0, Expression.read(expression, language))
    return ParcelFilter(
        collections=tuple(collections),
        crops=tuple(crops),
        bbox=None if bbox is None else Bbox.parse(bbox),
        interval=None if interval is None else Interval.parse(interval),
        expression=Expression.all_of(expressions) if expressions else None,
    )


def parameters_of(queryables: Iterable[Queryable], taken: Container[str]) -> list[Queryable]:
    """The properties that may be asked for by query parameters of their names.

    OGC API - Features, part 3, requirements class queryables-query-parameters. Places and times
    have parameters of their own.

    Args:
        queryables: Of a collection.
        taken: Names of parameters that mean something else.
    """
    return [one for one in queryables if one.format is None and one.name not in taken]


def equals(queryable: Queryable, written: str) -> Expression:
    """The condition that a property has a value, which is written as text.

    Raises:
        RequestError: If it is no value of the property's type (``invalid-request``).
    """
    choices = [
        {"op": "=", "args": [{"property": queryable.name}, value]}
        for value in _values(queryable, written)
    ]
    return Expression.from_json(choices[0] if len(choices) == 1 else {"op": "or", "args": choices})


def _values(queryable: Queryable, written: str) -> list[str | float | bool]:
    """What the text may mean: more than one thing where parcels have values of several types."""
    kinds = (queryable.type,) if queryable.type else ("string", "number", "boolean")
    found: list[str | float | bool] = [written] if "string" in kinds else []
    if "number" in kinds:
        with suppress(ValueError):
            found.append(int(written) if _INTEGER.fullmatch(written) else float(written))
    if "boolean" in kinds and written in ("true", "false"):
        found.append(written == "true")
    # GDAL writes them as numbers, as its own language has them.
    if kinds == ("boolean",) and written in ("1", "0"):
        found.append(written == "1")
    if not found:
        raise RequestError(
            HTTPStatus.BAD_REQUEST,
            kind="invalid-request",
            detail=f"Parameter {queryable.name} is {quoted(written)}; it is a {queryable.type}.",
        )
    return found
