"""SQL that finds what is grouped: one vector for each parcel of a collection."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Select, Subquery, func, select

from indexer.catalog.lists import evened
from indexer.catalog.standing import standing_embeddings
from indexer.catalog.tables import Cluster, ClusterMember, Embedding, Observation, Parcel
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
    statement, _ = _standing(space_id, last_id, collection_id)
    return connection.execute(statement).all()


def standing_members(
    connection: Connection, space_id: int, last_id: int, collection_id: int
) -> Sequence[AnyRow]:
    """The same, with the stored cluster of each; those in no cluster are left out.

    Returns:
        Rows as those of ``standing_rows``, with ``number`` and ``score`` beside.
    """
    statement, standing = _standing(space_id, last_id, collection_id)
    with_clusters = (
        statement.join(ClusterMember, ClusterMember.embedding_id == standing.c.embedding_id)
        .join(Cluster, Cluster.id == ClusterMember.cluster_id)
        .add_columns(Cluster.number, ClusterMember.score)
    )
    return connection.execute(with_clusters).all()


def extent_of_members(connection: Connection, clustering_id: int) -> tuple[int, int]:
    """How many embeddings are in a stored clustering, and the last of them.

    Centers stay, and embeddings do not change in place: the same clustering with as many of them
    up to the same last one is the same groups.
    """
    statement = (
        select(func.count(), func.coalesce(func.max(ClusterMember.embedding_id), 0))
        .select_from(ClusterMember)
        .join(Cluster, Cluster.id == ClusterMember.cluster_id)
        .where(Cluster.clustering_id == clustering_id)
    )
    count, last = connection.execute(statement).one()
    return int(count), int(last)


def _standing(
    space_id: int, last_id: int, collection_id: int
) -> tuple[Select[*tuple[Any, ...]], Subquery]:
    standing = standing_embeddings(collection_id, space_id, last_id)
    statement: Select[*tuple[Any, ...]] = (
        select(
            Embedding.id.label("row"),
            Embedding.superseded,
            Observation.id.label("observation"),
            Parcel.parcel_id,
            Parcel.crop_code,
            Parcel.crop_name,
        )
        .join_from(standing, Embedding, Embedding.id == standing.c.embedding_id)
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(Parcel, Parcel.id == Observation.parcel_id)
        .order_by(Parcel.parcel_id)
    )
    return statement, standing


def vectors_of_rows(connection: Connection, rows: Sequence[int]) -> Iterator[FloatArray]:
    """Vectors of embeddings, in the order asked for.

    Yields:
        Unit vectors of the next rows, shape ``(m, 512)``; memory is that of one such batch.
    """
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        statement = select(Embedding.id, Embedding.vector).where(Embedding.id.in_(evened(some)))
        found = {row.id: row.vector for row in connection.execute(statement)}
        joined = b"".join(found[row] or b"" for row in some)
        yield np.frombuffer(joined, dtype="<f4").astype(np.float32).reshape(len(some), -1)


def indices_of_observations(
    connection: Connection, observations: Sequence[int]
) -> Iterator[tuple[int, dict[str, float]]]:
    """Median of each spectral index of some observations, by their rows."""
    for start in range(0, len(observations), _BATCH):
        statement = select(Observation.id, Observation.indices).where(
            Observation.id.in_(evened(observations[start : start + _BATCH]))
        )
        for row in connection.execute(statement):
            yield row.id, {name: summary["median"] for name, summary in row.indices.items()}


def count_parcels_of(connection: Connection, collection_id: int) -> int:
    """Parcels of a collection, with a vector or without."""
    statement = select(func.count()).where(Parcel.collection_id == collection_id)
    return connection.scalars(statement).one()
