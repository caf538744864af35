import pytest

from indexer.errors import InvalidInputError
from indexer.vector_index.effort import RECALLS, Effort, check_recall

EFFORT = Effort(3, 100, 0.96, 50, ((100, 80), (1_000, 260), (10_000, 500)))


@pytest.mark.parametrize(
    ("count", "scored"),
    [
        (1, 1),
        (100, 100),
        # Half of the way from 100 to 1,000, and from 80 to 260.
        (550, 170),
        (1_000, 260),
        (10_000, 500),
        # The more of all rows are left, the more of them are near the query.
        (1_000_000, 500),
    ],
)
def test_of_few_rows_all_are_scored_and_of_many_a_share(count: int, scored: int) -> None:
    assert EFFORT.look_at(count) == scored


def test_where_nothing_was_measured_all_rows_are_scored() -> None:
    assert Effort(1, 0, 1.0, 0, ()).look_at(7_000) == 7_000


def test_an_effort_comes_back_from_its_json_form() -> None:
    import json

    assert Effort.from_dict(json.loads(json.dumps(EFFORT.to_dict()))) == EFFORT


@pytest.mark.parametrize(
    ("asked", "given"), [(0.1, 0.9), (0.9, 0.9), (0.91, 0.95), (0.95, 0.95), (0.99, 0.99)]
)
def test_the_smallest_recall_that_is_enough_is_taken(asked: float, given: float) -> None:
    assert check_recall(asked) == given
    assert given in RECALLS


@pytest.mark.parametrize("asked", [0.0, -1.0, 0.991, 1.0, float("nan")])
def test_another_recall_is_refused_with_those_that_there_are(asked: float) -> None:
    with pytest.raises(InvalidInputError, match=r"0\.9, 0\.95, 0\.99") as caught:
        check_recall(asked)
    assert caught.value.kind == "invalid-recall"
