"""``parcelle generations``: the published builds of the vector index."""

import typer

from api.cli import options
from api.cli.console import say, say_json, say_table
from indexer.settings import Settings

app = typer.Typer(help="The published builds of the vector index.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The published builds of the vector index."""


@app.command("list")
def list_all(as_json: options.AsJson = False) -> None:
    """List the generations, latest first; those marked answer searches now.

    For example:

      parcelle generations list --json
    """
    from indexer.catalog.database import opened_catalog
    from indexer.catalog.reading import list_generations

    with opened_catalog(Settings()) as engine, engine.connect() as connection:
        found = list_generations(connection)
    if as_json:
        # What the service tells of them, and the rest of the manifests.
        say_json({"generations": [one.manifest.to_dict() | one.to_dict() for one in found]})
        return
    if not found:
        say("No generation is published yet; run parcelle reindex.")
        return
    rows = []
    for one in found:
        manifest, kept = one.manifest, one.manifest.projection_recall_at_10
        rows.append(
            (
                "*" if one.current else "",
                str(manifest.generation),
                f"{one.published_at:%Y-%m-%d %H:%M}",
                str(manifest.rows),
                f"{manifest.nlist}/{manifest.nprobe}",
                f"{manifest.recall_at_10:.3f}",
                "-" if kept is None else f"{kept:.3f}",
                f"{manifest.space_digest[:12]} {manifest.space['encoder']} "
                f"({manifest.space['weights']}, {manifest.space['pooling']}, "
                f"{manifest.space['modality']}, {manifest.space['precision']})",
            )
        )
    say_table(
        ("", "generation", "published", "rows", "nlist/nprobe", "recall@10", "projection", "space"),
        rows,
        right={"generation", "rows", "nlist/nprobe", "recall@10", "projection"},
    )


@app.command()
def rebuild() -> None:
    """Build the indexes again from the database and publish them; nothing is embedded.

    For example:

      parcelle generations rebuild
    """
    from indexer.catalog.database import opened_catalog
    from indexer.generations.store import rebuild as run
    from indexer.lock import only_writer

    settings = Settings()
    with opened_catalog(settings) as engine, only_writer(settings.data_dir):
        published = run(engine, settings.generations_dir)
    for manifest in published:
        say(f"Generation {manifest.generation} answers with {manifest.rows} vectors.")
    if not published:
        say("There are no vectors to build an index of; run parcelle reindex.")
