"""The map page that browsers get at ``/``, and the files that it is made of."""

import hashlib
import html
import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from api.settings import ApiSettings

IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""The address of a file changes with its content, so that a copy never grows old."""

_MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_MAPLIBRE: Final = ("maplibre-gl.js", "maplibre-gl.css")

# The files hold no data and so need no key; what the page shows, it asks for with one.
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class StaticFiles:
    """What the page loads; no other file is served."""

    content: dict[str, bytes]
    """By name."""
    digest: str
    """Of all of them: the part of their addresses that changes with them."""


@cache
def static_files() -> StaticFiles:
    """The page's own files, and those of MapLibre as the wheel ``maplibre`` carries them."""
    own = files("api") / "web" / "static"
    content = {entry.name: entry.read_bytes() for entry in own.iterdir() if entry.is_file()}
    content |= {name: (_maplibre() / name).read_bytes() for name in _MAPLIBRE}
    digest = hashlib.sha256()
    for name in sorted(content):
        digest.update(f"{name} {len(content[name])}\n".encode() + content[name])
    return StaticFiles(content, digest.hexdigest()[:16])


@router.get("/static/{digest}/{name}", response_class=Response)
async def static_file(digest: str, name: str) -> Response:
    """A script, a style sheet or the icon of the page."""
    found = static_files()
    if digest != found.digest or name not in found.content:
        raise HTTPException(404)
    return Response(
        found.content[name],
        media_type=_MEDIA_TYPES[Path(name).suffix],
        headers={"Cache-Control": IMMUTABLE, "ETag": f'W/"{digest}"'},
    )


def page_response(settings: ApiSettings) -> Response:
    """The page, which loads the rest.

    Args:
        settings: Whether there is a basemap to offer, and which.
    """
    digest = static_files().digest
    # Addresses are relative, so that the service may live below a path of a larger site.
    values = {
        "static": f"static/{digest}",
        "basemap": settings.basemap_url,
        "basemap_attribution": getattr(settings, "basemap_attribution", ""),
    }
    text = (files("api") / "web" / "index.html").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"{{{{{name}}}}}", html.escape(value))
    return Response(
        text,
        media_type="text/html",
        headers={
            "Cache-Control": "no-cache",
            "ETag": f'W/"{hashlib.sha256(text.encode()).hexdigest()[:24]}"',
            "Content-Security-Policy": policy(settings.basemap_url),
            "Vary": "Accept",
        },
    )


def policy(basemap: str) -> str:
    """Content Security Policy of the page: nothing from elsewhere but the basemap's tiles.

    Args:
        basemap: URL template of the tiles; empty for none.
    """
    elsewhere = ""
    if basemap:
        parts = urlsplit(basemap)
        elsewhere = f" {parts.scheme}://{parts.netloc}"
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            # MapLibre works in a blob; its icons are data, and pictures of parcels blobs.
            "worker-src blob:",
            f"img-src 'self' data: blob:{elsewhere}",
            # MapLibre fetches the tiles.
            f"connect-src 'self'{elsewhere}",
            "style-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _maplibre() -> Path:
    """Where the wheel keeps MapLibre GL JS (BSD-3-Clause)."""
    # Importing the package would load plotting libraries that are not needed, and log about others.
    spec = importlib.util.find_spec("maplibre")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "srcjs"
