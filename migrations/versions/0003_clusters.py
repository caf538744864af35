"""Groups of parcels that look alike, and the names that experts gave them.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "clusterings",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("collection_id", ROW_ID, nullable=False),
        sa.Column("space_id", ROW_ID, nullable=False),
        sa.Column("generation_id", ROW_ID, nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("chosen", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_clusterings_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["space_id"],
            ["embedding_spaces.id"],
            name=op.f("fk_clusterings_space_id_embedding_spaces"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clusterings")),
        sa.UniqueConstraint("collection_id", name=op.f("uq_clusterings_collection_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_clusterings_space_id"), "clusterings", ["space_id"], unique=False)
    op.create_table(
        "clusters",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("clustering_id", ROW_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=True),
        sa.Column("centroid", sa.LargeBinary(), nullable=False),
        sa.Column("parcels", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["clustering_id"],
            ["clusterings.id"],
            name=op.f("fk_clusters_clustering_id_clusterings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clusters")),
        sa.UniqueConstraint(
            "clustering_id", "number", name=op.f("uq_clusters_clustering_id_number")
        ),
    )
    op.create_index(op.f("ix_clusters_name"), "clusters", ["name"], unique=False)
    op.create_table(
        "cluster_members",
        sa.Column("embedding_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("cluster_id", ROW_ID, nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["embedding_id"],
            ["embeddings.id"],
            name=op.f("fk_cluster_members_embedding_id_embeddings"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["cluster_id"],
            ["clusters.id"],
            name=op.f("fk_cluster_members_cluster_id_clusters"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("embedding_id", name=op.f("pk_cluster_members")),
    )
    op.create_index(
        op.f("ix_cluster_members_cluster_id"), "cluster_members", ["cluster_id"], unique=False
    )
    op.create_table(
        "unassigned_cluster_names",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("collection_id", ROW_ID, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("space_id", ROW_ID, nullable=False),
        sa.Column("centroid", sa.LargeBinary(), nullable=False),
        sa.Column("parcels", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collections.id"],
            name=op.f("fk_unassigned_cluster_names_collection_id_collections"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["space_id"],
            ["embedding_spaces.id"],
            name=op.f("fk_unassigned_cluster_names_space_id_embedding_spaces"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unassigned_cluster_names")),
    )
    op.create_index(
        op.f("ix_unassigned_cluster_names_collection_id"),
        "unassigned_cluster_names",
        ["collection_id"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_table("unassigned_cluster_names")
    op.drop_table("cluster_members")
    op.drop_table("clusters")
    op.drop_table("clusterings")
