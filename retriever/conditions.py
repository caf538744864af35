"""A filter's conditions in SQL, over collections, parcels and observations."""

from sqlalchemy import ColumnElement, Connection, and_, or_

from indexer.catalog.tables import Collection, Observation, Parcel
from retriever.attributes import has_attribute, mentions
from retriever.caseless import contains, is_any
from retriever.cql2.translation import condition_of
from retriever.queries import Bbox, Interval, ParcelFilter


def conditions(chosen: ParcelFilter, connection: Connection) -> list[ColumnElement[bool]]:
    """A filter's conditions, for statements over collections, parcels and observations.

    Args:
        chosen: The filter.
        connection: Open connection; an expression about places reads geometries at once.
    """
    dialect = connection.dialect.name
    found: list[ColumnElement[bool]] = []
    if chosen.collections:
        found.append(Collection.name.in_(chosen.collections))
    if chosen.crops:
        found.append(
            or_(is_any(Parcel.crop_code, chosen.crops), is_any(Parcel.crop_name, chosen.crops))
        )
    if chosen.bbox is not None:
        found.append(touches(chosen.bbox))
    if chosen.interval is not None:
        found.extend(within_interval(chosen.interval))
    found.extend(has_attribute(name, value, dialect) for name, value in chosen.attributes)
    found.extend(_mentions(word, dialect) for word in chosen.words)
    if chosen.expression is not None:
        found.append(condition_of(chosen.expression, connection, chosen.collections))
    return found


def _mentions(word: str, dialect: str) -> ColumnElement[bool]:
    """Whether a word stands in a parcel's id, crop or attributes."""
    return or_(
        contains(Parcel.parcel_id, word),
        contains(Parcel.crop_code, word),
        contains(Parcel.crop_name, word),
        mentions(word, dialect),
    )


def touches(bbox: Bbox) -> ColumnElement[bool]:
    """Whether a parcel's bounding box touches a rectangle."""
    latitude = and_(Parcel.south <= bbox.north, Parcel.north >= bbox.south)
    if bbox.west <= bbox.east:
        return and_(Parcel.west <= bbox.east, Parcel.east >= bbox.west, latitude)
    return and_(or_(Parcel.east >= bbox.west, Parcel.west <= bbox.east), latitude)


def within_interval(
    interval: Interval, observation: type[Observation] = Observation
) -> list[ColumnElement[bool]]:
    """Whether an observation was acquired in an interval; those without a time were not."""
    found: list[ColumnElement[bool]] = [observation.acquired_at.is_not(None)]
    if interval.start is not None:
        found.append(observation.acquired_at >= interval.start)
    if interval.end is not None:
        found.append(observation.acquired_at < interval.end)
    return found
