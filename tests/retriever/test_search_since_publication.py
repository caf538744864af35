"""Whatever is committed is searched by the next question, without a publication."""

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.catalog.database import connect
from indexer.errors import NotFoundError
from indexer.generations.store import rebuild
from indexer.settings import Settings
from retriever.queries import Bbox, Interval, ParcelFilter
from retriever.results import Matches
from retriever.search import ParcelSearcher
from tests.retriever.planted import (
    Seen,
    at_cosine,
    plant,
    random_vectors,
    redeclare,
    searching,
    settings_in,
    uproot,
)

A, B, C = Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5)), Seen("c", at_cosine(0.4))


@pytest.fixture
def searcher(empty: Settings) -> Iterator[ParcelSearcher]:
    """Has answered from a generation of ``a``, ``b`` and ``c``."""
    plant(empty, [A, B, C])
    with searching(empty) as searcher:
        assert found(searcher) == {"b": 0.5, "c": 0.4}
        yield searcher


def found(searcher: ParcelSearcher, where: ParcelFilter | None = None) -> dict[str, float]:
    """What is like ``a``, closest first, with scores to two digits."""
    return told(searcher.similar_by_id("a", where=where or ParcelFilter()))


def told(matches: Matches) -> dict[str, float]:
    assert len({match.parcel_id for match in matches.matches}) == len(matches.matches)
    return {match.parcel_id: round(match.score, 2) for match in matches.matches}


# One change ----------------------------------------------------------------------------------


def test_a_new_parcel_is_found_by_the_next_question(searcher: ParcelSearcher) -> None:
    plant(searcher.settings, [Seen("new", at_cosine(0.9))], publish=False)
    assert list(found(searcher).items()) == [("new", 0.9), ("b", 0.5), ("c", 0.4)]
    assert searcher.similar_by_id("a").generation == 1


def test_a_new_parcel_asks_at_once(searcher: ParcelSearcher) -> None:
    plant(searcher.settings, [Seen("new", at_cosine(0.5))], publish=False)
    assert told(searcher.similar_by_id("new", k=1)) == {"b": 1.0}


def test_a_new_vector_takes_the_place_of_the_former(searcher: ParcelSearcher) -> None:
    plant(searcher.settings, [replace(B, vector=at_cosine(0.1))], publish=False)
    assert found(searcher) == {"c": 0.4, "b": 0.1}
    every = searcher.similar_by_id("a", observations=True)
    assert [(match.parcel_id, round(match.score, 2)) for match in every.matches] == [
        ("c", 0.4),
        ("b", 0.1),
    ]


def test_the_vector_that_asks_is_the_newest(searcher: ParcelSearcher) -> None:
    plant(searcher.settings, [replace(A, vector=at_cosine(0.5))], publish=False)
    assert found(searcher)["b"] == 1.0


def test_a_vector_that_clouds_took_away_is_not_found(searcher: ParcelSearcher) -> None:
    plant(searcher.settings, [replace(B, vector=None, reliable=False)], publish=False)
    assert found(searcher) == {"c": 0.4}
    with pytest.raises(NotFoundError, match="has no vector"):
        searcher.similar_by_id("b")


def test_another_day_of_a_parcel_is_one_more_observation(searcher: ParcelSearcher) -> None:
    plant(searcher.settings, [replace(C, vector=at_cosine(0.8), day="2023-08-12")], publish=False)
    assert list(found(searcher).items()) == [("c", 0.8), ("b", 0.5)]
    every = searcher.similar_by_id("a", observations=True)
    assert [match.parcel_id for match in every.matches] == ["c", "b", "c"]
    assert found(searcher, ParcelFilter(interval=Interval.parse("2023-05"))) == {"b": 0.5, "c": 0.4}


def test_a_deleted_parcel_is_gone_from_the_next_answer(searcher: ParcelSearcher) -> None:
    uproot(searcher.settings, "b")
    assert found(searcher) == {"c": 0.4}
    assert searcher.similar_by_id("a").notes == ("Only 1 parcels match; 10 were asked for.",)
    with pytest.raises(NotFoundError, match='No parcel "b"'):
        searcher.similar_by_id("b")


