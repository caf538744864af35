"""Statements that change the catalog. Each runs in the caller's transaction.

Whatever changes what a search may find is noted in the change log (``catalog.changes``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import shapely
from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update

from indexer.catalog.bulk import insert_rows
from indexer.catalog.changes import log_changes, log_switch
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

# Made once: a statement remembers what it takes to find its compiled form.
_SOME_PARCELS = (
    ParcelRow.collection_id == bindparam("collection"),
    ParcelRow.parcel_id.in_(bindparam("some", expanding=True)),
)
_STORED_PARCELS = select(ParcelRow.__table__).where(*_SOME_PARCELS)
_PARCEL_ROWS = select(ParcelRow.parcel_id, ParcelRow.id).where(*_SOME_PARCELS)
_LAST_OBSERVATION = select(func.coalesce(func.max(Observation.id), 0))
_NEW_OBSERVATIONS = select(Observation.parcel_id, Observation.scene, Observation.id).where(
    Observation.id > bindparam("before"),
    Observation.parcel_id.in_(bindparam("some", expanding=True)),
)

T = TypeVar("T")


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
    log_changes(connection, _parcels_of_embeddings(connection, ids))


def _parcels_of_embeddings(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Rows of the parcels that embeddings are of."""
    statement = select(Observation.parcel_id).join(Embedding)
    return {
        row
        for some in in_chunks(ids)
        for row in connection.scalars(statement.where(Embedding.id.in_(some)))
    }


def save_parcels(
    connection: Connection, collection_id: int, parcels: Sequence[Parcel]
) -> dict[str, int]:
    """Insert new parcels, update changed ones.

    Returns:
        Row of each parcel, by parcel id.
    """
    rows, written = _write_parcels(connection, collection_id, parcels)
    log_changes(connection, written)
    return rows


def _write_parcels(
    connection: Connection, collection_id: int, parcels: Sequence[Parcel]
) -> tuple[dict[str, int], list[int]]:
    """Rows of parcels by parcel id, and which of them had to be written."""
    wanted = _parcel_values(collection_id, parcels)
    rows: dict[str, int] = {}
    changed: list[dict[str, Any]] = []
    for row in _stored_parcels(connection, collection_id, list(wanted)):
        values = wanted.pop(row["parcel_id"])
        rows[row["parcel_id"]] = row["id"]
        if any(row[name] != value for name, value in values.items()):
            changed.append({**values, "row": row["id"]})
    _update(connection, ParcelRow, changed)
    written = [values["row"] for values in changed]
    if wanted:
        insert_rows(connection, ParcelRow, list(wanted.values()))
        inserted = _parcel_rows(connection, collection_id, list(wanted))
        rows.update(inserted)
        written.extend(inserted.values())
    return rows, written


def _parcel_rows(
    connection: Connection, collection_id: int, parcel_ids: Sequence[str]
) -> dict[str, int]:
    """Rows of parcels that the collection holds, by parcel id."""
    return {
        parcel_id: row
        for some in in_chunks(parcel_ids)
        for parcel_id, row in connection.execute(
            _PARCEL_ROWS, {"collection": collection_id, "some": some}
        )
    }


def _update(
    connection: Connection, table: type[ParcelRow | Observation], rows: list[dict[str, Any]]
) -> None:
    """Set all columns that rows have besides ``row``, the id of each."""
    if rows:
        connection.execute(update(table).where(table.id == bindparam("row")), rows)


