"""More like these, less like those: the query vector worked out once more in NumPy."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import GenerationMismatchError, InvalidInputError, NotFoundError
from indexer.settings import Settings
from retriever.queries import ParcelFilter
from retriever.results import Matches
from retriever.search import ParcelSearcher
from tests.retriever.planted import (
    UNTRAINED,
    FloatArray,
    Seen,
    at_cosine,
    plant,
    random_vectors,
    searching,
    settings_in,
)

Floats = npt.NDArray[np.float64]

N = 40
VECTORS = random_vectors(N, seed=7)
NAMES = [f"p{n:02}" for n in range(N)]


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    """Forty parcels in all directions, every fourth of them maize."""
    chosen = settings_in(tmp_path_factory.mktemp("index"))
    crops = ["maize" if n % 4 == 0 else "wheat" for n in range(N)]
    parcels = zip(NAMES, VECTORS, crops, strict=True)
    plant(chosen, [Seen(name, vector, crop_name=crop) for name, vector, crop in parcels])
    with searching(chosen) as searcher:
        yield searcher


def ids(matches: Matches) -> list[str]:
    return [match.parcel_id for match in matches.matches]


def scores(matches: Matches) -> dict[str, float]:
    return {match.parcel_id: match.score for match in matches.matches}


def expected_scores(like: Sequence[int], unlike: Sequence[int]) -> Floats:
    """Cosine of every parcel to the wanted mean less half the unwanted one."""
    vectors = VECTORS.astype(np.float64)
    query = sum(vectors[n] / len(like) for n in like) - sum(
        vectors[n] / (2 * len(unlike)) for n in unlike
    )
    return np.asarray(vectors @ query / np.sqrt(query @ query))


EXAMPLES = st.lists(st.integers(0, N - 1), min_size=1, max_size=8, unique=True)


@given(examples=EXAMPLES, data=st.data())
def test_matches_are_ranked_by_the_cosine_to_what_is_wanted_less_half_the_unwanted(
    searcher: ParcelSearcher, examples: list[int], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(examples)))
    like, unlike = examples[:cut], examples[cut:]
    matches = searcher.similar_by_examples(
        [NAMES[n] for n in like], [NAMES[n] for n in unlike], k=N
    )
    expected = expected_scores(like, unlike)
    others = [n for n in np.argsort(-expected) if n not in examples]
    assert ids(matches) == [NAMES[n] for n in others]
    assert scores(matches) == pytest.approx({NAMES[n]: expected[n] for n in others}, abs=2e-6)


def test_one_example_asks_as_the_parcel_itself(searcher: ParcelSearcher) -> None:
    for name in NAMES[:5]:
        by_example = searcher.similar_by_examples([name], k=N)
        assert by_example == searcher.similar_by_id(name, k=N)
        assert "like" not in by_example.query


@pytest.mark.parametrize("observations", [False, True])
def test_no_example_is_ever_a_match(searcher: ParcelSearcher, observations: bool) -> None:
    like, unlike = NAMES[:3], NAMES[3:6]
    for k in (1, 5, N):
        matches = searcher.similar_by_examples(like, unlike, k=k, observations=observations)
        assert len(matches.matches) == min(k, N - 6)
        assert not {*like, *unlike} & set(ids(matches))


def test_another_day_of_an_example_is_no_match_either(empty: Settings) -> None:
    days = [Seen("a", at_cosine(0.99 - n / 10), f"2023-05-1{n}") for n in range(5)]
    plant(empty, [*days, Seen("b", at_cosine(0.9, axis=2)), Seen("c", at_cosine(0.3, axis=3))])
    with searching(empty) as searcher:
        matches = searcher.similar_by_examples(["b"], ["a"], k=5, observations=True)
    assert ids(matches) == ["c"]


def test_wanted_examples_draw_matches_near_and_unwanted_ones_push_them_away(
    searcher: ParcelSearcher,
) -> None:
    def mean_cosine(matches: Matches, example: FloatArray) -> float:
        return float(np.mean([VECTORS[NAMES.index(name)] @ example for name in ids(matches)]))

    alone = searcher.similar_by_examples([NAMES[0]], k=10)
    drawn = searcher.similar_by_examples(NAMES[:2], k=10)
    pushed = searcher.similar_by_examples([NAMES[0]], [NAMES[1]], k=10)
    other = VECTORS[1]
    assert mean_cosine(drawn, other) > mean_cosine(alone, other) > mean_cosine(pushed, other)


def test_a_filter_limits_the_matches_not_the_examples(searcher: ParcelSearcher) -> None:
    maize = ParcelFilter(crops=("maize",))
    matches = searcher.similar_by_examples([NAMES[1], NAMES[4]], [NAMES[2]], k=N, where=maize)
    expected = expected_scores([1, 4], [2])
    others = [n for n in np.argsort(-expected) if n % 4 == 0 and n != 4]
    assert ids(matches) == [NAMES[n] for n in others]


def test_the_query_names_every_example(searcher: ParcelSearcher) -> None:
    query = searcher.similar_by_examples(NAMES[:2], NAMES[2:4], k=3).query

    def told(name: str) -> dict[str, object]:
        return {
            "collection": "demo",
            "id": name,
            "datetime": "2023-05-29T10:50:31Z",
            "scene": "scene-2023-05-29",
            "reliable": True,
        }

    assert query["like"] == [told(name) for name in NAMES[:2]]
    assert query["unlike"] == [told(name) for name in NAMES[2:4]]
    assert (query["id"], query["k"], query["filter"]) == (NAMES[0], 3, {})


def test_an_unwanted_example_alone_is_no_question(searcher: ParcelSearcher) -> None:
    with pytest.raises(InvalidInputError, match="at least one parcel") as caught:
        searcher.similar_by_examples([], [NAMES[0]])
    assert caught.value.kind == "invalid-examples"


@pytest.mark.parametrize("k", [0, -1, 1001])
def test_k_out_of_bounds_is_refused(searcher: ParcelSearcher, k: int) -> None:
    with pytest.raises(InvalidInputError, match=f"k is {k}"):
        searcher.similar_by_examples(NAMES[:2], k=k)


@pytest.mark.parametrize("place", ["like", "unlike"])
def test_an_unknown_example_is_named(searcher: ParcelSearcher, place: str) -> None:
    like, unlike = (["p00", "p99"], []) if place == "like" else (["p00"], ["p99"])
    with pytest.raises(NotFoundError, match='No parcel "p99"'):
        searcher.similar_by_examples(like, unlike)


# Small indexes of their own ------------------------------------------------------------------


def test_the_latest_reliable_day_of_each_example_asks(empty: Settings) -> None:
    plant(
        empty,
        [
            Seen("a", at_cosine(0.1, axis=5), "2023-04-01"),
            Seen("a", at_cosine(1), "2023-05-01"),
            Seen("a", at_cosine(0.1, axis=6), "2023-06-01", reliable=False),
            Seen("b", at_cosine(0, axis=1), "2023-05-29"),
            Seen("c", at_cosine(0.6, axis=1), "2023-05-29"),
        ],
    )
    with searching(empty) as searcher:
        (match,) = searcher.similar_by_examples(["a", "b"]).matches
        (unlike,) = searcher.similar_by_examples(["a"], ["b"]).matches
    # c is (0.6, 0.8); the mean of the axes is (1, 1) / 2, the difference (1, -1/2).
    assert match.score == pytest.approx((0.6 + 0.8) / np.sqrt(2), abs=1e-6)
    assert unlike.score == pytest.approx((0.6 - 0.4) / np.sqrt(1.25), abs=1e-6)


def test_examples_of_two_spaces_are_refused(empty: Settings) -> None:
    plant(empty, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))])
    plant(empty, [Seen("c", at_cosine(1), collection="later")], weights=UNTRAINED)
    with searching(empty) as searcher:
        for like, unlike in ((["a", "c"], []), (["a"], ["c"]), (["c", "a"], ["b"])):
            with pytest.raises(GenerationMismatchError, match='"c" of "later"') as caught:
                searcher.similar_by_examples(like, unlike)
            assert caught.value.kind == "space-mismatch"
        assert ids(searcher.similar_by_examples(["a"])) == ["b"]


def test_examples_of_two_collections_of_one_space_are_combined(empty: Settings) -> None:
    plant(
        empty,
        [
            Seen("a", at_cosine(1)),
            Seen("b", at_cosine(0), collection="later"),
            Seen("c", at_cosine(0.6), collection="later"),
        ],
    )
    with searching(empty) as searcher:
        (match,) = searcher.similar_by_examples(["a", "b"]).matches
    assert (match.collection, match.parcel_id) == ("later", "c")
    assert match.score == pytest.approx(1.4 / np.sqrt(2), abs=1e-6)


def test_examples_that_cancel_each_other_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    chosen = settings_in(tmp_path_factory.mktemp("index"))
    left = at_cosine(0.5)
    right = 2 * 0.5 * at_cosine(1) - left
    plant(
        chosen,
        [
            Seen("ahead", at_cosine(1)),
            Seen("back", -at_cosine(1)),
            Seen("left", left),
            Seen("right", right),
        ],
    )
    with searching(chosen) as searcher:
        # Opposites have no mean; half of what is ahead is just the mean of left and right.
        for like, unlike in ((["ahead", "back"], []), (["left", "right"], ["ahead"])):
            with pytest.raises(InvalidInputError, match="cancel each other out") as caught:
                searcher.similar_by_examples(like, unlike)
            assert caught.value.kind == "invalid-examples"
        assert ids(searcher.similar_by_examples(["left", "right"], ["back"])) == ["ahead"]


def test_an_example_without_a_vector_is_refused_by_name(empty: Settings) -> None:
    plant(empty, [Seen("a", at_cosine(1)), Seen("clouded", None, reliable=False)])
    with searching(empty) as searcher:
        for like, unlike in ((["a", "clouded"], []), (["a"], ["clouded"])):
            with pytest.raises(NotFoundError, match='"clouded" of "demo" has no vector'):
                searcher.similar_by_examples(like, unlike)
