"""From polygon to pixels: which share of each pixel a parcel covers, exactly."""

from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from exactextract import exact_extract
from exactextract.feature import JSONFeatureSource
from exactextract.raster import NumPyRasterSource
from pyproj import CRS, Proj, Transformer
from shapely import MultiPolygon, Polygon, box
from shapely.geometry import mapping

_LONLAT = "EPSG:4326"

# Two coordinates that should be equal differ in their last digits, so that a polygon along a pixel
# border seems to reach into the next pixel. float32 cannot tell such a share from none beside 1.
_ROUNDING = float(np.finfo(np.float32).eps)

# How far a map's meter may be from a meter on the ground: UTM stays within 0.1 %, Web Mercator
# doubles it at 60 degrees.
_SCALE_TOLERANCE = 0.01


class HasWkt(Protocol):
    """A reference system, of rasterio as well as of pyproj."""

    def to_wkt(self) -> str:
        """Its definition as Well-Known Text."""


def coverage(
    geometry: Polygon | MultiPolygon, transform: Affine, shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Share of each pixel's area that lies inside a polygon.

    Args:
        geometry: Valid polygon in the reference system of ``transform``.
        transform: Pixel to map coordinates, as in rasterio; pixels may be rotated or not square.
        shape: Height and width in pixels.

    Returns:
        float32, shape ``shape``, within [0, 1]; all 0 where the polygon lies elsewhere.
    """
    covered = np.zeros(shape, dtype=np.float32)
    if not np.isfinite(geometry.bounds).all():
        # Empty, or reprojected from beyond the reach of the reference system.
        return covered
    in_pixels = _to_pixels(geometry, transform)
    window = _window(in_pixels, shape)
    if window is None:
        return covered
    top, bottom, left, right = window
    feature = {"type": "Feature", "properties": {}, "geometry": mapping(in_pixels)}
    grid = NumPyRasterSource(
        np.zeros((bottom - top, right - left), dtype=np.uint8),
        xmin=left,
        xmax=right,
        ymin=-bottom,
        ymax=-top,
    )
    (cells,) = exact_extract(
        grid, JSONFeatureSource([feature]), ["cell_id", "coverage"], output="geojson"
    )
    rows, columns = np.divmod(cells["properties"]["cell_id"], right - left)
    share = cells["properties"]["coverage"]
    covered[top + rows, left + columns] = np.where(share < _ROUNDING, 0, share)
    return covered


def covered_fraction(
    geometry: Polygon | MultiPolygon, bounds: tuple[float, float, float, float]
) -> float:
    """Share of a polygon's area that lies inside a rectangle, within [0, 1].

    Args:
        geometry: Valid polygon in a projected reference system.
        bounds: West, south, east, north in the same system.

    Returns:
        0 for an empty geometry.
    """
    area = float(geometry.area)
    if area == 0:
        return 0.0
    return min(1.0, float(geometry.intersection(box(*bounds)).area) / area)


def to_crs(geometry: Polygon | MultiPolygon, crs: HasWkt) -> Polygon | MultiPolygon:
    """Bring a polygon from longitude and latitude into a raster's reference system.

    Args:
        geometry: EPSG:4326, longitude before latitude.
        crs: Where to, a CRS of rasterio or pyproj.

    Returns:
        The polygon in ``crs``, x before y; empty where ``crs`` does not reach that far.
    """
    moved = _reproject(geometry, _transformer(_LONLAT, crs.to_wkt()))
    return moved if np.isfinite(shapely.get_coordinates(moved)).all() else Polygon()


def inner_buffer(
    geometry: Polygon | MultiPolygon, crs: HasWkt, meters: float
) -> Polygon | MultiPolygon:
    """The part of a polygon that lies farther than ``meters`` from its outline.

    Args:
        geometry: Valid polygon in ``crs``, x before y.
        crs: Its reference system. Where a map unit is not a meter on the ground (degrees, feet, Web
            Mercator), the distance is taken in a local azimuthal equidistant projection.
        meters: Distance on the ground, 0 or more.

    Returns:
        The shrunk polygon in ``crs``; empty where the parcel is too narrow.
    """
    if geometry.is_empty:
        return geometry
    wkt = crs.to_wkt()
    center = geometry.centroid
    longitude, latitude = _transformer(wkt, _LONLAT).transform(center.x, center.y)
    if _meters_are_true(wkt, longitude, latitude):
        return geometry.buffer(-meters)
    # A whole degree, so that neighbors share a projection: 80 km off its center it stretches by
    # less than 0.01 %.
    local = f"+proj=aeqd +lon_0={round(longitude)} +lat_0={round(latitude)} +datum=WGS84 +units=m"
    shrunk = _reproject(geometry, _transformer(wkt, local)).buffer(-meters)
    return _reproject(shrunk, _transformer(local, wkt))


def _to_pixels(geometry: Polygon | MultiPolygon, transform: Affine) -> Polygon | MultiPolygon:
    """The polygon in columns and negated rows, so that it stands on a north-up unit grid."""
    origin = np.array([transform.c, transform.f])
    inverse = np.linalg.inv([[transform.a, transform.b], [transform.d, transform.e]])

    def move(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # The origin first: map coordinates are large, and their last digits are needed.
        pixels: npt.NDArray[np.float64] = (points - origin) @ inverse.T * (1, -1)
        return pixels

    return shapely.transform(geometry, move)


def _window(
    in_pixels: Polygon | MultiPolygon, shape: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Rows from, to and columns from, to that the polygon can touch; None where it touches none."""
    west, south, east, north = in_pixels.bounds
    height, width = shape
    top, bottom = max(0, int(np.floor(-north))), min(height, int(np.ceil(-south)))
    left, right = max(0, int(np.floor(west))), min(width, int(np.ceil(east)))
    return (top, bottom, left, right) if top < bottom and left < right else None


def _reproject(
    geometry: Polygon | MultiPolygon, transformer: Transformer
) -> Polygon | MultiPolygon:
    return shapely.transform(
        geometry, lambda points: np.column_stack(transformer.transform(*points.T))
    )


@lru_cache(maxsize=256)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=64)
def _projection_in_meters(wkt: str) -> Proj | None:
    crs = CRS.from_wkt(wkt)
    in_meters = all(axis.unit_conversion_factor == 1 for axis in crs.axis_info[:2])
    return Proj(crs) if crs.is_projected and in_meters else None


def _meters_are_true(wkt: str, longitude: float, latitude: float) -> bool:
    projection = _projection_in_meters(wkt)
    if projection is None:
        return False
    scale = projection.get_factors(longitude, latitude)
    return bool(
        abs(scale.meridional_scale - 1) < _SCALE_TOLERANCE
        and abs(scale.parallel_scale - 1) < _SCALE_TOLERANCE
    )
