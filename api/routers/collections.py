"""OGC API - Features: what the service conforms to, its collections, what they may be asked for.

Part 1, core: https://docs.ogc.org/is/17-069r4/17-069r4.html; part 2, reference systems:
https://docs.ogc.org/is/18-058r1/18-058r1.html; part 3, filtering:
https://docs.ogc.org/is/19-079r2/19-079r2.html; CQL2: https://docs.ogc.org/is/21-065r2/21-065r2.html
"""

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from api.dependencies import KeyDep, KnownParametersDep, SearcherDep
from api.errors import PROBLEMS_OF_READING
from api.features import GEOJSON, described
from api.links import CRS84, base_of, collection_address, link
from api.parameters import CollectionName
from retriever.results import iso
from retriever.summaries import CollectionSummary

GREGORIAN: Final = "http://www.opengis.net/def/uom/ISO-8601/0/Gregorian"
QUERYABLES: Final = "http://www.opengis.net/def/rel/ogc/1.0/queryables"
SCHEMA_JSON: Final = "application/schema+json"

_FEATURES: Final = "http://www.opengis.net/spec/ogcapi-features"
_CQL2: Final = "http://www.opengis.net/spec/cql2/1.0/conf"
CONFORMS_TO: Final = (
    f"{_FEATURES}-1/1.0/conf/core",
    f"{_FEATURES}-1/1.0/conf/oas30",
    f"{_FEATURES}-1/1.0/conf/geojson",
    f"{_FEATURES}-2/1.0/conf/crs",
    f"{_FEATURES}-3/1.0/conf/queryables",
    f"{_FEATURES}-3/1.0/conf/queryables-query-parameters",
    f"{_FEATURES}-3/1.0/conf/filter",
    f"{_FEATURES}-3/1.0/conf/features-filter",
    f"{_CQL2}/cql2-text",
    f"{_CQL2}/cql2-json",
    f"{_CQL2}/basic-cql2",
    f"{_CQL2}/advanced-comparison-operators",
    f"{_CQL2}/case-insensitive-comparison",
    f"{_CQL2}/basic-spatial-functions",
)

_COLLECTION_SCHEMA: Final = {
    "type": "object",
    "required": ["id", "links"],
    "properties": {
        "id": {"type": "string"},
        "title": {"type": "string"},
        "extent": {"type": "object"},
        "itemType": {"const": "feature"},
        "crs": {"type": "array", "items": {"type": "string"}},
        "storageCrs": {"type": "string"},
        "links": {"type": "array", "items": {"type": "object"}},
    },
}
_COLLECTIONS_SCHEMA: Final = {
    "type": "object",
    "required": ["links", "collections"],
    "properties": {
        "links": {"type": "array", "items": {"type": "object"}},
        "collections": {"type": "array", "items": _COLLECTION_SCHEMA},
    },
}
_QUERYABLES_SCHEMA: Final = {
    "type": "object",
    "required": ["$schema", "$id", "type", "properties"],
    "properties": {"properties": {"type": "object"}},
}

router = APIRouter(
    tags=["collections"], dependencies=[KeyDep, KnownParametersDep], responses=PROBLEMS_OF_READING
)


class SchemaResponse(JSONResponse):
    """A JSON schema."""

    media_type = SCHEMA_JSON


@router.get("/conformance")
async def conformance() -> dict[str, list[str]]:
    """The requirements that the service meets."""
    return {"conformsTo": list(CONFORMS_TO)}


@router.get(
    "/collections",
    responses=described("The collections", "application/json", _COLLECTIONS_SCHEMA),
)
def collections(request: Request, searcher: SearcherDep) -> JSONResponse:
    """The collections of parcels."""
    base = base_of(request)
    return JSONResponse(
        {
            "links": [link("self", f"{base}/collections", "application/json")],
            "collections": [_summary(found, base) for found in searcher.collections()],
        }
    )


@router.get(
    "/collections/{collection}",
    responses=described("The collection", "application/json", _COLLECTION_SCHEMA),
)
def collection(request: Request, searcher: SearcherDep, collection: CollectionName) -> JSONResponse:
    """One collection: where and when its parcels are, and how to get at them."""
    (found,) = searcher.collections(collection)
    return JSONResponse(_summary(found, base_of(request)))


@router.get(
    "/collections/{collection}/queryables",
    response_class=SchemaResponse,
    responses=described("The properties", SCHEMA_JSON, _QUERYABLES_SCHEMA),
)
def queryables(
    request: Request, searcher: SearcherDep, collection: CollectionName
) -> SchemaResponse:
    """The properties that a filter may name, as a JSON schema of a parcel."""
    found = searcher.queryables(collection)
    address = collection_address(base_of(request), collection)
    return SchemaResponse(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"{address}/queryables",
            "type": "object",
            "title": collection,
            "properties": {one.name: one.to_json_schema() for one in found},
            "additionalProperties": False,
        }
    )


def _summary(found: CollectionSummary, base: str) -> dict[str, Any]:
    address = collection_address(base, found.name)
    extent: dict[str, Any] = {}
    if found.bbox is not None:
        extent["spatial"] = {"bbox": [list(found.bbox)], "crs": CRS84}
    if found.start is not None:
        extent["temporal"] = {"interval": [[iso(found.start), iso(found.end)]], "trs": GREGORIAN}
    return {
        "id": found.name,
        "title": found.name,
        "description": f"Agricultural parcels: {found.parcels}",
        **({"extent": extent} if extent else {}),
        "itemType": "feature",
        "crs": [CRS84],
        "storageCrs": CRS84,
        "links": [
            link("self", address, "application/json"),
            link("items", f"{address}/items", GEOJSON),
            link(QUERYABLES, f"{address}/queryables", SCHEMA_JSON),
        ],
    }
