"""A small synthetic farm landscape, drawn to files: parcels and scenes like Sentinel-2's.

For ``parcelle demo`` and for tests. A pixel is a mixture of soil, straw, leaves and petals; what
a crop's calendar says about a day decides the shares. All numbers are illustrative: typical of
loess soils and common crops of northern France, measured nowhere.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform_geom
from shapely import LineString, MultiLineString, Point, Polygon, box
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient
from shapely.ops import split, unary_union

from indexer.errors import InvalidInputError
from indexer.imagery.chip import BoolArray
from indexer.sensors import OFFSET_DN, PROFILES, QUANTIFICATION, SCL, SENTINEL2_BANDS

DATES = (
    date(2023, 3, 15),
    date(2023, 4, 24),
    date(2023, 5, 29),
    date(2023, 7, 3),
    date(2023, 8, 12),
)
"""One season: winter crops green up, rapeseed flowers, cereals ripen, maize takes over."""

MIN_SIZE_PX = 130
"""Smallest scene: one encoder chip of 120 px and a margin around it."""

MIN_PARCEL_PX = 12
"""Smallest spacing of parcels, in pixels; below it the lanes would leave little of them."""

PIXEL_M = 10
"""Side of a pixel in meters, the finest of Sentinel-2."""

_Floats = npt.NDArray[np.float64]
_Dn = npt.NDArray[np.uint16]

_BANDS = PROFILES["l2a"]
_BASELINE = "N0509"
_CRS = CRS.from_epsg(32631)
_LONGITUDE_LATITUDE = CRS.from_epsg(4326)
# North of Paris, on the pixel grid of tile 31UDQ.
_WEST_M, _NORTH_M = 429_960, 5_460_000
_TRANSFORM = Affine(PIXEL_M, 0, _WEST_M, 0, -PIXEL_M, _NORTH_M)
_MIN_AREA_M2 = 1_000

# Reflectance of what a pixel is mixed from. Soil: dry silt loam. Straw: bright, with the cellulose
# absorption near 2.1 um. Leaves: chlorophyll absorbs blue and red, water absorbs beyond 1.4 um.
# Petals of rapeseed: carotenoids absorb blue and nothing else.
_SPECTRA = {
    #       soil  straw  leaves petals
    "B01": (0.08, 0.090, 0.018, 0.030),
    "B02": (0.10, 0.110, 0.022, 0.035),
    "B03": (0.13, 0.160, 0.055, 0.230),
    "B04": (0.17, 0.210, 0.025, 0.220),
    "B05": (0.19, 0.235, 0.085, 0.280),
    "B06": (0.21, 0.255, 0.300, 0.410),
    "B07": (0.22, 0.275, 0.400, 0.470),
    "B08": (0.24, 0.300, 0.430, 0.490),
    "B8A": (0.25, 0.320, 0.450, 0.500),
    "B09": (0.26, 0.330, 0.440, 0.490),
    "B11": (0.33, 0.380, 0.200, 0.250),
    "B12": (0.29, 0.300, 0.085, 0.130),
}
_ENDMEMBERS: _Floats = np.array([_SPECTRA[name] for name in _BANDS])
_SOIL, _STRAW, _LEAVES, _PETALS = (_ENDMEMBERS[:, place] for place in range(4))

_WAVELENGTH_UM = np.array([SENTINEL2_BANDS[name].center_wavelength_um for name in _BANDS])
# 0 visible, 1 near infrared, 2 short-wave infrared.
_REGION = np.digitize(_WAVELENGTH_UM, [0.72, 1.40])

_PLAUSIBLE_REFLECTANCE = (0.01, 0.60)
_VEGETATED_NDVI = 0.3

_CLOUD_SHARE = 0.085
_CLOUD = np.where(_REGION == 2, 0.38, 0.52)
# A shadow is lit by the sky alone, and the sky is blue.
_SHADOW = np.linspace(0.50, 0.25, len(_BANDS))
# In the late morning the sun stands in the south-south-east, so shadows fall up and a little
# left. The shift is a share of the scene: cloud and shadow both stay in a small picture.
_SHADOW_SHIFT = (-0.13, -0.07)
_SCL_SHADOW, _SCL_VEGETATION, _SCL_BARE, _SCL_CLOUD = 3, 4, 5, 9


@dataclass(frozen=True)
class Landscape:
    """The files of a landscape that was drawn."""

    parcels_file: Path
    """GeoJSON with fiboa names, EPSG:4326."""
    scenes: tuple[Path, ...]
    """One GeoTIFF a date, in the order of the dates."""
    crops: dict[str, str]
    """Crop name of each parcel by its id."""


@dataclass(frozen=True)
class _Growth:
    """What grows on a piece of land, and when."""

    name: str
    code: str | None
    """Crop code of the French land parcel register; None for land that nobody declares."""
    cover: tuple[float, float, float]
    """Share of the ground under green leaves in winter, at the peak, and in the end."""
    days: tuple[int, int, int]
    """Days of the year at which half of green-up and of decline is done; their pace in days."""
    straw: float = 0.0
    """Share of the uncovered ground under straw or dry leaves after the decline."""
    cuts: tuple[int, ...] = ()
    """Days of the year at which it is mown."""
    bloom: tuple[int, float] = (0, 0.0)
    """Day of the year of full bloom, and the share of the canopy under petals then."""
    leaves: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors on the leaves' reflectance: visible (pigments), NIR (layers), SWIR (water)."""
    ground: float = 1.0
    """Brightness of the ground against the landscape's soil."""


