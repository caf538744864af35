from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, RowMapping, text

from indexer.catalog.database import opened_catalog
from indexer.catalog.tables import UtcDateTime
from indexer.embedding_space import UNTRAINED_NOTE
from indexer.errors import (
    GenerationMismatchError,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from retriever import described
from retriever.described import DescribedRow
from retriever.queries import Bbox, Interval, ParcelFilter
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
    write_image,
)

CROPS = (("BTH", "winter wheat"), ("MIS", "Maize"), ("EPE", "Épeautre"), (None, None))
MAY = Interval.parse("2023-05")
LONG_AGO = datetime.min.replace(tzinfo=UTC)
DAYS = ("2023-04-24", "2023-05-29", "2023-08-12", None)


def ids(matches: Matches) -> list[str]:
    return [match.parcel_id for match in matches.matches]


def scores(matches: Matches) -> list[float]:
    return [match.score for match in matches.matches]


# A parcel asks -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orchard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    """Five parcels around ``a``: closest ``b``, which was seen on three days; ``e`` is clouded."""
    chosen = settings_in(tmp_path_factory.mktemp("orchard"))
    plant(
        chosen,
        [
            Seen("a", at_cosine(1.0), crop_name="winter wheat", crop_code="BTH"),
            Seen(
                "a",
                at_cosine(0.99, axis=9),
                "2023-04-24",
                crop_name="winter wheat",
                crop_code="BTH",
            ),
            Seen("b", at_cosine(0.7), day="2023-04-24"),
            Seen("b", at_cosine(0.9), day="2023-05-29"),
            Seen("b", at_cosine(0.8), day="2023-08-12"),
            Seen("c", at_cosine(0.6, axis=2)),
            Seen("d", at_cosine(-0.5, axis=3)),
            Seen("e", None, reliable=False, valid_fraction=0.1),
        ],
    )
    with searching(chosen) as searcher:
        yield searcher


def test_the_closest_come_first_and_each_parcel_once_with_its_best_date(
    orchard: ParcelSearcher,
) -> None:
    matches = orchard.similar_by_id("a", k=3)
    assert ids(matches) == ["b", "c", "d"]
    assert scores(matches) == pytest.approx([0.9, 0.6, -0.5], abs=1e-6)
    assert [match.rank for match in matches.matches] == [1, 2, 3]
    assert matches.matches[0].scene == "scene-2023-05-29"
    assert matches.notes == ()


def test_a_parcel_of_many_dates_leaves_room_for_the_others(empty: Settings) -> None:
    days = [f"2023-{month:02}-15" for month in range(1, 13)]
    often = [Seen("often", at_cosine(0.9 - n / 100), day=day) for n, day in enumerate(days)]
    plant(empty, [Seen("a", at_cosine(1)), *often, Seen("once", at_cosine(0.5))])
    with searching(empty) as searcher:
        assert ids(searcher.similar_by_id("a", k=1)) == ["often"]
        assert ids(searcher.similar_by_id("a", k=2)) == ["often", "once"]
        in_2023 = ParcelFilter(interval=Interval.parse("2023"))
        assert ids(searcher.similar_by_id("a", k=2, where=in_2023)) == ["often", "once"]


def test_every_observation_can_be_asked_for(orchard: ParcelSearcher) -> None:
    matches = orchard.similar_by_id("a", k=5, observations=True)
    assert ids(matches) == ["b", "b", "b", "c", "d"]
    assert scores(matches) == pytest.approx([0.9, 0.8, 0.7, 0.6, -0.5], abs=1e-6)


@pytest.mark.parametrize("observations", [False, True])
def test_search_never_returns_the_query_parcel(orchard: ParcelSearcher, observations: bool) -> None:
    for asked in "abcd":
        matches = orchard.similar_by_id(asked, k=1000, observations=observations)
        assert asked not in ids(matches)
        wheat = ParcelFilter(crops=("winter wheat",))
        filtered = orchard.similar_by_id(asked, k=9, where=wheat, observations=observations)
        assert set(ids(filtered)) == {"a"} - {asked}


