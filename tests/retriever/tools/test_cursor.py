import pytest

from indexer.errors import InvalidInputError
from retriever.tools.cursor import Cursor, check_version, question_of, read_cursor
from retriever.tools.similar import SimilarArguments

QUESTION = question_of(SimilarArguments(parcel_id="a"))


def test_a_cursor_is_read_as_it_was_written() -> None:
    cursor = Cursor(20, 3, QUESTION)
    assert read_cursor(str(cursor), QUESTION) == cursor
    assert read_cursor(f" {cursor}\n", QUESTION) == cursor
    assert read_cursor(None, QUESTION) is None


def test_only_what_changes_the_answer_makes_another_question() -> None:
    same = [
        SimilarArguments(parcel_id="a", k=3),
        SimilarArguments(parcel_id="a", response_format="detailed"),
        SimilarArguments(parcel_id="a", cursor="1.2.abcdef"),
    ]
    assert {question_of(one) for one in same} == {QUESTION}
    others = [
        SimilarArguments(parcel_id="b"),
        SimilarArguments(parcel_id="a", crops=["maize"]),
        SimilarArguments(parcel_id="a", unlike=["b"]),
    ]
    assert len({QUESTION, *map(question_of, others)}) == 4


@pytest.mark.parametrize(
    "text",
    ["", "next", "1.2", "1.2.abcdefg", "-1.2.abcdef", "1.2.ABCDEF", "1.2.abcdef.4", "9" * 50],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="hand back exactly") as caught:
        read_cursor(text, QUESTION)
    assert caught.value.kind == "invalid-cursor"


def test_a_cursor_serves_its_own_question_only() -> None:
    with pytest.raises(InvalidInputError, match="other arguments") as caught:
        read_cursor("1.2.000000", "000001")
    assert caught.value.kind == "cursor-expired"


def test_a_cursor_ends_with_what_it_points_into() -> None:
    assert check_version(Cursor(7, 3, QUESTION), 3) == 7
    assert check_version(None, 3) == 0
    with pytest.raises(InvalidInputError, match="newer data") as caught:
        check_version(Cursor(7, 3, QUESTION), 4)
    assert caught.value.kind == "cursor-expired"
