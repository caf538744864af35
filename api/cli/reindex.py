"""``parcelle reindex``: the batch command."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options
from api.cli.console import Bar, say, say_json, tell_notes, tell_skipped
from api.cli.items import items_wanted
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.reindex import ReindexReport

EXIT_SKIPPED = 3


def reindex(
    imagery: options.Imagery = None,
    parcels: options.ParcelsFile = None,
    windows: options.Windows = None,
    collection: options.IntoCollection = "parcels",
    stac: options.Stac = None,
    bbox: options.StacBbox = None,
    datetime: options.StacDatetime = None,
    max_cloud: options.MaxCloud = None,
    encoder: options.Encoder = "croma-large",
    weights: options.WeightsChoice = None,
    bands: options.Bands = None,
    baseline: options.Baseline = None,
    normalization: options.NormalizationChoice = None,
    pooling: options.PoolingChoice = None,
    precision: options.PrecisionChoice = None,
    modality: options.ModalityChoice = options.Modality.optical,
    gsd: options.Gsd = None,
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
        typer.Option(
            "--dry-run",
            help="Read everything, say what would be done and how long it would take, write "
            "nothing.",
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Retire parcels that --parcels, or the images, do not name any more."
        ),
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Embed on a Ray cluster: its address (HOST:PORT), auto for the one of this "
            "machine, or local for a new one on this machine alone.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Embed what is new or changed, and publish a generation that answers searches.

    For example:

      parcelle reindex scenes/ --parcels parcels.gpkg --collection farm-2024

      parcelle reindex EuroSAT/ --bands eurosat --weights untrained

      parcelle reindex --stac archive/catalog.json --datetime 2023-06
        --max-cloud 20 --parcels parcels.gpkg

      parcelle reindex flight.hdr --windows 64 --encoder simple-vit:flight.pt

    Unchanged parcels are not embedded again; an interrupted run is finished
    by the next. Exit code 3 means that some inputs were skipped; each is named
    with its reason.
    """
    from indexer.reindex import ReindexOptions
    from indexer.reindex import reindex as run

    report = run(
        Settings(),
        imagery or [],
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
            precision=None if precision is None else precision.value,
            modality=modality.value,
            gsd_m=gsd,
            stac=stac,
            **items_wanted(bbox, datetime, max_cloud),
            batch_size=batch_size,
            device=device.value,
            full=full,
            dry_run=dry_run,
            prune=prune,
            ray=ray,
        ),
        Bar("tiles"),
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
    timed = report.chips and not report.dry_run
    rate = f", {report.chips / report.seconds:.2f} tiles/s" if timed else ""
    would = "would embed" if report.dry_run else "embedded"
    lines = [
        f"Read {report.read} images: {would} {report.embedded} observations "
        f"({report.chips} tiles{rate}), {report.unchanged} unchanged, {report.clouded} too cloudy "
        f"for a vector, {len(report.skipped)} skipped.",
    ]
    if report.retired:
        verb = "would be retired" if report.dry_run else "are retired"
        lines.append(f"{report.retired} parcels {verb}: the source does not name them any more.")
    if report.dry_run:
        return "\n".join([*lines, _estimate(report), "Dry run: nothing was written."])
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
        f"{space['pooling']} pooling, {space['modality']}, {space['precision']})."
    )
    if report.precision_agreement is not None:
        lines.append(_agreement(report.precision_agreement, space["precision"]))
    return "\n".join(lines)


def _estimate(report: "ReindexReport") -> str:
    seconds = max(1, round(report.estimated_seconds or 0))
    if not report.chips:
        return "That takes no forward pass."
    hours, minutes = seconds // 3600, seconds // 60 % 60
    long = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s"
    return (
        f"That takes {report.chips} forward passes and about {long} on this machine, "
        "estimated from a few of them."
    )


def _agreement(agreement: dict[str, Any], precision: str) -> str:
    neighbors = agreement["neighbors_kept"]
    kept = "" if neighbors is None else f", and keeps {neighbors:.1%} of the nearest neighbors"
    return (
        f"{precision} agrees with fp32 to a cosine of {agreement['cosine_mean']:.5f} in the mean "
        f"(least {agreement['cosine_min']:.5f}){kept}, on {agreement['embeddings']} embeddings."
    )
