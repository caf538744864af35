import pytest
from pydantic import ValidationError

from api.settings import ApiSettings
from indexer.errors import InvalidInputError


def keys_of(settings: ApiSettings) -> list[str]:
    return [key.get_secret_value() for key in settings.api_keys]


def test_keys_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARCELLE_API_KEYS", "first, second,")
    assert keys_of(ApiSettings()) == ["first", "second"]


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_list_of_keys_is_no_key(text: str) -> None:
    assert keys_of(ApiSettings(api_keys=text)) == []


def test_commas_without_a_key_are_refused_rather_than_taken_for_an_open_door() -> None:
    with pytest.raises(ValidationError, match="PARCELLE_API_KEYS holds commas but no key"):
        ApiSettings(api_keys=" , ")


def test_keys_are_not_shown() -> None:
    settings = ApiSettings(api_keys="sesame")
    assert "sesame" not in repr(settings)
    assert "sesame" not in settings.model_dump_json()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_loopback_needs_no_key(host: str) -> None:
    ApiSettings(api_keys="").require_safe_host(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.7", "2001:db8::1", "example.org", "localhost.evil"]
)
def test_a_host_that_others_reach_is_refused_without_keys(host: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        ApiSettings(api_keys="").require_safe_host(host)
    assert refused.value.kind == "unsafe-host"
    assert repr(host) in refused.value.message
    assert "Set PARCELLE_API_KEYS" in refused.value.message


def test_any_host_is_allowed_with_a_key() -> None:
    ApiSettings(api_keys="sesame").require_safe_host("0.0.0.0")
