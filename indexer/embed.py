"""``embed``: images to embeddings in a file, without an index."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from indexer.embedding_space import PixelRecipe, Recipe, describe_space, notes_for, space_digest
from indexer.encoders.base import Encoder
from indexer.encoders.choice import open_croma, open_pixel_encoder
from indexer.encoders.croma import BANDS, IMAGE_PX
from indexer.encoders.pixel_encoder import PixelEncoder
from indexer.errors import ImageryError, InvalidInputError
from indexer.imagery.chip import Chip
from indexer.inputs import EmbeddingOptions, check_options, resolve_inputs
from indexer.normalization import Normalization
from indexer.pipeline import (
    Findings,
    Inputs,
    Prepared,
    chips,
    encode,
    in_batches,
    input_of,
    measure_normalization,
    prepare,
)
from indexer.progress import Progress, Silent
from indexer.projection import MAX_ROWS_FOR_PCA, VECTOR_DIMENSIONS, Projection
from indexer.settings import Settings
from indexer.skipped import Skipped
from indexer.vector_files import (
    GrowingArray,
    VectorRow,
    check_suffix,
    growing_array,
    write_vectors,
)

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EmbedOptions(EmbeddingOptions):
    """Options of ``parcelle embed``."""

    dimensions: int | None = None
    """512 projects to unit vectors; None keeps the encoder's own length."""


@dataclass(frozen=True)
class EmbedReport:
    """What an embed did."""

    files: list[str]
    shape: tuple[int, int]
    space: dict[str, Any]
    read: int
    """Images read."""
    chips: int
    """Chips embedded."""
    skipped: list[Skipped]
    seconds: float
    """Reading to embeddings, without imports and loading of weights."""
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        fields = dict(self.__dict__)
        fields["shape"] = list(self.shape)
        fields["skipped"] = [skipped.to_dict() for skipped in self.skipped]
        fields["seconds"] = round(self.seconds, 3)
        return fields


def embed(
    settings: Settings,
    imagery: Sequence[str | Path],
    out: Path,
    options: EmbedOptions | None = None,
    progress: Progress | None = None,
) -> EmbedReport:
    """Embed images, or parcels on images, into a file; rows in input order.

    Args:
        settings: Where weights are.
        imagery: Files, folders and globs of images: GeoTIFFs, or of any format that a SimpleViT
            reads.
        out: ``.npy``, with a JSON sidecar that names the rows, or ``.parquet``.
        options: As on the command line.
        progress: Is told how far the work has come.

    Raises:
        ParcelleError: If the run as a whole cannot be done, or no image can be embedded.
    """
    options = options or EmbedOptions()
    progress = progress or Silent()
    findings = Findings()
    check_suffix(out)
    check_options(options)
    pixels = open_pixel_encoder(options.encoder, options.device)
    wanted = None if pixels is None else pixels.bands
    inputs = resolve_inputs(imagery, options, findings, wanted)
    encoder = pixels or open_croma(
        options.encoder, options.weights or settings.croma_weights, options.device
    )
    _check_dimensions(options.dimensions, encoder)
    encoder.load()
    started = time.monotonic()
    chosen = _recipe(encoder, inputs, options, progress)
    recipe = chosen.to_dict()
    rows: list[VectorRow] = []
    with growing_array(out) as embeddings:
        work = _work(inputs, findings, progress, encoder, chosen)
        chips_embedded = 0
        for batch in in_batches(work, options.batch_size):
            chips_embedded += len(batch)
            _append(encoder, batch, embeddings, rows)
            progress.advance(len(batch))
        progress.finish()
        if not rows:
            reason = findings.skipped[0].reason if findings.skipped else "nothing to embed"
            raise ImageryError(f"No image could be embedded. {reason}", kind="no-valid-pixels")
        seconds = time.monotonic() - started
        about = _about(recipe, None)
        if options.dimensions == VECTOR_DIMENSIONS:
            # Short embeddings go through a file of their own, so that memory stays bounded.
            with growing_array(out.with_suffix(".projected")) as projected:
                about = _about(recipe, _project(embeddings.mapped(), projected))
                files = write_vectors(out, projected.mapped(), rows, about)
                shape = projected.mapped().shape
        else:
            files = write_vectors(out, embeddings.mapped(), rows, about)
            shape = embeddings.mapped().shape
    return EmbedReport(
        files=[str(file) for file in files],
        shape=(shape[0], shape[1]),
        space=about["space"],
        read=findings.read,
        chips=chips_embedded,
        skipped=findings.skipped,
        seconds=seconds,
        notes=[*notes_for(recipe), *findings.told],
    )


