"""``/collections/{collection}/items/{parcel_id}``: a parcel, its look-alikes, its state."""

from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from api.dependencies import KeyDep, KnownParametersDep, SearcherDep
from api.errors import problem_responses
from api.features import FEATURE_SCHEMA, GEOJSON, GeoJSONResponse, described, feature_of
from api.parameters import BboxText, CollectionName, DatetimeText, ParcelId, Text
from retriever.queries import DEFAULT_K, MAX_K, Bbox, Interval, ParcelFilter
from retriever.state import ParcelState

_PROBLEMS: Final = problem_responses(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.SERVICE_UNAVAILABLE,
)

_MATCHES_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "features", "query", "generation", "space", "notes"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {"type": "array", "items": FEATURE_SCHEMA},
        "numberReturned": {"type": "integer"},
        "query": {"type": "object"},
        "generation": {"type": "integer"},
        "space": {"type": "object"},
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}
_STATE_SCHEMA: Final = {
    "type": "object",
    "required": ["collection", "id", "observations"],
    "properties": {
        "collection": {"type": "string"},
        "id": {"type": "string"},
        "observations": {"type": "array", "items": {"type": "object"}},
        "reliability": {"type": "object"},
        **{
            part: {"type": ["object", "null"], "description": description}
            for part, description in {
                "trend": "Theil-Sen slope of NDVI over the last reliable observations, per day.",
                "peak": "The highest NDVI of the last 365 days.",
                "last_change": "Between the last two reliable observations with a vector.",
                "gaps": "Days between reliable observations.",
                "peers": "Where the parcel stands among its crop, and what its look-alikes grow.",
            }.items()
        },
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}

router = APIRouter(
    prefix="/collections/{collection}/items",
    tags=["parcels"],
    dependencies=[KeyDep, KnownParametersDep],
    responses=_PROBLEMS,
)


def _filter(
    collections: Annotated[
        Text | None,
        Query(
            description="Collections that matches may come from, comma-separated; without it, all "
            "of the same embedding space.",
            examples=["demo"],
        ),
    ] = None,
    crop: Annotated[
        list[Text] | None,
        Query(
            description="Only parcels of this crop, by code or name; repeat it for several.",
            examples=[["winter wheat"]],
        ),
    ] = None,
    bbox: BboxText = None,
    interval: DatetimeText = None,
) -> ParcelFilter:
    """The parcels and observations that may be returned."""
    return ParcelFilter(
        collections=() if collections is None else tuple(collections.split(",")),
        crops=tuple(crop or ()),
        bbox=None if bbox is None else Bbox.parse(bbox),
        interval=None if interval is None else Interval.parse(interval),
    )


# An id may hold slashes, as those of the Czech land parcel register do; so the routes with a last
# segment of their own come first, and the parcel itself takes what is left.


@router.get(
    "/{parcel_id:path}/similar",
    response_class=GeoJSONResponse,
    responses=described("The matches, closest first", GEOJSON, _MATCHES_SCHEMA),
)
def similar(
    searcher: SearcherDep,
    collection: CollectionName,
    parcel_id: ParcelId,
    where: Annotated[ParcelFilter, Depends(_filter)],
    k: Annotated[
        int,
        Query(
            description="Matches wanted.",
            examples=[5],
            # The searcher checks it, so that every door refuses it in the same words.
            json_schema_extra={"minimum": 1, "maximum": MAX_K},
        ),
    ] = DEFAULT_K,
    observations: Annotated[
        bool,
        Query(
            description="Return every observation that matches, not each parcel's best one.",
            examples=[False],
        ),
    ] = False,
) -> GeoJSONResponse:
    """Parcels that look like this one, which is never its own match."""
    matches = searcher.similar_by_id(
        parcel_id, collection=collection, k=k, where=where, observations=observations
    )
    return GeoJSONResponse(matches.to_geojson())


@router.get(
    "/{parcel_id:path}/state",
    responses=described("The observations, in order of time", "application/json", _STATE_SCHEMA),
)
def state(
    searcher: SearcherDep,
    collection: CollectionName,
    parcel_id: ParcelId,
    interval: DatetimeText = None,
) -> JSONResponse:
    """What each observation measured on this parcel, over time and against its kind."""
    where = ParcelFilter(interval=None if interval is None else Interval.parse(interval))
    found = searcher.state(parcel_id, collection=collection, where=where)
    return JSONResponse(found.to_dict())


@router.get(
    "/{parcel_id:path}",
    response_class=GeoJSONResponse,
    responses=described("The parcel", GEOJSON, FEATURE_SCHEMA),
)
def item(
    request: Request, searcher: SearcherDep, collection: CollectionName, parcel_id: ParcelId
) -> GeoJSONResponse:
    """One parcel with its attributes, under their fiboa names, and the time it was last seen."""
    found = searcher.state(parcel_id, collection=collection, peers=False)
    base = str(request.base_url).rstrip("/")
    path = f"collections/{quote(collection, safe='')}/items/{quote(parcel_id, safe='')}"
    return GeoJSONResponse(_with_links(found, f"{base}/{path}"))


def _with_links(found: ParcelState, address: str) -> dict[str, Any]:
    times = [seen.acquired_at for seen in found.observations if seen.acquired_at is not None]
    links = [
        {"rel": "self", "href": address, "type": GEOJSON},
        {"rel": "similar", "href": f"{address}/similar", "type": GEOJSON},
        {"rel": "state", "href": f"{address}/state", "type": "application/json"},
    ]
    return {**feature_of(found.parcel, max(times, default=None)), "links": links}
