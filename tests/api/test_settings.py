import pytest
from pydantic import ValidationError

from api.keys import ApiKey
from api.settings import ApiSettings
from indexer.errors import InvalidInputError


def keys_of(settings: ApiSettings) -> list[ApiKey]:
    return list(settings.api_keys)


def test_keys_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARCELLE_API_KEYS", "first, read:second,")
    assert keys_of(ApiSettings()) == [ApiKey.of("first", "write"), ApiKey.of("second", "read")]


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


def test_a_complaint_about_a_key_does_not_repeat_it() -> None:
    for wrong in (
        "good,read:sha256:sesame",
        "sha256:sesame",
        "sesame,write:",
        "read:sha256:sesame,",
    ):
        with pytest.raises(ValidationError, match=r"PARCELLE_API_KEYS: entry [12]") as refused:
            ApiSettings(api_keys=wrong)
        assert "sesame" not in str(refused.value)


def test_settings_keep_no_key_but_its_digest() -> None:
    settings = ApiSettings(api_keys="sesame")
    shown = [repr(settings), str(settings.model_dump()), settings.model_dump_json()]
    digest = settings.api_keys[0].digest.get_secret_value()
    assert not [text for text in shown if "sesame" in text or digest in text]


@pytest.mark.parametrize("memory", ["", "much", "0", "100MiB"])
def test_too_little_memory_for_uploads_is_refused(memory: str) -> None:
    with pytest.raises(ValidationError, match="at least 512MiB"):
        ApiSettings(api_keys="", decode_memory=memory)


def test_memory_for_uploads_is_a_size() -> None:
    assert ApiSettings(api_keys="", decode_memory="3GiB").decode_memory_bytes == 3 << 30


def test_hosts_are_names_without_scheme_and_port() -> None:
    settings = ApiSettings(api_keys="", allowed_hosts="Maps.example.org, [::1],*")
    assert settings.allowed_hosts == ("maps.example.org", "[::1]", "*")
    for wrong in ("https://a.org", "a.org:80", "a b"):
        with pytest.raises(ValidationError, match="is no host"):
            ApiSettings(api_keys="", allowed_hosts=wrong)


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


def test_origins_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARCELLE_CORS_ORIGINS", "https://maps.example.org, http://localhost:3000,")
    assert ApiSettings().cors_origins == ("https://maps.example.org", "http://localhost:3000")


def test_no_origin_is_allowed_by_default() -> None:
    assert ApiSettings(cors_origins="").cors_origins == ()


@pytest.mark.parametrize("origin", ["*", "https://a.org", "http://127.0.0.1:80", "http://[::1]:80"])
def test_an_origin_is_taken(origin: str) -> None:
    assert ApiSettings(cors_origins=origin).cors_origins == (origin,)


@pytest.mark.parametrize(
    "origin", ["maps.example.org", "https://a.org/", "https://A.org", "https://*.a.org", "null"]
)
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin; write https://maps"):
        ApiSettings(cors_origins=f"https://b.org,{origin}")


@pytest.mark.parametrize(
    "name", ["max_body_bytes", "request_timeout_s", "max_concurrent_requests", "decode_timeout_s"]
)
def test_limits_are_above_zero(name: str) -> None:
    with pytest.raises(ValidationError):
        ApiSettings.model_validate({name: 0})


@pytest.mark.parametrize(
    "wrong",
    [
        "tiles.example.org/{z}/{x}/{y}.png",
        "https://tiles.example.org/{z}/{x}.png",
        "https://tiles.example.org/{z}/{x}/{y}.png; script-src *",
        "https://tiles.example.org https://evil.example/{z}/{x}/{y}",
        "javascript:alert({z}{x}{y})",
    ],
)
def test_a_basemap_is_an_address_of_tiles(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"write\s+https://tiles\.example\.org/\{z\}/\{x\}/\{y\}"):
        ApiSettings(api_keys="", basemap_url=wrong)
    right = "https://user-tiles.example.org:8443/a/{z}/{x}/{y}@2x.png?key=1"
    assert ApiSettings(api_keys="", basemap_url=right).basemap_url == right
