import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from api.app import create_app
from api.routers.previews import MAX_AGE_S
from indexer.landscape import Landscape
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from retriever.search import ParcelSearcher
from tests.api.test_app import api_settings
from tests.retriever.planted import Seen, at_cosine, plant, settings_in

PREVIEW = "/collections/demo/items/demo-003/preview.png"


@pytest.fixture(scope="module")
def client(demo_index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings(demo_index))) as client:
        yield client


def picture(client: TestClient, path: str = PREVIEW) -> Any:  # noqa: ANN401 - an array
    """The decoded picture."""
    response = client.get(path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(response.content)) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
        return np.array(image)


def test_a_preview_is_what_the_searcher_draws(client: TestClient, demo_index: Settings) -> None:
    searcher = ParcelSearcher.open(demo_index)
    try:
        shown = searcher.preview("demo-003", collection="demo", style="false-color", size_px=100)
        expected = shown.draw()
    finally:
        searcher.close()
    response = client.get(f"{PREVIEW}?style=false-color&size=100")
    assert response.content == expected
    assert response.headers["etag"] == f'"{shown.digest}"'


def test_a_preview_has_256_pixels_or_as_many_as_asked_for(client: TestClient) -> None:
    assert picture(client).shape == (256, 256, 4)
    for size in (64, 512):
        assert picture(client, f"{PREVIEW}?size={size}").shape == (size, size, 4)


def test_vegetation_is_red_in_false_color(client: TestClient) -> None:
    # On 24 April demo-003 grows; red, green and blue of its middle.
    shown = [
        picture(client, f"{PREVIEW}?style={style}&datetime=2023-04")[118:138, 118:138, :3]
        for style in ("true-color", "false-color")
    ]
    true, false = (pixels.mean(axis=(0, 1)) for pixels in shown)
    assert false[0] > 1.5 * max(false[1], false[2])
    assert true[1] > true[2]


def test_each_date_has_a_picture_of_its_own(client: TestClient) -> None:
    dates = ("2023-04", "2023-05", "2023-08")
    tags = {client.get(f"{PREVIEW}?datetime={date}").headers["etag"] for date in dates}
    assert len(tags) == 3
    # The latest of them is reliable.
    assert client.get(PREVIEW).headers["etag"] in tags


def test_who_has_the_picture_is_told_so_before_it_is_drawn(
    tmp_path: Path, demo_landscape: Landscape, tiny_croma: str
) -> None:
    scene = shutil.copytree(demo_landscape.scenes[0].parent, tmp_path / "scenes")
    settings = settings_in(tmp_path / "data")
    options = ReindexOptions(
        encoder=tiny_croma, parcels=demo_landscape.parcels_file, collection="demo", device="cpu"
    )
    reindex(settings, [scene], options)
    with TestClient(create_app(api_settings(settings))) as client:
        tag = client.get(f"{PREVIEW}?size=64").headers["etag"]
    shutil.rmtree(scene)
    with TestClient(create_app(api_settings(settings))) as client:
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            response = client.get(f"{PREVIEW}?size=64", headers={"If-None-Match": known})
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["etag"] == tag
            assert f"max-age={MAX_AGE_S}" in response.headers["cache-control"]
        # It could not be drawn.
        gone = client.get(f"{PREVIEW}?size=64", headers={"If-None-Match": '"other"'})
    assert gone.status_code == 404
    assert gone.json()["kind"] == "preview-not-found"
    assert "etag" not in gone.headers


def test_an_image_that_is_gone_is_not_found_and_no_path_is_told(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    plant(settings, [Seen("demo-003", at_cosine(0.5))])
    with TestClient(create_app(api_settings(settings))) as client:
        response = client.get(PREVIEW)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["kind"] == "preview-not-found"
    # The scene's name is in every answer; where its file lies is not.
    assert ".tif" not in response.text
    assert str(tmp_path) not in response.text


@pytest.mark.parametrize("written", ["4801/1", "4801%2F1"])
def test_an_id_may_hold_a_slash(tmp_path: Path, written: str) -> None:
    settings = settings_in(tmp_path)
    plant(settings, [Seen("4801/1", at_cosine(0.5))])
    with TestClient(create_app(api_settings(settings))) as client:
        path = f"/collections/demo/items/{written}/preview.png"
        assert client.get(path).json()["kind"] == "preview-not-found"


@pytest.mark.parametrize(("keys", "kept_by"), [("", "public"), ("sesame", "private")])
def test_what_needs_a_key_is_not_for_shared_caches(
    demo_index: Settings, keys: str, kept_by: str
) -> None:
    with TestClient(create_app(api_settings(demo_index, keys=keys))) as client:
        response = client.get(PREVIEW, headers={"X-API-Key": keys} if keys else {})
        assert response.headers["cache-control"] == f"{kept_by}, max-age={MAX_AGE_S}"
        if keys:
            refused = client.get(PREVIEW, headers={"If-None-Match": response.headers["etag"]})
            assert refused.status_code == 401


@pytest.mark.parametrize(
    ("path", "status", "kind", "said"),
    [
        (f"{PREVIEW}?size=63", 400, "invalid-option", "Size is 63"),
        (f"{PREVIEW}?size=513", 400, "invalid-option", "at most 512"),
        (f"{PREVIEW}?size=large", 400, "invalid-request", "size"),
        (f"{PREVIEW}?style=sepia", 400, "invalid-request", "style"),
        (f"{PREVIEW}?datetime=spring", 400, "invalid-datetime", "spring"),
        (f"{PREVIEW}?datetime=1999", 404, "state-not-found", "1999"),
        (f"{PREVIEW}?k=3", 400, "unknown-parameter", "style, size, datetime"),
        ("/collections/demo/items/no/preview.png", 404, "parcel-not-found", "no"),
        ("/collections/no/items/demo-003/preview.png", 404, "collection-not-found", "demo"),
    ],
)
def test_a_picture_that_cannot_be_had_is_told_why(
    client: TestClient, path: str, status: int, kind: str, said: str
) -> None:
    response = client.get(path)
    assert response.status_code == status, response.text
    assert response.json()["kind"] == kind
    assert said in response.json()["detail"]


def test_openapi_says_what_a_preview_is(demo_index: Settings) -> None:
    path = "/collections/{collection}/items/{parcel_id}/preview.png"
    operation = create_app(api_settings(demo_index)).openapi()["paths"][path]["get"]
    assert list(operation["responses"]["200"]["content"]) == ["image/png"]
    size = next(one for one in operation["parameters"] if one["name"] == "size")["schema"]
    assert (size["minimum"], size["maximum"], size["default"]) == (64, 512, 256)
    for parameter in operation["parameters"]:
        assert parameter["description"]
        assert "example" in parameter["schema"]
