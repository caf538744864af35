"""The land as a picture: pieces painted over one another, each pixel mixed of what grows there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
from rasterio.features import rasterize

from indexer.landscape.noise import smooth_noise
from indexer.landscape.pieces import Piece
from indexer.landscape.place import TRANSFORM
from indexer.statistics import Float64Array


@dataclass(frozen=True)
class Canvas:
    """The land with all that does not change from date to date."""

    pieces: Sequence[Piece]
    labels: npt.NDArray[np.int32]
    """Place in ``pieces``, shape ``(y, x)``."""
    stand: Float64Array
    """How the canopy varies within a piece: zero mean, unit variance, shape ``(y, x)``."""
    soil: Float64Array
    """The same for the soil's brightness."""

    @classmethod
    def primed(cls, pieces: Sequence[Piece], size_px: int, rng: np.random.Generator) -> "Canvas":
        """Paint the pieces one over the other, and draw the texture of the ground."""
        labels = rasterize(
            [(piece.outline, place) for place, piece in enumerate(pieces)],
            out_shape=(size_px, size_px),
            transform=TRANSFORM,
            dtype="int32",
        )
        stand = 0.6 * smooth_noise(size_px, 3, rng) + 0.8 * smooth_noise(size_px, 9, rng)
        return cls(pieces, labels, stand, smooth_noise(size_px, 7, rng))

    def reflectance(self, day: date) -> Float64Array:
        """Reflectance of a cloudless day, shape ``(band, y, x)``."""
        day_of_year = day.timetuple().tm_yday
        covers = np.array([piece.green_cover(day_of_year) for piece in self.pieces])
        canopies = np.array([piece.canopy(day_of_year) for piece in self.pieces])
        grounds = np.array([piece.ground(day_of_year) for piece in self.pieces])
        cover = covers[self.labels]
        # A stand varies most while it is neither bare nor closed.
        cover = np.clip(cover + 0.16 * self.stand * cover * (1 - cover) + 0.01 * self.stand, 0, 1)
        soil = 1 + 0.06 * self.soil
        land: Float64Array = cover * canopies.T[:, self.labels]
        land += (1 - cover) * soil * grounds.T[:, self.labels]
        return land
