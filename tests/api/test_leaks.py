"""What a real ``parcelle serve`` tells strangers, and its log, when all goes well and when not.

Every folder, key and password bears a mark; no answer and no header may hold one, whatever is asked
and whatever is broken, and the log may hold places but no secret.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.landscape import draw_landscape
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from tests.api.cli.test_serve import Serving, starting
from tests.schemas import copy_index, matter_of_sqlite

PARCEL = "/collections/demo/items/demo-003"
KEY = "marked-key-5d1e"
TOKEN = "marked-token-77aa"
SECRETS = (KEY, TOKEN, "marked-password", "marked-milvus")
PLACES = ("marked-place", str(Path(__file__).parents[2]), sys.prefix)

ASKED = (
    "/",
    "/?f=html",
    "/api",
    "/docs",
    "/conformance",
    "/collections",
    "/collections/demo",
    "/collections/demo/queryables",
    "/collections/demo/items?limit=1000",
    "/collections/demo/items?filter=)",
    f"/collections/demo/items?token={TOKEN}",
    PARCEL,
    f"{PARCEL}/similar?explain=true",
    f"{PARCEL}/similar?k=x",
    f"{PARCEL}/state",
    f"{PARCEL}/preview.png",
    f"{PARCEL}/preview.png?size=100000",
    "/collections/none/items",
    "/clusters?collection=demo&k=3&members=true",
    "/generations",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/nowhere",
)
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("tools/list", {}),
    ("resources/list", {}),
    ("resources/templates/list", {}),
    ("resources/read", {"uri": "parcel://demo/demo-003"}),
    ("resources/read", {"uri": "file:///etc/passwd"}),
    ("tools/call", {"name": "find_similar_parcels", "arguments": {"parcel_id": "demo-003"}}),
    ("tools/call", {"name": "get_parcel_state", "arguments": {"parcel_id": "demo-003"}}),
    ("tools/call", {"name": "search_parcels", "arguments": {}}),
    ("tools/call", {"name": "compare_parcels", "arguments": {"parcel_ids": ["demo-003", "none"]}}),
    ("tools/call", {"name": "none", "arguments": {}}),
    ("none", {}),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_croma: str) -> Path:
    """A folder with an index of imagery beside it, both of which a test may not change."""
    place = tmp_path_factory.mktemp("marked-place")
    dates = (date(2023, 4, 24), date(2023, 5, 29))
    landscape = draw_landscape(place / "imagery", size_px=130, dates=dates, parcels_across=4)
    settings = Settings(data_dir=place / "data", database_url="", croma_weights="untrained")
    options = ReindexOptions(
        encoder=tiny_croma, parcels=landscape.parcels_file, collection="demo", device="cpu"
    )
    reindex(settings, landscape.scenes, options)
    return place


@pytest.fixture
def broken(place: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the index in which a test may break things; the imagery is gone meanwhile."""
    folder = tmp_path / "marked-place"
    copy_index(place / "data", folder)
    (place / "imagery").rename(place / "elsewhere")
    yield folder
    (place / "elsewhere").rename(place / "imagery")


