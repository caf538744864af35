"""``/collections/{collection}/items``: the parcels of a collection, page by page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from api.dependencies import (
    KeyDep,
    SearcherDep,
    known_parameters,
    refuse_unknown_parameters,
)
from api.errors import PROBLEMS_OF_READING
from api.features import FEATURE_SCHEMA, GEOJSON, described, feature_of, to_json
from api.filters import equals, filter_from, parameters_of
from api.links import CONTENT_CRS, CRS84, base_of, collection_address, link
from api.parameters import (
    BboxCrs,
    BboxText,
    CollectionName,
    Crs,
    DatetimeText,
    FilterCrs,
    FilterLanguage,
    FilterText,
)
from retriever.listing import ListedParcel, meeting
from retriever.queries import MAX_K, ParcelFilter
from retriever.search import ParcelSearcher

DEFAULT_LIMIT: Final = 10

MAX_LIMIT: Final = 10_000
"""Most parcels of one answer; from ``MAX_K`` on it is sent while it is read."""

_ITEMS_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "features", "links", "numberReturned"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {"type": "array", "items": FEATURE_SCHEMA},
        "links": {"type": "array", "items": {"type": "object"}},
        "numberReturned": {"type": "integer"},
    },
}

router = APIRouter(
    tags=["collections"],
    dependencies=[KeyDep],
    responses=PROBLEMS_OF_READING,
)


@router.get(
    "/collections/{collection}/items",
    response_class=Response,
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
            description=f"Parcels of a page; more than {MAX_LIMIT} are cut to {MAX_LIMIT}.",
            examples=[100],
        ),
    ] = DEFAULT_LIMIT,
    bbox: BboxText = None,
    interval: DatetimeText = None,
    expression: FilterText = None,
    language: FilterLanguage = "cql2-text",
    crs: Crs = CRS84,
    bbox_crs: BboxCrs = CRS84,
    filter_crs: FilterCrs = CRS84,
    after: Annotated[
        int,
        Query(
            ge=0,
            le=2**63 - 1,
            description="Where the page before ended; `next` links say it.",
            examples=[0],
        ),
    ] = 0,
) -> Response:
    """The parcels of a collection, page by page: follow the links of relation `next`.

    Each shows the observation that stands for it, the latest reliable one, else the latest;
    within `datetime`, if that is given. Every queryable property is a parameter as well, and asks
    for parcels where it has that value.
    """
    own = {
        one.name: one
        for one in parameters_of(searcher.queryables(collection), taken=known_parameters(request))
    }
    refuse_unknown_parameters(request, besides=own)
    where = filter_from(
        collections=(collection,),
        bbox=bbox,
        interval=interval,
        expression=expression,
        language=language,
        besides=[
            equals(own[name], value)
            for name, value in request.query_params.multi_items()
            if name in own
        ],
    )
    limit = min(limit, MAX_LIMIT)
    pages = _pages(searcher, where, limit, after)
    # What is wrong with the question shows with the first page, while there is a status to say it.
    parts = _parts(chain([next(pages)], pages), request, collection)
    if limit <= MAX_K:
        return Response(b"".join(parts), media_type=GEOJSON, headers=CONTENT_CRS)
    return StreamingResponse(parts, media_type=GEOJSON, headers=CONTENT_CRS)


@dataclass(frozen=True)
class _Page:
    """Parcels that were read together."""

    parcels: Sequence[ListedParcel]
    after: int | None
    """Where the page after it begins; None if there is none."""


def _pages(
    searcher: ParcelSearcher, where: ParcelFilter, limit: int, after: int
) -> Iterator[_Page]:
    while True:
        found = searcher.parcels(where=where, limit=min(limit, MAX_K), after=after, count=False)
        # OGC API asks for geometries that meet the rectangle; the database compares rectangles.
        met = found.parcels if where.bbox is None else meeting(found.parcels, where.bbox)
        page = _Page(met, found.parcels[-1].row if found.more else None)
        yield page
        limit -= len(met)
        if limit <= 0 or page.after is None:
            return
        after = page.after


def _parts(pages: Iterator[_Page], request: Request, collection: str) -> Iterator[bytes]:
    """The FeatureCollection, page by page; memory holds one of them."""
    yield b'{"type":"FeatureCollection","features":['
    returned = 0
    for page in pages:
        features = [to_json(feature_of(one)) for one in page.parcels]
        if features:
            yield (b"," if returned else b"") + b",".join(features)
        returned += len(features)
    links = [link("self", str(request.url), GEOJSON)]
    if page.after is not None:
        following = request.url.include_query_params(after=page.after)
        links.append(link("next", str(following), GEOJSON))
    address = collection_address(base_of(request), collection)
    links.append(link("collection", address, "application/json"))
    yield b"]," + to_json({"numberReturned": returned, "links": links})[1:]
