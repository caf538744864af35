"""The numbers of one observation: how much of a parcel one chip shows, and what it shows there."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from indexer.imagery.chip import BoolArray, Chip, FloatArray
from indexer.spectral_indices import INDICES, Float64Array, compute_index
from indexer.statistics import Summary, summarize

# The limits are those of Remote Sens. 2020, 12(14), 2195, https://doi.org/10.3390/rs12142195,
# for Sentinel-2 time series of small parcels against 3 m imagery.

INNER_BUFFER_M = 5.0
"""Width, in meters, cut off inside a parcel's border before whole pixels are counted."""

MIN_WHOLE_PIXELS = 8
"""Fewest whole pixels, after the inner buffer, that describe a parcel reliably."""

MAX_LOST_FRACTION = 0.6
"""Share of a parcel's pixels, 0 to 1, that must not be lost.

The source states it for pixels lost to the inner buffer. Here the same limit holds for what
clouds hide and for what lies outside the image.
"""


@dataclass(frozen=True)
class ObservationState:
    """What one chip says about one parcel."""

    pixels_inside: float
    """Pixels of the chip inside the parcel, parts of pixels included."""
    valid_pixels: float
    """Those among them that have data and are under no cloud or shadow."""
    valid_fraction: float
    """``valid_pixels / pixels_inside``, 0 to 1; 0 where no pixel lies inside."""
    data_fraction: float
    """Share of ``pixels_inside`` that has data, whatever the sky, 0 to 1."""
    cloud_cover_percent: float | None
    """Share of the pixels with data under cloud or its shadow, 0 to 100; None where unknown."""
    covered_fraction: float
    """Share of the parcel's area that lies inside the image, 0 to 1."""
    whole_valid_pixels: int
    """Valid pixels that lie wholly inside the parcel after the inner buffer."""
    reliable: bool
    """True where enough of the parcel is seen for the indices to describe it."""
    indices: dict[str, Summary]
    """Spectral indices over the valid pixels, unitless; only those whose bands the chip has."""

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON holds it: plain numbers, dictionaries and None."""
        return asdict(self)


def observe(
    chip: Chip, coverage: FloatArray, *, whole_pixels: BoolArray, covered_fraction: float
) -> ObservationState:
    """Describe one parcel as one chip shows it.

    Args:
        chip: The acquisition.
        coverage: Share of each pixel inside the parcel, 0 to 1, shape ``(y, x)`` of the chip.
        whole_pixels: True for pixels wholly inside the parcel after ``INNER_BUFFER_M``, same
            shape; read only where ``coverage`` is above 0.
        covered_fraction: Share of the parcel's area that lies inside the image, 0 to 1.

    Returns:
        The state; without valid pixels it has no indices.

    Raises:
        ValueError: If a shape differs from the chip's.
    """
    for label, array in (("coverage", coverage), ("whole_pixels", whole_pixels)):
        if array.shape != chip.shape:
            raise ValueError(f"{label} {array.shape} does not fit the chip {chip.shape}")
    # A parcel is small and a chip may be a whole scene: nothing beyond this window is looked at.
    rows, columns = _window(coverage)
    part = chip.window(
        rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start
    )
    inside = coverage[rows, columns].astype(np.float64)
    valid = np.where(part.valid_mask, inside, 0.0)
    with_data = np.where(part.data_mask, inside, 0.0)
    valid_fraction = _share(valid, inside)
    whole = int(np.count_nonzero(whole_pixels[rows, columns] & part.valid_mask))
    return ObservationState(
        pixels_inside=float(inside.sum()),
        valid_pixels=float(valid.sum()),
        valid_fraction=valid_fraction,
        data_fraction=_share(with_data, inside),
        cloud_cover_percent=_cloud_cover_percent(part, with_data),
        covered_fraction=float(covered_fraction),
        whole_valid_pixels=whole,
        reliable=_reliable(whole, valid_fraction, covered_fraction),
        indices=_summarize_indices(part, valid),
    )


def _window(coverage: FloatArray) -> tuple[slice, slice]:
    """Rows and columns around everything above 0; empty slices where nothing is."""
    rows = np.flatnonzero((coverage > 0).any(axis=1))
    if rows.size == 0:
        return slice(0, 0), slice(0, 0)
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero((coverage[top:bottom] > 0).any(axis=0))
    return slice(top, bottom), slice(int(columns[0]), int(columns[-1]) + 1)


def _share(part: Float64Array, whole: Float64Array) -> float:
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else 0.0


def _cloud_cover_percent(chip: Chip, with_data: Float64Array) -> float | None:
    if chip.cloud_mask is None or not with_data.any():
        return None
    return 100 * _share(np.where(chip.cloud_mask, with_data, 0.0), with_data)


def _reliable(whole_valid_pixels: int, valid_fraction: float, covered_fraction: float) -> bool:
    kept = 1 - MAX_LOST_FRACTION
    return bool(
        whole_valid_pixels >= MIN_WHOLE_PIXELS and valid_fraction > kept and covered_fraction > kept
    )


def _summarize_indices(chip: Chip, weights: Float64Array) -> dict[str, Summary]:
    if not weights.any():
        return {}
    summaries = {
        name: summarize(compute_index(name, chip), weights)
        for name, index in INDICES.items()
        if set(index.bands) <= set(chip.bands)
    }
    return {name: summary for name, summary in summaries.items() if summary is not None}
