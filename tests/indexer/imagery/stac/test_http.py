import json
from dataclasses import replace

import pytest

from indexer.errors import ImageryError, NotFoundError
from indexer.imagery.stac.addresses import Home
from indexer.imagery.stac.http import PoliteIO
from indexer.imagery.stac.limits import Limits
from tests.indexer.imagery.stac.file_server import Fault, FileServer

HERE = Home(is_private=True)
DOCUMENT = {"id": "a", "text": "ä" * 3000}
TIFF = b"II*\x00" + bytes(100)


@pytest.fixture
def server_with_files(server: FileServer) -> FileServer:
    (server.folder / "a.json").write_text(json.dumps(DOCUMENT, ensure_ascii=False), "utf-8")
    (server.folder / "a.tif").write_bytes(TIFF)
    return server


def refusal(server: FileServer, limits: Limits, path: str = "/a.json") -> ImageryError:
    with pytest.raises(ImageryError) as refused:
        PoliteIO(HERE, limits).read_object(server.url + path)
    assert server.url + path in refused.value.message
    return refused.value


def test_a_document_is_read(server_with_files: FileServer, limits: Limits) -> None:
    io = PoliteIO(HERE, limits)
    assert io.read_object(server_with_files.url + "/a.json") == DOCUMENT
    assert io.read_object(str(server_with_files.folder / "a.json")) == DOCUMENT


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, times=2),
        Fault(status=503, times=1, headers={"Retry-After": "0"}),
        Fault(status=429, times=2),
        Fault(cut=0.5, times=1),
        Fault(hangs=True, times=1),
    ],
    ids=str,
)
def test_what_goes_wrong_once_or_twice_is_tried_again(
    server_with_files: FileServer, hasty: Limits, fault: Fault
) -> None:
    server_with_files.faults["/a.json"] = fault
    assert PoliteIO(HERE, hasty).read_object(server_with_files.url + "/a.json") == DOCUMENT
    assert server_with_files.count("/a.json") == (fault.times or 0) + 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(status=500), "HTTP 500"),
        (Fault(status=503), "HTTP 503"),
        (Fault(cut=0.5), "ended in the middle"),
        (Fault(hangs=True), "silent"),
        (Fault(drips=True), "no answer within 0.4 s"),
    ],
)
def test_what_goes_on_being_wrong_is_given_up_by_name(
    server_with_files: FileServer, hasty: Limits, fault: Fault, said: str
) -> None:
    server_with_files.faults["/a.json"] = fault
    error = refusal(server_with_files, hasty)
    assert error.kind == "unreachable"
    assert said in error.message
    assert server_with_files.count("/a.json") == hasty.retries + 1


@pytest.mark.parametrize("status", [400, 401, 403, 418])
def test_what_a_server_refuses_is_not_asked_again(
    server_with_files: FileServer, limits: Limits, status: int
) -> None:
    server_with_files.faults["/a.json"] = Fault(status=status)
    assert refusal(server_with_files, limits).kind == "unreachable"
    assert server_with_files.count("/a.json") == 1


def test_a_server_may_not_ask_for_an_endless_wait(
    server_with_files: FileServer, limits: Limits
) -> None:
    wait = Fault(status=503, times=1, headers={"Retry-After": "86400"})
    server_with_files.faults["/a.json"] = wait
    impatient = replace(limits, longest_delay_s=0.01)
    io = PoliteIO(HERE, impatient)
    assert io.read_object(server_with_files.url + "/a.json") == DOCUMENT


def test_nobody_listening_is_said(limits: Limits) -> None:
    with pytest.raises(ImageryError, match="cannot be reached") as refused:
        PoliteIO(HERE, limits).read_object("http://127.0.0.1:9/a.json")
    assert refused.value.kind == "unreachable"


def test_what_is_not_there_is_not_found(server_with_files: FileServer, limits: Limits) -> None:
    with pytest.raises(NotFoundError, match="404"):
        PoliteIO(HERE, limits).read_object(server_with_files.url + "/b.json")
    assert server_with_files.count("/b.json") == 1


def test_a_document_that_is_too_large_is_left_in_the_middle(
    server_with_files: FileServer, limits: Limits
) -> None:
    (server_with_files.folder / "b.json").write_bytes(b'"' + b"x" * 20_000_000 + b'"')
    small = replace(limits, document_bytes=10_000)
    assert refusal(server_with_files, small, "/b.json").kind == "catalog-limit"
    assert server_with_files.sent("/b.json") < 20_000_000
    with pytest.raises(ImageryError) as refused:
        PoliteIO(HERE, small).read_object(str(server_with_files.folder / "b.json"))
    assert refused.value.kind == "catalog-limit"


def test_redirects_are_followed(server_with_files: FileServer, limits: Limits) -> None:
    server_with_files.faults["/old.json"] = Fault(status=302, headers={"Location": "/a.json"})
    io = PoliteIO(HERE, limits)
    assert io.read_object(server_with_files.url + "/old.json") == DOCUMENT


def test_redirects_in_a_circle_end(server_with_files: FileServer, limits: Limits) -> None:
    server_with_files.faults["/a.json"] = Fault(status=301, headers={"Location": "/a.json"})
    assert refusal(server_with_files, limits).kind == "unreachable"
    assert server_with_files.count("/a.json") == 6


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://u:p@127.0.0.1/"])
def test_redirects_obey_the_rules_for_addresses(
    server_with_files: FileServer, limits: Limits, to: str
) -> None:
    server_with_files.faults["/a.json"] = Fault(status=302, headers={"Location": to})
    with pytest.raises(ImageryError) as refused:
        PoliteIO(HERE, limits).read_object(server_with_files.url + "/a.json")
    assert refused.value.kind == "href-refused"


def test_a_stranger_is_not_followed_to_this_machine(
    server_with_files: FileServer, limits: Limits
) -> None:
    with pytest.raises(ImageryError) as refused:
        PoliteIO(Home(), limits).read_object(server_with_files.url + "/a.json")
    assert refused.value.kind == "href-refused"
    assert server_with_files.requests == []


def test_a_geotiff_is_asked_for_its_first_bytes_only(
    server_with_files: FileServer, limits: Limits
) -> None:
    server_with_files.faults["/old.tif"] = Fault(status=307, headers={"Location": "/a.tif"})
    settled = PoliteIO(HERE, limits).settle(server_with_files.url + "/old.tif")
    assert settled == server_with_files.url + "/a.tif"
    assert server_with_files.sent() == 4


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(content=b"<html>..."), "no GeoTIFF"),
        (Fault(content=b"<VRTDataset>"), "no GeoTIFF"),
        (Fault(ignores_ranges=True), "parts of files"),
    ],
)
def test_what_is_no_geotiff_or_comes_only_as_a_whole_is_refused(
    server_with_files: FileServer, limits: Limits, fault: Fault, said: str
) -> None:
    server_with_files.faults["/a.tif"] = fault
    with pytest.raises(ImageryError, match=said) as refused:
        PoliteIO(HERE, limits).settle(server_with_files.url + "/a.tif")
    assert refused.value.kind == "unreadable"
