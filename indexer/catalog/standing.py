"""Which observation stands for a parcel, and which vector for the observation."""

from typing import Any

from sqlalchemy import ColumnElement, Subquery, func, select

from indexer.catalog.tables import Embedding, Observation, Parcel


def standing_first(
    observation: type[Observation] = Observation,
) -> tuple[ColumnElement[Any], ...]:
    """An order of a parcel's observations: the one that stands for it comes first.

    That is the latest reliable one, else the latest; those without a time come last.
    """
    return (
        observation.reliable.desc(),
        observation.acquired_at.is_(None),
        observation.acquired_at.desc(),
        observation.id.desc(),
    )


def standing_embeddings(collection_id: int, space_id: int, last_id: int) -> Subquery:
    """The vectors that stand for the parcels of a collection, at most one each.

    Args:
        collection_id: Row of the collection.
        space_id: Where the vectors must be from.
        last_id: The last embedding of the generation that answers; later ones wait for theirs.

    Returns:
        Columns ``embedding_id`` and ``parcel_row``.
    """
    place = func.row_number().over(
        partition_by=Observation.parcel_id, order_by=(*standing_first(), Embedding.id.desc())
    )
    ranked = (
        select(
            Embedding.id.label("embedding_id"),
            Observation.parcel_id.label("parcel_row"),
            place.label("place"),
        )
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(Parcel, Parcel.id == Observation.parcel_id)
        .where(
            Embedding.space_id == space_id,
            # Not only those in force: what was superseded since the publication still answers.
            Embedding.id <= last_id,
            Embedding.vector.is_not(None),
            Parcel.collection_id == collection_id,
        )
        .subquery()
    )
    return select(ranked.c.embedding_id, ranked.c.parcel_row).where(ranked.c.place == 1).subquery()
