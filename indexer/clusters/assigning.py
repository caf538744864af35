"""What came after a clustering joins the cluster whose center is the nearest."""

import numpy as np
from sqlalchemy import Engine

from indexer.catalog.clusters import add_members, clusterings_of_space, vectors_without_cluster
from indexer.clustering import nearest_centroids


def assign_new_vectors(engine: Engine, space_id: int) -> int:
    """Put every vector of a space that is in no cluster yet into one.

    Each goes to the nearest center of its collection's clustering; collections that were not
    grouped in this space are left alone. Ask for it before a generation is published, so that
    what it holds has its clusters from the first moment. It may be repeated.

    Args:
        engine: The catalog; the caller is its only writer.
        space_id: A space whose projection is frozen.

    Returns:
        How many were assigned.
    """
    assigned = 0
    with engine.connect() as connection:
        clusterings = clusterings_of_space(connection, space_id)
    for collection_id, clustering in clusterings.items():
        rows = np.array([cluster.id for cluster in clustering.clusters], dtype=np.int64)
        with engine.begin() as connection:
            batches = vectors_without_cluster(connection, collection_id, clustering)
            for ids, vectors in batches:
                labels, scores = nearest_centroids(vectors, clustering.centroids)
                add_members(connection, ids, rows[labels], scores)
                assigned += len(ids)
    return assigned