def test_a_parcel_that_came_and_went_since_is_not_found(searcher: ParcelSearcher) -> None:
    plant(searcher.settings, [Seen("new", at_cosine(0.9))], publish=False)
    assert "new" in found(searcher)
    uproot(searcher.settings, "new")
    assert found(searcher) == {"b": 0.5, "c": 0.4}


def test_a_parcel_that_comes_back_is_found_as_it_is_now(searcher: ParcelSearcher) -> None:
    uproot(searcher.settings, "b")
    assert "b" not in found(searcher)
    plant(searcher.settings, [replace(B, vector=at_cosine(0.7))], publish=False)
    assert found(searcher) == {"b": 0.7, "c": 0.4}


def test_when_all_others_are_deleted_nothing_is_found(searcher: ParcelSearcher) -> None:
    uproot(searcher.settings, "b", "c")
    assert found(searcher) == {}
    assert found(searcher, ParcelFilter(bbox=Bbox(0, 40, 10, 60))) == {}


def test_a_publication_of_what_was_committed_changes_no_answer(searcher: ParcelSearcher) -> None:
    plant(
        searcher.settings,
        [replace(B, vector=at_cosine(0.6)), Seen("d", at_cosine(0.3))],
        publish=False,
    )
    uproot(searcher.settings, "c")
    before = searcher.similar_by_id("a")
    # The same once more changes nothing that is searched.
    plant(searcher.settings, [Seen("d", at_cosine(0.3))])
    after = searcher.similar_by_id("a")
    assert (before.generation, after.generation) == (1, 2)
    assert told(after) == told(before) == {"b": 0.6, "d": 0.3}


def test_a_generation_that_was_built_anew_answers_though_nothing_else_was_written(
    searcher: ParcelSearcher,
) -> None:
    engine = connect(searcher.settings)
    rebuild(engine, searcher.settings.generations_dir)
    engine.dispose()
    matches = searcher.similar_by_id("a")
    assert matches.generation == 2
    assert told(matches) == {"b": 0.5, "c": 0.4}


def test_a_collection_is_found_once_it_is_published(searcher: ParcelSearcher) -> None:
    later = Seen("l", at_cosine(0.8), collection="later")
    plant(searcher.settings, [later], publish=False)
    assert found(searcher) == {"b": 0.5, "c": 0.4}
    plant(searcher.settings, [later])
    assert found(searcher) == {"l": 0.8, "b": 0.5, "c": 0.4}


# Filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "change"),
    [
        (ParcelFilter(crops=("maize",)), {"crop_name": "Maize"}),
        (ParcelFilter(crops=("mis",)), {"crop_code": "MIS"}),
        (ParcelFilter(bbox=Bbox(10, 50, 11, 51)), {"corner": (10.5, 50.5)}),
        (ParcelFilter(attributes=(("farm", "7"),)), {"attributes": {"farm": "7"}}),
        (ParcelFilter(attributes=(("farm", 7),)), {"attributes": {"farm": 7}}),
        (ParcelFilter(text="hedge"), {"attributes": {"border": "a hedge"}}),
    ],
    ids=["crop name", "crop code", "place", "attribute", "number", "words"],
)
def test_a_filter_goes_by_what_a_parcel_declares_now(
    searcher: ParcelSearcher, where: ParcelFilter, change: dict[str, object]
) -> None:
    # Somebody has the attribute, so that it may be asked for.
    known = Seen("z", at_cosine(0.2), collection="demo", attributes={"farm": 0, "border": ""})
    plant(searcher.settings, [known])
    assert found(searcher, where) == {}
    redeclare(searcher.settings, replace(B, **change))  # type: ignore[arg-type]
    assert found(searcher, where) == {"b": 0.5}
    plant(
        searcher.settings,
        [Seen("new", at_cosine(0.9), **change)],  # type: ignore[arg-type]
        publish=False,
    )
    assert found(searcher, where) == {"new": 0.9, "b": 0.5}
    redeclare(searcher.settings, B)
    assert found(searcher, where) == {"new": 0.9}
    uproot(searcher.settings, "new")
    assert found(searcher, where) == {}


