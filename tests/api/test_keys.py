"""Keys: read from entries, known by digests, told apart by scopes."""

import hashlib
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.keys import ApiKey, find_key, new_key, read_keys
from api.settings import ApiSettings

# FIPS 180-4 example: SHA-256 of "abc".
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("entry", "scope", "is_plain"),
    [
        ("abc", "write", True),
        ("read:abc", "read", True),
        ("write:abc", "write", True),
        (f"sha256:{ABC}", "write", False),
        (f"read:sha256:{ABC}", "read", False),
        (f"write:sha256:{ABC.upper()}", "write", False),
    ],
)
def test_an_entry_is_a_key_or_its_digest_with_a_scope_or_without(
    entry: str, scope: str, is_plain: bool
) -> None:
    (key,) = read_keys(entry)
    assert key.digest.get_secret_value() == ABC
    assert (key.scope, key.is_plain) == (scope, is_plain)


def test_what_is_stored_of_a_key_lets_the_key_in_and_cannot_be_used_as_one() -> None:
    key, kept = new_key("read")
    keys = read_keys(kept.entry)
    assert find_key([key.encode()], keys) == kept
    assert find_key([kept.entry.encode()], keys) is None
    assert find_key([kept.digest.get_secret_value().encode()], keys) is None


def test_a_new_key_is_256_random_bits_and_fits_into_a_list_and_a_header() -> None:
    made = {new_key("write")[0] for _ in range(50)}
    assert len(made) == 50
    # 43 characters of 6 bits.
    assert {len(key) for key in made} == {43}
    assert all(key.isascii() and "," not in key and ":" not in key for key in made)


def test_a_key_that_is_not_known_finds_nothing() -> None:
    assert find_key([b"xyz", b"", "é".encode("latin-1")], read_keys("abc,read:def")) is None
    assert find_key([], read_keys("abc")) is None


def test_of_two_keys_the_one_that_allows_more_counts() -> None:
    found = find_key([b"abc", b"def"], read_keys("read:abc,write:def"))
    assert found is not None
    assert found.scope == "write"


def test_keys_are_bytes_of_utf_8() -> None:
    found = find_key(["schlüssel".encode()], read_keys("schlüssel"))
    assert found is not None
    assert found.digest.get_secret_value() == hashlib.sha256("schlüssel".encode()).hexdigest()


def test_write_includes_read_and_read_nothing_else() -> None:
    assert [ApiKey.of("x", "write").allows(scope) for scope in ("read", "write")] == [True, True]
    assert [ApiKey.of("x", "read").allows(scope) for scope in ("read", "write")] == [True, False]


@pytest.mark.parametrize(
    "entry", ["sha256:", "sha256:abc", f"read:sha256:{ABC}0", "read:", "write:"]
)
def test_an_entry_that_can_be_no_key_is_named_by_its_number(entry: str) -> None:
    with pytest.raises(ValueError, match="entry 2"):
        read_keys(f"first,{entry}")


def test_every_route_that_changes_something_asks_for_a_key_that_may_write(tmp_path: Path) -> None:
    app = create_app(ApiSettings(data_dir=tmp_path, database_url="", api_keys="read:reader"))
    routes = [
        (method, path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    ]
    # It only asks; the body is too long for an address.
    assert [path for method, path in routes if method == "post"] == ["/search"]
    changing = [one for one in routes if one[0] not in ("get", "post")]
    assert changing
    with TestClient(app) as client:
        for method, path in changing:
            place = re.sub(r"\{[^}]*\}", "1", path)
            answer = client.request(method, place, headers={"X-API-Key": "reader"}, json={})
            assert answer.status_code == 403, (method, path)
