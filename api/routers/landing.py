"""``/``: what the service is, and how to ask it."""

from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from api.dependencies import KnownParametersDep, require_key
from api.errors import problem_responses
from api.links import base_of, link
from api.openapi import OPENAPI_JSON
from api.routers.page import page_response

_LANDING_SCHEMA: Final = {
    "type": "object",
    "required": ["title", "links"],
    "properties": {
        "title": {"type": "string"},
        "description": {"type": "string"},
        "links": {"type": "array", "items": {"type": "object"}},
    },
}

_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The links, or the map page",
        "content": {
            "application/json": {"schema": _LANDING_SCHEMA},
            "text/html": {"schema": {"type": "string"}},
        },
    }
}

router = APIRouter(tags=["landing page"], dependencies=[KnownParametersDep])

Form = Annotated[
    Literal["html", "json"] | None,
    Query(
        alias="f",
        description="`html` for the map page, `json` for the links; without it, the `Accept` "
        "header tells.",
        examples=["json"],
    ),
]


async def _wants_page(request: Request, form: Form = None) -> bool:
    """Whether to answer with the page. It holds no data; all else needs a key."""
    if form == "html" or (form is None and prefers_html(request.headers.get("accept", ""))):
        return True
    await require_key(request)
    return False


@router.get(
    "/",
    response_class=Response,
    responses=_ANSWERS | problem_responses(HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED),
)
async def landing(request: Request, wants_page: Annotated[bool, Depends(_wants_page)]) -> Response:
    """A map for browsers; for programs title, description, and links to what there is."""
    if wants_page:
        return page_response(request.app.state.settings)
    return JSONResponse(_links(request), headers={"Vary": "Accept"})


def prefers_html(accept: str) -> bool:
    """Whether an ``Accept`` header puts HTML above JSON (RFC 9110, section 12.5.1).

    Args:
        accept: As it was sent; who accepts both alike is taken for a program.
    """
    return _quality(accept, "text/html") > _quality(accept, "application/json")


def _quality(accept: str, media_type: str) -> float:
    """Weight that a header gives a media type, 0 to 1: that of the most specific range."""
    ranges = [media_type, f"{media_type.partition('/')[0]}/*", "*/*"]
    found: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        # Whatever else parameters say, these two types have no variants here.
        weights = [one[2:] for one in parameters if one.startswith("q=")]
        found[name] = _weight(weights[0]) if weights else 1.0
    return next((found[one] for one in ranges if one in found), 0.0)


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def _links(request: Request) -> dict[str, Any]:
    base = base_of(request)
    return {
        "title": request.app.title,
        "description": request.app.description,
        "links": [
            link("self", f"{base}/", "application/json", "This page"),
            link("service-desc", f"{base}/api", OPENAPI_JSON, "The routes, as OpenAPI"),
            link("service-doc", f"{base}/docs", "text/html", "The routes, to read and try"),
            link("conformance", f"{base}/conformance", "application/json", "OGC API classes"),
            link("data", f"{base}/collections", "application/json", "The collections"),
            link("status", f"{base}/health/ready", "application/json", "What answers now"),
        ],
    }
