"""``reindex``: images and parcels in, a published generation out. Top to bottom.

Work is committed batch by batch. Whatever interrupts a run, the published generation goes on
answering, and the next run skips what is already there.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from indexer.catalog.database import (
    connect,
    database_exists,
    require_current_schema,
    schema_status,
    upgrade,
)
from indexer.catalog.reading import (
    SpaceRecord,
    collection_space,
    count_collection,
    count_kept_embeddings,
    find_collection,
    find_space,
    get_generation,
    get_space,
    has_embeddings,
    kept_embeddings,
    known_observations,
    rows_without_vector,
)
from indexer.catalog.writing import (
    Known,
    ObservationRecord,
    create_space,
    ensure_collection,
    freeze_projection,
    remember_image,
    remember_weights_path,
    save_observations,
    save_parcels,
    set_vectors,
)
from indexer.clusters.assigning import assign_new_vectors
from indexer.embedding_space import PixelRecipe, Recipe, describe_space, notes_for, space_digest
from indexer.encoders.base import Encoder
from indexer.encoders.choice import open_croma, open_pixel_encoder
from indexer.encoders.croma import BANDS, IMAGE_PX
from indexer.encoders.pixel_encoder import PixelEncoder
from indexer.generations.manifest import Manifest
from indexer.generations.store import build_generation, is_current
from indexer.imagery.chip import Chip
from indexer.inputs import EmbeddingOptions, check_options, resolve_inputs
from indexer.lock import only_writer
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
from indexer.projection import MAX_ROWS_FOR_PCA, Projection
from indexer.settings import Settings
from indexer.skipped import Skipped

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReindexOptions(EmbeddingOptions):
    """Options of ``parcelle reindex``."""

    full: bool = False
    """Embed everything again, in a space whose projection is fitted anew."""
    dry_run: bool = False
    """Only say what would be done."""


@dataclass(frozen=True)
class ReindexReport:
    """What a reindex did."""

    generation: int | None
    """The generation that answers now; None if there is none."""
    space: dict[str, Any] | None
    collection: str
    read: int
    """Images read."""
    embedded: int
    """Observations embedded (or to be embedded, in a dry run)."""
    chips: int
    """Forward passes' worth of chips that took."""
    unchanged: int
    """Observations that were there already, pixel for pixel."""
    clouded: int
    """Observations stored without a vector, because clouds or gaps hide too much."""
    skipped: list[Skipped]
    parcels: int
    """Parcels of the collection now."""
    observations: int
    """Observations of the collection now."""
    seconds: float
    """Reading to committed rows, without imports, loading of weights and building the index."""
    recall_at_10: float | None
    projection_recall_at_10: float | None
    projection: str | None
    notes: list[str]
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        fields = dict(self.__dict__)
        fields["skipped"] = [skipped.to_dict() for skipped in self.skipped]
        fields["seconds"] = round(self.seconds, 3)
        return fields


def reindex(
    settings: Settings,
    imagery: Sequence[str | Path],
    options: ReindexOptions | None = None,
    progress: Progress | None = None,
) -> ReindexReport:
    """Embed what is new or changed, and publish a generation that holds it.

    Args:
        settings: Where data, database and weights are.
        imagery: Files, folders and globs of images: GeoTIFFs, or of any format that a SimpleViT
            reads.
        options: As on the command line.
        progress: Is told how far the work has come.

    Raises:
        ParcelleError: If the run as a whole cannot be done. A single unusable image or parcel
            is skipped and named in the report.
    """
    options = options or ReindexOptions()
    progress = progress or Silent()
    findings = Findings()
    check_options(options)
    pixels = open_pixel_encoder(options.encoder, options.device)
    wanted = None if pixels is None else pixels.bands
    inputs = resolve_inputs(imagery, options, findings, wanted)
    encoder = pixels or open_croma(
        options.encoder, options.weights or settings.croma_weights, options.device
    )
    if options.dry_run and not database_exists(settings):
        return _Run(settings, None, options, inputs, encoder, findings, progress).dry()
    engine = connect(settings)
    try:
        if options.dry_run:
            filled = None if schema_status(engine) == "empty" else engine
            if filled is not None:
                require_current_schema(filled)
            return _Run(settings, filled, options, inputs, encoder, findings, progress).dry()
        with only_writer(settings.data_dir):
            if schema_status(engine) == "empty":
                upgrade(engine)
            require_current_schema(engine)
            return _Run(settings, engine, options, inputs, encoder, findings, progress).complete()
    finally:
        engine.dispose()


