"""``get_parcel_state``: what state is this parcel in, and how does it stand among its kind?"""

from collections.abc import Iterable

from retriever.history import Change, Gaps, Peak, Trend
from retriever.observed import ObservedState
from retriever.peers import MIN_PEERS, CropVote, Peer, PeerGroup, Peers, Standing
from retriever.queries import ParcelFilter
from retriever.search import ParcelSearcher
from retriever.state import ParcelFacts, ParcelState
from retriever.tools.arguments import (
    CollectionName,
    Cursor,
    Detail,
    IntervalText,
    ParcelId,
    ToolArguments,
    interval_of,
)
from retriever.tools.budget import TOKENS, fitted
from retriever.tools.cursor import Cursor as Place
from retriever.tools.cursor import check_version, question_of, read_cursor
from retriever.tools.definition import Answer, ToolDefinition
from retriever.tools.schemas import StateArtifact
from retriever.tools.wording import (
    cluster,
    crop,
    day,
    declared,
    hectares,
    index_values,
    key,
    quoted_id,
    source,
)

_SHOWN_INDICES = ("NDVI", "NDMI")
_NAMED_PEERS = 3


class StateArguments(ToolArguments):
    """Arguments of ``get_parcel_state``."""

    parcel_id: ParcelId
    collection: CollectionName = None
    datetime: IntervalText = None
    response_format: Detail = "concise"
    cursor: Cursor = None


def _answer(searcher: ParcelSearcher, arguments: StateArguments) -> Answer:
    question = question_of(arguments)
    cursor = read_cursor(arguments.cursor, question)
    where = ParcelFilter(interval=interval_of(arguments.datetime))
    state = searcher.state(arguments.parcel_id, collection=arguments.collection, where=where)
    start = check_version(cursor, len(state.observations))
    detailed = arguments.response_format == "detailed"
    shown = _latest_first(state.observations)[start:]

    def following(told: int) -> Place | None:
        return Place(start + told, len(state.observations), question) if told < len(shown) else None

    def tail(told: int) -> list[str]:
        place = following(told)
        more = f"{len(shown) - told} more observations: cursor {place}. " if place else ""
        return [
            *([] if start else _provenance(state)),
            f"{more}Next: find_similar_parcels or compare_parcels.",
        ]

    lines = [_observation(seen, detailed=detailed) for seen in shown]
    # The pages that follow hold nothing but observations.
    extras = [] if start else summary_lines(state, detailed=detailed)
    text = fitted(_head(state), lines, tail, arguments.response_format, extras=extras)
    return Answer(text, state.to_dict())


def _head(state: ParcelState) -> list[str]:
    parcel, seen = state.parcel, state.reliability
    doubt = (
        "; only these count."
        if seen.reliable
        else ": clouds hide it, or it is too small. Claim nothing about it."
    )
    return [
        f"Parcel {key(parcel.parcel_id, parcel.collection)}: "
        f"{crop(parcel.crop_name, parcel.crop_code)}, {hectares(parcel.area_m2)}. "
        f"{seen.reliable} of {seen.observations} observations reliable{doubt}",
        "Medians, unitless (NDVI greenness, NDMI moisture), latest first:",
    ]


def summary_lines(state: ParcelState, *, detailed: bool) -> list[str]:
    """What the observations come to, over time and against the parcel's kind.

    Args:
        state: The state.
        detailed: Tell every spectral index, quantiles of the peers, and gaps.

    Returns:
        Sentences, the most telling first.
    """
    return [
        *_cluster(state),
        _trend(state.trend),
        *([] if state.peers is None else _peers(state.peers, state.parcel, detailed=detailed)),
        *([] if state.peak is None else [_peak(state.peak)]),
        *([] if state.last_change is None else [_change(state.last_change, detailed=detailed)]),
        *([_gaps(state.gaps)] if detailed and state.gaps is not None else []),
    ]


def _provenance(state: ParcelState) -> list[str]:
    return [
        *([] if state.space is None else [source(state.generation, state.space)]),
        *(f"Note: {note}" for note in state.notes),
    ]


def _cluster(state: ParcelState) -> list[str]:
    seen = state.standing
    if seen is None or seen.cluster is None:
        return []
    told = cluster(seen.cluster)
    return [
        f"Cluster: {told} (cosine to its center {seen.cluster.score:.2f}, {day(seen.acquired_at)})."
    ]


def _trend(trend: Trend | None) -> str:
    if trend is None:
        return "Trend: too few observations."
    return (
        f"Trend: {trend.index} {trend.per_day:+.4f} per day over {trend.observations} "
        f"observations, {day(trend.start)} to {day(trend.end)}."
    )


def _peak(peak: Peak) -> str:
    return f"Peak: {peak.index} {peak.median:.2f} on {day(peak.acquired_at)}."


