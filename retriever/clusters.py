"""Groups of a collection's parcels that look alike: the stored ones, or some of the moment."""

import hashlib
import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine

from indexer.catalog.clusters import (
    ClusteringRecord,
    find_clustering,
    last_published_id,
    unassigned_names,
)
from indexer.catalog.reading import get_space
from indexer.clustering import (
    MAX_TRAINING_ROWS,
    largest_first,
    nearest_centroids,
    train_centroids,
)
from indexer.clusters.listing import Crop, crops_to_dict, unassigned_to_dict
from indexer.embedding_space import describe_space, notes_for
from indexer.errors import InvalidInputError
from retriever.cluster_statements import (
    count_parcels_of,
    extent_of_members,
    indices_of_observations,
    standing_members,
    standing_rows,
    vectors_of_rows,
)
from retriever.finding import require_collection
from retriever.published import OpenGeneration, PublishedGenerations
from retriever.quoting import quoted
from retriever.results import iso
from retriever.statements import AnyRow, snapshot

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

MIN_CLUSTERS: Final = 2
DEFAULT_CLUSTERS: Final = 8
MAX_CLUSTERS: Final = 50

_MOST_CROPS = 5
_MOST_EXAMPLES = 5
_MOST_KEPT = 8

OF_THE_MOMENT: Final = (
    "These clusters were made for this answer: they are not stored and bear no names. parcelle "
    "cluster stores some that experts can name."
)

_Key = tuple[int | str, ...]
"""Tells answers apart: the collection, what was grouped, and into how many."""


@dataclass(frozen=True)
class Cluster:
    """One group of parcels."""

    number: int
    """1 is the largest, for stored ones when they were made."""
    parcels: int
    share: float
    """Of all parcels that were grouped, 0 to 1."""
    crops: tuple[tuple[Crop, int], ...]
    """Crops that most of them declare, with how many do; at most 5."""
    medians: dict[str, float]
    """Median over the parcels of each spectral index, unitless."""
    examples: tuple[str, ...]
    """Ids of the parcels closest to the center, at most 5."""
    name: str | None = None
    """As an expert gave it; only stored clusters have names."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "cluster": self.number,
            "name": self.name,
            "parcels": self.parcels,
            "share": round(self.share, 4),
            "crops": crops_to_dict(self.crops, self.parcels),
            "medians": {name: round(value, 4) for name, value in self.medians.items()},
            "examples": list(self.examples),
        }


@dataclass(frozen=True)
class Stored:
    """What is known of clusters because they are stored."""

    clustering: int
    """Their row, by which a name can be told to mean these and no later ones."""
    created_at: datetime
    chosen: dict[str, Any]
    """How k came about; ``reason`` says it in words."""
    unassigned: tuple[dict[str, Any], ...]
    """Names of earlier clusters that no one of these certainly bears."""


@dataclass(frozen=True)
class Clusters:
    """All parcels of a collection in groups."""

    collection: str
    generation: int
    """The generation that was grouped."""
    space: dict[str, Any]
    k: int
    """Groups that were asked for, or chosen."""
    clusters: tuple[Cluster, ...]
    """In order of their numbers."""
    members: dict[str, int]
    """Number of the cluster that each parcel is in, by parcel id."""
    notes: tuple[str, ...] = ()
    """What must be said beside the answer."""
    stored: Stored | None = None
    """None where they were made for this answer."""

    def to_dict(self, *, members: bool = False) -> dict[str, Any]:
        """JSON form; with the cluster of every parcel where that is wanted."""
        return {
            "collection": self.collection,
            "generation": self.generation,
            "space": self.space,
            "k": self.k,
            "stored": self.stored is not None,
            **({} if self.stored is None else _stored_fields(self.stored)),
            "clusters": [cluster.to_dict() for cluster in self.clusters],
            **({"members": self.members} if members else {}),
            "notes": list(self.notes),
        }


def _stored_fields(stored: Stored) -> dict[str, Any]:
    return {
        "clustering": stored.clustering,
        "created": iso(stored.created_at),
        "chosen": stored.chosen,
        "unassigned": list(stored.unassigned),
    }


class Clusterings:
    """Reads and makes groups, one at a time, and keeps the answers that were asked for last.

    Safe to share between threads.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, Clusters] = OrderedDict()
        self._grouping = threading.Lock()
        self._lock = threading.Lock()

    def stored(self, engine: Engine, collection: str) -> Clusters | None:
        """The stored clusters of a collection as their parcels are now; None if there are none.

        Names are read anew each time: another process may have given them a moment ago.

        Args:
            engine: The catalog.
            collection: The collection.

        Raises:
            NotFoundError: If there is no such collection.
        """
        with snapshot(engine) as connection:
            place = _stored_place(connection, collection)
        if place is None:
            return None
        found = self._get(place.key)
        if found is not None:
            return place.named(found)
        with self._grouping, snapshot(engine) as connection:
            place = _stored_place(connection, collection)
            if place is None:
                return None
            return place.named(
                self._get(place.key) or self._keep(place.key, _read(connection, place))
            )

    def of(
        self, engine: Engine, published: PublishedGenerations, collection: str, k: int
    ) -> Clusters:
        """The parcels of a collection in k groups, as the current generation holds them.

        Each parcel is in the group of its latest reliable observation, else the latest. The same
        generation gives the same groups.

        Args:
            engine: The catalog.
            published: The indexes that answer.
            collection: The collection.
            k: Groups wanted, 2 to 50, and no more than there are parcels.

        Raises:
            NotFoundError: If there is no such collection, or nothing is published.
            InvalidInputError: If k is out of range, or above the number of parcels.
        """
        _check(k)
        with snapshot(engine) as connection:
            _, key = _place(connection, published, collection, k)
        found = self._get(key)
        if found is not None:
            return found
        # Nobody holds a connection while waiting: there are fewer connections than requests.
        with self._grouping, snapshot(engine) as connection:
            generation, key = _place(connection, published, collection, k)
            return self._get(key) or self._keep(
                key, _grouped(connection, generation, collection, k)
            )

    def _get(self, key: _Key) -> Clusters | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def _keep(self, key: _Key, found: Clusters) -> Clusters:
        with self._lock:
            self._kept[key] = found
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return found


