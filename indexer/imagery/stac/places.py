"""Where items lie, and the area that is asked for."""

from collections.abc import Mapping
from typing import Any

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from indexer.errors import ImageryError
from indexer.imagery.stac.addresses import shown
from indexer.imagery.stac.item import StacSource

Bbox = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


def area(bbox: Bbox) -> BaseGeometry:
    """The area of a box, in two parts where it crosses the 180th meridian."""
    west, south, east, north = bbox
    if west <= east:
        return box(west, south, east, north)
    return box(west, south, 180, north) | box(-180, south, east, north)


def footprint(item: Mapping[str, Any], source: StacSource) -> BaseGeometry:
    """Where an item lies, in degrees: its geometry, else its box.

    Raises:
        ImageryError: ``item-invalid``, if it does not say it.
    """
    try:
        geometry, bounds = item.get("geometry"), item.get("bbox")
        if isinstance(geometry, dict):
            return shapely.make_valid(shape(geometry))
        if isinstance(bounds, list) and len(bounds) in (4, 6):
            half = len(bounds) // 2
            west, south, east, north = map(float, bounds[:2] + bounds[half : half + 2])
            return area((west, south, east, north))
    except (ShapelyError, AttributeError, LookupError, TypeError, ValueError, RecursionError):
        pass
    raise ImageryError(
        f"{shown(source.location)}: item {source.name} does not say where it lies (geometry, or "
        "bbox), so nobody knows whether it is in the area asked for.",
        kind="item-invalid",
    )
