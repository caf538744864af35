"""``POST /search``: by examples, by a vector, by an image that is sent along."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from indexer.settings import Settings
from retriever.search import ParcelSearcher
from tests.api.test_app import api_settings
from tests.retriever.planted import Seen, at_cosine, plant, settings_in, write_image

SEEN = [
    Seen("a", at_cosine(1), crop_name="maize", corner=(2.0, 49.0), indices={"NDVI": 0.9}),
    Seen("b", at_cosine(0.9), crop_name="maize", corner=(2.1, 49.0), indices={"NDVI": 0.8}),
    Seen("c", at_cosine(0.8), crop_name="wheat", corner=(2.2, 49.0), indices={"NDVI": 0.7}),
    Seen("d", at_cosine(0.7, axis=2), day="2023-04-24", indices={"NDVI": 0.2}),
    Seen("e", at_cosine(0.6, axis=3), corner=(2.3, 49.0), indices={"NDVI": 0.1}),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    index = settings_in(tmp_path_factory.mktemp("index"))
    plant(index, SEEN)
    with TestClient(create_app(api_settings(index))) as client:
        yield client


def found(client: TestClient, **asked: Any) -> list[str]:  # noqa: ANN401
    response = client.post("/search", json=asked)
    assert response.status_code == 200, response.text
    return [feature["id"] for feature in response.json()["features"]]


def problem(client: TestClient, **asked: Any) -> tuple[int, str]:  # noqa: ANN401
    response = client.post("/search", json=asked)
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["kind"]


def test_examples_ask_as_they_do_of_the_searcher(client: TestClient) -> None:
    response = client.post("/search", json={"positive": ["a", "b"], "negative": ["d"], "k": 2})
    assert response.headers["content-type"] == "application/geo+json"
    answer = response.json()
    settings = client.app.state.settings  # type: ignore[attr-defined]
    with ParcelSearcher.open(settings) as searcher:
        expected = searcher.similar_by_examples(["a", "b"], ["d"], k=2)
    assert answer == json.loads(json.dumps(expected.to_geojson()))
    properties = answer["features"][0]["properties"]
    assert properties["rank"] == 1
    assert properties["generation"] == answer["generation"]
    assert properties["space"] == answer["space"]["id"]


def test_one_example_answers_as_its_own_route_does(client: TestClient) -> None:
    posted = client.post("/search", json={"positive": ["a"], "k": 3}).json()
    assert posted == client.get("/collections/demo/items/a/similar?k=3").json()


def test_a_vector_asks(client: TestClient) -> None:
    assert found(client, vector=at_cosine(0.9).tolist(), k=2) == ["b", "c"]


def test_a_filter_acts_inside_the_search(client: TestClient) -> None:
    # The two closest grow maize; k of the others come back all the same.
    assert found(client, positive=["a"], k=2, filter="NOT \"crop:name\" = 'maize'") == ["c"]
    assert found(client, positive=["a"], k=2, filter="NDVI < 0.5") == ["d", "e"]
    tree = {"op": "<", "args": [{"property": "NDVI"}, 0.5]}
    assert found(client, positive=["a"], k=2, filter=tree) == ["d", "e"]
    assert found(
        client, positive=["a"], k=2, filter=json.dumps(tree), **{"filter-lang": "cql2-json"}
    ) == ["d", "e"]
    assert found(client, positive=["a"], filter="NDVI < 0.5", datetime="2023-04") == ["d"]


def test_places_times_and_collections_choose(client: TestClient) -> None:
    assert found(client, positive=["a"], bbox=[2.19, 48, 2.5, 50]) == ["c", "e"]
    assert found(client, positive=["a"], bbox="2.19,48,2.5,50") == ["c", "e"]
    assert found(client, positive=["a"], datetime="2023-04") == ["d"]
    assert len(found(client, positive=["a"], collections=["demo"], collection="demo")) == 4


WRONG: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({}, (400, "invalid-examples")),
    ({"negative": ["a"]}, (400, "invalid-examples")),
    ({"positive": ["a", "a"]}, (400, "invalid-examples")),
    ({"positive": ["a"], "vector": [1.0]}, (400, "invalid-examples")),
    ({"positive": ["a"] * 101}, (400, "invalid-request")),
    ({"positive": "a"}, (400, "invalid-request")),
    ({"positive": ["a\0"]}, (400, "invalid-request")),
    ({"positive": ["a"], "colour": "green"}, (400, "invalid-request")),
    ({"positive": ["a"], "k": 0}, (400, "invalid-k")),
    ({"positive": ["a"], "k": 1001}, (400, "invalid-k")),
    ({"positive": ["a"], "bbox": [1, 2, 3]}, (400, "invalid-request")),
    ({"positive": ["a"], "bbox": [1, 2, 3, -4]}, (400, "invalid-bbox")),
    ({"positive": ["a"], "datetime": "soon"}, (400, "invalid-datetime")),
    ({"positive": ["a"], "filter": "NDVI >"}, (400, "invalid-filter")),
    ({"positive": ["a"], "filter": {"op": "drop", "args": []}}, (400, "invalid-filter")),
    ({"positive": ["a"], "filter": "colour = 1"}, (400, "unknown-property")),
    ({"positive": ["a"], "filter": "a=1", "filter-lang": "sql"}, (400, "invalid-filter")),
    ({"positive": ["nobody"]}, (404, "parcel-not-found")),
    ({"positive": ["a"], "collection": "nowhere"}, (404, "collection-not-found")),
    ({"vector": [1.0, 2.0]}, (400, "invalid-vector")),
    ({"vector": [0.0] * 512}, (400, "invalid-vector")),
    ({"vector": ["x"]}, (400, "invalid-request")),
    ({"vector": [1.0] * 512, "space": "0123456789abcdef"}, (409, "space-mismatch")),
]


@pytest.mark.parametrize(("asked", "expected"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_asked_wrongly_is_named(
    client: TestClient, asked: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert problem(client, **asked) == expected


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"null", "application/json", 400),
        (b'{"vector": [NaN]}', "application/json", 400),
        (b'{"positive": ["\xff"]}', "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=y", 400),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    client: TestClient, content: bytes, media_type: str, status: int
) -> None:
    headers = {"content-type": media_type} if media_type else {}
    response = client.post("/search", content=content, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("content", "boundary", "said"),
    [
        (b"", "", "Missing boundary in multipart."),
        (b"x", "; boundary=y", "Invalid multipart data."),
        (
            b'--y\r\nContent-Disposition: form-data; name="image"; filename="a.tif"\r\n\r\na\r\n'
            * 2
            + b"--y--\r\n",
            "; boundary=y",
            "Too many files. Maximum number of files is 1.",
        ),
    ],
)
def test_a_form_that_cannot_be_read_is_refused_in_a_sentence(
    client: TestClient, content: bytes, boundary: str, said: str
) -> None:
    headers = {"content-type": f"multipart/form-data{boundary}"}
    response = client.post("/search", content=content, headers=headers)
    assert (response.status_code, response.json()["kind"]) == (400, "invalid-request")
    assert response.json()["detail"] == f"The form cannot be read: {said}"


def test_keys_are_asked_for(tmp_path: Path) -> None:
    index = settings_in(tmp_path)
    plant(index, SEEN)
    with TestClient(create_app(api_settings(index, keys="secret"))) as client:
        assert problem(client, positive=["a"]) == (401, "unauthorized")


# Images --------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "chip_2023-05-29.tif"
    write_image(path, seed=3)
    return path


def test_an_image_asks_as_it_does_on_the_command_line(demo_index: Settings, image: Path) -> None:
    from indexer.imagery.reader import ReadingOptions, read_image

    with TestClient(create_app(api_settings(demo_index))) as client:
        response = client.post(
            "/search",
            files={"image": (image.name, image.read_bytes())},
            data={"k": "3", "filter": "NDVI > 0", "baseline": "05.09"},
        )
    assert response.status_code == 200, response.text
    with ParcelSearcher.open(demo_index) as searcher:
        chip = read_image(image, ReadingOptions(baseline="05.09"))
        expected = searcher.similar_by_chip(chip, k=3)
    answer = response.json()
    assert [one["id"] for one in answer["features"]] == [
        match.parcel_id for match in expected.matches
    ]
    assert answer["query"]["image"] == image.stem
    assert answer["query"]["filter"] == {"filter": "NDVI > 0"}


def test_a_form_needs_an_image_and_nothing_beside_it(client: TestClient, image: Path) -> None:
    def kind(files: dict[str, Any], data: dict[str, str]) -> tuple[int, str]:
        response = client.post("/search", files=files, data=data)
        return response.status_code, response.json()["kind"]

    sent = {"image": (image.name, image.read_bytes())}
    assert kind({"picture": sent["image"]}, {}) == (400, "invalid-examples")
    assert kind(sent, {"positive": "a"}) == (400, "invalid-examples")
    assert kind(sent, {"colour": "green"}) == (400, "invalid-request")
    assert kind(sent, {"k": "many"}) == (400, "invalid-request")
    assert kind(sent, {"bands": "B99"}) == (400, "invalid-bands")
    assert kind(sent, {"baseline": "first"}) == (400, "invalid-baseline")
    assert kind({"image": ("a.tif", b"no image")}, {}) == (422, "unreadable")
