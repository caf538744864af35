"""SQL that finds the observation a picture shows."""

from sqlalchemy import Connection, select

from indexer.catalog.standing import standing_first
from indexer.catalog.tables import Observation
from retriever.conditions import within_interval
from retriever.queries import Interval
from retriever.statements import AnyRow


def shown_observation(
    connection: Connection, parcel_row: int, interval: Interval | None
) -> AnyRow | None:
    """The observation that stands for a parcel: the latest reliable one, else the latest.

    Args:
        connection: Open connection.
        parcel_row: The parcel.
        interval: When it must have been acquired; None for any time.
    """
    statement = (
        select(
            Observation.id,
            Observation.scene,
            Observation.source,
            Observation.layer_bands,
            Observation.acquired_at,
            Observation.processing_baseline,
            Observation.reliable,
            Observation.fingerprint,
        )
        .where(Observation.parcel_id == parcel_row)
        .order_by(*standing_first())
        .limit(1)
    )
    if interval is not None:
        statement = statement.where(*within_interval(interval))
    return connection.execute(statement).first()
