"""Names that experts give to clusters."""

import json
import unicodedata
from typing import Final

from sqlalchemy import Connection, Engine

from indexer.catalog.clusters import (
    ClusteringRecord,
    changing_clusters,
    drop_unassigned_name,
    find_clustering,
    set_cluster_name,
    unassigned_names,
)
from indexer.catalog.reading import collection_names, find_collection
from indexer.errors import InvalidInputError, NotFoundError

MAX_NAME: Final = 100
"""Most characters of a name."""

# Control, format (bidirectional and zero-width characters among them), surrogate, private,
# unassigned, and the ends of lines and paragraphs.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def check_name(text: str) -> str:
    """A name as it is stored: without spaces around it, in Unicode's composed form.

    Raises:
        InvalidInputError: If it is empty, longer than 100 characters, or holds characters that
            cannot be seen (``invalid-name``).
    """
    name = unicodedata.normalize("NFC", text.strip())
    if not name or len(name) > MAX_NAME:
        raise InvalidInputError(
            f"A cluster's name has {len(name)} characters; give it 1 to {MAX_NAME}.",
            kind="invalid-name",
        )
    unseen = next((char for char in name if unicodedata.category(char) in _REFUSED_CATEGORIES), "")
    if unseen:
        raise InvalidInputError(
            f"A cluster's name holds the character U+{ord(unseen):04X}, which cannot be seen: a "
            "control character, a joiner within an emoji or such; leave it out.",
            kind="invalid-name",
        )
    return name


def only_collection(connection: Connection, name: str | None) -> str:
    """The collection that is meant where none is named and there is only one.

    Raises:
        NotFoundError: If there is none, or none of that name.
        InvalidInputError: If there are several and none is named.
    """
    names = collection_names(connection)
    listed = ", ".join(map(quoted, names))
    if name is not None:
        if name not in names:
            raise NotFoundError(
                f"No collection {quoted(name)}; there is {listed or 'none'}.",
                kind="collection-not-found",
            )
        return name
    if len(names) > 1:
        raise InvalidInputError(
            f"There are several collections; name one of {listed} with --collection.",
            kind="invalid-collection",
        )
    if not names:
        raise NotFoundError(
            "There is no collection yet; run parcelle reindex.", kind="collection-not-found"
        )
    return names[0]


def require_clustering(connection: Connection, collection: str) -> tuple[int, ClusteringRecord]:
    """The row of a collection, and its clustering.

    Raises:
        NotFoundError: If there is no such collection, or it was never grouped.
    """
    found = find_collection(connection, only_collection(connection, collection))
    clustering = None if found is None else find_clustering(connection, found[0])
    if found is None or clustering is None:
        raise NotFoundError(
            f"Collection {quoted(collection)} has no clusters yet; run parcelle cluster.",
            kind="cluster-not-found",
        )
    return found[0], clustering


def name_cluster(
    engine: Engine,
    collection: str,
    number: int,
    name: str | None,
    *,
    clustering_id: int | None = None,
) -> str | None:
    """Give a cluster a name, or take its name away; a name that waited for one no longer does.

    Several clusters may bear one name, and are then one for every filter by name. It is not held
    up by a reindex that is running.

    Args:
        engine: The catalog.
        collection: The collection.
        number: The cluster's number, 1 for the largest.
        name: 1 to 100 characters; None takes the name away.
        clustering_id: The clustering that the number is of, if it is known; None for the current.

    Returns:
        The name that it bore before.

    Raises:
        NotFoundError: If there is no such collection or cluster, or it was grouped anew since.
        InvalidInputError: If the name is none (``invalid-name``).
    """
    checked = None if name is None else check_name(name)
    with engine.connect() as connection:
        collection_id, _ = require_clustering(connection, collection)
    with changing_clusters(engine, collection_id) as connection:
        _, clustering = require_clustering(connection, collection)
        found = {cluster.number: cluster for cluster in clustering.clusters}.get(number)
        if found is None or clustering_id not in (None, clustering.id):
            raise NotFoundError(
                f"Collection {quoted(collection)} has no cluster {number}"
                f"{' of that grouping any more' if found else ''}; it has 1 to "
                f"{len(clustering.clusters)}. parcelle cluster list shows them.",
                kind="cluster-not-found",
            )
        set_cluster_name(connection, found.id, checked)
        if checked is not None:
            drop_unassigned_name(connection, collection_id, checked)
        return found.name


def forget_name(engine: Engine, collection: str, name: str) -> None:
    """Drop a name that no cluster bears since a new clustering.

    Raises:
        NotFoundError: If no such name waits (``cluster-not-found``).
    """
    with engine.connect() as connection:
        only_collection(connection, collection)
        found = find_collection(connection, collection)
        if found is None:
            raise TypeError("the collection was there a moment ago")
        collection_id = found[0]
    with changing_clusters(engine, collection_id) as connection:
        waiting = unassigned_names(connection, collection_id)
        if not drop_unassigned_name(connection, collection_id, unicodedata.normalize("NFC", name)):
            listed = ", ".join(quoted(one.name) for one in waiting) or "none"
            raise NotFoundError(
                f"No name {quoted(name)} waits for a cluster; there is {listed}.",
                kind="cluster-not-found",
            )


def quoted(text: str) -> str:
    """A name in a message, on one line."""
    return json.dumps(text, ensure_ascii=False)
