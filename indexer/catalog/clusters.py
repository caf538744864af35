"""Statements about stored clusters. Each runs in the caller's transaction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, Select, delete, func, insert, select, update

from indexer.catalog.bulk import insert_rows
from indexer.catalog.standing import standing_embeddings
from indexer.catalog.tables import (
    Cluster,
    Clustering,
    ClusterMember,
    Collection,
    Embedding,
    EmbeddingSpace,
    Generation,
    Observation,
    Parcel,
    UnassignedClusterName,
)

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Rows of one statement: less than a database takes, and 20 MB of vectors.
_BATCH = 10_000


@dataclass(frozen=True)
class ClusterRecord:
    """One stored cluster."""

    id: int
    number: int
    name: str | None
    parcels: int
    """When it was made."""
    centroid: FloatArray
    """Unit length, shape ``(512,)``."""


@dataclass(frozen=True)
class ClusteringRecord:
    """The clustering of a collection."""

    id: int
    space_id: int
    generation_id: int
    k: int
    chosen: dict[str, Any]
    created_at: datetime
    clusters: tuple[ClusterRecord, ...]
    """In order of their numbers."""

    @property
    def centroids(self) -> FloatArray:
        """One row for each cluster, in order of their numbers."""
        return np.stack([cluster.centroid for cluster in self.clusters])


@dataclass(frozen=True)
class UnassignedName:
    """A name that no cluster certainly bears."""

    name: str
    space_id: int
    centroid: FloatArray
    parcels: int
    reason: str
    candidates: list[dict[str, Any]]


@contextmanager
def changing_clusters(engine: Engine, collection_id: int) -> Iterator[Connection]:
    """A transaction in which nobody else regroups the collection or names its clusters."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        # Not a lock against what only refers to the collection, such as new parcels.
        locked = select(Collection.id).where(Collection.id == collection_id)
        connection.execute(locked.with_for_update(key_share=True))
        yield connection


def find_clustering(connection: Connection, collection_id: int) -> ClusteringRecord | None:
    """The clustering of a collection; None if it was never grouped."""
    found = connection.execute(
        select(Clustering.__table__).where(Clustering.collection_id == collection_id)
    ).first()
    return None if found is None else _record(connection, found)


def clusterings_of_space(connection: Connection, space_id: int) -> dict[int, ClusteringRecord]:
    """The clusterings of a space, by the row of their collection."""
    found = connection.execute(
        select(Clustering.__table__).where(Clustering.space_id == space_id)
    ).all()
    return {row.collection_id: _record(connection, row) for row in found}


def _record(connection: Connection, row: Any) -> ClusteringRecord:  # noqa: ANN401 - a row
    clusters = connection.execute(
        select(Cluster.__table__).where(Cluster.clustering_id == row.id).order_by(Cluster.number)
    )
    return ClusteringRecord(
        id=row.id,
        space_id=row.space_id,
        generation_id=row.generation_id,
        k=row.k,
        chosen=row.chosen,
        created_at=row.created_at,
        clusters=tuple(
            ClusterRecord(one.id, one.number, one.name, one.parcels, _vector(one.centroid))
            for one in clusters
        ),
    )


def unassigned_names(connection: Connection, collection_id: int) -> list[UnassignedName]:
    """Names of a collection that wait for an expert, the oldest first."""
    rows = connection.execute(
        select(UnassignedClusterName.__table__)
        .where(UnassignedClusterName.collection_id == collection_id)
        .order_by(UnassignedClusterName.id)
    )
    return [
        UnassignedName(
            row.name, row.space_id, _vector(row.centroid), row.parcels, row.reason, row.candidates
        )
        for row in rows
    ]


# Vectors and members ----------------------------------------------------------------------------


def last_published_id(connection: Connection, space_id: int) -> int:
    """The last embedding that a space's generation holds; 0 if there never was one.

    Of a space whose generations are pruned, since nobody searches it any more, it is the last one.
    """
    published, manifest = connection.execute(
        select(EmbeddingSpace.current_generation_id, Generation.manifest)
        .outerjoin(Generation, Generation.id == EmbeddingSpace.current_generation_id)
        .where(EmbeddingSpace.id == space_id)
    ).one()
    if manifest is not None:
        return int(manifest["last_id"])
    if published is None:
        return 0
    last = select(func.coalesce(func.max(Embedding.id), 0)).where(Embedding.space_id == space_id)
    return connection.execute(last).scalar_one()


