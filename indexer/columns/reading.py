"""The catalog -> columns: rows in the order of their ids, put where they belong."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    String,
    cast,
    func,
    select,
    type_coerce,
)

from indexer.catalog.lists import evened
from indexer.catalog.tables import Collection, Embedding, Observation, Parcel
from indexer.columns.codes import MISSING, code_type
from indexer.columns.numbers import NO_TIME
from indexer.spectral_indices import INDICES

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MOST_VALUES: Final = 4096
"""Different values of an attribute that is held; of those with more, SQL is asked."""

MOST_ATTRIBUTES: Final = 64
"""Attributes that are held."""

LISTED_IDS: Final = 5000
"""Ids that are asked for one by one; more are by ranges of ids."""

_AT_ONCE: Final = 20_000

# SQLite takes 32,766 values in one statement.
_LISTED_AT_ONCE: Final = 5000

# The largest that SQLite keeps as an integer.
_MAX_INTEGER: Final = 2**63 - 1

_TRUTHS: Final = (None, False, True)


def read_arrays(connection: Connection, ids: IntArray) -> dict[str, Any]:
    """The arguments of ``Columns.of_arrays`` for some embeddings.

    Args:
        connection: Open connection.
        ids: In any order, each once; shape ``(n,)``.
    """
    reading = _Reading(connection, len(ids))
    order = np.argsort(ids, kind="stable")
    ordered = np.asarray(ids)[order]
    for batch in _batches(connection, ordered):
        found = np.array([row[0] for row in batch], dtype=np.int64)
        places = np.minimum(ordered.searchsorted(found), len(ordered) - 1)
        wanted = ordered[places] == found
        if not wanted.all():
            batch = [row for row, keep in zip(batch, wanted, strict=True) if keep]
            places = places[wanted]
        if batch:
            reading.put(order[places], batch)
    return reading.arrays()


def _batches(connection: Connection, ids: IntArray) -> Iterator[Sequence[Any]]:
    """Rows of at least these ids, some at a time."""
    statement = _statement(connection.dialect.name)
    listed = len(ids) <= LISTED_IDS
    step = _LISTED_AT_ONCE if listed else _AT_ONCE
    for start in range(0, len(ids), step):
        some = ids[start : start + step].tolist()
        if listed:
            yield connection.execute(statement.where(Embedding.id.in_(evened(some)))).all()
            continue
        # Ids of other spaces may lie between them, more than are to be held at once.
        between = statement.where(Embedding.id.between(some[0], some[-1]))
        with connection.execute(between.execution_options(yield_per=_AT_ONCE)) as rows:
            yield from rows.partitions()


def _statement(dialect: str) -> Select[Any]:
    return (
        select(
            Embedding.id,
            Parcel.id,
            Parcel.collection_id,
            _microseconds(dialect),
            Parcel.west,
            Parcel.south,
            Parcel.east,
            Parcel.north,
            Parcel.area_m2,
            Observation.valid_fraction,
            Observation.reliable,
            Parcel.geometry.is_not(None),
            Parcel.crop_code,
            Parcel.crop_name,
            cast(Parcel.attributes, String),
            *(Observation.indices[(name, "median")].as_float() for name in INDICES),
        )
        .select_from(Embedding)
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(Parcel, Parcel.id == Observation.parcel_id)
    )


def _microseconds(dialect: str) -> ColumnElement[Any]:
    """The time of acquisition as what numpy makes times of."""
    time = Observation.acquired_at
    if dialect == "postgresql":
        # The epoch is a decimal number, and so exact.
        return cast(func.extract("epoch", time) * 1_000_000, BigInteger)
    return type_coerce(time, String)


class _Reading:
    """Arrays that are filled in any order."""

    def __init__(self, connection: Connection, rows: int) -> None:
        named = connection.execute(select(Collection.id, Collection.name))
        self._collections: dict[int, str] = {row.id: row.name for row in named}
        self._parcels = np.full(rows, -1, dtype=np.int64)
        self._times = np.full(rows, NO_TIME, dtype=np.int64)
        self._bounds = np.full((rows, 4), np.nan)
        names = ("metrics:area", "valid_fraction", *INDICES)
        self._numbers = {name: np.full(rows, np.nan) for name in names}
        self._coded = {
            name: _Coding(rows, None) for name in ("collection", "crop", "reliable", "has_geometry")
        }
        for name in ("reliable", "has_geometry"):
            self._coded[name].expect(_TRUTHS)
        self._rows = rows
        self._attributes: dict[str, _Coding] = {}
        self._left_out: set[str] = set()

    def put(self, places: IntArray, batch: Sequence[Any]) -> None:
        """Put rows of the statement where they belong."""
        (_, parcels, collections, times, west, south, east, north, area, valid, reliable,
         outlined, codes, names, attributes, *medians) = zip(*batch, strict=True)  # fmt: skip
        self._parcels[places] = parcels
        self._times[places] = _times(times)
        for side, values in enumerate((west, south, east, north)):
            self._bounds[places, side] = np.array(values, dtype=np.float64)
        self._numbers["metrics:area"][places] = np.array(area, dtype=np.float64)
        self._numbers["valid_fraction"][places] = np.array(valid, dtype=np.float64)
        self._coded["collection"].put(places, [self._collections[one] for one in collections])
        crops = zip(codes, names, strict=True)
        self._coded["crop"].put(places, [None if one == (None, None) else one for one in crops])
        self._coded["reliable"].put(
            places, [None if one is None else bool(one) for one in reliable]
        )
        self._coded["has_geometry"].put(places, [bool(one) for one in outlined])
        for name, values in zip(INDICES, medians, strict=True):
            self._numbers[name][places] = np.array(values, dtype=np.float64)
        self._put_attributes(places, attributes)

    def _put_attributes(self, places: IntArray, texts: Sequence[str | None]) -> None:
        found: dict[str, tuple[list[int], list[Any]]] = {}
        for index, text in enumerate(texts):
            for name, value in _loaded(text).items():
                if value is None:
                    continue
                held = found.get(name)
                if held is None:
                    if name in self._left_out:
                        continue
                    held = found[name] = ([], [])
                held[0].append(index)
                held[1].append(value)
        for name, (indices, values) in found.items():
            self._put_attribute(name, places[indices], values)

    def _put_attribute(self, name: str, places: IntArray, values: list[Any]) -> None:
        coding = self._attributes.get(name)
        if coding is None and len(self._attributes) < MOST_ATTRIBUTES:
            coding = self._attributes[name] = _Coding(self._rows, MOST_VALUES)
        if coding is None or not coding.put(places, values):
            self._left_out.add(name)
            self._attributes.pop(name, None)

    def arrays(self) -> dict[str, Any]:
        """All of them, by the name of the argument of ``Columns.of_arrays``."""
        return {
            "parcels": self._parcels,
            "times": self._times,
            "bounds": self._bounds,
            "numbers": self._numbers,
            "coded": {name: coding.coded() for name, coding in self._coded.items()},
            "attributes": {name: coding.coded() for name, coding in self._attributes.items()},
            "left_out": frozenset(self._left_out),
        }


class _Coding:
    """Codes of one column, given as its values come.

    Args:
        rows: Of the index.
        most: Different values that it may have; None for any number.
    """

    def __init__(self, rows: int, most: int | None) -> None:
        self._codes = np.zeros(rows, dtype=np.uint16 if most is not None else np.uint32)
        self._most = most
        self._values: list[Any] = [None]
        self._known: dict[Any, int] = {}

    def expect(self, values: Sequence[Any]) -> None:
        """Give some values the first codes; the first of them is None."""
        self._values = list(values)
        self._known = {_key(value): code for code, value in enumerate(values) if code != MISSING}

    def put(self, places: IntArray, values: Sequence[Any]) -> bool:
        """Put values in their places, unless there are too many different ones by now."""
        known = self._known
        codes = []
        for value in values:
            if value is None:
                codes.append(MISSING)
                continue
            key = value if type(value) is str else _key(value)
            code = known.get(key)
            if code is None:
                code = known[key] = len(self._values)
                self._values.append(_stored(value))
                if self._most is not None and code > self._most:
                    return False
            codes.append(code)
        self._codes[places] = codes
        return True

    def coded(self) -> tuple[npt.NDArray[Any], list[Any]]:
        """Codes in their smallest type, and values."""
        return self._codes.astype(code_type(len(self._values))), self._values


def _key(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """What tells a value from others: in Python, 1 equals True, and a list has no hash."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list | dict):
        return (list, json.dumps(value, sort_keys=True))
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        return _stored(value)
    return value


def _stored(value: Any) -> Any:  # noqa: ANN401
    """A value as the database compares it."""
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        try:
            return float(value)
        except OverflowError:
            return None
    return value


def _times(values: Sequence[Any]) -> IntArray:
    """Microseconds since 1970; SQLite gives text, PostgreSQL numbers."""
    if any(isinstance(value, int) for value in values):
        return np.array([NO_TIME if value is None else value for value in values], dtype=np.int64)
    known = [value is not None for value in values]
    found = np.full(len(values), NO_TIME, dtype=np.int64)
    texts = np.array([value for value in values if value is not None], dtype="datetime64[us]")
    found[known] = texts.astype(np.int64)
    return found


def _loaded(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        # It reads no integers of more than 64 bits, and no NaN.
        found = json.loads(text)
    return found if isinstance(found, dict) else {}
