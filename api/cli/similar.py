"""``parcelle similar``: which parcels look like this one?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options
from api.cli.console import say, say_json, say_table, tell_notes
from indexer.errors import InvalidInputError
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.imagery.chip import Chip
    from retriever.queries import ParcelFilter
    from retriever.query_embedding import BandsToAskWith
    from retriever.results import Match, Matches


def similar(
    parcel_id: Annotated[
        str | None, typer.Argument(help="Id of a stored parcel.", show_default=False)
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", help="Ask with an image instead: a chip, or a folder of bands."),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option("--like", help="Id of another parcel to look like; may be repeated."),
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option("--unlike", help="Id of a parcel not to look like; may be repeated."),
    ] = None,
    collection: options.InCollection = None,
    k: Annotated[int, typer.Option("-k", help="Matches wanted, 1 to 1000.")] = 10,
    within: Annotated[
        list[str] | None,
        typer.Option("--within", help="Only parcels of this collection; may be repeated."),
    ] = None,
    crop: options.Crops = None,
    bbox: options.BboxText = None,
    datetime: options.DatetimeText = None,
    expression: options.FilterText = None,
    observations: Annotated[
        bool,
        typer.Option("--observations", help="Each observation, not each parcel's best one."),
    ] = False,
    bands: options.Bands = None,
    baseline: options.Baseline = None,
    recall: Annotated[
        float,
        typer.Option(help="Share of the true nearest that is to be found: 0.9, 0.95 or 0.99."),
    ] = 0.95,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how the matches were found, and what it cost.")
    ] = False,
    output: Annotated[
        options.Format, typer.Option("--format", help="How matches are written.")
    ] = options.Format.table,
) -> None:
    """Find the parcels that look like a stored parcel, or like an image.

    For example:

      parcelle similar demo-012 -k 5 --crop "winter wheat" --datetime 2023-05

      parcelle similar demo-012 --filter "NDVI > 0.6 AND reliable = TRUE"

      parcelle similar demo-012 --like demo-036 --unlike demo-072

      parcelle similar demo-012 --crop maize --recall 0.99 --explain

      parcelle similar --image chip.tif --bands l2a --format geojson
    """
    from retriever.search import ParcelSearcher

    if (parcel_id is None) == (image is None):
        raise InvalidInputError(
            "Name one parcel id, or one image with --image FILE.", kind="invalid-option"
        )
    if image is not None and (like or unlike):
        raise InvalidInputError(
            "--like and --unlike go with a parcel id, not with --image.", kind="invalid-option"
        )
    where = filter_from(crop, bbox, datetime, within, expression)
    with ParcelSearcher.open(Settings()) as searcher:
        if image is not None:
            from retriever.query_embedding import bands_to_ask_with

            wanted = bands_to_ask_with(searcher.engine, collection)
            matches = searcher.similar_by_chip(
                read_query_image(image, bands, baseline, wanted),
                collection=collection,
                k=k,
                where=where,
                observations=observations,
                recall=recall,
                explain=explain,
            )
        else:
            matches = searcher.similar_by_examples(
                [str(parcel_id), *(like or ())],
                unlike or (),
                collection=collection,
                k=k,
                where=where,
                observations=observations,
                recall=recall,
                explain=explain,
            )
    show(matches, output)


def filter_from(
    crops: list[str] | None,
    bbox: str | None,
    datetime: str | None,
    collections: list[str] | None = None,
    expression: str | None = None,
) -> "ParcelFilter":
    """The filter that the options describe."""
    from retriever.cql2.expression import Expression
    from retriever.queries import Bbox, Interval, ParcelFilter

    return ParcelFilter(
        collections=tuple(collections or ()),
        crops=tuple(crops or ()),
        bbox=None if bbox is None else Bbox.parse(bbox),
        interval=None if datetime is None else Interval.parse(datetime),
        expression=None if expression is None else Expression.parse(expression),
    )


def read_query_image(
    image: Path,
    bands: str | None,
    baseline: str | None,
    wanted: "BandsToAskWith",
) -> "Chip":
    """Read the one image that asks.

    Args:
        image: A file, or a folder of band files.
        bands: As ``--bands``.
        baseline: As ``--baseline``.
        wanted: What the index was made with.
    """
    if wanted.spectral is not None:
        from indexer.imagery.spectral_sources import SpectralReading, read_whole

        return read_whole(image, SpectralReading(wanted.spectral, bands, baseline))
    from indexer.imagery.reader import ReadingOptions, read_image
    from indexer.sensors import parse_bands, parse_baseline

    return read_image(
        image,
        ReadingOptions(
            bands=None if bands is None else parse_bands(bands),
            baseline=None if baseline is None else parse_baseline(baseline),
            wanted=wanted.names,
        ),
    )


def _examples(query: dict[str, Any]) -> str:
    """The parcels that ask beside the first."""
    parts = (("", query.get("like", [])[1:]), (" but unlike ", query.get("unlike", [])))
    return "".join(
        f"{word or ' and '}{', '.join(one['id'] for one in others)}"
        for word, others in parts
        if others
    )


def _cluster(match: "Match") -> str:
    """The stored cluster of a match: its name, else its number."""
    if match.cluster is None:
        return "-"
    return match.cluster.name or f"number {match.cluster.number}"


def show(matches: "Matches", output: options.Format) -> None:
    """Write matches in the chosen form."""
    if output is options.Format.json:
        say_json(matches.to_dict())
        return
    if output is options.Format.geojson:
        say_json(matches.to_geojson())
        return
    query = matches.query
    asked = str(query.get("id") or query.get("image"))
    asked += _examples(query)
    seen = f", seen {query['datetime'][:10]}" if query.get("datetime") else ""
    say(
        f"Parcels like {asked}{seen} (generation {matches.generation}, "
        f"space {matches.space['id']}):"
    )
    grouped = any(match.cluster is not None for match in matches.matches)
    say_table(
        (
            *("rank", "score", "id", "crop"),
            *(["cluster"] if grouped else []),
            *("area ha", "seen", "collection"),
        ),
        [
            (
                str(match.rank),
                f"{match.score:.4f}",
                match.parcel_id,
                match.crop_name or match.crop_code or "-",
                *([_cluster(match)] if grouped else []),
                "-" if match.area_m2 is None else f"{match.area_m2 / 10_000:.2f}",
                "-" if match.acquired_at is None else f"{match.acquired_at:%Y-%m-%d}",
                match.collection,
            )
            for match in matches.matches
        ],
        right={"rank", "score", "area ha"},
    )
    if matches.explanation is not None:
        say(plan_in_words(matches.explanation))
    tell_notes(matches.notes)


def plan_in_words(explanation: dict[str, Any]) -> str:
    """How a search went about it, in some lines."""
    since = explanation["since_publication"]
    lines = [
        f"Index {explanation['index']} with {explanation['rows']} vectors, {since['rows']} added "
        f"and {since['removed']} removed since.",
        f"Recall {explanation['recall']} sought, {explanation['recall_measured']:.3f} measured.",
    ]
    for one in explanation["conditions"]:
        some = "some" if one["rows"] is None else f"at most {one['rows']}"
        lines.append(f"A condition ({one['name']}) leaves {some} vectors.")
    lists = f" in {explanation['lists']} lists" if explanation["lists"] else ""
    scored = f", {explanation['scored']} scored" if explanation["scored"] else ""
    lines += [
        f"{explanation['allowed']} vectors allowed; searched{lists}: {explanation['method_means']}"
        f"{scored}, {explanation['reranked']} by exact scores.",
        f"Search {explanation['search_ms']} ms, matches {explanation['metadata_ms']} ms.",
    ]
    return "\n".join(lines)
