"""An image's pixels, block by block: survey, sample, features. Memory is that of one block."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.errors import ImageryError
from indexer.imagery.spectral_image import SpectralImage
from indexer.mapping.methods import MAX_CLASSES
from indexer.mapping.pixel_features import PixelFeatures, PixelStatistics
from indexer.progress import Progress

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

MAX_SAMPLE: Final = 50_000
"""Pixels that classes are fitted on at most."""

RUN_PX: Final = 16
"""Neighbors that are sampled together where not all pixels are: their windows overlap."""

TILE_VALUES: Final = 2**23
"""Values of a tile: 32 MiB as float32, and several times that while they are turned into features;
37,000 pixels of 224 bands."""

TILE_PIXELS: Final = 2**16
"""Pixels of a tile at most: of few bands, an encoder makes more than there were."""

_STEP_PX = 64
_LOOKED_AT = 4_096


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image."""

    row: int
    column: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        rows = slice(self.row, self.row + self.height)
        return rows, slice(self.column, self.column + self.width)


def tiles(image: SpectralImage) -> list[Tile]:
    """The tiles of an image, row by row: as wide as it is where memory allows.

    Files are stored by rows, and margins are read twice, so a tile is wide and not flat.
    """
    height, width = image.shape
    pixels = max(1, min(TILE_VALUES // len(image.bands), TILE_PIXELS))
    columns = min(width, max(_STEP_PX, pixels // _STEP_PX // _STEP_PX * _STEP_PX))
    rows = max(_STEP_PX, pixels // columns)
    return [
        Tile(row, column, min(rows, height - row), min(columns, width - column))
        for row in range(0, height, rows)
        for column in range(0, width, columns)
    ]


@dataclass(frozen=True)
class Block:
    """A tile as read, with as much around it as its features depend on."""

    tile: Tile
    values: FloatArray
    """Shape ``(band, y, x)``, with the margin."""
    valid_mask: BoolArray
    """Shape ``(y, x)``, with the margin."""
    inner: tuple[slice, slice]
    """Where the tile lies in both."""

    @property
    def valid(self) -> BoolArray:
        """Valid pixels of the tile itself."""
        return self.valid_mask[self.inner]

    @property
    def pixels(self) -> FloatArray:
        """Values of the tile's valid pixels, shape ``(band, n)``, in row-major order."""
        return self.values[:, *self.inner][:, self.valid]

    def features(self, features: PixelFeatures, chosen: BoolArray | None = None) -> FloatArray:
        """Features of the tile's valid pixels, or of some of them.

        Args:
            features: Of which kind.
            chosen: For each valid pixel of the tile, whether it is wanted; None wants all.
        """
        wanted = np.zeros_like(self.valid_mask)
        area = self.valid.copy()
        if chosen is not None:
            area[area] = chosen
        wanted[self.inner] = area
        return features.of(self.values, self.valid_mask, wanted)


def read_block(image: SpectralImage, tile: Tile, margin_px: int = 0) -> Block:
    """Read a tile and its margin; the margin ends where the image does."""
    top, left = max(0, tile.row - margin_px), max(0, tile.column - margin_px)
    bottom = min(image.shape[0], tile.row + tile.height + margin_px)
    right = min(image.shape[1], tile.column + tile.width + margin_px)
    chip = image.read(top, left, bottom - top, right - left)
    row, column = tile.row - top, tile.column - left
    inner = slice(row, row + tile.height), slice(column, column + tile.width)
    return Block(tile, chip.reflectance, chip.valid_mask, inner)


@dataclass
class Survey:
    """What one look at every pixel of an image tells."""

    valid: list[int] = field(default_factory=list)
    """Valid pixels of each tile."""
    statistics: PixelStatistics | None = None
    """What linear features need; None where nobody asked."""
    _different: set[bytes] = field(default_factory=set)

    @property
    def pixels(self) -> int:
        """Valid pixels of the image."""
        return sum(self.valid)

    @property
    def different(self) -> int:
        """Different valid pixels; counted no further than a map can have classes."""
        return min(len(self._different), MAX_CLASSES)

    def count(self, block: Block) -> None:
        """Take in one block."""
        self.valid.append(int(block.valid.sum()))
        if self.statistics is not None:
            self.statistics.update(block.values[:, *block.inner], block.valid)
        pixels = block.pixels.T
        for start in range(0, len(pixels), _LOOKED_AT):
            if len(self._different) > MAX_CLASSES:
                break
            rows = np.unique(pixels[start : start + _LOOKED_AT], axis=0)[: MAX_CLASSES + 1]
            self._different.update(row.tobytes() for row in rows)


def survey(image: SpectralImage, progress: Progress, *, with_statistics: bool) -> Survey:
    """Look at every pixel once.

    Raises:
        ImageryError: ``no-valid-pixels``.
    """
    found = Survey(statistics=PixelStatistics(len(image.bands)) if with_statistics else None)
    progress.start("Reading", len(tiles(image)))
    for tile in tiles(image):
        found.count(read_block(image, tile))
        progress.advance(1)
    progress.finish()
    if found.pixels == 0:
        raise ImageryError(
            f"{image.source.path}: none of its {image.shape[0]} x {image.shape[1]} pixels has data "
            "in every band, so there is nothing to map. Check its nodata value.",
            kind="no-valid-pixels",
        )
    return found


@dataclass(frozen=True)
class Source:
    """An image seen through some features, with a sample spread over all of it."""

    image: SpectralImage
    features: PixelFeatures
    survey: Survey
    sample: FloatArray
    """Shape ``(n, d)``, in the order of tiles and, in these, row-major."""

    @classmethod
    def draw(
        cls,
        image: SpectralImage,
        features: PixelFeatures,
        found: Survey,
        seed: int,
        progress: Progress,
    ) -> "Source":
        """Take a sample: all valid pixels, or ``MAX_SAMPLE`` of them."""
        chosen = _chosen(found.pixels, seed)
        sample = features_at(image, features, found, chosen, progress)
        return cls(image, features, found, sample)

    @property
    def is_whole(self) -> bool:
        """Whether the sample holds every valid pixel."""
        return len(self.sample) == self.survey.pixels

    def blocks(self, progress: Progress, task: str) -> Iterator[tuple[Block, FloatArray]]:
        """Every tile that has valid pixels, with the features of these, shape ``(n, d)``."""
        start = 0
        progress.start(task, len(self.survey.valid))
        for tile, valid in zip(tiles(self.image), self.survey.valid, strict=True):
            if valid and self.is_whole:
                yield read_block(self.image, tile), self.sample[start : start + valid]
            elif valid:
                block = read_block(self.image, tile, self.features.margin_px)
                yield block, block.features(self.features)
            start += valid
            progress.advance(1)
        progress.finish()


def features_at(
    image: SpectralImage,
    features: PixelFeatures,
    found: Survey,
    chosen: IntArray,
    progress: Progress,
) -> FloatArray:
    """Features of some valid pixels; only the tiles that hold one are read.

    Args:
        image: The image.
        features: Of which kind.
        found: What a survey of the image told.
        chosen: Positions among all valid pixels in the order of tiles, ascending, at least one.
        progress: Is told how far the work has come.

    Returns:
        Shape ``(n, d)``, in the same order.
    """
    starts = np.cumsum([0, *found.valid])
    parts: list[FloatArray] = []
    progress.start(f"Sampling ({features.name})", len(found.valid))
    for position, tile in enumerate(tiles(image)):
        first, last = np.searchsorted(chosen, starts[position : position + 2])
        if first < last:
            mask = np.zeros(found.valid[position], dtype=np.bool_)
            mask[chosen[first:last] - starts[position]] = True
            block = read_block(image, tile, features.margin_px)
            parts.append(block.features(features, mask))
        progress.advance(1)
    progress.finish()
    return np.concatenate(parts)


def _chosen(pixels: int, seed: int) -> IntArray:
    """Positions of sampled pixels among all valid ones, ascending: runs, one in each stretch."""
    if pixels <= MAX_SAMPLE:
        return np.arange(pixels)
    runs = MAX_SAMPLE // RUN_PX
    edges = np.linspace(0, pixels, runs + 1).astype(np.int64)
    random = np.random.default_rng(seed)
    first = random.integers(edges[:-1], edges[1:] - RUN_PX, endpoint=True)
    return np.asarray((first[:, None] + np.arange(RUN_PX)).ravel())
