"""``search_parcels``: which parcels are there? The way in where no id is known."""

import json
from typing import Annotated

from pydantic import Field

from indexer.parcels.parcel import JsonScalar
from retriever.listing import ListedParcel, ParcelList
from retriever.queries import ParcelFilter
from retriever.search import ParcelSearcher
from retriever.tools.arguments import (
    DEFAULT_TOOL_K,
    MAX_COLLECTION,
    MAX_ID,
    MAX_TOOL_K,
    BboxText,
    Crops,
    Cursor,
    Detail,
    FilterText,
    Id,
    ToolArguments,
    bbox_of,
    expression_of,
)
from retriever.tools.budget import TOKENS, fitted
from retriever.tools.cursor import Cursor as Place
from retriever.tools.cursor import check_version, question_of, read_cursor
from retriever.tools.definition import Answer, ToolDefinition
from retriever.tools.schemas import SearchArtifact
from retriever.tools.wording import (
    cluster,
    cluster_of,
    crop,
    day,
    declared,
    hectares,
    key,
    quoted_id,
    quoted_name,
)

_SHOWN_ATTRIBUTES = 6

# The place of a page is a row of the catalog, which no publication moves.
_ROWS = 0


class SearchArguments(ToolArguments):
    """Arguments of ``search_parcels``."""

    text: Annotated[
        str | None,
        Field(
            max_length=200,
            description="Words that must all stand in the parcel's id, name, crop or other "
            "attributes, upper or lower case, for example: church field.",
        ),
    ] = None
    crops: Crops = None
    bbox: BboxText = None
    collection: Annotated[
        str | None,
        Field(max_length=MAX_COLLECTION, description="Only parcels of this collection."),
    ] = None
    attributes: Annotated[
        dict[Id, Annotated[str, Field(max_length=MAX_ID)] | int | float | bool] | None,
        Field(
            max_length=10,
            description='Names and exact values of other attributes, for example {"farm": "17"}. '
            "An unknown name is answered with those that there are.",
        ),
    ] = None
    filter: FilterText = None
    limit: Annotated[
        int, Field(ge=1, le=MAX_TOOL_K, description=f"Parcels wanted, 1 to {MAX_TOOL_K}.")
    ] = DEFAULT_TOOL_K
    response_format: Detail = "concise"
    cursor: Cursor = None


def _answer(searcher: ParcelSearcher, arguments: SearchArguments) -> Answer:
    question = question_of(arguments)
    after = check_version(read_cursor(arguments.cursor, question), _ROWS)
    page = searcher.parcels(
        where=ParcelFilter(
            collections=() if arguments.collection is None else (arguments.collection,),
            crops=tuple(arguments.crops or ()),
            bbox=bbox_of(arguments.bbox),
            attributes=tuple((arguments.attributes or {}).items()),
            text=arguments.text,
            expression=expression_of(arguments.filter),
        ),
        limit=arguments.limit,
        after=after,
    )
    detailed = arguments.response_format == "detailed"

    def following(told: int) -> Place | None:
        if told == len(page.parcels) and not page.more:
            return None
        return Place(page.parcels[told - 1].row, _ROWS, question)

    def tail(told: int) -> list[str]:
        return [_step_after(page, following(told))]

    lines = [_detailed(one) if detailed else _concise(one, page) for one in page.parcels]
    text = fitted(_head(page, detailed=detailed), lines, tail, arguments.response_format)
    # A program that pages by artifacts goes on after all of it, the model after what it was told.
    place = following(len(page.parcels))
    return Answer(text, {**page.to_dict(), "cursor": None if place is None else str(place)})


def _head(page: ParcelList, *, detailed: bool) -> list[str]:
    count = f"{page.matched}" if page.counted else f"At least {page.matched}"
    if not page.matched:
        return ["No stored parcel fits."]
    title = "1 stored parcel fits." if page.matched == 1 else f"{count} stored parcels fit."
    return [title] if detailed else [title, ",".join(_columns(page))]


def _columns(page: ParcelList) -> list[str]:
    grouped = ["cluster"] if _has_clusters(page) else []
    return ["id", "collection", "crop", *grouped, "hectares", "last seen"]


def _has_clusters(page: ParcelList) -> bool:
    return any(one.cluster is not None for one in page.parcels)


def _concise(one: ListedParcel, page: ParcelList) -> str:
    parcel = one.parcel
    return ",".join(
        [
            quoted_id(parcel.parcel_id),
            quoted_name(parcel.collection),
            declared(parcel.crop_name, parcel.crop_code),
            *([cluster(one.cluster)] if _has_clusters(page) else []),
            "unknown" if parcel.area_m2 is None else f"{parcel.area_m2 / 10_000:.2f}",
            "never" if not one.observations else day(one.latest),
        ]
    )


def _detailed(one: ListedParcel) -> str:
    parcel = one.parcel
    place = (
        "place unknown"
        if one.longitude is None or one.latitude is None
        else f"at longitude {one.longitude:.4f}, latitude {one.latitude:.4f} degrees"
    )
    seen = f"{one.observations} observations, last {day(one.latest)}"
    attributes = [
        f"{quoted_name(name)}: {_value(value)}"
        for name, value in list(parcel.attributes.items())[:_SHOWN_ATTRIBUTES]
    ]
    more = len(parcel.attributes) - len(attributes)
    told = f"; {', '.join(attributes)}" if attributes else ""
    rest = f" and {more} more attributes" if more > 0 else ""
    parts = [
        crop(parcel.crop_name, parcel.crop_code),
        *cluster_of(one.cluster),
        hectares(parcel.area_m2),
        place,
        seen if one.observations else "never observed",
    ]
    return f"{key(parcel.parcel_id, parcel.collection)}: {', '.join(parts)}{told}{rest}"


def _value(value: JsonScalar) -> str:
    return quoted_name(value) if isinstance(value, str) else json.dumps(value)


def _step_after(page: ParcelList, following: Place | None) -> str:
    if not page.parcels:
        return "Next: call search_parcels again with fewer conditions or none to see what there is."
    more = f"More: cursor {following}. " if following is not None else ""
    return f"{more}Next: get_parcel_state or find_similar_parcels with an id and its collection."


SEARCH_PARCELS = ToolDefinition(
    name="search_parcels",
    title="Search parcels",
    description=(
        "List stored agricultural parcels by name, crop, place or other attributes: the way to an "
        "id when none is known. Without conditions it lists all. Answers with ids, collections, "
        f"crops, areas and when each was last seen. At most {TOKENS['concise']} tokens, detailed "
        f"{TOKENS['detailed']}."
    ),
    arguments=SearchArguments,
    artifact=SearchArtifact,
    answer=_answer,
)
