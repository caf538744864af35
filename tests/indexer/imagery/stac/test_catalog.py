from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from indexer.imagery.stac.catalog import (
    StacQuery,
    count_without_cloud_cover,
    find_stac_items,
    source_at_item,
)
from indexer.imagery.stac.item import StacSource
from indexer.imagery.stac.limits import Limits
from tests.indexer.imagery.stac.catalogs import catalog, item, write_catalog, write_json
from tests.indexer.imagery.stac.file_server import Fault, FileServer

JUNE = datetime(2023, 6, 1, tzinfo=UTC), datetime(2023, 7, 1, tzinfo=UTC)


def names(sources: list[StacSource]) -> list[str]:
    return [source.name for source in sources]


def kinds(
    location: str | Path,
    limits: Limits,
    **query: Any,  # noqa: ANN401 - handed on to StacQuery
) -> tuple[list[str], list[str]]:
    """Names of what was found, and kinds of what was skipped."""
    sources, skipped = find_stac_items(StacQuery(str(location), **query), limits=limits)
    return names(sources), [one.kind for one in skipped]


def dated(
    day: int, name: str | None = None, properties: dict[str, Any] | None = None
) -> dict[str, Any]:
    return item(
        name or f"day-{day:02d}", time=f"2023-06-{day:02d}T10:50:31Z", properties=properties
    )


class Seen:
    """Remembers what it was told of progress."""

    def __init__(self) -> None:
        self.done = 0
        self.is_finished = False

    def start(self, task: str, total: int, unit: str | None = None) -> None:
        self.is_finished = False

    def expect(self, total: int) -> None:
        assert total >= self.done

    def rename(self, task: str) -> None: ...

    def advance(self, done: int) -> None:
        self.done += done

    def finish(self) -> None:
        self.is_finished = True


def test_a_catalog_on_disk_gives_its_items_by_time(tmp_path: Path, limits: Limits) -> None:
    path = write_catalog(tmp_path, [dated(20), dated(3), dated(11)])
    assert kinds(path, limits) == (["day-03", "day-11", "day-20"], [])


def test_a_catalog_on_a_server_gives_its_items_by_time(
    tmp_path: Path, server: FileServer, limits: Limits
) -> None:
    write_catalog(tmp_path, [dated(20), dated(3)])
    sources, skipped = find_stac_items(StacQuery(f"{server.url}/catalog.json"), limits=limits)
    assert names(sources) == ["day-03", "day-20"]
    assert skipped == []
    assert sources[0].location == f"{server.url}/s2/day-03/day-03.json"
    assert sources[0].assets[0].href == f"{server.url}/s2/day-03/B01.tif"


def test_the_folder_of_a_catalog_stands_for_it(tmp_path: Path, limits: Limits) -> None:
    write_catalog(tmp_path, [dated(1)])
    assert kinds(tmp_path, limits) == (["day-01"], [])


@pytest.mark.parametrize("part", ["s2/collection.json", "s2/day-01/day-01.json"])
def test_a_collection_or_an_item_may_be_named_itself(
    tmp_path: Path, limits: Limits, part: str
) -> None:
    write_catalog(tmp_path, [dated(1)])
    assert kinds(tmp_path / part, limits) == (["day-01"], [])


def test_a_file_of_several_items_may_be_named(tmp_path: Path, limits: Limits) -> None:
    several = {"type": "FeatureCollection", "features": [dated(2), dated(1)]}
    assert kinds(write_json(tmp_path / "items.json", several), limits) == (["day-01", "day-02"], [])


def test_pages_of_items_on_a_server_are_followed(
    tmp_path: Path, server: FileServer, limits: Limits
) -> None:
    for number, following in ((1, "page-2"), (2, "page-3"), (3, None)):
        links = [{"rel": "next", "href": f"{following}.json"}] if following else []
        page = {"type": "FeatureCollection", "features": [dated(number)], "links": links}
        write_json(tmp_path / f"page-{number}.json", page)
    found = kinds(f"{server.url}/page-1.json", limits)
    assert found == (["day-01", "day-02", "day-03"], [])


def test_only_items_in_the_box_are_found(tmp_path: Path, limits: Limits) -> None:
    here = item("here", bbox=(4.0, 48.0, 5.0, 49.0))
    there = item("there", bbox=(14.0, 48.0, 15.0, 49.0))
    path = write_catalog(tmp_path, [here, there])
    assert kinds(path, limits, bbox=(4.9, 48.9, 5.5, 49.5)) == (["here"], [])


