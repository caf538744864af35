"""Options of a run, checked and resolved before any work begins."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import shapely

from indexer.chipping import WINDOW_ID, ParcelFinder
from indexer.embedding_space import Pooling
from indexer.encoders.choice import check_encoder_choice, encoder_file
from indexer.encoders.croma import IMAGE_PX, Precision
from indexer.errors import InvalidInputError, ParcelsError
from indexer.findings import Findings
from indexer.imagery.joint import find_pairs
from indexer.imagery.reader import MAX_CHIP_PX, ReadingOptions
from indexer.imagery.sources import Source, find_sources
from indexer.imagery.spectral_bands import SpectralBand
from indexer.imagery.spectral_sources import (
    SpectralReading,
    any_geotiff,
    find_spectral_sources,
)
from indexer.normalization import NormalizationName
from indexer.parcels.files import ParcelsFile, read_parcels
from indexer.parcels.parcel import Parcel
from indexer.pipeline import Inputs, on_disk, open_scene
from indexer.progress import Progress
from indexer.sensors import MODALITY_BANDS, Modality, parse_bands, parse_baseline

DEFAULT_COLLECTION = "parcels"
DEFAULT_ENCODER = "croma-large"
MIN_WINDOW_PX = 8
SENTINEL2_GSD_M = 10.0
GSDS_M = (10.0, 5.0)
"""What ``--gsd`` takes: as Sentinel-2 has it, or twice as fine."""

# What was looked at and names no other image: items of other instruments, and items that are
# there twice.
_LISTED = ("bands-unknown", "duplicate-id")

_COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class EmbeddingOptions:
    """What ``reindex`` and ``embed`` have in common, as on the command line."""

    parcels: Path | None = None
    """Parcels file; None takes each image as one parcel."""
    id_column: str | None = None
    crop_column: str | None = None
    collection: str = DEFAULT_COLLECTION
    windows: int | None = None
    """Side of the windows that images are cut into, each a parcel; None takes an image as one."""
    encoder: str = DEFAULT_ENCODER
    """``croma-large``, ``croma-base`` or ``simple-vit:FILE``."""
    weights: str | None = None
    """``pretrained``, ``untrained`` or a file; None asks the settings."""
    bands: str | None = None
    baseline: str | None = None
    normalization: NormalizationName | None = None
    """None takes what CROMA was pretrained with (``ssl4eo``), or what the encoder's file holds."""
    pooling: Pooling | None = None
    """None means ``parcel`` where parcels are given, else ``image``."""
    precision: Precision | None = None
    """None takes that of the collection's vectors, else the device's best."""
    modality: Modality = "optical"
    """What CROMA looks at: Sentinel-2, Sentinel-1, or both."""
    gsd_m: float | None = None
    """Pixel size that tiles are brought to where parcels are found on scenes: 10 or 5 m; None
    means 10."""
    stac: str | None = None
    """Address or path of a STAC catalog, item or API that names images."""
    bbox: tuple[float, float, float, float] | None = None
    """Of the items to take from it: west, south, east, north in degrees; None means around the
    parcels, where there are some."""
    interval: tuple[datetime | None, datetime | None] | None = None
    """Of the items to take from it, aware UTC; both ends belong to it."""
    max_cloud_percent: float | None = None
    """Largest cloud cover of the items to take from it, 0 to 100."""
    batch_size: int = 16
    device: Literal["auto", "cpu", "cuda"] = "auto"


def check_options(options: EmbeddingOptions) -> None:
    """Refuse options that cannot be, or contradict each other, before any file is opened.

    Raises:
        InvalidInputError: If an option is wrong.
    """
    check_encoder_choice(options.encoder, options.weights, options.normalization)
    _check_choices(options)
    _check_windows(options)
    _check_croma_only(options)
    _check_stac(options)


