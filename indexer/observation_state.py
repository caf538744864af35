"""The numbers of one observation: how much of a parcel one chip shows, and what it shows there."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from shapely import MultiPolygon, Polygon

from indexer.imagery.chip import BoolArray, Chip, FloatArray
from indexer.parcels.coverage import coverages, covered_fractions, inner_buffers
from indexer.parcels.pixel_shares import Covered, IntArray
from indexer.spectral_indices import INDICES, Float64Array, compute_index
from indexer.statistics import Summary, summarize_rows

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

# Coverage is computed in float32; a pixel that is wholly inside may fall short of 1 by rounding.
_WHOLE = 1 - 1e-5

# Pixels whose indices are computed together: 16 MiB of float64 for all of them.
_MOST_PIXELS = 2**18


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
        indices = {name: summary.to_dict() for name, summary in self.indices.items()}
        return {**vars(self), "indices": indices}


@dataclass(frozen=True, eq=False)
class Observed:
    """One parcel in one chip: what it shows, and where."""

    state: ObservationState
    rows: slice
    """Rows of the chip that the parcel touches; empty where it touches none."""
    columns: slice
    """Columns of the chip that it touches."""
    share: FloatArray
    """Share of each of these pixels inside the parcel, 0 to 1, shape ``(rows, columns)``."""


@dataclass(frozen=True, eq=False)
class _Sight:
    """A parcel in a chip, with the pixels that its indices are computed from."""

    state: ObservationState
    """Without indices."""
    covered: Covered
    rows: IntArray
    """Row of each valid pixel of which some lies inside the parcel, shape ``(n,)``."""
    columns: IntArray
    """Column of each."""
    weights: Float64Array
    """Share of each inside the parcel."""


def observe_parcels(
    chip: Chip, geometries: Sequence[Polygon | MultiPolygon | None]
) -> list[Observed]:
    """Describe many parcels as one chip shows them.

    What is found for a parcel does not depend on the others, to the last bit.

    Args:
        chip: The acquisition.
        geometries: Valid polygons in the reference system of the chip; None where the whole chip
            is the parcel.

    Returns:
        What the chip shows of each, in order; without valid pixels a state has no indices.

    Raises:
        ValueError: If there is a polygon, but the chip has no reference system.
    """
    polygons = [geometry for geometry in geometries if geometry is not None]
    outlined = _outlined(chip, polygons)
    sights = (
        _sight(chip, *(_everywhere(chip) if geometry is None else next(outlined)))
        for geometry in geometries
    )
    return list(_with_indices(chip, sights))


def observe(
    chip: Chip, coverage: FloatArray, *, whole_pixels: BoolArray, covered_fraction: float
) -> ObservationState:
    """Describe one parcel as one chip shows it.

    Args:
        chip: The acquisition.
        coverage: Share of each pixel inside the parcel, 0 to 1, shape ``(y, x)`` of the chip.
        whole_pixels: True for pixels wholly inside the parcel after ``INNER_BUFFER_M``, same
            shape.
        covered_fraction: Share of the parcel's area that lies inside the image, 0 to 1.

    Returns:
        The state; without valid pixels it has no indices.

    Raises:
        ValueError: If a shape differs from the chip's.
    """
    for label, array in (("coverage", coverage), ("whole_pixels", whole_pixels)):
        if array.shape != chip.shape:
            raise ValueError(f"{label} {array.shape} does not fit the chip {chip.shape}")
    everywhere, whole, _ = _everywhere(chip)
    sight = _sight(
        chip,
        replace(everywhere, share=coverage),
        replace(whole, share=whole_pixels.astype(np.float32)),
        covered_fraction,
    )
    (observed,) = _with_indices(chip, [sight])
    return observed.state


def _everywhere(chip: Chip) -> tuple[Covered, Covered, float]:
    """The whole chip as a parcel: its pixels, its whole pixels, the share inside the image."""
    height, width = chip.shape
    all_of_it = Covered(slice(0, height), slice(0, width), np.ones(chip.shape, dtype=np.float32))
    return all_of_it, all_of_it, 1.0


def _outlined(
    chip: Chip, polygons: Sequence[Polygon | MultiPolygon]
) -> Iterator[tuple[Covered, Covered, float]]:
    """The pixels of each parcel, those left by the inner buffer, the share inside the image."""
    if not polygons:
        return iter(())
    if chip.crs is None:
        raise ValueError(f"{chip.source}: a parcel with an outline needs a chip with a CRS")
    cores = inner_buffers(polygons, chip.crs, INNER_BUFFER_M)
    return zip(
        coverages(polygons, chip.transform, chip.shape),
        coverages(cores, chip.transform, chip.shape),
        covered_fractions(polygons, _outline(chip)).tolist(),
        strict=True,
    )


def _outline(chip: Chip) -> Polygon:
    """The chip's outline on the map, which is no upright box where the image is rotated."""
    height, width = chip.shape
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    return Polygon([chip.transform @ corner for corner in corners])