def standing_vectors(
    connection: Connection, collection_id: int, space_id: int, last_id: int
) -> tuple[IntArray, IntArray]:
    """The embeddings that stand for the parcels of a collection, and the parcels' rows.

    Returns:
        Ids of embeddings in ascending order and rows of parcels, shape ``(n,)`` both.
    """
    standing = standing_embeddings(collection_id, space_id, last_id)
    statement = select(standing.c.embedding_id, standing.c.parcel_row)
    return _pairs(connection, statement.order_by(standing.c.embedding_id))


def standing_numbers(
    connection: Connection, collection_id: int, clustering: ClusteringRecord
) -> tuple[IntArray, IntArray]:
    """The cluster of each parcel: that of the observation that stands for it.

    Returns:
        Rows of parcels in ascending order and numbers of clusters, shape ``(n,)`` both.
    """
    last_id = last_published_id(connection, clustering.space_id)
    standing = standing_embeddings(collection_id, clustering.space_id, last_id)
    statement = (
        select(standing.c.parcel_row, Cluster.number)
        .join(ClusterMember, ClusterMember.embedding_id == standing.c.embedding_id)
        .join(Cluster, Cluster.id == ClusterMember.cluster_id)
        .where(Cluster.clustering_id == clustering.id)
    )
    return _pairs(connection, statement.order_by(standing.c.parcel_row))


def standing_members(
    connection: Connection, collection_id: int, clustering: ClusteringRecord
) -> Iterator[Any]:
    """Each parcel with its cluster: that of the observation that stands for it.

    Yields:
        Rows of ``number``, ``score``, ``parcel_id``, ``crop_code`` and ``crop_name``.
    """
    last_id = last_published_id(connection, clustering.space_id)
    standing = standing_embeddings(collection_id, clustering.space_id, last_id)
    statement = (
        select(
            Cluster.number,
            ClusterMember.score,
            Parcel.parcel_id,
            Parcel.crop_code,
            Parcel.crop_name,
        )
        .join_from(standing, Parcel, Parcel.id == standing.c.parcel_row)
        .join(ClusterMember, ClusterMember.embedding_id == standing.c.embedding_id)
        .join(Cluster, Cluster.id == ClusterMember.cluster_id)
        .where(Cluster.clustering_id == clustering.id)
    )
    # Closed also where the caller stops, or fails, in the middle.
    with connection.execute(statement.execution_options(yield_per=_BATCH)) as rows:
        yield from rows


def count_vectors(connection: Connection, collection_id: int, space_id: int) -> int:
    """Embeddings of a collection in a space that have a vector."""
    rows = _embeddings(collection_id, space_id).subquery()
    return connection.scalars(select(func.count()).select_from(rows)).one()


def vectors_of_collection(
    connection: Connection, collection_id: int, space_id: int
) -> Iterator[tuple[IntArray, FloatArray]]:
    """All embeddings of a collection in a space that have a vector, in order of id.

    Yields:
        Ids, shape ``(m,)``, and unit vectors, shape ``(m, 512)``; memory is that of one batch.
    """
    yield from _batches(connection, _embeddings(collection_id, space_id))


