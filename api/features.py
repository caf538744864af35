"""Parcels as GeoJSON features (RFC 7946), and how OpenAPI describes them."""

from datetime import datetime
from typing import Any, Final

from fastapi.responses import JSONResponse

from retriever.results import feature, iso
from retriever.state import ParcelFacts

GEOJSON: Final = "application/geo+json"

FEATURE_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "id", "geometry", "properties"],
    "properties": {
        "type": {"const": "Feature"},
        "id": {"type": "string"},
        "geometry": {"type": ["object", "null"]},
        "properties": {"type": "object"},
    },
}


class GeoJSONResponse(JSONResponse):
    """RFC 7946."""

    media_type = GEOJSON


def feature_of(parcel: ParcelFacts, seen: datetime | None) -> dict[str, Any]:
    """A parcel with its attributes under their fiboa names, and the time it was last seen.

    Where an attribute has a name of ours, ours stands.
    """
    properties = {**parcel.attributes, **parcel.to_dict(), "datetime": iso(seen)}
    return feature(parcel.parcel_id, parcel.geometry, properties)


def described(description: str, media_type: str, schema: dict[str, Any]) -> dict[int | str, Any]:
    """What OpenAPI says about an answer with status 200."""
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}}
