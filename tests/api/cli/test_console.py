import json

import pytest

from api.cli import console
from indexer.skipped import Skipped

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp"


def test_stored_text_reaches_the_terminal_as_characters_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.say(f"crop {HOSTILE}")
    console.say_table(["crop"], [[f"wheat {HOSTILE}"]], right=set())
    console.tell_notes([HOSTILE])
    console.tell_skipped([Skipped(HOSTILE, "unreadable", HOSTILE)])
    out, err = capsys.readouterr()
    assert out.count(SHOWN) == err.count(SHOWN) == 2
    for character in "\x1b\x07\x9b\u202e":
        assert character not in out + err


def test_a_line_break_in_a_name_makes_no_line_of_its_own_in_a_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.say_table(["id", "crop"], [["1", "wheat\n2   maize"]], right=set())
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_json_on_a_terminal_is_the_same_value_in_harmless_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.say_json({"crop": HOSTILE, "name": "Maïs 小麦"})
    out = capsys.readouterr().out
    assert "Maïs 小麦" in out
    for character in "\x1b\x07\x9b\u202e":
        assert character not in out
    assert json.loads(out) == {"crop": HOSTILE, "name": "Maïs 小麦"}