def _sight(chip: Chip, covered: Covered, core: Covered, covered_fraction: float) -> _Sight:
    """A parcel's state but for its indices."""
    rows, columns = np.nonzero(covered.share)
    inside = covered.share[rows, columns].astype(np.float64)
    rows, columns = rows + covered.rows.start, columns + covered.columns.start
    valid = chip.valid_mask[rows, columns]
    has_data = chip.data_mask[rows, columns]
    weights = inside[valid]
    with_data = inside[has_data]
    cloudy = None if chip.cloud_mask is None else chip.cloud_mask[rows, columns][has_data]
    total = float(inside.sum())
    valid_fraction = _share(weights, total)
    valid_around = chip.valid_mask[core.rows, core.columns]
    whole = int(np.count_nonzero((core.share >= _WHOLE) & valid_around))
    state = ObservationState(
        pixels_inside=total,
        valid_pixels=float(weights.sum()),
        valid_fraction=valid_fraction,
        data_fraction=_share(with_data, total),
        cloud_cover_percent=_cloud_cover_percent(with_data, cloudy),
        covered_fraction=float(covered_fraction),
        whole_valid_pixels=whole,
        reliable=_reliable(whole, valid_fraction, covered_fraction),
        indices={},
    )
    return _Sight(state, covered, rows[valid], columns[valid], weights)


def _share(part: Float64Array, whole: float) -> float:
    return float(part.sum()) / whole if whole > 0 else 0.0


def _cloud_cover_percent(with_data: Float64Array, cloudy: BoolArray | None) -> float | None:
    if cloudy is None or not with_data.size:
        return None
    return 100 * _share(with_data[cloudy], float(with_data.sum()))


def _reliable(whole_valid_pixels: int, valid_fraction: float, covered_fraction: float) -> bool:
    kept = 1 - MAX_LOST_FRACTION
    return bool(
        whole_valid_pixels >= MIN_WHOLE_PIXELS and valid_fraction > kept and covered_fraction > kept
    )


def _with_indices(chip: Chip, sights: Iterable[_Sight]) -> Iterator[Observed]:
    """Complete the states, so many at once that the pixels of all of them fit into memory."""
    group: list[_Sight] = []
    held = 0
    for sight in sights:
        if group and held + sight.weights.size > _MOST_PIXELS:
            yield from _complete(chip, group)
            group, held = [], 0
        group.append(sight)
        held += sight.weights.size
    yield from _complete(chip, group)


def _complete(chip: Chip, group: Sequence[_Sight]) -> Iterator[Observed]:
    for sight, indices in zip(group, _summarize_indices(chip, group), strict=True):
        covered = sight.covered
        state = replace(sight.state, indices=indices) if indices else sight.state
        yield Observed(state, covered.rows, covered.columns, covered.share)


def _summarize_indices(chip: Chip, group: Sequence[_Sight]) -> list[dict[str, Summary]]:
    """The spectral indices of each parcel; all parcels' pixels are computed at once."""
    summaries: list[dict[str, Summary]] = [{} for _ in group]
    ends = np.cumsum([sight.weights.size for sight in group], dtype=np.int64).tolist()
    computable = [name for name, index in INDICES.items() if set(index.bands) <= set(chip.bands)]
    if not computable or not ends or ends[-1] == 0:
        return summaries
    rows = np.concatenate([sight.rows for sight in group])
    columns = np.concatenate([sight.columns for sight in group])
    # Of one large parcel, one index at a time.
    at_once = len(computable) if ends[-1] <= _MOST_PIXELS else 1
    for first in range(0, len(computable), at_once):
        names = computable[first : first + at_once]
        values = np.stack([compute_index(name, chip, (rows, columns)) for name in names])
        for found, sight, end in zip(summaries, group, ends, strict=True):
            if sight.weights.size:
                mine = values[:, end - sight.weights.size : end]
                pairs = zip(names, summarize_rows(mine, sight.weights), strict=True)
                found.update({name: summary for name, summary in pairs if summary is not None})
    return summaries
