"""``compare_parcels``: how do these parcels differ?"""

from typing import Annotated

from pydantic import Field

from retriever.comparison import MOST_COMPARED, Compared, Comparison
from retriever.queries import ParcelFilter
from retriever.search import ParcelSearcher
from retriever.tools.arguments import (
    CollectionName,
    Detail,
    Id,
    IntervalText,
    ToolArguments,
    interval_of,
)
from retriever.tools.budget import TOKENS, fitted
from retriever.tools.definition import Answer, ToolDefinition
from retriever.tools.schemas import CompareArtifact
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


class CompareArguments(ToolArguments):
    """Arguments of ``compare_parcels``."""

    parcel_ids: Annotated[
        list[Id],
        Field(
            min_length=2,
            max_length=MOST_COMPARED,
            description=f"Ids of 2 to {MOST_COMPARED} stored parcels, for example demo-012 and "
            "demo-014.",
        ),
    ]
    collection: CollectionName = None
    datetime: IntervalText = None
    response_format: Detail = "concise"


def _answer(searcher: ParcelSearcher, arguments: CompareArguments) -> Answer:
    comparison = searcher.compare(
        arguments.parcel_ids,
        collection=arguments.collection,
        where=ParcelFilter(interval=interval_of(arguments.datetime)),
    )
    detailed = arguments.response_format == "detailed"
    numbered = [
        f"{number}. {_detailed(one)}" if detailed else f"{number},{_concise(one, comparison)}"
        for number, one in enumerate(comparison.parcels, start=1)
    ]
    text = fitted(
        _head(comparison, detailed=detailed),
        numbered,
        lambda told: _tail(comparison, told),
        arguments.response_format,
    )
    return Answer(text, comparison.to_dict())


def _head(comparison: Comparison, *, detailed: bool) -> list[str]:
    days = comparison.days_apart
    if days is None:
        dates = "NOT comparable: one was never seen reliably"
    elif days < 1:
        dates = "seen within a day"
    elif comparison.comparable:
        dates = f"seen within {days:.0f} days"
    else:
        dates = f"NOT comparable: seen {days:.0f} days apart"
    title = f"{len(comparison.parcels)} parcels side by side, {dates}. Medians, unitless."
    return [title] if detailed else [title, ",".join(_columns(comparison))]


def _columns(comparison: Comparison) -> list[str]:
    collection = ["collection"] if _in_several(comparison) else []
    grouped = ["cluster"] if _has_clusters(comparison) else []
    return ["number", "id", *collection, "crop", *grouped, "seen", "NDVI", "NDMI", "NDVI per day"]


def _has_clusters(comparison: Comparison) -> bool:
    seen = [one.observation for one in comparison.parcels]
    return any(one is not None and one.cluster is not None for one in seen)


def _in_several(comparison: Comparison) -> bool:
    return len({one.parcel.collection for one in comparison.parcels}) > 1


def _concise(one: Compared, comparison: Comparison) -> str:
    parcel, seen = one.parcel, one.observation
    fields = [
        quoted_id(parcel.parcel_id),
        *([quoted_name(parcel.collection)] if _in_several(comparison) else []),
        declared(parcel.crop_name, parcel.crop_code),
    ]
    if _has_clusters(comparison):
        fields.append(cluster(None if seen is None else seen.cluster))
    if seen is None:
        return ",".join([*fields, "never seen reliably"])
    medians = [
        f"{seen.medians[name]:.2f}" if name in seen.medians else "not measured"
        for name in ("NDVI", "NDMI")
    ]
    trend = "too few" if one.trend is None else f"{one.trend.per_day:+.4f}"
    return ",".join([*fields, day(seen.acquired_at), *medians, trend])


def _detailed(one: Compared) -> str:
    parcel, seen = one.parcel, one.observation
    parts = [crop(parcel.crop_name, parcel.crop_code), hectares(parcel.area_m2)]
    if seen is None:
        parts.append("never seen reliably")
    else:
        parts += cluster_of(seen.cluster)
        shown = index_values(seen.medians, tuple(seen.medians))
        parts.append(f"seen {day(seen.acquired_at)}: {shown}")
    if one.trend is not None:
        parts.append(
            f"trend NDVI {one.trend.per_day:+.4f} per day ({one.trend.observations} observations)"
        )
    if one.peak is not None:
        parts.append(f"peak NDVI {one.peak.median:.2f} on {day(one.peak.acquired_at)}")
    return f"{key(parcel.parcel_id, parcel.collection)}: {', '.join(parts)}"


def _tail(comparison: Comparison, told: int) -> list[str]:
    scores = ", ".join(
        f"{a + 1}-{b + 1}: {score:.3f}"
        for (a, b), score in comparison.scores.items()
        if max(a, b) < told
    )
    left_out = told < len(comparison.parcels)
    return [
        *(["There is no room for the others; compare fewer at once."] if left_out else []),
        f"Similarity (cosine, -1 to 1): {scores or 'no two have vectors in one space'}.",
        *(source(None, space) for space in comparison.spaces),
        *(f"Note: {note}" for note in comparison.notes),
        "Next: get_parcel_state with an id tells how it stands among its kind.",
    ]


COMPARE_PARCELS = ToolDefinition(
    name="compare_parcels",
    title="Compare parcels",
    description=(
        f"Put 2 to {MOST_COMPARED} agricultural parcels side by side, each by a reliable "
        "observation of about the same date: NDVI, NDMI, trend, peak, and how similar each two "
        f"look. At most {TOKENS['concise']} tokens, detailed {TOKENS['detailed']}."
    ),
    arguments=CompareArguments,
    artifact=CompareArtifact,
    answer=_answer,
)