def test_the_footprint_decides_not_its_box(tmp_path: Path, limits: Limits) -> None:
    half = item("half", bbox=(4.0, 48.0, 5.0, 49.0))
    half["geometry"]["coordinates"] = [[[4, 48], [5, 48], [4, 49], [4, 48]]]
    path = write_catalog(tmp_path, [half])
    assert kinds(path, limits, bbox=(4.8, 48.8, 4.9, 48.9)) == ([], [])
    assert kinds(path, limits, bbox=(4.1, 48.1, 4.2, 48.2)) == (["half"], [])


def test_an_item_without_footprint_is_found_by_its_box(tmp_path: Path, limits: Limits) -> None:
    path = write_catalog(tmp_path, [{**item("boxed"), "geometry": None}])
    assert kinds(path, limits, bbox=(4.9, 48.9, 5.5, 49.5)) == (["boxed"], [])
    assert kinds(path, limits, bbox=(5.1, 48.9, 5.5, 49.5)) == ([], [])


def test_an_item_that_lies_nowhere_is_skipped_where_a_place_is_asked_for(
    tmp_path: Path, limits: Limits
) -> None:
    nowhere = {**item("nowhere"), "geometry": None, "bbox": None}
    path = write_catalog(tmp_path, [nowhere])
    assert kinds(path, limits) == (["nowhere"], [])
    assert kinds(path, limits, bbox=(4, 48, 5, 49)) == ([], ["item-invalid"])


def test_a_box_may_cross_the_180th_meridian(tmp_path: Path, limits: Limits) -> None:
    fiji = item("fiji", bbox=(177.0, -19.0, 178.0, -18.0))
    samoa = item("samoa", bbox=(-173.0, -14.0, -172.0, -13.0))
    path = write_catalog(tmp_path, [fiji, samoa, item("france")])
    assert kinds(path, limits, bbox=(176, -20, -171, -10)) == (["fiji", "samoa"], [])


def test_the_end_of_an_interval_is_outside(tmp_path: Path, limits: Limits) -> None:
    times = {
        "may": "2023-05-31T23:59:59Z",
        "first": "2023-06-01T00:00:00Z",
        "last": "2023-06-30T23:59:59Z",
        "july": "2023-07-01T00:00:00Z",
    }
    path = write_catalog(tmp_path, [item(name, time=time) for name, time in times.items()])
    assert kinds(path, limits, interval=JUNE) == (["first", "last"], [])
    assert kinds(path, limits, interval=(None, JUNE[0])) == (["may"], [])
    assert kinds(path, limits, interval=(JUNE[1], None)) == (["july"], [])


def test_an_item_of_a_span_of_time_is_found_where_the_spans_meet(
    tmp_path: Path, limits: Limits
) -> None:
    span = {
        "start_datetime": "2023-05-20T00:00:00Z",
        "end_datetime": "2023-06-05T00:00:00Z",
    }
    path = write_catalog(tmp_path, [item("span", time=None, properties=span)])
    sources, _ = find_stac_items(StacQuery(str(path), interval=JUNE), limits=limits)
    assert [source.acquired_at for source in sources] == [datetime(2023, 5, 20, tzinfo=UTC)]
    after = datetime(2023, 6, 6, tzinfo=UTC)
    assert kinds(path, limits, interval=(after, None)) == ([], [])


def test_clouded_items_are_left_out_and_those_that_do_not_say_are_kept(
    tmp_path: Path, limits: Limits
) -> None:
    said: list[dict[str, Any]] = [{"eo:cloud_cover": said} for said in (20.1, 20, "90")]
    items = [
        dated(day, properties=properties) for day, properties in enumerate([*said, {}], start=1)
    ]
    path = write_catalog(tmp_path, items)
    sources, skipped = find_stac_items(StacQuery(str(path), max_cloud=20), limits=limits)
    assert names(sources) == ["day-02", "day-03", "day-04"]
    assert skipped == []
    assert count_without_cloud_cover(sources) == 2


def test_an_item_without_time_is_skipped_by_name(tmp_path: Path, limits: Limits) -> None:
    path = write_catalog(tmp_path, [dated(1), item("timeless", time=None)])
    sources, (skipped,) = find_stac_items(StacQuery(str(path)), limits=limits)
    assert names(sources) == ["day-01"]
    assert skipped.kind == "item-invalid"
    assert "timeless" in skipped.reason
    assert skipped.source == str(tmp_path / "s2/timeless/timeless.json")


