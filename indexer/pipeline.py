"""The way of a pixel, shared by ``reindex`` and ``embed``: images to tiles to what is embedded."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from indexer.chipping import (
    ChipPlan,
    ParcelFinder,
    ScenePlan,
    Window,
    image_windows,
    stride_px,
    whole_image,
)
from indexer.embedding_space import PixelRecipe, Pooling, Recipe
from indexer.encoders.croma import IMAGE_PX, CromaEncoder
from indexer.encoders.pixel_encoder import PixelEncoder
from indexer.errors import ImageryError, ParcelsError
from indexer.findings import Findings
from indexer.imagery.chip import Chip
from indexer.imagery.image import Image
from indexer.imagery.joint import JointImage, JointReading
from indexer.imagery.rasters import held_open
from indexer.imagery.reader import ReadingOptions, Scene, baseline_doubt
from indexer.imagery.sources import ImageSource, Source
from indexer.imagery.spectral_cube import SpectralImage
from indexer.imagery.spectral_sources import (
    MOST_CHIP_VALUES,
    SpectralReading,
    is_sentinel2,
    layer_bands,
)
from indexer.imagery.stac.item import StacSource, open_stac
from indexer.normalization import Normalization
from indexer.parcels.parcel import Parcel
from indexer.preparing import Preparation, Prepared
from indexer.progress import Progress
from indexer.read_ahead import ReadAhead
from indexer.statistics import BandStatistics

FloatArray = npt.NDArray[np.float32]

# Tiles of one batch that wait in memory.
_MOST_BATCH_BYTES = 2**28


def open_scene(source: Source, options: ReadingOptions) -> Scene:
    """Open an image of Sentinel-2 or Sentinel-1, from files or a catalog.

    Raises:
        ImageryError: If it cannot be used.
    """
    if isinstance(source, StacSource):
        return open_stac(source, options)
    return Scene.open(on_disk(source), options)


def on_disk(source: Source) -> ImageSource:
    """A source that is known to be files."""
    if not isinstance(source, ImageSource):
        raise TypeError(f"{source.location} is no file")
    return source


@dataclass(frozen=True)
class Inputs:
    """Everything a run reads, resolved before any work begins."""

    sources: Sequence[Source]
    finder: ParcelFinder | None
    """The parcels to look for; None where each image, or each window, is a parcel."""
    parcels_source: str
    """Name of the parcels file, for messages."""
    collection: str
    pooling: Pooling
    reading: ReadingOptions
    chip_px: int
    """Side of a tile in pixels of a scene."""
    spectral: SpectralReading | None = None
    """How images are read for an encoder of bands of its own; None reads ``reading``."""
    joint: JointReading | None = None
    """How optical images are read with the radar of their days; None reads one instrument."""
    windows_px: int | None = None
    """Side of the windows that images are cut into; None takes each image as one."""
    named: Container[str] = frozenset()
    """The ids of all parcels that the source names, also of those that cannot be used."""
    unlisted: int = 0
    """Folders, files or documents that may name more images, but could not be looked at; 0 where a
    file names the parcels."""

    def open(self, source: Source) -> Image:
        """Open an image as the encoder needs it.

        Raises:
            ImageryError: If it cannot be used.
        """
        if self.joint is not None:
            return self.joint.open(source)
        if self.spectral is not None:
            return self.spectral.open(on_disk(source))
        return open_scene(source, self.reading)

    def plan(self, image: Image) -> list[ChipPlan] | ScenePlan:
        """The tiles of an image.

        Raises:
            ImageryError: If it has no place for parcels (``no-crs``), or a chip would be too large
                (``too-large``).
        """
        if self.finder is not None:
            return self.finder.plan(image, self.pooling, self.chip_px)
        if self.windows_px is not None:
            plans = image_windows(image, self.collection, self.windows_px)
        else:
            plans = [whole_image(image, self.collection)]
        _check_values(image, plans[0])
        return plans


@dataclass(frozen=True)
class TileWork:
    """One tile on its way to the encoder."""

    image: FloatArray
    """The encoder's input; empty where nothing in it is to be embedded."""
    jobs: Sequence[tuple[Prepared, FloatArray]]
    """The parcels that it contributes to, each with the weights of its patches."""
    clouded: Sequence[Prepared]
    """Parcels that begin here of which too little is seen for an embedding."""


