"""``/generations``: the published builds of the vector index."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter

from api.dependencies import KeyDep, KnownParametersDep, SearcherDep
from api.errors import problem_responses
from api.features import SPACE_SCHEMA, described
from indexer.catalog.changes import snapshot
from indexer.generations.compaction import published_now

_GENERATION_SCHEMA: Final = {
    "type": "object",
    "required": ["generation", "space", "rows", "nlist", "recall_at_10", "published_at", "current"],
    "properties": {
        "generation": {"type": "integer"},
        "space": SPACE_SCHEMA,
        "rows": {"type": "integer", "description": "Vectors that it holds."},
        "nlist": {"type": "integer", "description": "Lists of the index."},
        "nprobe": {
            "type": "integer",
            "description": "Lists that a search without a filter looks into for a recall of 0.95.",
        },
        "recall_at_10": {
            "type": "number",
            "description": "Share of the 10 nearest vectors that the index finds, measured against "
            "exact search.",
        },
        "imbalance": {
            "type": "number",
            "description": "How unevenly vectors fill the lists: 1 where all are equally long.",
        },
        "projection_recall_at_10": {
            "type": ["number", "null"],
            "description": "Share of the 10 nearest that the projection to 512 dimensions keeps.",
        },
        "precision_agreement": {
            "type": ["object", "null"],
            "description": "How well the precision agrees with fp32, measured on some tiles when "
            "the space was made; null for fp32.",
            "properties": {
                "embeddings": {"type": "integer", "description": "How many were compared."},
                "cosine_mean": {"type": "number"},
                "cosine_min": {"type": "number"},
                "neighbors_kept": {
                    "type": ["number", "null"],
                    "description": "Share of the 10 nearest that are the same; null where fewer "
                    "than 30 embeddings were compared.",
                },
            },
        },
        "published_at": {"type": "string", "format": "date-time"},
        "current": {"type": "boolean", "description": "Whether it answers searches now."},
        "since_publication": {
            "type": ["object", "null"],
            "description": "What was committed since, which is searched beside the index; null for "
            "generations that do not answer, and where the index cannot be read.",
            "required": ["rows", "removed", "due"],
            "properties": {
                "rows": {"type": "integer", "description": "Vectors added."},
                "removed": {"type": "integer", "description": "Vectors of the index removed."},
                "due": {
                    "type": "boolean",
                    "description": "Whether it is so much that the index should be built anew.",
                },
            },
        },
    },
}
_GENERATIONS_SCHEMA: Final = {
    "type": "object",
    "required": ["generations"],
    "properties": {"generations": {"type": "array", "items": _GENERATION_SCHEMA}},
}

router = APIRouter(
    tags=["generations"],
    dependencies=[KeyDep, KnownParametersDep],
    responses=problem_responses(
        HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE
    ),
)


@router.get(
    "/generations",
    responses=described("The generations, newest first", "application/json", _GENERATIONS_SCHEMA),
)
def generations(searcher: SearcherDep) -> dict[str, Any]:
    """The generations of every embedding space in use, what was measured, and what came since."""
    folder = searcher.settings.generations_dir
    with snapshot(searcher.engine) as connection:
        found = published_now(connection, folder, in_use=True)
    return {"generations": [one.to_dict() for one in found]}
