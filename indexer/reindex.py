"""``reindex``: images and parcels in, a published generation out. Top to bottom.

Work is committed batch by batch. Whatever interrupts a run, the published generation goes on
answering, and the next run skips what is already there.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from indexer.blocks import BlockWork
from indexer.catalog.changes import snapshot
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
    current_extent,
    embeddings_of_parcels,
    find_collection,
    find_space,
    get_generation,
    get_space,
    has_embeddings,
    kept_embeddings,
    known_observations,
    parcels_gone,
    rows_without_vector,
)
from indexer.catalog.writing import (
    Known,
    ObservationRecord,
    create_space,
    delete_parcels,
    ensure_collection,
    freeze_projection,
    remember_image,
    remember_weights_path,
    save_observations,
    save_parcels,
    set_vectors,
)
from indexer.chipping import ChipPlan
from indexer.clusters.assigning import assign_new_vectors
from indexer.embedder import Embedded, Embedder, embed_ahead
from indexer.embedding_space import (
    PixelRecipe,
    Recipe,
    describe_space,
    notes_for,
    space_digest,
)
from indexer.encoders.agreement import measure_agreement
from indexer.encoders.choice import open_croma, open_pixel_encoder
from indexer.encoders.croma import CromaEncoder, Precision, best_precision
from indexer.encoders.pixel_encoder import PixelEncoder
from indexer.errors import InvalidInputError
from indexer.findings import Findings
from indexer.generations.backends import Backend, backend_of
from indexer.generations.compaction import standing_of, stands
from indexer.generations.history import Guard
from indexer.generations.manifest import Manifest
from indexer.generations.recovery import recover
from indexer.generations.store import Additions, build_generation, is_current
from indexer.imagery.chip import Chip
from indexer.imagery.sources import Source
from indexer.inputs import EmbeddingOptions, check_options, resolve_inputs
from indexer.lock import only_writer
from indexer.normalization import Normalization
from indexer.parcels.parcel import Parcel
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
from indexer.projection import MAX_ROWS_FOR_PCA, Projection
from indexer.ray_cluster import RayCluster, embed_on_cluster
from indexer.settings import Settings
from indexer.skipped import Skipped

FloatArray = npt.NDArray[np.float32]

# Tiles of a run that are held against fp32: enough for the nearest neighbors of their parcels, and
# no more than one in so many of the run's.
_MOST_SAMPLED, _LEAST_SAMPLED, _SAMPLED_PART = 16, 4, 50
# Passes that a dry run times, after one that warms up.
_TRIED_PASSES = 3


@dataclass(frozen=True)
class ReindexOptions(EmbeddingOptions):
    """Options of ``parcelle reindex``."""

    full: bool = False
    """Embed everything again, in a space whose projection is fitted anew."""
    dry_run: bool = False
    """Only say what would be done."""
    prune: bool = False
    """Retire parcels that the source does not name any more."""
    ray: str | None = None
    """Address of a Ray cluster that embeds; None embeds in this process."""


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
    """Forward passes that took: one for each tile, however many parcels it serves."""
    unchanged: int
    """Observations that were there already, pixel for pixel."""
    clouded: int
    """Observations stored without a vector, because clouds or gaps hide too much."""
    skipped: list[Skipped]
    parcels: int
    """Parcels of the collection now."""
    observations: int
    """Observations of the collection now."""
    retired: int
    """Parcels that the source does not name any more, and that ``prune`` took out."""
    seconds: float
    """Reading to committed rows, without imports, loading of weights and building the index."""
    network_seconds: float
    """Those among them in which the network computed."""
    estimated_seconds: float | None
    """What a run would take, of a dry run: a few passes were tried."""
    recall_at_10: float | None
    projection_recall_at_10: float | None
    projection: str | None
    precision_agreement: dict[str, Any] | None
    """How well the space's precision agrees with fp32; None for fp32."""
    notes: list[str]
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        fields = dict(self.__dict__)
        fields["skipped"] = [skipped.to_dict() for skipped in self.skipped]
        for name in ("seconds", "network_seconds", "estimated_seconds"):
            fields[name] = None if fields[name] is None else round(fields[name], 3)
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
    inputs = resolve_inputs(
        imagery, options, findings, None if pixels is None else pixels.bands, progress
    )
    encoder = pixels or open_croma(
        options.encoder,
        options.weights or settings.croma_weights,
        options.device,
        options.precision or _usual_precision(settings, options),
        options.modality,
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
        with only_writer(settings, engine, doing="reindex") as held:
            if schema_status(engine) == "empty":
                upgrade(engine)
            require_current_schema(engine)
            recover(engine, settings.generations_dir, backend_of(settings))
            run = _Run(settings, engine, options, inputs, encoder, findings, progress)
            return run.complete(held.still_held)
    finally:
        engine.dispose()


def _usual_precision(settings: Settings, options: ReindexOptions) -> Precision:
    """That of the collection's vectors, so that new ones meet them, else the device's best."""
    if database_exists(settings):
        engine = connect(settings)
        try:
            if schema_status(engine) == "current":
                with engine.connect() as connection:
                    space = collection_space(connection, options.collection)
                recipe = {} if space is None else space.recipe
                if recipe.get("encoder") == options.encoder:
                    kept: Precision = recipe["precision"]
                    return kept
        finally:
            engine.dispose()
    return best_precision(options.device)


class _Run:
    """The state of one reindex on its way from images to a generation."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine | None,
        options: ReindexOptions,
        inputs: Inputs,
        encoder: CromaEncoder | PixelEncoder,
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
        self.embedder = Embedder(encoder)
        self.embedded = self.unchanged = self.clouded = self.retired = 0
        self.loading_s = 0.0
        self.room: int | None = None
        """How many more embeddings are kept at full length; None until somebody asks."""
        self.gone: list[int] = []
        """Rows of the parcels that are to be retired."""
        self.collection_id = self._find_collection()
        self.recipe = self._recipe()
        self.preparation = Preparation(self.recipe, inputs.pooling, encoder.patches_per_side)
        self.space = self._find_space()
        self.sample: list[TileWork] = []

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
        recipe = recipe_of(self.encoder, self.inputs)
        if self.options.normalization != "dataset" or isinstance(recipe, PixelRecipe):
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

    def complete(self, guard: Guard) -> ReindexReport:
        """Embed, freeze the projection, publish.

        Args:
            guard: Is called inside the publishing transaction; raises if another may write by now.
        """
        self.gone = self._find_gone()
        started = time.monotonic()
        if self.options.ray is None:
            batches = in_batches(self._work(), self.options.batch_size)
            for embedded, tiles in embed_ahead(self.embedder, batches):
                self._store(embedded)
                self.progress.advance(tiles)
        else:
            self._embed_on_cluster(self.options.ray)
        self.progress.finish()
        seconds = time.monotonic() - started - self.loading_s
        return self._report(self._publish(guard), seconds)

    def dry(self) -> ReindexReport:
        """Go through all pixels, but embed and write nothing, save for a few passes to time."""
        self.gone = self._find_gone()
        self.retired = len(self.gone)
        started = time.monotonic()
        passes, trial = 0, Embedder(self.encoder)
        for work in self._work():
            passes += bool(work.jobs)
            self.clouded += len(work.clouded)
            if work.image.size:
                trial.embed([work])
                if trial.passes == 1:
                    # The first takes longer than those that follow.
                    trial.seconds = 0.0
            self.progress.advance(1)
        self.progress.finish()
        seconds = time.monotonic() - started - self.loading_s
        timed = max(1, trial.passes - 1)
        # Reading goes on while the network computes.
        estimate = max(seconds - trial.seconds, passes * trial.seconds / timed)
        self.embedder.passes = passes
        return self._report(None, seconds, estimate)

    def _work(self) -> Iterator[TileWork]:
        """Tiles with the parcels in them that are new or changed."""
        take = partial(
            tile_works,
            preparation=self.preparation,
            findings=self.findings,
            progress=self.progress,
            wanted=self._changed,
            input_of=self._input_of,
        )
        for work in each_image(self.inputs, self.findings, self.progress, "Embedding", take):
            if work.jobs and len(self.sample) < _MOST_SAMPLED:
                self.sample.append(work)
            yield work

    def _embed_on_cluster(self, address: str) -> None:
        """As a run of one process, but for the reading and embedding."""
        started = time.monotonic()
        work = BlockWork.of(
            self.inputs,
            self.preparation,
            self.options.batch_size,
            _changed,
            self.encoder,
            self.options.device,
        )
        sampled = 0 if self.encoder.precision == "fp32" else _MOST_SAMPLED
        with RayCluster(address, work) as cluster:
            self.loading_s += time.monotonic() - started
            for result in embed_on_cluster(
                cluster, self.inputs, self.findings, self.progress, self._known_of_tiles, sampled
            ):
                for piece in result.pieces:
                    if piece.unchanged:
                        self._keep(piece.unchanged)
                self._store(result.embedded)
                self.sample += result.sample
                self.embedder.passes += result.passes
                self.embedder.seconds += result.network_seconds

    def _known_of_tiles(self, source: Source, plan: Sequence[ChipPlan]) -> Mapping[str, Known]:
        parcels = [target.parcel for tile in plan for target in tile.targets]
        parcels += [view.target.parcel for tile in plan for view in tile.views]
        return self._known(source.name, parcels)

    def _changed(self, prepared: list[Prepared]) -> list[Prepared]:
        """Leave those that the catalog holds as they are; the others carry what it knows."""
        known = self._known(prepared[0].seen.scene, [one.parcel for one in prepared])
        changed: list[Prepared] = []
        unchanged: list[Prepared] = []
        for one in prepared:
            there = known.get(one.parcel.parcel_id)
            (changed if _changed(one, there) else unchanged).append(replace(one, known=there))
        if unchanged:
            self._keep(unchanged)
        if self.options.dry_run:
            self.embedded += sum(one.embeddable for one in changed)
        return changed

    def _input_of(self, chip: Chip) -> FloatArray:
        if self.options.dry_run and len(self.sample) > _TRIED_PASSES:
            return np.empty(0, np.float32)
        self._load_encoder()
        return self.preparation.input_of(chip)

    def _known(self, scene: str, parcels: Sequence[Parcel]) -> Mapping[str, Known]:
        if self.maybe_engine is None or self.collection_id is None:
            return {}
        space_id = None if self.space is None else self.space.id
        ids = [parcel.parcel_id for parcel in parcels]
        with self.engine.connect() as connection:
            return known_observations(connection, self.collection_id, space_id, scene, ids)

    def _keep(self, unchanged: Sequence[Prepared]) -> None:
        """Leave vectors as they are; names, crops and the image's place may have changed."""
        self.unchanged += len(unchanged)
        if self.options.dry_run or self.collection_id is None:
            return
        seen = unchanged[0].seen
        image = _absolute(seen.source), seen.layer_bands
        known = [one.known for one in unchanged if one.known is not None]
        moved = [one.observation_id for one in known if (one.source, one.layer_bands) != image]
        with self.engine.begin() as connection:
            save_parcels(connection, self.collection_id, [one.parcel for one in unchanged])
            remember_image(connection, moved, *image)

    def _store(self, embedded: Sequence[Embedded]) -> None:
        """Write what is complete in one transaction."""
        if not embedded:
            return
        count = sum(one.embedding is not None for one in embedded)
        self.embedded += count
        self.clouded += len(embedded) - count
        self._write(self._ensure_space(), [_record(one) for one in embedded])

    def _write(self, space: SpaceRecord, records: Sequence[ObservationRecord]) -> None:
        """Write records; the projection is fitted as soon as there are enough, not later.

        So its sample is the same however a run is cut into batches, or was interrupted.
        """
        if space.projection is None:
            missing = self._room(space)
            embedded = [number for number, one in enumerate(records) if one.embedding is not None]
            if len(embedded) >= missing:
                end = embedded[missing - 1] + 1 if missing > 0 else 0
                self._write_some(space, records[:end])
                self._freeze_projection()
                space, records = self._ensure_space(), records[end:]
        self._write_some(space, records)

    def _write_some(self, space: SpaceRecord, records: Sequence[ObservationRecord]) -> None:
        if not records:
            return
        vectors: list[FloatArray | None] = [None] * len(records)
        rows = [number for number, one in enumerate(records) if one.embedding is not None]
        if space.projection is not None and rows:
            stacked = np.stack([one.embedding for one in records if one.embedding is not None])
            for number, vector in zip(rows, space.projection.apply(stacked), strict=True):
                vectors[number] = vector
        room = self._room(space)
        with self.engine.begin() as connection:
            collection_id = ensure_collection(connection, self.inputs.collection)
            save_observations(connection, collection_id, space.id, records, vectors, room)
        self.collection_id = collection_id
        self.room = max(0, room - len(rows))

    def _room(self, space: SpaceRecord) -> int:
        """How many more embeddings are kept at full length."""
        if self.room is None:
            # Once for a run: among millions of rows they take long to be found.
            with self.engine.connect() as connection:
                self.room = MAX_ROWS_FOR_PCA - count_kept_embeddings(connection, space.id)
        return self.room

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

    def _publish(self, guard: Guard) -> Manifest | None:
        """Publish a generation if the current one should not go on with what was committed since.

        Searches find that anyway; a small index is built anew at once, a large one when it is due.
        """
        if self.space is None or self.collection_id is None:
            return None
        with self.engine.begin() as connection:
            found = has_embeddings(connection, self.space.id)
            if self.weights.path is not None:
                path = str(self.weights.path.resolve())
                remember_weights_path(connection, self.space.id, path)
            own = collection_space(connection, self.inputs.collection)
        if found and self.space.projection is None:
            self._freeze_projection()
        if self.gone:
            self._keep_the_last_vectors(self.space)
        if not found:
            return None
        folder = self.settings.generations_dir
        current = own is not None and own.id == self.space.id
        backend = backend_of(self.settings)
        if current and not self.gone and is_current(self.engine, folder, self.space, backend):
            return self._current_manifest(self.space)
        # As soon as they can be found, so that few answers lack a cluster.
        assign_new_vectors(self.engine, self.space.id)
        if current and (standing := self._left_standing(self.space, backend)) is not None:
            return standing
        additions = Additions(self._agreement(), self.gone)
        self.retired = len(self.gone)
        return build_generation(
            self.engine,
            folder,
            self.space.id,
            self.collection_id,
            additions,
            backend=backend,
            guard=guard,
        )

    def _left_standing(self, space: SpaceRecord, backend: Backend) -> Manifest | None:
        """The current generation, if it need not be built anew; parcels are retired beside it."""
        manifest, folder = self._current_manifest(space), self.settings.generations_dir
        if manifest is None or self.options.full:
            return None
        if not stands(self.engine, folder, space.id, manifest, backend):
            return None
        if self.gone:
            with self.engine.begin() as connection:
                delete_parcels(connection, self.gone)
            self.retired = len(self.gone)
        with snapshot(self.engine) as connection:
            since = standing_of(connection, folder, space.id, manifest)
        self.findings.notes.append(
            f"Generation {manifest.generation} goes on, with {since.rows} vectors added and "
            f"{since.removed} removed since, which searches find or leave out already; parcelle "
            "generations compact builds them into the index."
        )
        return manifest

    def _keep_the_last_vectors(self, space: SpaceRecord) -> None:
        """Retire nothing where no vector would remain that could be published."""
        with self.engine.connect() as connection:
            gone = embeddings_of_parcels(connection, space.id, self.gone)
            rows, _ = current_extent(connection, space.id)
        if len(gone) == rows:
            self.findings.doubt(
                "--prune retired nothing: no parcel that remains has a vector, and without one "
                "there is nothing to publish."
            )
            self.gone = []

    def _find_gone(self) -> list[int]:
        """Rows of the parcels that are to be retired, before any work is done.

        Raises:
            InvalidInputError: If the source names no parcel that is there (``invalid-option``).
        """
        if not self.options.prune or self.maybe_engine is None or self.collection_id is None:
            return []
        if self.inputs.unlisted:
            self.findings.doubt(
                f"--prune retired nothing: {self.inputs.unlisted} inputs could not be listed, so "
                "that nobody knows which images they name."
            )
            return []
        with self.engine.connect() as connection:
            gone = parcels_gone(connection, self.collection_id, self.inputs.named)
            there, _ = count_collection(connection, self.collection_id)
        if gone and len(gone) == there:
            raise InvalidInputError(
                f"--prune: the source names none of the {there} parcels of collection "
                f"{self.inputs.collection}, so that all of them would go; check --collection and "
                "how ids are found, or embed the new ones without --prune first.",
                kind="invalid-option",
            )
        return list(gone.values())

    def _agreement(self) -> dict[str, Any] | None:
        """Hold some tiles of the run against the same network in fp32, once for a space."""
        former = self._current_manifest(self.space)
        measured = former is not None and former.precision_agreement is not None
        if measured or not self.sample or isinstance(self.encoder, PixelEncoder):
            return None
        if self.encoder.precision == "fp32":
            return None
        self.progress.rename("Comparing with fp32")
        # So many that it takes a small part of the run's time.
        sample = self.sample[: max(_LEAST_SAMPLED, self.embedder.passes // _SAMPLED_PART)]
        reference = self.encoder.in_precision("fp32")
        return measure_agreement(
            self.encoder,
            reference,
            [work.image for work in sample],
            [np.stack([weights for _, weights in work.jobs]) for work in sample],
        ).to_dict()

    def _current_manifest(self, space: SpaceRecord | None) -> Manifest | None:
        if space is None or space.current_generation_id is None:
            return None
        with self.engine.connect() as connection:
            return Manifest.from_dict(get_generation(connection, space.current_generation_id))

    def _report(
        self, manifest: Manifest | None, seconds: float, estimate: float | None = None
    ) -> ReindexReport:
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
            chips=self.embedder.passes,
            unchanged=self.unchanged,
            clouded=self.clouded,
            skipped=self.findings.skipped,
            parcels=parcels,
            observations=observations,
            retired=self.retired,
            seconds=seconds,
            network_seconds=self.embedder.seconds,
            estimated_seconds=estimate,
            recall_at_10=None if manifest is None else manifest.recall_at_10,
            projection_recall_at_10=None if manifest is None else manifest.projection_recall_at_10,
            projection=None if manifest is None else manifest.projection,
            precision_agreement=None if manifest is None else manifest.precision_agreement,
            notes=[*notes_for(recipe), *self.findings.told],
            dry_run=self.options.dry_run,
        )


def _changed(prepared: Prepared, known: Known | None) -> bool:
    """Whether the catalog lacks this observation, or has it from other pixels."""
    if known is None or known.fingerprint != prepared.fingerprint:
        return True
    return known.embedded != prepared.fingerprint and prepared.embeddable


def _record(embedded: Embedded) -> ObservationRecord:
    prepared, seen = embedded.prepared, embedded.prepared.seen
    return ObservationRecord(
        parcel=prepared.parcel,
        scene=seen.scene,
        source=_absolute(seen.source),
        acquired_at=seen.acquired_at,
        processing_baseline=seen.processing_baseline,
        state=prepared.state,
        fingerprint=prepared.fingerprint,
        known=prepared.known,
        embedding=embedded.embedding,
        layer_bands=seen.layer_bands,
    )


def _absolute(source: str) -> str:
    """A path that means the same to a service that was started elsewhere; addresses stay."""
    return source if "://" in source else os.path.abspath(source)
