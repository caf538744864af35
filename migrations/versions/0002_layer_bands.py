"""How an image's layers were named, so that it can be read again.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A column without a default that may be empty: neither SQLite nor PostgreSQL touches a row.
    op.add_column("observations", sa.Column("layer_bands", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("observations", "layer_bands")
