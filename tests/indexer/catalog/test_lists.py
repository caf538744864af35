import pytest

from indexer.catalog.lists import MOST_EVENED, evened


@pytest.mark.parametrize(
    ("n", "length"), [(0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (1000, 1024), (8192, 8192)]
)
def test_a_list_grows_to_a_power_of_two(n: int, length: int) -> None:
    assert len(evened(range(n))) == length


@pytest.mark.parametrize("n", [1, 3, 700])
def test_a_list_names_the_same_ids(n: int) -> None:
    assert set(evened(range(n))) == set(range(n))


def test_lists_as_long_as_statements_may_be_stay_as_they_are() -> None:
    assert len(evened(range(MOST_EVENED + 1))) == MOST_EVENED + 1
