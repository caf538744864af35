"""``parcelle export``: the index's vectors as a file."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli import options
from api.cli.console import say, say_json, tell_notes
from indexer.settings import Settings


def export(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="FILE.npy (a FILE.json beside it names the rows) or FILE.parquet (GeoParquet).",
        ),
    ],
    collection: Annotated[
        str | None, typer.Option("--collection", help="Default: all collections.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the index's 512-d unit vectors, one row an observation.

    For example:

      parcelle export vectors.parquet --collection farm-2024
    """
    from indexer.catalog.database import opened_catalog
    from indexer.export import export as run

    with opened_catalog(Settings()) as engine:
        report = run(engine, out, collection)
    if as_json:
        say_json(report.to_dict())
        return
    files = " and ".join(report.files)
    say(f"Wrote {report.rows} vectors of space {report.space['id']} to {files}.")
    tell_notes(report.notes)
