"""SQL that finds what is grouped: one vector for each parcel of a collection."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, func, select

from indexer.catalog.tables import Embedding, Observation, Parcel
from retriever.conditions import standing_first
from retriever.statements import AnyRow

FloatArray = npt.NDArray[np.float32]

# Rows of one statement: less than a database takes, and 20 MB of vectors.
_BATCH = 10_000


def standing_rows(
    connection: Connection, space_id: int, last_id: int, collection_id: int
) -> Sequence[AnyRow]:
    """The embedding that stands for each parcel: of its latest reliable observation, else latest.

    Args:
        connection: Open connection.
        space_id: Where the vectors must be from.
        last_id: The last embedding of the generation that answers; later ones wait for theirs.
        collection_id: Row of the collection.

    Returns:
        Rows of ``row`` (embedding id), ``superseded``, ``observation``, ``parcel_id``,
        ``crop_code`` and ``crop_name``, in the order of the parcels' ids; parcels without a
        vector are left out.
    """
    place = func.row_number().over(
        partition_by=Observation.parcel_id,
        order_by=(*standing_first(), Embedding.id.desc()),
    )
    ranked = (
        select(
            Embedding.id.label("row"),
            Embedding.superseded,
            Observation.id.label("observation"),
            Parcel.parcel_id,
            Parcel.crop_code,
            Parcel.crop_name,
            place.label("place"),
        )
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(Parcel, Parcel.id == Observation.parcel_id)
        .where(
            Embedding.space_id == space_id,
            # Not only those in force: what was superseded since the publication still answers.
            Embedding.id <= last_id,
            Embedding.vector.is_not(None),
            Parcel.collection_id == collection_id,
        )
        .subquery()
    )
    statement = select(ranked).where(ranked.c.place == 1).order_by(ranked.c.parcel_id)
    return connection.execute(statement).all()


def vectors_of_rows(connection: Connection, rows: Sequence[int]) -> Iterator[FloatArray]:
    """Vectors of embeddings, in the order asked for.

    Yields:
        Unit vectors of the next rows, shape ``(m, 512)``; memory is that of one such batch.
    """
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        statement = select(Embedding.id, Embedding.vector).where(Embedding.id.in_(some))
        found = {row.id: row.vector for row in connection.execute(statement)}
        joined = b"".join(found[row] or b"" for row in some)
        yield np.frombuffer(joined, dtype="<f4").astype(np.float32).reshape(len(some), -1)


def indices_of_observations(
    connection: Connection, observations: Sequence[int]
) -> Iterator[tuple[int, dict[str, float]]]:
    """Median of each spectral index of some observations, by their rows."""
    for start in range(0, len(observations), _BATCH):
        statement = select(Observation.id, Observation.indices).where(
            Observation.id.in_(observations[start : start + _BATCH])
        )
        for row in connection.execute(statement):
            yield row.id, {name: summary["median"] for name, summary in row.indices.items()}


def count_parcels_of(connection: Connection, collection_id: int) -> int:
    """Parcels of a collection, with a vector or without."""
    statement = select(func.count()).where(Parcel.collection_id == collection_id)
    return connection.scalars(statement).one()
