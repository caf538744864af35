"""Optical images and the radar images of their days, as one image of fourteen bands."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import numpy as np
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from indexer.errors import ImageryError
from indexer.imagery.chip import Chip, FloatArray
from indexer.imagery.radar import linear_power
from indexer.imagery.reader import ReadingOptions, Scene
from indexer.imagery.sources import Source
from indexer.progress import Progress, Silent
from indexer.sensors import MODALITY_BANDS, POLARIZATIONS, RADAR_BANDS, Modality
from indexer.skipped import Skipped

MOST_DAYS: Final = 6.0
"""How far apart the two may be acquired, in days: half of the 12 days in which one satellite of
Sentinel-1 comes back, so that one pass of an orbit always lies within them."""

OpenScene = Callable[[Source, ReadingOptions], Scene]
"""Opens an image by its headers for the bands that are wanted, or raises ``ImageryError``."""


# Images ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JointImage:
    """An optical image with backscatter beside its reflectance, on the optical grid."""

    optical: Scene
    radar: tuple[Scene, ...]
    """The nearest in time first; each fills what those before it left without data."""

    @property
    def source(self) -> Source:
        """Of the optical image."""
        return self.optical.source

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.optical.shape

    @property
    def transform(self) -> Affine:
        """Pixel to map coordinates, as in rasterio."""
        return self.optical.transform

    @property
    def crs(self) -> CRS | None:
        """Of the optical image."""
        return self.optical.crs

    @property
    def is_remote(self) -> bool:
        """Whether some of its files lie on a server."""
        return any(scene.is_remote for scene in (self.optical, *self.radar))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the units of ``crs``."""
        return self.optical.bounds

    def read(self, row: int = 0, column: int = 0, height: int = 0, width: int = 0) -> Chip:
        """Read a window; a height or width of 0 reaches to the image's end.

        Returns:
            The optical chip with VV and VH after its bands; valid where both instruments are.

        Raises:
            ImageryError: If the pixels of either cannot be read.
        """
        chip = self.optical.read(row, column, height, width)
        backscatter = np.full((len(RADAR_BANDS), *chip.shape), np.nan, dtype=np.float32)
        for scene in self.radar:
            gaps = ~np.isfinite(backscatter).all(axis=0)
            if not gaps.any():
                break
            backscatter[:, gaps] = _read_onto(scene, chip)[:, gaps]
        return replace(
            chip,
            reflectance=np.concatenate([chip.reflectance, backscatter]),
            bands=(*chip.bands, *RADAR_BANDS),
            valid_mask=chip.valid_mask & np.isfinite(backscatter).all(axis=0),
        )


def _read_onto(radar: Scene, chip: Chip) -> FloatArray:
    """Backscatter in dB on a chip's grid, shape ``(2, y, x)``; NaN where there is no data."""
    onto = np.full((len(RADAR_BANDS), *chip.shape), np.nan, dtype=np.float32)
    if radar.crs == chip.crs:
        moved = ~radar.transform @ chip.transform
        column, row = round(moved.c), round(moved.f)
        if moved.almost_equals(Affine.translation(column, row), _SAME_PLACE_PX):
            _paste(radar, onto, row, column)
            return onto
    window = _window_under(radar, chip)
    if window is None or radar.crs is None or chip.crs is None:
        return onto
    seen = radar.read(*window)
    # An average of dB would be one of magnitudes; energy is what adds up.
    for band, power in zip(onto, linear_power(seen.stack(RADAR_BANDS)), strict=True):
        reproject(
            power,
            band,
            src_transform=seen.transform,
            src_crs=radar.crs,
            src_nodata=np.nan,
            dst_transform=chip.transform,
            dst_crs=chip.crs,
            dst_nodata=np.nan,
            # Where pixels become larger, GDAL widens the kernel, so that all of them count.
            resampling=Resampling.bilinear,
        )
    return (10 * np.log10(onto)).astype(np.float32)


def _paste(radar: Scene, onto: FloatArray, row: int, column: int) -> None:
    """Copy what lies on the same grid, ``onto`` beginning at a row and column of the radar."""
    height, width = onto.shape[1:]
    top, left = max(0, row), max(0, column)
    bottom, right = min(radar.shape[0], row + height), min(radar.shape[1], column + width)
    if top < bottom and left < right:
        part = radar.read(top, left, bottom - top, right - left).stack(RADAR_BANDS)
        onto[:, top - row : bottom - row, left - column : right - column] = part


