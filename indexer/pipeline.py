"""The way of a pixel, shared by ``reindex`` and ``embed``: images to chips to embeddings."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from indexer.chipping import (
    ChipPlan,
    ParcelFinder,
    Target,
    count_windows,
    image_windows,
    whole_image,
)
from indexer.embedding_space import PixelRecipe, Pooling, Recipe
from indexer.encoders.base import Encoder
from indexer.encoders.croma import resize
from indexer.encoders.pixel_encoder import pixel_input
from indexer.errors import ImageryError, ParcelleError, ParcelsError
from indexer.imagery.chip import Chip
from indexer.imagery.image import Image
from indexer.imagery.reader import ReadingOptions, Scene, baseline_doubt
from indexer.imagery.sources import ImageSource
from indexer.imagery.spectral_cube import SpectralImage
from indexer.imagery.spectral_sources import (
    MOST_CHIP_VALUES,
    SpectralReading,
    is_sentinel2,
    layer_bands,
)
from indexer.normalization import Normalization
from indexer.observation_state import (
    INNER_BUFFER_M,
    MAX_LOST_FRACTION,
    ObservationState,
    observe,
)
from indexer.parcels.coverage import coverage, covered_fraction, inner_buffer
from indexer.parcels.parcel import Parcel
from indexer.progress import Progress
from indexer.skipped import Skipped
from indexer.statistics import BandStatistics

FloatArray = npt.NDArray[np.float32]

# Coverage is computed in float32; a pixel that is wholly inside may fall short of 1 by rounding.
_WHOLE = 1 - 1e-5
_MAX_DOUBTS = 20

# Chips of one batch that wait in memory.
_MOST_BATCH_BYTES = 2**28


@dataclass(frozen=True)
class Inputs:
    """Everything a run reads, resolved before any work begins."""

    sources: Sequence[ImageSource]
    finder: ParcelFinder | None
    """The parcels to look for; None where each image, or each window, is a parcel."""
    parcels_source: str
    """Name of the parcels file, for messages."""
    collection: str
    pooling: Pooling
    reading: ReadingOptions
    chip_px: int
    spectral: SpectralReading | None = None
    """How images are read for an encoder of bands of its own; None reads ``reading``."""
    windows_px: int | None = None
    """Side of the windows that images are cut into; None takes each image as one."""

    def open(self, source: ImageSource) -> Image:
        """Open an image as the encoder needs it.

        Raises:
            ImageryError: If it cannot be used.
        """
        if self.spectral is None:
            return Scene.open(source, self.reading)
        return self.spectral.open(source)

    def plan(self, image: Image) -> list[ChipPlan]:
        """The chips of an image.

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


@dataclass
class Findings:
    """What a run met on its way."""

    read: int = 0
    """Images whose pixels were read."""
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    """What is to be known of images, each with their names."""

    def skip(self, source: str, error: ParcelleError) -> None:
        """Note what was left out, and why."""
        self.skipped.append(Skipped.from_error(source, error))

    def doubt(self, note: str | None) -> None:
        """Note what seems wrong but was done as told."""
        if note is None or note in self.notes or len(self.notes) > _MAX_DOUBTS:
            return
        if len(self.notes) == _MAX_DOUBTS:
            note = "More images raise the same doubts; they are not listed."
        self.notes.append(note)

    def remark(self, source: ImageSource, notes: Iterable[str]) -> None:
        """Note what is to be known of an image; what many share is told once."""
        for note in notes:
            self.remarks.setdefault(note, []).append(source.name)

    @property
    def told(self) -> list[str]:
        """All notes, as sentences."""
        return [
            *self.notes,
            *(
                f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}."
                for note, names in self.remarks.items()
            ),
        ]


@dataclass(frozen=True)
class Prepared:
    """One parcel in one chip, ready to be embedded."""

    parcel: Parcel
    state: ObservationState
    pooling_weights: FloatArray
    """Share of each patch that counts, shape ``(patches, patches)``, or of each pixel of the chip
    where these are the patches."""
    fingerprint: str
    """SHA-256 of the chip's pixels and of the part of them that is the parcel."""

    @property
    def embeddable(self) -> bool:
        """Whether enough of the parcel is seen for a vector to describe it, and not the clouds."""
        return self.state.valid_fraction > 1 - MAX_LOST_FRACTION