class Opened:
    """An image with its plan, and the reading of its tiles."""

    def __init__(self, image: Image, plan: list[ChipPlan] | ScenePlan, findings: Findings) -> None:
        self.image = image
        self.plan = plan
        self.begun = 0
        """Tiles that are done, or handed on, so far."""
        self._findings = findings
        self._looked = False
        self._ahead: ReadAhead | None = None

    def tiles(self) -> Iterator[ChipPlan]:
        """The tiles one by one; those on a server are read before they are asked for."""
        if not (isinstance(self.image, Scene | JointImage) and self.image.is_remote):
            for plan in self.plan:
                yield plan
                self.begun += 1
            return
        with ReadAhead(self._read, self.image.shape[1]) as self._ahead:
            for plan in self._ahead.through(self.plan):
                yield plan
                self.begun += 1
        self._ahead = None

    def _read(self, window: Window) -> Chip:
        return self.image.read(window.row, window.column, window.height, window.width)

    def read(self, window: Window) -> Chip:
        """The pixels of a window.

        Raises:
            ImageryError: If they cannot be read.
        """
        chip = self._read(window) if self._ahead is None else self._ahead.take(window)
        if isinstance(self.image, SpectralImage):
            chip = replace(chip, layer_bands=layer_bands(self.image))
        if not self._looked:
            self._look_at(chip)
        return chip

    def _look_at(self, chip: Chip) -> None:
        """Note what the first chip of an image, or its header, gives to think."""
        self._looked = True
        if isinstance(self.image, SpectralImage):
            self._findings.remark(self.image.source, self.image.notes)
        if not isinstance(self.image, SpectralImage) or is_sentinel2(self.image):
            self._findings.doubt(baseline_doubt(chip))


Taken = TypeVar("Taken")


def each_image(
    inputs: Inputs,
    findings: Findings,
    progress: Progress,
    task: str,
    take: Callable[[Opened], Iterator[Taken]],
) -> Iterator[Taken]:
    """Open every image, one at a time, and yield what ``take`` makes of it.

    An image that cannot be used, or not to its end, is skipped by name. Pixels are read window by
    window, so that memory does not grow with the size or the number of images.
    """
    steps = _Steps(progress, task, len(inputs.sources))
    names: dict[str, Source] = {}
    for source in inputs.sources:
        opened = None
        try:
            with held_open():
                image = inputs.open(source)
                _refuse_duplicate(source, names)
                opened = Opened(image, inputs.plan(image), findings)
                steps.opened(len(opened.plan))
                yield from take(opened)
            findings.read += 1
        except ImageryError as error:
            findings.skip(source.location, error)
            steps.skipped(opened)
    # Where no image could be read, none can say what lies outside of it.
    if inputs.finder is not None and findings.read:
        for parcel in inputs.finder.unseen():
            findings.skip(f"{inputs.parcels_source}#{parcel.parcel_id}", _outside(parcel))


class _Steps:
    """Tells the progress how many tiles there will be, as far as images are open."""

    def __init__(self, progress: Progress, task: str, images: int) -> None:
        self._progress = progress
        self._images, self._opened, self._tiles = images, 0, 0
        progress.start(task, images)

    def opened(self, tiles: int) -> None:
        """One more image is open."""
        self._opened += 1
        self._tiles += tiles
        self._expect()

    def skipped(self, opened: Opened | None) -> None:
        """The rest of an image is left out."""
        if opened is None:
            self._images -= 1
        else:
            self._tiles -= len(opened.plan) - opened.begun
        self._expect()

    def _expect(self) -> None:
        # Images that are not open yet will be like those that are.
        each = max(1.0, self._tiles / max(1, self._opened))
        self._progress.expect(self._tiles + round(each * (self._images - self._opened)))


def tile_works(
    opened: Opened,
    preparation: Preparation,
    findings: Findings,
    progress: Progress,
    wanted: Callable[[list[Prepared]], list[Prepared]],
    input_of: Callable[[Chip], FloatArray],
    *,
    also_clouded: bool = False,
) -> Iterator[TileWork]:
    """What there is to embed of an image, tile by tile.

    Args:
        opened: The image.
        preparation: How chips are prepared.
        findings: Receives what is skipped.
        progress: Is told of tiles with nothing to do; whoever takes the others reports them.
        wanted: Chooses among the parcels of a tile, as they were prepared.
        input_of: Makes the encoder's input of a tile.
        also_clouded: Embed also what clouds hide for the most part.
    """
    pending: dict[Window, list[tuple[Prepared, FloatArray]]] = defaultdict(list)
    empty = 0
    for plan in opened.tiles():
        chip = opened.read(plan.window) if plan.targets else None
        if chip is not None and plan.is_window and not chip.data_mask.any():
            empty += 1
            progress.advance(1)
            continue
        begun: list[Prepared] = []
        for view in plan.views:
            prepared = preparation.view(opened.read(view.window), view, findings)
            begun += [] if prepared is None else [prepared]
        if chip is not None:
            begun += preparation.parcels(chip, plan.window, plan.targets, findings)
        clouded: list[Prepared] = []
        for prepared in wanted(begun) if begun else []:
            if not prepared.embeddable and not also_clouded:
                clouded.append(prepared)
                continue
            for tile, weights in prepared.parts:
                pending[tile].append((prepared, weights))
        jobs = pending.pop(plan.window, [])
        if not jobs and not clouded:
            progress.advance(1)
            continue
        image = np.empty(0, np.float32)
        if jobs:
            image = input_of(opened.read(plan.window) if chip is None else chip)
        yield TileWork(image, jobs, clouded)
    if empty:
        findings.remark(opened.image.source, [f"{empty} windows without data are left out"])