def resolve_inputs(
    imagery: Sequence[str | Path],
    options: EmbeddingOptions,
    findings: Findings,
    wanted: tuple[SpectralBand, ...] | None = None,
    progress: Progress | None = None,
) -> Inputs:
    """Check options, find images, read parcels.

    Args:
        imagery: Files, folders and globs.
        options: As on the command line.
        findings: Receives what is skipped already here.
        wanted: Bands of an encoder that was trained on bands of its own; None for CROMA.
        progress: Is told how far the listing of a catalog has come.

    Raises:
        InvalidInputError: If an option is wrong or no image is found.
        ParcelsError: If the parcels file cannot be used, or no parcel in it can.
        NotFoundError: If the parcels file does not exist.
    """
    check_options(options)
    reading = ReadingOptions(
        bands=None if options.bands is None else parse_bands(options.bands),
        baseline=None if options.baseline is None else parse_baseline(options.baseline),
        wanted=MODALITY_BANDS[options.modality],
    )
    parcels = None if options.parcels is None else _read_parcels(options, findings)
    if options.bbox is None and parcels is not None:
        options = replace(options, bbox=_extent(parcels.parcels))
    noted = len(findings.skipped)
    sources = _find(imagery, options, findings, wanted, progress)
    unlisted = sum(one.kind not in _LISTED for one in findings.skipped[noted:])
    images = _Named(sources, options.windows)
    joint = None
    if options.modality == "joint":
        found = find_pairs(sources, reading, open_scene, progress=progress)
        sources, joint = found.sources, found.reading
        findings.skipped.extend(found.skipped)
    spectral = None
    if wanted is not None:
        spectral = SpectralReading(wanted, options.bands, options.baseline)
        _check_bands(options, sources)
    pooling = options.pooling or ("image" if options.parcels is None else "parcel")
    gsd_m = options.gsd_m or SENTINEL2_GSD_M
    return Inputs(
        sources=sources,
        finder=None if parcels is None else ParcelFinder(parcels.parcels),
        parcels_source=str(options.parcels or ""),
        collection=options.collection,
        pooling=pooling,
        reading=reading,
        chip_px=round(IMAGE_PX * gsd_m / SENTINEL2_GSD_M),
        spectral=spectral,
        joint=joint,
        windows_px=options.windows,
        named=images if parcels is None else parcels.named,
        unlisted=unlisted if parcels is None else 0,
    )


def _extent(parcels: Sequence[Parcel]) -> tuple[float, float, float, float]:
    """West, south, east, north of all parcels, in degrees."""
    west, south, east, north = shapely.total_bounds([parcel.geometry for parcel in parcels])
    return float(west), float(south), float(east), float(north)


class _Named:
    """The ids of images, or of their windows, that are parcels."""

    def __init__(self, sources: Sequence[Source], windows_px: int | None) -> None:
        self._names = {source.name for source in sources}
        self._windows_px = windows_px

    def __contains__(self, parcel_id: object) -> bool:
        """Whether an image is there of which the parcel is a window, or which it is."""
        name = str(parcel_id)
        if self._windows_px is not None:
            match = WINDOW_ID.fullmatch(name)
            if match is None or int(match["side"]) != self._windows_px:
                return False
            name = match["image"]
        return name in self._names


def _find(
    imagery: Sequence[str | Path],
    options: EmbeddingOptions,
    findings: Findings,
    wanted: tuple[SpectralBand, ...] | None,
    progress: Progress | None,
) -> list[Source]:
    """The images that are named, and those that a catalog names.

    Raises:
        InvalidInputError: If there is none (``no-imagery``).
    """
    sources: list[Source] = []
    if imagery or options.stac is None:
        found, skipped = (find_sources if wanted is None else find_spectral_sources)(imagery)
        sources += found
        findings.skipped.extend(skipped)
    if options.stac is not None:
        # Its client takes half a second to import.
        from indexer.imagery.stac.catalog import (
            StacQuery,
            count_without_cloud_cover,
            find_stac_items,
        )

        query = StacQuery(options.stac, options.bbox, options.interval, options.max_cloud_percent)
        items, skipped = find_stac_items(query, progress)
        sources += items
        findings.skipped.extend(skipped)
        unknown = count_without_cloud_cover(items)
        if unknown and options.max_cloud_percent is not None:
            findings.doubt(
                f"{options.stac}: {unknown} of {len(items)} items do not say how cloudy they are, "
                "and are taken."
            )
    if not sources:
        reason = (
            f"no item of it can be used. {findings.skipped[0].reason}"
            if findings.skipped
            else "no item of it fits. Look at the address, or widen --bbox (without it, items "
            "must touch the parcels), --datetime or --max-cloud."
        )
        raise InvalidInputError(
            f"--stac {options.stac}: {reason}",
            kind="no-imagery",
        )
    return sources


