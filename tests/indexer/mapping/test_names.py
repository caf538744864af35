from pathlib import Path

import pytest

from indexer.errors import InvalidInputError, NotFoundError
from indexer.mapping.names import NamedCenter, carry_names, match_centers, parse_names


def test_names_are_read_from_options_and_files_and_options_win(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text('{"1": "soil", "3": "wheat"}', encoding="utf-8")
    assert parse_names(file, ["3=winter wheat", "4=a=b"]) == {
        1: "soil",
        3: "winter wheat",
        4: "a=b",
    }
    assert parse_names(None) == {}


@pytest.mark.parametrize("text", ["wheat", "x=wheat", "0=wheat", "-1=wheat", "²=wheat", "1.5=a"])
def test_what_names_no_class_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_names(None, [text])
    assert caught.value.kind == "invalid-option"


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "line\nbreak", "\x00"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_names(None, [f"1={name}"])
    assert caught.value.kind == "invalid-name"


@pytest.mark.parametrize("content", ["[1]", "{", '"x"', '{"1": 5}', '{"one": "wheat"}'])
def test_a_file_that_holds_no_names_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "names.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError):
        parse_names(file)


def test_a_missing_file_of_names_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"names\.json"):
        parse_names(tmp_path / "names.json")


def test_centers_that_hardly_moved_are_matched_whatever_their_order() -> None:
    old = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)]
    new = [(0.0, 9.5), (0.2, 0.0), (10.0, 0.4)]
    assert match_centers(old, new) == {0: 1, 1: 2, 2: 0}


def test_a_class_that_was_cut_in_two_is_matched_to_neither_half() -> None:
    old = [(0.0, 0.0), (10.0, 0.0)]
    new = [(-1.0, 0.0), (1.0, 0.0), (10.0, 0.0)]
    assert match_centers(old, new) == {1: 2}


def test_two_classes_that_became_one_are_not_matched_to_it() -> None:
    old = [(-1.0, 0.0), (1.0, 0.0), (10.0, 0.0)]
    new = [(0.0, 0.0), (10.0, 0.0)]
    assert match_centers(old, new) == {2: 1}


def test_no_centers_match_nothing() -> None:
    assert match_centers([], [(1.0,)]) == {}
    assert match_centers([(1.0,)], []) == {}


def test_names_go_to_the_new_numbers_of_their_classes() -> None:
    old = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)]
    kept = [NamedCenter("wheat", 1, old[0]), NamedCenter("water", 3, old[2])]
    names, unmatched = carry_names(kept, old, [(0.0, 9.9), (0.1, 0.0), (10.0, 0.0)])
    assert names == {2: "wheat", 1: "water"}
    assert unmatched == []


def test_a_name_whose_class_is_gone_is_kept_and_comes_back() -> None:
    old = [(0.0, 0.0), (10.0, 0.0)]
    kept = [NamedCenter("wheat", 1, old[0])]
    cut = [(-1.0, 0.0), (1.0, 0.0), (10.0, 0.0)]
    names, unmatched = carry_names(kept, old, cut)
    assert names == {}
    assert unmatched == kept
    names, unmatched = carry_names(unmatched, cut, [(10.0, 0.0), (0.0, 0.1)])
    assert names == {2: "wheat"}
    assert unmatched == []


def test_two_classes_of_one_name_keep_it_both() -> None:
    old = [(0.0, 0.0), (10.0, 0.0)]
    kept = [NamedCenter("wheat", 1, old[0]), NamedCenter("wheat", 2, old[1])]
    assert carry_names(kept, old, old) == ({1: "wheat", 2: "wheat"}, [])
