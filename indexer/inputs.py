"""Options of a run, checked and resolved before any work begins."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from indexer.chipping import ParcelFinder
from indexer.embedding_space import Pooling
from indexer.encoders.choice import check_encoder_choice
from indexer.encoders.croma import BANDS, IMAGE_PX
from indexer.errors import InvalidInputError, ParcelsError
from indexer.imagery.reader import MAX_CHIP_PX, ReadingOptions
from indexer.imagery.sources import ImageSource, find_sources
from indexer.imagery.spectral_bands import SpectralBand
from indexer.imagery.spectral_sources import (
    SpectralReading,
    any_geotiff,
    find_spectral_sources,
)
from indexer.normalization import NormalizationName
from indexer.parcels.files import read_parcels
from indexer.pipeline import Findings, Inputs
from indexer.sensors import parse_bands, parse_baseline

DEFAULT_COLLECTION = "parcels"
DEFAULT_ENCODER = "croma-large"
MIN_WINDOW_PX = 8

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


def resolve_inputs(
    imagery: Sequence[str | Path],
    options: EmbeddingOptions,
    findings: Findings,
    wanted: tuple[SpectralBand, ...] | None = None,
) -> Inputs:
    """Check options, find images, read parcels.

    Args:
        imagery: Files, folders and globs.
        options: As on the command line.
        findings: Receives what is skipped already here.
        wanted: Bands of an encoder that was trained on bands of its own; None for CROMA.

    Raises:
        InvalidInputError: If an option is wrong or no image is found.
        ParcelsError: If the parcels file cannot be used, or no parcel in it can.
        NotFoundError: If the parcels file does not exist.
    """
    check_options(options)
    reading = ReadingOptions(
        bands=None if options.bands is None else parse_bands(options.bands),
        baseline=None if options.baseline is None else parse_baseline(options.baseline),
        wanted=BANDS,
    )
    if wanted is None:
        sources, skipped = find_sources(imagery)
        spectral = None
    else:
        sources, skipped = find_spectral_sources(imagery)
        spectral = SpectralReading(wanted, options.bands, options.baseline)
        _check_bands(options, sources)
    findings.skipped.extend(skipped)
    return Inputs(
        sources=sources,
        finder=None if options.parcels is None else _find_parcels(options, findings),
        parcels_source=str(options.parcels or ""),
        collection=options.collection,
        pooling=options.pooling or ("image" if options.parcels is None else "parcel"),
        reading=reading,
        chip_px=IMAGE_PX,
        spectral=spectral,
        windows_px=options.windows,
    )


def _check_bands(options: EmbeddingOptions, sources: Sequence[ImageSource]) -> None:
    if options.bands is not None and not any_geotiff(sources):
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
        ("device", options.device, ("auto", "cpu", "cuda")),
    ):
        if value not in choices:
            raise InvalidInputError(
                f"--{name} {value}: use one of {', '.join(choices)}.", kind="invalid-option"
            )


def _find_parcels(options: EmbeddingOptions, findings: Findings) -> ParcelFinder:
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
    return ParcelFinder(file.parcels)
