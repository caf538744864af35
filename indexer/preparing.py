"""From a chip's pixels to what an encoder gets: observed parcels, weighted patches, filled gaps."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from indexer.catalog.writing import Known
from indexer.chipping import Part, Target, View, Window
from indexer.embedding_space import PixelRecipe, Pooling, Recipe
from indexer.encoders.croma import resize
from indexer.encoders.pixel_encoder import pixel_input
from indexer.errors import ImageryError
from indexer.findings import Findings
from indexer.imagery.chip import Chip
from indexer.normalization import Normalization
from indexer.observation_state import (
    MAX_LOST_FRACTION,
    ObservationState,
    Observed,
    observe_parcels,
)
from indexer.parcels.coverage import coverage
from indexer.parcels.parcel import Parcel

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """The acquisition that an observation comes from."""

    scene: str
    source: str
    """Path or address that the pixels came from."""
    acquired_at: datetime | None
    processing_baseline: str | None
    layer_bands: tuple[str, ...] | None

    @classmethod
    def of(cls, chip: Chip) -> "Seen":
        """The acquisition that a chip shows."""
        return cls(
            chip.scene, chip.source, chip.acquired_at, chip.processing_baseline, chip.layer_bands
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """One parcel in one scene, ready to be embedded."""

    parcel: Parcel
    seen: Seen
    state: ObservationState
    parts: tuple[tuple[Window, FloatArray], ...]
    """The tiles that show it, each with the share of each of its patches that counts, shape
    ``(patches, patches)``, or of each pixel where these are the patches."""
    fingerprint: str
    """SHA-256 of the pixels that its vector depends on and of the part of them that it is."""
    known: Known | None = None
    """What the catalog holds of it already."""

    @property
    def embeddable(self) -> bool:
        """Whether enough of the parcel is seen for a vector to describe it, and not the clouds."""
        return self.state.valid_fraction > 1 - MAX_LOST_FRACTION


@dataclass(frozen=True)
class Preparation:
    """How chips are prepared for one encoder."""

    recipe: Recipe | PixelRecipe
    pooling: Pooling
    patches: int | None
    """Along one side of a tile; None takes each pixel as one."""

    def parcels(
        self, chip: Chip, window: Window, targets: Sequence[Target], findings: Findings
    ) -> list[Prepared]:
        """Observe the parcels of one tile; those without any data are skipped by name.

        Args:
            chip: The tile's pixels.
            window: Where it lies in the scene.
            targets: Parcels that lie whole in it.
            findings: Receives what is skipped.
        """
        whole = (Part(window, window),)
        return self._prepare(chip, window, [(target, whole) for target in targets], findings)

    def view(self, chip: Chip, view: View, findings: Findings) -> Prepared | None:
        """Observe a parcel in several tiles at once; None where it has no data.

        Args:
            chip: The pixels of ``view.window``.
            view: The parcel and its tiles.
            findings: Receives what is skipped.
        """
        prepared = self._prepare(chip, view.window, [(view.target, view.parts)], findings)
        return prepared[0] if prepared else None

    def input_of(self, chip: Chip) -> FloatArray:
        """A tile as the encoder takes it."""
        if isinstance(self.recipe, PixelRecipe):
            return pixel_input(chip)
        return encoder_input(chip, self.recipe.normalization, self.recipe.image_px)

    def _prepare(
        self,
        chip: Chip,
        window: Window,
        targets: Sequence[tuple[Target, tuple[Part, ...]]],
        findings: Findings,
    ) -> list[Prepared]:
        pixels = _pixel_digest(chip)
        seen = Seen.of(chip)
        observed = observe_parcels(chip, [target.geometry for target, _ in targets])
        prepared: list[Prepared] = []
        for (target, parts), one in zip(targets, observed, strict=True):
            weighed = self._weigh(chip, window, target, parts, one)
            if one.state.data_fraction == 0 or not weighed:
                findings.skip(*_no_data(chip, target))
                continue
            digest = pixels.copy()
            for tile, weights in weighed:
                if len(parts) > 1:
                    digest.update(f"{tile.row - window.row},{tile.column - window.column}".encode())
                digest.update(weights.tobytes())
            if target.geometry is not None:
                digest.update(shapely.to_wkb(target.geometry))
            prepared.append(Prepared(target.parcel, seen, one.state, weighed, digest.hexdigest()))
        return prepared

    def _weigh(
        self,
        chip: Chip,
        window: Window,
        target: Target,
        parts: tuple[Part, ...],
        observed: Observed,
    ) -> tuple[tuple[Window, FloatArray], ...]:
        """Pooling weights in each tile; tiles that show nothing of the parcel are left out."""
        if target.geometry is None or self.pooling == "image":
            return tuple((part.tile, self._everywhere(chip)) for part in parts)
        weighed = [
            (part.tile, weights, useful)
            for part in parts
            for weights, useful in [self._weigh_part(chip, window, target, part, observed)]
            if weights.any()
        ]
        # A tile in which clouds or gaps hide all of the parcel says nothing about it.
        useful = [(tile, weights) for tile, weights, valid in weighed if valid]
        return tuple(useful or [(tile, weights) for tile, weights, _ in weighed])

    def _everywhere(self, chip: Chip) -> FloatArray:
        if self.patches is not None:
            return np.ones((self.patches, self.patches), dtype=np.float32)
        valid = chip.valid_mask
        return (valid if valid.any() else np.ones_like(valid)).astype(np.float32)

    def _weigh_part(
        self, chip: Chip, window: Window, target: Target, part: Part, observed: Observed
    ) -> tuple[FloatArray, bool]:
        """Weights of a tile's patches, and whether any pixel that counts is valid."""
        tile, cell = part.tile, part.cell
        shares = np.zeros((tile.height, tile.width), dtype=np.float32)
        # In pixels of the chip: the parcel's window, cut to the cell.
        top = max(observed.rows.start, cell.row - window.row)
        bottom = min(observed.rows.stop, cell.bottom - window.row)
        left = max(observed.columns.start, cell.column - window.column)
        right = min(observed.columns.stop, cell.right - window.column)
        if top >= bottom or left >= right:
            return shares, False
        share = observed.share[
            top - observed.rows.start : bottom - observed.rows.start,
            left - observed.columns.start : right - observed.columns.start,
        ]
        valid = chip.valid_mask[top:bottom, left:right]
        useful = bool((valid & (share > 0)).any())
        if self.patches is None and useful:
            # Pixels that are not valid have no features that could be averaged.
            share = share * valid
        down, across = window.row - tile.row, window.column - tile.column
        shares[top + down : bottom + down, left + across : right + across] = share
        if self.patches is None:
            return shares, useful
        if tile.height % self.patches == 0 and tile.width % self.patches == 0:
            return _by_patch(shares, self.patches), useful
        # A tile of another size is stretched to the encoder's: its patches cut through pixels.
        to_tile = chip.transform @ Affine.translation(-across, -down)
        scale = Affine.scale(tile.width / self.patches, tile.height / self.patches)
        in_cell = shapely.intersection(target.geometry, _outline(cell, tile, to_tile))
        return coverage(in_cell, to_tile @ scale, (self.patches, self.patches)), useful


