"""``/collections/{collection}/items/{parcel_id}``: a parcel, its look-alikes, its state."""

from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from api.dependencies import KeyDep, KnownParametersDep, SearcherDep, TurnsDep
from api.errors import PROBLEMS_OF_READING
from api.features import (
    FEATURE_SCHEMA,
    GEOJSON,
    MATCHES_SCHEMA,
    GeoJSONResponse,
    described,
    feature_of,
)
from api.filters import filter_from
from api.links import CONTENT_CRS, CRS84, base_of, collection_address, link
from api.parameters import (
    BboxText,
    CollectionName,
    Crs,
    DatetimeText,
    Explain,
    FilterLanguage,
    FilterText,
    ParcelId,
    Recall,
    Text,
)
from indexer.vector_index.effort import DEFAULT_RECALL
from retriever.listing import ListedParcel
from retriever.queries import DEFAULT_K, MAX_K, Interval, ParcelFilter

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
    responses=PROBLEMS_OF_READING,
)


# An id may hold slashes, as those of the Czech land parcel register do; so the routes with a last
# segment of their own come first, and the parcel itself takes what is left.


@router.get(
    "/{parcel_id:path}/similar",
    response_class=GeoJSONResponse,
    responses=described("The matches, closest first", GEOJSON, MATCHES_SCHEMA),
)
async def similar(
    searcher: SearcherDep,
    turns: TurnsDep,
    collection: CollectionName,
    parcel_id: ParcelId,
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
    expression: FilterText = None,
    language: FilterLanguage = "cql2-text",
    recall: Recall = DEFAULT_RECALL,
    explain: Explain = False,
) -> GeoJSONResponse:
    """Parcels that look like this one, which is never its own match."""

    def answer() -> GeoJSONResponse:
        where = filter_from(
            collections=() if collections is None else collections.split(","),
            crops=crop or (),
            bbox=bbox,
            interval=interval,
            expression=expression,
            language=language,
        )
        matches = searcher.similar_by_id(
            parcel_id,
            collection=collection,
            k=k,
            where=where,
            observations=observations,
            recall=recall,
            explain=explain,
        )
        return GeoJSONResponse(matches.to_geojson())

    return await turns.ask(answer)


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
    request: Request,
    searcher: SearcherDep,
    collection: CollectionName,
    parcel_id: ParcelId,
    crs: Crs = CRS84,
) -> GeoJSONResponse:
    """One parcel with its attributes, under their fiboa names, and when it was last seen well."""
    found = searcher.parcel(parcel_id, collection=collection)
    answer = _with_links(found, collection_address(base_of(request), collection))
    return GeoJSONResponse(answer, headers=CONTENT_CRS)


def _with_links(found: ListedParcel, collection: str) -> dict[str, Any]:
    address = f"{collection}/items/{quote(found.parcel.parcel_id, safe='')}"
    links = [
        link("self", address, GEOJSON),
        link("collection", collection, "application/json"),
        link("similar", f"{address}/similar", GEOJSON),
        link("state", f"{address}/state", "application/json"),
        link("preview", f"{address}/preview.png", "image/png"),
    ]
    return {**feature_of(found), "links": links}