def test_a_match_says_what_was_seen_when_and_where(orchard: ParcelSearcher) -> None:
    (match,) = orchard.similar_by_id("c", k=1).matches
    assert match.to_dict() == {
        "rank": 1,
        "score": pytest.approx(0.6, abs=1e-6),
        "collection": "demo",
        "id": "a",
        "crop:code": "BTH",
        "crop:name": "winter wheat",
        "metrics:area": 12345.0,
        "datetime": "2023-05-29T10:50:31Z",
        "scene": "scene-2023-05-29",
        "valid_fraction": 1.0,
        "reliable": True,
        "medians": {"NDVI": 0.7, "NDMI": 0.3},
        "cluster": None,
        "cluster:number": None,
        "cluster:score": None,
    }
    assert match.geometry is not None
    assert match.geometry.bounds == (2.0, 49.0, 2.01, 49.01)


def test_the_answer_tells_question_generation_and_space(orchard: ParcelSearcher) -> None:
    matches = orchard.similar_by_id("a", k=2)
    assert matches.query == {
        "collection": "demo",
        "id": "a",
        "datetime": "2023-05-29T10:50:31Z",
        "scene": "scene-2023-05-29",
        "reliable": True,
        "k": 2,
        "filter": {},
    }
    assert matches.generation == 1
    (generation,) = orchard.generations()
    assert matches.space["id"] == generation.manifest.space_digest[:12]
    assert matches.space["encoder"] == "croma-large"


def test_more_than_there_are_returns_all_and_says_so(orchard: ParcelSearcher) -> None:
    matches = orchard.similar_by_id("a", k=50)
    assert len(matches.matches) == 3
    assert matches.notes == ("Only 3 parcels match; 50 were asked for.",)
    every = orchard.similar_by_id("a", k=50, observations=True)
    assert every.notes == ("Only 5 observations match; 50 were asked for.",)


def test_untrained_weights_are_named_in_every_answer(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))], weights=UNTRAINED)
    with searching(chosen) as searcher:
        assert searcher.similar_by_id("a", k=1).notes == (UNTRAINED_NOTE,)
        assert searcher.similar_by_vector(at_cosine(1), k=1).notes == (UNTRAINED_NOTE,)


@pytest.mark.parametrize("k", [0, 1001])
def test_k_out_of_bounds_is_refused_by_every_question(orchard: ParcelSearcher, k: int) -> None:
    with pytest.raises(InvalidInputError, match=f"k is {k}"):
        orchard.similar_by_id("a", k=k)
    with pytest.raises(InvalidInputError, match=f"k is {k}"):
        orchard.similar_by_vector(at_cosine(1), k=k)


def test_the_latest_reliable_observation_asks(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    plant(
        chosen,
        [
            Seen("a", at_cosine(1), day="2023-04-24"),
            Seen("a", at_cosine(0, axis=7), day="2023-08-12", reliable=False),
            Seen("a", at_cosine(0, axis=8), day=None),
            Seen("b", at_cosine(0.9)),
            Seen("doubtful", at_cosine(0, axis=7), day="2023-04-24", reliable=False),
        ],
    )
    with searching(chosen) as searcher:
        asked = searcher.similar_by_id("a", k=1)
        assert asked.query["datetime"] == "2023-04-24T10:50:31Z"
        assert scores(asked) == pytest.approx([0.9], abs=1e-6)
        doubtful = searcher.similar_by_id("doubtful", k=1)
        assert doubtful.query["reliable"] is False


def test_a_parcel_without_a_vector_cannot_ask(orchard: ParcelSearcher) -> None:
    with pytest.raises(NotFoundError, match='Parcel "e" of "demo" has no vector') as caught:
        orchard.similar_by_id("e")
    assert caught.value.kind == "parcel-not-embedded"


# Which parcel is meant -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    """A collection of 60 numbered parcels, and one that shares an id with it."""
    chosen = settings_in(tmp_path_factory.mktemp("numbered"))
    vectors = random_vectors(62)
    plots = [Seen(f"plot-{n:03}", vector) for n, vector in enumerate(vectors[:60])]
    plant(chosen, [*plots, Seen("plot-007", vectors[60], collection="other")])
    with searching(chosen) as searcher:
        yield searcher


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("plot-0044", "plot-044"),
        ("plot-44", "plot-044"),
        ("PLOT-044", "plot-044"),
        ("plt-044", "plot-044"),
        ("plot044", "plot-044"),
    ],
)
def test_an_unknown_id_names_the_near_ones(
    numbered: ParcelSearcher, asked: str, meant: str
) -> None:
    with pytest.raises(NotFoundError, match=f'"{meant}"') as caught:
        numbered.similar_by_id(asked)
    assert caught.value.kind == "parcel-not-found"
    assert f'No parcel "{asked}".' in str(caught.value)
    with pytest.raises(NotFoundError, match="Nearest ids"):
        numbered.state(asked, collection="demo")


