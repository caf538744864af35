"""Shapes of a filter, in longitude and latitude (degrees), as GeoJSON or a rectangle."""

from collections.abc import Callable, Iterator
from typing import Final, TypeGuard

import shapely
from shapely import GEOSException, MultiPolygon
from shapely.geometry.base import BaseGeometry

from indexer.errors import InvalidInputError
from retriever.cql2.nodes import Shape
from retriever.cql2.parsing import GEOMETRIES, Tree
from retriever.cql2.refusals import refused
from retriever.quoting import quoted

_KINDS: Final = frozenset(GEOMETRIES.values())

_BBOX: Final = (
    "BBOX takes west, south, east, north in degrees, longitudes within -180 and 180, latitudes "
    "within -90 and 90, south not above north."
)


def is_shape(tree: Tree) -> TypeGuard[dict[str, Tree]]:
    """Whether a tree is meant for a shape."""
    return isinstance(tree, dict) and ("bbox" in tree or "type" in tree)


def shape_of(tree: dict[str, Tree]) -> Shape:
    """The shape that a tree is.

    Args:
        tree: A GeoJSON geometry, or ``{"bbox": [west, south, east, north]}``; heights are left
            out.

    Raises:
        InvalidInputError: If it is neither, lies beyond the Earth's degrees, or is not valid.
    """
    if set(tree) == {"bbox"}:
        return _rectangle(tree["bbox"])
    kind = tree.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise refused(
            f"{quoted(str(kind))} is no geometry; write BBOX or one of {', '.join(GEOMETRIES)}."
        )
    if kind == "GeometryCollection":
        members = tree.get("geometries")
        if not isinstance(members, list | tuple) or not members:
            raise refused("GEOMETRYCOLLECTION takes a list of geometries.")
        if any(isinstance(one, dict) and one.get("type") == kind for one in members):
            raise refused("GEOMETRYCOLLECTION holds no other collection.")
        parts = [shape_of(one).geometry for one in members if is_shape(one)]
        return Shape(shapely.to_wkb(shapely.GeometryCollection(parts)))
    geometry = _geometry(kind, tree.get("coordinates"))
    if not shapely.is_valid(geometry):
        reason = shapely.is_valid_reason(geometry)
        raise refused(f"the {kind.upper()} is not valid: {reason}.")
    return Shape(shapely.to_wkb(geometry))


def _rectangle(numbers: Tree) -> Shape:
    if not (isinstance(numbers, list | tuple) and all(map(_is_number, numbers))):
        raise refused(_BBOX)
    if len(numbers) == 6:
        numbers = [*numbers[:2], *numbers[3:5]]
    if len(numbers) != 4:
        raise refused(_BBOX)
    west, south, east, north = map(float, numbers)
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise refused(_BBOX)
    return Shape(shapely.to_wkb(_box(west, south, east, north)), (west, south, east, north))


def _box(west: float, south: float, east: float, north: float) -> BaseGeometry:
    if west > east:
        return MultiPolygon(
            [shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)]
        )
    if west == east or south == north:
        # As a polygon, a rectangle without area is not valid.
        return shapely.MultiPoint([(west, south), (east, north)]).envelope
    return shapely.box(west, south, east, north)


def _geometry(kind: str, coordinates: Tree) -> BaseGeometry:
    try:
        return _BUILDERS[kind](coordinates)
    except InvalidInputError:
        # It says more, and is a ValueError as well.
        raise
    except (ValueError, TypeError, GEOSException):
        raise refused(
            f"the coordinates of {kind.upper()} cannot be read; write positions of longitude and "
            "latitude, at least two in a line and four in a ring, whose last is its first."
        ) from None


def _positions(tree: Tree) -> list[tuple[float, float]]:
    return [_position(one) for one in _parts(tree)]


def _position(tree: Tree) -> tuple[float, float]:
    numbers = list(_parts(tree))
    if not 2 <= len(numbers) <= 4 or not all(map(_is_number, numbers)):
        raise ValueError(tree)
    longitude, latitude = map(float, numbers[:2])
    if not (-180 <= longitude <= 180 and -90 <= latitude <= 90):
        raise refused(
            f"position {longitude:g} {latitude:g} is not on Earth; write longitude before "
            "latitude, in degrees."
        )
    return longitude, latitude


def _parts(tree: Tree) -> Iterator[Tree]:
    if not isinstance(tree, list | tuple) or not tree:
        raise TypeError(tree)
    yield from tree


def _polygon(tree: Tree) -> BaseGeometry:
    shell, *holes = map(_positions, _parts(tree))
    return shapely.Polygon(shell, holes)


_BUILDERS: Final[dict[str, Callable[[Tree], BaseGeometry]]] = {
    "Point": lambda tree: shapely.Point(_position(tree)),
    "MultiPoint": lambda tree: shapely.MultiPoint(_positions(tree)),
    "LineString": lambda tree: shapely.LineString(_positions(tree)),
    "MultiLineString": lambda tree: shapely.MultiLineString(list(map(_positions, _parts(tree)))),
    "Polygon": _polygon,
    "MultiPolygon": lambda tree: MultiPolygon(list(map(_polygon, _parts(tree)))),
}


def _is_number(one: object) -> bool:
    return isinstance(one, int | float) and not isinstance(one, bool)
