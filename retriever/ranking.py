"""From a query vector to matches: the index, the filter, each parcel once."""

import time
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from indexer.errors import StorageError
from retriever import statements
from retriever.described import DescribedRow, describe_rows
from retriever.explanation import explained
from retriever.finding import check_properties, require_collection
from retriever.memberships import Membership
from retriever.nearest import Asking, nearest
from retriever.published import OpenGeneration
from retriever.queries import ParcelFilter
from retriever.results import Match, Matches
from retriever.space_catalog import SpaceCatalog

FloatArray = npt.NDArray[np.float32]

_ATTEMPTS = 5
"""So often a question that commits overtake is asked anew; then what vanished is left out."""


def rank(
    connection: Connection,
    generation: OpenGeneration,
    vector: FloatArray,
    query: dict[str, Any],
    *,
    k: int,
    where: ParcelFilter,
    asking: Asking,
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
        asking: How well the index is asked, and what for.
        without: Rows of parcels that may not be returned.

    Raises:
        NotFoundError: If the filter names a collection that does not exist.
        InvalidInputError: If it names a property that no parcel has, or the recall is out of range.
    """
    for name in where.collections:
        if name not in generation.collections:
            require_collection(connection, name)
    check_properties(connection, where)
    left_out = list(without)
    for attempt in count():
        catalog = SpaceCatalog(connection, generation.space_id)
        begun = time.perf_counter()
        try:
            found = nearest(
                generation,
                vector,
                k,
                where=where,
                catalog=catalog,
                recall=asking.recall,
                observations=asking.observations,
                without=left_out,
            )
        except StorageError:
            # A collection of Milvus is dropped with its generation; files that are open stay.
            later = generation.latest()
            if later is None or later.number == generation.number or attempt >= _ATTEMPTS:
                raise
            generation = later
            statements.renew(connection)
            continue
        searched = time.perf_counter()
        described = describe_rows(connection, found.ids.tolist())
        if len(described) == len(found.ids):
            break
        # Something was committed between the look at the log and the snapshot, or after both.
        if attempt < _ATTEMPTS:
            generation = generation.latest() or generation
            statements.renew(connection)
        else:
            left_out += found.parcels[~np.isin(found.ids, list(described))].tolist()
    best = [
        (score, described[row])
        for row, score in zip(found.ids.tolist(), found.scores.tolist(), strict=True)
    ]
    notes = list(generation.notes)
    if len(best) < k:
        what = "observations" if asking.observations else "parcels"
        notes.append(f"Only {len(best)} {what} match; {k} were asked for.")
    matches = tuple(_match(place, score, row) for place, (score, row) in enumerate(best, start=1))
    explanation = None
    if asking.explain:
        seconds = (searched - begun, time.perf_counter() - searched)
        explanation = explained(generation, found, where, catalog, asking.recall, seconds)
    return Matches(
        query={**query, "k": k, "filter": where.to_dict()},
        generation=generation.number,
        space=generation.space,
        matches=matches,
        notes=tuple(notes),
        explanation=explanation,
    )


def _match(place: int, score: float, row: DescribedRow) -> Match:
    return Match(
        rank=place,
        score=min(max(score, -1.0), 1.0),
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
        wkb=row.geometry,
        cluster=None if row.superseded else Membership.from_row(row),
    )
