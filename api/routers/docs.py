"""``/docs``: the routes as a page to read and to try, with nothing from elsewhere."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.exceptions import HTTPException

POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        # Swagger UI sets styles of its elements, and draws icons that its style sheet holds.
        "style-src 'self' 'unsafe-inline'",
        # The previews that it fetches are blobs.
        "img-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""Content Security Policy of the page: no script but the files beside it."""

MAX_AGE_S: Final = 3600

_MEDIA_TYPES: Final = {
    "docs.css": "text/css",
    "docs.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}
"""All that the page loads; no other file is served."""

# The page holds no data and so needs no key; what it shows, it asks of /api with one.
router = APIRouter(include_in_schema=False)


@router.get("/docs", response_class=Response)
def page() -> Response:
    """The page, which loads the rest."""
    return Response(
        (_own() / "index.html").read_bytes(),
        media_type="text/html",
        headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"},
    )


@router.get("/docs/{name}", response_class=Response)
def part(name: str) -> Response:
    """A script, a style sheet or the icon of the page."""
    if name not in _MEDIA_TYPES:
        raise HTTPException(404)
    folder = _swagger() if name.startswith("swagger-ui") else _own()
    return Response(
        (folder / name).read_bytes(),
        media_type=_MEDIA_TYPES[name],
        headers={"Cache-Control": f"public, max-age={MAX_AGE_S}"},
    )


def _own() -> Traversable:
    return files("api") / "web" / "docs"


def _swagger() -> Traversable:
    """Swagger UI as the wheel of fastapi-offline carries it (Apache-2.0)."""
    return files("fastapi_offline") / "static"
