"""Group a collection anew: read, choose k, group, carry the names over, store. Top to bottom."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine

from indexer.catalog.clusters import (
    ClusteringRecord,
    UnassignedName,
    add_members,
    changing_clusters,
    count_vectors,
    find_clustering,
    last_published_id,
    replace_clustering,
    replace_unassigned_names,
    standing_numbers,
    standing_vectors,
    unassigned_names,
    vectors_of,
    vectors_of_collection,
)
from indexer.catalog.database import opened_catalog
from indexer.catalog.reading import SpaceRecord, collection_space, find_collection
from indexer.clustering import (
    MAX_TRAINING_ROWS,
    largest_first,
    nearest_centroids,
    train_centroids,
)
from indexer.clusters.choice import BEGINNINGS, Choice, choose_k, numbers_to_try
from indexer.clusters.listing import StoredClusters, describe_clusters
from indexer.clusters.matching import (
    Candidate,
    Verdict,
    count_shared,
    match_clusters,
    nearest_candidates,
)
from indexer.clusters.naming import only_collection, quoted
from indexer.errors import InvalidInputError, NotFoundError
from indexer.lock import only_writer
from indexer.progress import Progress, Silent
from indexer.settings import Settings

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_CLUSTERS: Final = 2
MAX_CLUSTERS: Final = 50


@dataclass(frozen=True)
class CarriedName:
    """A name that followed its parcels into a new cluster."""

    name: str
    former: int
    """Number of the cluster that bore it."""
    number: int
    """Number of the cluster that bears it now."""


@dataclass(frozen=True)
class ClusterReport:
    """What a grouping made, and what became of the names."""

    stored: StoredClusters
    carried: tuple[CarriedName, ...]

    @property
    def uncertain(self) -> tuple[UnassignedName, ...]:
        """Names that wait for an expert."""
        return self.stored.unassigned

    def to_dict(self) -> dict[str, Any]:
        """JSON form: that of the stored clusters; "uncertain" stands for "unassigned"."""
        found = self.stored.to_dict()
        uncertain = found.pop("unassigned")
        notes = found.pop("notes")
        carried = [
            {"name": one.name, "former": one.former, "cluster": one.number} for one in self.carried
        ]
        return {**found, "carried": carried, "uncertain": uncertain, "notes": notes}


@dataclass(frozen=True)
class _Grouping:
    """A clustering on its way into the catalog."""

    centroids: FloatArray
    """By number, shape ``(k, 512)``."""
    parcels: IntArray
    """Standing parcels of each, by number."""
    ids: IntArray
    """All embeddings of the collection in the space, ascending."""
    numbers: IntArray
    """Cluster of each, from 1."""
    scores: FloatArray
    parcel_rows: IntArray
    parcel_numbers: IntArray
    """Cluster of each parcel."""


def make_clusters(
    settings: Settings,
    collection: str | None = None,
    k: int | Literal["auto"] = "auto",
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> ClusterReport:
    """Group the parcels of a collection by the vectors of its current generation, and store it.

    Each parcel counts by its latest reliable observation, else its latest. All its other
    observations are then put into the nearest cluster. Names of the last clustering follow their
    parcels where that is certain (see ``indexer.clusters.matching``); the others are kept, and wait
    for ``naming.name_cluster``. Readers see the old clusters or the new ones.

    Args:
        settings: Where data and database are.
        collection: None where there is only one.
        k: Clusters wanted, 2 to 50, or "auto".
        seed: Decides samples and where each search begins.
        progress: Is told how far the work has come, in vectors.

    Raises:
        NotFoundError: If there is no such collection, or nothing is published.
        InvalidInputError: If k is out of range, or above the number of parcels; or if there are
            several collections and none is named.
        ConflictError: If another process is writing.
        StorageError: If the database cannot be used.
    """
    _check(k)
    progress = progress or Silent()
    with opened_catalog(settings) as engine, only_writer(settings, engine, doing="cluster"):
        with engine.connect() as connection:
            name = only_collection(connection, collection)
            found = find_collection(connection, name)
            space = collection_space(connection, name)
        if found is None or space is None or space.current_generation_id is None:
            raise NotFoundError(
                f"Collection {quoted(name)} has no published generation yet; run parcelle reindex.",
                kind="generation-not-found",
            )
        with engine.connect() as connection:
            choice, grouping = _group(connection, name, found[0], space, k, seed, progress)
        carried = _store(engine, found[0], space, choice, grouping)
        with engine.connect() as connection:
            clustering = find_clustering(connection, found[0])
            if clustering is None:
                raise TypeError("the clustering was stored a moment ago")
            stored = describe_clusters(connection, name, found[0], clustering)
    return ClusterReport(stored, carried)


def _check(k: int | Literal["auto"]) -> None:
    if k != "auto" and not MIN_CLUSTERS <= k <= MAX_CLUSTERS:
        raise InvalidInputError(
            f"k is {k}; ask for auto, or at least {MIN_CLUSTERS} and at most {MAX_CLUSTERS} "
            "clusters.",
            kind="invalid-k",
        )


# Grouping -----------------------------------------------------------------------------------------


def _group(
    connection: Connection,
    name: str,
    collection_id: int,
    space: SpaceRecord,
    k: int | Literal["auto"],
    seed: int,
    progress: Progress,
) -> tuple[Choice, _Grouping]:
    last_id = last_published_id(connection, space.id)
    standing, parcel_rows = standing_vectors(connection, collection_id, space.id, last_id)
    if k != "auto" and k > len(standing):
        raise InvalidInputError(
            f"k is {k}, but {quoted(name)} has {len(standing)} parcels with a vector; ask for no "
            "more clusters than that.",
            kind="invalid-k",
        )
    if not len(standing):
        raise NotFoundError(
            f"No parcel of {quoted(name)} has a vector; run parcelle reindex.",
            kind="generation-not-found",
        )
    rows = count_vectors(connection, collection_id, space.id)
    drawn = _drawn(standing, seed)
    # One bar for both: each k that is tried counts as one vector.
    progress.start("Grouping", rows + (len(numbers_to_try(len(drawn))) if k == "auto" else 0))
    sample = vectors_of(connection, drawn)
    if k == "auto":
        choice = choose_k(sample, seed, lambda: progress.advance(1))
    else:
        choice = Choice(k, auto=False, seed=seed)
    centroids = train_centroids(sample, choice.k, seed, beginnings=BEGINNINGS)
    grouping = _assigned(
        connection, collection_id, space.id, standing, parcel_rows, centroids, progress
    )
    progress.finish()
    return choice, grouping


def _drawn(standing: IntArray, seed: int) -> IntArray:
    """Rows that centroids are trained on."""
    if len(standing) <= MAX_TRAINING_ROWS:
        return standing
    chosen = np.random.default_rng(seed).choice(len(standing), MAX_TRAINING_ROWS, replace=False)
    return standing[np.sort(chosen)]


def _assigned(
    connection: Connection,
    collection_id: int,
    space_id: int,
    standing: IntArray,
    parcel_rows: IntArray,
    centroids: FloatArray,
    progress: Progress,
) -> _Grouping:
    """Every vector in the cluster of its nearest centroid; clusters without a parcel are left out.

    Where such a cluster held other observations, they are put into the ones that are left.
    """
    while True:
        parts: list[tuple[IntArray, IntArray, FloatArray]] = []
        for ids, vectors in vectors_of_collection(connection, collection_id, space_id):
            parts.append((ids, *nearest_centroids(vectors, centroids)))
            progress.advance(len(ids))
        ids, labels, scores = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        of_parcels = labels[np.searchsorted(ids, standing)]
        filled = np.unique(of_parcels)
        if len(filled) == len(centroids):
            break
        centroids = centroids[filled]
    numbers_of_parcels, _ = largest_first(of_parcels, len(centroids))
    number_of = np.empty(len(centroids), dtype=np.int64)
    number_of[of_parcels] = numbers_of_parcels
    order = np.argsort(number_of)
    by_parcel = np.argsort(parcel_rows)
    return _Grouping(
        centroids=centroids[order],
        parcels=np.bincount(numbers_of_parcels, minlength=len(centroids) + 1)[1:],
        ids=ids,
        numbers=number_of[labels],
        scores=scores,
        parcel_rows=parcel_rows[by_parcel],
        parcel_numbers=numbers_of_parcels[by_parcel],
    )


# Names --------------------------------------------------------------------------------------------


def _store(
    engine: Engine, collection_id: int, space: SpaceRecord, choice: Choice, grouping: _Grouping
) -> tuple[CarriedName, ...]:
    """Everything in one transaction; names that were given while the vectors were read count."""
    with changing_clusters(engine, collection_id) as connection:
        former = find_clustering(connection, collection_id)
        verdicts = _verdicts(connection, collection_id, former, space.id, grouping)
        waiting = [
            _asked_again(one, space.id, grouping)
            for one in unassigned_names(connection, collection_id)
        ]
        names: list[str | None] = [None] * len(grouping.centroids)
        carried: list[CarriedName] = []
        for cluster, verdict in zip(former.clusters if former else (), verdicts, strict=True):
            if cluster.name is None:
                continue
            if verdict.number is not None:
                names[verdict.number - 1] = cluster.name
                carried.append(CarriedName(cluster.name, cluster.number, verdict.number))
            elif former is not None:
                waiting.append(
                    UnassignedName(
                        cluster.name,
                        former.space_id,
                        cluster.centroid,
                        cluster.parcels,
                        verdict.reason,
                        [candidate.to_dict() for candidate in verdict.candidates],
                    )
                )
        rows = replace_clustering(
            connection,
            collection_id,
            space_id=space.id,
            generation_id=space.current_generation_id or 0,
            k=choice.k,
            chosen=choice.to_dict(),
            clusters=list(zip(grouping.centroids, grouping.parcels.tolist(), strict=True)),
            names=names,
        )
        row_of = np.array([0, *(rows[number] for number in sorted(rows))], dtype=np.int64)
        add_members(connection, grouping.ids, row_of[grouping.numbers], grouping.scores)
        replace_unassigned_names(connection, collection_id, waiting)
    return tuple(carried)


def _verdicts(
    connection: Connection,
    collection_id: int,
    former: ClusteringRecord | None,
    space_id: int,
    grouping: _Grouping,
) -> Sequence[Verdict]:
    if former is None:
        return ()
    k_former, k_new = len(former.clusters), len(grouping.centroids)
    members = standing_numbers(connection, collection_id, former)
    new = (grouping.parcel_rows, grouping.parcel_numbers)
    return match_clusters(
        count_shared(members, new, (k_former, k_new)),
        np.bincount(members[1], minlength=k_former + 1)[1:],
        grouping.parcels,
        _cosines(former.centroids, grouping.centroids) if former.space_id == space_id else None,
    )


def _asked_again(waiting: UnassignedName, space_id: int, grouping: _Grouping) -> UnassignedName:
    """A name that waited already: its parcels are not known any more, at best its center is."""
    candidates: tuple[Candidate, ...] = ()
    if waiting.space_id == space_id:
        cosines = _cosines(waiting.centroid[None], grouping.centroids)[0]
        candidates = nearest_candidates(cosines)
    return UnassignedName(
        waiting.name,
        waiting.space_id,
        waiting.centroid,
        waiting.parcels,
        "it was given to no cluster since an earlier grouping",
        [candidate.to_dict() for candidate in candidates],
    )


def _cosines(first: FloatArray, second: FloatArray) -> DoubleArray:
    cosines: DoubleArray = first.astype(np.float64) @ second.astype(np.float64).T
    return cosines
