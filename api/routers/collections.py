"""OGC API - Features, part 1: what the service conforms to, its collections, their parcels.

https://docs.ogc.org/is/17-069r4/17-069r4.html
"""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from api.dependencies import KeyDep, KnownParametersDep, SearcherDep
from api.errors import problem_responses
from api.features import FEATURE_SCHEMA, GEOJSON, GeoJSONResponse, described, feature_of
from api.parameters import BboxText, CollectionName, DatetimeText
from retriever.queries import MAX_K, Bbox, Interval, ParcelFilter
from retriever.results import iso
from retriever.summaries import CollectionSummary

CRS84: Final = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
GREGORIAN: Final = "http://www.opengis.net/def/uom/ISO-8601/0/Gregorian"

CONFORMS_TO: Final = (
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
)

DEFAULT_LIMIT: Final = 10

_PROBLEMS: Final = problem_responses(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.SERVICE_UNAVAILABLE,
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
_ITEMS_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "features", "links", "numberReturned", "timeStamp"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {"type": "array", "items": FEATURE_SCHEMA},
        "links": {"type": "array", "items": {"type": "object"}},
        "numberReturned": {"type": "integer"},
        "timeStamp": {"type": "string", "format": "date-time"},
    },
}

router = APIRouter(
    tags=["collections"], dependencies=[KeyDep, KnownParametersDep], responses=_PROBLEMS
)


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
    base = _base(request)
    return JSONResponse(
        {
            "links": [_link("self", f"{base}/collections", "application/json")],
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
    return JSONResponse(_summary(found, _base(request)))


@router.get(
    "/collections/{collection}/items",
    response_class=GeoJSONResponse,
    responses=described("A page of parcels", GEOJSON, _ITEMS_SCHEMA),
)
def items(
    request: Request,
    searcher: SearcherDep,
    collection: CollectionName,
    limit: Annotated[
        int,
        Query(
            ge=1,
            description=f"Parcels of a page; more than {MAX_K} are cut to {MAX_K}.",
            examples=[100],
        ),
    ] = DEFAULT_LIMIT,
    bbox: BboxText = None,
    interval: DatetimeText = None,
    after: Annotated[
        int,
        Query(
            ge=0,
            le=2**63 - 1,
            description="Where the page before ended; `next` links say it.",
            examples=[0],
        ),
    ] = 0,
) -> GeoJSONResponse:
    """The parcels of a collection, page by page: follow the links of relation `next`."""
    page = searcher.parcels(
        where=ParcelFilter(
            collections=(collection,),
            bbox=None if bbox is None else Bbox.parse(bbox),
            interval=None if interval is None else Interval.parse(interval),
        ),
        limit=min(limit, MAX_K),
        after=after,
        count=False,
    )
    base = _base(request)
    links = [_link("self", str(request.url), GEOJSON)]
    if page.more:
        following = request.url.include_query_params(after=page.parcels[-1].row)
        links.append(_link("next", str(following), GEOJSON))
    links.append(_link("collection", _address(base, collection), "application/json"))
    return GeoJSONResponse(
        {
            "type": "FeatureCollection",
            "features": [feature_of(one.parcel, one.latest) for one in page.parcels],
            "numberReturned": len(page.parcels),
            "timeStamp": iso(datetime.now(UTC)),
            "links": links,
        }
    )


def _summary(found: CollectionSummary, base: str) -> dict[str, Any]:
    address = _address(base, found.name)
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
        "links": [
            _link("self", address, "application/json"),
            _link("items", f"{address}/items", GEOJSON),
        ],
    }


def _address(base: str, collection: str) -> str:
    return f"{base}/collections/{quote(collection, safe='')}"


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _link(rel: str, href: str, media_type: str) -> dict[str, str]:
    return {"rel": rel, "href": href, "type": media_type}
