"""Images larger than memory: blocks of rows, and what a pass over them finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from indexer.errors import ImageryError
from indexer.imagery.spectral_cube import MIN_BANDS, SpectralImage, runs

MEMORY_MIB: Final = 256
"""What one block may take, unless told otherwise."""

# A stored number, its float32, a scaled float64 between them, and masks.
_BYTES_PER_VALUE: Final = 24


def block_rows(image: SpectralImage, memory_mib: float = MEMORY_MIB) -> Iterator[slice]:
    """Cut an image into blocks of whole rows, from the top.

    Args:
        image: Of any size.
        memory_mib: What reading one block may take, in MiB; a block has at least one row.

    Yields:
        Rows of each block, with start and stop; together they are all rows, once. Where they fit,
        blocks end where the file's own blocks do, so that none of these is unpacked twice.
    """
    height, width = image.shape
    row_bytes = width * len(image.bands) * _BYTES_PER_VALUE
    rows = max(1, int(memory_mib * 2**20 / row_bytes))
    stored = image.pixels.block_rows
    if rows > stored:
        rows -= rows % stored
    for start in range(0, height, rows):
        yield slice(start, min(height, start + rows))


@dataclass(frozen=True)
class PixelSurvey:
    """What one pass over an image counted."""

    valid_pixels: int
    band_pixels: tuple[int, ...]
    """Pixels at which each band has data."""

    @property
    def empty_bands(self) -> tuple[int, ...]:
        """Positions of the bands that have data nowhere."""
        return tuple(at for at, pixels in enumerate(self.band_pixels) if pixels == 0)


def survey_pixels(
    image: SpectralImage,
    memory_mib: float = MEMORY_MIB,
    progress: Callable[[int, int], None] | None = None,
) -> PixelSurvey:
    """Count the valid pixels of an image, and those of each band, block by block.

    Args:
        image: Of any size.
        memory_mib: As for ``block_rows``.
        progress: Called with the rows done and all rows.
    """
    valid, with_data = 0, np.zeros(len(image.bands), dtype=np.int64)
    for rows in block_rows(image, memory_mib):
        chip = image.read(rows.start, height=rows.stop - rows.start)
        valid += int(chip.valid_mask.sum())
        with_data += np.isfinite(chip.reflectance).sum(axis=(1, 2))
        if progress is not None:
            progress(rows.stop, image.shape[0])
    return PixelSurvey(valid, tuple(with_data.tolist()))


def valid_pixel_count(image: SpectralImage, memory_mib: float = MEMORY_MIB) -> int:
    """Number of valid pixels, found block by block.

    Raises:
        ImageryError: ``no-valid-pixels``, if there are none.
    """
    survey = survey_pixels(image, memory_mib)
    if survey.valid_pixels == 0:
        raise _no_valid_pixels(image, survey)
    return survey.valid_pixels


def without_empty_bands(image: SpectralImage, memory_mib: float = MEMORY_MIB) -> SpectralImage:
    """The same image without the bands that have data nowhere, which would leave no pixel valid.

    Products fill the bands where water vapor absorbs everything with nodata and keep them.

    Returns:
        The image itself where each band has data somewhere; else one with a note.

    Raises:
        ImageryError: ``no-valid-pixels``, if no pixel is valid even so.
    """
    survey = survey_pixels(image, memory_mib)
    if survey.valid_pixels > 0:
        return image
    empty = survey.empty_bands
    kept = [at for at in range(len(image.bands)) if at not in empty]
    if not empty or len(kept) < MIN_BANDS:
        raise _no_valid_pixels(image, survey)
    told = "1 band" if len(empty) == 1 else f"{len(empty)} bands"
    left = image.with_bands(kept, f"left out {told} without any data ({runs(empty)})")
    valid_pixel_count(left, memory_mib)
    return left


def _no_valid_pixels(image: SpectralImage, survey: PixelSurvey) -> ImageryError:
    height, width = image.shape
    empty = survey.empty_bands
    if 0 < len(empty) < len(image.bands):
        found = f"band {runs(empty)} of {len(image.bands)} has data nowhere; leave it out"
    else:
        found = (
            "all are nodata, 0 in every band, masked, or not finite in some band; check the "
            "declared nodata value"
        )
    return ImageryError(
        f"{image.source.path}: none of its {height} x {width} pixels is valid: {found}.",
        kind="no-valid-pixels",
    )
