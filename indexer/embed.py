"""``embed``: images to embeddings in a file, without an index."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from indexer.embedder import Embedded, Embedder, embed_ahead
from indexer.embedding_space import PixelRecipe, Recipe, describe_space, notes_for, space_digest
from indexer.encoders.choice import open_croma, open_pixel_encoder
from indexer.encoders.croma import CromaEncoder, best_precision
from indexer.encoders.pixel_encoder import PixelEncoder
from indexer.errors import ImageryError, InvalidInputError
from indexer.findings import Findings
from indexer.inputs import EmbeddingOptions, check_options, resolve_inputs
from indexer.pipeline import (
    Inputs,
    TileWork,
    each_image,
    in_batches,
    measure_normalization,
    recipe_of,
    tile_works,
)
from indexer.preparing import Preparation, Prepared
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
    """Forward passes: one for each tile, however many parcels it serves."""
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
    """Embed images, or parcels on images, into a file; rows image by image, tile by tile.

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
    inputs = resolve_inputs(
        imagery, options, findings, None if pixels is None else pixels.bands, progress
    )
    encoder = pixels or open_croma(
        options.encoder,
        options.weights or settings.croma_weights,
        options.device,
        options.precision or best_precision(options.device),
        options.modality,
    )
    _check_dimensions(options.dimensions, encoder)
    encoder.load()
    started = time.monotonic()
    chosen = _recipe(encoder, inputs, options, progress)
    recipe = chosen.to_dict()
    rows: list[VectorRow] = []
    embedder = Embedder(encoder)
    with growing_array(out) as embeddings:
        works = _work(
            inputs,
            findings,
            progress,
            Preparation(chosen, inputs.pooling, encoder.patches_per_side),
        )
        for embedded, tiles in embed_ahead(embedder, in_batches(works, options.batch_size)):
            _append(embedded, embeddings, rows)
            progress.advance(tiles)
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
        chips=embedder.passes,
        skipped=findings.skipped,
        seconds=seconds,
        notes=[*notes_for(recipe), *findings.told],
    )


def _recipe(
    encoder: CromaEncoder | PixelEncoder, inputs: Inputs, options: EmbedOptions, progress: Progress
) -> Recipe | PixelRecipe:
    recipe = recipe_of(encoder, inputs)
    if options.normalization != "dataset" or isinstance(recipe, PixelRecipe):
        return recipe
    return replace(recipe, normalization=measure_normalization(inputs, progress))


def _check_dimensions(dimensions: int | None, encoder: CromaEncoder | PixelEncoder) -> None:
    if dimensions not in (None, VECTOR_DIMENSIONS, encoder.dimensions):
        raise InvalidInputError(
            f"--dimensions {dimensions}: {encoder.name} gives {encoder.dimensions}, which can be "
            f"projected to {VECTOR_DIMENSIONS}; give one of these.",
            kind="invalid-dimensions",
        )


def _work(
    inputs: Inputs, findings: Findings, progress: Progress, preparation: Preparation
) -> Iterator[TileWork]:
    def wanted(prepared: list[Prepared]) -> list[Prepared]:
        if preparation.patches is not None:
            return prepared
        return [one for one in prepared if _is_seen(one, findings)]

    take = partial(
        tile_works,
        preparation=preparation,
        findings=findings,
        progress=progress,
        wanted=wanted,
        input_of=preparation.input_of,
        also_clouded=True,
    )
    return each_image(inputs, findings, progress, "Embedding", take)


def _is_seen(prepared: Prepared, findings: Findings) -> bool:
    """Whether any pixel is seen; a window of nothing but clouds has no features."""
    if prepared.state.valid_pixels > 0:
        return True
    source = prepared.seen.source
    error = ImageryError(
        f"{source}: clouds hide all of {prepared.parcel.parcel_id}; use another image.",
        kind="no-valid-pixels",
    )
    findings.skip(source, error)
    return False


def _append(embedded: Sequence[Embedded], embeddings: GrowingArray, rows: list[VectorRow]) -> None:
    for one in embedded:
        if one.embedding is not None:
            embeddings.append(one.embedding)
            rows.append(_row(one.prepared))


def _row(prepared: Prepared) -> VectorRow:
    parcel, seen = prepared.parcel, prepared.seen
    return VectorRow(
        collection=parcel.collection,
        parcel_id=parcel.parcel_id,
        scene=seen.scene,
        source=seen.source,
        acquired_at=seen.acquired_at,
        processing_baseline=seen.processing_baseline,
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