def _window_under(radar: Scene, chip: Chip) -> tuple[int, int, int, int] | None:
    """Row, column, height and width of the radar under a chip; None where there is none."""
    if radar.crs is None or chip.crs is None:
        return None
    outline = shapely.transform(
        _outline(chip.bounds, chip.crs, radar.crs),
        lambda at: np.column_stack(~radar.transform @ (at[:, 0], at[:, 1])),
    )
    if not np.isfinite(shapely.get_coordinates(outline)).all():
        return None
    left, top, right, bottom = outline.bounds
    # Interpolation looks at the neighbors, at as many as become one pixel.
    margin = _MARGIN_PX * max(1.0, (right - left) / chip.shape[1], (bottom - top) / chip.shape[0])
    first_row, first_column = max(0, math.floor(top - margin)), max(0, math.floor(left - margin))
    last_row = min(radar.shape[0], math.ceil(bottom + margin))
    last_column = min(radar.shape[1], math.ceil(right + margin))
    if first_row >= last_row or first_column >= last_column:
        return None
    return first_row, first_column, last_row - first_row, last_column - first_column


# Transforms that differ by less are the same, written with other roundings.
_SAME_PLACE_PX = 1e-3
_MARGIN_PX = 2


# Pairs ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairing:
    """Which radar images belong to which optical image."""

    pairs: tuple[JointImage, ...]
    unpaired: tuple[tuple[Scene, ImageryError], ...]
    """Optical images without radar, and why (``no-radar``)."""


def pair_with_radar(
    optical: Sequence[Scene], radar: Sequence[Scene], most_days: float = MOST_DAYS
) -> Pairing:
    """Find for each optical image the radar images of its place and its days.

    They overlap, and were acquired within ``most_days`` days of each other. Where the time of
    either is unknown, only images of the same name are a pair; ``S1RTC`` and the like in a name
    make no difference. Images without a reference system are a pair by name and shape.

    Args:
        optical: Opened by their headers.
        radar: Likewise.
        most_days: Days between the two acquisitions, at most.

    Returns:
        A joint image for each optical image that has a pair, in the order given, and the others.
    """
    candidates = _Candidates(radar)
    pairs: list[JointImage] = []
    unpaired: list[tuple[Scene, ImageryError]] = []
    for scene in optical:
        found = [one for one in candidates.of(scene, most_days) if _overlap(scene, one)]
        if found:
            pairs.append(JointImage(scene, tuple(sorted(found, key=_nearness(scene)))))
        else:
            unpaired.append((scene, candidates.lacking(scene, most_days)))
    return Pairing(tuple(pairs), tuple(unpaired))


@dataclass(frozen=True)
class JointReading:
    """How images are opened for an encoder that looks at both instruments."""

    reading: ReadingOptions
    """Of any bands; those of both instruments may be named."""
    radar: Mapping[tuple[str, str], tuple[Source, ...]]
    """Radar images of each optical one, by its location and name; none of one that holds both."""
    open_scene: OpenScene

    def open(self, source: Source) -> Scene | JointImage:
        """Open an image and the radar that belongs to it.

        Raises:
            ImageryError: As ``open_scene``.
        """
        radar = self.radar[source.location, source.name]
        if not radar:
            return self.open_scene(source, _options(self.reading, "joint"))
        return JointImage(
            self.open_scene(source, _options(self.reading, "optical")),
            tuple(self.open_scene(one, _options(self.reading, "sar")) for one in radar),
        )


@dataclass(frozen=True)
class JointSources:
    """The images that a joint encoder can look at."""

    sources: list[Source]
    """Optical images with radar of their days, and images that hold both, in the order given."""
    reading: JointReading
    skipped: list[Skipped]
    """Images that cannot be opened, and optical ones without radar."""