def _change(change: Change, *, detailed: bool) -> str:
    names = tuple(change.indices) if detailed else _SHOWN_INDICES
    differences = ", ".join(
        f"{name} {change.indices[name]:+.2f}" for name in names if name in change.indices
    )
    return (
        f"Change {day(change.start)} to {day(change.end)}: {differences}; cosine of embeddings "
        f"{change.score:.3f}."
    )


def _gaps(gaps: Gaps) -> str:
    return (
        f"Seen every {gaps.typical_days:.0f} days, longest gap {gaps.longest_days:.0f} from "
        f"{day(gaps.start)}."
    )


def _peers(peers: Peers, parcel: ParcelFacts, *, detailed: bool) -> list[str]:
    lines = []
    if peers.similar is not None:
        same = peers.nearby is not None and peers.nearby.parcels == peers.similar.parcels
        what = "all parcels of its crop around" if same else "its most similar parcels of its crop"
        lines.append(_group(what, peers.similar, detailed=detailed))
        if peers.nearby is not None and not same:
            what = "its nearest parcels of its crop"
            lines.append(_group(what, peers.nearby, detailed=detailed))
        lines += _closest(peers.similar, parcel.collection)
    return [*lines, _vote(peers.crop)]


def _group(what: str, group: PeerGroup, *, detailed: bool) -> str:
    n = len(group.peers)
    if group.too_few:
        return f"Against {what}: too few ({n}, at least {MIN_PEERS} needed)."
    span = day(group.start)
    if day(group.end) != span:
        span = f"{span} to {day(group.end)}"
    far = "" if group.farthest_km is None else f", within {group.farthest_km:.1f} km"
    standings = "; ".join(
        f"{name} percentile {standing.percentile:.0f} ({_spread(standing, detailed=detailed)})"
        for name, standing in group.standings.items()
    )
    return f"Against {what} ({n}, seen {span}{far}): {standings or 'not measured'}."


def _closest(group: PeerGroup, usual_collection: str) -> list[str]:
    named = [
        f"{_peer_key(peer, usual_collection)} {peer.medians['NDVI']:.2f}"
        for peer in group.peers[:_NAMED_PEERS]
        if "NDVI" in peer.medians
    ]
    return [f"Most alike (NDVI): {', '.join(named)}."] if named else []


def _peer_key(peer: Peer, usual_collection: str) -> str:
    if peer.collection == usual_collection:
        return quoted_id(peer.parcel_id)
    return key(peer.parcel_id, peer.collection)


def _spread(standing: Standing, *, detailed: bool) -> str:
    median = f"median {standing.median:.2f}"
    return f"{median}, p10 {standing.p10:.2f}, p90 {standing.p90:.2f}" if detailed else median


def _vote(vote: CropVote) -> str:
    if vote.share is None:
        return f"Crop of its look-alikes: too few ({vote.n}, at least {MIN_PEERS} needed)."
    suggested = declared(vote.suggested_name, vote.suggested_code)
    votes = f"{suggested} ({100 * vote.share:.0f} % of {vote.n})"
    if vote.declared_share is None:
        return f"Crop of its look-alikes: {votes}; it declares none."
    verdict = {
        True: "as declared",
        False: f"NOT as declared ({100 * vote.declared_share:.0f} %)",
        None: f"no clear verdict on the declared one ({100 * vote.declared_share:.0f} %)",
    }[vote.agrees]
    return f"Crop of its look-alikes: {votes}, {verdict}."


def _latest_first(observations: Iterable[ObservedState]) -> list[ObservedState]:
    """Those without a time come last."""
    dated_ones = [seen for seen in observations if seen.acquired_at is not None]
    undated = [seen for seen in observations if seen.acquired_at is None]
    return [*reversed(dated_ones), *undated]


def _observation(seen: ObservedState, *, detailed: bool) -> str:
    names = tuple(seen.medians) if detailed and seen.medians else _SHOWN_INDICES
    trust = "" if seen.reliable else ", NOT reliable"
    line = (
        f"{day(seen.acquired_at)}: {index_values(seen.medians, names)}, "
        f"{100 * seen.valid_fraction:.0f} % valid{trust}"
    )
    return f"{line}, scene {quoted_id(seen.scene)}" if detailed else line


GET_PARCEL_STATE = ToolDefinition(
    name="get_parcel_state",
    title="Get the state of a parcel",
    description=(
        "Tell what satellite images measured on one agricultural parcel and how it is doing: NDVI "
        "and NDMI date by date, trend, peak, last change, how it stands among parcels of its crop "
        "at the same time, the named cluster of look-alikes that it is in, and whether its "
        "look-alikes grow what it declares. Unreliable "
        f"observations are marked. At most {TOKENS['concise']} tokens, detailed "
        f"{TOKENS['detailed']}."
    ),
    arguments=StateArguments,
    artifact=StateArtifact,
    answer=_answer,
)