def chips(
    inputs: Inputs, findings: Findings, progress: Progress, task: str
) -> Iterator[tuple[Chip, ChipPlan]]:
    """Read every chip of every image, one at a time; an unusable image is skipped by name.

    Yields:
        The chip and the plan that names its parcels; whoever takes them reports the progress.
        Pixels are read window by window, so that memory does not grow with the size or the
        number of images.
    """
    expected = [_expected_chips(source, inputs) for source in inputs.sources]
    progress.start(task, sum(expected))
    names: dict[str, ImageSource] = {}
    for source, left in zip(inputs.sources, expected, strict=True):
        try:
            image = inputs.open(source)
            _refuse_duplicate(source, names)
            empty = 0
            for number, plan in enumerate(inputs.plan(image)):
                chip = _read(image, plan)
                if number == 0:
                    _look_at(image, chip, findings)
                if inputs.windows_px is not None and not chip.data_mask.any():
                    empty += 1
                    progress.advance(1)
                else:
                    yield chip, plan
                left -= 1
            findings.read += 1
            if empty:
                findings.remark(source, [f"{empty} windows without data are left out"])
        except ImageryError as error:
            findings.skip(str(source.path), error)
            progress.advance(left)
    # Where no image could be read, none can say what lies outside of it.
    if inputs.finder is not None and findings.read:
        for parcel in inputs.finder.unseen():
            findings.skip(f"{inputs.parcels_source}#{parcel.parcel_id}", _outside(parcel))


def _expected_chips(source: ImageSource, inputs: Inputs) -> int:
    """Chips that an image will take, told by its headers; 1 for one that will be skipped."""
    if inputs.finder is None and inputs.windows_px is None:
        return 1
    try:
        image = inputs.open(source)
        if inputs.windows_px is not None:
            return count_windows(image, inputs.windows_px)
        return len(inputs.plan(image))
    except ImageryError:
        return 1


def _read(image: Image, plan: ChipPlan) -> Chip:
    chip = image.read(plan.row, plan.column, plan.height, plan.width)
    if isinstance(image, SpectralImage):
        return replace(chip, layer_bands=layer_bands(image))
    return chip


def _look_at(image: Image, chip: Chip, findings: Findings) -> None:
    """Note what the first chip of an image, or its header, gives to think."""
    if isinstance(image, SpectralImage):
        findings.remark(image.source, image.notes)
    if not isinstance(image, SpectralImage) or is_sentinel2(image):
        findings.doubt(baseline_doubt(chip))


def _check_values(image: Image, plan: ChipPlan) -> None:
    """Refuse a chip that would not fit into memory.

    Raises:
        ImageryError: ``too-large``.
    """
    bands = len(image.bands) if isinstance(image, SpectralImage) else 1
    if plan.height * plan.width * bands > MOST_CHIP_VALUES:
        raise ImageryError(
            f"{image.source.path}: {plan.height} x {plan.width} px of {bands} bands are too much "
            f"to be looked at at once (at most {MOST_CHIP_VALUES:,} values); cut it into smaller "
            "windows with --windows.",
            kind="too-large",
        )


def _refuse_duplicate(source: ImageSource, names: dict[str, ImageSource]) -> None:
    """Names become parcel ids and scenes, so the first usable image of a name stands.

    Raises:
        ImageryError: If another image of this name was read before (``duplicate-id``).
    """
    kept = names.setdefault(source.name, source)
    if kept is not source:
        raise ImageryError(
            f"{source.path}: its name {source.name!r} is also that of {kept.path}, which was "
            "taken; rename one, or reindex them into two collections.",
            kind="duplicate-id",
        )


def _outside(parcel: Parcel) -> ParcelsError:
    return ParcelsError(
        f"Parcel {parcel.parcel_id} lies outside of every image; add imagery that shows it.",
        kind="outside-imagery",
    )


def prepare(
    chip: Chip, plan: ChipPlan, pooling: Pooling, patches: int | None, findings: Findings
) -> list[Prepared]:
    """Observe the chip's parcels and weigh their patches; those without any data are skipped.

    Args:
        chip: The pixels.
        plan: Its parcels.
        pooling: What counts for a parcel's embedding.
        patches: Along one side of the chip; None takes each pixel as one.
        findings: Receives what is skipped.
    """
    pixels = _pixel_digest(chip)
    prepared: list[Prepared] = []
    for target in plan.targets:
        state = _observe(chip, target)
        weights = _pooling_weights(chip, target, pooling, patches)
        if state.data_fraction == 0 or not weights.any():
            findings.skip(*_no_data(chip, target))
            continue
        digest = pixels.copy()
        digest.update(weights.tobytes())
        if target.geometry is not None:
            digest.update(shapely.to_wkb(target.geometry))
        prepared.append(Prepared(target.parcel, state, weights, digest.hexdigest()))
    return prepared


