"""``/health``: is the service alive, and can it answer?"""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter

from api.dependencies import KeyDep, KnownParametersDep, SearcherDep
from api.errors import RequestError, problem_responses
from indexer.catalog.database import require_current_schema

router = APIRouter(prefix="/health", tags=["health"], dependencies=[KnownParametersDep])


# Asynchronous, lest it wait for a thread while all of them wait for a database.
@router.get("/live", responses=problem_responses(HTTPStatus.BAD_REQUEST))
async def live() -> dict[str, str]:
    """The process answers; says nothing of the index. Needs no key."""
    return {"status": "alive"}


@router.get(
    "/ready",
    dependencies=[KeyDep],
    responses=problem_responses(
        HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE
    ),
)
def ready(searcher: SearcherDep) -> dict[str, Any]:
    """The database answers, its schema is current, and every published generation loads."""
    require_current_schema(searcher.engine)
    generations = [
        {
            "generation": opened.manifest.generation,
            "space": opened.manifest.space,
            "rows": opened.manifest.rows,
        }
        for opened in searcher.generations()
    ]
    if not generations:
        raise RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            kind="generation-not-found",
            detail="No generation is published yet; run parcelle reindex.",
        )
    return {"status": "ready", "generations": generations}
