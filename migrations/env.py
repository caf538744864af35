"""Alembic's entry: runs the migrations on the connection that Parcelle hands over."""

from alembic import context

from indexer.catalog.tables import Base

# Parcelle hands its own connection over (``parcelle db upgrade``), so that one place alone knows
# how a database is opened.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)

with context.begin_transaction():
    context.run_migrations()
