"""Rows for a catalog: parcels and observations that nobody has seen."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from shapely import box
from sqlalchemy import Connection, Engine, select

from indexer.catalog.reading import known_observations
from indexer.catalog.tables import Embedding, Observation
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import (
    Known,
    ObservationRecord,
    create_space,
    ensure_collection,
    freeze_projection,
    save_observations,
)
from indexer.embedding_space import Recipe, space_digest
from indexer.encoders.weights import Weights
from indexer.generations.manifest import Manifest
from indexer.normalization import Normalization
from indexer.observation_state import ObservationState
from indexer.parcels.parcel import Parcel
from indexer.projection import VECTOR_DIMENSIONS, Projection
from indexer.sensors import PROFILES
from indexer.statistics import Summary

FloatArray = npt.NDArray[np.float32]

RECIPE = Recipe(
    encoder="croma-large",
    weights=Weights("file", "a" * 64, Path("croma.pt")),
    bands=PROFILES["l2a"],
    normalization=Normalization.ssl4eo(),
    pooling="parcel",
    image_px=120,
    dimensions=VECTOR_DIMENSIONS,
)

PROJECTION = Projection(
    "orthonormal",
    np.zeros(VECTOR_DIMENSIONS, np.float32),
    np.eye(VECTOR_DIMENSIONS, dtype=np.float32),
)
"""Leaves embeddings as they are but for their length."""

ACQUIRED_AT = datetime(2023, 5, 29, 10, 50, 31, tzinfo=UTC)

STATE = ObservationState(
    pixels_inside=120.25,
    valid_pixels=90.5,
    valid_fraction=0.75,
    data_fraction=1.0,
    cloud_cover_percent=25.0,
    covered_fraction=0.875,
    whole_valid_pixels=60,
    reliable=True,
    indices={"NDVI": Summary(median=0.5, mean=0.25, std=0.125, p10=0.1, p90=0.9)},
)

PARCEL = Parcel(
    collection="demo",
    parcel_id="p1",
    geometry=box(2.0, 49.0, 2.01, 49.02),
    area_m2=12_345.5,
    crop_code="BTH",
    crop_name="winter wheat",
    attributes={"owner": "nobody", "slope": 0.5, "organic": True, "note": None},
)


def record(
    parcel_id: str = "p1",
    embedding: FloatArray | None = None,
    *,
    scene: str = "scene",
    fingerprint: str = "1" * 64,
    known: Known | None = None,
    **changed: Any,  # noqa: ANN401 - handed on to ObservationRecord as they come
) -> ObservationRecord:
    """An observation of a parcel, on its way into the catalog."""
    fields: dict[str, Any] = {
        "parcel": replace(PARCEL, parcel_id=parcel_id),
        "scene": scene,
        "source": f"images/{scene}.tif",
        "acquired_at": ACQUIRED_AT,
        "processing_baseline": "05.09",
        "state": STATE,
        "fingerprint": fingerprint,
        "known": known,
        "embedding": embedding,
    }
    return ObservationRecord(**(fields | changed))


def unit_vectors(n: int, seed: int = 0) -> FloatArray:
    """Random unit vectors, shape ``(n, VECTOR_DIMENSIONS)``."""
    rows = np.random.default_rng(seed).standard_normal((n, VECTOR_DIMENSIONS))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def make_space(connection: Connection, recipe: Recipe = RECIPE, *, frozen: bool = True) -> int:
    """A space, with ``PROJECTION`` if it is frozen."""
    space_id = create_space(connection, recipe.to_dict(), recipe.digest, None)
    if frozen:
        digest = space_digest(recipe.to_dict(), PROJECTION)
        freeze_projection(connection, space_id, PROJECTION.kind, PROJECTION.to_bytes(), digest)
    return space_id


def save(
    connection: Connection,
    space_id: int,
    records: Sequence[ObservationRecord],
    *,
    collection: str = "demo",
    projected: bool = True,
    keep: int = 1_000,
) -> int:
    """Save observations as a reindex does; returns the collection's row."""
    collection_id = ensure_collection(connection, collection)
    vectors = [one.embedding if projected else None for one in records]
    save_observations(connection, collection_id, space_id, records, vectors, keep)
    return collection_id


def save_parcels_with_vectors(
    engine: Engine, vectors: FloatArray, collection: str = "demo"
) -> tuple[int, int]:
    """One parcel for each vector in a new frozen space; returns rows of space and collection."""
    with engine.begin() as connection:
        space_id = make_space(connection)
        records = [record(f"p{number}", vector) for number, vector in enumerate(vectors)]
        return space_id, save(connection, space_id, records, collection=collection)


def manifest(generation: int) -> Manifest:
    """What describes a generation of one row that nobody built."""
    return Manifest(
        generation=generation,
        space_digest=space_digest(RECIPE.to_dict(), PROJECTION),
        recipe=RECIPE.to_dict(),
        projection=PROJECTION.kind,
        rows=1,
        last_id=1,
        dimensions=VECTOR_DIMENSIONS,
        index_kind="IVF1,Flat(fp32)",
        nlist=1,
        nprobe=1,
        recall_at_10=1.0,
        recall_queries=1,
        projection_recall_at_10=None,
        projection_rows=1,
        created_at="2023-05-29T10:50:31+00:00",
        versions={},
    )


def known_of(
    connection: Connection, collection_id: int, space_id: int | None, parcel_id: str = "p1"
) -> Known | None:
    """What the catalog holds of a parcel in ``scene``."""
    found = known_observations(connection, collection_id, space_id, "scene", [parcel_id])
    return found.get(parcel_id)


def embedding_rows(connection: Connection, parcel_id: str) -> list[tuple[int, bool]]:
    """Id and whether it is superseded, of each embedding of a parcel."""
    rows = connection.execute(
        select(Embedding.id, Embedding.superseded)
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(ParcelRow, ParcelRow.id == Observation.parcel_id)
        .where(ParcelRow.parcel_id == parcel_id)
        .order_by(Embedding.id)
    )
    return [(row.id, row.superseded) for row in rows]
