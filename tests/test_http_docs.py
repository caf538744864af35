"""``docs/http.md`` says what runs: every command and snippet, against the demo's index."""

import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pyogrio
import pytest
import typer.main
from fastapi.testclient import TestClient
from PIL import Image

from api.app import create_app
from api.cli import app
from api.settings import ApiSettings
from indexer.settings import Settings
from tests.api.serving import served_by_a_process
from tests.retriever.planted import write_image

PAGE = (Path(__file__).parents[1] / "docs" / "http.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def commands(program: str) -> list[list[str]]:
    """The words of each command of the page that calls a program, without what stands before."""
    typed = [one for block in blocks("console") for one in re.split(r"^\$ ", block, flags=re.M)]
    words = [shlex.split(one) for one in typed if one]
    return [one[one.index(program) + 1 :] for one in words if program in one]


# What curl sends -------------------------------------------------------------------------------


@dataclass
class Asked:
    """A request as curl would send it."""

    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    """Of a form; ``@name`` stands for a file."""

    @classmethod
    def by(cls, words: list[str]) -> "Asked":
        address, *options = words
        assert address.startswith(f"{ADDRESS}/")
        asked = cls(address.removeprefix(ADDRESS))
        for option, value in zip(options[::2], options[1::2], strict=True):
            match option:
                case "--json":
                    asked.body = value
                case "--form":
                    name, _, content = value.partition("=")
                    asked.fields[name] = content
                case "--header":
                    name, _, content = value.partition(": ")
                    asked.headers[name] = content
                case _:
                    assert option == "--output", f"{option} is not known here"
        return asked


CURLS = [Asked.by(words) for words in commands("curl")]


@pytest.fixture(scope="module")
def client(demo_index: Settings) -> Iterator[TestClient]:
    settings = ApiSettings(**demo_index.model_dump(), api_keys="a-long-secret")
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def chip(tmp_path: Path) -> Path:
    """An image that does not say which bands it has."""
    path = tmp_path / "chip_2023-05-29.tif"
    write_image(path, seed=3)
    return path


def answer(client: TestClient, asked: Asked, chip: Path) -> Any:  # noqa: ANN401 - a response
    headers = {"X-API-Key": "a-long-secret"} | asked.headers
    if asked.body is not None:
        return client.post(asked.path, headers=headers, json=json.loads(asked.body))
    if asked.fields:
        files = {
            name: (value[1:], chip.read_bytes())
            for name, value in asked.fields.items()
            if value.startswith("@")
        }
        data = {name: value for name, value in asked.fields.items() if name not in files}
        return client.post(asked.path, headers=headers, files=files, data=data)
    return client.get(asked.path, headers=headers)


def named(part: str) -> Asked:
    """The one command of the page whose address holds this."""
    (found,) = (asked for asked in CURLS if part in asked.path)
    return found


@pytest.mark.parametrize("asked", CURLS, ids=[asked.path for asked in CURLS])
def test_every_curl_of_the_page_gets_an_answer_that_holds_something(
    client: TestClient, asked: Asked, chip: Path
) -> None:
    response = answer(client, asked, chip)
    assert response.status_code == 200, response.text
    if response.headers["content-type"] != "image/png":
        content = response.json()
        assert content.get("features") or content.get("clusters") or content.get("collections")


def test_the_page_asks_in_each_way_that_it_speaks_of() -> None:
    assert sum(asked.body is not None for asked in CURLS) == 1
    assert sum(bool(asked.fields) for asked in CURLS) == 1
    assert [asked.headers for asked in CURLS if asked.headers] == [{"X-API-Key": "a-long-secret"}]


def test_a_date_shows_parcels_as_they_were_then(client: TestClient, chip: Path) -> None:
    features = answer(client, named("items?limit=100&datetime=2023-05"), chip).json()["features"]
    assert {one["properties"]["datetime"][:7] for one in features} == {"2023-05"}


def test_a_filter_and_a_property_are_both_held_to(client: TestClient, chip: Path) -> None:
    features = answer(client, named("items?filter="), chip).json()["features"]
    assert {one["properties"]["crop:name"] for one in features} == {"maize"}
    assert all(one["properties"]["NDVI"] > 0.3 for one in features)


def test_a_filtered_search_still_finds_k_matches(client: TestClient, chip: Path) -> None:
    features = answer(client, named("demo-012/similar"), chip).json()["features"]
    assert [one["properties"]["rank"] for one in features] == [1, 2, 3, 4, 5]
    assert all(one["properties"]["medians"]["NDVI"] > 0.2 for one in features)
    for match in features:
        assert {"score", "datetime", "generation", "space"} <= set(match["properties"])


def test_a_preview_has_the_size_that_was_asked_for(client: TestClient, chip: Path) -> None:
    response = answer(client, named("preview.png"), chip)
    with Image.open(io.BytesIO(response.content)) as picture:
        assert picture.size == (256, 256)


def test_clusters_are_as_many_as_were_asked_for(client: TestClient, chip: Path) -> None:
    assert len(answer(client, named("/clusters"), chip).json()["clusters"]) == 4


def test_matches_of_examples_are_none_of_them_and_fit_the_filter(
    client: TestClient, chip: Path
) -> None:
    (asked,) = (asked for asked in CURLS if asked.body is not None)
    sent = json.loads(asked.body or "")
    found = answer(client, asked, chip).json()
    ids = {one["id"] for one in found["features"]}
    assert len(ids) == sent["k"] == 5
    assert not ids & {*sent["positive"], *sent["negative"]}
    assert sent["filter"] == "metrics:area > 10000"
    assert all(one["properties"]["metrics:area"] > 10_000 for one in found["features"])
    assert any("untrained" in note for note in found["notes"])


# What it promises ------------------------------------------------------------------------------


KEYLESS = {"/", "/docs", "/health/live"}


def test_every_route_needs_a_key_but_those_that_the_page_names(client: TestClient) -> None:
    for path in (*KEYLESS, "/api", "/collections", "/generations", "/health/ready", "/metrics"):
        response = client.get(path, headers={"Accept": "text/html"})
        assert response.status_code == (200 if path in KEYLESS else 401), path
    assert "every route needs one but the map's page, `/docs` and `/health/live`" in PAGE


def test_what_a_get_finds_carries_a_tag_but_for_what_the_page_names(client: TestClient) -> None:
    headers = {"X-API-Key": "a-long-secret"}
    items = "/collections/demo/items"
    for path in ("/", "/api", "/collections", f"{items}?limit=1000", f"{items}/demo-012/state"):
        tag = client.get(path, headers=headers).headers["etag"]
        again = client.get(path, headers={**headers, "If-None-Match": tag})
        assert again.status_code == 304, path
    for path in ("/metrics", f"{items}?limit=1001"):
        assert "etag" not in client.get(path, headers=headers).headers, path


def test_links_are_made_of_what_a_proxy_passes_on(demo_index: Settings) -> None:
    passed_on = {"Host": "parcels.example.org", "X-Forwarded-Proto": "https"}
    name = "parcels.example.org"
    with served_by_a_process(demo_index, PARCELLE_ALLOWED_HOSTS=name) as address:
        found = httpx2.get(f"{address}/collections", headers=passed_on).json()
    assert found["links"][0]["href"] == "https://parcels.example.org/collections"


def test_the_service_takes_the_options_of_the_page() -> None:
    ((command, *options),) = commands("parcelle")
    # Typer carries a Click of its own, which it does not export.
    known: Any = typer.main.get_command(app)
    taken = known.commands[command].make_context(command, options).params
    assert (taken["host"], taken["workers"]) == ("0.0.0.0", 4)


# From a GIS ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the key, as the page has it written."""
    ((header, _, name),) = commands("echo")
    path = tmp_path_factory.mktemp("key") / name
    path.write_text(f"{header}\n")
    return path


@pytest.fixture(scope="module")
def address(demo_index: Settings) -> Iterator[str]:
    """A service in a process of its own: GDAL lets no other thread run while it reads."""
    with served_by_a_process(demo_index, PARCELLE_API_KEYS="a-long-secret") as address:
        yield address


@pytest.fixture
def gdal_has_the_key(with_key: Path) -> Iterator[None]:
    (assignment,) = commands("export")
    name, _, value = assignment[0].partition("=")
    assert value == with_key.name
    pyogrio.set_gdal_config_options({name: str(with_key)})
    yield
    pyogrio.set_gdal_config_options({name: None})


@pytest.mark.usefixtures("gdal_has_the_key")
def test_the_command_for_gdal_finds_maize(address: str) -> None:
    (words,) = commands("ogrinfo")
    source, layer, where, condition, spat, *sides = words
    assert (where, spat) == ("-where", "-spat")
    found = pyogrio.read_dataframe(
        source.replace(ADDRESS, address),
        layer=layer,
        where=condition,
        bbox=tuple(float(side) for side in sides),
    )
    assert set(found["crop:name"]) == {"maize"}


@pytest.mark.usefixtures("gdal_has_the_key")
def test_the_python_of_the_page_reads_maize(address: str) -> None:
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block.replace(ADDRESS, address), names)
    assert set(names["maize"]["crop:name"]) == {"maize"}


def test_gdal_is_refused_without_the_key(address: str) -> None:
    with pytest.raises(pyogrio.errors.DataSourceError, match="401"):
        pyogrio.list_layers(f"OAPIF:{address}")