def find_pairs(
    sources: Sequence[Source],
    reading: ReadingOptions,
    open_scene: OpenScene,
    *,
    most_days: float = MOST_DAYS,
    progress: Progress | None = None,
) -> JointSources:
    """Tell optical from radar images by what their headers name, and find the pairs.

    Args:
        sources: Of both instruments.
        reading: How they are read. Where files do not name their bands, ``bands`` may name those
            of both (``--bands l2a,s1``): a file of as many layers as one instrument has holds it.
        open_scene: Opens a source by its headers.
        most_days: Days between the two acquisitions of a pair, at most.
        progress: Told of every source that was opened.
    """
    progress = progress or Silent()
    progress.start("Pairing with radar", len(sources), "images")
    scenes: dict[Modality, list[Scene]] = {"joint": [], "sar": [], "optical": []}
    skipped: list[Skipped] = []
    for source in sources:
        try:
            modality, scene = _open_as_it_is(source, reading, open_scene)
            scenes[modality].append(scene)
        except ImageryError as error:
            skipped.append(Skipped.from_error(source.location, error))
        progress.advance(1)
    progress.finish()
    pairing = pair_with_radar(scenes["optical"], scenes["sar"], most_days)
    skipped += [
        Skipped.from_error(scene.source.location, error) for scene, error in pairing.unpaired
    ]
    radar: dict[tuple[str, str], tuple[Source, ...]] = {
        (scene.source.location, scene.source.name): () for scene in scenes["joint"]
    }
    for pair in pairing.pairs:
        key = pair.source.location, pair.source.name
        radar[key] = tuple(scene.source for scene in pair.radar)
    usable = [source for source in sources if (source.location, source.name) in radar]
    return JointSources(usable, JointReading(reading, radar, open_scene), skipped)


# What says that an image is not of these bands, but may be of others.
_OTHER_BANDS = frozenset({"band-count", "bands-unknown", "missing-band"})


def _open_as_it_is(
    source: Source, reading: ReadingOptions, open_scene: OpenScene
) -> tuple[Modality, Scene]:
    """Open an image for all bands that are wanted of it.

    Raises:
        ImageryError: If it has those of neither instrument, or cannot be opened.
    """
    tries: tuple[Modality, ...] = ("joint", "sar")
    for modality in tries:
        try:
            return modality, open_scene(source, _options(reading, modality))
        except ImageryError as error:
            if error.kind not in _OTHER_BANDS:
                raise
    return "optical", open_scene(source, _options(reading, "optical"))


def _options(reading: ReadingOptions, modality: Modality) -> ReadingOptions:
    """Options for the bands of a modality; of the names given, those that are of its instrument."""
    bands = reading.bands
    if bands is not None and modality != "joint":
        named = set(bands) - {"-"}
        radar = modality == "sar"
        # Names of one instrument alone are of its files only, '-' and all.
        if named & set(POLARIZATIONS) and named - set(POLARIZATIONS):
            bands = tuple(band for band in bands if (band in POLARIZATIONS) == radar)
        elif radar != bool(named & set(POLARIZATIONS)):
            bands = None
    return replace(reading, bands=bands, wanted=MODALITY_BANDS[modality])


class _Candidates:
    """Radar images by time and by name."""

    def __init__(self, radar: Sequence[Scene]) -> None:
        self._dated = sorted((scene for scene in radar if scene.acquired_at is not None), key=_time)
        self._times = [_time(scene) for scene in self._dated]
        self._named: dict[str, list[Scene]] = {}
        for scene in radar:
            self._named.setdefault(_shared_name(scene), []).append(scene)

    def of(self, optical: Scene, most_days: float) -> list[Scene]:
        """Those of the days of an optical image, and those of its name where a time is missing."""
        named = self._named.get(_shared_name(optical), [])
        if optical.acquired_at is None:
            return named
        days = timedelta(days=most_days)
        first = bisect_left(self._times, optical.acquired_at - days)
        last = bisect_right(self._times, optical.acquired_at + days)
        return [*self._dated[first:last], *(one for one in named if one.acquired_at is None)]

    def lacking(self, optical: Scene, most_days: float) -> ImageryError:
        """The error that names an optical image without radar."""
        location = optical.source.location
        if optical.acquired_at is None:
            what = "nothing tells when it was acquired, and no radar image of its name overlaps it"
        else:
            what = f"no radar image of the {most_days:g} days before or after it overlaps it"
            others = [one for one in self._dated if _overlap(optical, one)]
            if others:
                nearest = min(others, key=_nearness(optical))
                apart = abs(_time(nearest) - optical.acquired_at) / timedelta(days=1)
                what += f" (the nearest, {nearest.source.name}, is {apart:.1f} days away)"
        return ImageryError(
            f"{location}: {what}; add images of Sentinel-1 of these days, or embed it with "
            "--modality optical.",
            kind="no-radar",
        )