# Calendars and traits after common agronomy of northern France, rounded; illustrative.
_WHEAT = _Growth("winter wheat", "BTH", (0.28, 0.95, 0.05), (85, 179, 7), straw=0.75)
_BARLEY = _Growth(
    "winter barley", "ORH", (0.36, 0.93, 0.05), (74, 159, 7), straw=0.7, leaves=(1.2, 1.0, 1.15)
)
_RAPESEED = _Growth(
    "rapeseed", "CZH", (0.48, 0.93, 0.08), (66, 172, 8), straw=0.6, bloom=(116, 0.55)
)
_MAIZE = _Growth(
    "maize", "MIS", (0.02, 0.94, 0.05), (166, 264, 8), straw=0.5, leaves=(1.0, 0.95, 1.1)
)
_SUNFLOWER = _Growth(
    "sunflower", "TRN", (0.02, 0.88, 0.05), (156, 232, 8), bloom=(194, 0.15), leaves=(1.1, 1.1, 1.0)
)
_BEET = _Growth("sugar beet", "BTN", (0.02, 0.97, 0.10), (146, 310, 8), leaves=(1.25, 1.18, 0.8))
_GRASSLAND = _Growth(
    "grassland", "PPH", (0.62, 0.88, 0.62), (82, 190, 14), cuts=(158,), leaves=(1.0, 0.84, 1.0)
)
_ALFALFA = _Growth(
    "alfalfa", "LUZ", (0.3, 0.95, 0.5), (88, 300, 9), cuts=(138, 180, 222), leaves=(1.0, 1.05, 0.9)
)
_VERGE = _Growth("verge", None, (0.45, 0.75, 0.50), (85, 195, 14), straw=0.6)
_TRACK = _Growth("track", None, (0.05, 0.15, 0.08), (95, 200, 14), ground=1.15)
_WOOD = _Growth("wood", None, (0.30, 0.98, 0.30), (112, 300, 8), leaves=(0.7, 0.8, 0.75))

_CROP_SHARES = {
    _WHEAT: 0.28,
    _BARLEY: 0.13,
    _RAPESEED: 0.14,
    _MAIZE: 0.14,
    _SUNFLOWER: 0.08,
    _BEET: 0.10,
    _GRASSLAND: 0.09,
    _ALFALFA: 0.04,
}
_WOODED_SHARE = 0.2


