"""Stored clusters, written as they are to be found, without any grouping."""

from collections.abc import Mapping, Sequence

import numpy as np
from sqlalchemy import Connection, delete, insert, select

from indexer.catalog.database import connect
from indexer.catalog.tables import (
    Cluster,
    Clustering,
    ClusterMember,
    Collection,
    Embedding,
    Observation,
    Parcel,
    UnassignedClusterName,
)
from indexer.projection import unit_rows
from indexer.settings import Settings
from retriever.statements import AnyRow
from tests.retriever.planted import at_cosine

CHOSEN = {"k": 2, "by": "the caller"}
SCORE = 0.75


def store_clusters(
    settings: Settings,
    members: Sequence[Sequence[str]],
    names: Mapping[int, str] | None = None,
    *,
    collection: str = "demo",
    days: Mapping[str, int] | None = None,
) -> None:
    """Put all current embeddings of some parcels in clusters, in place of those before.

    Args:
        settings: Where the index is.
        members: Parcel ids of each cluster, the first being number 1.
        names: Of some, by number.
        collection: Which is grouped.
        days: Numbers of the clusters that observations of some days are in instead.
    """
    engine = connect(settings)
    with engine.begin() as connection:
        found = connection.execute(select(Collection).where(Collection.name == collection)).one()
        connection.execute(delete(Clustering).where(Clustering.collection_id == found.id))
        clustering = connection.scalar(
            insert(Clustering)
            .values(
                collection_id=found.id,
                space_id=found.space_id,
                generation_id=1,
                k=len(members),
                chosen=CHOSEN,
            )
            .returning(Clustering.id)
        )
        numbers = {id_: number for number, ids in enumerate(members, start=1) for id_ in ids}
        clusters = {
            number: connection.scalar(
                insert(Cluster)
                .values(
                    clustering_id=clustering,
                    number=number,
                    name=(names or {}).get(number),
                    centroid=unit_rows(at_cosine(0.1 * number)[None])[0].astype("<f4").tobytes(),
                    parcels=len(ids),
                )
                .returning(Cluster.id)
            )
            for number, ids in enumerate(members, start=1)
        }
        rows = []
        for row in _embeddings(connection, found.id, found.space_id):
            number = (days or {}).get(str(row.acquired_at)[:10], numbers.get(row.parcel_id))
            if number is not None:
                rows.append(
                    {"embedding_id": row.id, "cluster_id": clusters[number], "score": SCORE}
                )
        connection.execute(insert(ClusterMember), rows)
    engine.dispose()


def leave_unassigned(settings: Settings, name: str, *, collection: str = "demo") -> None:
    """A name that no cluster bears for now; it may belong to number 2."""
    engine = connect(settings)
    with engine.begin() as connection:
        found = connection.execute(select(Collection).where(Collection.name == collection)).one()
        connection.execute(
            insert(UnassignedClusterName).values(
                collection_id=found.id,
                name=name,
                space_id=found.space_id,
                centroid=np.ones(512, "<f4").tobytes(),
                parcels=3,
                reason="two clusters are as close",
                candidates=[{"cluster": 2, "shared": 0.5, "cosine": 0.9}],
            )
        )
    engine.dispose()


def _embeddings(connection: Connection, collection_id: int, space_id: int) -> Sequence[AnyRow]:
    return connection.execute(
        select(Embedding.id, Parcel.parcel_id, Observation.acquired_at)
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(Parcel, Parcel.id == Observation.parcel_id)
        .where(
            Parcel.collection_id == collection_id,
            Embedding.space_id == space_id,
            Embedding.superseded.is_(False),
            Embedding.vector.is_not(None),
        )
    ).all()
