import json

import pytest

from indexer.plain_text import is_plain, plain, plain_json, plain_lines

OBEYED = [
    ("\x1b[2J", r"\x1b[2J"),
    ("\x07", r"\x07"),
    ("\r", r"\x0d"),
    ("\x7f", r"\x7f"),
    ("\x9b31m", r"\x9b31m"),
    ("\u202e", r"\u202e"),
    ("\u2066", r"\u2066"),
    ("\u2028", r"\u2028"),
    ("\udcff", r"\udcff"),
]


@pytest.mark.parametrize(("text", "shown"), OBEYED)
def test_what_a_terminal_obeys_is_shown_as_its_number(text: str, shown: str) -> None:
    assert not is_plain(f"a{text}b")
    assert plain(f"a{text}b") == f"a{shown}b"
    assert plain_lines(f"a{text}b") == f"a{shown}b"
    plain(text).encode()


@pytest.mark.parametrize("text", ["", "wheat", "Maïs d'été", "小麦", "قمح", "a\xa0b", "=1+1", "%s"])
def test_all_scripts_stay_as_they_are(text: str) -> None:
    assert is_plain(text)
    assert plain(text) == plain_lines(text) == plain_json(text) == text


def test_line_breaks_stay_in_a_message_and_not_in_a_line() -> None:
    assert plain_lines("a\n\tb") == "a\n\tb"
    assert plain("a\n\tb") == r"a\x0a\x09b"


@pytest.mark.parametrize(("text", "_"), OBEYED)
def test_json_says_the_same_in_plain_characters(text: str, _: str) -> None:
    written = plain_json(json.dumps({text: [text]}, ensure_ascii=False, indent=2))
    assert all(is_plain(line) for line in written.split("\n"))
    assert json.loads(written) == {text: [text]}
