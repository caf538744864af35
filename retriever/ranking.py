"""From a query vector to matches: the index, the filter, each parcel once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from sqlalchemy import Connection

from retriever import statements
from retriever.finding import check_properties, require_collection
from retriever.memberships import Membership
from retriever.published import OpenGeneration
from retriever.queries import ParcelFilter
from retriever.results import Match, Matches
from retriever.waiting import about_to_wait

FloatArray = npt.NDArray[np.float32]


def rank(
    connection: Connection,
    generation: OpenGeneration,
    vector: FloatArray,
    query: dict[str, Any],
    *,
    k: int,
    where: ParcelFilter,
    observations: bool,
    without: Sequence[int] = (),
) -> Matches:
    """The k parcels, or observations, that are closest to a vector.

    Args:
        connection: A snapshot of the catalog.
        generation: The index that is asked.
        vector: Shape ``(d,)``, unit length.
        query: What the answer says of the question.
        k: Matches wanted.
        where: Which parcels and observations may be returned.
        observations: Return every matching observation instead of each parcel's best one.
        without: Rows of parcels that may not be returned.

    Raises:
        NotFoundError: If the filter names a collection that does not exist.
        InvalidInputError: If it names a property that no parcel has.
    """
    for name in where.collections:
        require_collection(connection, name)
    check_properties(connection, where)
    allowed = None
    if not where.is_empty:
        allowed = statements.allowed_rows(connection, generation.space_id, where)
    own = statements.rows_of_parcels(connection, generation.space_id, without)
    found = _best(
        connection, generation, vector, k, allowed, set(own.tolist()), observations=observations
    )
    notes = list(generation.notes)
    if len(found) < k:
        what = "observations" if observations else "parcels"
        notes.append(f"Only {len(found)} {what} match; {k} were asked for.")
    return Matches(
        query={**query, "k": k, "filter": where.to_dict()},
        generation=generation.number,
        space=generation.space,
        matches=tuple(
            _match(place, score, row) for place, (score, row) in enumerate(found, start=1)
        ),
        notes=tuple(notes),
    )


def _best(
    connection: Connection,
    generation: OpenGeneration,
    vector: FloatArray,
    k: int,
    allowed: npt.NDArray[np.int64] | None,
    excluded: set[int],
    *,
    observations: bool,
) -> list[tuple[float, statements.AnyRow]]:
    """The k best rows, each parcel once, widening the search until there are k or no more.

    A parcel with many dates fills many places of a search, and a row may have been replaced
    since the generation was published, so the first try can come out short.
    """
    wanted = k + len(excluded) if observations else 4 * k + len(excluded)
    rows: dict[int, statements.AnyRow] = {}
    while True:
        scores, ids = generation.index.search(vector, wanted, allowed)
        new = [row_id for row_id in ids.tolist() if row_id not in rows]
        rows.update(statements.describe_rows(connection, new))
        best: list[tuple[float, statements.AnyRow]] = []
        taken: set[int] = set()
        for score, row_id in zip(scores.tolist(), ids.tolist(), strict=True):
            row = rows.get(row_id)
            if row is None or row_id in excluded:
                continue
            if not observations and row.parcel_row in taken:
                continue
            taken.add(row.parcel_row)
            best.append((score, row))
        if len(best) >= k or len(ids) < wanted:
            return best[:k]
        about_to_wait()
        wanted *= 4


def _match(place: int, score: float, row: statements.AnyRow) -> Match:
    return Match(
        rank=place,
        score=float(np.clip(score, -1.0, 1.0)),
        collection=row.collection,
        parcel_id=row.parcel_id,
        crop_code=row.crop_code,
        crop_name=row.crop_name,
        area_m2=row.area_m2,
        acquired_at=row.acquired_at,
        scene=row.scene,
        valid_fraction=row.valid_fraction,
        reliable=row.reliable,
        # What replaced the pixels of a superseded vector was not compared here.
        medians={}
        if row.superseded
        else {name: summary["median"] for name, summary in row.indices.items()},
        geometry=None if row.geometry is None else shapely.from_wkb(row.geometry),
        cluster=None if row.superseded else Membership.from_row(row),
    )
