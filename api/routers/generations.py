"""``/generations``: the published builds of the vector index."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter

from api.dependencies import KeyDep, KnownParametersDep, SearcherDep
from api.errors import problem_responses
from api.features import SPACE_SCHEMA, described
from indexer.catalog.reading import list_generations

_GENERATION_SCHEMA: Final = {
    "type": "object",
    "required": ["generation", "space", "rows", "nlist", "recall_at_10", "published_at", "current"],
    "properties": {
        "generation": {"type": "integer"},
        "space": SPACE_SCHEMA,
        "rows": {"type": "integer", "description": "Vectors that it holds."},
        "nlist": {"type": "integer", "description": "Lists of the index."},
        "nprobe": {"type": "integer", "description": "Lists that a search looks into."},
        "recall_at_10": {
            "type": "number",
            "description": "Share of the 10 nearest vectors that the index finds, measured against "
            "exact search.",
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
    """The generations of every embedding space in use, with what was measured of each."""
    with searcher.engine.connect() as connection:
        found = list_generations(connection, in_use=True)
    return {"generations": [one.to_dict() for one in found]}
