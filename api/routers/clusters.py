"""``/clusters``: the parcels of a collection in groups that look alike."""

from typing import Annotated, Final

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from api.dependencies import KeyDep, KnownParametersDep, SearcherDep
from api.errors import PROBLEMS_OF_READING
from api.features import described
from api.parameters import Text
from retriever.clusters import DEFAULT_CLUSTERS, MAX_CLUSTERS, MIN_CLUSTERS

_AT_ONCE = 4
"""Threads that may wait for clusters. They are found one after the other, in seconds each for a
large collection; without a bound, those who wait would leave no thread to any other request."""

_CROP_SCHEMA: Final = {
    "type": "object",
    "required": ["crop:code", "crop:name", "parcels", "share"],
    "properties": {
        "crop:code": {"type": ["string", "null"]},
        "crop:name": {"type": ["string", "null"]},
        "parcels": {"type": "integer"},
        "share": {"type": "number", "description": "Of the cluster's parcels."},
    },
}
_CLUSTER_SCHEMA: Final = {
    "type": "object",
    "required": ["cluster", "parcels", "share", "crops", "medians", "examples"],
    "properties": {
        "cluster": {"type": "integer", "description": "1 is the largest."},
        "parcels": {"type": "integer"},
        "share": {"type": "number", "description": "Of all parcels that were grouped."},
        "crops": {"type": "array", "items": _CROP_SCHEMA},
        "medians": {
            "type": "object",
            "description": "Median over the parcels of each spectral index.",
            "additionalProperties": {"type": "number"},
        },
        "examples": {
            "type": "array",
            "description": "Ids of the parcels closest to the center.",
            "items": {"type": "string"},
        },
    },
}
_CLUSTERS_SCHEMA: Final = {
    "type": "object",
    "required": ["collection", "generation", "space", "k", "clusters", "notes"],
    "properties": {
        "collection": {"type": "string"},
        "generation": {"type": "integer"},
        "space": {"type": "object"},
        "k": {"type": "integer"},
        "clusters": {"type": "array", "items": _CLUSTER_SCHEMA},
        "members": {
            "type": "object",
            "description": "The cluster of each parcel, by parcel id; only if asked for.",
            "additionalProperties": {"type": "integer"},
        },
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}

router = APIRouter(
    tags=["clusters"],
    dependencies=[KeyDep, KnownParametersDep],
    responses=PROBLEMS_OF_READING,
)


async def _limiter(request: Request) -> CapacityLimiter:
    state = request.app.state
    if not hasattr(state, "clusters_limiter"):
        state.clusters_limiter = CapacityLimiter(_AT_ONCE)
    limiter: CapacityLimiter = state.clusters_limiter
    return limiter


@router.get(
    "/clusters",
    responses=described("The clusters, largest first", "application/json", _CLUSTERS_SCHEMA),
)
async def clusters(
    searcher: SearcherDep,
    limiter: Annotated[CapacityLimiter, Depends(_limiter)],
    collection: Annotated[
        Text, Query(description="Collection whose parcels are grouped.", examples=["demo"])
    ],
    k: Annotated[
        int,
        Query(
            description="Clusters wanted, no more than there are parcels.",
            examples=[8],
            # The searcher checks it, so that every door refuses it in the same words.
            json_schema_extra={"minimum": MIN_CLUSTERS, "maximum": MAX_CLUSTERS},
        ),
    ] = DEFAULT_CLUSTERS,
    members: Annotated[
        bool, Query(description="Name the cluster of every parcel, too.", examples=[False])
    ] = False,
) -> JSONResponse:
    """Parcels grouped by K-means on the vector of their latest reliable observation."""

    def found() -> JSONResponse:
        return JSONResponse(searcher.clusters(collection, k=k).to_dict(members=members))

    # Whoever waits for longer than a request may take is gone from the queue.
    return await to_thread.run_sync(found, limiter=limiter)
