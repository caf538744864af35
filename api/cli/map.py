"""``parcelle map``: the classes of one image, as a map."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import options
from api.cli.console import Bar, say, say_json, say_table, tell_notes
from indexer.errors import InvalidInputError
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.mapping.map_image import MapReport


class Method(StrEnum):
    """How pixels become classes."""

    kmeans = "kmeans"
    spectral = "spectral"
    gmm = "gmm"
    mnf_kmeans = "mnf-kmeans"


def map_(
    image: Annotated[
        Path,
        typer.Argument(
            help="ENVI (.hdr or the data file), GeoTIFF, NumPy (.npy, .npz) or a band folder.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="MAP.tif; MAP.json beside it is the legend.", metavar="MAP.tif"),
    ],
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            metavar="simple-vit:FILE",
            help="As parcelle pretrain makes it; only mnf-kmeans needs none.",
        ),
    ] = None,
    k: Annotated[
        str | None,
        typer.Option(
            "--k",
            metavar="auto|N",
            help="Number of classes, 2 to 50; auto, the default, chooses 2 to 15 from the bands "
            "alone.",
        ),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            "--method",
            help="kmeans, spectral and gmm cluster the encoder's features; mnf-kmeans clusters "
            "the pixels' ten components of least noise (MNF), without an encoder. Default: "
            "kmeans, or mnf-kmeans without --encoder.",
        ),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection",
            help="In place of --k and --method: the classes are the clusters of this collection, "
            "with their numbers and names.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="TRUTH",
            help="Known classes (0 = unlabelled), same height and width: scores the map beside "
            "the untrained encoder and plain methods.",
        ),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            "--plots",
            metavar="DIR",
            help="Draw true color beside the map, spectra, the choice of k, the features (t-SNE), "
            "and with --labels the confusion.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="N=NAME", help="Name class N; may be repeated."),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option("--names", metavar="FILE", help='JSON of names: {"3": "winter wheat"}.'),
    ] = None,
    bands: options.Bands = None,
    baseline: options.Baseline = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="The same seed gives the same map.")
    ] = 0,
    device: options.DeviceChoice = options.Device.auto,
    as_json: options.AsJson = False,
) -> None:
    """Give every pixel of an image a class, without labels; 0 is no data.

    For example:

      parcelle map flight.hdr --encoder simple-vit:flight.pt --out classes.tif --plots plots/

      parcelle map flight.hdr --out classes.tif --k 6 --name 3="winter wheat"

      parcelle map flight.hdr --encoder simple-vit:flight.pt --out classes.tif --collection farm

    Class 1 is the largest. Made anew in the same place, a map keeps the names of
    classes that it certainly has found again.
    """
    from indexer.mapping.map_image import MapOptions, map_image
    from indexer.mapping.names import parse_names

    report = map_image(
        image,
        out,
        MapOptions(
            encoder=encoder,
            k=_parse_k(k, collection),
            method=None if method is None else method.value,
            collection=collection,
            labels=labels,
            plots=plots,
            names=parse_names(names, name or ()),
            bands=bands,
            baseline=baseline,
            seed=seed,
            device=device.value,
        ),
        Bar("steps"),
        None if collection is None else Settings(),
    )
    if as_json:
        say_json(report.to_dict())
    else:
        _say(report)
    tell_notes(report.notes)


def _parse_k(text: str | None, collection: str | None) -> int | None:
    if text == "auto" and collection is not None:
        raise InvalidInputError(
            "--k auto: the classes are the clusters of the collection; leave --k or --collection "
            "away.",
            kind="invalid-option",
        )
    if text is None or text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidInputError(
            f"--k {text!r}: give auto, or a number of classes.", kind="invalid-k"
        ) from None


def _say(report: "MapReport") -> None:
    how = f" by {report.method}" if report.collection is None else ""
    say(
        f"{report.pixels} pixels in {len(report.classes)} classes{how}, {report.seconds:.1f} s. "
        f"{report.choice.reason}"
    )
    say_table(
        ("class", "name", "pixels", "share"),
        (
            (str(one.number), one.name or "", str(one.pixels), f"{one.share:.1%}")
            for one in report.classes
        ),
        right={"class", "pixels", "share"},
    )
    if report.scores:
        say()
        say("Against the labels, at the k of the map and at that of the labels:")
        _say_scores(report)
    say(f"Wrote {', '.join(report.files)}.")


def _say_scores(report: "MapReport") -> None:
    def rows() -> Iterator[tuple[str, ...]]:
        for one in report.scores:
            figures = (one.score.oa, one.score.nmi, one.score.ari)
            yield one.features, one.method, str(one.k), *(f"{figure:.3f}" for figure in figures)

    say_table(
        ("features", "method", "k", "OA", "NMI", "ARI"), rows(), right={"k", "OA", "NMI", "ARI"}
    )
    say()
    say_table(
        ("known class", "pixels", "class", "recall", "precision", "F1"),
        (
            (
                one.name,
                str(one.support),
                "" if one.matched is None else str(one.matched),
                f"{one.recall:.3f}",
                f"{one.precision:.3f}",
                f"{one.f1:.3f}",
            )
            for one in report.scores[0].score.per_class
        ),
        right={"pixels", "class", "recall", "precision", "F1"},
    )
