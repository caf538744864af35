"""Asks a catalog which parcels fit a filter, each with its one observation, or none."""

from typing import Any

from sqlalchemy import Connection, select

from indexer.catalog.tables import Collection, Observation, Parcel
from retriever.cql2.expression import Expression
from retriever.cql2.translation import condition_of


def fitting(connection: Connection, written: str | dict[str, Any] | Expression) -> list[str]:
    """Ids of the parcels, in order."""
    expression = written if isinstance(written, Expression) else Expression.read(written)
    statement = (
        select(Parcel.parcel_id)
        .join(Collection, Collection.id == Parcel.collection_id)
        .outerjoin(Observation, Observation.parcel_id == Parcel.id)
        .where(condition_of(expression, connection))
    )
    return sorted(connection.scalars(statement))
