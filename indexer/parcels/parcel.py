"""Parcel: one agricultural polygon under its key, with the area and crop declared for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Geod
from shapely import MultiPolygon, Polygon

JsonScalar = str | int | float | bool | None

_WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True)
class Parcel:
    """A parcel as fiboa describes it; the pair of ``collection`` and ``parcel_id`` is unique."""

    collection: str
    parcel_id: str
    geometry: Polygon | MultiPolygon | None
    """EPSG:4326, longitude before latitude; None only for an image chip without a CRS."""
    area_m2: float | None = None
    """Area in square meters, as declared, else geodesic; None without geometry."""
    crop_code: str | None = None
    """``crop:code``, in the code list of its collection."""
    crop_name: str | None = None
    """``crop:name``, in the language of its collection."""
    attributes: dict[str, JsonScalar] = field(default_factory=dict)
    """Further attributes under the names that the file gave them."""

    @property
    def bbox(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north in degrees; None without geometry."""
        if self.geometry is None:
            return None
        west, south, east, north = self.geometry.bounds
        return west, south, east, north


def geodesic_area_m2(geometry: Polygon | MultiPolygon) -> float:
    """Area on the WGS 84 ellipsoid, whatever the direction of the rings.

    Args:
        geometry: EPSG:4326, longitude before latitude.

    Returns:
        Square meters, 0 for an empty geometry.

    References:
        Karney (2013), Algorithms for geodesics, https://doi.org/10.1007/s00190-012-0578-z.
    """
    return float(geodesic_areas_m2([geometry])[0])


def geodesic_areas_m2(
    geometries: Sequence[Polygon | MultiPolygon] | npt.NDArray[np.object_],
) -> npt.NDArray[np.float64]:
    """Areas of ``n`` polygons as in `geodesic_area_m2`, shape ``(n,)``, faster than one by one."""
    polygons, geometry_of_polygon = shapely.get_parts(geometries, return_index=True)
    rings, polygon_of_ring = shapely.get_rings(polygons, return_index=True)
    points, ring_of_point = shapely.get_coordinates(rings, return_index=True)
    starts = np.flatnonzero(np.diff(ring_of_point, prepend=-1))
    ring_m2 = np.zeros(len(rings))
    for ring, outline in enumerate(np.split(points, starts)[1:]):
        # Signed: positive for counterclockwise rings.
        ring_m2[ring] = abs(_WGS84.polygon_area_perimeter(*outline.T)[0])
    # The first ring of a polygon is its outline, the others are holes.
    ring_m2[np.diff(polygon_of_ring, prepend=-1) == 0] *= -1
    areas_m2 = np.zeros(len(geometries))
    np.add.at(areas_m2, geometry_of_polygon[polygon_of_ring], ring_m2)
    return areas_m2
