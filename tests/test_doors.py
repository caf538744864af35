"""One engine, many doors: the same question gets the same answer everywhere."""

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

import pytest
from fastapi.testclient import TestClient
from langchain_core.tools import BaseTool

from api.app import create_app
from api.cli import main
from api.settings import ApiSettings
from indexer.settings import Settings
from retriever.queries import Bbox, Interval, ParcelFilter
from retriever.search import ParcelSearcher
from retriever.toolkit import ParcelToolkit

PARCEL = "demo-012"
K = 4
CROP, BBOX, INTERVAL = "MIS", "2.0,49.0,2.2,49.5", "2023-04/2023-08"


@pytest.fixture
def searcher(demo_index: Settings) -> Iterator[ParcelSearcher]:
    searcher = ParcelSearcher.open(demo_index)
    yield searcher
    searcher.close()


@pytest.fixture
def client(demo_index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(ApiSettings(**demo_index.model_dump(), api_keys=""))) as client:
        yield client


def tool(searcher: ParcelSearcher, name: str) -> BaseTool:
    (found,) = [tool for tool in ParcelToolkit(searcher).get_tools() if tool.name == name]
    return found


def plain(answer: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    return json.loads(json.dumps(answer))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:  # noqa: ANN401 - JSON
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 0
    return json.loads(capsys.readouterr().out)


def test_similar_parcels_are_the_same_through_every_door(
    searcher: ParcelSearcher,
    client: TestClient,
    demo_index: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(demo_index.data_dir))
    where = ParcelFilter(crops=(CROP,), bbox=Bbox.parse(BBOX), interval=Interval.parse(INTERVAL))
    answer = searcher.similar_by_id(PARCEL, collection="demo", k=K, where=where)
    assert answer.matches
    expected = plain(answer.to_dict())

    from_command_line = run(
        capsys, "similar", PARCEL, "--collection", "demo", "-k", str(K), "--crop", CROP,
        "--bbox", BBOX, "--datetime", INTERVAL, "--format", "json",
    )  # fmt: skip
    assert from_command_line == expected

    query: dict[str, str | int] = {"k": K, "crop": CROP, "bbox": BBOX, "datetime": INTERVAL}
    over_http = client.get(f"/collections/demo/items/{PARCEL}/similar", params=query)
    assert over_http.json() == plain(answer.to_geojson())

    find_similar = tool(searcher, "find_similar_parcels")
    message = find_similar.invoke(
        {
            "type": "tool_call",
            "id": "1",
            "name": find_similar.name,
            "args": {
                "parcel_id": PARCEL,
                "collection": "demo",
                "k": K,
                "crops": [CROP],
                "bbox": BBOX,
                "datetime": INTERVAL,
            },
        }
    )
    assert plain(message.artifact) == {**expected, "cursor": ANY}


def test_a_parcels_state_is_the_same_through_every_door(
    searcher: ParcelSearcher,
    client: TestClient,
    demo_index: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(demo_index.data_dir))
    where = ParcelFilter(interval=Interval.parse(INTERVAL))
    expected = plain(searcher.state(PARCEL, collection="demo", where=where).to_dict())
    assert len(expected["observations"]) == 3

    assert run(capsys, "state", PARCEL, "--datetime", INTERVAL, "--format", "json") == expected
    path = f"/collections/demo/items/{PARCEL}/state"
    assert client.get(path, params={"datetime": INTERVAL}).json() == expected
    get_state = tool(searcher, "get_parcel_state")
    message = get_state.invoke(
        {
            "type": "tool_call",
            "id": "1",
            "name": get_state.name,
            "args": {"parcel_id": PARCEL, "datetime": INTERVAL},
        }
    )
    assert plain(message.artifact) == expected
