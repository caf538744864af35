import math

import numpy as np
import pytest
from pyproj import Geod
from shapely import MultiPolygon, Polygon, box

from indexer.parcels.parcel import Parcel, geodesic_area_m2, geodesic_areas_m2

WGS84 = Geod(ellps="WGS84")


def cell_area_m2(south: float, north: float, width_degrees: float) -> float:
    """Area between two parallels, from the closed form on the ellipsoid (Snyder 1987, eq. 3-12)."""
    e = math.sqrt(WGS84.es)

    def q(latitude: float) -> float:
        s = math.sin(math.radians(latitude))
        return s / (1 - (e * s) ** 2) + math.atanh(e * s) / e

    return WGS84.b**2 / 2 * (q(north) - q(south)) * math.radians(width_degrees)


def test_the_bbox_is_west_south_east_north() -> None:
    parcel = Parcel("fr", "1", box(2.0, 48.0, 2.5, 48.25))
    assert parcel.bbox == (2.0, 48.0, 2.5, 48.25)


def test_a_parcel_without_geometry_has_no_bbox_and_no_area() -> None:
    parcel = Parcel("chips", "forest_1", None)
    assert parcel.bbox is None
    assert parcel.area_m2 is None


def test_attributes_are_not_shared_between_parcels() -> None:
    first, second = Parcel("c", "1", None), Parcel("c", "2", None)
    first.attributes["code_group"] = "1"
    assert second.attributes == {}


@pytest.mark.parametrize("latitude", [0.0, 47.0, -33.5])
def test_the_geodesic_area_agrees_with_the_closed_form_of_a_cell(latitude: float) -> None:
    # A geodesic between two points of a parallel leaves the parallel by less than 1 mm here.
    cell = box(10.0, latitude, 10.001, latitude + 0.001)
    expected = cell_area_m2(latitude, latitude + 0.001, 0.001)
    assert geodesic_area_m2(cell) == pytest.approx(expected, rel=1e-5)


def test_the_direction_of_the_rings_does_not_change_the_area() -> None:
    cell = box(2.0, 48.0, 2.01, 48.01)
    assert geodesic_area_m2(cell.reverse()) == pytest.approx(geodesic_area_m2(cell))


def test_holes_are_subtracted_whatever_their_direction() -> None:
    hole = box(2.002, 48.002, 2.004, 48.004)
    outer = box(2.0, 48.0, 2.01, 48.01)
    expected = geodesic_area_m2(outer) - geodesic_area_m2(hole)
    for ring in (hole.exterior, hole.exterior.reverse()):
        holed = Polygon(outer.exterior, [ring])
        assert geodesic_area_m2(holed) == pytest.approx(expected)


def test_areas_of_many_belong_to_the_right_geometry() -> None:
    small, large = box(2.0, 48.0, 2.001, 48.001), box(3.0, 48.0, 3.01, 48.01)
    holed = Polygon(large.exterior, [box(3.001, 48.001, 3.002, 48.002).exterior])
    many = [small, MultiPolygon([small, holed]), Polygon(), holed]
    expected = [
        geodesic_area_m2(small),
        geodesic_area_m2(small) + geodesic_area_m2(holed),
        0.0,
        geodesic_area_m2(holed),
    ]
    np.testing.assert_allclose(geodesic_areas_m2(many), expected)


def test_no_geometries_have_no_areas() -> None:
    assert geodesic_areas_m2([]).shape == (0,)


def test_an_empty_geometry_has_area_zero() -> None:
    assert geodesic_area_m2(Polygon()) == 0