def test_near_ids_are_named_on_every_database(empty: Settings) -> None:
    plant(empty, [Seen(f"Plot_{n:03}", at_cosine(1)) for n in range(30)])
    with searching(empty) as searcher, pytest.raises(NotFoundError, match='"Plot_017"'):
        searcher.similar_by_id("plot_17")


def test_near_ids_come_from_the_collection_that_was_named(numbered: ParcelSearcher) -> None:
    with pytest.raises(NotFoundError, match=r'in collection "other". Nearest ids: "plot-007"\.'):
        numbered.similar_by_id("plot-044", collection="other")


def test_an_unknown_collection_names_those_there_are(numbered: ParcelSearcher) -> None:
    for ask in (
        lambda: numbered.similar_by_id("plot-001", collection="Demo"),
        lambda: numbered.similar_by_vector(at_cosine(1), collection="Demo"),
        lambda: numbered.state("plot-001", collection="Demo"),
        lambda: numbered.similar_by_id("plot-001", where=ParcelFilter(collections=("Demo",))),
    ):
        with pytest.raises(NotFoundError, match='No collection "Demo"; there is "demo", "other"'):
            ask()


def test_an_id_of_two_collections_needs_its_collection(numbered: ParcelSearcher) -> None:
    with pytest.raises(
        InvalidInputError, match=r'several collections \("demo", "other"\)'
    ) as caught:
        numbered.similar_by_id("plot-007")
    assert caught.value.kind == "ambiguous-parcel"
    in_demo = numbered.similar_by_id("plot-007", collection="demo", k=1000)
    in_other = numbered.similar_by_id("plot-007", collection="other", k=1000)
    assert ("other", "plot-007") in {(m.collection, m.parcel_id) for m in in_demo.matches}
    assert ("demo", "plot-007") in {(m.collection, m.parcel_id) for m in in_other.matches}
    assert len(in_demo.matches) == len(in_other.matches) == 60


def test_an_empty_database_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="run parcelle reindex first") as caught:
        ParcelSearcher.open(settings_in(tmp_path))
    assert caught.value.kind == "database-empty"


def test_a_collection_that_was_never_published_says_so(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen("a", at_cosine(1))], publish=False)
    with searching(chosen) as searcher:
        with pytest.raises(NotFoundError, match='Collection "demo" has no published generation'):
            searcher.similar_by_id("a")
        with pytest.raises(NotFoundError, match="The index has no published generation"):
            searcher.similar_by_vector(at_cosine(1))
        assert searcher.generations() == []


