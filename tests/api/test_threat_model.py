"""``docs/threat-model.md`` names tests and settings that there are."""

import re
from pathlib import Path

import pytest

from api.settings import ApiSettings

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(?:tests/)?((?:api|indexer|retriever)/[a-z_/]*(?:\.py)?)`", PAGE)))
SETTINGS = sorted(set(re.findall(r"`(?:PARCELLE_)?([A-Z]+_[A-Z_]+)`", PAGE)))


@pytest.mark.parametrize("name", NAMED)
def test_what_the_page_says_shows_a_promise_is_there(name: str) -> None:
    path = TESTS / name
    assert path.is_file() or list(path.glob("test_*.py"))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_the_page_names_is_one(name: str) -> None:
    assert name.lower() in ApiSettings.model_fields


def test_the_page_names_some() -> None:
    assert len(NAMED) > 10
    assert {"DECODE_MEMORY", "MAX_BODY_BYTES"} <= set(SETTINGS)