def _check_bands(options: EmbeddingOptions, sources: Sequence[Source]) -> None:
    if options.bands is not None and not any_geotiff([on_disk(source) for source in sources]):
        raise InvalidInputError(
            f"--bands {options.bands}: names the bands of Sentinel-2 GeoTIFFs, but there is none; "
            "other images name their own. Leave it away.",
            kind="invalid-bands",
        )


def _check_windows(options: EmbeddingOptions) -> None:
    if options.windows is None:
        return
    if options.parcels is not None:
        raise InvalidInputError(
            "--windows cuts images into parcels, and --parcels names them; give one of these.",
            kind="invalid-option",
        )
    if not MIN_WINDOW_PX <= options.windows <= MAX_CHIP_PX:
        raise InvalidInputError(
            f"--windows {options.windows}: give {MIN_WINDOW_PX} to {MAX_CHIP_PX} pixels.",
            kind="invalid-option",
        )


def _check_croma_only(options: EmbeddingOptions) -> None:
    """Refuse what only CROMA has, and what needs scenes.

    Raises:
        InvalidInputError: ``invalid-option``.
    """
    if encoder_file(options.encoder) is not None:
        for name, given in (
            ("precision", options.precision is not None),
            ("modality", options.modality != "optical"),
            ("gsd", options.gsd_m is not None),
            ("stac", options.stac is not None),
        ):
            if given:
                raise InvalidInputError(
                    f"--{name}: is for CROMA, not for a simple-vit file; leave it away.",
                    kind="invalid-option",
                )
    if options.gsd_m is not None and options.gsd_m not in GSDS_M:
        choices = " or ".join(f"{gsd:g}" for gsd in GSDS_M)
        raise InvalidInputError(
            f"--gsd {options.gsd_m:g}: give {choices} (meters).", kind="invalid-option"
        )
    if options.gsd_m is not None and options.parcels is None:
        raise InvalidInputError(
            "--gsd: says how finely scenes are looked at around parcels; give --parcels, or leave "
            "it away.",
            kind="invalid-option",
        )


def _check_stac(options: EmbeddingOptions) -> None:
    """Refuse conditions on items where there is no catalog.

    Raises:
        InvalidInputError: ``invalid-option``.
    """
    for name, value in (
        ("bbox", options.bbox),
        ("datetime", options.interval),
        ("max-cloud", options.max_cloud_percent),
    ):
        if value is not None and options.stac is None:
            raise InvalidInputError(
                f"--{name}: chooses among the items of a catalog; give --stac, or leave it away.",
                kind="invalid-option",
            )


def _check_choices(options: EmbeddingOptions) -> None:
    if not _COLLECTION_NAME.fullmatch(options.collection):
        raise InvalidInputError(
            f"--collection {options.collection!r}: use letters, digits, '_', '-' and '.', at most "
            "100, beginning with a letter or digit.",
            kind="invalid-collection",
        )
    if options.batch_size < 1:
        raise InvalidInputError(
            f"--batch-size {options.batch_size}: give at least 1.", kind="invalid-option"
        )
    for name, value, choices in (
        ("normalization", options.normalization or "ssl4eo", ("ssl4eo", "dataset")),
        ("pooling", options.pooling or "image", ("image", "parcel")),
        ("precision", options.precision or "fp32", ("fp32", "bf16", "int8")),
        ("modality", options.modality, tuple(MODALITY_BANDS)),
        ("device", options.device, ("auto", "cpu", "cuda")),
    ):
        if value not in choices:
            raise InvalidInputError(
                f"--{name} {value}: use one of {', '.join(choices)}.", kind="invalid-option"
            )


def _read_parcels(options: EmbeddingOptions, findings: Findings) -> ParcelsFile:
    if options.parcels is None:
        raise TypeError("no parcels file to read")
    file = read_parcels(
        options.parcels,
        options.collection,
        id_column=options.id_column,
        crop_column=options.crop_column,
    )
    findings.skipped.extend(file.skipped)
    for note in file.notes:
        findings.doubt(note)
    if not file.parcels:
        reason = file.skipped[0].reason if file.skipped else "it has no rows"
        raise ParcelsError(
            f"{options.parcels}: none of its parcels can be used ({reason})", kind="unreadable"
        )
    return file
