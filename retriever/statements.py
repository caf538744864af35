"""SQL that answers questions: parcels, observations, the rows that a filter allows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVarTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Pool,
    QueuePool,
    Row,
    Select,
    and_,
    bindparam,
    not_,
    or_,
    select,
)

from indexer.catalog.lists import evened
from indexer.catalog.standing import standing_first
from indexer.catalog.tables import Collection, Embedding, EmbeddingSpace, Observation, Parcel
from retriever.attributes import has_name
from retriever.caseless import is_any
from retriever.conditions import conditions, touches, within_interval
from retriever.memberships import with_membership
from retriever.prepared import IDS, Prepared
from retriever.queries import Bbox, Interval, ParcelFilter
from retriever.waiting import about_to_wait

IntArray = npt.NDArray[np.int64]
Columns = TypeVarTuple("Columns")
AnyRow = Row[*tuple[Any, ...]]

# SQLite takes 32,766 values in one statement, PostgreSQL 65,535.
_MAX_IDS = 10_000

_ENOUGH_IDS = 20

_SAMPLED_PARCELS = 1000

# Far more than any parcel measures from west to east: 35 km at 50 degrees of latitude.
_WIDEST_PARCEL_DEG = 0.5


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection whose statements all see the catalog at one moment.

    A publication switches the current generation and deletes what it replaces; a question that
    saw the one without the other would lose matches.
    """
    is_sqlite = engine.dialect.name == "sqlite"
    if not is_sqlite or _is_busy(engine.pool):
        about_to_wait()
    with engine.connect() as connection:
        if is_sqlite:
            # Python's driver opens no transaction for statements that only read. SQLAlchemy
            # would hand this on in ten times the time that it takes.
            connection.connection.cursor().execute("BEGIN")
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def renew(connection: Connection) -> None:
    """Let a snapshot be one of the catalog as it is now."""
    connection.rollback()
    # What was asked past SQLAlchemy began a transaction that it does not know of.
    connection.connection.rollback()
    if connection.dialect.name == "sqlite":
        connection.connection.cursor().execute("BEGIN")


def _is_busy(pool: Pool) -> bool:
    """Whether the next connection may have to wait until another is given back."""
    return isinstance(pool, QueuePool) and pool.checkedout() >= pool.size()


def attribute_names(connection: Connection, collections: Sequence[str]) -> list[str]:
    """Names of the attributes that the first parcels have, in order.

    Args:
        connection: Open connection.
        collections: Of these; empty means of all.
    """
    some = select(Parcel.attributes).limit(_SAMPLED_PARCELS)
    if collections:
        some = some.join(Collection).where(Collection.name.in_(collections))
    names = {name for attributes in connection.scalars(some) for name in attributes}
    return sorted(names)


def has_attribute_name(connection: Connection, name: str, collections: Sequence[str]) -> bool:
    """Whether any parcel has an attribute of this name."""
    statement = select(Parcel.id).where(has_name(name, connection.dialect.name)).limit(1)
    if collections:
        statement = statement.join(Collection).where(Collection.name.in_(collections))
    return connection.scalar(statement) is not None


def allowed_rows(connection: Connection, space_id: int, chosen: ParcelFilter) -> IntArray:
    """Ids of the embeddings of a space that a filter allows, shape ``(n,)``."""
    statement = (
        joined(select(Embedding.id))
        .where(Embedding.space_id == space_id, *conditions(chosen, connection))
        .order_by(Embedding.id)
    )
    return np.array(connection.scalars(statement).all(), dtype=np.int64)


def rows_of_parcels(connection: Connection, space_id: int, parcels: Sequence[int]) -> IntArray:
    """Ids of all embeddings of some parcels in a space, shape ``(n,)``."""
    statement = (
        select(Embedding.id)
        .join(Observation)
        .where(Embedding.space_id == space_id, Observation.parcel_id.in_(evened(parcels)))
    )
    return np.array(connection.scalars(statement).all(), dtype=np.int64)


