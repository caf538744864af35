"""Columns: what filters ask of the rows of an index, in the order of its vectors."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from indexer.columns.boxes import Boxes, corners_of
from indexer.columns.codes import CodedColumn, code_type
from indexer.columns.files import open_arrays, write_arrays
from indexer.columns.numbers import NO_TIME, AnyArray, NumberColumn
from indexer.row_sets import WordArray, words_of

IntArray = npt.NDArray[np.int64]

Coded = tuple[AnyArray, Sequence[Any]]
"""Codes by row, and values by code, the first being None for what is missing."""

ABSENT: Final = -1
"""In place of the parcel, where the catalog no longer has a row's embedding."""

_NAME: Final = "columns"


class Columns:
    """What filters ask of the rows of an index; immutable.

    ``read`` makes them of the catalog, ``write`` keeps them in a folder, ``open`` maps them from
    there. What only makes them quick to look up is made when it is first asked for, unless it was
    mapped: columns of few rows cost little.

    Args:
        ids: Embedding by row, shape ``(n,)``.
        parcels: Parcel (its row in SQL) by row, shape ``(n,)``; ``ABSENT`` where there is none.
        times: Microseconds since 1970, UTC; ``NO_TIME`` where missing.
        boxes: Bounding box of the parcel.
        numbers: Other numbers, by the name that filters give them.
        coded: Codes and values of ``collection``, ``crop`` (pairs of code and name), ``reliable``,
            ``has_geometry``.
        attributes: Codes and values of the attributes that have few different values, by name.
        left_out: Names of the attributes that have too many to be held.
        derived: What was mapped.
    """

    def __init__(
        self,
        ids: IntArray,
        parcels: IntArray,
        times: IntArray,
        boxes: npt.NDArray[np.float64],
        numbers: Mapping[str, npt.NDArray[np.float64]],
        coded: Mapping[str, Coded],
        attributes: Mapping[str, Coded],
        left_out: frozenset[str] = frozenset(),
        derived: Mapping[str, Mapping[str, AnyArray]] | None = None,
    ) -> None:
        made = derived or {}
        self.rows: Final = len(ids)
        self.ids: Final = ids
        self.parcels: Final = parcels
        self.left_out: Final = left_out
        self.boxes: Final = Boxes(boxes, made.get("boxes"))
        self.times: Final = NumberColumn(times, made.get("times"))
        self.numbers: Final = {
            name: NumberColumn(values, made.get(f"numbers.{name}"))
            for name, values in numbers.items()
        }
        self.coded: Final = self._coded("coded", coded, made)
        self.attributes: Final = self._coded("attributes", attributes, made)
        self._by_id: Final = NumberColumn(ids, made.get("ids"))
        self._by_parcel: Final = NumberColumn(parcels, made.get("parcels"))

    def _coded(
        self,
        kind: str,
        coded: Mapping[str, Coded],
        made: Mapping[str, Mapping[str, AnyArray]],
    ) -> dict[str, CodedColumn]:
        return {
            name: CodedColumn(codes, values, self.times, made.get(f"{kind}.{name}"))
            for name, (codes, values) in coded.items()
        }

    @classmethod
    def of_arrays(
        cls,
        ids: IntArray,
        *,
        parcels: IntArray | None = None,
        times: IntArray | None = None,
        bounds: npt.NDArray[np.float64] | None = None,
        numbers: Mapping[str, npt.NDArray[np.float64]] | None = None,
        coded: Mapping[str, Coded] | None = None,
        attributes: Mapping[str, Coded] | None = None,
        left_out: frozenset[str] = frozenset(),
    ) -> "Columns":
        """From arrays in the order of the rows; what is left out is missing in all of them.

        Args:
            ids: Embeddings, shape ``(n,)``.
            parcels: Rows of the parcels; None where each embedding has one of its own number.
            times: Microseconds since 1970, UTC; ``NO_TIME`` where missing.
            bounds: West, south, east, north in degrees, shape ``(n, 4)``; NaN where missing.
            numbers: By name; NaN where missing.
            coded: By name, as ``Columns`` has them.
            attributes: By name.
            left_out: Names of attributes that are not among them.
        """
        rows = len(ids)
        nowhere = np.full((rows, 4), np.nan)
        none: Coded = (np.zeros(rows, dtype=np.uint8), [None])
        names = ("collection", "crop", "reliable", "has_geometry")
        return cls(
            np.asarray(ids, dtype=np.int64),
            np.asarray(ids if parcels is None else parcels, dtype=np.int64),
            np.full(rows, NO_TIME) if times is None else times,
            corners_of(nowhere if bounds is None else bounds),
            numbers or {},
            dict.fromkeys(names, none) | dict(coded or {}),
            attributes or {},
            left_out,
        )

    @classmethod
    def read(cls, connection: Connection, ids: IntArray) -> "Columns":
        """From the catalog.

        Args:
            connection: Open connection.
            ids: Embedding by row, in any order, each once; shape ``(n,)``. A row whose embedding
                is gone is ``absent``.
        """
        from indexer.columns.reading import read_arrays

        return cls.of_arrays(np.asarray(ids, dtype=np.int64), **read_arrays(connection, ids))

    def write(self, folder: Path) -> None:
        """Keep them in a folder that is there, as two files that ``open`` reads.

        Raises:
            StorageError: If they cannot be written (``write-failed``).
        """
        groups = (("coded", self.coded), ("attributes", self.attributes))
        about = {
            "numbers": list(self.numbers),
            "left_out": sorted(self.left_out),
            **{
                kind: {name: list(column.values) for name, column in columns.items()}
                for kind, columns in groups
            },
        }
        write_arrays(folder, _NAME, self._arrays(), about)

    def _arrays(self) -> Iterator[tuple[str, AnyArray]]:
        """All arrays; what is derived is made one column at a time, and not kept."""
        yield "ids", self.ids
        yield "parcels", self.parcels
        yield "times", self.times.values
        yield "boxes", self.boxes.corners
        for name, number in self.numbers.items():
            yield f"numbers.{name}", number.values
            yield from _derived(f"numbers.{name}", NumberColumn(number.values))
        yield from _derived("ids", NumberColumn(self.ids))
        yield from _derived("parcels", NumberColumn(self.parcels))
        yield from _derived("boxes", Boxes(self.boxes.corners))
        # By these the coded columns put their rows in order.
        times = NumberColumn(self.times.values)
        yield from _derived("times", times)
        for kind, columns in (("coded", self.coded), ("attributes", self.attributes)):
            for name, column in columns.items():
                yield f"{kind}.{name}", column.codes
                same = CodedColumn(column.codes, column.values, times)
                yield from _derived(f"{kind}.{name}", same)

    @classmethod
    def open(cls, folder: Path) -> "Columns":
        """Map them from a folder, which takes milliseconds.

        Raises:
            StorageError: If they are not there, or not whole (``generation-corrupt``).
        """
        arrays, about = open_arrays(folder, _NAME)
        derived: dict[str, dict[str, AnyArray]] = {}
        for name, array in arrays.items():
            column, separated, made = name.partition("/")
            if separated:
                derived.setdefault(column, {})[made] = array

        def coded(kind: str) -> dict[str, Coded]:
            return {
                name: (arrays[f"{kind}.{name}"], [_value(value) for value in values])
                for name, values in about[kind].items()
            }

        return cls(
            arrays["ids"],
            arrays["parcels"],
            arrays["times"],
            arrays["boxes"],
            {name: arrays[f"numbers.{name}"] for name in about["numbers"]},
            coded("coded"),
            coded("attributes"),
            frozenset(about["left_out"]),
            derived,
        )

    @cached_property
    def absent(self) -> WordArray | None:
        """A bitmap of the rows that the catalog did not have; None where it had all."""
        if not (self.rows and self._by_parcel.ordered[0] == ABSENT):
            return None
        return words_of(self.parcels == ABSENT)

    @cached_property
    def has_unique_parcels(self) -> bool:
        """Whether no parcel has two rows."""
        ordered = self._by_parcel.ordered
        return not bool((ordered[1:] == ordered[:-1]).any())

    def rows_of_ids(self, ids: IntArray) -> IntArray:
        """Rows of some embeddings, ascending; those that no row has are left out."""
        return _rows_of(self._by_id, ids)

    def rows_of_parcels(self, parcels: IntArray) -> IntArray:
        """All rows of some parcels, ascending."""
        return _rows_of(self._by_parcel, parcels)


def _derived(
    name: str, column: NumberColumn | CodedColumn | Boxes
) -> Iterator[tuple[str, AnyArray]]:
    for made, array in column.derived().items():
        yield f"{name}/{made}", array


def _value(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """A value as it was before it was JSON, where lists are pairs."""
    return tuple(value) if isinstance(value, list) else value


def _rows_of(column: NumberColumn, wanted: IntArray) -> IntArray:
    wanted = np.unique(np.asarray(wanted, dtype=np.int64))
    starts = column.ordered.searchsorted(wanted, "left")
    counts = column.ordered.searchsorted(wanted, "right") - starts
    # Ranks start, start + 1, ... of each.
    ends = counts.cumsum()
    ranks = np.arange(int(counts.sum())) + np.repeat(starts - ends + counts, counts)
    return np.sort(column.order[ranks].astype(np.int64))


def coded_by(values: Sequence[Any]) -> Coded:
    """Codes of one value for each row, None being missing; values are hashable."""
    codes: dict[Any, int] = {None: 0}
    found = np.array([codes.setdefault(value, len(codes)) for value in values], dtype=np.int64)
    return found.astype(code_type(len(codes))), list(codes)
