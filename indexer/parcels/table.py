"""A parcels file as it lies on disk, whatever its format, and the values in it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyproj import CRS

from indexer.errors import ParcelsError
from indexer.parcels.parcel import JsonScalar

ObjectArray = npt.NDArray[np.object_]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """A file as it lies on disk; row numbers hold for all members."""

    path: Path
    geometries: ObjectArray
    """Shapely geometries in ``crs``, without heights; None where null or not decodable."""
    undecodable: BoolArray
    crs: CRS
    columns: dict[str, Any]
    """Arrow column by name; only columns that hold one number, text or time a row."""
    number_name: str | None = None
    """Name under which a GeoPackage numbers its features."""
    numbers: Sequence[int] = ()

    def find(self, names: Iterable[str]) -> list[str]:
        """The columns of these lower-case names, in the order of the names."""
        lower = {column.lower(): column for column in reversed(self.columns)}
        return [lower[name] for name in names if name in lower]

    def first(self, names: Iterable[str]) -> str | None:
        """The first column that `find` finds, if any."""
        return next(iter(self.find(names)), None)

    def named(self, name: str, option: str) -> str:
        """The column that an option asks for, in any case if no column is written that way.

        Raises:
            ParcelsError: If there is none (``columns-missing``).
        """
        if name in self.columns:
            return name
        found = self.first([name.lower()])
        if found is None:
            raise ParcelsError(
                f"{self.path}: has no column {name!r}; it has {self.listed()}. "
                f"Name one of them with {option}.",
                kind="columns-missing",
            )
        return found

    def listed(self) -> str:
        """The column names, for messages."""
        return ", ".join(self.columns) or "no columns"

    def values(self, column: str) -> list[object]:
        """What a column holds, a row each."""
        import pyarrow as pa

        values = self.columns[column]
        if pa.types.is_float32(values.type):
            # By way of text, so that 0.45 stays 0.45.
            values = values.cast(pa.string()).cast(pa.float64())
        found: list[object] = values.to_pylist()
        return found

    def texts(self, column: str | None) -> list[str | None]:
        """The values of a column as ids or codes; None throughout where there is no column.

        Texts may hold U+0000 here.
        """
        if column is None:
            return [None] * len(self.geometries)
        return [_text(value) for value in self.values(column)]


def json_scalar(value: object) -> JsonScalar:
    """The value as JSON can hold it; None for gaps and for what JSON has no form for."""
    match value:
        case str():
            # Formats without null, such as the shapefile, leave text blank.
            text = without_nul(value)
            return text if text.strip() else None
        case bool() | int():
            return value
        case float() | Decimal():
            return float(value) if isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
    return None


def without_nul(text: str) -> str:
    """A text without U+0000, which PostgreSQL does not store and C takes for the end.

    References:
        https://www.postgresql.org/docs/current/datatype-character.html
    """
    return text.replace("\0", "")


def _text(value: object) -> str | None:
    """A value as id or code: ``123.0`` is ``123``, blank is None."""
    # A text as it is: two ids that differ must stay two.
    scalar = value if isinstance(value, str) else json_scalar(value)
    if isinstance(scalar, float) and scalar.is_integer():
        scalar = int(scalar)
    return None if scalar is None else str(scalar).strip() or None


def unreadable(path: Path, found: object, advice: str = "") -> ParcelsError:
    """The error of a file that is damaged or of another format, ready to be raised."""
    advice = advice or "The file may be truncated or of another format; fetch it again."
    return ParcelsError(
        f"{path}: cannot be read: {str(found).rstrip('.')}. {advice}", kind="unreadable"
    )
