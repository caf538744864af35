"""Which parcels were written since an index was built.

Revision: 0004, after 0003.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("parcel_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    _go_on_after_the_log_that_was_dropped(op.get_bind())


def _go_on_after_the_log_that_was_dropped(connection: sa.Connection) -> None:
    """Number above what indexes hold, and name every parcel that there ever was.

    Nobody noted what was written while there was no log, and an index that holds everything up to
    change 500 would never look at a change 7.
    """
    manifests = [
        json.loads(one) if isinstance(one, str) else one
        for one in connection.execute(sa.text("SELECT manifest FROM generations")).scalars()
    ]
    last = max((one.get("last_change", 0) for one in manifests), default=0)
    if last == 0:
        # No log was ever dropped here.
        return
    # Numbers are given anew; an index holds at most so many parcels that are deleted by now.
    spare = max(one.get("rows", 0) for one in manifests)
    parcels = connection.execute(sa.text("SELECT coalesce(max(id), 0) FROM parcels")).scalar_one()
    if connection.dialect.name == "sqlite":
        continued = "INSERT INTO sqlite_sequence (name, seq) VALUES ('changes', :last)"
        numbers = (
            "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL "
            "SELECT number + 1 FROM numbers WHERE number < :count) SELECT number FROM numbers"
        )
    else:
        continued = "SELECT setval(pg_get_serial_sequence('changes', 'id'), :last)"
        numbers = "SELECT generate_series(1, :count)"
    connection.execute(sa.text(continued), {"last": last})
    named = sa.text(f"INSERT INTO changes (parcel_id) {numbers}")
    connection.execute(named, {"count": max(1, parcels + spare)})


def downgrade() -> None:
    op.drop_table("changes")
