"""``/clusters``: the parcels of a collection in groups that look alike, and the groups' names."""

from http import HTTPStatus
from typing import Annotated, Final

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import KeyDep, KnownParametersDep, SearcherDep, WriteKeyDep
from api.errors import PROBLEMS_OF_READING, problem_responses
from api.features import SPACE_SCHEMA, described
from api.parameters import Text
from indexer.clusters.naming import MAX_NAME
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
    "required": ["cluster", "name", "parcels", "share", "crops", "medians", "examples"],
    "properties": {
        "cluster": {"type": "integer", "description": "1 was the largest when they were made."},
        "name": {"type": ["string", "null"], "description": "As an expert gave it."},
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
    "required": ["collection", "generation", "space", "k", "stored", "clusters", "notes"],
    "properties": {
        "collection": {"type": "string"},
        "generation": {"type": "integer", "description": "The one that was grouped."},
        "space": SPACE_SCHEMA,
        "k": {"type": "integer"},
        "stored": {
            "type": "boolean",
            "description": "Whether these are the collection's own clusters, which can be named; "
            "else they were made for this answer.",
        },
        "clustering": {
            "type": "integer",
            "description": "Of stored ones: what to send beside a name, so that it is given to one "
            "of these and of no later ones.",
        },
        "created": {"type": "string", "format": "date-time", "description": "Of stored ones."},
        "chosen": {"type": "object", "description": "Of stored ones: how k came about."},
        "unassigned": {
            "type": "array",
            "description": "Of stored ones: names of earlier clusters that no one of these "
            "certainly bears, with those that may.",
            "items": {"type": "object", "required": ["name", "reason", "candidates"]},
        },
        "clusters": {"type": "array", "items": _CLUSTER_SCHEMA},
        "members": {
            "type": "object",
            "description": "The cluster of each parcel, by parcel id; only if asked for.",
            "additionalProperties": {"type": "integer"},
        },
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}

_NAMED_SCHEMA: Final = {
    "type": "object",
    "required": ["collection", "cluster", "name"],
    "properties": {
        "collection": {"type": "string"},
        "cluster": {"type": "integer"},
        "name": {"type": ["string", "null"]},
    },
}

router = APIRouter(
    tags=["clusters"],
    dependencies=[KeyDep, KnownParametersDep],
    responses=PROBLEMS_OF_READING,
)


class ClusterName(BaseModel):
    """What a cluster is to be called."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        description="What its parcels are, in the words of whoever knows.",
        examples=["winter wheat"],
        # Its reader checks it, so that every door refuses it in the same words.
        json_schema_extra={"minLength": 1, "maxLength": MAX_NAME},
    )


ClusterNumber = Annotated[int, Path(ge=1, description="Number of a stored cluster.", examples=[1])]
GroupedCollection = Annotated[
    Text, Query(description="Collection whose parcels are grouped.", examples=["demo"])
]
ClusteringId = Annotated[
    int | None,
    Query(
        description="The clustering that the number is of, as `/clusters` told it. Where the "
        "parcels were grouped anew since, the name is then refused.",
        examples=[1],
    ),
]
_PROBLEMS_OF_NAMING: Final = problem_responses(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


async def _limiter(request: Request) -> CapacityLimiter:
    state = request.app.state
    if not hasattr(state, "clusters_limiter"):
        state.clusters_limiter = CapacityLimiter(_AT_ONCE)
    limiter: CapacityLimiter = state.clusters_limiter
    return limiter


@router.get(
    "/clusters",
    responses=described("The clusters, by number", "application/json", _CLUSTERS_SCHEMA),
)
async def clusters(
    searcher: SearcherDep,
    limiter: Annotated[CapacityLimiter, Depends(_limiter)],
    collection: GroupedCollection,
    k: Annotated[
        int | None,
        Query(
            description="Clusters to be made for this answer, no more than there are parcels. "
            "Without it, the stored clusters are told, with their names; where there are none, "
            f"{DEFAULT_CLUSTERS} are made.",
            examples=[8],
            # The searcher checks it, so that every door refuses it in the same words.
            json_schema_extra={"minimum": MIN_CLUSTERS, "maximum": MAX_CLUSTERS},
        ),
    ] = None,
    members: Annotated[
        bool, Query(description="Name the cluster of every parcel, too.", examples=[False])
    ] = False,
) -> JSONResponse:
    """Parcels grouped by the vector of their latest reliable observation.

    Those that `parcelle cluster` stored, which experts name; or, with `k`, some of the moment.
    """

    def found() -> JSONResponse:
        return JSONResponse(searcher.clusters(collection, k=k).to_dict(members=members))

    # Whoever waits for longer than a request may take is gone from the queue.
    return await to_thread.run_sync(found, limiter=limiter)


@router.put(
    "/clusters/{number}/name",
    dependencies=[WriteKeyDep],
    responses=_PROBLEMS_OF_NAMING
    | described("The name, as it is stored", "application/json", _NAMED_SCHEMA),
)
def name_cluster(
    searcher: SearcherDep,
    number: ClusterNumber,
    collection: GroupedCollection,
    given: ClusterName,
    clustering: ClusteringId = None,
) -> JSONResponse:
    """Name a stored cluster: filters, states and tools know the name from the next request on.

    Two clusters may bear one name. A key must have the scope `write`.
    """
    stored = searcher.name_cluster(collection, number, given.name, clustering=clustering)
    return JSONResponse({"collection": collection, "cluster": number, "name": stored})


@router.delete(
    "/clusters/{number}/name",
    dependencies=[WriteKeyDep],
    responses=_PROBLEMS_OF_NAMING
    | described("The cluster, without a name", "application/json", _NAMED_SCHEMA),
)
def unname_cluster(
    searcher: SearcherDep,
    number: ClusterNumber,
    collection: GroupedCollection,
    clustering: ClusteringId = None,
) -> JSONResponse:
    """Take the name of a stored cluster away, whether it has one or not.

    A key must have the scope `write`.
    """
    searcher.name_cluster(collection, number, None, clustering=clustering)
    return JSONResponse({"collection": collection, "cluster": number, "name": None})