def _recipe(
    encoder: Encoder, inputs: Inputs, options: EmbedOptions, progress: Progress
) -> Recipe | PixelRecipe:
    if isinstance(encoder, PixelEncoder):
        return encoder.recipe(inputs.pooling)
    normalization = Normalization.ssl4eo()
    if options.normalization == "dataset":
        normalization = measure_normalization(inputs, progress)
    return Recipe(
        encoder=encoder.name,
        weights=encoder.weights,
        bands=BANDS,
        normalization=normalization,
        pooling=inputs.pooling,
        image_px=IMAGE_PX,
        dimensions=encoder.dimensions,
    )


def _check_dimensions(dimensions: int | None, encoder: Encoder) -> None:
    if dimensions not in (None, VECTOR_DIMENSIONS, encoder.dimensions):
        raise InvalidInputError(
            f"--dimensions {dimensions}: {encoder.name} gives {encoder.dimensions}, which can be "
            f"projected to {VECTOR_DIMENSIONS}; give one of these.",
            kind="invalid-dimensions",
        )


def _work(
    inputs: Inputs,
    findings: Findings,
    progress: Progress,
    encoder: Encoder,
    recipe: Recipe | PixelRecipe,
) -> Iterator[tuple[FloatArray, list[Prepared], Chip]]:
    for chip, plan in chips(inputs, findings, progress, "Embedding"):
        prepared = prepare(chip, plan, inputs.pooling, encoder.patches_per_side, findings)
        if isinstance(recipe, PixelRecipe):
            prepared = _seen(chip, prepared, findings)
        if prepared:
            yield input_of(chip, recipe), prepared, chip
        else:
            progress.advance(1)


def _seen(chip: Chip, prepared: Sequence[Prepared], findings: Findings) -> list[Prepared]:
    """Those of which some pixel is seen; a window of nothing but clouds has no features."""
    seen = []
    for parcel in prepared:
        if parcel.pooling_weights[chip.valid_mask].any():
            seen.append(parcel)
            continue
        error = ImageryError(
            f"{chip.source}: clouds hide all of {parcel.parcel.parcel_id}; use another image.",
            kind="no-valid-pixels",
        )
        findings.skip(chip.source, error)
    return seen


def _append(
    encoder: Encoder,
    batch: Sequence[tuple[FloatArray, list[Prepared], Chip]],
    embeddings: GrowingArray,
    rows: list[VectorRow],
) -> None:
    images, prepared, read = zip(*batch, strict=True)
    for chip, parcels, vectors in zip(
        read, prepared, encode(encoder, images, prepared), strict=True
    ):
        for parcel, vector in zip(parcels, vectors, strict=True):
            embeddings.append(vector)
            rows.append(_row(chip, parcel))


def _row(chip: Chip, prepared: Prepared) -> VectorRow:
    parcel = prepared.parcel
    return VectorRow(
        collection=parcel.collection,
        parcel_id=parcel.parcel_id,
        scene=chip.scene,
        source=chip.source,
        acquired_at=chip.acquired_at,
        processing_baseline=chip.processing_baseline,
        crop_code=parcel.crop_code,
        crop_name=parcel.crop_name,
        area_m2=parcel.area_m2,
        geometry=None if parcel.geometry is None else shapely.to_wkb(parcel.geometry),
    )


def _project(embeddings: FloatArray, projected: GrowingArray) -> Projection:
    """Fit a projection on an even sample of the run and apply it row by row."""
    step = max(1, len(embeddings) // MAX_ROWS_FOR_PCA)
    projection = Projection.fit(np.asarray(embeddings[::step][:MAX_ROWS_FOR_PCA]))
    for start in range(0, len(embeddings), MAX_ROWS_FOR_PCA):
        for vector in projection.apply(np.asarray(embeddings[start : start + MAX_ROWS_FOR_PCA])):
            projected.append(vector)
    return projection


def _about(recipe: dict[str, Any], projection: Projection | None) -> dict[str, Any]:
    """What names the vectors: space, recipe, projection, time."""
    digest = None if projection is None else space_digest(recipe, projection)
    return {
        "space": {**describe_space(recipe, digest), "digest": digest},
        "recipe": recipe,
        "projection": None if projection is None else projection.kind,
        "notes": list(notes_for(recipe)),
        "processing:datetime": datetime.now(UTC).isoformat(timespec="seconds"),
    }
