"""Stored clusters and their names, wherever a question may meet them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, event

from indexer.catalog.database import connect
from indexer.catalog.tables import Clustering
from indexer.embedding_space import UNTRAINED_NOTE
from indexer.errors import InvalidInputError, NotFoundError
from indexer.settings import Settings
from retriever.cql2.expression import Expression
from retriever.documents import ParcelRetriever
from retriever.memberships import Membership
from retriever.queries import Interval, ParcelFilter
from retriever.search import ParcelSearcher
from tests.retriever.planted import UNTRAINED, Seen, at_cosine, plant, searching, settings_in
from tests.retriever.stored import CHOSEN, SCORE, leave_unassigned, store_clusters
from tests.retriever.tools.asking import answer, artifact, tool_of
from tests.schemas import matter_of_sqlite

WHEAT: dict[str, Any] = {"crop_code": "BTH", "crop_name": "winter wheat"}
NAMES = {1: "cereals", 2: "cereals", 3: "Bäume"}

PLANTED = [
    Seen("a", at_cosine(1.0), **WHEAT),
    Seen("b", at_cosine(0.9), **WHEAT),
    Seen("b", at_cosine(0.2), day="2023-04-24", **WHEAT),
    Seen("c", at_cosine(0.8), attributes={"cluster": "of my own"}, indices={"NDVI": 0.2}),
    Seen("d", at_cosine(0.7)),
    Seen("e", at_cosine(0.6)),
    Seen("hidden", None, reliable=False),
    Seen("far", at_cosine(0.5), collection="other"),
]
"""Of ``b`` the observation of April is in the third cluster; ``e`` is in a fourth, unnamed."""

MEMBERS = (("a", "b"), ("c",), ("d",), ("e",))


@pytest.fixture
def grouped(empty: Settings) -> Settings:
    plant(empty, PLANTED)
    store_clusters(empty, MEMBERS, NAMES, days={"2023-04-24": 3})
    return empty


@pytest.fixture(scope="module")
def searcher(shared: Settings) -> Iterator[ParcelSearcher]:
    """Of the same clusters, which tests only read."""
    plant(shared, PLANTED)
    store_clusters(shared, MEMBERS, NAMES, days={"2023-04-24": 3})
    with searching(shared) as found:
        yield found


def where(written: str, interval: str | None = None) -> ParcelFilter:
    return ParcelFilter(
        expression=Expression.parse(written),
        interval=None if interval is None else Interval.parse(interval),
    )


def listed(searcher: ParcelSearcher, written: str, interval: str | None = None) -> list[str]:
    """Ids of the parcels of a list."""
    found = searcher.parcels(where=where(written, interval), limit=100)
    return [one.parcel.parcel_id for one in found.parcels]


def matched(searcher: ParcelSearcher, written: str) -> list[tuple[str, str]]:
    """Ids and months of all observations that a search returns."""
    found = searcher.similar_by_vector(
        at_cosine(1.0), collection="demo", k=20, where=where(written), observations=True
    )
    return sorted((one.parcel_id, f"{one.acquired_at:%m}") for one in found.matches)


# The clusters themselves -----------------------------------------------------------------------


def test_the_stored_clusters_are_told_with_names_and_how_k_came_about(
    searcher: ParcelSearcher,
) -> None:
    found = searcher.clusters("demo").to_dict(members=True)
    assert (found["stored"], found["k"], found["chosen"]) == (True, 4, CHOSEN)
    assert found["generation"] == 1
    assert found["created"].endswith("Z")
    assert found["members"] == {"a": 1, "b": 1, "c": 2, "d": 3, "e": 4}
    told = [(one["cluster"], one["name"], one["parcels"]) for one in found["clusters"]]
    assert told == [(1, "cereals", 2), (2, "cereals", 1), (3, "Bäume", 1), (4, None, 1)]
    first = found["clusters"][0]
    assert first["share"] == 0.4
    assert first["crops"] == [
        {"crop:code": "BTH", "crop:name": "winter wheat", "parcels": 2, "share": 1.0}
    ]
    assert first["medians"] == {"NDVI": 0.7, "NDMI": 0.3}
    assert found["notes"] == ["In no cluster, for want of a vector that was grouped: 1."]


def test_with_k_the_clusters_are_of_the_moment_and_say_so(searcher: ParcelSearcher) -> None:
    found = searcher.clusters("demo", k=2).to_dict()
    assert found["stored"] is False
    assert "clustering" not in found
    assert [one["name"] for one in found["clusters"]] == [None, None]
    assert "not stored and bear no names" in found["notes"][-1]


def test_without_stored_clusters_some_of_the_moment_are_made(empty: Settings) -> None:
    plant(empty, [Seen(f"p{n}", at_cosine(0.9 - n / 20)) for n in range(9)])
    with searching(empty) as searcher:
        found = searcher.clusters("demo")
    assert (found.stored, found.k) == (None, 8)


def test_names_that_wait_for_a_cluster_are_told(grouped: Settings) -> None:
    leave_unassigned(grouped, "orchards")
    with searching(grouped) as searcher:
        (waiting,) = searcher.clusters("demo").to_dict()["unassigned"]
    assert waiting["name"] == "orchards"
    assert waiting["reason"] == "two clusters are as close"
    assert [one["cluster"] for one in waiting["candidates"]] == [2]


def test_a_name_shows_at_once_in_answers_that_are_kept(grouped: Settings) -> None:
    with searching(grouped) as searcher, searching(grouped) as other:
        before = searcher.clusters("demo")
        assert before.clusters[3].name is None
        assert other.name_cluster("demo", 4, " maize ") == "maize"
        after = searcher.clusters("demo")
        assert after.clusters[3].name == "maize"
        # What takes long to find was kept.
        assert after.members is before.members
        other.name_cluster("demo", 4, None)
        assert searcher.clusters("demo").clusters[3].name is None


def test_a_new_clustering_is_told_instead_of_one_that_was_kept(grouped: Settings) -> None:
    with searching(grouped) as searcher:
        assert searcher.clusters("demo").k == 4
        store_clusters(grouped, (("a", "b", "c"), ("d", "e")), {2: "trees"})
        found = searcher.clusters("demo")
        assert [(one.name, one.parcels) for one in found.clusters] == [(None, 3), ("trees", 2)]
        assert set(found.members.values()) == {1, 2}


def test_a_name_for_an_earlier_clustering_is_refused(grouped: Settings) -> None:
    with searching(grouped) as searcher:
        stored = searcher.clusters("demo").stored
        assert stored is not None
        searcher.name_cluster("demo", 4, "maize", clustering=stored.clustering)
        with pytest.raises(NotFoundError, match="grouping"):
            searcher.name_cluster("demo", 4, "beet", clustering=stored.clustering + 1)
        assert searcher.clusters("demo").clusters[3].name == "maize"


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "a\u202eb", "a\0b"])
def test_a_name_that_is_none_is_refused(searcher: ParcelSearcher, name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        searcher.name_cluster("demo", 1, name)
    assert caught.value.kind == "invalid-name"


@pytest.mark.parametrize(
    ("collection", "number", "kind"),
    [
        ("demo", 9, "cluster-not-found"),
        ("other", 1, "cluster-not-found"),
        ("dmo", 1, "collection-not-found"),
    ],
)
def test_what_is_not_there_cannot_be_named(
    searcher: ParcelSearcher, collection: str, number: int, kind: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        searcher.name_cluster(collection, number, "maize")
    assert caught.value.kind == kind


def test_clusters_of_an_earlier_space_are_told_to_be(grouped: Settings) -> None:
    plant(
        grouped, [replace(seen) for seen in PLANTED if seen.vector is not None], weights=UNTRAINED
    )
    with searching(grouped) as searcher:
        found = searcher.clusters("demo")
        assert [one.name for one in found.clusters] == ["cereals", "cereals", "Bäume", None]
        assert "earlier embedding" in found.notes[0]
        assert UNTRAINED_NOTE not in found.notes
        # The names still hold of what was observed.
        assert listed(searcher, "cluster = 'Bäume'") == ["d"]
        assert matched(searcher, "cluster = 'Bäume'") == [("b", "04"), ("d", "05")]
        (match,) = searcher.similar_by_id("a", k=1, collection="demo").matches
        assert match.cluster == Membership(1, "cereals", SCORE)


# Filters ---------------------------------------------------------------------------------------

IN_LISTS = {
    "cluster = 'cereals'": ["a", "b", "c"],
    "cluster = 'Cereals'": [],
    "casei(cluster) = casei('CEREALS')": ["a", "b", "c"],
    "casei(cluster) IN (casei('BÄUME'), casei('x'))": ["d"],
    "cluster IN ('Bäume', 'maize')": ["d"],
    "cluster LIKE 'c%'": ["a", "b", "c"],
    "cluster NOT LIKE 'c%'": ["d"],
    "cluster <> 'cereals'": ["d"],
    "NOT cluster = 'cereals'": ["d"],
    "NOT (cluster = 'cereals' OR id = 'd')": [],
    "cluster IS NULL": ["e", "hidden", "far"],
    "cluster IS NOT NULL": ["a", "b", "c", "d"],
    "cluster > 'a'": ["a", "b", "c"],
    "cluster:number = 4": ["e"],
    "cluster:number IN (2, 4)": ["c", "e"],
    "cluster:number BETWEEN 2 AND 3": ["c", "d"],
    "cluster:number IS NULL": ["hidden", "far"],
    "NOT cluster:number = 1": ["c", "d", "e"],
    "cluster:score > 0.7": ["a", "b", "c", "d", "e"],
    "cluster:score > 0.8": [],
    "cluster = 'cereals' AND NDVI < 0.5": ["c"],
    "cluster = 'cereals' AND cluster:number = 2": ["c"],
    "cluster = 'maize' OR NDVI < 0.5": ["c"],
}


@pytest.mark.parametrize("written", IN_LISTS)
def test_a_list_holds_what_is_in_a_cluster(searcher: ParcelSearcher, written: str) -> None:
    assert listed(searcher, written) == IN_LISTS[written]


def test_each_observation_is_held_against_a_cluster_by_itself(searcher: ParcelSearcher) -> None:
    assert matched(searcher, "cluster = 'Bäume'") == [("b", "04"), ("d", "05")]
    assert matched(searcher, "cluster = 'cereals'") == [("a", "05"), ("b", "05"), ("c", "05")]
    assert matched(searcher, "cluster IS NULL") == [("e", "05"), ("far", "05")]
    assert matched(searcher, "NOT cluster:number = 1") == [
        ("b", "04"), ("c", "05"), ("d", "05"), ("e", "05"),
    ]  # fmt: skip
    assert listed(searcher, "cluster = 'Bäume'", "2023-04") == ["b"]


def test_our_cluster_goes_before_an_attribute_of_that_name(searcher: ParcelSearcher) -> None:
    assert listed(searcher, "cluster = 'of my own'") == []
    found = searcher.parcels(where=ParcelFilter(attributes=(("cluster", "of my own"),)))
    assert [one.parcel.parcel_id for one in found.parcels] == ["c"]
    names = [one.name for one in searcher.queryables("demo")]
    assert [name for name in names if name.startswith("cluster")] == [
        "cluster", "cluster:number", "cluster:score",
    ]  # fmt: skip


def test_a_number_is_no_name(searcher: ParcelSearcher) -> None:
    with pytest.raises(InvalidInputError, match='"cluster" is text'):
        listed(searcher, "cluster = 3")


def test_without_clusters_nothing_is_in_one(grouped: Settings) -> None:
    engine = connect(grouped)
    with engine.begin() as connection:
        connection.execute(delete(Clustering))
    engine.dispose()
    with searching(grouped) as searcher:
        assert listed(searcher, "cluster = 'cereals' OR cluster:number > 0") == []
        assert len(listed(searcher, "cluster IS NULL")) == 7


# Answers ---------------------------------------------------------------------------------------


def test_matches_lists_and_states_tell_the_cluster_of_their_observation(
    searcher: ParcelSearcher,
) -> None:
    cereals = {"cluster": "cereals", "cluster:number": 1, "cluster:score": SCORE}
    trees = {"cluster": "Bäume", "cluster:number": 3, "cluster:score": SCORE}
    unnamed = {"cluster": None, "cluster:number": 4, "cluster:score": SCORE}
    none = {"cluster": None, "cluster:number": None, "cluster:score": None}

    found = searcher.similar_by_id("a", k=10, collection="demo", observations=True)
    told = {(one.parcel_id, f"{one.acquired_at:%m}"): one.to_dict() for one in found.matches}
    assert cereals.items() <= told["b", "05"].items()
    assert trees.items() <= told["b", "04"].items()
    assert none.items() <= told["far", "05"].items()

    pages = {one.parcel.parcel_id: one.to_dict() for one in searcher.parcels(limit=100).parcels}
    assert cereals.items() <= pages["b"].items()
    assert unnamed.items() <= pages["e"].items()
    assert none.items() <= pages["hidden"].items()
    assert cereals.items() <= searcher.parcel("b").to_dict().items()

    state = searcher.state("b").to_dict()
    assert cereals.items() <= state.items()
    assert [one["cluster"] for one in state["observations"]] == ["Bäume", "cereals"]
    april = searcher.state("b", where=ParcelFilter(interval=Interval.parse("2023-04"))).to_dict()
    assert trees.items() <= april.items()
    assert none.items() <= searcher.state("hidden").to_dict().items()


def test_what_replaced_a_vector_is_in_no_cluster_until_it_is_put_in_one(
    grouped: Settings,
) -> None:
    plant(grouped, [replace(PLANTED[1], vector=at_cosine(0.85))], publish=False)
    with searching(grouped) as searcher:
        found = {one.parcel_id: one for one in searcher.similar_by_id("a", k=10).matches}
        assert found["b"].cluster is None
        assert searcher.state("b").cluster is None
        assert listed(searcher, "cluster = 'cereals'") == ["a", "c"]


def test_the_state_of_a_parcel_is_that_of_its_latest_reliable_observation(
    empty: Settings,
) -> None:
    seen = Seen("a", at_cosine(1.0))
    plant(
        empty,
        [
            seen,
            replace(seen, day="2023-06-20", reliable=False),
            replace(seen, day=None),
            Seen("b", at_cosine(0.1), day=None, reliable=False),
        ],
    )
    store_clusters(empty, (("a",), ("b",)), {1: "late", 2: "early"}, days={"2023-05-29": 2})
    with searching(empty) as searcher:
        state = searcher.state("a")
        assert state.standing is not None
        assert f"{state.standing.acquired_at:%Y-%m-%d}" == "2023-05-29"
        assert state.cluster == Membership(2, "early", SCORE)
        assert searcher.state("b").cluster == Membership(2, "early", SCORE)
        assert searcher.parcel("a").cluster == state.cluster


# Tools -----------------------------------------------------------------------------------------


def test_tools_tell_clusters_as_stored_text(searcher: ParcelSearcher) -> None:
    found = answer(tool_of(searcher, "search_parcels"), collection="demo")
    assert "id,collection,crop,cluster,hectares,last seen" in found
    assert '"a","demo","winter wheat","cereals",1.23,2023-05-29' in found
    assert '"e","demo",unknown,number 4,' in found
    assert '"hidden","demo",unknown,none,' in found
    like = tool_of(searcher, "find_similar_parcels")
    asked = {"parcel_id": "a", "collection": "demo", "filter": "cluster = 'cereals'"}
    assert '"b","winter wheat","cereals",0.900,2023-05-29' in answer(like, **asked)
    assert 'cluster "cereals"' in answer(like, **asked, response_format="detailed")
    state = tool_of(searcher, "get_parcel_state")
    said = 'Cluster: "cereals" (cosine to its center 0.75, 2023-05-29).'
    assert said in answer(state, parcel_id="b")
    assert "Cluster: number 4 (" in answer(state, parcel_id="e")
    assert "Cluster" not in answer(state, parcel_id="far")
    beside = answer(tool_of(searcher, "compare_parcels"), parcel_ids=["a", "d"])
    assert '1,"a","winter wheat","cereals",2023-05-29' in beside
    held = artifact(tool_of(searcher, "compare_parcels"), parcel_ids=["a", "d"])
    assert [one["observation"]["cluster"] for one in held["parcels"]] == ["cereals", "Bäume"]


def test_documents_tell_the_cluster_where_there_is_one(searcher: ParcelSearcher) -> None:
    retriever = ParcelRetriever(searcher=searcher, k=10)
    told = {one.metadata["id"]: one.page_content for one in retriever.invoke("a")}
    assert told["b"].startswith(
        'Parcel "b" of "demo": crop "winter wheat", cluster "cereals", 1.23 ha; similarity to "a" '
    )
    assert ": crop unknown, cluster number 4, 1.23 ha; " in told["e"]
    assert "cluster" not in told["far"]


def test_tools_say_nothing_of_clusters_where_there_are_none(searcher: ParcelSearcher) -> None:
    found = answer(tool_of(searcher, "search_parcels"), collection="other")
    assert "cluster" not in found


# How they are found ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_a_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    chosen = settings_in(tmp_path_factory.mktemp("file"))
    plant(chosen, PLANTED)
    store_clusters(chosen, MEMBERS, NAMES)
    with searching(chosen) as found:
        yield found


@pytest.mark.parametrize(
    "written",
    [
        "cluster = 'cereals'",
        "cluster IN ('a', 'b')",
        "cluster LIKE '%b%'",
        "cluster <> 'a'",
        "NOT cluster = 'a'",
        "cluster IS NOT NULL",
        "cluster:number = 2",
        "cluster:score > 0.5",
    ],
)
@matter_of_sqlite("how it plans a statement")
def test_a_filter_by_cluster_reads_no_table_of_observations_as_a_whole(
    in_a_file: ParcelSearcher, written: str
) -> None:
    asked: list[tuple[str, Any]] = []

    def note(_1: object, _2: object, statement: str, parameters: Any, *_3: object) -> None:  # noqa: ANN401
        asked.append((statement, parameters))

    event.listen(in_a_file.engine, "before_cursor_execute", note)
    listed(in_a_file, f"collection = 'demo' AND {written}")
    matched(in_a_file, written)
    event.remove(in_a_file.engine, "before_cursor_execute", note)
    filtered = [one for one in asked if "clusters" in one[0]]
    assert len(filtered) >= 3
    with in_a_file.engine.connect() as connection:
        plans = [
            row[3]
            for statement, parameters in filtered
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    read = ("cluster_members", "embeddings_", "observations_")
    assert not [step for step in plans if step.startswith(tuple(f"SCAN {name}" for name in read))]
