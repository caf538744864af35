"""``parcelle keys``."""

import hashlib

import pytest

from tests.api.cli.conftest import Parcelle


@pytest.mark.parametrize("scope", ["read", "write"])
def test_a_new_key_comes_with_the_entry_that_lets_it_in(parcelle: Parcelle, scope: str) -> None:
    made = parcelle("keys", "new", "--scope", scope, "--json").json
    digest = hashlib.sha256(made["key"].encode()).hexdigest()
    assert made == {"scope": scope, "key": made["key"], "entry": f"{scope}:sha256:{digest}"}


def test_a_key_is_on_stdout_once_and_not_among_the_notes(parcelle: Parcelle) -> None:
    ran = parcelle("keys", "new")
    first, second = ran.stdout.splitlines()
    key = first.removeprefix("key").strip()
    assert second.removeprefix("entry").strip().startswith("read:sha256:")
    assert ran.stdout.count(key) == 1
    assert key not in ran.stderr
    assert "shown this once" in ran.stderr


def test_a_scope_that_there_is_not_is_wrong_usage(parcelle: Parcelle) -> None:
    assert parcelle("keys", "new", "--scope", "admin").exit_code == 2


def test_a_setting_with_a_wrong_key_is_refused_without_repeating_it(
    parcelle: Parcelle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARCELLE_API_KEYS", "read:sha256:sesame")
    ran = parcelle("serve", "--port", "0")
    assert ran.exit_code == 2
    assert "PARCELLE_API_KEYS: entry 1" in ran.stderr
    assert "sesame" not in ran.stdout + ran.stderr
