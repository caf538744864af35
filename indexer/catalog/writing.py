"""Statements that change the catalog. Each runs in the caller's transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from sqlalchemy import Connection, RowMapping, bindparam, delete, insert, select, update

from indexer.catalog.tables import (
    Collection,
    Embedding,
    EmbeddingSpace,
    Generation,
    Observation,
)
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.observation_state import ObservationState
from indexer.parcels.parcel import Parcel

FloatArray = npt.NDArray[np.float32]

# SQLite takes 32,766 parameters in one statement, PostgreSQL 65,535; a batch may have more parcels.
_MOST_PARAMETERS = 10_000


@dataclass(frozen=True)
class Known:
    """What the catalog holds of one parcel in one scene."""

    observation_id: int
    fingerprint: str
    """Of the observation's pixels."""
    embedded: str | None
    """Of the pixels that were embedded in the space asked for; None if none were."""
    embedding_id: int | None
    source: str
    """Where the image lay."""
    layer_bands: tuple[str, ...] | None
    """How its layers were named, where it does not name them itself."""


@dataclass(frozen=True)
class ObservationRecord:
    """One observation on its way into the catalog."""

    parcel: Parcel
    scene: str
    source: str
    """Absolute path of the image: a file, or a folder of band files."""
    acquired_at: datetime | None
    processing_baseline: str | None
    state: ObservationState
    fingerprint: str
    known: Known | None
    """What stood there before; None for a new observation."""
    embedding: FloatArray | None
    """Shape ``(d,)``; None where the observation is too poor to be embedded."""
    layer_bands: tuple[str, ...] | None = None
    """Band of each layer of the file where it was told; None where the image names its bands."""


def ensure_collection(connection: Connection, name: str) -> int:
    """The collection's row, made if it is not there."""
    found = connection.scalar(select(Collection.id).where(Collection.name == name))
    if found is None:
        statement = insert(Collection).values(name=name).returning(Collection.id)
        found = connection.scalars(statement).one()
    return found


def create_space(
    connection: Connection, recipe: dict[str, Any], recipe_digest: str, weights_path: str | None
) -> int:
    """A new space whose projection is still open."""
    statement = insert(EmbeddingSpace).values(
        recipe=recipe, recipe_digest=recipe_digest, weights_path=weights_path
    )
    return connection.scalars(statement.returning(EmbeddingSpace.id)).one()


def remember_weights_path(connection: Connection, space_id: int, path: str | None) -> None:
    """Note where the weight file was found this time."""
    connection.execute(
        update(EmbeddingSpace).where(EmbeddingSpace.id == space_id).values(weights_path=path)
    )


def freeze_projection(
    connection: Connection, space_id: int, kind: str, content: bytes, digest: str
) -> None:
    """Give a space its projection and with it its identity."""
    connection.execute(
        update(EmbeddingSpace)
        .where(EmbeddingSpace.id == space_id)
        .values(projection_kind=kind, projection=content, digest=digest)
    )


def set_vectors(connection: Connection, ids: Sequence[int], vectors: FloatArray) -> None:
    """Fill in the vectors of rows that waited for their space's projection."""
    statement = (
        update(Embedding).where(Embedding.id == bindparam("row")).values(vector=bindparam("value"))
    )
    connection.execute(
        statement,
        [{"row": row, "value": _blob(vector)} for row, vector in zip(ids, vectors, strict=True)],
    )


def save_parcels(
    connection: Connection, collection_id: int, parcels: Sequence[Parcel]
) -> dict[str, int]:
    """Insert new parcels, update changed ones.

    Returns:
        Row of each parcel, by parcel id.
    """
    wanted = {parcel.parcel_id: _parcel_values(collection_id, parcel) for parcel in parcels}
    rows: dict[str, int] = {}
    for row in _stored_parcels(connection, collection_id, list(wanted)):
        values = wanted.pop(row["parcel_id"])
        rows[row["parcel_id"]] = row["id"]
        if any(row[name] != value for name, value in values.items()):
            connection.execute(update(ParcelRow).where(ParcelRow.id == row["id"]).values(**values))
    if wanted:
        statement = insert(ParcelRow).returning(ParcelRow.parcel_id, ParcelRow.id)
        inserted = connection.execute(statement, list(wanted.values()))
        rows.update({parcel_id: row for parcel_id, row in inserted})
    return rows


def _stored_parcels(
    connection: Connection, collection_id: int, parcel_ids: Sequence[str]
) -> Iterator[RowMapping]:
    """Those of the parcels that the collection holds already."""
    columns = ParcelRow.__table__.c
    for start in range(0, len(parcel_ids), _MOST_PARAMETERS):
        some = parcel_ids[start : start + _MOST_PARAMETERS]
        yield from connection.execute(
            select(ParcelRow.__table__).where(
                columns.collection_id == collection_id, columns.parcel_id.in_(some)
            )
        ).mappings()


