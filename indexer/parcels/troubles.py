"""The features of a file that cannot be parcels, and why."""

from collections.abc import Callable
from typing import Final

import numpy as np
import shapely

from indexer.errors import ParcelsError
from indexer.parcels.hardening import MAX_CORNERS
from indexer.parcels.table import BoolArray, Table
from indexer.plain_text import plain
from indexer.skipped import Skipped

MAX_ID_BYTES: Final = 2_000
"""Longest id, in UTF-8. PostgreSQL's index of ids takes a third of a page, 2,704 bytes
(https://www.postgresql.org/docs/current/btree.html), and fails at the first that is longer."""

_SHOWN_CHARACTERS: Final = 80

_POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)

Troubles = dict[int, tuple[str, str]]
"""Row number to the kind of trouble, and what was found with what to do."""


def find_troubles(table: Table, ids: list[str | None]) -> Troubles:
    """The rows that cannot be parcels; the first trouble of a row is the one reported."""
    geometries, troubles = table.geometries, Troubles()

    def add(rows: BoolArray, kind: str, describe: Callable[[int], str]) -> None:
        for row in np.flatnonzero(rows).tolist():
            if row not in troubles:
                troubles[row] = kind, describe(row)

    add(
        np.array([one is None for one in ids], bool),
        "id-missing",
        lambda _: "it has no id; give it one, or name another column with --id-column",
    )
    add(
        np.array(["\0" in (one or "") for one in ids], bool),
        "id-invalid",
        lambda _: (
            "its id holds the character U+0000, which not every database stores; remove it, or "
            "name another column with --id-column"
        ),
    )
    bytes_of = np.array([0 if one is None else _bytes_of(one) for one in ids], np.int64)
    add(
        bytes_of > MAX_ID_BYTES,
        "id-invalid",
        lambda row: (
            f"its id takes {bytes_of[row]:,} bytes, and at most {MAX_ID_BYTES:,} are stored; "
            "shorten it, or name another column with --id-column"
        ),
    )
    add(
        table.undecodable,
        "geometry-invalid",
        lambda _: "it cannot be decoded: a ring may be open or of too few points; draw it again",
    )
    add(
        shapely.is_missing(geometries) | shapely.is_empty(geometries),
        "geometry-empty",
        lambda _: "it has no geometry; draw it, or remove the feature",
    )
    add(
        ~np.isin(shapely.get_type_id(geometries), _POLYGONAL),
        "geometry-type",
        lambda row: (
            f"its geometry is a {geometries[row].geom_type}; parcels are Polygon or MultiPolygon, "
            "so convert it, or remove the feature"
        ),
    )
    corners = shapely.get_num_coordinates(geometries)
    add(
        corners > MAX_CORNERS,
        "too-large",
        lambda row: (
            f"it has {corners[row]:,} corners, and at most {MAX_CORNERS:,} are read; simplify it"
        ),
    )
    # What is in trouble already may be so large that looking at it takes long.
    left = geometries.copy()
    left[list(troubles)] = None
    add(
        ~shapely.is_valid(left),
        "geometry-invalid",
        lambda row: (
            f"its polygon is invalid: {shapely.is_valid_reason(geometries[row])} in the "
            "coordinates of the file; repair it, for example with make_valid"
        ),
    )
    return troubles


def add_duplicates(
    table: Table, ids: list[str | None], id_name: str | None, troubles: Troubles
) -> None:
    """Add the usable rows whose id an earlier usable row has."""
    first: dict[str | None, int] = {}
    for row, parcel_id in enumerate(ids):
        if row in troubles:
            continue
        kept = first.setdefault(parcel_id, row)
        if kept != row:
            found = (
                f"feature {kept + 1} has the same id in column {id_name} and was kept; make ids "
                "unique, or name another column with --id-column"
            )
            troubles[row] = ("duplicate-id", found)


def list_skipped(table: Table, ids: list[str | None], troubles: Troubles) -> tuple[Skipped, ...]:
    """The rows in trouble, in the order of the file."""
    return tuple(_skipped(table, ids[row], row, *troubles[row]) for row in sorted(troubles))


def _skipped(table: Table, parcel_id: str | None, row: int, kind: str, found: str) -> Skipped:
    who = f"feature {row + 1}"
    if parcel_id is not None:
        who = f"parcel {_shown(parcel_id)} ({who})"
    source = f"{table.path}: {who}"
    return Skipped.from_error(source, ParcelsError(f"{source}: {found}.", kind=kind))


def _shown(parcel_id: str) -> str:
    cut = (
        parcel_id if len(parcel_id) <= _SHOWN_CHARACTERS else f"{parcel_id[:_SHOWN_CHARACTERS]}..."
    )
    return plain(cut)


def _bytes_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
