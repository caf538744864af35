"""Links between what the service answers, as OGC API has them."""

from typing import Final
from urllib.parse import quote

from fastapi import Request

CRS84: Final = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
"""Longitude and latitude in degrees (WGS 84), in this order."""

CONTENT_CRS: Final = {"Content-Crs": f"<{CRS84}>"}
"""The header of an answer that holds features: OGC API - Features, part 2, ogc-crs-header."""


def base_of(request: Request) -> str:
    """The address of the service as its client sees it, without a slash at the end."""
    return str(request.base_url).rstrip("/")


def collection_address(base: str, collection: str) -> str:
    """The address of a collection."""
    return f"{base}/collections/{quote(collection, safe='')}"


def link(rel: str, href: str, media_type: str, title: str | None = None) -> dict[str, str]:
    """A link; see https://docs.ogc.org/is/17-069r4/17-069r4.html#_links."""
    found = {"rel": rel, "href": href, "type": media_type}
    return found if title is None else {**found, "title": title}