class _Run:
    """The state of one reindex on its way from images to a generation."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine | None,
        options: ReindexOptions,
        inputs: Inputs,
        encoder: Encoder,
        findings: Findings,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.maybe_engine = engine
        self.options = options
        self.inputs = inputs
        self.encoder = encoder
        self.weights = encoder.weights
        self.findings = findings
        self.progress = progress
        self.embedded = self.chips = self.unchanged = self.clouded = 0
        self.loading_s = 0.0
        self.collection_id = self._find_collection()
        self.recipe = self._recipe()
        self.space = self._find_space()

    @property
    def engine(self) -> Engine:
        """The catalog; a dry run over an empty folder has none."""
        if self.maybe_engine is None:
            raise TypeError("this run has no database")
        return self.maybe_engine

    # What is already there -------------------------------------------------------------------

    def _find_collection(self) -> int | None:
        if self.maybe_engine is None:
            return None
        with self.engine.connect() as connection:
            found = find_collection(connection, self.inputs.collection)
        return None if found is None else found[0]

    def _find_space(self) -> SpaceRecord | None:
        if self.maybe_engine is None:
            return None
        with self.engine.connect() as connection:
            return find_space(
                connection, self.recipe.digest, self.collection_id, new=self.options.full
            )

    def _recipe(self) -> Recipe | PixelRecipe:
        if isinstance(self.encoder, PixelEncoder):
            return self.encoder.recipe(self.inputs.pooling)
        recipe = Recipe(
            encoder=self.encoder.name,
            weights=self.weights,
            bands=BANDS,
            normalization=Normalization.ssl4eo(),
            pooling=self.inputs.pooling,
            image_px=IMAGE_PX,
            dimensions=self.encoder.dimensions,
        )
        if self.options.normalization != "dataset":
            return recipe
        return replace(recipe, normalization=self._dataset_normalization(recipe))

    def _dataset_normalization(self, recipe: Recipe) -> Normalization:
        """Statistics of this run, unless the collection froze its own before."""
        frozen = None if self.options.full else self._frozen_statistics(recipe)
        return frozen or measure_normalization(self.inputs, self.progress)

    def _own_space(self) -> SpaceRecord | None:
        """The space that the collection is searched in now."""
        if self.maybe_engine is None:
            return None
        with self.engine.connect() as connection:
            return collection_space(connection, self.inputs.collection)

    def _frozen_statistics(self, recipe: Recipe) -> Normalization | None:
        space = self._own_space()
        if space is None or space.recipe["normalization"]["name"] != "dataset":
            return None
        frozen = Normalization.from_dict(space.recipe["normalization"])
        same = replace(recipe, normalization=frozen).to_dict() == space.recipe
        return frozen if same else None

    # The work --------------------------------------------------------------------------------

    def complete(self) -> ReindexReport:
        """Embed, freeze the projection, publish."""
        started = time.monotonic()
        for batch in in_batches(self._work(), self.options.batch_size):
            self._commit(batch)
            self.progress.advance(len(batch))
            # Or these chips would stay in memory while the next batch is read.
            del batch
        self.progress.finish()
        seconds = time.monotonic() - started - self.loading_s
        return self._report(self._publish(), seconds)

    def dry(self) -> ReindexReport:
        """Go through all pixels, but embed and write nothing."""
        started = time.monotonic()
        for _, prepared, _ in self._work():
            self._count(prepared)
            self.progress.advance(1)
        self.progress.finish()
        return self._report(None, time.monotonic() - started)

    def _work(self) -> Iterator[tuple[FloatArray, list[Prepared], Chip]]:
        """Chips with the parcels in them that are new or changed."""
        for chip, plan in chips(self.inputs, self.findings, self.progress, "Embedding"):
            prepared = prepare(
                chip,
                plan,
                self.inputs.pooling,
                self.encoder.patches_per_side,
                self.findings,
            )
            known = self._known(chip.scene, prepared)
            changed: list[Prepared] = []
            unchanged: list[Prepared] = []
            for parcel in prepared:
                same = _same(parcel, known.get(parcel.parcel.parcel_id))
                (unchanged if same else changed).append(parcel)
            if unchanged:
                self._keep(chip, unchanged, known)
            if changed:
                yield self._image(chip, changed), changed, chip
            else:
                self.progress.advance(1)

    def _image(self, chip: Chip, prepared: Sequence[Prepared]) -> FloatArray:
        """The encoder's input; empty where nothing will be embedded."""
        if self.options.dry_run or not any(parcel.embeddable for parcel in prepared):
            return np.empty(0, np.float32)
        self._load_encoder()
        return input_of(chip, self.recipe)

    def _known(self, scene: str, prepared: Sequence[Prepared]) -> dict[str, Known]:
        if self.maybe_engine is None or self.collection_id is None or not prepared:
            return {}
        space_id = None if self.space is None else self.space.id
        ids = [parcel.parcel.parcel_id for parcel in prepared]
        with self.engine.connect() as connection:
            return known_observations(connection, self.collection_id, space_id, scene, ids)

    def _keep(self, chip: Chip, unchanged: Sequence[Prepared], known: Mapping[str, Known]) -> None:
        """Leave vectors as they are; names, crops and the image's place may have changed."""
        self.unchanged += len(unchanged)
        if self.options.dry_run or self.collection_id is None:
            return
        with self.engine.begin() as connection:
            save_parcels(connection, self.collection_id, [parcel.parcel for parcel in unchanged])
            image = (_absolute(chip.source), chip.layer_bands)
            kept = [known[parcel.parcel.parcel_id] for parcel in unchanged]
            moved = [one.observation_id for one in kept if (one.source, one.layer_bands) != image]
            remember_image(connection, moved, *image)

    def _count(self, prepared: Sequence[Prepared]) -> int:
        """Count a chip's parcels; returns how many of them are to be embedded."""
        embeddable = sum(parcel.embeddable for parcel in prepared)
        self.embedded += embeddable
        self.clouded += len(prepared) - embeddable
        self.chips += embeddable > 0
        return embeddable

    def _commit(self, batch: Sequence[tuple[FloatArray, list[Prepared], Chip]]) -> None:
        """Embed a batch in one forward pass and write it in one transaction."""
        to_embed = [
            (image, [parcel for parcel in prepared if parcel.embeddable])
            for image, prepared, _ in batch
            if self._count(prepared)
        ]
        embeddings: dict[int, FloatArray] = {}
        if to_embed:
            images, parcels = zip(*to_embed, strict=True)
            encoded = encode(self.encoder, images, parcels)
            for chip_parcels, rows in zip(parcels, encoded, strict=True):
                embeddings.update(zip(map(id, chip_parcels), rows, strict=True))
        space = self._ensure_space()
        records: list[ObservationRecord] = []
        for _, prepared, chip in batch:
            known = self._known(chip.scene, prepared)
            records += [
                _record(
                    parcel, chip, known.get(parcel.parcel.parcel_id), embeddings.get(id(parcel))
                )
                for parcel in prepared
            ]
        self._write(space, records)

    def _write(self, space: SpaceRecord, records: Sequence[ObservationRecord]) -> None:
        vectors: list[FloatArray | None] = [None] * len(records)
        if space.projection is not None:
            vectors = [
                None
                if record.embedding is None
                else space.projection.apply(record.embedding[None])[0]
                for record in records
            ]
        with self.engine.begin() as connection:
            collection_id = ensure_collection(connection, self.inputs.collection)
            kept = count_kept_embeddings(connection, space.id)
            room = len(records) if space.projection is None else MAX_ROWS_FOR_PCA - kept
            save_observations(connection, collection_id, space.id, records, vectors, room)
        self.collection_id = collection_id
        embedded = sum(record.embedding is not None for record in records)
        if space.projection is None and kept + embedded >= MAX_ROWS_FOR_PCA:
            self._freeze_projection()

    def _load_encoder(self) -> None:
        if self.encoder.loaded:
            return
        started = time.monotonic()
        self.progress.rename(f"Loading {self.encoder.name}")
        self.encoder.load()
        self.progress.rename("Embedding")
        self.loading_s += time.monotonic() - started

    def _ensure_space(self) -> SpaceRecord:
        if self.space is None:
            path = None if self.weights.path is None else str(self.weights.path.resolve())
            with self.engine.begin() as connection:
                space_id = create_space(connection, self.recipe.to_dict(), self.recipe.digest, path)
                self.space = get_space(connection, space_id)
        return self.space

    def _freeze_projection(self) -> None:
        """Fit the projection on what was embedded so far, and give every waiting row its vector."""
        space = self._ensure_space()
        with self.engine.begin() as connection:
            _, sample = kept_embeddings(connection, space.id)
            projection = Projection.fit(sample)
            digest = space_digest(space.recipe, projection)
            freeze_projection(connection, space.id, projection.kind, projection.to_bytes(), digest)
            ids, embeddings = rows_without_vector(connection, space.id)
            set_vectors(connection, ids.tolist(), projection.apply(embeddings))
            self.space = get_space(connection, space.id)

    # The end ---------------------------------------------------------------------------------

    def _publish(self) -> Manifest | None:
        """Publish a generation if the catalog holds vectors that the current one does not."""
        if self.space is None or self.collection_id is None:
            return None
        with self.engine.begin() as connection:
            found = has_embeddings(connection, self.space.id)
            if self.weights.path is not None:
                path = str(self.weights.path.resolve())
                remember_weights_path(connection, self.space.id, path)
            own = collection_space(connection, self.inputs.collection)
        if not found:
            return None
        if self.space.projection is None:
            self._freeze_projection()
        folder = self.settings.generations_dir
        if own is not None and own.id == self.space.id and is_current(self.engine, folder, own):
            return self._current_manifest(own)
        # Before anybody can find them, so that no answer lacks a cluster.
        assign_new_vectors(self.engine, self.space.id)
        return build_generation(self.engine, folder, self.space.id, self.collection_id)

    def _current_manifest(self, space: SpaceRecord | None) -> Manifest | None:
        if space is None or space.current_generation_id is None:
            return None
        with self.engine.connect() as connection:
            return Manifest.from_dict(get_generation(connection, space.current_generation_id))

    def _report(self, manifest: Manifest | None, seconds: float) -> ReindexReport:
        if manifest is None:
            manifest = self._current_manifest(self._own_space())
        parcels = observations = 0
        if self.maybe_engine is not None and self.collection_id is not None:
            with self.engine.connect() as connection:
                parcels, observations = count_collection(connection, self.collection_id)
        recipe = self.recipe.to_dict()
        return ReindexReport(
            generation=None if manifest is None else manifest.generation,
            space=describe_space(recipe, None) if manifest is None else manifest.space,
            collection=self.inputs.collection,
            read=self.findings.read,
            embedded=self.embedded,
            chips=self.chips,
            unchanged=self.unchanged,
            clouded=self.clouded,
            skipped=self.findings.skipped,
            parcels=parcels,
            observations=observations,
            seconds=seconds,
            recall_at_10=None if manifest is None else manifest.recall_at_10,
            projection_recall_at_10=None if manifest is None else manifest.projection_recall_at_10,
            projection=None if manifest is None else manifest.projection,
            notes=[*notes_for(recipe), *self.findings.told],
            dry_run=self.options.dry_run,
        )


def _same(prepared: Prepared, known: Known | None) -> bool:
    """Whether the catalog holds this observation, from these pixels, as far as it can be had."""
    if known is None or known.fingerprint != prepared.fingerprint:
        return False
    return known.embedded == prepared.fingerprint or not prepared.embeddable


def _record(
    prepared: Prepared, chip: Chip, known: Known | None, embedding: FloatArray | None
) -> ObservationRecord:
    return ObservationRecord(
        parcel=prepared.parcel,
        scene=chip.scene,
        source=_absolute(chip.source),
        acquired_at=chip.acquired_at,
        processing_baseline=chip.processing_baseline,
        state=prepared.state,
        fingerprint=prepared.fingerprint,
        known=known,
        embedding=embedding,
        layer_bands=chip.layer_bands,
    )


def _absolute(source: str) -> str:
    """A path that means the same to a service that was started elsewhere."""
    return os.path.abspath(source)
