"""The command line: ``parcelle``. One command per file; heavy imports wait for the command."""

import logging
import sys
from collections.abc import Sequence

import typer
from pydantic import ValidationError

from api.cli import (
    backup,
    check,
    cluster,
    db,
    demo,
    embed,
    export,
    generations,
    keys,
    map,
    mcp,
    pretrain,
    reindex,
    serve,
    similar,
    state,
)
from api.cli.console import tell
from indexer.errors import InvalidInputError, ParcelleError

EXIT_FAILED = 1
EXIT_USAGE = 2

app = typer.Typer(
    name="parcelle",
    help="Search agricultural parcels seen from space: index images, find similar parcels, read "
    "a parcel's state.",
    epilog="Start with: parcelle demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("demo")(demo.demo)
app.command("reindex")(reindex.reindex)
app.command("similar")(similar.similar)
app.command("state")(state.state)
app.command("serve")(serve.serve)
app.command("mcp")(mcp.mcp)
app.command("embed")(embed.embed)
app.command("export")(export.export)
app.command("pretrain")(pretrain.pretrain)
app.command("map")(map.map_)
app.add_typer(cluster.app, name="cluster")
app.add_typer(generations.app, name="generations")
app.add_typer(db.app, name="db")
app.add_typer(keys.app, name="keys")
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("check")(check.check)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; what goes wrong on purpose becomes a message and an exit code."""
    try:
        app(args=None if arguments is None else list(arguments))
    except ParcelleError as error:
        tell(f"Error [{error.kind}]: {error.message}")
        sys.exit(EXIT_USAGE if isinstance(error, InvalidInputError) else EXIT_FAILED)
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"]).upper()
            found = problem["msg"].removeprefix("Value error, ").removeprefix(f"PARCELLE_{name}: ")
            tell(f"Error [invalid-setting]: PARCELLE_{name}: {found}")
        sys.exit(EXIT_USAGE)
    except OSError as error:
        logging.getLogger(__name__).debug("operating system error", exc_info=True)
        tell(f"Error [os-error]: {error}")
        sys.exit(EXIT_FAILED)
    except Exception as error:
        # Imported only now: most commands that fail need no database.
        from sqlalchemy.exc import OperationalError

        from indexer.catalog.database import unreachable

        if not isinstance(error, OperationalError):
            raise
        tell(f"Error [database-unreachable]: {unreachable(error).message}")
        sys.exit(EXIT_FAILED)
