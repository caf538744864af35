"""Entity tags, 304, HEAD and compression, which meet in one answer."""

import gzip
import hashlib
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.testclient import TestClient
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Message

from api.errors import RequestError, add_error_handlers
from api.middleware.conditional import ConditionalAnswers, entity_tag
from api.middleware.head import HeadAsGet

LONG = {"numbers": list(range(2000))}
OWN = '"own"'


def application() -> FastAPI:
    app = FastAPI()
    add_error_handlers(app)
    content = {"value": 1}

    @app.get("/json")
    def json() -> dict[str, int]:
        return content

    @app.post("/json")
    def change() -> dict[str, int]:
        content["value"] += 1
        return content

    @app.get("/geojson")
    def geojson() -> Response:
        return Response(b"{}", media_type="application/geo+json")

    @app.get("/long")
    def long() -> JSONResponse:
        return JSONResponse(LONG)

    @app.get("/picture.png")
    def picture() -> Response:
        headers = {"ETag": OWN, "Cache-Control": "max-age=60", "Content-Language": "en"}
        return Response(b"\x89PNG" + bytes(4000), media_type="image/png", headers=headers)

    @app.get("/text")
    def text() -> Response:
        return Response("text", media_type="text/plain")

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"[1,", b"2]"]), media_type="application/json")

    @app.get("/refused")
    def refused() -> None:
        raise RequestError(HTTPStatus.BAD_REQUEST, kind="wrong", detail="No.")

    return app


def layered(*, private: bool = False) -> TestClient:
    inner = ConditionalAnswers(application(), private=private)
    return TestClient(HeadAsGet(GZipMiddleware(inner, minimum_size=1024)))


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with layered() as client:
        yield client


# Tags ----------------------------------------------------------------------------------------


def test_the_tag_is_a_weak_digest_of_the_body(client: TestClient) -> None:
    response = client.get("/json")
    digest = hashlib.sha256(b'{"value":1}').hexdigest()[:24]
    assert response.content == b'{"value":1}'
    assert response.headers["etag"] == f'W/"{digest}"' == entity_tag(b'{"value":1}')


@pytest.mark.parametrize("path", ["/json", "/geojson", "/long"])
def test_json_is_tagged_and_asked_for_again(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["etag"].startswith('W/"')
    assert headers["cache-control"] == "no-cache"


def test_where_keys_are_set_no_shared_cache_keeps_an_answer() -> None:
    headers = layered(private=True).get("/json").headers
    assert headers["cache-control"] == "private, no-cache"


def test_a_route_keeps_its_own_tag_and_cache_control(client: TestClient) -> None:
    headers = client.get("/picture.png").headers
    assert headers["etag"] == OWN
    assert headers["cache-control"] == "max-age=60"


@pytest.mark.parametrize("path", ["/text", "/stream", "/refused", "/nowhere"])
def test_streams_other_media_and_problems_get_no_tag(client: TestClient, path: str) -> None:
    assert "etag" not in client.get(path).headers


def test_a_stream_passes_as_it_is(client: TestClient) -> None:
    assert client.get("/stream", headers={"If-None-Match": "*"}).json() == [1, 2]


def test_problems_are_not_kept(client: TestClient) -> None:
    assert client.get("/nowhere").headers["cache-control"] == "no-store"


# If-None-Match -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", '"x", {}', '{},W/"x"', '"a, b" , {}', "*"])
@pytest.mark.parametrize("path", ["/json", "/long", "/picture.png"])
def test_who_has_it_gets_304_without_a_body(client: TestClient, path: str, form: str) -> None:
    first = client.get(path)
    second = client.get(path, headers={"If-None-Match": form.format(first.headers["etag"])})
    assert second.status_code == 304
    assert second.content == b""
    assert second.headers["etag"] == first.headers["etag"]
    assert second.headers["cache-control"] == first.headers["cache-control"]
    assert second.headers.get("vary", "") in (first.headers.get("vary"), "Accept-Encoding")
    assert not {name for name in second.headers if name.startswith("content-")}


def test_weak_and_strong_tags_are_compared_alike(client: TestClient) -> None:
    strong = client.get("/json").headers["etag"].removeprefix("W/")
    assert client.get("/json", headers={"If-None-Match": strong}).status_code == 304
    assert client.get("/picture.png", headers={"If-None-Match": f"W/{OWN}"}).status_code == 304


def test_tags_may_stand_in_several_headers(client: TestClient) -> None:
    tag = client.get("/json").headers["etag"]
    headers = [("If-None-Match", '"x"'), ("If-None-Match", tag)]
    assert client.get("/json", headers=headers).status_code == 304


@pytest.mark.parametrize("given", ['"other"', 'W/"other"', "", "garbage", '"', "own", '"*"'])
def test_who_has_something_else_gets_the_whole(client: TestClient, given: str) -> None:
    for path in ("/json", "/picture.png"):
        response = client.get(path, headers={"If-None-Match": given})
        assert response.status_code == 200
        assert response.content


def test_a_changed_answer_has_another_tag() -> None:
    client = layered()
    tag = client.get("/json").headers["etag"]
    client.post("/json")
    changed = client.get("/json", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.json() == {"value": 2}
    assert changed.headers["etag"] != tag


def test_a_post_is_never_304() -> None:
    response = layered().post("/json", headers={"If-None-Match": "*"})
    assert response.status_code == 200
    assert "etag" not in response.headers


def test_an_error_is_never_304(client: TestClient) -> None:
    assert client.get("/refused", headers={"If-None-Match": "*"}).status_code == 400


# Compression ---------------------------------------------------------------------------------


def test_a_long_answer_is_compressed_under_the_same_tag(client: TestClient) -> None:
    plain = client.get("/long", headers={"Accept-Encoding": "identity"})
    packed = client.get("/long", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.json() == plain.json() == LONG
    assert packed.headers["etag"] == plain.headers["etag"]
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("path", ["/json", "/picture.png"])
def test_short_answers_and_pictures_are_not_compressed(client: TestClient, path: str) -> None:
    headers = client.get(path, headers={"Accept-Encoding": "gzip"}).headers
    assert "content-encoding" not in headers


# HEAD ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/json", "/long", "/picture.png", "/stream", "/nowhere"])
def test_head_has_the_headers_of_get_and_no_body(client: TestClient, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert head.status_code == get.status_code
    assert head.headers == get.headers
    assert head.content == b""


async def test_the_body_of_head_does_not_even_reach_the_server() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "HEAD", "path": "/", "headers": []}
    await HeadAsGet(PlainTextResponse("five!"))(scope, receive, send)
    assert (b"content-length", b"5") in sent[0]["headers"]
    assert [message.get("body") for message in sent] == [None, b""]


def test_head_is_conditional_as_well(client: TestClient) -> None:
    tag = client.head("/json").headers["etag"]
    assert client.head("/json", headers={"If-None-Match": tag}).status_code == 304


def test_compression_unpacks_to_what_was_packed(client: TestClient) -> None:
    with client.stream("GET", "/long", headers={"Accept-Encoding": "gzip"}) as response:
        packed = b"".join(response.iter_raw())
    assert gzip.decompress(packed) == client.get("/long").content
