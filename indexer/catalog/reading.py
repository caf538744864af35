"""Statements that read what the indexer needs of the catalog."""

from collections.abc import Container, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute

from indexer.catalog.tables import Collection, Embedding, EmbeddingSpace, Generation, Observation
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import Known, in_chunks
from indexer.errors import NotFoundError
from indexer.generations.manifest import Manifest, Published
from indexer.projection import Projection

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# What a search in a space may find.
_SEARCHED = (
    Embedding.space_id == bindparam("space"),
    Collection.space_id == bindparam("space"),
    Embedding.vector.is_not(None),
    Embedding.superseded.is_(False),
)


@dataclass(frozen=True)
class SpaceRecord:
    """One row of the table of embedding spaces."""

    id: int
    digest: str | None
    recipe: dict[str, Any]
    projection: Projection | None
    weights_path: str | None
    current_generation_id: int | None
    """None also where that generation was pruned, since nobody searches the space any more."""


@dataclass(frozen=True)
class GenerationRecord:
    """One row of the table of generations."""

    number: int
    space_id: int
    manifest: Manifest


@dataclass(frozen=True)
class Answering:
    """A space that collections are searched in, and the generation that answers for it."""

    space_id: int
    generation: int
    collections: frozenset[str]


def find_space(
    connection: Connection, recipe_digest: str, collection_id: int | None, *, new: bool
) -> SpaceRecord | None:
    """The space in which a run goes on.

    A space without a generation that holds some of the collection belongs to a run that has not
    ended, and is resumed. Then comes the collection's own space, then the latest of the recipe,
    which collections share.

    Args:
        connection: Open connection.
        recipe_digest: Digest of the run's recipe.
        collection_id: The collection that is reindexed; None if it is new.
        new: Consider only a space that has no generation yet.
    """
    own = select(Collection.space_id).where(Collection.id == collection_id).scalar_subquery()
    begun = exists().where(
        Embedding.space_id == EmbeddingSpace.id,
        Embedding.observation_id == Observation.id,
        Observation.parcel_id == ParcelRow.id,
        ParcelRow.collection_id == collection_id,
    )
    statement = (
        select(EmbeddingSpace.id)
        .where(EmbeddingSpace.recipe_digest == recipe_digest)
        .order_by(
            and_(EmbeddingSpace.current_generation_id.is_(None), begun).desc(),
            (EmbeddingSpace.id == func.coalesce(own, -1)).desc(),
            EmbeddingSpace.id.desc(),
        )
    )
    if new:
        statement = statement.where(EmbeddingSpace.current_generation_id.is_(None))
    found = connection.scalars(statement.limit(1)).first()
    return None if found is None else get_space(connection, found)


def get_space(connection: Connection, space_id: int) -> SpaceRecord:
    """One space with its projection."""
    row = connection.execute(
        select(EmbeddingSpace.__table__, Generation.id.label("published"))
        .outerjoin(Generation, Generation.id == EmbeddingSpace.current_generation_id)
        .where(EmbeddingSpace.id == space_id)
    ).one()
    projection = None
    if row.projection is not None:
        projection = Projection.from_bytes(
            row.projection_kind, row.projection, row.recipe["dimensions"]
        )
    return SpaceRecord(
        row.id,
        row.digest,
        row.recipe,
        projection,
        row.weights_path,
        row.published,
    )


def find_collection(connection: Connection, name: str) -> tuple[int, int | None] | None:
    """A collection's row and the row of its space, or None."""
    row = connection.execute(
        select(Collection.id, Collection.space_id).where(Collection.name == name)
    ).first()
    return None if row is None else (row.id, row.space_id)


def collection_space(connection: Connection, name: str) -> SpaceRecord | None:
    """The space that a collection is searched in; None if it has none yet."""
    found = find_collection(connection, name)
    return None if found is None or found[1] is None else get_space(connection, found[1])


def collection_names(connection: Connection) -> list[str]:
    """All collections, in alphabetical order."""
    return list(connection.scalars(select(Collection.name).order_by(Collection.name)))


