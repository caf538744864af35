"""``find_similar_parcels``: which parcels look like this one, and not like those?"""

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from retriever.queries import MAX_K, ParcelFilter
from retriever.results import Match, Matches
from retriever.search import ParcelSearcher
from retriever.tools.arguments import (
    DEFAULT_TOOL_K,
    MAX_EXAMPLES,
    MAX_TOOL_K,
    BboxText,
    CollectionName,
    Crops,
    Cursor,
    Detail,
    FilterText,
    Id,
    IntervalText,
    ParcelId,
    ToolArguments,
    bbox_of,
    expression_of,
    interval_of,
)
from retriever.tools.budget import TOKENS, fitted, shortened
from retriever.tools.cursor import Cursor as Place
from retriever.tools.cursor import check_version, question_of, read_cursor
from retriever.tools.definition import Answer, ToolDefinition
from retriever.tools.schemas import SimilarArtifact
from retriever.tools.wording import (
    cluster,
    cluster_of,
    crop,
    day,
    declared,
    hectares,
    index_values,
    key,
    quoted_id,
    quoted_name,
    source,
)

# Characters and tokens of a filter that is repeated in an answer.
_FILTER = (160, 40)


class SimilarArguments(ToolArguments):
    """Arguments of ``find_similar_parcels``."""

    parcel_id: ParcelId
    collection: CollectionName = None
    like: Annotated[
        list[Id] | None,
        Field(
            max_length=MAX_EXAMPLES,
            description="Ids of more parcels that matches should be like as well.",
        ),
    ] = None
    unlike: Annotated[
        list[Id] | None,
        Field(
            max_length=MAX_EXAMPLES,
            description="Ids of parcels that matches should not be like.",
        ),
    ] = None
    k: Annotated[
        int, Field(ge=1, le=MAX_TOOL_K, description=f"Matches wanted, 1 to {MAX_TOOL_K}.")
    ] = DEFAULT_TOOL_K
    crops: Crops = None
    bbox: BboxText = None
    datetime: IntervalText = None
    filter: FilterText = None
    response_format: Detail = "concise"
    cursor: Cursor = None


def _answer(searcher: ParcelSearcher, arguments: SimilarArguments) -> Answer:
    question = question_of(arguments)
    cursor = read_cursor(arguments.cursor, question)
    start = 0 if cursor is None else cursor.position
    found = searcher.similar_by_examples(
        [arguments.parcel_id, *(arguments.like or ())],
        arguments.unlike or (),
        collection=arguments.collection,
        k=min(start + arguments.k, MAX_K),
        where=ParcelFilter(
            crops=tuple(arguments.crops or ()),
            bbox=bbox_of(arguments.bbox),
            interval=interval_of(arguments.datetime),
            expression=expression_of(arguments.filter),
        ),
    )
    check_version(cursor, found.generation)
    page = replace(found, matches=found.matches[start:])
    more = len(found.matches) == start + arguments.k
    detailed = arguments.response_format == "detailed"

    def following(told: int) -> Place | None:
        end = start + told
        if end >= MAX_K or (told == len(page.matches) and not more):
            return None
        return Place(end, page.generation, question)

    def tail(told: int) -> list[str]:
        return [
            source(page.generation, page.space),
            *(f"Note: {note}" for note in page.notes),
            _step_after(page, following(told)),
        ]

    lines = [_detailed(match) if detailed else _concise(match, page) for match in page.matches]
    text = fitted(_head(page, detailed=detailed), lines, tail, arguments.response_format)
    # A program that pages by artifacts goes on after all of it, the model after what it was told.
    place = following(len(page.matches))
    return Answer(text, {**page.to_dict(), "cursor": None if place is None else str(place)})


def _head(page: Matches, *, detailed: bool) -> list[str]:
    query = page.query
    seen = f"seen {query['datetime'][:10]}" if query["datetime"] else "seen on an unknown date"
    doubt = "" if query["reliable"] else ", not reliable"
    examples = [
        f"{len(others)} more like it" if kind == "like" else f"unlike {len(others)}"
        for kind, others in (
            ("like", query.get("like", [])[1:]),
            ("unlike", query.get("unlike", [])),
        )
        if others
    ]
    with_examples = f", with {' and '.join(examples)}" if examples else ""
    told = (
        f"Parcels most like {key(query['id'], query['collection'])}, {seen}{doubt}"
        f"{with_examples}{_filtered(query['filter'])}. Score: cosine similarity, -1 to 1."
    )
    if detailed:
        return [f"{told} NDVI and NDMI: medians, unitless. Best first:"]
    return [told, ",".join(_columns(page))]


def _filtered(conditions: dict[str, Any]) -> str:
    named = [
        f"{name} {', '.join([value] if isinstance(value, str) else value)}"
        for name, value in conditions.items()
    ]
    return f", only {shortened('; '.join(named), *_FILTER)}" if named else ""


def _columns(page: Matches) -> list[str]:
    collection = ["collection"] if _in_several(page) else []
    grouped = ["cluster"] if _has_clusters(page) else []
    return ["id", *collection, "crop", *grouped, "score", "seen"]


def _has_clusters(page: Matches) -> bool:
    return any(match.cluster is not None for match in page.matches)


def _in_several(page: Matches) -> bool:
    return any(match.collection != page.query["collection"] for match in page.matches)


def _concise(match: Match, page: Matches) -> str:
    fields = [
        quoted_id(match.parcel_id),
        *([quoted_name(match.collection)] if _in_several(page) else []),
        declared(match.crop_name, match.crop_code),
        *([cluster(match.cluster)] if _has_clusters(page) else []),
        f"{match.score:.3f}",
        day(match.acquired_at) + ("" if match.reliable else " not reliable"),
    ]
    return ",".join(fields)


def _detailed(match: Match) -> str:
    parts = [
        f"score {match.score:.3f}",
        *cluster_of(match.cluster),
        f"seen {day(match.acquired_at)}",
        f"{100 * match.valid_fraction:.0f} % valid",
        "reliable" if match.reliable else "not reliable",
        index_values(match.medians, ("NDVI", "NDMI")),
        hectares(match.area_m2),
        f"scene {quoted_id(match.scene)}",
    ]
    parcel = key(match.parcel_id, match.collection)
    return f"{match.rank}. {parcel}, {crop(match.crop_name, match.crop_code)}: {', '.join(parts)}"


def _step_after(page: Matches, following: Place | None) -> str:
    if not page.matches:
        if page.query["filter"]:
            return "Next: call find_similar_parcels again with a wider filter or none."
        return "Next: there are no more; search_parcels lists parcels by crop, place or name."
    more = f"More: cursor {following}. " if following is not None else ""
    return f"{more}Next: get_parcel_state tells what was measured on one of them."


FIND_SIMILAR_PARCELS = ToolDefinition(
    name="find_similar_parcels",
    title="Find similar parcels",
    description=(
        "Find the agricultural parcels that look most like a given parcel in satellite images, "
        "and, if wanted, like or unlike others. Answers with ids, crops, similarity scores and "
        "observation dates, best first. What looks alike need not be alike: get_parcel_state "
        f"tells what was measured. At most {TOKENS['concise']} tokens, detailed "
        f"{TOKENS['detailed']}."
    ),
    arguments=SimilarArguments,
    artifact=SimilarArtifact,
    answer=_answer,
)