@dataclass(frozen=True)
class _Piece:
    """A piece of land on which one thing grows."""

    outline: BaseGeometry
    """In meters of ``_CRS``."""
    growth: _Growth
    days_late: float = 0.0
    """Days behind the crop's calendar: sowing date and variety."""
    vigor: float = 1.0
    """Factor on the green cover."""
    soil: float = 1.0
    """Brightness of the soil."""

    @property
    def variety(self) -> str:
        """Earliness, as seed catalogs put it."""
        return "early" if self.days_late < -3 else "late" if self.days_late > 3 else "mid-early"

    @property
    def properties(self) -> dict[str, str | float | None]:
        """Attributes of the parcel under their fiboa names; area in m2."""
        return {
            "crop:code": self.growth.code,
            "crop:name": self.growth.name,
            "metrics:area": round(self.outline.area, 1),
            "variety": self.variety,
        }

    def green_cover(self, day_of_year: int) -> float:
        """Share of the ground under green leaves, 0 to 1: a double logistic, less what is mown."""
        winter, peak, final = self.growth.cover
        peak *= self.vigor
        risen, fallen = self._progress(day_of_year)
        cover = winter + (peak - winter) * risen - (peak - final) * fallen
        for cut in self.growth.cuts:
            since = day_of_year - self.days_late - cut
            if since >= 0:
                cover *= 1 - 0.6 * math.exp(-since / 14)
        return min(max(cover, 0.0), 0.99)

    def canopy(self, day_of_year: int) -> _Floats:
        """Reflectance of its green cover, petals included, shape ``(band,)``."""
        factors: _Floats = np.array(self.growth.leaves)[_REGION]
        full_bloom, share = self.growth.bloom
        since = day_of_year - self.days_late - full_bloom
        petals = share * math.exp(-((since / 13) ** 2))
        return (1 - petals) * factors * _LEAVES + petals * _PETALS

    def ground(self, day_of_year: int) -> _Floats:
        """Reflectance of what shows between the leaves, soil and straw, shape ``(band,)``."""
        # Soil is wet, and so darker, in the middle of January.
        moisture = 0.5 + 0.5 * math.cos(2 * math.pi * (day_of_year - 15) / 365)
        soil = _SOIL * self.soil * self.growth.ground * (1 - 0.2 * moisture)
        straw = self.growth.straw * self._progress(day_of_year)[1]
        return (1 - straw) * soil + straw * _STRAW

    def _progress(self, day_of_year: int) -> tuple[float, float]:
        """How far green-up and decline have come, each 0 to 1."""
        green_up, decline, pace = self.growth.days
        day = day_of_year - self.days_late
        return _logistic((day - green_up) / pace), _logistic((day - decline) / pace)


def draw_landscape(
    folder: Path,
    *,
    size_px: int = 300,
    dates: Sequence[date] = DATES,
    seed: int = 0,
    parcels_across: int = 8,
) -> Landscape:
    """Draw a square of farmland: ``parcels.geojson`` and one GeoTIFF a date.

    A scene has the twelve Level-2A bands and the scene classification as uint16 layers, named by
    their descriptions. It is named like a product of baseline 05.09, and so its digital numbers
    carry the radiometric offset. Cloud and shadow hide 10 to 15 % of the middle date, at the
    default size some parcels altogether. Files of the same names are overwritten.

    Args:
        folder: Where to write; made if it does not exist.
        size_px: Side of the scenes in pixels of 10 m.
        dates: Acquisition dates, each of one scene.
        seed: The same seed draws the same pixels and the same parcels.
        parcels_across: Parcels along a side; about the square of it are drawn.

    Returns:
        The files, and the crop of each parcel.

    Raises:
        InvalidInputError: If no landscape can be drawn so (``invalid-option``).
    """
    _check(size_px, dates, seed, parcels_across)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    surroundings, pieces = _lay_out(size_px, parcels_across, rng)
    parcels = {f"demo-{number:03d}": piece for number, piece in enumerate(pieces, start=1)}
    canvas = _Canvas.primed([*surroundings, *pieces], size_px, rng)
    sky = _Sky.clouded(_cloud_center(pieces, size_px), size_px, rng)
    scenes = []
    for number, day in enumerate(dates):
        reflectance = canvas.reflectance(day, np.random.default_rng([seed, day.toordinal()]))
        overcast = number == len(dates) // 2
        dn = _digital_numbers(sky.over(reflectance) if overcast else reflectance)
        scl = _classified(dn)
        if overcast:
            scl = sky.flagged(scl)
        scenes.append(_write_scene(folder / f"{_product_name(day)}.tif", dn, scl))
    parcels_file = _write_parcels(folder / "parcels.geojson", parcels)
    crops = {parcel_id: piece.growth.name for parcel_id, piece in parcels.items()}
    return Landscape(parcels_file, tuple(scenes), crops)