def collection_spaces(connection: Connection) -> dict[str, int | None]:
    """All collections in alphabetical order, each with the row of its space."""
    statement = select(Collection.name, Collection.space_id).order_by(Collection.name)
    return {name: space_id for name, space_id in connection.execute(statement)}


def collections_of_space(
    connection: Connection, space_id: int, newcomer: int | None = None
) -> list[str]:
    """Names of the collections that are searched in a space, in alphabetical order.

    Args:
        connection: Open connection.
        space_id: Row of the space.
        newcomer: Row of a collection that is about to be searched in it; None for none.
    """
    searched = or_(Collection.space_id == space_id, Collection.id == newcomer)
    return list(
        connection.scalars(select(Collection.name).where(searched).order_by(Collection.name))
    )


def rows_to_export(
    connection: Connection, space_id: int, collection: str | None
) -> Generator[tuple[Any, ...], None, None]:
    """Vectors that are searched in a space, with what they belong to, in order of id.

    Whoever may stop in the middle closes it, before the connection.

    Yields:
        The vector as bytes, then the fields of ``vector_files.VectorRow``.
    """
    statement = (
        select(
            Embedding.vector,
            Collection.name,
            ParcelRow.parcel_id,
            Observation.scene,
            Observation.source,
            Observation.acquired_at,
            Observation.processing_baseline,
            ParcelRow.crop_code,
            ParcelRow.crop_name,
            ParcelRow.area_m2,
            ParcelRow.geometry,
        )
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(ParcelRow, ParcelRow.id == Observation.parcel_id)
        .join(Collection, Collection.id == ParcelRow.collection_id)
        .where(
            Embedding.space_id == space_id,
            Embedding.vector.is_not(None),
            Embedding.superseded.is_(False),
            Collection.space_id == space_id,
        )
        .order_by(Embedding.id)
    )
    if collection is not None:
        statement = statement.where(Collection.name == collection)
    with connection.execute(statement.execution_options(yield_per=10_000)) as rows:
        for row in rows:
            yield tuple(row)


def known_observations(
    connection: Connection,
    collection_id: int,
    space_id: int | None,
    scene: str,
    parcel_ids: Sequence[str],
) -> dict[str, Known]:
    """What is already stored of some parcels in one scene, by parcel id."""
    current = and_(
        Embedding.observation_id == Observation.id,
        Embedding.space_id == space_id,
        Embedding.superseded.is_(False),
    )
    statement = (
        select(
            ParcelRow.parcel_id,
            Observation.id,
            Observation.fingerprint,
            Observation.source,
            Observation.layer_bands,
            Embedding.fingerprint.label("embedded"),
            Embedding.id.label("embedding_id"),
        )
        .join(Observation, Observation.parcel_id == ParcelRow.id)
        .outerjoin(Embedding, current)
        .where(ParcelRow.collection_id == collection_id, Observation.scene == scene)
    )
    return {
        row.parcel_id: Known(
            observation_id=row.id,
            fingerprint=row.fingerprint,
            embedded=row.embedded,
            embedding_id=row.embedding_id,
            source=row.source,
            layer_bands=None if row.layer_bands is None else tuple(row.layer_bands),
        )
        for some in in_chunks(parcel_ids)
        for row in connection.execute(statement.where(ParcelRow.parcel_id.in_(some)))
    }


def parcels_gone(
    connection: Connection, collection_id: int, named: Container[str]
) -> dict[str, int]:
    """The parcels of a collection that a new list of its parcels does not name.

    Args:
        connection: Open connection.
        collection_id: Row of the collection.
        named: Ids of the parcels that there are.

    Returns:
        Row of each parcel that is gone, by parcel id, in order of rows.
    """
    statement = (
        select(ParcelRow.parcel_id, ParcelRow.id)
        .where(ParcelRow.collection_id == collection_id)
        .order_by(ParcelRow.id)
        .execution_options(yield_per=10_000)
    )
    with connection.execute(statement) as found:
        return {parcel_id: row for parcel_id, row in found if parcel_id not in named}


