"""``/`` and ``/api``: what the service is, and how to ask it."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from api.dependencies import KeyDep, KnownParametersDep
from api.errors import problem_responses

OPENAPI_JSON: Final = "application/vnd.oai.openapi+json;version=3.1"

router = APIRouter(tags=["landing page"], dependencies=[KeyDep, KnownParametersDep])


@router.get("/", responses=problem_responses(HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED))
async def landing(request: Request) -> dict[str, Any]:
    """Title, description, and links to what there is."""
    base = str(request.base_url).rstrip("/")
    return {
        "title": request.app.title,
        "description": request.app.description,
        "links": [
            _link("self", f"{base}/", "application/json", "This page"),
            _link("service-desc", f"{base}/api", OPENAPI_JSON, "The routes, as OpenAPI"),
            _link("conformance", f"{base}/conformance", "application/json", "OGC API classes"),
            _link("data", f"{base}/collections", "application/json", "The collections"),
            _link("status", f"{base}/health/ready", "application/json", "What answers now"),
        ],
    }


@router.get("/api", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi(), media_type=OPENAPI_JSON)


def _link(rel: str, href: str, media_type: str, title: str) -> dict[str, str]:
    return {"rel": rel, "href": href, "type": media_type, "title": title}
