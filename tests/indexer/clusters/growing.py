"""Parcels whose vectors lie around axes, so that it is known which belong together."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from indexer.catalog.clusters import find_clustering, standing_members
from indexer.catalog.reading import find_collection
from indexer.projection import VECTOR_DIMENSIONS, unit_rows
from tests.retriever.planted import Seen

FloatArray = npt.NDArray[np.float32]


def near(*axes: int, apart: float = 0.1, seed: int = 0) -> FloatArray:
    """A unit vector in the middle of some axes, turned away by a random angle."""
    noise = np.random.default_rng(seed).standard_normal(VECTOR_DIMENSIONS)
    row = apart * noise / np.linalg.norm(noise)
    row[list(axes)] += 1
    vector: FloatArray = unit_rows(row[None])[0]
    return vector


def parcels(name: str, count: int, *axes: int, **changed: Any) -> list[Seen]:  # noqa: ANN401
    """Parcels ``wheat-0`` and so on, near the middle of some axes; ``changed`` as in ``Seen``."""
    first = 1_000 * sum(map(ord, name))
    return [Seen(f"{name}-{n}", near(*axes, seed=first + n), **changed) for n in range(count)]


def members_of(engine: Engine, collection: str = "demo") -> dict[int, set[str]]:
    """Parcels of each stored cluster, by number."""
    with engine.connect() as connection:
        found = find_collection(connection, collection)
        assert found is not None
        clustering = find_clustering(connection, found[0])
        assert clustering is not None
        members: dict[int, set[str]] = {one.number: set() for one in clustering.clusters}
        for row in standing_members(connection, found[0], clustering):
            members[row.number].add(row.parcel_id)
    return members


def kinds_of(engine: Engine, collection: str = "demo") -> dict[int, Mapping[str, int]]:
    """How many parcels of each kind (``wheat`` of ``wheat-0``) each stored cluster holds."""
    found: dict[int, Mapping[str, int]] = {}
    for number, members in members_of(engine, collection).items():
        kinds = [parcel.rsplit("-", 1)[0] for parcel in members]
        found[number] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    return found


def names_of(engine: Engine, collection: str = "demo") -> dict[int, str]:
    """Names of those stored clusters that have one."""
    with engine.connect() as connection:
        found = find_collection(connection, collection)
        assert found is not None
        clustering = find_clustering(connection, found[0])
        assert clustering is not None
        return {one.number: one.name for one in clustering.clusters if one.name is not None}