def _outline(cell: Window, tile: Window, to_tile: Affine) -> shapely.Polygon:
    """A part of a tile in map coordinates."""
    top, left = cell.row - tile.row, cell.column - tile.column
    bottom, right = top + cell.height, left + cell.width
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return shapely.Polygon([to_tile @ corner for corner in corners])


def _by_patch(shares: FloatArray, patches: int) -> FloatArray:
    """Mean of the pixels' shares in each patch, shape ``(patches, patches)``."""
    height, width = shares.shape
    blocks = shares.reshape(patches, height // patches, patches, width // patches)
    means: FloatArray = blocks.mean(axis=(1, 3), dtype=np.float32)
    return means


def _pixel_digest(chip: Chip) -> "hashlib._Hash":
    digest = hashlib.sha256()
    digest.update(",".join(chip.bands).encode())
    digest.update(np.ascontiguousarray(chip.reflectance).data)
    digest.update(np.ascontiguousarray(chip.valid_mask).data)
    return digest


def _no_data(chip: Chip, target: Target) -> tuple[str, ImageryError]:
    what = "every pixel" if target.geometry is None else f"parcel {target.parcel.parcel_id}"
    return chip.source, ImageryError(
        f"{chip.source}: {what} is nodata (0, NaN or the declared value) in at least one band; "
        "use an image with data there.",
        kind="no-valid-pixels",
    )


def encoder_input(chip: Chip, normalization: Normalization, image_px: int) -> FloatArray:
    """A chip as CROMA takes it.

    Returns:
        Shape ``(band, image_px, image_px)``: the normalization's bands in its order, gaps filled
        with the stored mean, resized, normalized.
    """
    reflectance = normalization.fill_gaps(chip.stack(normalization.bands))
    normalized: FloatArray = normalization.apply(resize(reflectance[None], image_px))[0]
    return normalized