def test_an_item_that_is_linked_twice_is_found_once(tmp_path: Path, limits: Limits) -> None:
    write_json(tmp_path / "a.json", dated(1))
    write_json(tmp_path / "copy.json", dated(1))
    root = catalog("root", ("item", "a.json"), ("item", "./a.json"), ("item", "copy.json"))
    assert kinds(write_json(tmp_path / "catalog.json", root), limits) == (["day-01"], [])


def test_two_items_of_one_id_are_one_and_the_other_is_named(tmp_path: Path, limits: Limits) -> None:
    write_json(tmp_path / "a.json", dated(1, "same"))
    write_json(tmp_path / "b.json", dated(2, "same"))
    root = catalog("root", ("item", "a.json"), ("item", "b.json"))
    sources, (skipped,) = find_stac_items(
        StacQuery(str(write_json(tmp_path / "catalog.json", root))), limits=limits
    )
    assert [source.acquired_at.day for source in sources] == [1]
    assert skipped.kind == "duplicate-id"
    assert "b.json" in skipped.reason


def test_a_catalog_that_contains_itself_ends_and_is_named(tmp_path: Path, limits: Limits) -> None:
    write_json(tmp_path / "item.json", dated(1))
    inner = catalog("inner", ("child", "../catalog.json"), ("item", "../item.json"))
    write_json(tmp_path / "inner" / "catalog.json", inner)
    root = catalog("root", ("child", "inner/catalog.json"))
    found = kinds(write_json(tmp_path / "catalog.json", root), limits)
    assert found == (["day-01"], ["catalog-loop"])


def test_a_catalog_that_is_its_own_child_ends_and_is_named(
    tmp_path: Path, server: FileServer, limits: Limits
) -> None:
    write_json(tmp_path / "catalog.json", catalog("root", ("child", "catalog.json")))
    assert kinds(f"{server.url}/catalog.json", limits) == ([], ["catalog-loop"])
    assert server.count("/catalog.json") == 1


def test_two_ways_to_one_catalog_are_no_loop(tmp_path: Path, limits: Limits) -> None:
    write_json(tmp_path / "item.json", dated(1))
    write_json(tmp_path / "shared.json", catalog("shared", ("item", "item.json")))
    for name in ("left", "right"):
        write_json(tmp_path / f"{name}.json", catalog(name, ("child", "shared.json")))
    root = catalog("root", ("child", "left.json"), ("child", "right.json"))
    assert kinds(write_json(tmp_path / "catalog.json", root), limits) == (["day-01"], [])


def test_pages_that_lead_back_end_and_are_named(
    tmp_path: Path, server: FileServer, limits: Limits
) -> None:
    links = [{"rel": "next", "href": "page.json"}]
    page = {"type": "FeatureCollection", "features": [dated(1)], "links": links}
    write_json(tmp_path / "page.json", page)
    assert kinds(f"{server.url}/page.json", limits) == (["day-01"], ["catalog-loop"])


def test_catalogs_one_in_another_without_end_are_left_at_a_depth(
    tmp_path: Path, server: FileServer
) -> None:
    for number in range(6):
        links = [("child", f"{number + 1}.json"), ("item", f"item-{number}.json")]
        write_json(tmp_path / f"{number}.json", catalog(str(number), *links))
        write_json(tmp_path / f"item-{number}.json", dated(number + 1))
    found = kinds(f"{server.url}/0.json", Limits(depth=2, retries=0))
    assert found == (["day-01", "day-02"], ["catalog-limit", "catalog-limit"])


def test_more_documents_or_items_than_the_limit_are_left_out_by_name(tmp_path: Path) -> None:
    path = write_catalog(tmp_path, [dated(day) for day in range(1, 9)])
    assert kinds(path, Limits(documents=5)) == (["day-01", "day-02", "day-03"], ["catalog-limit"])
    assert kinds(path, Limits(items=2)) == (["day-01", "day-02"], ["catalog-limit"])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<html>not here</html>", "catalog-invalid"),
        (b'{"type": "Catalog", "links": [', "catalog-invalid"),
        (b"[1, 2]", "catalog-invalid"),
        (b'{"type": "Polygon"}', "catalog-invalid"),
        (b"\xff\xfe\x00", "catalog-invalid"),
        (b"[" * 100_000, "catalog-invalid"),
        (b"", "catalog-invalid"),
    ],
)
def test_what_is_no_stac_is_skipped_by_name(
    tmp_path: Path, server: FileServer, limits: Limits, content: bytes, kind: str
) -> None:
    (tmp_path / "catalog.json").write_bytes(content)
    assert kinds(tmp_path / "catalog.json", limits) == ([], [kind])
    assert kinds(f"{server.url}/catalog.json", limits) == ([], [kind])