def test_a_filter_on_the_date_sees_the_days_since(searcher: ParcelSearcher) -> None:
    in_august = ParcelFilter(interval=Interval.parse("2023-08"))
    assert found(searcher, in_august) == {}
    plant(searcher.settings, [replace(B, vector=at_cosine(0.3), day="2023-08-12")], publish=False)
    assert found(searcher, in_august) == {"b": 0.3}


@pytest.mark.parametrize("left", [1, 4, 5, 6])
@pytest.mark.parametrize("fresh", [0, 1, 3, 6])
def test_k_parcels_come_back_whenever_base_and_delta_together_hold_k(
    tmp_path: Path, left: int, fresh: int
) -> None:
    k, fresh = 5, min(fresh, left)
    settings = settings_in(tmp_path)
    vectors = random_vectors(40)
    crops = ["rye"] * left + ["oats"] * (30 - left)
    parcels = [
        Seen(f"p{n:02}", vector, crop_name=crop)
        for n, (vector, crop) in enumerate(zip(vectors, crops, strict=False))
    ]
    ask = Seen("a", vectors[39])
    plant(
        settings,
        [ask, *parcels[fresh:], *(replace(one, crop_name=None) for one in parcels[:fresh])],
    )
    with searching(settings) as searcher:
        where = ParcelFilter(crops=("rye",))
        assert len(searcher.similar_by_id("a", k=k, where=where).matches) == min(k, left - fresh)
        # Some of the rye was nothing before, or something else, or elsewhere in the space.
        plant(settings, parcels[:fresh], publish=False)
        rye = parcels[:left]
        scores = {one.parcel_id: float(one.vector @ ask.vector) for one in rye}  # type: ignore[operator]
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:k]
        matches = searcher.similar_by_id("a", k=k, where=where).matches
        assert [match.parcel_id for match in matches] == best
        assert [match.score for match in matches] == pytest.approx(
            [scores[name] for name in best], abs=1e-5
        )


def test_no_example_is_a_match_wherever_its_vectors_lie(searcher: ParcelSearcher) -> None:
    often = [Seen("d", at_cosine(0.9), day=f"2023-06-{day:02}") for day in range(1, 20)]
    plant(searcher.settings, often, publish=False)
    for observations in (False, True):
        matches = searcher.similar_by_examples(["a", "d"], ["b"], k=1, observations=observations)
        assert [match.parcel_id for match in matches.matches] == ["c"]


def test_a_parcel_of_many_new_dates_leaves_room_for_the_others(searcher: ParcelSearcher) -> None:
    often = [Seen("d", at_cosine(0.9), day=f"2023-06-{day:02}") for day in range(1, 29)]
    plant(searcher.settings, often, publish=False)
    assert list(found(searcher)) == ["d", "b", "c"]
    assert [m.parcel_id for m in searcher.similar_by_id("a", k=2).matches] == ["d", "b"]


# Spaces --------------------------------------------------------------------------------------


def test_a_collection_that_moved_to_another_space_answers_there_only(empty: Settings) -> None:
    moves = [
        Seen("m", at_cosine(0.9), collection="moves"),
        Seen("n", at_cosine(0.8), collection="moves"),
    ]
    plant(empty, [A, B, *moves[:1]])
    with searching(empty) as searcher:
        assert found(searcher) == {"m": 0.9, "b": 0.5}
        # Half of it lies in the index, half came since.
        plant(empty, moves[1:], publish=False)
        assert found(searcher) == {"m": 0.9, "n": 0.8, "b": 0.5}
        plant(empty, moves, encoder="croma-base")
        assert found(searcher) == {"b": 0.5}
        assert found(searcher, ParcelFilter(interval=Interval.parse("2023"))) == {"b": 0.5}
        assert found(searcher, ParcelFilter(collections=("moves",))) == {}
        # Both lean towards one axis: .9 x .8 + sqrt(.19) x .6.
        assert told(searcher.similar_by_id("m")) == {"n": 0.98}
        (one,) = searcher.nearest_many(at_cosine(1)[None], collection="demo", k=5)
        assert len(one.ids) == 2