# Stored ones --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StoredPlace:
    """Where the stored clusters of a collection are read, with what is read anew each time."""

    collection: str
    collection_id: int
    clustering: ClusteringRecord
    last_id: int
    """The last embedding of the generation that answers in their space."""
    unassigned: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    key: _Key

    def named(self, found: Clusters) -> Clusters:
        """The clusters with the names that they bear now, and what was said of them now."""
        names = {one.number: one.name for one in self.clustering.clusters}
        return replace(
            found,
            clusters=tuple(replace(one, name=names[one.number]) for one in found.clusters),
            notes=(*self.notes, *found.notes),
            stored=Stored(
                clustering=self.clustering.id,
                created_at=self.clustering.created_at,
                chosen=self.clustering.chosen,
                unassigned=self.unassigned,
            ),
        )


def _stored_place(connection: Connection, collection: str) -> _StoredPlace | None:
    collection_id, space_id = require_collection(connection, collection)
    clustering = find_clustering(connection, collection_id)
    if clustering is None:
        return None
    space = get_space(connection, clustering.space_id)
    notes = list(notes_for(space.recipe))
    if space_id != clustering.space_id:
        notes.append(
            "These clusters are of an earlier embedding of the collection; parcelle cluster groups "
            "it as it is searched now and carries the names over."
        )
    last_id = last_published_id(connection, clustering.space_id)
    return _StoredPlace(
        collection=collection,
        collection_id=collection_id,
        clustering=clustering,
        last_id=last_id,
        unassigned=tuple(map(unassigned_to_dict, unassigned_names(connection, collection_id))),
        notes=tuple(notes),
        key=(
            collection_id,
            # A later clustering may get the row of an earlier one.
            hashlib.sha256(clustering.centroids.tobytes()).hexdigest(),
            last_id,
            *extent_of_members(connection, clustering.id),
        ),
    )


def _read(connection: Connection, place: _StoredPlace) -> Clusters:
    """The stored clusters, without names and other things that may change at any time."""
    clustering = place.clustering
    space = get_space(connection, clustering.space_id)
    rows = standing_members(connection, clustering.space_id, place.last_id, place.collection_id)
    numbers = np.array([row.number for row in rows], dtype=np.int64)
    scores = np.array([row.score for row in rows], dtype=np.float32)
    without = count_parcels_of(connection, place.collection_id) - len(rows)
    notes = [f"In no cluster, for want of a vector that was grouped: {without}."] if without else []
    return Clusters(
        collection=place.collection,
        generation=clustering.generation_id,
        space=describe_space(space.recipe, space.digest),
        k=clustering.k,
        clusters=_clusters(connection, rows, numbers, scores, len(clustering.clusters)),
        members={row.parcel_id: row.number for row in rows},
        notes=tuple(notes),
    )


# Some of the moment ---------------------------------------------------------------------------