def test_links_and_items_that_are_none_of_it_are_skipped(tmp_path: Path, limits: Limits) -> None:
    root = catalog("root")
    root["links"] = [3, {}, {"rel": "item"}, {"rel": ["item"]}, {"rel": "item", "href": 7}]
    several = {"type": "FeatureCollection", "features": [3, {"id": 5}, {"id": "x"}, dated(1)]}
    write_json(tmp_path / "several.json", several)
    root["links"].append({"rel": "item", "href": "several.json"})
    found, skipped = kinds(write_json(tmp_path / "catalog.json", root), limits)
    assert found == ["day-01"]
    assert skipped == ["href-refused"] * 2 + ["item-invalid"] * 3


def test_links_without_end_that_are_refused_end_at_the_limit(tmp_path: Path) -> None:
    links = [("child", f"s3://bucket/{number}.json") for number in range(100)]
    path = write_json(tmp_path / "catalog.json", catalog("root", *links))
    found = kinds(path, Limits(items=3))
    assert found == ([], ["href-refused"] * 3 + ["catalog-limit"])


def test_a_missing_document_does_not_keep_the_others_from_being_read(
    tmp_path: Path, server: FileServer, limits: Limits
) -> None:
    write_catalog(tmp_path, [dated(1), dated(2)])
    (tmp_path / "s2/day-01/day-01.json").unlink()
    for location in (f"{server.url}/catalog.json", tmp_path / "catalog.json"):
        assert kinds(location, limits) == (["day-02"], ["file-not-found"])


def test_a_catalog_that_is_not_there_is_skipped_by_name(
    tmp_path: Path, server: FileServer, limits: Limits
) -> None:
    for location in (f"{server.url}/catalog.json", tmp_path / "catalog.json", tmp_path):
        assert kinds(location, limits) == ([], ["file-not-found"])


def test_a_server_that_falls_silent_is_not_asked_for_every_document(
    tmp_path: Path, server: FileServer
) -> None:
    items = [dated(day) for day in range(1, 21)]
    write_catalog(tmp_path, items)
    for one in items:
        server.faults[f"/s2/{one['id']}/{one['id']}.json"] = Fault(status=503)
    found = kinds(f"{server.url}/catalog.json", Limits(retries=0))
    assert found == ([], ["unreachable"] * 6)
    assert len(server.requests) == 2 + 5


def test_progress_tells_of_each_item(tmp_path: Path) -> None:
    seen = Seen()
    path = write_catalog(tmp_path, [dated(1), item("timeless", time=None)])
    find_stac_items(StacQuery(str(path)), seen)
    assert seen.done == 2
    assert seen.is_finished


def test_an_item_is_found_again_where_it_was(
    tmp_path: Path, server: FileServer, limits: Limits
) -> None:
    path = write_catalog(tmp_path, [dated(1), dated(2)])
    for location in (path, f"{server.url}/catalog.json"):
        for source in find_stac_items(StacQuery(str(location)), limits=limits)[0]:
            assert source_at_item(source.location, source.name, limits) == source


def test_an_item_of_a_file_of_several_is_found_again(tmp_path: Path, limits: Limits) -> None:
    several = {"type": "FeatureCollection", "features": [dated(2), dated(1)]}
    path = write_json(tmp_path / "items.json", several)
    for source in find_stac_items(StacQuery(str(path)), limits=limits)[0]:
        assert source_at_item(source.location, source.name, limits) == source


def test_an_item_that_is_gone_is_not_found(
    tmp_path: Path, server: FileServer, limits: Limits
) -> None:
    path = write_json(tmp_path / "item.json", dated(1))
    assert source_at_item(str(path), "day-02", limits) is None
    assert source_at_item(str(tmp_path / "other.json"), "day-01", limits) is None
    assert source_at_item(f"{server.url}/other.json", "day-01", limits) is None
