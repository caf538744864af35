"""The stored cluster that an observation is in, in SQL and in answers.

An observation is in the cluster of its current embedding in the space that its collection was
grouped in; what has no such embedding is in none.
"""

from dataclasses import dataclass
from typing import Any, Self, TypeVarTuple

from sqlalchemy import Boolean, ColumnElement, Select, UnaryExpression, and_, select
from sqlalchemy.orm import InstrumentedAttribute, aliased
from sqlalchemy.sql.operators import custom_op

from indexer.catalog.tables import (
    Cluster,
    Clustering,
    ClusterMember,
    Embedding,
    Observation,
    Parcel,
)

Columns = TypeVarTuple("Columns")
Column = ColumnElement[Any] | InstrumentedAttribute[Any]

_CURRENT = aliased(Embedding)
"""An observation's embedding in the space that its collection was grouped in."""

# In the words of the index on the embeddings in force; SQLite takes that for no others. Without it,
# a row of another index and the embedding are read even where there are no clusters.
_IN_FORCE = UnaryExpression(
    _CURRENT.superseded.expression, operator=custom_op("NOT"), type_=Boolean()
)

_GROUPED = aliased(Embedding)
"""The embedding of a member of a cluster."""


@dataclass(frozen=True)
class Membership:
    """The stored cluster of an observation."""

    number: int
    """Among the clusters of the collection; 1 was the largest when they were made."""
    name: str | None
    """As an expert gave it; None until then."""
    score: float
    """Cosine similarity to the cluster's center, -1 to 1."""

    @classmethod
    def from_row(cls, row: Any) -> Self | None:  # noqa: ANN401 - a row of some columns
        """From a row of ``with_membership``; None where it is in no cluster."""
        if row.cluster_number is None:
            return None
        return cls(row.cluster_number, row.cluster_name, row.cluster_score)


def membership_fields(found: Membership | None) -> dict[str, Any]:
    """JSON form, whose members stand among those of the observation; null without a cluster."""
    if found is None:
        return {"cluster": None, "cluster:number": None, "cluster:score": None}
    return {
        "cluster": found.name,
        "cluster:number": found.number,
        "cluster:score": round(found.score, 4),
    }


def with_membership(statement: Select[*Columns]) -> Select[Any]:
    """A statement over parcels and observations, with the cluster of each observation.

    Adds no row and drops none: a collection has one clustering, of one space, and an observation
    one current embedding in it.
    """
    return (
        statement.outerjoin(Clustering, Clustering.collection_id == Parcel.collection_id)
        .outerjoin(
            _CURRENT,
            and_(
                _CURRENT.observation_id == Observation.id,
                _CURRENT.space_id == Clustering.space_id,
                _IN_FORCE,
            ),
        )
        .outerjoin(ClusterMember, ClusterMember.embedding_id == _CURRENT.id)
        .outerjoin(Cluster, Cluster.id == ClusterMember.cluster_id)
        .add_columns(
            Cluster.name.label("cluster_name"),
            Cluster.number.label("cluster_number"),
            ClusterMember.score.label("cluster_score"),
        )
    )


def of_observation(column: Column) -> ColumnElement[Any]:
    """What the tables of clusters say of the observation of a statement, else NULL.

    Args:
        column: Of ``Cluster`` or ``ClusterMember``.
    """
    found = (
        select(column)
        .select_from(_GROUPED)
        .join(ClusterMember, ClusterMember.embedding_id == _GROUPED.id)
        .join(Cluster, Cluster.id == ClusterMember.cluster_id)
        .where(_GROUPED.observation_id == Observation.id, _GROUPED.superseded.is_(False))
    )
    return found.limit(1).correlate(Observation).scalar_subquery()


def observations_where(condition: ColumnElement[bool]) -> Select[int]:
    """Rows of the observations whose cluster fulfills a condition, found from the clusters on.

    Args:
        condition: On ``Cluster``.
    """
    # As a list of clusters, lest SQLite begin with the embeddings where no index has the column.
    # The statement around it may tell of the clusters of its own observations.
    clusters = select(Cluster.id).where(condition).correlate(None)
    found = (
        select(_GROUPED.observation_id)
        .join(ClusterMember, ClusterMember.embedding_id == _GROUPED.id)
        .where(ClusterMember.cluster_id.in_(clusters), _GROUPED.superseded.is_(False))
    )
    return found.correlate(None)
