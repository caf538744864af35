"""``parcelle state``: what state is this parcel in?"""

from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import options
from api.cli.console import say, say_json, say_table, tell_notes
from api.cli.similar import filter_from
from indexer.settings import Settings

if TYPE_CHECKING:
    from retriever.state import ParcelState

# The indices that fit a terminal; --format json gives all, with their spread.
_SHOWN = ("NDVI", "NDMI", "NDWI", "EVI", "NDREI")


def state(
    parcel_id: Annotated[str, typer.Argument(help="Id of a stored parcel.")],
    collection: options.InCollection = None,
    datetime: options.DatetimeText = None,
    output: Annotated[
        options.StateFormat, typer.Option("--format", help="How the state is written.")
    ] = options.StateFormat.text,
) -> None:
    """Show how a parcel is doing: each observation, the trend, and how it stands among its kind.

    Unreliable observations, which clouds hide or where too few pixels lie
    inside, are listed and count for nothing else. Look-alikes and neighbors are
    parcels of the same crop, observed within 15 days and 50 km.

    For example:

      parcelle state demo-012 --datetime 2023-05/2023-07
    """
    from retriever.search import ParcelSearcher

    where = filter_from(None, None, datetime)
    with ParcelSearcher.open(Settings()) as searcher:
        found = searcher.state(parcel_id, collection=collection, where=where)
    if output is options.StateFormat.json:
        say_json(found.to_dict())
    else:
        show(found)


def show(found: "ParcelState") -> None:
    """Write a state as text."""
    from retriever.tools.state import summary_lines

    parcel = found.parcel
    crop = parcel.crop_name or parcel.crop_code or "crop unknown"
    area = "area unknown" if parcel.area_m2 is None else f"{parcel.area_m2 / 10_000:.2f} ha"
    say(f"Parcel {parcel.parcel_id} of {parcel.collection}: {crop}, {area}.")
    say("Medians over the valid pixels, weighted by how much of each lies inside; unitless.")
    say_table(
        ("seen", "valid", "cloud", "reliable", *_SHOWN, "scene"),
        [
            (
                "-" if seen.acquired_at is None else f"{seen.acquired_at:%Y-%m-%d}",
                f"{seen.valid_pixels:.1f} px ({seen.valid_fraction:.0%})",
                "-" if seen.cloud_cover_percent is None else f"{seen.cloud_cover_percent:.0f} %",
                "yes" if seen.reliable else "no",
                *(
                    f"{seen.indices[name]['median']:.3f}" if name in seen.indices else "-"
                    for name in _SHOWN
                ),
                seen.scene,
            )
            for seen in found.observations
        ],
        right={"valid", "cloud", *_SHOWN},
    )
    for line in summary_lines(found, detailed=True):
        say(line)
    tell_notes(found.notes)
