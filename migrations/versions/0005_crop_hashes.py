"""Crops of any length on PostgreSQL, whose usual index fails at 2,704 bytes.

Revision: 0005, after 0004. Nothing changes on SQLite.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COLUMNS = ("crop_code", "crop_name")


def upgrade() -> None:
    _index_by("hash")


def downgrade() -> None:
    _index_by("btree")


def _index_by(method: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    for column in COLUMNS:
        name = op.f(f"ix_parcels_{column}")
        op.drop_index(name, table_name="parcels")
        op.create_index(name, "parcels", [column], postgresql_using=method)