def in_chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Parts of a list, each of them few enough for one statement."""
    for start in range(0, len(values), _MOST_PARAMETERS):
        yield values[start : start + _MOST_PARAMETERS]


def _stored_parcels(
    connection: Connection, collection_id: int, parcel_ids: Sequence[str]
) -> Iterator[RowMapping]:
    """Those of the parcels that the collection holds already."""
    for some in in_chunks(parcel_ids):
        yield from connection.execute(
            _STORED_PARCELS, {"collection": collection_id, "some": some}
        ).mappings()


def _parcel_values(collection_id: int, parcels: Sequence[Parcel]) -> dict[str, dict[str, Any]]:
    """What stands in the rows of parcels, by parcel id."""
    geometries = np.array([parcel.geometry for parcel in parcels], dtype=np.object_)
    contents = shapely.to_wkb(geometries).tolist()
    bounds = shapely.bounds(geometries).tolist()
    values: dict[str, dict[str, Any]] = {}
    for parcel, content, box in zip(parcels, contents, bounds, strict=True):
        west, south, east, north = (None, None, None, None) if content is None else box
        values[parcel.parcel_id] = {
            "collection_id": collection_id,
            "parcel_id": parcel.parcel_id,
            "geometry": content,
            "west": west,
            "south": south,
            "east": east,
            "north": north,
            "area_m2": parcel.area_m2,
            "crop_code": parcel.crop_code,
            "crop_name": parcel.crop_name,
            "attributes": parcel.attributes,
        }
    return values


def save_observations(
    connection: Connection,
    collection_id: int,
    space_id: int,
    records: Sequence[ObservationRecord],
    vectors: Sequence[FloatArray | None],
    keep_embeddings: int,
) -> None:
    """Write observations and their embeddings; a changed embedding supersedes the old row.

    New rows are numbered in the order of the records.

    Args:
        connection: Inside a transaction that the caller commits.
        collection_id: Row of the collection.
        space_id: Row of the space that the embeddings belong to.
        records: What was observed; each parcel in each scene once.
        vectors: Projected embedding of each record; None where it has no embedding or the
            space's projection is still open.
        keep_embeddings: So many of the records' embeddings are kept at full length.
    """
    parcels, _ = _write_parcels(connection, collection_id, [record.parcel for record in records])
    values = [_observation_values(parcels[record.parcel.parcel_id], record) for record in records]
    ids = [None if record.known is None else record.known.observation_id for record in records]
    known = [{**one, "row": row} for one, row in zip(values, ids, strict=True) if row is not None]
    new = [one for one, row in zip(values, ids, strict=True) if row is None]
    _update(connection, Observation, known)
    inserted = _insert_observations(connection, new)
    observations = [
        inserted[one["parcel_id"], one["scene"]] if row is None else row
        for one, row in zip(values, ids, strict=True)
    ]
    _supersede(connection, records)
    rows: list[dict[str, Any]] = []
    for record, vector, observation_id in zip(records, vectors, observations, strict=True):
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
    insert_rows(connection, Embedding, rows)
    log_changes(connection, parcels.values())


def _supersede(connection: Connection, records: Sequence[ObservationRecord]) -> None:
    """Set the embeddings aside that stood for the records so far."""
    former = [
        record.known.embedding_id
        for record in records
        if record.known is not None and record.known.embedding_id is not None
    ]
    for some in in_chunks(former):
        connection.execute(update(Embedding).where(Embedding.id.in_(some)).values(superseded=True))


def _insert_observations(
    connection: Connection, rows: Sequence[dict[str, Any]]
) -> dict[tuple[int, str], int]:
    """Insert observations; returns their ids by parcel row and scene."""
    if not rows:
        return {}
    # What is inserted gets higher ids than anything that is there, whoever else inserts.
    before = connection.execute(_LAST_OBSERVATION).scalar_one()
    insert_rows(connection, Observation, rows)
    return {
        (parcel, scene): found
        for some in in_chunks(rows)
        for parcel, scene, found in connection.execute(
            _NEW_OBSERVATIONS, {"before": before, "some": [row["parcel_id"] for row in some]}
        )
    }


def _observation_values(parcel_row: int, record: ObservationRecord) -> dict[str, Any]:
    state = record.state
    return {
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
        "indices": {name: summary.to_dict() for name, summary in state.indices.items()},
        "fingerprint": record.fingerprint,
    }


def delete_parcels(connection: Connection, rows: Sequence[int]) -> None:
    """Delete parcels with all that was observed of them.

    Their observations, embeddings in every space, and places in clusters go along, by the foreign
    keys of the tables.

    Args:
        connection: Inside a transaction that the caller commits.
        rows: Rows of the parcels.
    """
    for some in in_chunks(rows):
        connection.execute(delete(ParcelRow).where(ParcelRow.id.in_(some)))
    log_changes(connection, rows)


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
    for some in in_chunks(observations):
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


def switch_generation(
    connection: Connection, generation_id: int, space_id: int, collections: Sequence[str]
) -> list[str]:
    """Have a generation answer again, for its space and for collections that were searched in it.

    Args:
        connection: Inside a transaction that the caller commits.
        generation_id: Of the generation.
        space_id: Row of its space.
        collections: Names; those that are not there any more are passed over.

    Returns:
        The collections that were searched in another space until now.
    """
    connection.execute(
        update(EmbeddingSpace)
        .where(EmbeddingSpace.id == space_id)
        .values(current_generation_id=generation_id)
    )
    elsewhere = Collection.name.in_(collections), Collection.space_id.is_distinct_from(space_id)
    moved = sorted(connection.scalars(select(Collection.name).where(*elsewhere)))
    connection.execute(
        update(Collection).where(Collection.name.in_(moved)).values(space_id=space_id)
    )
    log_switch(connection)
    return moved


def delete_generations(connection: Connection, numbers: Sequence[int]) -> None:
    """Forget generations, whose files nobody opens any more.

    Args:
        connection: Inside a transaction that the caller commits.
        numbers: None of them answers for a space that is searched.
    """
    connection.execute(delete(Generation).where(Generation.id.in_(numbers)))


def _as_json(names: tuple[str, ...] | None) -> list[str] | None:
    return None if names is None else list(names)


def _blob(values: FloatArray) -> bytes:
    return np.asarray(values, dtype="<f4").tobytes()
