"""Options of a run, checked and resolved before any work begins."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from indexer.chipping import ParcelFinder
from indexer.embedding_space import Pooling
from indexer.encoders.croma import BANDS, IMAGE_PX, check_encoder
from indexer.errors import InvalidInputError, ParcelsError
from indexer.imagery.reader import ReadingOptions
from indexer.imagery.sources import find_sources
from indexer.normalization import NormalizationName
from indexer.parcels.files import read_parcels
from indexer.pipeline import Findings, Inputs
from indexer.sensors import parse_bands, parse_baseline

DEFAULT_COLLECTION = "parcels"
DEFAULT_ENCODER = "croma-large"

_COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class EmbeddingOptions:
    """What ``reindex`` and ``embed`` have in common, as on the command line."""

    parcels: Path | None = None
    """Parcels file; None takes each image as one parcel."""
    id_column: str | None = None
    crop_column: str | None = None
    collection: str = DEFAULT_COLLECTION
    encoder: str = DEFAULT_ENCODER
    weights: str | None = None
    """``pretrained``, ``untrained`` or a file; None asks the settings."""
    bands: str | None = None
    baseline: str | None = None
    normalization: NormalizationName = "ssl4eo"
    pooling: Pooling | None = None
    """None means ``parcel`` where parcels are given, else ``image``."""
    batch_size: int = 16
    device: Literal["auto", "cpu", "cuda"] = "auto"


def resolve_inputs(
    imagery: Sequence[str | Path], options: EmbeddingOptions, findings: Findings
) -> Inputs:
    """Check options, find images, read parcels.

    Args:
        imagery: Files, folders and globs.
        options: As on the command line.
        findings: Receives what is skipped already here.

    Raises:
        InvalidInputError: If an option is wrong or no image is found.
        ParcelsError: If the parcels file cannot be used, or no parcel in it can.
        NotFoundError: If the parcels file does not exist.
    """
    check_encoder(options.encoder)
    _check_choices(options)
    reading = ReadingOptions(
        bands=None if options.bands is None else parse_bands(options.bands),
        baseline=None if options.baseline is None else parse_baseline(options.baseline),
        wanted=BANDS,
    )
    sources, skipped = find_sources(imagery)
    findings.skipped.extend(skipped)
    return Inputs(
        sources=sources,
        finder=None if options.parcels is None else _find_parcels(options, findings),
        parcels_source=str(options.parcels or ""),
        collection=options.collection,
        pooling=options.pooling or ("image" if options.parcels is None else "parcel"),
        reading=reading,
        chip_px=IMAGE_PX,
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
        ("normalization", options.normalization, ("ssl4eo", "dataset")),
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