def _observe(chip: Chip, target: Target) -> ObservationState:
    if target.geometry is None:
        everywhere = np.ones(chip.shape, dtype=np.float32)
        return observe(chip, everywhere, whole_pixels=everywhere > 0, covered_fraction=1.0)
    if chip.crs is None:
        raise TypeError("a parcel with a geometry needs a chip with a CRS")
    core = inner_buffer(target.geometry, chip.crs, INNER_BUFFER_M)
    return observe(
        chip,
        coverage(target.geometry, chip.transform, chip.shape),
        whole_pixels=coverage(core, chip.transform, chip.shape) >= _WHOLE,
        covered_fraction=covered_fraction(target.geometry, chip.bounds),
    )


def _pooling_weights(
    chip: Chip, target: Target, pooling: Pooling, patches: int | None
) -> FloatArray:
    shape = chip.shape if patches is None else (patches, patches)
    if target.geometry is None or pooling == "image":
        return np.ones(shape, dtype=np.float32)
    height, width = chip.shape
    to_patches = chip.transform @ Affine.scale(width / shape[1], height / shape[0])
    return coverage(target.geometry, to_patches, shape)


def _pixel_digest(chip: Chip) -> "hashlib._Hash":
    digest = hashlib.sha256()
    digest.update(",".join(chip.bands).encode())
    digest.update(np.ascontiguousarray(chip.reflectance).tobytes())
    digest.update(np.ascontiguousarray(chip.valid_mask).tobytes())
    return digest


def _no_data(chip: Chip, target: Target) -> tuple[str, ImageryError]:
    what = "every pixel" if target.geometry is None else f"parcel {target.parcel.parcel_id}"
    return chip.source, ImageryError(
        f"{chip.source}: {what} is nodata (0, NaN or the declared value) in at least one band; "
        "use an image with data there.",
        kind="no-valid-pixels",
    )


def encoder_input(chip: Chip, normalization: Normalization, image_px: int) -> FloatArray:
    """A chip as the encoder takes it.

    Returns:
        Shape ``(band, image_px, image_px)``: the normalization's bands in its order, gaps filled
        with the stored mean, resized, normalized.
    """
    reflectance = normalization.fill_gaps(chip.stack(normalization.bands))
    normalized: FloatArray = normalization.apply(resize(reflectance[None], image_px))[0]
    return normalized


def input_of(chip: Chip, recipe: Recipe | PixelRecipe) -> FloatArray:
    """A chip as the encoder of a recipe takes it."""
    if isinstance(recipe, PixelRecipe):
        return pixel_input(chip)
    return encoder_input(chip, recipe.normalization, recipe.image_px)


def encode(
    encoder: Encoder, images: Sequence[FloatArray], prepared: Sequence[Sequence[Prepared]]
) -> list[list[FloatArray]]:
    """Embed the parcels of several chips in one forward pass.

    Args:
        encoder: The network.
        images: One input for each chip, as ``input_of`` gives it.
        prepared: The parcels of each chip, at least one.

    Returns:
        For each chip the embedding of each of its parcels, shape ``(d,)``.
    """
    weights = [np.stack([parcel.pooling_weights for parcel in chip]) for chip in prepared]
    return [list(rows) for rows in encoder.encode(images, weights)]


def measure_normalization(inputs: Inputs, progress: Progress) -> Normalization:
    """Z-score statistics over the valid pixels of all chips, in one streaming pass.

    Raises:
        ImageryError: If no image has a valid pixel (``no-valid-pixels``).
    """
    statistics = BandStatistics.empty(inputs.reading.wanted)
    # The pass that embeds will meet the same unusable images again, and names them.
    for chip, _ in chips(inputs, Findings(), progress, "Measuring statistics"):
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


def in_batches(
    items: Iterable[tuple[FloatArray, list[Prepared], Chip]], size: int
) -> Iterator[list[tuple[FloatArray, list[Prepared], Chip]]]:
    """Group chips so that each group is one forward pass of at most ``size`` chips.

    Groups of large chips are smaller, so that they fit into memory.
    """
    batch: list[tuple[FloatArray, list[Prepared], Chip]] = []
    held = 0
    for item in items:
        batch.append(item)
        held += item[2].reflectance.nbytes
        if len(batch) == size or held >= _MOST_BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
