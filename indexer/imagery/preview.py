"""A picture of a parcel: the pixels around it, stretched for the eye, its outline drawn on them."""

import io
import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import shapely
import shapely.affinity
from affine import Affine
from PIL import Image, ImageDraw
from pyproj import Geod, Transformer
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from indexer.imagery.chip import Chip
from indexer.imagery.image import Image as Imagery
from indexer.imagery.reader import MAX_CHIP_PX
from indexer.parcels.coverage import to_crs

UInt8Array = npt.NDArray[np.uint8]

Style = Literal["true-color", "false-color"]

BANDS: Final[dict[Style, tuple[str, str, str]]] = {
    "true-color": ("B04", "B03", "B02"),
    "false-color": ("B08", "B04", "B03"),
}
"""Bands shown as red, green and blue. Near infrared as red makes vegetation red."""

DRAWING: Final = 2
"""Number of the way pictures are drawn; raise it when the same pixels look different."""

MARGIN_M: Final = 200.0
"""Surroundings shown on each side of a parcel, in meters."""

_MAX_WINDOW_PX = MAX_CHIP_PX

# Dark and light ends of the stretch, in percent of the clear pixels of all three bands: so few
# pixels may be black or white that a roof or a pond does not decide how fields look.
_DARK_PERCENTILE, _LIGHT_PERCENTILE = 1.0, 99.0
# Reflectance between black and white, at least: the noise of an even field is no structure.
_LEAST_RANGE: Final[dict[Style, float]] = {"true-color": 0.1, "false-color": 0.2}
# What clear air itself reflects by Rayleigh scattering, roughly: optical depth x 0.39, for a sun 40
# degrees from the zenith and a phase function of 1.19. Level-1C has it still, so that fields look
# blue. The optical depths, about 0.155, 0.09, 0.045 and 0.018, fall with the fourth power of the
# wavelength, 0.49 to 0.83 um.
_AIR: Final = {"B02": 0.060, "B03": 0.035, "B04": 0.017, "B08": 0.007}
_LEVEL_1C_ONLY = "B10"

# Reflectance is linear in light and screens are not; sRGB's own 2.2 looks pale after a stretch.
_GAMMA = 1.5
# Where clouds leave fewer pixels, all that have data decide.
_MIN_CLEAR_FRACTION = 0.05

_OVERSAMPLING = 4
_CASING, _LINE = (0, 0, 0, 170), (255, 255, 255, 255)

_WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True)
class _Frame:
    """The square of a scene that a picture shows; it may reach beyond the scene."""

    row: int
    column: int
    side: int
    """In pixels of the scene."""
    outline: BaseGeometry
    """Of the parcel, in pixels of the scene; empty where the image itself is the parcel."""


def draw_preview(
    scene: Imagery, parcel: Polygon | MultiPolygon | None, style: Style, size_px: int
) -> bytes:
    """Draw a parcel and its surroundings as one scene shows them, in the scene's own grid.

    The three bands share one stretch, from the 1st to the 99th percentile of the clear pixels in
    view, so that colors keep their proportions; pixels without data, and what lies beyond the
    scene, are transparent. Pixels stay square when they are enlarged, and are averaged when there
    are more of them than the picture has.

    Args:
        scene: Opened for ``BANDS[style]``; any image whose chips hold reflectance of three bands.
        parcel: Its outline in longitude and latitude; None where the image is the parcel.
        style: Which bands are shown.
        size_px: Width and height of the picture.

    Returns:
        A PNG with transparency.

    Raises:
        ImageryError: If the pixels cannot be read.
    """
    frame = _frame(scene, parcel)
    picture = Image.fromarray(_pixels(scene, frame, style))
    enlarged = size_px >= frame.side
    resampling = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
    picture = picture.resize((size_px, size_px), resampling)
    if not frame.outline.is_empty:
        _draw_outline(picture, frame)
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()


# Which part of the scene ----------------------------------------------------------------------


def _frame(scene: Imagery, parcel: Polygon | MultiPolygon | None) -> _Frame:
    height, width = scene.shape
    extent = shapely.box(0, 0, width, height)
    outline = extent if parcel is None else _in_pixels(scene, parcel)
    if outline.is_empty or outline.covers(extent.buffer(-1)):
        # The image is the parcel, so there is nothing around it and no border to be seen.
        return _square(extent.bounds, Polygon())
    left, top, right, bottom = outline.bounds
    across, down = _pixel_m(scene, outline.centroid)
    margin_x, margin_y = MARGIN_M / across, MARGIN_M / down
    box = (left - margin_x, top - margin_y, right + margin_x, bottom + margin_y)
    if max(box[2] - box[0], box[3] - box[1]) > _MAX_WINDOW_PX:
        # Parts far from each other, or very small pixels: nothing may lie in the middle.
        point = outline.representative_point()
        half = _MAX_WINDOW_PX / 2
        box = (point.x - half, point.y - half, point.x + half, point.y + half)
    return _square(box, outline)


def _square(box: tuple[float, float, float, float], outline: BaseGeometry) -> _Frame:
    """Whole pixels around the middle of a box, as many down as across."""
    left, top, right, bottom = box
    side = min(math.ceil(max(right - left, bottom - top)), _MAX_WINDOW_PX)
    row = math.floor((top + bottom - side) / 2)
    column = math.floor((left + right - side) / 2)
    return _Frame(row, column, side, outline)


