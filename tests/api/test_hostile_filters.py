"""Filters that mean harm, at every door of a real server: refused at once, and it lives on."""

import json
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any

import httpx2
import pytest

from tests.api.row_of_parcels import plant_row
from tests.api.serving import served_by_a_process

LIMIT_S = 1.0

DEEP_JSON = '{"op":"not","args":[' * 5_000 + "true" + "]}" * 5_000

# What is sent, and what the answer names.
HOSTILE = {
    "nested parentheses": ("(" * 10_000 + "farm = 1" + ")" * 10_000, "characters"),
    "parentheses within the length": ("(" * 4_000 + "farm = 1" + ")" * 4_000, "at character 51"),
    "parentheses that never end": ("(" * 200, "at character 51"),
    "5,000 ORs": (" OR ".join(["farm = 1"] * 5_000), "characters"),
    "negations": ("NOT " * 2_000 + "farm >", "at character 8007"),
    "an unknown property": ("colour = 'green'", "colour"),
    "an unknown function": ("load_extension('x') = 1", "load_extension"),
    "a quote that never ends": ("farm = 'x", "at character 8"),
    "quotes out of place": ("farm = ''' OR 1=1 --", "at character"),
    "a statement": ("farm = 1; DROP TABLE parcels", "at character 9"),
    "NUL": ("farm = 'a\0b'", "null characters"),
    "NUL in a name": ('"a\0b" = 1', "null characters"),
    "a megabyte": ("farm = '" + "x" * 1_000_000 + "'", "1000009 characters"),
    "spaces": ("farm = 1" + " " * 9_000, "characters"),
    "a huge number": ("farm = " + "9" * 5_000, "number"),
    "arithmetic": ("farm = 1 / 0", "arithmetic"),
    "a pattern for every place": ("name LIKE '" + "%a" * 4_000, "at character"),
}
HOSTILE_JSON = {
    "deep JSON": (DEEP_JSON, "nested"),
    "no JSON": ("{", "at character"),
    "another operator": ('{"op":"sql","args":["1"]}', "sql"),
    "many values": (
        json.dumps({"op": "in", "args": [{"property": "farm"}, list(range(30_000))]}),
        "10000 values",
    ),
    "a number that is none": ('{"op":"=","args":[{"property":"farm"},NaN]}', "number"),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    index = plant_row(tmp_path_factory.mktemp("index"))
    with (
        served_by_a_process(index) as address,
        httpx2.Client(base_url=address, timeout=30) as client,
    ):
        client.get("/collections/demo/items?filter=farm=1").raise_for_status()
        client.post("/search", json={"positive": ["p001"]}).raise_for_status()
        yield client
        assert client.get("/health/live").status_code == 200
        assert client.get("/collections/demo/items?filter=farm=1").status_code == 200


def refused(client: httpx2.Client, method: str, path: str, **sent: Any) -> str:  # noqa: ANN401
    """What the answer says, which came soon."""
    began = time.perf_counter()
    response = client.request(method, path, **sent)
    assert time.perf_counter() - began < LIMIT_S
    assert response.status_code == 400, response.text[:500]
    problem = response.json()
    assert problem["kind"] in ("invalid-filter", "unknown-property")
    # The whole of it is not sent back.
    assert len(problem["detail"]) < 1_000
    return str(problem["detail"])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_refused_by_its_place_or_name(client: httpx2.Client, name: str) -> None:
    text, named = HOSTILE[name]
    body = {"positive": ["p001"], "filter": text}
    assert named in refused(client, "POST", "/search", json=body)
    # HTTP servers take no longer addresses.
    if len(text) < 20_000:
        for path in ("/collections/demo/items", "/collections/demo/items/p001/similar"):
            assert named in refused(client, "GET", path, params={"filter": text})


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_a_hostile_tree_is_refused_by_its_place_or_name(client: httpx2.Client, name: str) -> None:
    text, named = HOSTILE_JSON[name]
    body = {"positive": ["p001"], "filter": text, "filter-lang": "cql2-json"}
    assert named in refused(client, "POST", "/search", json=body)


@pytest.mark.parametrize("length", [50_000, 1_000_000])
def test_an_endless_address_is_refused_and_the_server_lives_on(
    client: httpx2.Client, length: int
) -> None:
    began = time.perf_counter()
    # httpx sends no address as long as this.
    connection = HTTPConnection(str(client.base_url.host), client.base_url.port, timeout=10)
    try:
        connection.request("GET", "/collections/demo/items?filter=" + "x" * length)
        assert connection.getresponse().status in (400, 414, 431)
    except (OSError, HTTPException):
        pass  # Cut off before it was read.
    finally:
        connection.close()
    assert time.perf_counter() - began < LIMIT_S
    assert client.get("/health/live").status_code == 200
