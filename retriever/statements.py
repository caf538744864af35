"""SQL that answers questions: parcels, observations, the rows that a filter allows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVarTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, or_, select

from indexer.catalog.tables import Collection, Embedding, EmbeddingSpace, Observation, Parcel
from retriever.queries import Bbox, Interval, ParcelFilter

IntArray = npt.NDArray[np.int64]
Columns = TypeVarTuple("Columns")
AnyRow = Row[*tuple[Any, ...]]


def conditions(chosen: ParcelFilter) -> list[ColumnElement[bool]]:
    """A filter's conditions, for statements over collections, parcels and observations."""
    found: list[ColumnElement[bool]] = []
    if chosen.collections:
        found.append(Collection.name.in_(chosen.collections))
    if chosen.crops:
        crops = [crop.lower() for crop in chosen.crops]
        found.append(
            or_(func.lower(Parcel.crop_code).in_(crops), func.lower(Parcel.crop_name).in_(crops))
        )
    if chosen.bbox is not None:
        found.append(_touches(chosen.bbox))
    if chosen.interval is not None:
        found.extend(_within(chosen.interval))
    return found


def _touches(bbox: Bbox) -> ColumnElement[bool]:
    latitude = and_(Parcel.south <= bbox.north, Parcel.north >= bbox.south)
    if bbox.west <= bbox.east:
        return and_(Parcel.west <= bbox.east, Parcel.east >= bbox.west, latitude)
    return and_(or_(Parcel.east >= bbox.west, Parcel.west <= bbox.east), latitude)


def _within(interval: Interval) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [Observation.acquired_at.is_not(None)]
    if interval.start is not None:
        found.append(Observation.acquired_at >= interval.start)
    if interval.end is not None:
        found.append(Observation.acquired_at < interval.end)
    return found


def allowed_rows(connection: Connection, space_id: int, chosen: ParcelFilter) -> IntArray:
    """Ids of the embeddings of a space that a filter allows, shape ``(n,)``."""
    statement = (
        _joined(select(Embedding.id))
        .where(Embedding.space_id == space_id, *conditions(chosen))
        .order_by(Embedding.id)
    )
    return np.array(connection.scalars(statement).all(), dtype=np.int64)


def rows_of_parcel(connection: Connection, space_id: int, parcel_row: int) -> IntArray:
    """Ids of all embeddings of one parcel in a space, shape ``(n,)``."""
    statement = (
        select(Embedding.id)
        .join(Observation)
        .where(Embedding.space_id == space_id, Observation.parcel_id == parcel_row)
    )
    return np.array(connection.scalars(statement).all(), dtype=np.int64)


def describe_rows(connection: Connection, ids: Sequence[int]) -> dict[int, AnyRow]:
    """Everything a match says, by embedding id; ids that are gone are left out."""
    statement = _joined(
        select(
            Embedding.id.label("row"),
            Collection.name.label("collection"),
            Parcel.id.label("parcel_row"),
            Parcel.parcel_id,
            Parcel.crop_code,
            Parcel.crop_name,
            Parcel.area_m2,
            Parcel.geometry,
            Observation.acquired_at,
            Observation.scene,
            Observation.valid_fraction,
            Observation.reliable,
        )
    ).where(Embedding.id.in_(ids))
    return {row.row: row for row in connection.execute(statement)}


def find_parcels(
    connection: Connection, parcel_id: str, collection: str | None
) -> Sequence[AnyRow]:
    """Parcels of an id: one in a collection, perhaps several over all."""
    statement = (
        select(
            Collection.name.label("collection"),
            Collection.space_id,
            Parcel.id,
            Parcel.parcel_id,
            Parcel.geometry,
            Parcel.area_m2,
            Parcel.crop_code,
            Parcel.crop_name,
            Parcel.attributes,
        )
        .join(Collection)
        .where(Parcel.parcel_id == parcel_id)
        .order_by(Collection.name)
    )
    if collection is not None:
        statement = statement.where(Collection.name == collection)
    return connection.execute(statement).all()


def ids_like(
    connection: Connection, parcel_id: str, collection: str | None, limit: int = 200
) -> list[str]:
    """Parcel ids that begin like the given one, for 'did you mean'."""
    found: list[str] = []
    for length in range(min(len(parcel_id), 40), -1, -1):
        statement = (
            select(Parcel.parcel_id)
            .join(Collection)
            .where(Parcel.parcel_id.startswith(parcel_id[:length], autoescape=True))
            .order_by(Parcel.parcel_id)
            .limit(limit)
        )
        if collection is not None:
            statement = statement.where(Collection.name == collection)
        found = list(connection.scalars(statement))
        if found:
            break
    return found


def query_vector(
    connection: Connection, space_id: int, parcel_row: int, interval: Interval | None
) -> Row[bytes | None, datetime | None, str, bool] | None:
    """The observation that stands for a parcel: the latest reliable one, else the latest.

    Args:
        connection: Open connection.
        space_id: Where the vector must be from.
        parcel_row: The parcel.
        interval: Consider only observations acquired in it.
    """
    statement = (
        select(Embedding.vector, Observation.acquired_at, Observation.scene, Observation.reliable)
        .join(Observation)
        .where(
            Observation.parcel_id == parcel_row,
            Embedding.space_id == space_id,
            Embedding.superseded.is_(False),
            Embedding.vector.is_not(None),
        )
        .order_by(
            Observation.reliable.desc(),
            Observation.acquired_at.is_(None),
            Observation.acquired_at.desc(),
            Observation.id.desc(),
        )
        .limit(1)
    )
    if interval is not None:
        statement = statement.where(*_within(interval))
    return connection.execute(statement).first()


def observations_of(
    connection: Connection, parcel_row: int, interval: Interval | None
) -> Sequence[AnyRow]:
    """A parcel's observations in order of time; those without a time come last."""
    statement = (
        select(Observation.__table__)
        .where(Observation.parcel_id == parcel_row)
        .order_by(Observation.acquired_at.is_(None), Observation.acquired_at, Observation.scene)
    )
    if interval is not None:
        statement = statement.where(*_within(interval))
    return connection.execute(statement).all()


def published_spaces(connection: Connection) -> list[tuple[int, int]]:
    """Rows and current generations of the spaces that some collection is searched in."""
    statement = (
        select(EmbeddingSpace.id, EmbeddingSpace.current_generation_id)
        .where(EmbeddingSpace.current_generation_id.is_not(None))
        .where(EmbeddingSpace.id.in_(select(Collection.space_id)))
        .order_by(EmbeddingSpace.id)
    )
    return [(row[0], row[1]) for row in connection.execute(statement) if row[1] is not None]


def current_generation(connection: Connection, space_id: int) -> int | None:
    """The number of the generation that answers for a space."""
    return connection.scalar(
        select(EmbeddingSpace.current_generation_id).where(EmbeddingSpace.id == space_id)
    )


def _joined(statement: Select[*Columns]) -> Select[*Columns]:
    return (
        statement.select_from(Embedding)
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(Parcel, Parcel.id == Observation.parcel_id)
        .join(Collection, Collection.id == Parcel.collection_id)
    )
