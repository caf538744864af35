"""The SQL tables: the truth that every vector index is derived from.

::

    collections ──< parcels ──< observations ──< embeddings >── embedding_spaces ──< generations
         ├───────────────── current space ──────────────────────────┘ └─ current generation ┘
         ├─── clusterings ──< clusters ──< cluster_members ─── embeddings
         └──< unassigned_cluster_names

    changes: the rows of parcels that were written, one after the other
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# SQLite numbers its rows only in a column of type INTEGER.
RowId = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC times, also on SQLite, which stores none of the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; times are aware UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables; constraint names are stable so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Collection(Base):
    """A named set of parcels, searched in the space of its last reindex."""

    __tablename__ = "collections"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    space_id: Mapped[int | None] = mapped_column(ForeignKey("embedding_spaces.id"))
    """The space that searches of this collection's parcels use."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now())


class Parcel(Base):
    """One agricultural parcel; (collection, parcel_id) is its key, as in fiboa."""

    __tablename__ = "parcels"
    __table_args__ = (
        UniqueConstraint("collection_id", "parcel_id"),
        # Texts of strangers may be of any length, of which PostgreSQL's usual index takes 2,704
        # bytes and fails; an index of hashes takes all.
        Index(None, "crop_code", postgresql_using="hash"),
        Index(None, "crop_name", postgresql_using="hash"),
        Index(None, "west", "east", "south", "north"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id"))
    parcel_id: Mapped[str] = mapped_column(String)
    geometry: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Well-known binary in longitude and latitude (EPSG:4326)."""
    west: Mapped[float | None] = mapped_column(Float)
    south: Mapped[float | None] = mapped_column(Float)
    east: Mapped[float | None] = mapped_column(Float)
    north: Mapped[float | None] = mapped_column(Float)
    area_m2: Mapped[float | None] = mapped_column(Float)
    crop_code: Mapped[str | None] = mapped_column(String)
    crop_name: Mapped[str | None] = mapped_column(String)
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)
    updated_at: Mapped[datetime] = mapped_column(
        UtcDateTime, server_default=func.now(), onupdate=func.now()
    )


class Observation(Base):
    """One parcel in one scene: when it was seen, how well, and its spectral state."""

    __tablename__ = "observations"
    __table_args__ = (UniqueConstraint("parcel_id", "scene"), Index(None, "acquired_at"))

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    parcel_id: Mapped[int] = mapped_column(ForeignKey("parcels.id", ondelete="CASCADE"))
    scene: Mapped[str] = mapped_column(String)
    source: Mapped[str] = mapped_column(String)
    """The image: absolute path of the file, or of the folder of band files."""
    layer_bands: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """Band of each layer of the file where it was told (``--bands``); None where the image names
    its bands itself, and in rows that are older than this column."""
    acquired_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    processing_baseline: Mapped[str | None] = mapped_column(String(10))
    pixels_inside: Mapped[float] = mapped_column(Float)
    valid_pixels: Mapped[float] = mapped_column(Float)
    valid_fraction: Mapped[float] = mapped_column(Float)
    covered_fraction: Mapped[float] = mapped_column(Float)
    cloud_cover_percent: Mapped[float | None] = mapped_column(Float)
    reliable: Mapped[bool]
    indices: Mapped[dict[str, dict[str, float]]] = mapped_column(JSON)
    """Spectral index name to median, mean, std, p10, p90."""
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the pixels and the part of them that is the parcel; equal means nothing to do."""


class EmbeddingSpace(Base):
    """Everything that gives a vector its meaning; two spaces never meet in one search."""

    __tablename__ = "embedding_spaces"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    recipe_digest: Mapped[str] = mapped_column(String(64), index=True)
    """SHA-256 of the recipe: all but the projection."""
    digest: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of recipe and projection; None until the projection is frozen. Not unique: what is
    embedded in full again may come to the same projection, and so to the same identity."""
    recipe: Mapped[dict[str, Any]] = mapped_column(JSON)
    projection_kind: Mapped[str | None] = mapped_column(String(20))
    projection: Mapped[bytes | None] = mapped_column(LargeBinary)
    weights_path: Mapped[str | None] = mapped_column(String)
    """Where the weight file was last found; a convenience, not part of the identity."""
    current_generation_id: Mapped[int | None] = mapped_column(RowId)
    """The generation that answers: the one pointer that a publication switches. No foreign key,
    because generations point here and SQLite cannot add the second half of a cycle."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now())


class Embedding(Base):
    """One observation in one space. Rows are never changed in place, only superseded.

    ``id`` is the id in the vector index. A published index is immutable, so an id must mean the
    same vector for ever: changed pixels give a new row.
    """

    __tablename__ = "embeddings"
    __table_args__ = (
        Index(
            "uq_embeddings_current",
            "space_id",
            "observation_id",
            unique=True,
            sqlite_where=text("NOT superseded"),
            postgresql_where=text("NOT superseded"),
        ),
        # Without it SQLite would give the id of a deleted last row to the next one.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    observation_id: Mapped[int] = mapped_column(
        ForeignKey("observations.id", ondelete="CASCADE"), index=True
    )
    space_id: Mapped[int] = mapped_column(ForeignKey("embedding_spaces.id"))
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 of pixels and pooling weights that were embedded."""
    vector: Mapped[bytes | None] = mapped_column(LargeBinary)
    """512 little-endian float32, unit length; None until the projection is frozen."""
    embedding: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The encoder's output, little-endian float32; kept only for the rows that the projection is
    fitted and measured on."""
    superseded: Mapped[bool] = mapped_column(Boolean, default=False)
    """True once a newer row stands for the same observation and space; such a row still answers
    in the generations that hold it and goes when the next one is published."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now())


class Change(Base):
    """One parcel that was written, changed or deleted, or whose observations or embeddings were.

    Numbers are given in the order of commits and never again; see ``catalog.changes``.
    """

    __tablename__ = "changes"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    parcel_id: Mapped[int] = mapped_column(BigInteger)
    """Row of the parcel. No foreign key: what was deleted stands here too."""


class Generation(Base):
    """One immutable published build of one space's vector index."""

    __tablename__ = "generations"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("embedding_spaces.id"), index=True)
    manifest: Mapped[dict[str, Any]] = mapped_column(JSON)
    """All that is needed to open it, or to refuse it; see ``generations.manifest``."""
    published_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now())


