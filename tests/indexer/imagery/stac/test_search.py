from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from indexer.imagery.stac.catalog import StacQuery, find_stac_items, source_at_item
from indexer.imagery.stac.item import StacSource
from indexer.imagery.stac.limits import Limits
from tests.indexer.imagery.stac.catalogs import item
from tests.indexer.imagery.stac.file_server import Fault, FileServer
from tests.indexer.imagery.stac.search_api import SearchApi


def dated(day: int) -> dict[str, Any]:
    return item(f"day-{day:02d}", time=f"2023-06-{day:02d}T10:50:31Z")


def find(
    server: FileServer,
    limits: Limits,
    path: str = "/api",
    **query: Any,  # noqa: ANN401 - handed on to StacQuery
) -> tuple[list[StacSource], list[str]]:
    sources, skipped = find_stac_items(StacQuery(server.url + path, **query), limits=limits)
    return sources, [one.kind for one in skipped]


def days(sources: list[StacSource]) -> list[int]:
    return [source.acquired_at.day for source in sources]


@pytest.mark.parametrize("posts", [True, False])
def test_an_api_is_searched_page_by_page(server: FileServer, limits: Limits, posts: bool) -> None:
    server.api = SearchApi([dated(day) for day in (9, 2, 5, 7, 3)], posts=posts)
    sources, skipped = find(server, limits)
    assert days(sources) == [2, 3, 5, 7, 9]
    assert skipped == []
    assert [asked["method"] for asked in server.api.asked] == ["POST" if posts else "GET"] * 3


@pytest.mark.parametrize("posts", [True, False])
def test_the_api_is_asked_for_place_and_time(
    server: FileServer, limits: Limits, posts: bool
) -> None:
    server.api = SearchApi([dated(1), dated(2)], posts=posts)
    interval = datetime(2023, 6, 2, tzinfo=UTC), None
    sources, _ = find(server, limits, bbox=(4.5, 48.5, 4.6, 48.6), interval=interval)
    assert days(sources) == [2]
    (asked,) = server.api.asked
    bbox = (4.5, 48.5, 4.6, 48.6)
    assert asked["bbox"] == (list(bbox) if posts else ",".join(map(str, bbox)))
    assert asked["datetime"] == "2023-06-02T00:00:00Z/.."


def test_what_the_api_sends_is_checked_all_the_same(server: FileServer, limits: Limits) -> None:
    class Careless(SearchApi):
        def _page(self, url: str, method: str, query: dict[str, Any]) -> dict[str, Any]:
            return super()._page(url, method, {})

    server.api = Careless([dated(1), dated(2)])
    interval = None, datetime(2023, 6, 2, tzinfo=UTC)
    assert days(find(server, limits, interval=interval)[0]) == [1]
    assert find(server, limits, bbox=(14, 48, 15, 49)) == ([], [])


def test_a_collection_of_an_api_is_searched_alone(server: FileServer, limits: Limits) -> None:
    other = {**dated(2), "collection": "landsat"}
    server.api = SearchApi([dated(1), other])
    sources, skipped = find(server, limits, "/api/collections/sentinel-2-l2a")
    assert days(sources) == [1]
    assert skipped == []


def test_items_of_another_instrument_are_named_once_for_each_collection(
    server: FileServer, limits: Limits
) -> None:
    others = [
        {**item(f"{name}-{number}", properties={"platform": name}), "collection": name}
        for name in ("landsat-8", "terra")
        for number in range(3)
    ]
    server.api = SearchApi([*others, dated(1)])
    sources, skipped = find_stac_items(StacQuery(f"{server.url}/api"), limits=limits)
    assert days(sources) == [1]
    assert [one.kind for one in skipped] == ["bands-unknown"] * 2
    assert "item landsat-8-0 is of landsat-8" in skipped[0].reason
    assert "2 more" in skipped[0].reason


def test_an_item_is_found_again_at_its_own_address(server: FileServer, limits: Limits) -> None:
    server.api = SearchApi([dated(1), dated(2), dated(3)])
    sources, _ = find(server, limits)
    third = sources[2]
    assert third.location == f"{server.url}/api/collections/sentinel-2-l2a/items/day-03"
    assert source_at_item(third.location, third.name, limits) == third


def test_an_item_that_names_another_server_as_its_own_is_found_where_it_came_from(
    server: FileServer, limits: Limits
) -> None:
    class Liar(SearchApi):
        def _with_self(self, url: str, item: dict[str, Any]) -> dict[str, Any]:
            return {**item, "links": [{"rel": "self", "href": "http://1.1.1.1/item"}]}

    server.api = Liar([dated(1)])
    assert find(server, limits)[0][0].location == f"{server.url}/api/search"


@pytest.mark.parametrize("posts", [True, False])
def test_pages_that_lead_to_themselves_end_and_are_named(
    server: FileServer, limits: Limits, posts: bool
) -> None:
    server.api = SearchApi([dated(1), dated(2)], next_page="same", posts=posts)
    sources, skipped = find(server, limits)
    assert days(sources) == [1, 2]
    assert skipped == ["catalog-loop"]


def test_pages_without_end_are_left_at_the_limit(server: FileServer, limits: Limits) -> None:
    server.api = SearchApi([dated(1)], next_page="fresh")
    few = replace(limits, items=7)
    sources, skipped = find(server, few)
    assert len(sources) == 7
    assert skipped == ["catalog-limit"]


def test_an_api_that_fails_for_a_while_is_asked_again(server: FileServer, limits: Limits) -> None:
    server.api = SearchApi([dated(1)])
    server.faults["/api/search"] = Fault(status=500, times=2)
    assert days(find(server, limits)[0]) == [1]


def test_what_came_before_a_page_that_fails_is_kept(server: FileServer, limits: Limits) -> None:
    class Breaking(SearchApi):
        def answer(self, url: str, method: str, path: str, body: bytes) -> bytes | None:
            if len(self.asked) == 2:
                return b'{"features": ['
            return super().answer(url, method, path, body)

    server.api = Breaking([dated(day) for day in range(1, 8)])
    sources, skipped = find(server, limits)
    assert days(sources) == [1, 2, 3, 4]
    assert skipped == ["catalog-invalid"]


@pytest.mark.parametrize(
    "page",
    [
        b"[]",
        b"3",
        b'{"features": 3, "links": 4}',
        b'{"features": [3]}',
        b'{"features": [{}], "links": [{}]}',
        b'{"features": [{}], "links": [{"rel": "next"}]}',
        b'{"features": [{}], "links": [{"rel": "next", "href": 5}]}',
        b'{"features": [{}], "links": [{"rel": "next", "href": "/api/x", "method": "DELETE"}]}',
        b'{"features": [{}], "links": [{"rel": "next", "href": "/api/x", "headers": {"a": {}}}]}',
        b'{"features": [{}], "links": [{"rel": "next", "href": "file:///etc/passwd"}]}',
    ],
)
def test_a_page_of_wrong_shape_is_skipped_by_name(
    server: FileServer, limits: Limits, page: bytes
) -> None:
    server.api = SearchApi([])
    server.faults["/api/search"] = Fault(content=page)
    sources, skipped = find(server, limits)
    assert sources == []
    assert skipped
    assert set(skipped) <= {"catalog-invalid", "item-invalid", "href-refused"}