# Filters -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """60 parcels of two collections, seen one to four times, on both sides of the date line."""
    chosen = settings_in(tmp_path_factory.mktemp("world"))
    random = np.random.default_rng(5)
    vectors = iter(random_vectors(300))
    observations = []
    for number in range(60):
        code, name = CROPS[number % len(CROPS)]
        west = float(random.choice([-180.0, -179.5, 2.0, 10.0, 179.0, 179.99]))
        south = float(random.uniform(-80, 80))
        for day in random.permutation(np.array(DAYS, dtype=object))[: random.integers(1, 5)]:
            observations.append(
                Seen(
                    f"parcel-{number:02}",
                    next(vectors),
                    day=day,
                    collection=("north", "south")[number % 2],
                    crop_code=code,
                    crop_name=name,
                    corner=None if number % 11 == 0 else (west, south),
                    reliable=bool(random.random() < 0.8),
                )
            )
    plant(chosen, observations)
    return chosen


@pytest.fixture(scope="module")
def traveller(world: Settings) -> Iterator[ParcelSearcher]:
    """Searches ``world``, of which every vector is looked at."""
    with searching(world) as searcher:
        yield searcher


def any_case(words: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    cases = [str.lower, str.upper, str.title, str.capitalize, str]
    return st.builds(lambda word, case: case(word), words, st.sampled_from(cases))


crop_words = st.sampled_from([word for crop in CROPS for word in crop if word] + ["rice"])
longitudes = st.sampled_from([-180.0, -179.6, -179.0, 0.0, 2.005, 9.0, 11.0, 179.0, 179.995, 180.0])
bboxes = st.builds(
    lambda west, east, south, height: Bbox(west, south, east, south + height),
    longitudes,
    longitudes,
    st.floats(-90, 0),
    st.floats(0, 90),
)
intervals = st.sampled_from(
    ["2023", "2023-04", "2023-05-29", "../2023-05-29", "2023-05/..", "../..", "2024"]
).map(Interval.parse)
filters = st.builds(
    ParcelFilter,
    collections=st.sampled_from([(), (), ("north",), ("south",), ("north", "south")]),
    crops=st.one_of(st.just(()), st.lists(any_case(crop_words), min_size=1, max_size=3).map(tuple)),
    bbox=st.none() | bboxes,
    interval=st.none() | intervals,
)


def stored_rows(chosen: Settings) -> list[RowMapping]:
    statement = text(
        "select e.vector, o.acquired_at, o.reliable, o.id as observation, p.parcel_id, "
        "p.crop_code, p.crop_name, p.west, p.south, p.east, p.north, c.name as collection "
        "from embeddings e join observations o on o.id = e.observation_id "
        "join parcels p on p.id = o.parcel_id join collections c on c.id = p.collection_id"
    )
    with opened_catalog(chosen) as engine, engine.connect() as connection:
        found = connection.execute(statement.columns(acquired_at=UtcDateTime))
        return list(found.mappings())


def lets_through(chosen: ParcelFilter, row: RowMapping) -> bool:
    """The filter, written once more in plain Python."""
    if chosen.collections and row["collection"] not in chosen.collections:
        return False
    names = {str(name).casefold() for name in (row["crop_code"], row["crop_name"]) if name}
    if chosen.crops and not names & {crop.casefold() for crop in chosen.crops}:
        return False
    if chosen.interval is not None:
        if row["acquired_at"] is None:
            return False
        day = row["acquired_at"].date().isoformat()
        first, last = {
            "2023": ("2023-01-01", "2023-12-31"),
            "2023-04": ("2023-04-01", "2023-04-30"),
            "2023-05-29": ("2023-05-29", "2023-05-29"),
            "../2023-05-29": ("0000", "2023-05-29"),
            "2023-05/..": ("2023-05-01", "9999"),
            "../..": ("0000", "9999"),
            "2024": ("2024-01-01", "2024-12-31"),
        }[str(chosen.interval)]
        if not first <= day <= last:
            return False
    if chosen.bbox is None:
        return True
    if row["west"] is None or row["south"] > chosen.bbox.north or row["north"] < chosen.bbox.south:
        return False
    spans = [(chosen.bbox.west, chosen.bbox.east)]
    if chosen.bbox.west > chosen.bbox.east:
        spans = [(chosen.bbox.west, 180.0), (-180.0, chosen.bbox.east)]
    return any(row["west"] <= east and row["east"] >= west for west, east in spans)


def ranking(
    rows: list[RowMapping], asked: str, where: ParcelFilter, observations: bool
) -> dict[str, list[float]]:
    """Scores of every parcel that may answer, best first, by looking at all vectors."""
    own = [row for row in rows if row["parcel_id"] == asked]
    latest = max(
        own,
        key=lambda row: (row["reliable"], row["acquired_at"] or LONG_AGO, row["observation"]),
    )
    query = np.frombuffer(latest["vector"], "<f4").astype(np.float64)
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["parcel_id"] != asked and lets_through(where, row):
            score = float(np.frombuffer(row["vector"], "<f4").astype(np.float64) @ query)
            found.setdefault(row["parcel_id"], []).append(score)
    return {
        parcel_id: sorted(of_one, reverse=True)[: None if observations else 1]
        for parcel_id, of_one in found.items()
    }


@given(
    asked=st.integers(0, 59).map("parcel-{:02}".format),
    where=filters,
    k=st.integers(1, 70),
    observations=st.booleans(),
)
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_a_filtered_search_is_the_ranking_of_all_that_the_filter_lets_through(
    traveller: ParcelSearcher,
    world: Settings,
    asked: str,
    where: ParcelFilter,
    k: int,
    observations: bool,
) -> None:
    expected = ranking(stored_rows(world), asked, where, observations)
    matches = traveller.similar_by_id(asked, k=k, where=where, observations=observations)
    best = sorted((score for of_one in expected.values() for score in of_one), reverse=True)[:k]
    assert scores(matches) == pytest.approx(best, abs=1e-5)
    for match in matches.matches:
        assert any(
            score == pytest.approx(match.score, abs=1e-5) for score in expected[match.parcel_id]
        )


@pytest.mark.parametrize("crop", ["BTH", "bth", "Winter Wheat", "winter wheat", "WINTER WHEAT"])
def test_a_crop_is_found_by_code_or_name_in_any_case(traveller: ParcelSearcher, crop: str) -> None:
    matches = traveller.similar_by_id("parcel-01", k=60, where=ParcelFilter(crops=(crop,)))
    assert {match.crop_code for match in matches.matches} == {"BTH"}
    assert len(matches.matches) == 15


def test_a_crop_beyond_ascii_is_found_in_any_case(empty: Settings) -> None:
    names = ("Épeautre", "ÉPEAUTRE", "épeautre", "Blé d'hiver", "maïs")
    plant(empty, [Seen("a", at_cosine(1)), *(Seen(n, at_cosine(0.5), crop_name=n) for n in names)])
    with searching(empty) as searcher:
        for crop in ("Épeautre", "épeautre", "ÉPEAUTRE"):
            found = searcher.similar_by_id("a", where=ParcelFilter(crops=(crop,)))
            assert set(ids(found)) == set(names[:3])
        for crop in ("MAÏS", "Maïs"):
            assert ids(searcher.similar_by_id("a", where=ParcelFilter(crops=(crop,)))) == ["maïs"]


def test_a_bbox_across_the_antimeridian_finds_both_sides(empty: Settings) -> None:
    vectors = random_vectors(5)
    places = {
        "asks": (2.0, 49.0),
        "fiji-west": (179.5, -17.0),
        "fiji-east": (-179.5, -17.0),
        "samoa": (-172.0, -13.8),
        "elsewhere": (0.0, -17.0),
    }
    plant(
        empty,
        [Seen(name, vectors[n], corner=place) for n, (name, place) in enumerate(places.items())],
    )
    with searching(empty) as searcher:
        fiji = ParcelFilter(bbox=Bbox.parse("177,-20,-178,-15"))
        found = searcher.similar_by_id("asks", where=fiji)
        assert set(ids(found)) == {"fiji-west", "fiji-east"}
        assert found.query["filter"] == {"bbox": "177,-20,-178,-15"}


def test_a_filter_that_lets_nothing_through_finds_nothing_and_says_so(
    orchard: ParcelSearcher,
) -> None:
    matches = orchard.similar_by_id("a", k=4, where=ParcelFilter(crops=("rice",)))
    assert matches.matches == ()
    assert matches.notes == ("Only 0 parcels match; 4 were asked for.",)


def test_more_rows_than_one_statement_takes_are_described_in_parts(
    orchard: ParcelSearcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = orchard.similar_by_id("a", k=10, observations=True)
    monkeypatch.setattr(described, "_MAX_IDS", 2)
    assert orchard.similar_by_id("a", k=10, observations=True) == whole


# A vector asks -------------------------------------------------------------------------------


def test_a_vector_of_any_length_asks(orchard: ParcelSearcher) -> None:
    expected = orchard.similar_by_vector(at_cosine(1), k=4)
    assert ids(expected) == ["a", "b", "c", "d"]
    assert expected.query == {"vector": "512 numbers", "k": 4, "filter": {}}
    for factor in (1e-30, 0.5, 3.0, 1e30):
        longer = orchard.similar_by_vector(at_cosine(1) * np.float32(factor), k=4)
        assert scores(longer) == pytest.approx(scores(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("vector", "complaint"),
    [
        (np.ones(511, np.float32), "has shape"),
        (np.ones((1, 512), np.float32), "has shape"),
        (np.zeros(512, np.float32), "not all zero"),
        (np.full(512, np.nan, np.float32), "finite numbers"),
        (np.full(512, np.inf, np.float32), "finite numbers"),
        (np.empty(0, np.float32), "not all zero"),
        (["north"] * 512, "list of numbers"),
        ([[1.0], [1.0, 2.0]], "list of numbers"),
    ],
)
def test_an_unusable_vector_is_refused(
    orchard: ParcelSearcher, vector: FloatArray, complaint: str
) -> None:
    with pytest.raises(InvalidInputError, match=complaint) as caught:
        orchard.similar_by_vector(vector)
    assert caught.value.kind == "invalid-vector"


def test_a_vector_of_another_space_is_refused(orchard: ParcelSearcher) -> None:
    (generation,) = orchard.generations()
    digest = generation.manifest.space_digest
    for right in (digest, digest[:12]):
        assert orchard.similar_by_vector(at_cosine(1), space=right, k=1).matches
    for wrong in ("0" * 64, "0" * 12, digest[:11], ""):
        with pytest.raises(GenerationMismatchError, match="cannot be compared") as caught:
            orchard.similar_by_vector(at_cosine(1), space=wrong)
        assert caught.value.kind == "space-mismatch"


def test_vectors_of_two_spaces_never_meet(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen(name, at_cosine(1), collection="large") for name in "ab"])
    plant(
        chosen,
        [Seen(name, at_cosine(1), collection="base") for name in "cd"],
        encoder="croma-base",
    )
    with searching(chosen) as searcher:
        assert ids(searcher.similar_by_id("a")) == ["b"]
        assert ids(searcher.similar_by_id("c")) == ["d"]
        assert set(ids(searcher.similar_by_vector(at_cosine(1), collection="base"))) == {"c", "d"}
        with pytest.raises(InvalidInputError, match='name one of "base", "large"'):
            searcher.similar_by_vector(at_cosine(1))
        assert len(searcher.generations()) == 2
        nowhere = searcher.similar_by_id("a", where=ParcelFilter(collections=("base",)))
        assert nowhere.matches == ()


def test_a_collection_is_no_longer_found_in_the_space_it_left(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    stays = [Seen(name, at_cosine(1), collection="stays") for name in "ab"]
    moves = [Seen("c", at_cosine(0.9), collection="moves")]
    plant(chosen, [*stays, *moves])
    plant(chosen, moves, encoder="croma-base")
    with searching(chosen) as searcher:
        assert ids(searcher.similar_by_id("a")) == ["b"]
        assert ids(searcher.similar_by_id("a", where=ParcelFilter(interval=MAY))) == ["b"]


# Generations come and go ---------------------------------------------------------------------


def test_a_generation_published_meanwhile_answers_from_the_next_question(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))])
    with searching(chosen) as searcher:
        assert searcher.similar_by_id("a").generation == 1
        plant(chosen, [Seen("c", at_cosine(0.9)), Seen("b", at_cosine(0.8))])
        after = searcher.similar_by_id("a")
        assert after.generation == 2
        assert ids(after) == ["c", "b"]
        assert scores(after) == pytest.approx([0.9, 0.8], abs=1e-6)