def _parcel_values(collection_id: int, parcel: Parcel) -> dict[str, Any]:
    west, south, east, north = parcel.bbox or (None, None, None, None)
    return {
        "collection_id": collection_id,
        "parcel_id": parcel.parcel_id,
        "geometry": None if parcel.geometry is None else shapely.to_wkb(parcel.geometry),
        "west": west,
        "south": south,
        "east": east,
        "north": north,
        "area_m2": parcel.area_m2,
        "crop_code": parcel.crop_code,
        "crop_name": parcel.crop_name,
        "attributes": parcel.attributes,
    }


def save_observations(
    connection: Connection,
    collection_id: int,
    space_id: int,
    records: Sequence[ObservationRecord],
    vectors: Sequence[FloatArray | None],
    keep_embeddings: int,
) -> None:
    """Write observations and their embeddings; a changed embedding supersedes the old row.

    Args:
        connection: Inside a transaction that the caller commits.
        collection_id: Row of the collection.
        space_id: Row of the space that the embeddings belong to.
        records: What was observed.
        vectors: Projected embedding of each record; None where it has no embedding or the
            space's projection is still open.
        keep_embeddings: So many of the records' embeddings are kept at full length.
    """
    parcels = save_parcels(connection, collection_id, [record.parcel for record in records])
    rows: list[dict[str, Any]] = []
    for record, vector in zip(records, vectors, strict=True):
        observation_id = _save_observation(connection, parcels[record.parcel.parcel_id], record)
        if record.known is not None and record.known.embedding_id is not None:
            connection.execute(
                update(Embedding)
                .where(Embedding.id == record.known.embedding_id)
                .values(superseded=True)
            )
        if record.embedding is not None:
            kept = len(rows) < keep_embeddings
            rows.append(
                {
                    "observation_id": observation_id,
                    "space_id": space_id,
                    "fingerprint": record.fingerprint,
                    "vector": None if vector is None else _blob(vector),
                    "embedding": _blob(record.embedding) if kept else None,
                    "superseded": False,
                }
            )
    if rows:
        connection.execute(insert(Embedding), rows)


def _save_observation(connection: Connection, parcel_row: int, record: ObservationRecord) -> int:
    state = record.state
    values = {
        "parcel_id": parcel_row,
        "scene": record.scene,
        "source": record.source,
        "layer_bands": _as_json(record.layer_bands),
        "acquired_at": record.acquired_at,
        "processing_baseline": record.processing_baseline,
        "pixels_inside": state.pixels_inside,
        "valid_pixels": state.valid_pixels,
        "valid_fraction": state.valid_fraction,
        "covered_fraction": state.covered_fraction,
        "cloud_cover_percent": state.cloud_cover_percent,
        "reliable": state.reliable,
        "indices": state.to_dict()["indices"],
        "fingerprint": record.fingerprint,
    }
    if record.known is None:
        statement = insert(Observation).values(**values).returning(Observation.id)
        return connection.scalars(statement).one()
    connection.execute(
        update(Observation).where(Observation.id == record.known.observation_id).values(**values)
    )
    return record.known.observation_id


def remember_image(
    connection: Connection,
    observations: Sequence[int],
    source: str,
    layer_bands: tuple[str, ...] | None,
) -> None:
    """Note where an image lies now, and how its layers are named.

    Args:
        connection: Inside a transaction that the caller commits.
        observations: Rows of the observations that it shows.
        source: Absolute path of a file, or of a folder of band files.
        layer_bands: Band of each layer; None where the image names its bands itself.
    """
    values = {"source": source, "layer_bands": _as_json(layer_bands)}
    for start in range(0, len(observations), _MOST_PARAMETERS):
        some = observations[start : start + _MOST_PARAMETERS]
        connection.execute(update(Observation).where(Observation.id.in_(some)).values(**values))


def publish_generation(
    connection: Connection,
    *,
    generation_id: int,
    space_id: int,
    collection_id: int | None,
    manifest: dict[str, Any],
) -> None:
    """Switch the pointer, point the collection at the space, drop what is superseded: at once."""
    connection.execute(
        insert(Generation).values(id=generation_id, space_id=space_id, manifest=manifest)
    )
    connection.execute(
        update(EmbeddingSpace)
        .where(EmbeddingSpace.id == space_id)
        .values(current_generation_id=generation_id)
    )
    if collection_id is not None:
        connection.execute(
            update(Collection).where(Collection.id == collection_id).values(space_id=space_id)
        )
    connection.execute(
        delete(Embedding).where(Embedding.space_id == space_id, Embedding.superseded)
    )


def _as_json(names: tuple[str, ...] | None) -> list[str] | None:
    return None if names is None else list(names)


def _blob(values: FloatArray) -> bytes:
    return values.astype("<f4").tobytes()
