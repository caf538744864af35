"""Parcels on a raster: the share of each pixel that they cover, and what is left inside them."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from pyproj import CRS, Proj, Transformer
from shapely import MultiPolygon, Polygon

from indexer.parcels.pixel_shares import Covered, FloatArray, Geometries, pixel_shares

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_LONLAT = "EPSG:4326"

# How far a map's meter may be from a meter on the ground: UTM stays within 0.1 %, Web Mercator
# doubles it at 60 degrees.
_SCALE_TOLERANCE = 0.01

# As `Polygon.buffer` takes unless told; `shapely.buffer` of many would take half as many.
_QUARTER_CIRCLE_SEGMENTS = 16


class HasWkt(Protocol):
    """A reference system, of rasterio as well as of pyproj."""

    def to_wkt(self) -> str:
        """Its definition as Well-Known Text."""


def coverage(
    geometry: Polygon | MultiPolygon, transform: Affine, shape: tuple[int, int]
) -> FloatArray:
    """Share of each pixel's area that lies inside a polygon.

    Args:
        geometry: Valid polygon in the reference system of ``transform``.
        transform: Pixel to map coordinates, as in rasterio; pixels may be rotated or not square.
        shape: Height and width in pixels.

    Returns:
        float32, shape ``shape``, within [0, 1]; all 0 where the polygon lies elsewhere.
    """
    (part,) = coverages([geometry], transform, shape)
    covered = np.zeros(shape, dtype=np.float32)
    covered[part.rows, part.columns] = part.share
    return covered


def coverages(
    geometries: Sequence[Polygon | MultiPolygon], transform: Affine, shape: tuple[int, int]
) -> Iterator[Covered]:
    """Share of each pixel's area that lies inside each of many polygons.

    What is found for a polygon does not depend on the others, to the last bit.

    Args:
        geometries: Valid polygons in the reference system of ``transform``.
        transform: Pixel to map coordinates, as in rasterio; pixels may be rotated or not square.
        shape: Height and width in pixels.

    Returns:
        The window of each polygon, in order; empty where the polygon is empty, not finite, or
        lies elsewhere.
    """
    polygons = _array(geometries)
    points, owner = shapely.get_coordinates(polygons, return_index=True)
    # Reprojected from beyond the reach of the reference system.
    polygons[owner[~np.isfinite(points).all(axis=1)]] = Polygon()
    return pixel_shares(shapely.transform(polygons, _to_pixels(transform)), shape)


def covered_fractions(
    geometries: Sequence[Polygon | MultiPolygon], outline: Polygon
) -> Float64Array:
    """Share of the area of each of many polygons that lies inside an image.

    Args:
        geometries: Valid polygons in a projected reference system.
        outline: Of the image, in the same system.

    Returns:
        Shape ``(n,)``, within [0, 1]; 0 for an empty geometry.
    """
    polygons = _array(geometries)
    area: Float64Array = shapely.area(polygons)
    shapely.prepare(outline)
    beyond = ~shapely.covers(outline, polygons)
    inside = area.copy()
    inside[beyond] = shapely.area(shapely.intersection(polygons[beyond], outline))
    return np.minimum(1.0, inside / np.where(area > 0, area, 1.0))


def to_crs(geometry: Polygon | MultiPolygon, crs: HasWkt) -> Polygon | MultiPolygon:
    """Bring a polygon from longitude and latitude into a raster's reference system.

    Args:
        geometry: EPSG:4326, longitude before latitude.
        crs: Where to, a CRS of rasterio or pyproj.

    Returns:
        The polygon in ``crs``, x before y; empty where ``crs`` does not reach that far.
    """
    (moved,) = _reproject(_array([geometry]), _transformer(_LONLAT, crs.to_wkt()))
    return moved if np.isfinite(shapely.get_coordinates(moved)).all() else Polygon()


def inner_buffers(
    geometries: Sequence[Polygon | MultiPolygon], crs: HasWkt, meters: float
) -> list[Polygon | MultiPolygon]:
    """The part of each of many polygons that lies farther than ``meters`` from its outline.

    Args:
        geometries: Valid polygons in ``crs``, x before y.
        crs: Their reference system. Where a map unit is not a meter on the ground (degrees, feet,
            Web Mercator), the distance is taken in local azimuthal equidistant projections.
        meters: Distance on the ground, 0 or more.

    Returns:
        The shrunk polygons in ``crs``; empty where a parcel is too narrow, or where ``crs`` does
        not lead to the ground.
    """
    polygons = _array(geometries)
    wkt = crs.to_wkt()
    places = _centers(polygons, wkt)
    reached = np.isfinite(places).all(axis=1)
    shrunk = _array([Polygon()] * len(polygons))
    as_they_are = reached & _meters_are_true(wkt, places)
    shrunk[as_they_are] = _shrink(polygons[as_they_are], meters)
    # A whole degree, so that neighbors share a projection: 80 km off its center it stretches by
    # less than 0.01 %.
    degrees = np.round(places)
    others = reached & ~as_they_are
    for place in np.unique(degrees[others], axis=0):
        here = others & (degrees == place).all(axis=1)
        local = f"+proj=aeqd +lon_0={place[0]:.0f} +lat_0={place[1]:.0f} +datum=WGS84 +units=m"
        in_meters = _reproject(polygons[here], _transformer(wkt, local))
        shrunk[here] = _reproject(_shrink(in_meters, meters), _transformer(local, wkt))
    return list(shrunk)


def _to_pixels(transform: Affine) -> Callable[[Float64Array], Float64Array]:
    """The way from map coordinates, shape ``(n, 2)``, to columns and rows."""
    (a, b), (d, e) = np.linalg.inv([[transform.a, transform.b], [transform.d, transform.e]])

    def move(points: Float64Array) -> Float64Array:
        # The origin first: map coordinates are large, and their last digits are needed.
        x, y = points[:, 0] - transform.c, points[:, 1] - transform.f
        # Not as a product of matrices, which may round a row by where it stands among others.
        return np.column_stack([a * x + b * y, d * x + e * y])

    return move


def _array(geometries: Sequence[Polygon | MultiPolygon]) -> Geometries:
    return np.array(geometries, dtype=np.object_)


def _centers(polygons: Geometries, wkt: str) -> Float64Array:
    """Longitude and latitude of each polygon, shape ``(n, 2)``; not finite for an empty one."""
    places = np.full((len(polygons), 2), np.nan)
    centers, owner = shapely.get_coordinates(shapely.centroid(polygons), return_index=True)
    places[owner] = np.column_stack(_transformer(wkt, _LONLAT).transform(*centers.T))
    return places


def _shrink(polygons: Geometries, meters: float) -> Geometries:
    # A needle makes GEOS compute what is no number on its way to the right answer, that is none.
    with np.errstate(invalid="ignore"):
        shrunk: Geometries = shapely.buffer(polygons, -meters, quad_segs=_QUARTER_CIRCLE_SEGMENTS)
    return shrunk


def _reproject(polygons: Geometries, transformer: Transformer) -> Geometries:
    moved: Geometries = shapely.transform(
        polygons, lambda points: np.column_stack(transformer.transform(*points.T))
    )
    return moved


@lru_cache(maxsize=256)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=64)
def _projection_in_meters(wkt: str) -> Proj | None:
    crs = CRS.from_wkt(wkt)
    in_meters = all(axis.unit_conversion_factor == 1 for axis in crs.axis_info[:2])
    return Proj(crs) if crs.is_projected and in_meters else None


def _meters_are_true(wkt: str, places: Float64Array) -> BoolArray:
    """Whether a map's meter is one on the ground at each longitude and latitude, shape ``(n,)``."""
    projection = _projection_in_meters(wkt)
    if projection is None or not len(places):
        return np.zeros(len(places), dtype=np.bool_)
    scale = projection.get_factors(places[:, 0], places[:, 1])
    factors = np.column_stack([scale.meridional_scale, scale.parallel_scale])
    return np.asarray((np.abs(factors - 1) < _SCALE_TOLERANCE).all(axis=1))
