import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.row_sets import RowSet, rows_in, words_of

sizes = st.integers(1, 300)


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Rows of an index, and some of them."""
    total = draw(sizes)
    return total, sorted(draw(st.sets(st.integers(0, total - 1))))


def all_forms(total: int, rows: list[int]) -> list[RowSet]:
    """One set, made in each way."""
    mask = np.zeros(total, np.bool_)
    mask[rows] = True
    return [
        RowSet.of_rows(np.array(rows, np.int64), total),
        RowSet.of_mask(mask),
        RowSet.of_words(words_of(mask), total),
    ]


@given(some=some_rows())
def test_a_set_holds_its_rows_however_it_was_made(some: tuple[int, list[int]]) -> None:
    total, rows = some
    for number, made in enumerate(all_forms(total, rows)):
        assert (made.total, made.count) == (total, len(rows))
        assert made.rows.tolist() == rows
        assert made.rows.dtype == np.int64
        assert made.is_listed == (number == 0)


@given(some=some_rows())
def test_row_r_is_bit_r_modulo_64_of_word_r_over_64(some: tuple[int, list[int]]) -> None:
    total, rows = some
    for made in all_forms(total, rows):
        words = [int(word) for word in made.words]
        assert len(words) == -(-total // 64)
        for row in range(64 * len(words)):
            assert (words[row // 64] >> (row % 64) & 1) == (row in rows)


@given(some=some_rows(), data=st.data())
def test_rows_of_another_bitmap_can_be_left_out(
    some: tuple[int, list[int]], data: st.DataObject
) -> None:
    total, rows = some
    removed = data.draw(st.sets(st.integers(0, total - 1)))
    mask = np.zeros(total, np.bool_)
    mask[list(removed)] = True
    for made in all_forms(total, rows):
        before = made.rows.copy()
        left = made.without(words_of(mask))
        assert left.rows.tolist() == [row for row in rows if row not in removed]
        assert (left.count, left.total) == (len(left.rows), total)
        assert left.is_listed == made.is_listed
        np.testing.assert_array_equal(made.rows, before)


@given(some=some_rows())
def test_the_complement_holds_all_other_rows_of_the_index(some: tuple[int, list[int]]) -> None:
    total, rows = some
    for made in all_forms(total, rows):
        others = made.complement
        assert others.rows.tolist() == [row for row in range(total) if row not in rows]
        assert others.count == total - len(rows)
        assert others.complement.rows.tolist() == rows


@given(some=some_rows())
def test_faiss_is_told_exactly_the_rows_of_a_set(some: tuple[int, list[int]]) -> None:
    total, rows = some
    for made in all_forms(total, rows):
        selector = made.selector
        assert [row for row in range(total) if selector.is_member(row)] == rows


@pytest.mark.parametrize("total", [63, 64, 65, 128])
def test_a_bitmap_ends_with_the_index(total: int) -> None:
    everything = RowSet.of_mask(np.ones(total, np.bool_))
    assert everything.count == total
    assert rows_in(everything.words).tolist() == list(range(total))
    assert everything.complement.count == 0


def test_an_index_without_rows_has_one_set() -> None:
    nothing = RowSet.of_mask(np.zeros(0, np.bool_))
    assert (nothing.count, nothing.rows.tolist(), nothing.words.tolist()) == (0, [], [])