def embeddings_of_parcels(connection: Connection, space_id: int, rows: Sequence[int]) -> IntArray:
    """Ids of the current embeddings of some parcels in one space, in ascending order.

    Args:
        connection: Open connection.
        space_id: Row of the space.
        rows: Rows of the parcels.
    """
    statement = (
        select(Embedding.id)
        .join(Observation, Observation.id == Embedding.observation_id)
        .where(Embedding.space_id == space_id, Embedding.superseded.is_(False))
    )
    found = [
        embedding
        for some in in_chunks(rows)
        for embedding in connection.scalars(statement.where(Observation.parcel_id.in_(some)))
    ]
    return np.array(sorted(found), dtype=np.int64)


def count_collection(connection: Connection, collection_id: int) -> tuple[int, int]:
    """Parcels and observations of a collection."""
    parcels = select(func.count()).where(ParcelRow.collection_id == collection_id)
    observations = (
        select(func.count())
        .select_from(Observation)
        .join(ParcelRow)
        .where(ParcelRow.collection_id == collection_id)
    )
    return connection.scalars(parcels).one(), connection.scalars(observations).one()


def count_kept_embeddings(connection: Connection, space_id: int) -> int:
    """Rows of a space whose embedding is kept at full length."""
    return connection.scalars(
        select(func.count()).where(Embedding.space_id == space_id, Embedding.embedding.is_not(None))
    ).one()


def has_embeddings(connection: Connection, space_id: int) -> bool:
    """Whether any observation stands in a space, with a vector or waiting for the projection."""
    found = connection.scalar(
        select(Embedding.id)
        .where(Embedding.space_id == space_id, Embedding.superseded.is_(False))
        .limit(1)
    )
    return found is not None


def kept_embeddings(connection: Connection, space_id: int) -> tuple[IntArray, FloatArray]:
    """The rows that a projection is fitted and measured on.

    Returns:
        Ids, shape ``(n,)``, and embeddings, shape ``(n, d)``, in order of id.
    """
    return _arrays(
        connection,
        select(Embedding.id, Embedding.embedding)
        .where(Embedding.space_id == space_id, Embedding.embedding.is_not(None))
        .order_by(Embedding.id),
    )


def rows_without_vector(connection: Connection, space_id: int) -> tuple[IntArray, FloatArray]:
    """Ids and embeddings of the rows that wait for their space's projection."""
    return _arrays(
        connection,
        select(Embedding.id, Embedding.embedding)
        .where(Embedding.space_id == space_id, Embedding.vector.is_(None))
        .order_by(Embedding.id),
    )


def vector_blocks(
    connection: Connection, space_id: int
) -> Generator[tuple[IntArray, FloatArray], None, None]:
    """Everything that the next generation of a space must hold, some thousands at a time.

    Whoever may stop in the middle closes it, before the connection.

    Yields:
        Ids, shape ``(n,)``, and unit vectors, shape ``(n, 512)``, in order of id.
    """
    statement = (
        select(Embedding.id, Embedding.vector)
        .where(
            Embedding.space_id == space_id,
            Embedding.vector.is_not(None),
            Embedding.superseded.is_(False),
        )
        .order_by(Embedding.id)
        .execution_options(yield_per=10_000)
    )
    with connection.execute(statement) as found:
        for rows in found.partitions():
            ids, vectors = zip(*rows, strict=True)
            content = np.frombuffer(b"".join(vectors), dtype="<f4").astype(np.float32)
            yield np.array(ids, dtype=np.int64), content.reshape(len(ids), -1)


def rows_of_parcels(*columns: ColumnElement[Any] | InstrumentedAttribute[Any]) -> Select[Any]:
    """What is to be found of some parcels in one space: not superseded, and searched there.

    Args:
        columns: What is asked of the embeddings.

    Returns:
        A statement that takes ``parcels``, their rows, and ``space``.
    """
    return (
        select(*columns)
        .select_from(Observation)
        .join(ParcelRow, ParcelRow.id == Observation.parcel_id)
        .join(Collection, Collection.id == ParcelRow.collection_id)
        .join(Embedding, Embedding.observation_id == Observation.id)
        .where(Observation.parcel_id.in_(bindparam("parcels", expanding=True)), *_SEARCHED)
    )