def _check_values(image: Image, plan: ChipPlan) -> None:
    """Refuse a chip that would not fit into memory.

    Raises:
        ImageryError: ``too-large``.
    """
    bands = len(image.bands) if isinstance(image, SpectralImage) else 1
    if plan.height * plan.width * bands > MOST_CHIP_VALUES:
        raise ImageryError(
            f"{image.source.location}: {plan.height} x {plan.width} px of {bands} bands are too "
            f"much to be looked at at once (at most {MOST_CHIP_VALUES:,} values); cut it into "
            "smaller windows with --windows.",
            kind="too-large",
        )


def _refuse_duplicate(source: Source, names: dict[str, Source]) -> None:
    """Names become parcel ids and scenes, so the first usable image of a name stands.

    Raises:
        ImageryError: If another image of this name was read before (``duplicate-id``).
    """
    kept = names.setdefault(source.name, source)
    if kept is not source:
        raise ImageryError(
            f"{source.location}: its name {source.name!r} is also that of {kept.location}, which "
            "was taken; rename one, or reindex them into two collections.",
            kind="duplicate-id",
        )


def _outside(parcel: Parcel) -> ParcelsError:
    return ParcelsError(
        f"Parcel {parcel.parcel_id} lies outside of every image; add imagery that shows it.",
        kind="outside-imagery",
    )


def recipe_of(encoder: CromaEncoder | PixelEncoder, inputs: Inputs) -> Recipe | PixelRecipe:
    """How images become embeddings in a run, with the normalization that is usual for it."""
    if isinstance(encoder, PixelEncoder):
        return encoder.recipe(inputs.pooling)
    on_scenes = inputs.finder is not None
    return Recipe(
        encoder=encoder.name,
        weights=encoder.weights,
        bands=encoder.bands,
        normalization=Normalization.ssl4eo(encoder.modality),
        pooling=inputs.pooling,
        image_px=IMAGE_PX,
        dimensions=encoder.dimensions,
        precision=encoder.precision,
        modality=encoder.modality,
        tile_px=inputs.chip_px if on_scenes else None,
        stride_px=stride_px(inputs.chip_px) if on_scenes else None,
    )


def measure_normalization(inputs: Inputs, progress: Progress) -> Normalization:
    """Z-score statistics over the valid pixels of all tiles, in one streaming pass.

    Raises:
        ImageryError: If no image has a valid pixel (``no-valid-pixels``).
    """
    statistics = BandStatistics.empty(inputs.reading.wanted)

    def chips(opened: Opened) -> Iterator[Chip]:
        for plan in opened.tiles():
            yield opened.read(plan.window)

    # The pass that embeds will meet the same unusable images again, and names them.
    for chip in each_image(inputs, Findings(), progress, "Measuring statistics", chips):
        statistics.update(chip.reflectance[:, chip.valid_mask])
        progress.advance(1)
    progress.finish()
    if (statistics.count == 0).any():
        raise ImageryError(
            "--normalization dataset: no image has a valid pixel to measure; use other images or "
            "--normalization ssl4eo.",
            kind="no-valid-pixels",
        )
    return Normalization.dataset(inputs.reading.wanted, statistics.mean, statistics.std)


def in_batches(works: Iterable[TileWork], size: int) -> Iterator[list[TileWork]]:
    """Group tiles so that each group is at most ``size`` forward passes.

    Groups of large chips are smaller, so that they fit into memory.
    """
    batch: list[TileWork] = []
    held = 0
    for work in works:
        batch.append(work)
        held += work.image.nbytes
        if len(batch) == size or held >= _MOST_BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
