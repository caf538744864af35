"""Windows to train on: tiles of the images, as many as a bounded memory holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from indexer.errors import ImageryError
from indexer.imagery.spectral_cube import SpectralImage
from indexer.progress import Progress
from indexer.training.recipes import PretrainRecipe
from indexer.training.statistics import SpectralStatistics, usable
from indexer.training.windows import reach, reflected

IntArray = npt.NDArray[np.intp]

TILE_PX = 32
MEMORY_BYTES = 256 * 2**20
"""What the tiles of a training may take. Of larger images, a random part of the tiles is taken."""


@dataclass(frozen=True)
class _Tile:
    """A square of an image, without its margin."""

    image: int
    row: int
    column: int


class TrainingSample:
    """Tiles with margins, and the valid pixels in them around which windows are taken.

    Args:
        channels: Shape ``(tile, y, x, channel)``, each tile with a margin on all sides; continued
            by reflection beyond the borders of the image.
        valid: Shape ``(tile, y, x)``: True at valid pixels of the image itself.
        margin_px: Width of the margin.
        window_px: Side of the windows.
    """

    def __init__(self, channels: Tensor, valid: Tensor, margin_px: int, window_px: int) -> None:
        self._before, _ = reach(window_px)
        self._channels, self._valid = channels, valid
        # (tile, y, x, channel, w, w): views, nothing is copied.
        self._windows = channels.unfold(1, window_px, 1).unfold(2, window_px, 1)
        inner = torch.zeros_like(valid)
        inside = slice(margin_px, valid.shape[1] - margin_px)
        inner[:, inside, inside] = valid[:, inside, inside]
        self.anchors = inner.nonzero()
        """Tile, row and column of every pixel to train on, shape ``(n, 3)``."""

    @property
    def channels(self) -> int:
        """Values of a pixel."""
        return self._channels.shape[3]

    def windows(self, places: Tensor) -> Tensor:
        """The windows around places ``(n, 3)``: shape ``(n, channel, w, w)``."""
        tile, row, column = places.T
        return self._windows[tile, row - self._before, column - self._before]

    def most_alike(self, places: Tensor, shifts: Tensor) -> Tensor:
        """The place near each place whose pixel is most like its own.

        Args:
            places: Shape ``(n, 3)``.
            shifts: Rows and columns to the candidates, shape ``(n, m, 2)``.

        Returns:
            Shape ``(n, 3)``: of the candidates that are valid and not the place itself the one
            whose channels are nearest; the place itself where there is none.
        """
        candidates = places[:, None].repeat(1, shifts.shape[1], 1)
        candidates[..., 1:] += shifts
        there = self._valid[candidates.unbind(-1)] & shifts.any(dim=-1)
        own = self._channels[places.unbind(-1)]
        apart = (self._channels[candidates.unbind(-1)] - own[:, None]).square().sum(dim=-1)
        nearest = apart.masked_fill(~there, torch.inf).argmin(dim=1)
        rows = torch.arange(len(places))
        return torch.where(there[rows, nearest][:, None], candidates[rows, nearest], places)

    def keep_bright(self, min_mean: float) -> None:
        """Keep only windows whose mean over all values is above ``min_mean``."""
        means = [self.windows(part).mean(dim=(1, 2, 3)) for part in torch.split(self.anchors, 2048)]
        self.anchors = self.anchors[torch.cat(means) > min_mean] if means else self.anchors


def draw_sample(
    images: Sequence[SpectralImage],
    statistics: SpectralStatistics,
    recipe: PretrainRecipe,
    generator: torch.Generator,
    progress: Progress,
    memory_bytes: int = MEMORY_BYTES,
) -> TrainingSample:
    """Read the tiles to train on: all, or a random part of those of large images.

    Args:
        images: Images of the same bands.
        statistics: Of their bands.
        recipe: Says how large windows are and how far positives lie.
        generator: Chooses tiles.
        progress: Told of every tile.
        memory_bytes: What the tiles may take.

    Raises:
        ImageryError: If fewer than two windows can be had (``too-few-pixels``).
    """
    margin = max(reach(recipe.window_px)) + recipe.shift_px
    side = TILE_PX + 2 * margin
    limit = max(1, memory_bytes // (side * side * (4 * statistics.channels + 1)))
    tiles = list(_tiles(images))
    order = torch.randperm(len(tiles), generator=generator).tolist()
    count = min(limit, len(tiles))
    channels = torch.empty((count, side, side, statistics.channels))
    valid = torch.zeros((count, side, side), dtype=torch.bool)
    taken = 0
    progress.start("reading tiles", count)
    for number in order:
        if taken == count:
            break
        tile = tiles[number]
        read = _read(images[tile.image], tile, margin, statistics)
        if read is not None:
            channels[taken], valid[taken] = read
            taken += 1
            progress.advance(1)
    progress.finish()
    sample = TrainingSample(channels[:taken], valid[:taken], margin, recipe.window_px)
    found = len(sample.anchors)
    if recipe.min_mean_z is not None:
        sample.keep_bright(recipe.min_mean_z)
    if len(sample.anchors) < 2:
        names = ", ".join(image.source.name for image in images)
        raise ImageryError(
            f"{names}: {len(sample.anchors)} windows to train on, of {found} valid pixels; at "
            "least 2 are needed. Give a larger image"
            + (", or another --recipe." if recipe.min_mean_z is not None else "."),
            kind="too-few-pixels",
        )
    return sample


def _tiles(images: Sequence[SpectralImage]) -> Iterator[_Tile]:
    for number, image in enumerate(images):
        height, width = image.shape
        for row in range(0, height, TILE_PX):
            for column in range(0, width, TILE_PX):
                yield _Tile(number, row, column)


def _read(
    image: SpectralImage, tile: _Tile, margin: int, statistics: SpectralStatistics
) -> tuple[Tensor, Tensor] | None:
    """A tile with its margin; None if none of its own pixels is valid."""
    rows = _line(tile.row, margin, image.shape[0])
    columns = _line(tile.column, margin, image.shape[1])
    top, left = int(rows.min()), int(columns.min())
    chip = image.read(top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left)
    mask = usable(chip.reflectance, chip.valid_mask)
    places = np.ix_(rows - top, columns - left)
    own_rows = _within(tile.row - margin, len(rows), image.shape[0])
    own_columns = _within(tile.column - margin, len(columns), image.shape[1])
    valid = mask[places] & own_rows[:, None] & own_columns
    if not valid[margin : -margin or None, margin : -margin or None].any():
        return None
    channels = statistics.channels_of(chip.reflectance, mask)[places]
    return torch.from_numpy(channels), torch.from_numpy(valid)


def _line(start: int, margin: int, length: int) -> IntArray:
    """Which rows, or columns, of an image stand in a tile that begins at ``start``."""
    everything = reflected(length, margin, margin + TILE_PX)
    return everything[start : start + TILE_PX + 2 * margin]


def _within(start: int, count: int, length: int) -> npt.NDArray[np.bool_]:
    """Which of so many places from ``start`` lie within a line, and are no reflection."""
    places = np.arange(start, start + count)
    return (places >= 0) & (places < length)
