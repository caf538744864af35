"""What stands beside the vectors that a search found: parcel, observation, cluster."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select

from indexer.catalog.tables import Collection, Embedding, Observation, Parcel
from retriever.memberships import with_membership
from retriever.prepared import IDS, Prepared
from retriever.statements import joined, middle

# SQLite takes 32,766 values in one statement, PostgreSQL 65,535.
_MAX_IDS = 8192


class DescribedRow(NamedTuple):
    """An embedding with everything that a match says of it."""

    row: int
    """Embedding id."""
    superseded: bool
    """Whether other pixels of the same observation have been embedded since."""
    collection: str
    collection_id: int
    parcel_row: int
    parcel_id: str
    crop_code: str | None
    crop_name: str | None
    area_m2: float | None
    geometry: bytes | None
    """Well-known binary in longitude and latitude; None for no place."""
    longitude: float | None
    """Of the middle of the parcel's bounding box, in degrees, as is the latitude."""
    latitude: float | None
    acquired_at: datetime | None
    scene: str
    valid_fraction: float
    reliable: bool
    indices: dict[str, dict[str, float]]
    """Spectral index name to median, mean, std, p10, p90."""
    cluster_name: str | None
    cluster_number: int | None
    """None where the observation is in no cluster, as are its name and score."""
    cluster_score: float | None


DESCRIBED: Final = with_membership(
    joined(
        select(
            Embedding.id.label("row"),
            Embedding.superseded,
            Collection.name.label("collection"),
            Parcel.collection_id,
            Parcel.id.label("parcel_row"),
            Parcel.parcel_id,
            Parcel.crop_code,
            Parcel.crop_name,
            Parcel.area_m2,
            Parcel.geometry,
            *middle(),
            Observation.acquired_at,
            Observation.scene,
            Observation.valid_fraction,
            Observation.reliable,
            Observation.indices,
        )
    ).where(Embedding.id.in_(bindparam(IDS, expanding=True)))
)

_PREPARED: Final = Prepared(DESCRIBED, DescribedRow)


def describe_rows(connection: Connection, ids: Sequence[int]) -> dict[int, DescribedRow]:
    """Everything a match says, by embedding id.

    Ids that are gone are left out, and those of collections that are searched in another space
    by now.
    """
    described: dict[int, DescribedRow] = {}
    for start in range(0, len(ids), _MAX_IDS):
        rows = _PREPARED.rows(connection, ids[start : start + _MAX_IDS])
        described.update({row.row: row for row in rows})
    return described