def test_a_collection_that_came_since_and_moved_leaves_nothing_behind(empty: Settings) -> None:
    plant(empty, [A, B])
    came = Seen("m", at_cosine(0.9), collection="moves")
    plant(empty, [came], encoder="croma-base")
    with searching(empty) as searcher:
        # Searched in the other space, so what is new of it in this one stays aside.
        plant(empty, [came], publish=False)
        assert found(searcher) == {"b": 0.5}
        assert searcher.similar_by_id("a", k=1).notes == ()


# Other processes and threads -----------------------------------------------------------------

_open: dict[Path, ParcelSearcher] = {}


def asked_elsewhere(settings: Settings) -> tuple[int, dict[str, float]]:
    """An answer of this process's searcher, which stays open."""
    if settings.data_dir not in _open:
        _open[settings.data_dir] = ParcelSearcher.open(settings)
    matches = _open[settings.data_dir].similar_by_id("a")
    return matches.generation, told(matches)


def test_an_open_searcher_of_another_process_finds_it_as_well(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    # Another process knows no more than what it is handed.
    settings = chosen.model_copy(update={"database_url": chosen.resolved_database_url})
    plant(settings, [A, B, C])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as elsewhere:

        def asked() -> tuple[int, dict[str, float]]:
            return elsewhere.submit(asked_elsewhere, settings).result()

        assert asked() == (1, {"b": 0.5, "c": 0.4})
        plant(
            settings,
            [Seen("new", at_cosine(0.9)), replace(B, vector=at_cosine(0.1))],
            publish=False,
        )
        assert asked() == (1, {"new": 0.9, "c": 0.4, "b": 0.1})
        uproot(settings, "c")
        assert asked() == (1, {"new": 0.9, "b": 0.1})
        plant(settings, [Seen("later", at_cosine(0.8))])
        assert asked() == (2, {"new": 0.9, "later": 0.8, "b": 0.1})


def test_threads_find_all_that_was_committed_before_they_asked(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    steady = [Seen(f"s{n}", at_cosine(0.9 - n / 100, axis=2 + n)) for n in range(5)]
    plant(settings, [A, *steady])
    committed, done = -1, threading.Event()

    def ask(searcher: ParcelSearcher) -> int:
        asked = 0
        while not done.is_set() or not asked:
            before = committed
            for matches in (
                searcher.similar_by_id("a", k=100),
                searcher.similar_by_vector(at_cosine(1), k=100),
            ):
                names = set(told(matches))
                assert {seen.parcel_id for seen in steady} <= names
                assert {f"n{n}" for n in range(before + 1)} <= names
                # It is written over and over, and never gone.
                assert "often" in names or before < 0
            asked += 1
        return asked

    with searching(settings) as searcher, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, searcher) for _ in range(4)]
        try:
            for n in range(25):
                often = Seen("often", at_cosine(0.5 - n / 100, axis=8))
                plant(
                    settings,
                    [
                        often,
                        Seen(f"n{n}", at_cosine(0.2, axis=20 + n)),
                        Seen("goes", at_cosine(0.95)),
                    ],
                    publish=False,
                )
                committed = n
                uproot(settings, "goes")
        finally:
            done.set()
        assert all(one.result() for one in asking)
        last = told(searcher.similar_by_id("a", k=100))
        assert set(last) == {"often", *(s.parcel_id for s in steady), *(f"n{n}" for n in range(25))}
        assert last["often"] == pytest.approx(0.26)


def test_threads_lose_nothing_while_generations_are_published(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    vectors = random_vectors(6)
    parcels = [Seen(f"p{n}", vector) for n, vector in enumerate(vectors)]
    plant(settings, parcels)
    done = threading.Event()

    def ask(searcher: ParcelSearcher) -> set[int]:
        generations = set()
        while not done.is_set():
            matches = searcher.similar_by_vector(vectors[0], k=100)
            assert set(told(matches)) == {f"p{n}" for n in range(6)}
            generations.add(matches.generation)
        return generations

    with searching(settings) as searcher, ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, searcher) for _ in range(3)]
        try:
            for turn in range(6):
                # All are embedded anew: what the generation before holds is deleted.
                plant(settings, [replace(one, valid_fraction=0.5 + turn / 20) for one in parcels])
        finally:
            done.set()
        answered = set().union(*(one.result() for one in asking))
        assert searcher.similar_by_vector(np.asarray(vectors[0])).generation == 7
    assert len(answered) > 1
