"""A drawn flight over three kinds of fields, seen in bands of its own, and an encoder for it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.encoders.pixel_encoder import PixelEncoder
from indexer.training.pretrain import PretrainOptions, pretrain
from tests.indexer.farm import on_image, write_parcels
from tests.synthetic import write_geotiff

FloatArray = npt.NDArray[np.float32]

FIELD_PX, ACROSS = 12, 4
SIDE_PX = FIELD_PX * ACROSS

WAVELENGTHS_NM = (450, 530, 560, 665, 740, 840)

KINDS = ("beet", "maize", "wheat")
_SPECTRA = np.array(
    [
        [300, 700, 800, 400, 2500, 4000],
        [500, 900, 1000, 900, 1800, 2400],
        [900, 1500, 1900, 2400, 2800, 3000],
    ]
)


def kind_of(row: int, column: int) -> str:
    """What grows in a field: no field has its own kind beside or below it."""
    return KINDS[(row + column) % 3]


def flight(seed: int = 0) -> FloatArray:
    """Radiance of a square of 4 x 4 fields, shape ``(band, SIDE_PX, SIDE_PX)``, with some noise."""
    fields = np.array(
        [[KINDS.index(kind_of(row, column)) for column in range(ACROSS)] for row in range(ACROSS)]
    )
    kinds = fields.repeat(FIELD_PX, axis=0).repeat(FIELD_PX, axis=1)
    values = np.moveaxis(_SPECTRA[kinds], 2, 0)
    noise = np.random.default_rng(seed).normal(1, 0.05, values.shape)
    return np.asarray(values * noise, np.float32)


def write_flight(path: Path, values: FloatArray | None = None) -> Path:
    """A GeoTIFF of 10 m pixels whose bands are named by their wavelengths."""
    names = [f"{wavelength} nm" for wavelength in WAVELENGTHS_NM]
    return write_geotiff(path, flight() if values is None else values, names)


def fields() -> dict[str, tuple[int, int]]:
    """Row and column of every field, by its id."""
    return {
        f"{kind_of(row, column)}-{row}{column}": (row, column)
        for row in range(ACROSS)
        for column in range(ACROSS)
    }


def write_fields(path: Path) -> Path:
    """The fields as parcels, without their outermost pixel."""
    return write_parcels(
        path,
        *(
            (
                name,
                on_image(
                    column * FIELD_PX + 1,
                    row * FIELD_PX + 1,
                    (column + 1) * FIELD_PX - 1,
                    (row + 1) * FIELD_PX - 1,
                ),
            )
            for name, (row, column) in fields().items()
        ),
    )


def train(image: Path, out: Path, steps: int = 8, seed: int = 0) -> Path:
    """Learn an encoder from an image: a small one, in no time."""
    options = PretrainOptions(steps=steps, batch_size=32, seed=seed, device="cpu")
    pretrain([image], out, options)
    return out


def open_encoder(file: Path) -> PixelEncoder:
    """The encoder of a file."""
    return PixelEncoder.open(file, "cpu")
