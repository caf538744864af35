from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import validate

from api.app import create_app
from tests.api.test_app import api_settings
from tests.retriever.planted import Seen, at_cosine, plant, settings_in

SIMILAR = "/collections/demo/items/p0/similar"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A service over five parcels, four of them of maize."""
    settings = settings_in(tmp_path)
    plant(
        settings,
        [
            Seen(f"p{number}", at_cosine(1 - 0.1 * number), crop_name="maize" if number else None)
            for number in range(5)
        ],
    )
    with TestClient(create_app(api_settings(settings))) as client:
        yield client


def explained(client: TestClient, answer: Any) -> dict[str, Any]:  # noqa: ANN401 - a response
    """The explanation of an answer that is as OpenAPI declares it."""
    assert answer.status_code == 200, answer.text
    paths = client.get("/api").json()["paths"]
    declared = paths["/search"]["post"]["responses"]["200"]["content"]["application/geo+json"]
    validate(answer.json(), declared["schema"] | {"components": {}})
    found: dict[str, Any] = answer.json()["explanation"]
    return found


def test_a_parcels_look_alikes_come_with_how_they_were_found(client: TestClient) -> None:
    answer = client.get(SIMILAR, params={"recall": 0.99, "explain": True, "crop": "maize"})
    found = explained(client, answer)
    assert (found["recall"], found["rows"], found["allowed"]) == (0.99, 5, 4)
    assert found["since_publication"] == {"rows": 0, "removed": 0}


@pytest.mark.parametrize("asking", [{"positive": ["p0"]}, {"vector": at_cosine(1).tolist()}])
def test_a_search_comes_with_how_it_was_answered(
    client: TestClient, asking: dict[str, object]
) -> None:
    answer = client.post("/search", json={**asking, "recall": 0.9, "explain": True})
    found = explained(client, answer)
    assert (found["recall"], found["allowed"]) == (0.9, 5)


def test_nothing_is_explained_unasked(client: TestClient) -> None:
    assert "explanation" not in client.get(SIMILAR).json()
    assert "explanation" not in client.post("/search", json={"positive": ["p0"]}).json()


@pytest.mark.parametrize("recall", [0, 0.999, 1.5, "nan"])
def test_a_recall_that_nobody_measured_is_refused(client: TestClient, recall: object) -> None:
    refused = client.get(SIMILAR, params={"recall": str(recall)})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["kind"] == "invalid-recall"
    if recall != "nan":
        refused = client.post("/search", json={"positive": ["p0"], "recall": recall})
        assert refused.json()["kind"] == "invalid-recall"


def test_openapi_tells_of_both(client: TestClient) -> None:
    paths = client.get("/api").json()["paths"]
    parameters = {
        one["name"]: one
        for one in paths["/collections/{collection}/items/{parcel_id}/similar"]["get"]["parameters"]
    }
    body = paths["/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for recall in (parameters["recall"]["schema"], body["properties"]["recall"]):
        assert recall["default"] == 0.95
        assert recall["maximum"] == 0.99
    assert parameters["explain"]["schema"]["default"] is False
    assert body["properties"]["explain"]["default"] is False