def _in_pixels(scene: Imagery, parcel: Polygon | MultiPolygon) -> BaseGeometry:
    """The parcel in columns and rows of the scene; empty where that has no place on the map."""
    if scene.crs is None:
        return Polygon()
    inverse = ~scene.transform
    matrix = (inverse.a, inverse.b, inverse.d, inverse.e, inverse.c, inverse.f)
    moved: BaseGeometry = shapely.affinity.affine_transform(to_crs(parcel, scene.crs), matrix)
    return moved


def _pixel_m(scene: Imagery, where: shapely.Point) -> tuple[float, float]:
    """Width and height of the pixel at a column and row, in meters on the ground."""
    to_map = scene.transform
    corners = [to_map @ (where.x + x, where.y + y) for x, y in ((0, 0), (1, 0), (0, 1))]
    to_lon_lat = Transformer.from_crs(scene.crs, "EPSG:4326", always_xy=True)
    here, beside, below = (to_lon_lat.transform(*corner) for corner in corners)
    return _WGS84.inv(*here, *beside)[2], _WGS84.inv(*here, *below)[2]


# Pixels ---------------------------------------------------------------------------------------


def _pixels(scene: Imagery, frame: _Frame, style: Style) -> UInt8Array:
    """Red, green, blue and opacity of each pixel in the frame, shape ``(side, side, 4)``."""
    canvas = np.zeros((frame.side, frame.side, 4), dtype=np.uint8)
    height, width = scene.shape
    top, left = max(0, frame.row), max(0, frame.column)
    bottom, right = min(height, frame.row + frame.side), min(width, frame.column + frame.side)
    if top >= bottom or left >= right:
        return canvas
    chip = scene.read(top, left, bottom - top, right - left)
    inside = canvas[
        top - frame.row : bottom - frame.row, left - frame.column : right - frame.column
    ]
    reflectance = chip.reflectance - _of_the_air(chip, style)
    inside[..., :3] = np.moveaxis(_stretched(chip, reflectance, style), 0, -1)
    inside[..., 3] = np.where(chip.data_mask, 255, 0)
    return canvas


def _of_the_air(chip: Chip, style: Style) -> npt.NDArray[np.float32]:
    """Reflectance of the air in each band shown, shape ``(3, 1, 1)``; 0 at the ground's level."""
    # Only names that were given tell the level: no band but cirrus sets Level-1C apart.
    of_level_1c = _LEVEL_1C_ONLY in (chip.layer_bands or ())
    air = [_AIR[band] if of_level_1c else 0.0 for band in BANDS[style]]
    return np.array(air, dtype=np.float32).reshape(3, 1, 1)


def _stretched(chip: Chip, reflectance: npt.NDArray[np.float32], style: Style) -> UInt8Array:
    """Reflectance as brightness on a screen, shape ``(3, y, x)``; 0 where there is no data."""
    clear = chip.valid_mask
    if clear.mean() < _MIN_CLEAR_FRACTION:
        clear = chip.data_mask
    if not clear.any():
        return np.zeros(reflectance.shape, dtype=np.uint8)
    dark, light = np.percentile(
        reflectance[:, clear], (_DARK_PERCENTILE, _LIGHT_PERCENTILE)
    ).tolist()
    # Widened around the middle: what is even is shown as a middling gray, not as black. Yet
    # nothing is darker than no reflectance, else woods and water would look pale.
    lacking = max(0.0, _LEAST_RANGE[style] - (light - dark))
    dark = min(dark, max(0.0, dark - lacking / 2))
    light = max(light, dark + _LEAST_RANGE[style])
    share = np.clip((np.nan_to_num(reflectance) - dark) / (light - dark), 0, 1)
    brightness: UInt8Array = np.round(255 * share ** (1 / _GAMMA)).astype(np.uint8)
    return brightness


# Outline --------------------------------------------------------------------------------------


def _draw_outline(picture: Image.Image, frame: _Frame) -> None:
    """A light line with a dark edge, so that it stands out from any ground."""
    scale = picture.width / frame.side
    place = Affine.scale(scale) @ Affine.translation(-frame.column, -frame.row)
    matrix = (place.a, place.b, place.d, place.e, place.c, place.f)
    outline = shapely.affinity.affine_transform(frame.outline, matrix)
    seen = shapely.clip_by_rect(outline.boundary, *(-8, -8, picture.width + 8, picture.height + 8))
    lines = [
        shapely.get_coordinates(line) * _OVERSAMPLING
        for line in shapely.get_parts(shapely.simplify(seen, 0.1))
        if line.geom_type == "LineString"
    ]
    width = max(1.0, picture.width / 200)
    for color, line_px in ((_CASING, width + 2), (_LINE, width)):
        picture.alpha_composite(_stroke(picture.size, lines, color, line_px))


def _stroke(
    size: tuple[int, int],
    lines: list[npt.NDArray[np.float64]],
    color: tuple[int, int, int, int],
    width_px: float,
) -> Image.Image:
    """Lines on nothing, drawn larger and averaged, because Pillow draws without smoothing."""
    mask = Image.new("L", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING))
    drawing = ImageDraw.Draw(mask)
    for line in lines:
        points = [(x, y) for x, y in line.tolist()]
        drawing.line(points, fill=color[3], width=round(width_px * _OVERSAMPLING), joint="curve")
    stroke = Image.new("RGBA", size, color[:3])
    stroke.putalpha(mask.resize(size, Image.Resampling.BOX))
    return stroke
