"""``parcelle demo``: from nothing to similar parcels, on a landscape drawn for it."""

import os
import shutil
import sys
from typing import Annotated

import typer

from api.cli import serve
from api.cli.console import Bar, say, tell
from api.cli.reindex import summary
from api.cli.similar import show as show_matches
from api.cli.state import show as show_state
from indexer.settings import Settings

COLLECTION = "demo"
PARCEL = "demo-012"
ENCODER = "croma-base"


def demo(
    serve_it: Annotated[
        bool, typer.Option("--serve", help="Serve the demo over HTTP afterwards.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port for --serve.")] = 8000,
) -> None:
    """Draw a small farm landscape, index it, show similar parcels and a parcel's state.

    It lies in its own folder, DATA_DIR/demo, and touches nothing else.
    The second time nothing is embedded again.

    For example:

      parcelle demo --serve
    """
    from api.cli.options import Format
    from indexer.reindex import ReindexOptions, reindex
    from retriever.search import ParcelSearcher

    settings = demo_settings(Settings())
    imagery = settings.data_dir / "imagery"
    parcels = imagery / "parcels.geojson"
    if not parcels.is_file():
        from indexer.landscape import draw_landscape

        say(f"Drawing a farm landscape of 3 km x 3 km, seen on five dates, in {imagery}.")
        draw_landscape(imagery)
    weights = demo_weights(settings)
    report = reindex(
        settings,
        [imagery],
        ReindexOptions(parcels=parcels, collection=COLLECTION, encoder=ENCODER, weights=weights),
        Bar("tiles"),
    )
    say(summary(report))
    with ParcelSearcher.open(settings) as searcher:
        say()
        show_matches(searcher.similar_by_id(PARCEL, collection=COLLECTION, k=8), Format.table)
        say()
        show_state(searcher.state(PARCEL, collection=COLLECTION))
    say()
    say("Go on with:")
    say(f"  export PARCELLE_DATA_DIR={settings.data_dir}")
    command = this_command()
    say(f"  {command} similar {PARCEL} --crop maize --format geojson")
    say(f"  {command} state {PARCEL} --format json")
    say(f"  {command} serve    # or at once: {command} demo --serve")
    if serve_it:
        say(f"Open http://127.0.0.1:{port}/ in a browser.")
        serve.run(settings, "127.0.0.1", port)


def this_command() -> str:
    """What to type to run Parcelle again: its name where the shell finds it, else its path."""
    return "parcelle" if shutil.which("parcelle") else os.path.relpath(sys.argv[0])


def demo_settings(settings: Settings) -> Settings:
    """The user's settings, moved to the demo's own folder and database."""
    folder = settings.data_dir / "demo"
    return Settings(
        data_dir=folder,
        database_url=f"sqlite:///{folder / 'parcelle.db'}",
        croma_weights=settings.croma_weights,
        log_level=settings.log_level,
    )


def demo_weights(settings: Settings) -> str:
    """The weights to use: pretrained if they can be had, else untrained, said aloud."""
    from indexer.encoders.weights import locate_weights
    from indexer.errors import WeightsError

    if settings.croma_weights != "pretrained":
        return settings.croma_weights
    try:
        locate_weights("pretrained", ENCODER)
    except WeightsError as error:
        tell(f"Note: {error.message}")
        tell("Note: The demo goes on with untrained weights.")
        return "untrained"
    return "pretrained"
