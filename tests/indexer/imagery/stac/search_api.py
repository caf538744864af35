"""A small STAC API: landing page, collections, and a search with pages by GET or POST."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class SearchApi:
    """Serves items below ``/api``."""

    items: list[dict[str, Any]]
    page_size: int = 2
    posts: bool = True
    """Whether the search may be asked by POST; by GET it may always."""
    next_page: str = "honest"
    """``honest``; ``same``: each page leads to itself; ``fresh``: pages never end."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """The searches, without the token of a page."""

    def answer(self, url: str, method: str, path: str, body: bytes) -> bytes | None:
        """The document at a path; None if there is none."""
        parts = urlsplit(path)
        words = parts.path.strip("/").split("/")[1:]
        if not words:
            return _json(self._landing_page(url))
        if words == ["search"]:
            query = json.loads(body) if method == "POST" else _query(parts.query)
            return _json(self._page(url, method, query))
        if words[0] == "collections" and len(words) == 2:
            return _json(self._collection(url, words[1]))
        if words[0] == "collections" and len(words) == 4:
            found = [item for item in self.items if item["id"] == words[3]]
            return _json(self._with_self(url, found[0])) if found else None
        return None

    def _landing_page(self, url: str) -> dict[str, Any]:
        search = {"rel": "search", "href": f"{url}/api/search", "type": "application/geo+json"}
        links = [{"rel": "root", "href": f"{url}/api"}, {**search, "method": "GET"}]
        return {
            "type": "Catalog",
            "id": "api",
            "stac_version": "1.0.0",
            "description": "An API of a test.",
            "conformsTo": ["https://api.stacspec.org/v1.0.0/item-search"],
            "links": links + ([{**search, "method": "POST"}] if self.posts else []),
        }

    def _collection(self, url: str, name: str) -> dict[str, Any]:
        return {
            "type": "Collection",
            "id": name,
            "stac_version": "1.0.0",
            "links": [
                {"rel": "root", "href": f"{url}/api"},
                {"rel": "items", "href": f"{url}/api/collections/{name}/items"},
            ],
        }

    def _page(self, url: str, method: str, query: dict[str, Any]) -> dict[str, Any]:
        start = int(query.pop("token", 0))
        self.asked.append({**query, "method": method})
        found = [item for item in self.items if _matches(item, query)]
        if self.next_page == "fresh":
            found = [{**self.items[0], "id": f"fresh-{start}-{number}"} for number in range(2)]
            page, following = found, start + 1
        else:
            page = found[start : start + self.page_size]
            following = start if self.next_page == "same" else start + self.page_size
        links: list[dict[str, Any]] = []
        if self.next_page != "honest" or following < len(found):
            links = [_next_link(url, method, query, following)]
        return {
            "type": "FeatureCollection",
            "features": [self._with_self(url, item) for item in page],
            "numberMatched": len(found),
            "links": links,
        }

    def _with_self(self, url: str, item: dict[str, Any]) -> dict[str, Any]:
        own = f"{url}/api/collections/{item['collection']}/items/{item['id']}"
        return {**item, "links": [{"rel": "self", "href": own}]}


def _next_link(url: str, method: str, query: dict[str, Any], token: int) -> dict[str, Any]:
    if method == "POST":
        body = {**query, "token": str(token)}
        return {"rel": "next", "href": f"{url}/api/search", "method": "POST", "body": body}
    words = "&".join(f"{name}={value}" for name, value in {**query, "token": token}.items())
    return {"rel": "next", "href": f"{url}/api/search?{words}", "method": "GET"}


def _matches(item: dict[str, Any], query: Mapping[str, Any]) -> bool:
    collections = query.get("collections")
    names = collections.split(",") if isinstance(collections, str) else collections
    if names and item["collection"] not in names:
        return False
    bbox = query.get("bbox")
    if bbox:
        sides = [float(side) for side in (bbox.split(",") if isinstance(bbox, str) else bbox)]
        west, south, east, north = item["bbox"]
        if west > sides[2] or east < sides[0] or south > sides[3] or north < sides[1]:
            return False
    first, _, last = query.get("datetime", "../..").partition("/")
    moment = datetime.fromisoformat(item["properties"]["datetime"])
    after = first == ".." or datetime.fromisoformat(first) <= moment
    return after and (last == ".." or moment <= datetime.fromisoformat(last))


def _query(text: str) -> dict[str, Any]:
    return {name: values[0] for name, values in parse_qs(text).items()}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()
