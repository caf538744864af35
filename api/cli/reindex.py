"""``parcelle reindex``: the batch command."""

from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import options
from api.cli.console import Bar, say, say_json, tell_notes, tell_skipped
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.reindex import ReindexReport

EXIT_SKIPPED = 3


def reindex(
    imagery: options.Imagery,
    parcels: options.ParcelsFile = None,
    windows: options.Windows = None,
    collection: options.IntoCollection = "parcels",
    encoder: options.Encoder = "croma-large",
    weights: options.WeightsChoice = None,
    bands: options.Bands = None,
    baseline: options.Baseline = None,
    normalization: options.NormalizationChoice = None,
    pooling: options.PoolingChoice = None,
    batch_size: options.BatchSize = 16,
    device: options.DeviceChoice = options.Device.auto,
    id_column: options.IdColumn = None,
    crop_column: options.CropColumn = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Embed everything again and fit the projection anew."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Read everything, say what would be done, write nothing."),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Embed what is new or changed, and publish a generation that answers searches.

    For example:

      parcelle reindex scenes/ --parcels parcels.gpkg --collection farm-2024

      parcelle reindex EuroSAT/ --bands eurosat --weights untrained

      parcelle reindex flight.hdr --windows 64 --encoder simple-vit:flight.pt

    Unchanged parcels are not embedded again; an interrupted run is finished
    by the next. Exit code 3 means that some inputs were skipped; each is named
    with its reason.
    """
    from indexer.reindex import ReindexOptions
    from indexer.reindex import reindex as run

    report = run(
        Settings(),
        imagery,
        ReindexOptions(
            parcels=parcels,
            windows=windows,
            id_column=id_column,
            crop_column=crop_column,
            collection=collection,
            encoder=encoder,
            weights=weights,
            bands=bands,
            baseline=baseline,
            normalization=None if normalization is None else normalization.value,
            pooling=None if pooling is None else pooling.value,
            batch_size=batch_size,
            device=device.value,
            full=full,
            dry_run=dry_run,
        ),
        Bar(),
    )
    if as_json:
        say_json(report.to_dict())
    else:
        say(summary(report))
        tell_skipped(report.skipped)
        tell_notes(report.notes)
    if report.skipped:
        raise typer.Exit(EXIT_SKIPPED if report.read else 1)


def summary(report: "ReindexReport") -> str:
    """A reindex in a few lines."""
    rate = f", {report.chips / report.seconds:.2f} chips/s" if report.chips else ""
    would = "would embed" if report.dry_run else "embedded"
    lines = [
        f"Read {report.read} images: {would} {report.embedded} observations "
        f"({report.chips} chips{rate}), {report.unchanged} unchanged, {report.clouded} too cloudy "
        f"for a vector, {len(report.skipped)} skipped.",
    ]
    if report.dry_run:
        return "\n".join([*lines, "Dry run: nothing was written."])
    lines.append(
        f"Collection {report.collection} holds {report.parcels} parcels and "
        f"{report.observations} observations."
    )
    if report.generation is None or report.space is None:
        return "\n".join([*lines, "No generation is published: there is no vector yet."])
    kept = report.projection_recall_at_10
    cost = (
        "" if kept is None else f", projection ({report.projection}) keeps {kept:.1%} of neighbors"
    )
    space = report.space
    lines.append(
        f"Generation {report.generation} answers: recall@10 {report.recall_at_10:.3f}{cost}; "
        f"space {space['id']} ({space['encoder']}, {space['weights']} weights, "
        f"{space['pooling']} pooling)."
    )
    return "\n".join(lines)