class Clustering(Base):
    """The groups that a collection's parcels are in: one for each collection, the latest.

    It is of the space that the collection was searched in when it was made. A collection that was
    embedded anew since keeps it, with the embeddings of that space, until it is grouped again.
    """

    __tablename__ = "clusterings"
    # A number that somebody remembers must not come to mean a later clustering.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), unique=True
    )
    space_id: Mapped[int] = mapped_column(ForeignKey("embedding_spaces.id"), index=True)
    generation_id: Mapped[int] = mapped_column(RowId)
    """The generation whose vectors were grouped. No foreign key: generations are pruned."""
    k: Mapped[int]
    """Groups that were asked for or chosen; as many hold parcels, or fewer."""
    chosen: Mapped[dict[str, Any]] = mapped_column(JSON)
    """How k came about; see ``indexer.clusters.choice.Choice.to_dict``."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now())


class Cluster(Base):
    """One group of parcels that look alike, with the name that an expert gave it."""

    __tablename__ = "clusters"
    __table_args__ = (UniqueConstraint("clustering_id", "number"), Index(None, "name"))

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    clustering_id: Mapped[int] = mapped_column(ForeignKey("clusterings.id", ondelete="CASCADE"))
    number: Mapped[int]
    """1 is the largest."""
    name: Mapped[str | None] = mapped_column(String(100))
    """None until an expert gives one; two clusters may bear the same."""
    centroid: Mapped[bytes] = mapped_column(LargeBinary)
    """512 little-endian float32, unit length."""
    parcels: Mapped[int]
    """Parcels whose standing observation was in it when it was made."""


class ClusterMember(Base):
    """The group of one embedding: the one whose centroid is the nearest.

    Every embedding of the collection in the clustering's space is in one group, also those of
    observations that do not stand for their parcel.
    """

    __tablename__ = "cluster_members"

    embedding_id: Mapped[int] = mapped_column(
        ForeignKey("embeddings.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    cluster_id: Mapped[int] = mapped_column(
        ForeignKey("clusters.id", ondelete="CASCADE"), index=True
    )
    score: Mapped[float] = mapped_column(Float)
    """Cosine similarity to the centroid."""


class UnassignedClusterName(Base):
    """A name that no group of a new clustering certainly bears; an expert decides."""

    __tablename__ = "unassigned_cluster_names"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collections.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(String(100))
    space_id: Mapped[int] = mapped_column(ForeignKey("embedding_spaces.id"))
    """The space of the group that bore it last."""
    centroid: Mapped[bytes] = mapped_column(LargeBinary)
    """Of that group: 512 little-endian float32, unit length."""
    parcels: Mapped[int]
    """Parcels of that group when it was made."""
    reason: Mapped[str] = mapped_column(String)
    """Why it was not carried over, in words."""
    candidates: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """Groups of the current clustering that it may belong to, the likeliest first; see
    ``indexer.clusters.matching.Candidate.to_dict``."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.now())