def _check(k: int) -> None:
    if not MIN_CLUSTERS <= k <= MAX_CLUSTERS:
        raise InvalidInputError(
            f"k is {k}; ask for at least {MIN_CLUSTERS} and at most {MAX_CLUSTERS} clusters.",
            kind="invalid-k",
        )


def _place(
    connection: Connection, published: PublishedGenerations, collection: str, k: int
) -> tuple[OpenGeneration, _Key]:
    """The generation that answers; its number, the collection's row and k name the answer."""
    collection_id, space_id = require_collection(connection, collection)
    generation = published.of_space(collection, space_id)
    return generation, (collection_id, generation.number, k)


def _grouped(
    connection: Connection,
    generation: OpenGeneration,
    collection: str,
    k: int,
) -> Clusters:
    collection_id, _ = require_collection(connection, collection)
    last_id = generation.manifest.last_id
    rows = standing_rows(connection, generation.space_id, last_id, collection_id)
    if k > len(rows):
        raise InvalidInputError(
            f"k is {k}, but {quoted(collection)} has {len(rows)} parcels with a vector; ask for "
            "no more clusters than that.",
            kind="invalid-k",
        )
    labels, scores = _labels(connection, [row.row for row in rows], k)
    numbers, filled = largest_first(labels, k)
    notes = list(generation.notes)
    without = count_parcels_of(connection, collection_id) - len(rows)
    if without:
        notes.append(f"In no cluster, because the generation holds no vector of them: {without}.")
    if filled < k:
        notes.append(f"Only {filled} of {k} clusters hold parcels: the vectors are too much alike.")
    return Clusters(
        collection=collection,
        generation=generation.number,
        space=generation.space,
        k=k,
        clusters=_clusters(connection, rows, numbers, scores, filled),
        members=dict(zip((row.parcel_id for row in rows), numbers.tolist(), strict=True)),
        notes=(*notes, OF_THE_MOMENT),
    )


def _labels(connection: Connection, rows: Sequence[int], k: int) -> tuple[IntArray, FloatArray]:
    """Group and closeness of each embedding, shape ``(n,)``; reads the vectors in batches."""
    sample = rows
    if len(rows) > MAX_TRAINING_ROWS:
        chosen = np.random.default_rng(0).choice(len(rows), MAX_TRAINING_ROWS, replace=False)
        sample = [rows[position] for position in np.sort(chosen).tolist()]
    centroids = train_centroids(np.concatenate(list(vectors_of_rows(connection, sample))), k)
    parts = [nearest_centroids(some, centroids) for some in vectors_of_rows(connection, rows)]
    labels, scores = zip(*parts, strict=True)
    return np.concatenate(labels), np.concatenate(scores)


def _clusters(
    connection: Connection,
    rows: Sequence[AnyRow],
    numbers: IntArray,
    scores: FloatArray,
    filled: int,
) -> tuple[Cluster, ...]:
    medians = _medians(connection, rows, numbers)
    found: list[Cluster] = []
    for number in range(1, filled + 1):
        members = np.flatnonzero(numbers == number)
        closest = members[np.argsort(-scores[members], kind="stable")[:_MOST_EXAMPLES]]
        found.append(
            Cluster(
                number=number,
                parcels=len(members),
                share=len(members) / max(1, len(rows)),
                crops=_crops([rows[member] for member in members.tolist()]),
                medians=medians[number],
                examples=tuple(rows[member].parcel_id for member in closest.tolist()),
            )
        )
    return tuple(found)


def _crops(rows: Sequence[AnyRow]) -> tuple[tuple[Crop, int], ...]:
    """Declared crops, the most frequent first; parcels that declare none are left out."""
    declared = Counter(
        (row.crop_code, row.crop_name) for row in rows if row.crop_code or row.crop_name
    )
    order = sorted(declared.items(), key=lambda one: (-one[1], one[0][1] or "", one[0][0] or ""))
    return tuple(order[:_MOST_CROPS])


def _medians(
    connection: Connection, rows: Sequence[AnyRow], numbers: IntArray
) -> dict[int, dict[str, float]]:
    """Median of each spectral index in each cluster.

    What replaced the pixels of a superseded vector was not compared here.
    """
    number_of = {
        row.observation: number
        for row, number in zip(rows, numbers.tolist(), strict=True)
        if not row.superseded
    }
    values: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for observation, indices in indices_of_observations(connection, list(number_of)):
        for name, value in indices.items():
            values[number_of[observation]][name].append(value)
    return defaultdict(
        dict,
        {
            number: {name: float(np.median(found)) for name, found in by_name.items()}
            for number, by_name in values.items()
        },
    )
