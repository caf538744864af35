"""What the stored clusters of a collection hold now."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from indexer.catalog.clusters import (
    ClusteringRecord,
    UnassignedName,
    standing_members,
    unassigned_names,
)
from indexer.catalog.reading import collection_space, get_space
from indexer.clusters.naming import only_collection, require_clustering
from indexer.embedding_space import describe_space, notes_for

_MOST_CROPS = 5
_MOST_EXAMPLES = 5

Crop = tuple[str | None, str | None]
"""Code and name, as declared."""


@dataclass(frozen=True)
class ClusterSummary:
    """One cluster, as its parcels are now."""

    number: int
    """1 was the largest when it was made."""
    name: str | None
    parcels: int
    """Parcels whose standing observation is in it."""
    share: float
    """Of all parcels that are in a cluster, 0 to 1."""
    crops: tuple[tuple[Crop, int], ...]
    """Crops that most of them declare, with how many do; at most 5."""
    examples: tuple[str, ...]
    """Ids of the parcels closest to the center, at most 5."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "cluster": self.number,
            "name": self.name,
            "parcels": self.parcels,
            "share": round(self.share, 4),
            "crops": crops_to_dict(self.crops, self.parcels),
            "examples": list(self.examples),
        }


def crops_to_dict(crops: Sequence[tuple[Crop, int]], parcels: int) -> list[dict[str, Any]]:
    """JSON form of the crops that a cluster's parcels declare, with how many do."""
    return [
        {
            "crop:code": code,
            "crop:name": name,
            "parcels": count,
            "share": round(count / parcels, 4),
        }
        for (code, name), count in crops
    ]


@dataclass(frozen=True)
class StoredClusters:
    """The clusters of a collection."""

    collection: str
    generation: int
    """The generation that was grouped."""
    space: dict[str, Any]
    """The embedding space, in the short form that stands in every answer."""
    k: int
    chosen: dict[str, Any]
    """How k came about; ``reason`` says it in words."""
    created_at: datetime
    clusters: tuple[ClusterSummary, ...]
    """In order of their numbers."""
    unassigned: tuple[UnassignedName, ...]
    """Names that wait for a cluster."""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "collection": self.collection,
            "generation": self.generation,
            "space": self.space,
            "k": self.k,
            "chosen": self.chosen,
            "created": self.created_at.isoformat(timespec="seconds"),
            "clusters": [cluster.to_dict() for cluster in self.clusters],
            "unassigned": [unassigned_to_dict(one) for one in self.unassigned],
            "notes": list(self.notes),
        }


def unassigned_to_dict(waiting: UnassignedName) -> dict[str, Any]:
    """JSON form of a name that waits for a cluster."""
    return {
        "name": waiting.name,
        "parcels": waiting.parcels,
        "reason": waiting.reason,
        "candidates": waiting.candidates,
    }


def list_clusters(engine: Engine, collection: str | None = None) -> StoredClusters:
    """The stored clusters of a collection.

    Args:
        engine: The catalog.
        collection: None where there is only one.

    Raises:
        NotFoundError: If there is no such collection, or it was never grouped.
        InvalidInputError: If there are several collections and none is named.
    """
    with engine.connect() as connection:
        name = only_collection(connection, collection)
        collection_id, clustering = require_clustering(connection, name)
        return describe_clusters(connection, name, collection_id, clustering)


def describe_clusters(
    connection: Connection, collection: str, collection_id: int, clustering: ClusteringRecord
) -> StoredClusters:
    """The clusters of a clustering, as their parcels are now."""
    space = get_space(connection, clustering.space_id)
    current = collection_space(connection, collection)
    notes = list(notes_for(space.recipe))
    if current is not None and current.id != clustering.space_id:
        notes.append(
            f"The clusters are of an earlier embedding of {collection}; run parcelle cluster to "
            "group it as it is searched now. Names are carried over."
        )
    return StoredClusters(
        collection=collection,
        generation=clustering.generation_id,
        space=describe_space(space.recipe, space.digest),
        k=clustering.k,
        chosen=clustering.chosen,
        created_at=clustering.created_at,
        clusters=_summaries(connection, collection_id, clustering),
        unassigned=tuple(unassigned_names(connection, collection_id)),
        notes=tuple(notes),
    )


def _summaries(
    connection: Connection, collection_id: int, clustering: ClusteringRecord
) -> tuple[ClusterSummary, ...]:
    counts: Counter[int] = Counter()
    crops: Counter[tuple[int, str | None, str | None]] = Counter()
    closest: dict[int, list[tuple[float, str]]] = {
        cluster.number: [] for cluster in clustering.clusters
    }
    for row in standing_members(connection, collection_id, clustering):
        counts[row.number] += 1
        if row.crop_code or row.crop_name:
            crops[row.number, row.crop_code, row.crop_name] += 1
        _keep_closest(closest[row.number], (-row.score, row.parcel_id))
    total = max(counts.total(), 1)
    return tuple(
        ClusterSummary(
            number=cluster.number,
            name=cluster.name,
            parcels=counts[cluster.number],
            share=counts[cluster.number] / total,
            crops=_most_declared(crops, cluster.number),
            examples=tuple(parcel for _, parcel in closest[cluster.number]),
        )
        for cluster in clustering.clusters
    )


def _keep_closest(kept: list[tuple[float, str]], one: tuple[float, str]) -> None:
    if len(kept) < _MOST_EXAMPLES or one < kept[-1]:
        kept.append(one)
        kept.sort()
        del kept[_MOST_EXAMPLES:]


def _most_declared(
    crops: Counter[tuple[int, str | None, str | None]], number: int
) -> tuple[tuple[Crop, int], ...]:
    found = [((code, name), count) for (of, code, name), count in crops.items() if of == number]
    found.sort(key=lambda one: (-one[1], one[0][1] or "", one[0][0] or ""))
    return tuple(found[:_MOST_CROPS])