def vectors_without_cluster(
    connection: Connection, collection_id: int, clustering: ClusteringRecord
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Those of a clustering's collection and space that came after it, as they are asked for."""
    grouped = select(ClusterMember.embedding_id).where(ClusterMember.embedding_id == Embedding.id)
    statement = _embeddings(collection_id, clustering.space_id).where(~grouped.exists())
    yield from _batches(connection, statement)


def vectors_of(connection: Connection, ids: IntArray) -> FloatArray:
    """Vectors of embeddings, in the order asked for, shape ``(n, 512)``."""
    parts: list[FloatArray] = []
    for start in range(0, len(ids), _BATCH):
        some = ids[start : start + _BATCH].tolist()
        statement = select(Embedding.id, Embedding.vector).where(Embedding.id.in_(some))
        found = {row.id: row.vector or b"" for row in connection.execute(statement)}
        parts.append(_vectors([found[row] for row in some]))
    return np.concatenate(parts)


def _embeddings(collection_id: int, space_id: int) -> Select[int, bytes | None]:
    return (
        select(Embedding.id, Embedding.vector)
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(Parcel, Parcel.id == Observation.parcel_id)
        .where(
            Embedding.space_id == space_id,
            Embedding.vector.is_not(None),
            Parcel.collection_id == collection_id,
        )
        .order_by(Embedding.id)
    )


def _batches(
    connection: Connection, statement: Select[int, bytes | None]
) -> Iterator[tuple[IntArray, FloatArray]]:
    """A statement's rows from one id to the next; what changed in between does not matter."""
    after = 0
    while True:
        rows = connection.execute(statement.where(Embedding.id > after).limit(_BATCH)).all()
        if not rows:
            return
        ids = np.array([row.id for row in rows], dtype=np.int64)
        after = int(ids[-1])
        yield ids, _vectors([row.vector or b"" for row in rows])


def _pairs(connection: Connection, statement: Select[int, int]) -> tuple[IntArray, IntArray]:
    with connection.execute(statement.execution_options(yield_per=_BATCH)) as rows:
        flat = np.fromiter((value for row in rows for value in row), dtype=np.int64)
    return flat[0::2].copy(), flat[1::2].copy()


# Changes ------------------------------------------------------------------------------------------


def replace_clustering(
    connection: Connection,
    collection_id: int,
    *,
    space_id: int,
    generation_id: int,
    k: int,
    chosen: dict[str, Any],
    clusters: Sequence[tuple[FloatArray, int]],
    names: Sequence[str | None],
) -> dict[int, int]:
    """Store a clustering in place of the collection's last one, without its members.

    Args:
        connection: From ``changing_clusters``.
        collection_id: Row of the collection.
        space_id: The space that was grouped.
        generation_id: The generation that was grouped.
        k: Clusters that were asked for.
        chosen: How k came about.
        clusters: Centroid and parcels of each, by number.
        names: Name of each, by number.

    Returns:
        Rows of the clusters, by number.
    """
    connection.execute(delete(Clustering).where(Clustering.collection_id == collection_id))
    clustering_id = connection.scalars(
        insert(Clustering)
        .values(
            collection_id=collection_id,
            space_id=space_id,
            generation_id=generation_id,
            k=k,
            chosen=chosen,
        )
        .returning(Clustering.id)
    ).one()
    rows = [
        {
            "clustering_id": clustering_id,
            "number": number,
            "name": name,
            "centroid": _blob(centroid),
            "parcels": parcels,
        }
        for number, ((centroid, parcels), name) in enumerate(
            zip(clusters, names, strict=True), start=1
        )
    ]
    connection.execute(insert(Cluster), rows)
    found = connection.execute(
        select(Cluster.number, Cluster.id).where(Cluster.clustering_id == clustering_id)
    )
    return {row.number: row.id for row in found}


def add_members(
    connection: Connection, ids: IntArray, cluster_ids: IntArray, scores: FloatArray
) -> None:
    """Note which cluster embeddings are in, and how close they are to its center."""
    for start in range(0, len(ids), _BATCH):
        stop = start + _BATCH
        columns = (ids[start:stop], cluster_ids[start:stop], scores[start:stop])
        insert_rows(
            connection,
            ClusterMember,
            [
                {"embedding_id": embedding, "cluster_id": cluster, "score": score}
                for embedding, cluster, score in zip(
                    *(column.tolist() for column in columns), strict=True
                )
            ],
        )


def replace_unassigned_names(
    connection: Connection, collection_id: int, names: Sequence[UnassignedName]
) -> None:
    """Store the names that wait for an expert in place of those that waited before."""
    connection.execute(
        delete(UnassignedClusterName).where(UnassignedClusterName.collection_id == collection_id)
    )
    if names:
        rows = [
            {
                **one.__dict__,
                "centroid": _blob(one.centroid),
                "collection_id": collection_id,
            }
            for one in names
        ]
        connection.execute(insert(UnassignedClusterName), rows)


def set_cluster_name(connection: Connection, cluster_id: int, name: str | None) -> None:
    """Name a cluster, or take its name away."""
    connection.execute(update(Cluster).where(Cluster.id == cluster_id).values(name=name))


def drop_unassigned_name(connection: Connection, collection_id: int, name: str) -> int:
    """Take a name off those that wait for an expert; returns how many rows bore it."""
    dropped = connection.execute(
        delete(UnassignedClusterName).where(
            UnassignedClusterName.collection_id == collection_id,
            UnassignedClusterName.name == name,
        )
    )
    return int(dropped.rowcount)


def _vectors(contents: Sequence[bytes]) -> FloatArray:
    joined = np.frombuffer(b"".join(contents), dtype="<f4").astype(np.float32)
    return joined.reshape(len(contents), -1)


def _vector(content: bytes) -> FloatArray:
    return np.frombuffer(content, dtype="<f4").astype(np.float32)


def _blob(values: FloatArray) -> bytes:
    return values.astype("<f4").tobytes()
