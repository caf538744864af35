"""Which items of a catalog are in a place, at a time, under a clear enough sky.

A catalog may be a file or an address: a static catalog or collection, whose links are followed; one
item, or a collection of items (a GeoJSON FeatureCollection); or the landing page or a collection of
a STAC API, which is searched. Whatever a stranger's catalog holds, reading it ends.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pystac_client.item_search import ItemSearch

from indexer.errors import ImageryError, NotFoundError, ParcelleError
from indexer.imagery.stac.addresses import Home, host_of, is_private_host, is_url, resolve, shown
from indexer.imagery.stac.dialects import read_item
from indexer.imagery.stac.http import PoliteIO
from indexer.imagery.stac.item import StacSource
from indexer.imagery.stac.limits import HASTY, PATIENT, Limits
from indexer.imagery.stac.places import Bbox, area, footprint
from indexer.progress import Progress, Silent
from indexer.skipped import Skipped

_PAGE_ITEMS: Final = 100
# Documents one after another that a server does not send, however often it is asked.
_MAX_IN_VAIN: Final = 5
_CATALOGS = ("Catalog", "Collection")

Interval = tuple[datetime | None, datetime | None]


@dataclass(frozen=True)
class StacQuery:
    """What is wanted of a catalog."""

    location: str
    """Address or path of a catalog, a collection, items, or an API."""
    bbox: Bbox | None = None
    """West, south, east, north in degrees; west is greater than east across the 180th meridian."""
    interval: Interval | None = None
    """Aware times, start included, end excluded; None is open."""
    max_cloud: float | None = None
    """Most ``eo:cloud_cover`` in percent; items that do not say it are kept."""


def find_stac_items(
    query: StacQuery, progress: Progress | None = None, limits: Limits = PATIENT
) -> tuple[list[StacSource], list[Skipped]]:
    """The items of a catalog that a query wants.

    Args:
        query: Where, when, under which sky.
        progress: Is told of each item that was looked at.
        limits: Of time and size; beyond them the rest is left out by name.

    Returns:
        The items by time and id, each once, and what was left out: documents that cannot be had
        or understood, items that cannot be used, catalogs that contain themselves.
    """
    progress = progress or Silent()
    progress.start("Looking through the catalog", 0, "items")
    try:
        finder = _Finder(query, progress, limits)
        finder.run()
    finally:
        progress.finish()
    found = sorted(finder.found.values(), key=lambda one: (one.acquired_at, one.name, one.location))
    return found, finder.skipped


def count_without_cloud_cover(sources: list[StacSource]) -> int:
    """Items that do not say how cloudy they are, and are kept by any ``max_cloud``."""
    return sum(source.cloud_cover_percent is None for source in sources)


def source_at_item(location: str, name: str, limits: Limits = HASTY) -> StacSource | None:
    """An item that ``find_stac_items`` found before; None if it is gone.

    Args:
        location: Address or path of the document that held it.
        name: The item's id.
        limits: Of time and size.

    Raises:
        ImageryError: If the document cannot be had now, or the item is no longer usable.
    """
    try:
        home = home_of(location, limits)
        document = PoliteIO(home, limits).read_object(location)
    except NotFoundError:
        return None
    for item in _items(document):
        if item.get("id") == name:
            return read_item(item, location, home)
    return None


def home_of(location: str, limits: Limits = PATIENT) -> Home:
    """Where a catalog lies, which decides what it may name.

    A document on disk that says to belong to a catalog in a folder above it lies there.

    Raises:
        NotFoundError, ImageryError: If a document on disk cannot be read.
    """
    if is_url(location):
        return Home(is_private=is_private_host(host_of(location)))
    path = Path(location).resolve()
    io = PoliteIO(Home(path.parent, is_private=True), limits)
    for link in _links(io.read_object(str(path)), "root"):
        href = link.get("href")
        if not isinstance(href, str) or is_url(href):
            continue
        try:
            root = (path.parent / href).resolve()
            is_above = path.is_relative_to(root.parent) and root != path
            if is_above and io.read_object(str(root)).get("type") in _CATALOGS:
                return Home(root.parent, is_private=True)
        except (OSError, RuntimeError, ValueError, ParcelleError):
            continue
    return Home(path.parent, is_private=True)


def _check_is_path(location: str) -> None:
    if "://" in location:
        raise ImageryError(
            f"{location}: catalogs are read at http:// and https:// addresses and on disk; name "
            "one of these.",
            kind="href-refused",
        )


@dataclass(frozen=True)
class _Visit:
    """A document that is to be read, and the documents that led there."""

    location: str
    ancestors: tuple[str, ...] = ()


class _Finder:
    """Follows links depth first, so that what is left to read stays short."""

    def __init__(self, query: StacQuery, progress: Progress, limits: Limits) -> None:
        self.found: dict[tuple[str | None, str], StacSource] = {}
        self.skipped: list[Skipped] = []
        self._query = query
        self._progress = progress
        self._limits = limits
        self._seen: set[str] = set()
        self._looked_at = 0
        self._foreign: dict[str, list[tuple[str, ParcelleError]]] = {}
        """Items that hold no bands of Sentinel, by collection; an API may have many of them."""
        self._area = None if query.bbox is None else area(query.bbox)

    def run(self) -> None:
        """Look at everything, or at as much as the limits allow."""
        self._follow()
        for (location, error), *more in self._foreign.values():
            self._skip(location, error, more=len(more))

    def _follow(self) -> None:
        location = self._query.location
        try:
            if not is_url(location):
                _check_is_path(location)
                path = Path(location).resolve()
                location = str(path / "catalog.json" if path.is_dir() else path)
            self._home = home_of(location, self._limits)
        except ParcelleError as error:
            self._skip(location, error)
            return
        self._io = PoliteIO(self._home, self._limits)
        pending, in_vain = [_Visit(location)], 0
        while pending:
            self._expect(self._looked_at + len(pending))
            visit = pending.pop()
            try:
                pending.extend(reversed(self._visit(visit)))
            except _EnoughError as enough:
                self._skip(location, enough.error)
                return
            except ParcelleError as error:
                self._skip(visit.location, error)
                in_vain = in_vain + 1 if error.kind == "unreachable" else 0
                if in_vain >= _MAX_IN_VAIN:
                    self._skip(location, _given_up(location, len(pending)))
                    return
            else:
                in_vain = 0

    def _visit(self, visit: _Visit) -> list[_Visit]:
        """Read a document; what it leads to."""
        location = visit.location
        if location in visit.ancestors:
            raise ImageryError(
                f"{shown(location)}: the catalog contains itself, through "
                f"{shown(visit.ancestors[-1])}; it is read once.",
                kind="catalog-loop",
            )
        if location in self._seen:
            return []
        if len(visit.ancestors) > self._limits.depth:
            raise ImageryError(
                f"{shown(location)}: lies more than {self._limits.depth} catalogs deep; name it "
                "itself.",
                kind="catalog-limit",
            )
        self._count_document()
        self._seen.add(location)
        document = self._io.read_object(location)
        if document.get("type") in ("Feature", "FeatureCollection"):
            is_page = document["type"] == "FeatureCollection"
            for item in _items(document):
                own = _self_link(item, location, self._home) if is_page else location
                self._look_at(item, location, own)
            return self._next_page(document, visit) if is_page and is_url(location) else []
        if not _is_catalog(document):
            raise ImageryError(
                f"{shown(location)}: is neither a STAC catalog nor an item; name one.",
                kind="catalog-invalid",
            )
        search = self._search_of(document, location)
        if search is not None:
            self._search(*search)
            return []
        return self._children(document, visit)

    def _children(self, document: Mapping[str, Any], visit: _Visit) -> list[_Visit]:
        ancestors = (*visit.ancestors, visit.location)
        children = []
        for link in _links(document, "child", "item"):
            try:
                href = resolve(link.get("href"), visit.location, self._home)
            except ImageryError as error:
                self._skip(visit.location, error)
                if len(self.skipped) >= self._limits.items:
                    raise self._enough_items(visit.location) from None
            else:
                children.append(_Visit(href, ancestors))
        return children

    def _next_page(self, document: Mapping[str, Any], visit: _Visit) -> list[_Visit]:
        """The page after one of ``/collections/{id}/items``."""
        for link in _links(document, "next"):
            if str(link.get("method", "GET")).upper() != "GET":
                raise ImageryError(
                    f"{shown(visit.location)}: is the first page of a search; name the API.",
                    kind="catalog-invalid",
                )
            href = resolve(link.get("href"), visit.location, self._home)
            if href in self._seen:
                raise ImageryError(
                    f"{shown(visit.location)}: its pages lead back to one that was read; the rest "
                    "is left out.",
                    kind="catalog-loop",
                )
            return [_Visit(href, visit.ancestors)]
        return []

    def _search_of(
        self, document: Mapping[str, Any], location: str
    ) -> tuple[str, str, list[str]] | None:
        """Address and method of the search of an API, and the collections; None if it is none."""
        if not is_url(location):
            return None
        collections: list[str] = []
        if document.get("type") == "Collection" and any(_links(document, "items")):
            name = document.get("id")
            root = next(_links(document, "root"), None)
            if not isinstance(name, str) or root is None:
                return None
            collections = [name]
            location = resolve(root.get("href"), location, self._home)
            document = self._io.read_object(location)
        links = list(_links(document, "search"))
        if not links:
            return None
        posts = [link for link in links if str(link.get("method", "")).upper() == "POST"]
        href = resolve((posts or links)[0].get("href"), location, self._home)
        return href, "POST" if posts else "GET", collections

    def _search(self, url: str, method: str, collections: list[str]) -> None:
        """Let the API search for place and time; what comes is checked all the same."""
        start, end = self._query.interval or (None, None)
        search = ItemSearch(
            url,
            method=method,
            stac_io=PoliteIO(self._home, self._limits, once=True),
            limit=_PAGE_ITEMS,
            bbox=self._query.bbox,
            datetime=[start, end] if start or end else None,
            collections=collections or None,
        )
        pages = search.pages_as_dicts()
        while (page := _next(pages, url)) is not None:
            self._expect(page.get("numberMatched"))
            for item in _items(page):
                self._look_at(item, url, _self_link(item, url, self._home))

    def _look_at(self, item: Mapping[str, Any], document: str, location: str) -> None:
        """Keep an item that is wanted; name one that cannot be used."""
        if self._looked_at >= self._limits.items:
            raise self._enough_items(document)
        self._looked_at += 1
        self._progress.advance(1)
        try:
            source = read_item(item, location, self._home)
            if self._is_wanted(source, item):
                self._keep(source)
        except ParcelleError as error:
            if error.kind == "bands-unknown":
                self._foreign.setdefault(str(item.get("collection")), []).append((location, error))
            else:
                self._skip(location, error)

    def _keep(self, source: StacSource) -> None:
        key = source.collection, source.name
        before = self.found.setdefault(key, source)
        if before != replace(source, location=before.location):
            raise ImageryError(
                f"{shown(source.location)}: item {source.name} is another one than that of the "
                f"same id at {shown(before.location)}; ids must be unique.",
                kind="duplicate-id",
            )

    def _is_wanted(self, source: StacSource, item: Mapping[str, Any]) -> bool:
        start, end = self._query.interval or (None, None)
        if (start and source.ended_at < start) or (end and source.acquired_at >= end):
            return False
        most, cloud = self._query.max_cloud, source.cloud_cover_percent
        if most is not None and cloud is not None and cloud > most:
            return False
        return self._area is None or self._area.intersects(footprint(item, source))

    def _enough_items(self, document: str) -> "_EnoughError":
        return _EnoughError(
            ImageryError(
                f"{shown(document)}: the catalog has more than {self._limits.items} items; give a "
                "smaller --bbox or --datetime, or name a part of it.",
                kind="catalog-limit",
            )
        )

    def _expect(self, items: object) -> None:
        if isinstance(items, int):
            self._progress.expect(max(self._looked_at, min(items, self._limits.items)))

    def _count_document(self) -> None:
        if len(self._seen) >= self._limits.documents:
            raise _EnoughError(
                ImageryError(
                    f"{shown(self._query.location)}: the catalog has more than "
                    f"{self._limits.documents} documents; name a part of it.",
                    kind="catalog-limit",
                )
            )

    def _skip(self, location: str, error: ParcelleError, more: int = 0) -> None:
        reason = f"{error.message} So are {more} more of its collection." if more else error.message
        self.skipped.append(Skipped(shown(location), error.kind, reason))


class _EnoughError(Exception):
    """The catalog is larger than what is read of one."""

    def __init__(self, error: ImageryError) -> None:
        super().__init__(error.message)
        self.error = error


def _given_up(location: str, left: int) -> ImageryError:
    return ImageryError(
        f"{shown(location)}: {_MAX_IN_VAIN} documents one after another could not be had; at "
        f"least {left} more were not asked for. Try again later.",
        kind="unreachable",
    )


def _next(pages: Iterator[dict[str, Any]], url: str) -> dict[str, Any] | None:
    """The next page of a search; the client expects pages to be well formed."""
    try:
        return next(pages, None)
    except ParcelleError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ImageryError(
            f"{shown(url)}: a page of the search cannot be understood "
            f"({type(error).__name__}); the rest is left out.",
            kind="catalog-invalid",
        ) from None


def _items(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if document.get("type") == "Feature":
        return [document]
    features = document.get("features")
    found = features if isinstance(features, list) else []
    return [one if isinstance(one, dict) else {} for one in found]


def _links(document: Mapping[str, Any], *relations: str) -> Iterator[Mapping[str, Any]]:
    links = document.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") in relations:
            yield link


def _is_catalog(document: Mapping[str, Any]) -> bool:
    # Before STAC 1.0 a catalog had no type.
    return document.get("type") in _CATALOGS or "stac_version" in document


def _self_link(item: Mapping[str, Any], document: str, home: Home) -> str:
    """Where an item of a page can be found again: its own address on the same server."""
    if item.get("type") != "Feature" or not is_url(document):
        return document
    for link in _links(item, "self"):
        try:
            href = resolve(link.get("href"), document, home)
        except ImageryError:
            continue
        if host_of(href) == host_of(document):
            return href
    return document