def ask_everything(serving: Serving, image: bytes) -> list[httpx.Response]:
    """Answers to requests that are fine, and to many that are not."""
    key = {"X-API-Key": KEY}
    bearer = {"Authorization": f"Bearer {KEY}", "Accept": "application/json, text/event-stream"}
    files = [
        ("marked.tif", image, {}),
        ("../../etc/passwd", b"II*\0" + b"\xff" * 200, {}),
        ("half.tif", image[: len(image) // 2], {}),
        ("a.tif", image, {"bands": "none"}),
        ("a.tif", b"", {}),
    ]
    with httpx.Client(base_url=serving.address, timeout=60) as client:
        # A connection is not used again after an unexpected error.
        client.headers["Connection"] = "close"
        answers = [client.get(path, headers=key) for path in ASKED]
        answers += [client.get(path, headers={"X-API-Key": TOKEN}) for path in ASKED[:8]]
        for method, arguments in CALLS:
            call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": arguments}
            answers.append(client.post("/mcp", json=call, headers=bearer))
        for name, content, fields in files:
            sent = {"image": (name, content, "image/tiff")}
            answers.append(client.post("/search", files=sent, data=fields, headers=key))
        for body in ({"positive": ["demo-003"], "explain": True}, {"vector": [1.0]}, {"none": 1}):
            answers.append(client.post("/search", json=body, headers=key))
        name = "/clusters/1/name?collection=demo"
        answers += [
            client.post("/search", content=b"{", headers=key),
            client.put(name, json={"name": "x"}, headers=key),
            client.delete(name, headers=key),
            client.request("TRACE", "/", headers=key),
        ]
    return answers


def assert_nothing_is_told(answers: list[httpx.Response], serving: Serving) -> None:
    for answer in answers:
        told = answer.text + str(answer.headers)
        found = [mark for mark in (*SECRETS, *PLACES) if mark in told]
        assert not found, (answer.request.method, str(answer.request.url), told[:1000])
    serving.end()
    written = (serving.folder / "log").read_text()
    assert [mark for mark in SECRETS if mark in written] == []
    # It is there to tell the operator what was wrong.
    assert serving.messages


def served_from(folder: Path, tmp_path: Path, image: bytes, **settings: str) -> list[int]:
    """Statuses of all answers of a service on a folder, none of which tells anything."""
    index = Settings(data_dir=folder, database_url="")
    settings = {"API_KEYS": f"read:{KEY}", "LOG_LEVEL": "DEBUG", **settings}
    with starting(tmp_path, index) as start:
        serving = start(**settings)
        answers = ask_everything(serving, image)
        assert_nothing_is_told(answers, serving)
    return [answer.status_code for answer in answers]


@pytest.fixture(scope="module")
def image(place: Path) -> bytes:
    return next((place / "imagery").rglob("*.tif")).read_bytes()


def test_nothing_is_told_where_all_is_well(place: Path, tmp_path: Path, image: bytes) -> None:
    statuses = served_from(place / "data", tmp_path, image, MILVUS_TOKEN="marked-milvus")
    assert {200, 400, 401, 403, 404, 405, 422} <= set(statuses)


def damage(folder: Path, pattern: str) -> None:
    for path in folder.rglob(pattern):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)


def overwrite(path: Path) -> None:
    path.write_bytes(b"marked" * 5000)


BREAKAGES: dict[str, Callable[[Path], None]] = {
    "only the imagery is gone": lambda folder: None,
    "the index is damaged": lambda folder: damage(folder / "generations", "*.*"),
    "the index is gone": lambda folder: shutil.rmtree(folder / "generations"),
    "the database is gone": lambda folder: (folder / "parcelle.db").unlink(),
    "the database is none": lambda folder: overwrite(folder / "parcelle.db"),
}


@pytest.mark.parametrize(
    "breakage",
    [
        pytest.param(name, marks=matter_of_sqlite("a file") if "database" in name else ())
        for name in BREAKAGES
    ],
)
def test_nothing_is_told_where_something_is_broken(
    broken: Path, tmp_path: Path, image: bytes, breakage: str
) -> None:
    BREAKAGES[breakage](broken)
    statuses = served_from(broken, tmp_path, image)
    assert breakage == "only the imagery is gone" or max(statuses) >= 500


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://marked:marked-password@127.0.0.1:1/db",
        "postgresql+psycopg://marked@127.0.0.1:1/db?password=marked-password",
        "postgresql+psycopg://marked:p@marked-password@127.0.0.1:1/db",
    ],
)
def test_nothing_is_told_of_a_database_that_does_not_answer(
    place: Path, tmp_path: Path, image: bytes, url: str
) -> None:
    statuses = served_from(place / "data", tmp_path, image, DATABASE_URL=url)
    assert 503 in statuses
