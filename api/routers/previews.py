"""``/collections/{collection}/items/{parcel_id}/preview.png``: what a parcel looks like."""

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from api.dependencies import KeyDep, KnownParametersDep, SearcherDep
from api.errors import PROBLEMS_OF_READING
from api.features import described
from api.middleware.conditional import names
from api.parameters import CollectionName, DatetimeText, ParcelId
from api.settings import ApiSettings
from indexer.imagery.preview import Style
from retriever.previews import DEFAULT_SIZE_PX, MAX_SIZE_PX, MIN_SIZE_PX
from retriever.queries import Interval, ParcelFilter

PNG: Final = "image/png"

MAX_AGE_S: Final = 300
"""How long a client may show a picture without asking whether it is still the same."""

_PICTURE_SCHEMA: Final = {"type": "string", "format": "binary"}

# Before the router of the parcels, whose last route takes every path that is left.
router = APIRouter(
    prefix="/collections/{collection}/items",
    tags=["parcels"],
    dependencies=[KeyDep, KnownParametersDep],
    responses=PROBLEMS_OF_READING,
)


@router.get(
    "/{parcel_id:path}/preview.png",
    response_class=Response,
    responses=described(
        "The picture; 304 without it where `If-None-Match` names it", PNG, _PICTURE_SCHEMA
    ),
)
def preview(
    request: Request,
    searcher: SearcherDep,
    collection: CollectionName,
    parcel_id: ParcelId,
    style: Annotated[
        Style,
        Query(
            description="`true-color` shows B04, B03 and B02 as red, green and blue; "
            "`false-color` B08, B04 and B03, so that vegetation is red. Images of other bands show "
            "those nearest to these colors, else three spread over all.",
            examples=["true-color"],
        ),
    ] = "true-color",
    size: Annotated[
        int,
        Query(
            description="Width and height in pixels.",
            examples=[256],
            # The searcher checks it, so that every door refuses it in the same words.
            json_schema_extra={"minimum": MIN_SIZE_PX, "maximum": MAX_SIZE_PX},
        ),
    ] = DEFAULT_SIZE_PX,
    interval: DatetimeText = None,
    if_none_match: Annotated[
        str | None,
        Header(
            description="`ETag` of the picture that the client has.",
            examples=['"3f2b8c1d9e0a4b5c6d7e8f9012345678"'],
        ),
    ] = None,
) -> Response:
    """The parcel and its surroundings in its latest reliable observation, else the latest."""
    shown = searcher.preview(
        parcel_id,
        collection=collection,
        where=ParcelFilter(interval=None if interval is None else Interval.parse(interval)),
        style=style,
        size_px=size,
    )
    settings: ApiSettings = request.app.state.settings
    tag = f'"{shown.digest}"'
    headers = {
        "ETag": tag,
        # What needs a key is not for caches that others share.
        "Cache-Control": f"{'private' if settings.api_keys else 'public'}, max-age={MAX_AGE_S}",
    }
    # Asked here, too, lest a picture be drawn that nobody needs.
    if names(if_none_match or "", tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(shown.draw(), media_type=PNG, headers=headers)
