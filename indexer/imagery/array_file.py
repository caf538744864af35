"""Plain arrays on disk: numbers in a row, read through a memory map."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexer.errors import ImageryError
from indexer.imagery.spectral_cube import Pixels, to_values


@dataclass(frozen=True)
class ArrayFile:
    """An uncompressed array in a file; a window is read without the rest."""

    path: Path
    shape: tuple[int, ...]
    """In the order stored."""
    dtype: np.dtype[Any]
    axes: str
    """What each side of ``shape`` is: ``yxb``, ``byx``, ``ybx``."""
    offset: int = 0
    """Bytes before the first number."""
    order: Literal["C", "F"] = "C"
    nodata: float | None = None
    scale: npt.NDArray[np.float64] | None = None
    """Factor of each layer."""
    shift: npt.NDArray[np.float64] | None = None
    """Added to each layer after scaling."""

    @property
    def block_rows(self) -> int:
        """Any row can be read by itself."""
        return 1

    def read(self, layers: Sequence[int], rows: slice, columns: slice) -> Pixels:
        """Read a window; see ``PixelReader``.

        Raises:
            ImageryError: ``unreadable``, if the file is gone or shorter than it was.
        """
        part = self.mapped()[:, rows, columns]
        chosen = list(layers)
        whole = chosen == list(range(len(part)))
        raw = np.ascontiguousarray(part if whole else part[chosen])
        scale, shift = (
            None if numbers is None else numbers[chosen] for numbers in (self.scale, self.shift)
        )
        return Pixels(to_values(raw, [self.nodata] * len(chosen), scale, shift))

    def mapped(self) -> npt.NDArray[Any]:
        """The whole array as ``(band, y, x)``, nothing of it read yet."""
        try:
            stored = np.memmap(
                self.path, self.dtype, "r", offset=self.offset, shape=self.shape, order=self.order
            )
        except (OSError, ValueError) as error:
            raise ImageryError(
                f"{self.path}: cannot be read ({error}); it changed since it was opened.",
                kind="unreadable",
            ) from error
        return stored.transpose([self.axes.index(axis) for axis in "byx"])


@dataclass(frozen=True)
class ArrayInMemory:
    """An array that had to be unpacked as a whole."""

    stored: npt.NDArray[Any]
    """Shape ``(band, y, x)``."""
    nodata: float | None = None
    scale: npt.NDArray[np.float64] | None = None

    @property
    def block_rows(self) -> int:
        """Any row can be read by itself."""
        return 1

    def read(self, layers: Sequence[int], rows: slice, columns: slice) -> Pixels:
        """Read a window; see ``PixelReader``."""
        chosen = list(layers)
        raw = self.stored[:, rows, columns][chosen]
        scale = None if self.scale is None else self.scale[chosen]
        return Pixels(to_values(raw, [self.nodata] * len(chosen), scale))
