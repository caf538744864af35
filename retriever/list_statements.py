"""SQL that lists: parcels page by page, and what collections hold."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVarTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, func, literal, select, tuple_
from sqlalchemy.orm import aliased

from indexer.catalog.standing import standing_first
from indexer.catalog.tables import Collection, Observation, Parcel
from retriever.conditions import conditions, within_interval
from retriever.memberships import with_membership
from retriever.queries import Interval, ParcelFilter
from retriever.statements import AnyRow, middle

Columns = TypeVarTuple("Columns")

# What an answer shows of the observation that stands for a parcel.
_SHOWN = (
    Observation.acquired_at,
    Observation.scene,
    Observation.valid_fraction,
    Observation.reliable,
    Observation.indices,
)


def list_parcels(
    connection: Connection, chosen: ParcelFilter, *, after: int, limit: int
) -> Sequence[AnyRow]:
    """Parcels that fit a filter, in the order in which collections were made, and of ids.

    Each comes with the observation that stands for it: the latest reliable one, else the latest.
    Conditions on observations are held against that one.

    Args:
        connection: Open connection.
        chosen: The filter; an interval leaves the parcels that were observed in it, and only
            what was observed in it may stand for them.
        after: Row of the last parcel of the page before; 0 at the beginning.
        limit: Most rows.

    Returns:
        The page; nothing where ``after`` is no longer there.
    """
    statement = (
        with_membership(_listed(_described(), chosen, connection))
        .order_by(Parcel.collection_id, Parcel.parcel_id)
        .limit(limit)
    )
    if after:
        key = select(Parcel.collection_id, Parcel.parcel_id)
        last = connection.execute(key.where(Parcel.id == after)).first()
        if last is None:
            return []
        statement = statement.where(_follows(last, within_one=len(chosen.collections) == 1))
    return connection.execute(statement).all()


def _follows(last: AnyRow, *, within_one: bool) -> ColumnElement[bool]:
    """Whether a parcel comes after another, said so that the index of the key leads there.

    SQLite uses it neither for a row that a subquery gives, nor for a pair of columns of which the
    first is known to be one value.
    """
    if within_one:
        same = Parcel.collection_id == last.collection_id
        return and_(same, Parcel.parcel_id > last.parcel_id)
    return tuple_(Parcel.collection_id, Parcel.parcel_id) > tuple_(*map(literal, last))


def parcel_of_row(connection: Connection, row: int) -> AnyRow:
    """A parcel as ``list_parcels`` gives it."""
    statement = with_membership(_with_observation(_described(), None)).where(Parcel.id == row)
    return connection.execute(statement).one()


def has_parcel(connection: Connection, row: int) -> bool:
    """Whether there is a parcel of this row."""
    return connection.scalar(select(Parcel.id).where(Parcel.id == row)) is not None


def count_parcels(connection: Connection, chosen: ParcelFilter, most: int) -> int:
    """How many parcels fit a filter, counted up to ``most``."""
    found = _listed(select(Parcel.id), chosen, connection).limit(most).subquery()
    return connection.scalar(select(func.count()).select_from(found)) or 0


def _described() -> Select[*tuple[object, ...]]:
    # Aliased, lest they take the joined observation for their own.
    seen = aliased(Observation)
    of_parcel = select(seen).where(seen.parcel_id == Parcel.id)
    count = of_parcel.with_only_columns(func.count(seen.id)).scalar_subquery()
    latest = of_parcel.with_only_columns(func.max(seen.acquired_at)).scalar_subquery()
    return select(
        Collection.name.label("collection"),
        Parcel.id,
        Parcel.parcel_id,
        Parcel.geometry,
        *middle(),
        Parcel.area_m2,
        Parcel.crop_code,
        Parcel.crop_name,
        Parcel.attributes,
        count.label("observations"),
        latest.label("latest"),
        *_SHOWN,
    )


def _listed(
    statement: Select[*Columns], chosen: ParcelFilter, connection: Connection
) -> Select[*Columns]:
    # The interval says which observation stands for a parcel; the rest is held against that one.
    besides = conditions(replace(chosen, interval=None), connection)
    return _with_observation(statement, chosen.interval).where(*besides)


def _with_observation(statement: Select[*Columns], interval: Interval | None) -> Select[*Columns]:
    """Join collections, and the observation that stands for each parcel.

    Without an interval, parcels that were never observed stay.
    """
    seen = aliased(Observation)
    standing = (
        select(seen.id).where(seen.parcel_id == Parcel.id).order_by(*standing_first(seen)).limit(1)
    )
    if interval is not None:
        standing = standing.where(*within_interval(interval, seen))
    return (
        statement.select_from(Parcel)
        .join(Collection, Collection.id == Parcel.collection_id)
        .join(
            Observation,
            Observation.id == standing.scalar_subquery(),
            isouter=interval is None,
        )
    )


def summaries(connection: Connection) -> Sequence[AnyRow]:
    """Collections with what is in them, by name; reads all of their parcels and observations."""
    seen = (
        select(
            Parcel.collection_id,
            func.min(Observation.acquired_at).label("start"),
            func.max(Observation.acquired_at).label("end"),
        )
        .join(Observation, Observation.parcel_id == Parcel.id)
        .group_by(Parcel.collection_id)
        .subquery()
    )
    statement = (
        select(
            Collection.name,
            func.count(Parcel.id).label("parcels"),
            func.min(Parcel.west).label("west"),
            func.min(Parcel.south).label("south"),
            func.max(Parcel.east).label("east"),
            func.max(Parcel.north).label("north"),
            func.min(seen.c.start).label("start"),
            func.max(seen.c.end).label("end"),
        )
        .outerjoin(Parcel, Parcel.collection_id == Collection.id)
        .outerjoin(seen, seen.c.collection_id == Collection.id)
        .group_by(Collection.id, Collection.name)
        .order_by(Collection.name)
    )
    return connection.execute(statement).all()