def _check(size_px: int, dates: Sequence[date], seed: int, parcels_across: int) -> None:
    """Raise InvalidInputError where the options make no landscape."""
    most_across = size_px // MIN_PARCEL_PX - 1
    if size_px < MIN_SIZE_PX:
        problem = f"size_px is {size_px}; a landscape needs at least {MIN_SIZE_PX} pixels a side."
    elif not dates:
        problem = "dates is empty; name at least one acquisition date."
    elif len(set(dates)) < len(dates):
        problem = "dates names a day more than once; each day makes one scene, name it once."
    elif seed < 0:
        problem = f"seed is {seed}; use zero or a positive integer."
    elif not 1 <= parcels_across <= most_across:
        problem = (
            f"parcels_across is {parcels_across}; {size_px} px have room for 1 to {most_across}."
        )
    else:
        return
    raise InvalidInputError(problem, kind="invalid-option")


def _product_name(day: date) -> str:
    """Name of a Level-2A product of that day, without its extension."""
    return f"S2A_MSIL2A_{day:%Y%m%d}T105031_{_BASELINE}_R008_T31UDQ_{day:%Y%m%d}T151201"


def _lay_out(
    size_px: int, across: int, rng: np.random.Generator
) -> tuple[list[_Piece], list[_Piece]]:
    """The land around the parcels, in the order in which it is painted, and the parcels."""
    nodes = _grid(size_px, across, rng)
    side = size_px * PIXEL_M
    scene = box(_WEST_M, _NORTH_M - side, _WEST_M + side, _NORTH_M)
    row, column = 2 * rng.integers(1, across + 2, 2)
    tracks = MultiLineString([nodes[row], nodes[:, column]]).buffer(8)
    surroundings = [_Piece(scene, _VERGE), _Piece(tracks, _TRACK)]
    for outline in _rim_outlines(nodes):
        growth = _WOOD if rng.random() < _WOODED_SHARE else _random_growths(1, rng)[0]
        surroundings.append(_grown(_within_lanes(outline, rng), growth, rng))
    outlines = [_within_lanes(outline, rng) for outline in _parcel_outlines(nodes, rng)]
    outlines = [outline for outline in outlines if outline.area >= _MIN_AREA_M2]
    growths = _random_growths(len(outlines), rng)
    parcels = [_grown(*pair, rng) for pair in zip(outlines, growths, strict=True)]
    return surroundings, parcels


def _grid(size_px: int, across: int, rng: np.random.Generator) -> _Floats:
    """Corners of the parcels and the middles of their sides, shape ``(2n + 1, 2n + 1, 2)``.

    ``n`` is ``across`` and 2 more: a rim of parcels that the scene's edge cuts, and that nobody
    declares. All that moves a node adds up to less than the half parcel between the declared
    ones and the edge.

    Returns:
        Map coordinates in meters; corners at even places.
    """
    spacing = size_px * PIXEL_M / (across + 1)
    lines = np.arange(across + 3) - 0.5 + rng.uniform(-0.12, 0.12, (2, across + 3))
    corners = np.stack(np.meshgrid(lines[0], lines[1]), axis=-1)
    corners += rng.uniform(-0.13, 0.13, corners.shape)
    nodes = np.empty((2 * across + 5, 2 * across + 5, 2))
    nodes[::2, ::2] = corners
    nodes[1::2, ::2] = (corners[1:] + corners[:-1]) / 2
    nodes[:, 1::2] = (nodes[:, 2::2] + nodes[:, :-2:2]) / 2
    nodes += rng.uniform(-0.03, 0.03, nodes.shape)
    # Old roads are seldom straight: each line of the grid swings along its way.
    swing = np.sin(np.linspace(0, 2.5 * math.pi, len(nodes)) + rng.uniform(0, 2 * math.pi, (2, 1)))
    nodes[..., 0] += 0.16 * swing[0][:, None]
    nodes[..., 1] += 0.16 * swing[1][None, :]
    nodes *= [spacing, -spacing]
    nodes += [_WEST_M, _NORTH_M]
    return nodes


