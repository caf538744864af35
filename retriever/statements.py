"""SQL that answers questions: parcels, observations, the rows that a filter allows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVarTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from indexer.catalog.tables import Collection, Embedding, EmbeddingSpace, Observation, Parcel
from retriever.queries import Bbox, Interval, ParcelFilter

IntArray = npt.NDArray[np.int64]
Columns = TypeVarTuple("Columns")
AnyRow = Row[*tuple[Any, ...]]

# SQLite takes 32,766 values in one statement, PostgreSQL 65,535.
_MAX_IDS = 10_000

_ENOUGH_IDS = 20


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection whose statements all see the catalog at one moment.

    A publication switches the current generation and deletes what it replaces; a question that
    saw the one without the other would lose matches.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # Python's driver opens no transaction for statements that only read.
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def conditions(chosen: ParcelFilter) -> list[ColumnElement[bool]]:
    """A filter's conditions, for statements over collections, parcels and observations."""
    found: list[ColumnElement[bool]] = []
    if chosen.collections:
        found.append(Collection.name.in_(chosen.collections))
    if chosen.crops:
        found.append(
            or_(_is_any(Parcel.crop_code, chosen.crops), _is_any(Parcel.crop_name, chosen.crops))
        )
    if chosen.bbox is not None:
        found.append(_touches(chosen.bbox))
    if chosen.interval is not None:
        found.extend(_within(chosen.interval))
    return found


def _is_any(column: InstrumentedAttribute[str | None], words: Sequence[str]) -> ColumnElement[bool]:
    """Whether a column holds one of the words, compared without case.

    SQLite's ``lower`` knows ASCII only and leaves É as it is. So the database folds both sides,
    and a word is tried in each of the ways in which crops are written.
    """
    spellings = {
        spelling
        for word in words
        for spelling in (word, word.lower(), word.upper(), word.capitalize(), word.title())
    }
    return func.lower(column).in_([func.lower(spelling) for spelling in sorted(spellings)])


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
    """Everything a match says, by embedding id.

    Ids that are gone are left out, and those of collections that are searched in another space
    by now.
    """
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
    )
    described: dict[int, AnyRow] = {}
    for start in range(0, len(ids), _MAX_IDS):
        some = statement.where(Embedding.id.in_(ids[start : start + _MAX_IDS]))
        described.update({row.row: row for row in connection.execute(some)})
    return described


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
    """Parcel ids that begin like the given one, for 'did you mean'.

    As long a beginning as still leaves a choice: a slip near the end of the given id must not
    hide the one that was meant.
    """
    statement = select(Parcel.parcel_id).join(Collection).order_by(Parcel.parcel_id).limit(limit)
    if collection is not None:
        statement = statement.where(Collection.name == collection)

    def beginning_like(length: int) -> list[str]:
        same = Parcel.parcel_id.istartswith(parcel_id[:length], autoescape=True)
        return list(connection.scalars(statement.where(same)))

    shortest, longest = 0, min(len(parcel_id), 40)
    while shortest < longest:
        length = (shortest + longest + 1) // 2
        if len(beginning_like(length)) >= _ENOUGH_IDS:
            shortest = length
        else:
            longest = length - 1
    return beginning_like(shortest)


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
        .join(
            Collection,
            and_(
                Collection.id == Parcel.collection_id,
                # A collection that moved to another space leaves vectors behind that age there.
                Collection.space_id == Embedding.space_id,
            ),
        )
    )