@dataclass(frozen=True)
class DeclaredCrop:
    """What a parcel declares to grow: a code, a name, or both."""

    collection_id: int
    """Row of the collection whose list of codes it is."""
    code: str | None
    name: str | None


def parcels_around(
    connection: Connection,
    space_id: int,
    *,
    besides: int,
    bbox: Bbox | None,
    crop: DeclaredCrop | None,
) -> Sequence[AnyRow]:
    """Other parcels of a space's collections in a rectangle.

    Args:
        connection: Open connection.
        space_id: The space.
        besides: Row of the parcel that is left out.
        bbox: Where the middle of their bounding boxes is, at least; None for anywhere.
        crop: Their crop; None for any.

    Returns:
        Rows of ``id``, ``longitude`` and ``latitude`` in degrees; in the order of the parcels.
    """
    statement = (
        select(Parcel.id, *middle())
        .join(Collection)
        .where(Collection.space_id == space_id, Parcel.id != besides)
        .order_by(Parcel.id)
    )
    if bbox is not None:
        statement = statement.where(_may_be_centered_in(bbox))
    if crop is not None:
        statement = statement.where(_is_crop(crop))
    return connection.execute(statement).all()


def _may_be_centered_in(bbox: Bbox) -> ColumnElement[bool]:
    """Whether a parcel touches a rectangle, for parcels no wider than any field is.

    The index on the bounding boxes begins with their western side: a range that is closed on both
    sides spares it most of the parcels.
    """
    widest = bbox.west - _WIDEST_PARCEL_DEG
    if bbox.west <= bbox.east:
        return and_(touches(bbox), Parcel.west.between(widest, bbox.east))
    return and_(touches(bbox), or_(Parcel.west >= widest, Parcel.west <= bbox.east))


def comparable_rows(
    connection: Connection,
    space_id: int,
    *,
    parcels: Sequence[int],
    start: datetime,
    end: datetime,
) -> list[AnyRow]:
    """Reliable observations of some parcels in an interval.

    Args:
        connection: Open connection.
        space_id: Where their vectors must be.
        parcels: Rows of the parcels.
        start: First moment of their acquisition.
        end: Last moment of it.

    Returns:
        Rows of ``row`` (embedding id), ``parcel_row`` and ``acquired_at``; those of one parcel in
        the order of the embeddings.
    """
    statement = (
        select(
            Embedding.id.label("row"),
            Observation.parcel_id.label("parcel_row"),
            Observation.acquired_at,
        )
        .join(Observation)
        .where(
            Embedding.space_id == space_id,
            Embedding.superseded.is_(False),
            Embedding.vector.is_not(None),
            Observation.reliable,
            Observation.acquired_at.between(start, end),
        )
        .order_by(Embedding.id)
    )
    found: list[AnyRow] = []
    for first in range(0, len(parcels), _MAX_IDS):
        some = parcels[first : first + _MAX_IDS]
        found += connection.execute(statement.where(Observation.parcel_id.in_(evened(some))))
    return found


def _is_crop(crop: DeclaredCrop) -> ColumnElement[bool]:
    """Whether a parcel declares a crop: a code means it within its own collection only."""
    by_code = is_any(Parcel.crop_code, [crop.code or ""])
    by_name = is_any(Parcel.crop_name, [crop.name or ""])
    if not crop.name:
        return by_code
    if not crop.code:
        return by_name
    same_list = Parcel.collection_id == crop.collection_id
    return or_(and_(same_list, by_code), and_(not_(same_list), by_name))