def test_a_question_that_a_publication_overtakes_is_answered_from_one_moment(
    empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5)), Seen("c", at_cosine(0.4))]
    plant(empty, before)

    def overtaken(connection: Connection, rows: Sequence[int]) -> dict[int, DescribedRow]:
        monkeypatch.undo()
        plant(empty, [replace(seen, vector=at_cosine(0.3)) for seen in before])
        return described.describe_rows(connection, rows)

    with searching(empty) as searcher:
        monkeypatch.setattr("retriever.ranking.describe_rows", overtaken)
        matches = searcher.similar_by_id("a")
        assert matches.generation == 1
        assert scores(matches) == pytest.approx([0.5, 0.4], abs=1e-6)
        assert searcher.similar_by_id("a").generation == 2


def test_a_reindex_that_dies_before_publication_leaves_an_index_that_is_up_to_date(
    tmp_path: Path, tiny_croma: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings_in(tmp_path / "index")
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        write_image(folder / f"{name}.tif", seed)
    options = ReindexOptions(encoder=tiny_croma, device="cpu")
    reindex(chosen, [folder], options)
    with searching(chosen) as searcher:
        before = searcher.similar_by_id("a")
        assert set(ids(before)) == {"b", "c"}
        write_image(folder / "b.tif", seed=7)
        write_image(folder / "d.tif", seed=8)
        monkeypatch.setattr("indexer.reindex.build_generation", die)
        with pytest.raises(KeyboardInterrupt):
            reindex(chosen, [folder], options)
        meanwhile = searcher.similar_by_id("a")
        assert set(ids(meanwhile)) == {"b", "c", "d"}
        assert meanwhile.generation == 1
        told = {match.parcel_id: match.score for match in meanwhile.matches}
        known = {match.parcel_id: match.score for match in before.matches}
        assert told["c"] == pytest.approx(known["c"], abs=1e-6)
        assert told["b"] != pytest.approx(known["b"], abs=1e-6)
        assert set(ids(searcher.similar_by_id("b"))) == {"a", "c", "d"}
        monkeypatch.undo()
        report = reindex(chosen, [folder], options)
        after = searcher.similar_by_id("a")
        assert after.generation == report.generation == 2
        assert ids(after) == ids(meanwhile)
        assert scores(after) == pytest.approx(scores(meanwhile), abs=1e-6)


def die(*_1: object, **_2: object) -> None:
    raise KeyboardInterrupt


def damaged_by(how: str, content: bytes) -> bytes:
    if how == "one flipped bit":
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    return content[: len(content) // 2] if how == "truncated" else b""


@pytest.mark.parametrize("how", ["one flipped bit", "truncated", "empty", "missing"])
def test_a_damaged_index_is_refused_by_name(tmp_path: Path, how: str) -> None:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))])
    file = chosen.generations_dir / "1" / "vectors.npy"
    content = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(damaged_by(how, content))
    with searching(chosen) as searcher:
        for ask in (
            lambda: searcher.similar_by_id("a"),
            lambda: searcher.similar_by_vector(at_cosine(1)),
            searcher.generations,
        ):
            with pytest.raises(StorageError, match=str(file)) as caught:
                ask()
            assert caught.value.kind == "generation-corrupt"
        assert searcher.state("a").parcel.parcel_id == "a"
        file.write_bytes(content)
        assert ids(searcher.similar_by_id("a")) == ["b"]