def _cell(nodes: _Floats, row: int, column: int) -> Polygon:
    """The ground between four corners of the grid."""
    part = nodes[2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
    return Polygon([*part[0], part[1, 2], *part[2, ::-1], part[1, 0]])


def _rim_outlines(nodes: _Floats) -> Iterator[Polygon]:
    """The outermost cells, which the scene's edge cuts."""
    last = len(nodes) // 2 - 1
    for row in range(last + 1):
        for column in range(last + 1):
            if {row, column} & {0, last}:
                yield _cell(nodes, row, column)


def _parcel_outlines(nodes: _Floats, rng: np.random.Generator) -> Iterator[Polygon]:
    """Cells within the rim, row by row: most as they are, a few joined in pairs or divided."""
    last = len(nodes) // 2 - 1
    for row in range(1, last):
        column = 1
        while column < last:
            outline, fate = _cell(nodes, row, column), rng.random()
            if fate < 0.10 and column + 1 < last:
                column += 1
                yield unary_union([outline, _cell(nodes, row, column)])
            elif fate > 0.88:
                yield from _divided(outline, rng)
            else:
                yield outline
            column += 1


def _divided(outline: Polygon, rng: np.random.Generator) -> list[Polygon]:
    """The parts of a parcel between heirs; the smallest may be divided once more."""
    parts = sorted(_cut(outline, rng.choice([0.18, 0.3, 0.5])), key=lambda part: part.area)
    if rng.random() < 0.5:
        parts[:1] = _cut(parts[0], rng.choice([0.3, 0.5]))
    return parts


def _cut(outline: Polygon, share: float) -> list[Polygon]:
    """Cut across the longer side, at a share of its length."""
    corners = np.array(outline.minimum_rotated_rectangle.exterior.coords)[:4]
    if math.dist(corners[0], corners[1]) < math.dist(corners[1], corners[2]):
        corners = np.roll(corners, 1, axis=0)
    start = corners[0] + share * (corners[1] - corners[0])
    end = corners[3] + share * (corners[2] - corners[3])
    # Drawn out beyond both sides, lest rounding leave the cut short of them.
    line = LineString([1.1 * start - 0.1 * end, 1.1 * end - 0.1 * start])
    return list(split(outline, line).geoms)


def _within_lanes(outline: Polygon, rng: np.random.Generator) -> Polygon:
    """What is left inside the lanes around; empty where the lanes take everything."""
    left = outline.buffer(-rng.uniform(4, 8), join_style="mitre")
    return max(getattr(left, "geoms", [left]), key=lambda part: part.area)


def _random_growths(count: int, rng: np.random.Generator) -> list[_Growth]:
    """Crops by their shares; where there is room, each stands there twice at least."""
    crops = list(_CROP_SHARES)
    sure = 2 * crops if count >= 2 * len(crops) else []
    drawn = rng.choice(len(crops), count - len(sure), p=list(_CROP_SHARES.values()))
    growths = sure + [crops[place] for place in drawn]
    return [growths[place] for place in rng.permutation(count)]


def _grown(outline: Polygon, growth: _Growth, rng: np.random.Generator) -> _Piece:
    """A piece with its own sowing date, vigor and soil."""
    return _Piece(
        outline,
        growth,
        days_late=rng.uniform(-8, 8),
        vigor=float(np.clip(rng.normal(1, 0.03), 0.9, 1.04)),
        soil=float(np.clip(rng.normal(1, 0.08), 0.8, 1.2)),
    )


@dataclass(frozen=True)
class _Canvas:
    """The land with all that does not change from date to date."""

    pieces: Sequence[_Piece]
    labels: npt.NDArray[np.int32]
    """Place in ``pieces``, shape ``(y, x)``."""
    stand: _Floats
    """How the canopy varies within a piece: zero mean, unit variance, shape ``(y, x)``."""
    soil: _Floats
    """The same for the soil's brightness."""

    @classmethod
    def primed(cls, pieces: Sequence[_Piece], size_px: int, rng: np.random.Generator) -> "_Canvas":
        """Paint the pieces one over the other, and draw the texture of the ground."""
        labels = rasterize(
            [(piece.outline, place) for place, piece in enumerate(pieces)],
            out_shape=(size_px, size_px),
            transform=_TRANSFORM,
            dtype="int32",
        )
        stand = 0.6 * _smooth_noise(size_px, 3, rng) + 0.8 * _smooth_noise(size_px, 9, rng)
        return cls(pieces, labels, stand, _smooth_noise(size_px, 7, rng))

    def reflectance(self, day: date, rng: np.random.Generator) -> _Floats:
        """Reflectance of a cloudless day, shape ``(band, y, x)``."""
        day_of_year = day.timetuple().tm_yday
        covers = np.array([piece.green_cover(day_of_year) for piece in self.pieces])
        canopies = np.array([piece.canopy(day_of_year) for piece in self.pieces])
        grounds = np.array([piece.ground(day_of_year) for piece in self.pieces])
        cover = covers[self.labels]
        # A stand varies most while it is neither bare nor closed.
        cover = np.clip(cover + 0.16 * self.stand * cover * (1 - cover) + 0.01 * self.stand, 0, 1)
        soil = 1 + 0.06 * self.soil
        land = cover * canopies.T[:, self.labels] + (1 - cover) * soil * grounds.T[:, self.labels]
        return _sensed(land, rng)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _smooth_noise(size_px: int, scale_px: float, rng: np.random.Generator) -> _Floats:
    """Gaussian noise with hills about ``scale_px`` wide; zero mean, unit variance."""
    frequency = np.fft.fftfreq(size_px)
    envelope = np.exp(-2 * (math.pi * scale_px * frequency) ** 2)
    spectrum = np.fft.fft2(rng.standard_normal((size_px, size_px)))
    noise: _Floats = np.fft.ifft2(spectrum * np.outer(envelope, envelope)).real
    return (noise - float(noise.mean())) / float(noise.std())


def _sensed(land: _Floats, rng: np.random.Generator) -> _Floats:
    """What the instrument makes of the land: blur, pixels of each band's own size, noise."""
    sensed = np.stack(
        [
            _coarsened(_blurred(band), SENTINEL2_BANDS[name].gsd_m // PIXEL_M)
            for name, band in zip(_BANDS, land, strict=True)
        ]
    )
    relative, absolute = (rng.standard_normal(sensed.shape) for _ in range(2))
    return sensed * (1 + 0.01 * relative) + 0.001 * absolute


def _blurred(band: _Floats) -> _Floats:
    """Spread each pixel over its neighbors, as the optics do: borders become mixed pixels."""
    padded = np.pad(band, 1, mode="edge")
    rows = 0.2 * padded[:-2] + 0.6 * padded[1:-1] + 0.2 * padded[2:]
    return 0.2 * rows[:, :-2] + 0.6 * rows[:, 1:-1] + 0.2 * rows[:, 2:]


def _coarsened(band: _Floats, factor: int) -> _Floats:
    """The mean of each block of ``factor`` x ``factor`` pixels, repeated over the block."""
    height, width = band.shape
    padded = np.pad(band, ((0, -height % factor), (0, -width % factor)), mode="edge")
    blocks: _Floats = padded.reshape(len(padded) // factor, factor, -1, factor).mean(axis=(1, 3))
    return blocks.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]


def _cloud_center(parcels: Sequence[_Piece], size_px: int) -> tuple[float, float]:
    """Row and column of the middle of a parcel that lies low enough for its cloud's shadow."""
    aim = Point(_WEST_M + 0.56 * size_px * PIXEL_M, _NORTH_M - 0.60 * size_px * PIXEL_M)
    middles = [piece.outline.centroid for piece in parcels if piece.outline.area > 20_000]
    middle = min(middles or [aim], key=aim.distance)
    return (_NORTH_M - middle.y) / PIXEL_M, (middle.x - _WEST_M) / PIXEL_M


@dataclass(frozen=True)
class _Sky:
    """One cloud and its shadow; they share no pixel."""

    cloud: _Floats
    """Opacity, shape ``(y, x)``; zero where there is no cloud."""
    shadow: BoolArray
    """Shape ``(y, x)``."""

    @classmethod
    def clouded(cls, center: tuple[float, float], size_px: int, rng: np.random.Generator) -> "_Sky":
        """A frayed oval over ``center`` (row, column)."""
        rows, columns = np.indices((size_px, size_px)) + 0.5
        away = np.hypot(rows - center[0], (columns - center[1]) / 1.25) / size_px
        nearness = 0.012 * _smooth_noise(size_px, size_px / 50, rng) - away
        edge = np.quantile(nearness, 1 - _CLOUD_SHARE)
        cloud = np.where(nearness > edge, np.clip(0.4 + (nearness - edge) / 0.04, 0, 0.97), 0)
        down, right = (round(share * size_px) for share in _SHADOW_SHIFT)
        shadow = np.roll(cloud > 0, (down, right), axis=(0, 1)) & (cloud == 0)
        return cls(cloud, shadow)

    def over(self, reflectance: _Floats) -> _Floats:
        """What is seen of ``reflectance``, shape ``(band, y, x)``, through this sky."""
        dimmed = reflectance * np.where(self.shadow, _SHADOW[:, None, None], 1.0)
        return dimmed + self.cloud * (_CLOUD[:, None, None] - dimmed)

    def flagged(self, scl: _Dn) -> _Dn:
        """The scene classification with every pixel that this sky touches set apart."""
        classes = np.where(self.shadow, _SCL_SHADOW, scl)
        return np.where(self.cloud > 0, _SCL_CLOUD, classes).astype(np.uint16)


def _digital_numbers(reflectance: _Floats) -> _Dn:
    """Reflectance as baseline 05.09 stores it; never 0, which means no data."""
    plausible = np.clip(reflectance, *_PLAUSIBLE_REFLECTANCE)
    return (np.rint(plausible * QUANTIFICATION) - OFFSET_DN).astype(np.uint16)


def _classified(dn: _Dn) -> _Dn:
    """Vegetation or bare soil by NDVI, shape ``(y, x)``, in the classes of Sen2Cor."""
    red, nir = (dn[_BANDS.index(name)].astype(np.float64) + OFFSET_DN for name in ("B04", "B08"))
    vegetated = (nir - red) / (nir + red) > _VEGETATED_NDVI
    return np.where(vegetated, _SCL_VEGETATION, _SCL_BARE).astype(np.uint16)


def _write_scene(path: Path, dn: _Dn, scl: _Dn) -> Path:
    """Write the bands and, as the last layer, the scene classification; every layer is named."""
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(_BANDS) + 1,
        "height": scl.shape[0],
        "width": scl.shape[1],
        "crs": _CRS,
        "transform": _TRANSFORM,
        "nodata": 0,
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
        "compress": "deflate",
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.descriptions = (*_BANDS, SCL)
        file.write(np.concatenate([dn, scl[None]]))
    return path


def _write_parcels(path: Path, parcels: dict[str, _Piece]) -> Path:
    """Write GeoJSON; seven decimals of a degree are about a centimeter."""
    features = [
        {
            "type": "Feature",
            "id": parcel_id,
            "properties": {"id": parcel_id, **piece.properties},
            "geometry": transform_geom(
                _CRS, _LONGITUDE_LATITUDE, mapping(orient(piece.outline)), precision=7
            ),
        }
        for parcel_id, piece in parcels.items()
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return path