def find_parcels(
    connection: Connection, parcel_id: str, collection: str | None
) -> Sequence[AnyRow]:
    """Parcels of an id: one in a collection, perhaps several over all."""
    statement = (
        select(
            Collection.name.label("collection"),
            Collection.space_id,
            Parcel.collection_id,
            Parcel.id,
            Parcel.parcel_id,
            Parcel.geometry,
            *middle(),
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


def query_vector(connection: Connection, space_id: int, parcel_row: int) -> AnyRow | None:
    """The observation that stands for a parcel: the latest reliable one, else the latest.

    Args:
        connection: Open connection.
        space_id: Where the vector must be from.
        parcel_row: The parcel.
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
        .order_by(*standing_first())
        .limit(1)
    )
    return connection.execute(statement).first()


def vectors_of(
    connection: Connection, space_id: int, parcel_row: int, interval: Interval | None
) -> dict[str, bytes]:
    """Vectors of a parcel's observations in a space, by scene."""
    statement = (
        select(Observation.scene, Embedding.vector)
        .join(Embedding, Embedding.observation_id == Observation.id)
        .where(
            Observation.parcel_id == parcel_row,
            Embedding.space_id == space_id,
            Embedding.superseded.is_(False),
            Embedding.vector.is_not(None),
        )
    )
    if interval is not None:
        statement = statement.where(*within_interval(interval))
    return {row.scene: row.vector for row in connection.execute(statement)}


def observations_of(
    connection: Connection, parcel_row: int, interval: Interval | None
) -> Sequence[AnyRow]:
    """A parcel's observations in order of time, with their clusters; undated ones come last."""
    statement = (
        with_membership(select(Observation.__table__).join(Parcel))
        .where(Observation.parcel_id == parcel_row)
        .order_by(Observation.acquired_at.is_(None), Observation.acquired_at, Observation.scene)
    )
    if interval is not None:
        statement = statement.where(*within_interval(interval))
    return connection.execute(statement).all()


def space_of(connection: Connection, space_id: int | None) -> AnyRow | None:
    """Recipe and digest of an embedding space."""
    statement = select(EmbeddingSpace.recipe, EmbeddingSpace.digest)
    return connection.execute(statement.where(EmbeddingSpace.id == space_id)).first()


def published_spaces(connection: Connection) -> list[tuple[int, int]]:
    """Rows and current generations of the spaces that some collection is searched in."""
    spaces = _SEARCHED_SPACES.rows(connection)
    return [(space.row, space.generation) for space in spaces if space.generation is not None]


def current_generation(connection: Connection, space_id: int) -> int | None:
    """The number of the generation that answers for a space."""
    spaces = _SPACES.rows(connection, [space_id])
    return spaces[0].generation if spaces else None


class _Space(NamedTuple):
    """An embedding space with the number of its current generation, if it has one."""

    row: int
    generation: int | None


_WITH_GENERATION: Final = select(EmbeddingSpace.id, EmbeddingSpace.current_generation_id)

_SPACES: Final = Prepared(
    _WITH_GENERATION.where(EmbeddingSpace.id.in_(bindparam(IDS, expanding=True))), _Space
)

_SEARCHED_SPACES: Final = Prepared(
    _WITH_GENERATION.where(EmbeddingSpace.id.in_(select(Collection.space_id))).order_by(
        EmbeddingSpace.id
    ),
    _Space,
)


def middle() -> tuple[ColumnElement[float | None], ColumnElement[float | None]]:
    """Longitude and latitude of the middle of a parcel's bounding box."""
    return (
        ((Parcel.west + Parcel.east) / 2).label("longitude"),
        ((Parcel.south + Parcel.north) / 2).label("latitude"),
    )


def joined(statement: Select[*Columns]) -> Select[*Columns]:
    """A statement over embeddings, with the observation, parcel and collection of each.

    Only those of the space that their collection is searched in.
    """
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


def known_ids(connection: Connection, words: Sequence[str], collection: str | None) -> set[str]:
    """Which words are ids of stored parcels.

    Args:
        connection: Open connection.
        words: At most a few hundred.
        collection: Where the parcels are; None for anywhere.
    """
    statement = select(Parcel.parcel_id).where(Parcel.parcel_id.in_(words)).distinct()
    if collection is not None:
        statement = statement.join(Collection).where(Collection.name == collection)
    return set(connection.scalars(statement))
