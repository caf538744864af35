"""``parcelle embed``: images to embeddings, without an index."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli import options
from api.cli.console import Bar, say, say_json, tell_notes, tell_skipped
from api.cli.items import items_wanted
from api.cli.reindex import EXIT_SKIPPED
from indexer.settings import Settings


def embed(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="FILE.npy (a FILE.json beside it names the rows) or FILE.parquet (GeoParquet).",
        ),
    ],
    imagery: options.Imagery = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            "--dimensions",
            help="512 projects to unit vectors. Default: the encoder's own (1024 for croma-large).",
        ),
    ] = None,
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
    as_json: options.AsJson = False,
) -> None:
    """Embed images, or parcels on images, into a file; rows image by image, tile by tile.

    For example:

      parcelle embed chips/ --bands l2a --out chips.npy --dimensions 512
    """
    from indexer.embed import EmbedOptions
    from indexer.embed import embed as run

    report = run(
        Settings(),
        imagery or [],
        out,
        EmbedOptions(
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
            dimensions=dimensions,
        ),
        Bar("tiles"),
    )
    if as_json:
        say_json(report.to_dict())
    else:
        rate = report.chips / report.seconds
        say(
            f"Read {report.read} images: {report.shape[0]} embeddings of {report.shape[1]} "
            f"dimensions from {report.chips} tiles, {rate:.2f} tiles/s, "
            f"{len(report.skipped)} skipped."
        )
        say(f"Wrote {' and '.join(report.files)}.")
        tell_skipped(report.skipped)
        tell_notes(report.notes)
    if report.skipped:
        raise typer.Exit(EXIT_SKIPPED)