def _time(scene: Scene) -> datetime:
    return scene.acquired_at or datetime.min.replace(tzinfo=UTC)


def _nearness(optical: Scene) -> Callable[[Scene], tuple[timedelta, datetime, str]]:
    """A key that sorts radar images: the nearest first, those without a time last."""

    def key(radar: Scene) -> tuple[timedelta, datetime, str]:
        known = optical.acquired_at is not None and radar.acquired_at is not None
        apart = abs(_time(radar) - _time(optical)) if known else timedelta.max
        return apart, _time(radar), radar.source.name

    return key


_INSTRUMENT = re.compile(
    r"(?:^|[_.-]+)s[12][a-d]?(?:grd|rtc|slc|l1c|l2a)?(?=$|[_.-])", re.IGNORECASE
)


def _shared_name(scene: Scene) -> str:
    """A name without what only tells the instrument: ``ROIs1158_spring_s1_1_p30``."""
    name = scene.source.name
    return _INSTRUMENT.sub("", name).strip("_.-").lower() or name.lower()


def _overlap(optical: Scene, radar: Scene) -> bool:
    if optical.crs is None or radar.crs is None:
        same_name = _shared_name(optical) == _shared_name(radar)
        return optical.crs == radar.crs and same_name and optical.shape == radar.shape
    if not _near(_lon_lat(optical), _lon_lat(radar)):
        return False
    outline = _outline(radar.bounds, radar.crs, optical.crs)
    return bool(shapely.box(*optical.bounds).intersection(outline).area > 0)


def _near(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two boxes of longitude and latitude touch, also across the 180th meridian.

    Far from its own zone a projection gives numbers without meaning, so this is asked first.
    """
    (west, south, east, north), (west_2, south_2, east_2, north_2) = one, other
    beside = (west_2 - west) % 360 <= (east - west) or (west - west_2) % 360 <= (east_2 - west_2)
    return beside and south <= north_2 and south_2 <= north


def _lon_lat(scene: Scene) -> tuple[float, ...]:
    if scene.crs is None:
        raise TypeError("a scene without a reference system has no longitude")
    return _lon_lat_box(scene.bounds, scene.crs.to_wkt())


@lru_cache(maxsize=65_536)
def _lon_lat_box(bounds: tuple[float, float, float, float], crs: str) -> tuple[float, ...]:
    box = shapely.segmentize(shapely.box(*bounds), _step(bounds))
    longitudes, latitudes = _transformer(crs, "EPSG:4326").transform(
        *shapely.get_coordinates(box).T
    )
    if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
        return -180.0, -90.0, 180.0, 90.0
    if longitudes.max() - longitudes.min() > 180:
        longitudes = longitudes % 360
    return (
        float(longitudes.min()),
        float(latitudes.min()),
        float(longitudes.max()),
        float(latitudes.max()),
    )


def _outline(bounds: tuple[float, float, float, float], crs: CRS, onto: CRS) -> shapely.Polygon:
    box = shapely.box(*bounds)
    if crs == onto:
        return box
    transformer = _transformer(crs.to_wkt(), onto.to_wkt())
    moved: shapely.Polygon = shapely.transform(
        shapely.segmentize(box, _step(bounds)),
        lambda at: np.column_stack(transformer.transform(at[:, 0], at[:, 1])),
    )
    return moved


def _step(bounds: tuple[float, float, float, float]) -> float:
    """Length of the pieces that the sides of a box are bent by, in its units."""
    west, south, east, north = bounds
    return max(east - west, north - south) / 20


@lru_cache(maxsize=1024)
def _transformer(crs: str, onto: str) -> Transformer:
    return Transformer.from_crs(crs, onto, always_xy=True)