def searched_ids(connection: Connection, space_id: int) -> IntArray:
    """Embeddings that searches in a space should find, ascending, shape ``(n,)``."""
    statement = (
        select(Embedding.id)
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(ParcelRow, ParcelRow.id == Observation.parcel_id)
        .join(Collection, Collection.id == ParcelRow.collection_id)
        .where(*_SEARCHED)
        .execution_options(yield_per=10_000)
    )
    with connection.scalars(statement, {"space": space_id}) as found:
        return np.sort(np.fromiter(found, np.int64))


def current_extent(connection: Connection, space_id: int) -> tuple[int, int]:
    """Number of current vectors of a space and their largest id: both change with any change."""
    row = connection.execute(
        select(func.count(), func.coalesce(func.max(Embedding.id), 0)).where(
            Embedding.space_id == space_id,
            Embedding.vector.is_not(None),
            Embedding.superseded.is_(False),
        )
    ).one()
    return row[0], row[1]


def get_generation(connection: Connection, generation_id: int) -> dict[str, Any]:
    """A generation's manifest.

    Raises:
        NotFoundError: If there is none of that number (``generation-not-found``).
    """
    manifest = connection.scalar(select(Generation.manifest).where(Generation.id == generation_id))
    if manifest is None:
        raise NotFoundError(
            f"Generation {generation_id} does not exist; parcelle generations list shows those "
            "that do.",
            kind="generation-not-found",
        )
    return dict(manifest)


def generation_records(connection: Connection) -> list[GenerationRecord]:
    """All generations, latest first."""
    statement = select(Generation.id, Generation.space_id, Generation.manifest)
    return [
        GenerationRecord(number, space_id, Manifest.from_dict(manifest))
        for number, space_id, manifest in connection.execute(
            statement.order_by(Generation.id.desc())
        )
    ]


def answering(connection: Connection) -> list[Answering]:
    """What collections are searched in now, in order of spaces."""
    statement = (
        select(EmbeddingSpace.id, EmbeddingSpace.current_generation_id, Collection.name)
        .join(Collection, Collection.space_id == EmbeddingSpace.id)
        .order_by(EmbeddingSpace.id)
    )
    found: dict[tuple[int, int], set[str]] = {}
    for space_id, generation, name in connection.execute(statement):
        if generation is not None:
            found.setdefault((space_id, generation), set()).add(name)
    return [Answering(*key, frozenset(names)) for key, names in found.items()]


def list_generations(connection: Connection, *, in_use: bool = False) -> list[Published]:
    """Generations, latest first, each with whether it is one that answers.

    Args:
        connection: Open connection.
        in_use: Only those of spaces that some collection is searched in.
    """
    searched = exists().where(Collection.space_id == EmbeddingSpace.id)
    statement = (
        select(
            Generation.manifest,
            Generation.published_at,
            and_(searched, Generation.id == EmbeddingSpace.current_generation_id).label("current"),
        )
        .join(EmbeddingSpace, EmbeddingSpace.id == Generation.space_id)
        .order_by(Generation.id.desc())
    )
    if in_use:
        statement = statement.where(searched)
    return [
        Published(Manifest.from_dict(row.manifest), row.published_at, bool(row.current))
        for row in connection.execute(statement)
    ]


def searched_spaces(connection: Connection) -> list[int]:
    """Rows of the spaces that some collection is searched in."""
    statement = select(Collection.space_id).where(Collection.space_id.is_not(None)).distinct()
    return sorted(space for space in connection.scalars(statement) if space is not None)


def next_generation_id(connection: Connection) -> int:
    """The number after the last generation's; asked for under the lock of a reindex."""
    return connection.scalars(select(func.coalesce(func.max(Generation.id), 0))).one() + 1


def _arrays(
    connection: Connection, statement: Select[int, bytes | None]
) -> tuple[IntArray, FloatArray]:
    ids: list[int] = []
    vectors: list[FloatArray] = []
    with connection.execute(statement.execution_options(yield_per=10_000)) as rows:
        for row_id, content in rows:
            if content is None:
                raise TypeError("the statement asks for rows that hold a vector")
            ids.append(row_id)
            vectors.append(np.frombuffer(content, dtype="<f4").astype(np.float32))
    stacked = np.stack(vectors) if vectors else np.empty((0, 0), np.float32)
    return np.array(ids, dtype=np.int64), stacked
