"""``parcelle db``: the database's schema."""

import typer

from api.cli.console import say
from indexer.settings import Settings

app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The database's schema."""


@app.command()
def upgrade() -> None:
    """Bring the database's schema to this version; an empty database gets all tables.

    For example:

      PARCELLE_DATABASE_URL=postgresql+psycopg://user@host/name parcelle db upgrade
    """
    from indexer.catalog import database

    engine = database.connect(Settings())
    try:
        before = database.schema_status(engine)
        if before == "newer":
            database.require_current_schema(engine)
        database.upgrade(engine)
    finally:
        engine.dispose()
    shown = engine.url.render_as_string(hide_password=True)
    what = "was current already" if before == "current" else f"was {before}, now it is current"
    say(f"{shown}: the schema {what}.")
