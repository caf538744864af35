import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.utils import get_openapi
from fastapi.testclient import TestClient
from jsonschema import validate

from api.app import create_app
from api.cli import main
from api.routers.generations import router
from indexer.settings import Settings
from tests.api.test_app import api_settings
from tests.retriever.planted import UNTRAINED, Seen, at_cosine, plant, settings_in


def generations(settings: Settings) -> Any:  # noqa: ANN401 - JSON
    document = get_openapi(title="Generations", version="1", routes=router.routes)
    declared = document["paths"]["/generations"]["get"]["responses"]["200"]["content"]
    with TestClient(create_app(api_settings(settings))) as client:
        response = client.get("/generations")
    assert response.status_code == 200, response.text
    validate(response.json(), declared["application/json"]["schema"])
    return response.json()["generations"]


def test_generations_of_all_spaces_in_use_are_told_newest_first(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    plant(settings, [Seen("p1", at_cosine(0.5))])
    plant(settings, [Seen("p1", at_cosine(0.5), collection="other")], weights=UNTRAINED)
    plant(settings, [Seen("p2", at_cosine(0.6))])
    found = generations(settings)
    assert [(one["generation"], one["current"]) for one in found] == [
        (3, True),
        (2, True),
        (1, False),
    ]
    assert [one["rows"] for one in found] == [2, 1, 1]
    assert [one["space"]["weights"] for one in found] == ["trained", "untrained", "trained"]
    newest = found[0]
    assert newest["space"]["id"] == found[2]["space"]["id"]
    # So few vectors are all found.
    assert (newest["nlist"], newest["recall_at_10"]) == (1, 1.0)
    assert datetime.fromisoformat(newest["published_at"]).tzinfo is not None


def test_a_space_that_no_collection_is_searched_in_is_left_out(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    plant(settings, [Seen("p1", at_cosine(0.5))], weights=UNTRAINED)
    plant(settings, [Seen("p1", at_cosine(0.5))])
    assert [one["generation"] for one in generations(settings)] == [2]


def test_before_the_first_publication_there_are_none(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    plant(settings, [Seen("p1", at_cosine(0.5))], publish=False)
    assert generations(settings) == []


def test_the_command_line_tells_the_same_and_more(
    demo_index: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(demo_index.data_dir))
    monkeypatch.delenv("PARCELLE_DATABASE_URL", raising=False)
    with pytest.raises(SystemExit) as exited:
        main(["generations", "list", "--json"])
    assert exited.value.code == 0
    told = json.loads(capsys.readouterr().out)["generations"]
    (found,) = generations(demo_index)
    (entry,) = told
    assert {name: entry[name] for name in found} == found
    assert len(entry["files"]["vectors.npy"]["sha256"]) == 64
