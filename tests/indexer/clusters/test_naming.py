import pytest
from sqlalchemy import Engine

from indexer.catalog.clusters import find_clustering
from indexer.catalog.reading import find_collection
from indexer.clusters.listing import list_clusters
from indexer.clusters.making import make_clusters
from indexer.clusters.naming import MAX_NAME, check_name, forget_name, name_cluster
from indexer.errors import InvalidInputError, NotFoundError
from indexer.lock import only_writer
from indexer.settings import Settings
from tests.indexer.clusters.growing import names_of, parcels
from tests.retriever.planted import plant


@pytest.fixture
def grouped(empty: Settings) -> Settings:
    """Three clusters without a name: wheat, maize, grass."""
    plant(empty, [*parcels("wheat", 4, 0), *parcels("maize", 3, 1), *parcels("grass", 2, 2)])
    make_clusters(empty, k=3)
    return empty


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("winter wheat", "winter wheat"),
        ("  maize\t", "maize"),
        ("Blé d'hiver", "Blé d'hiver"),
        ("Ble\u0301", "Blé"),
        ("冬小麦", "冬小麦"),
        ("x" * MAX_NAME, "x" * MAX_NAME),
    ],
)
def test_a_name_is_kept_without_the_spaces_around_it(typed: str, kept: str) -> None:
    assert check_name(typed) == kept


@pytest.mark.parametrize(
    "typed",
    ["", "  ", "x" * (MAX_NAME + 1), "two\nlines", "bell\a", "esc\x1b[2J", "flip\u202eped", "a\0b"],
)
def test_what_is_no_name_is_refused(typed: str) -> None:
    with pytest.raises(InvalidInputError, match="A cluster's name") as caught:
        check_name(typed)
    assert caught.value.kind == "invalid-name"
    assert caught.value.message.isprintable()


def test_a_character_that_cannot_be_seen_is_told() -> None:
    with pytest.raises(InvalidInputError, match=r"holds the character U\+200D, which cannot"):
        check_name("👩🏽\u200d🌾")


def test_a_name_is_given_replaced_and_taken_away(grouped: Settings, engine: Engine) -> None:
    assert name_cluster(engine, "demo", 2, "corn") is None
    assert name_cluster(engine, "demo", 2, " maize ") == "corn"
    assert names_of(engine) == {2: "maize"}
    assert name_cluster(engine, "demo", 2, None) == "maize"
    assert names_of(engine) == {}


def test_two_clusters_may_bear_one_name(grouped: Settings, engine: Engine) -> None:
    name_cluster(engine, "demo", 1, "cereals")
    name_cluster(engine, "demo", 2, "cereals")
    assert names_of(engine) == {1: "cereals", 2: "cereals"}
    # And both keep it.
    make_clusters(grouped, k=3)
    assert names_of(engine) == {1: "cereals", 2: "cereals"}


@pytest.mark.parametrize("number", [0, 4, -1])
def test_a_cluster_that_does_not_exist_is_told_with_those_that_do(
    grouped: Settings, engine: Engine, number: int
) -> None:
    with pytest.raises(NotFoundError, match=f"has no cluster {number}; it has 1 to 3") as caught:
        name_cluster(engine, "demo", number, "maize")
    assert caught.value.kind == "cluster-not-found"


def test_a_number_of_an_earlier_grouping_is_refused(grouped: Settings, engine: Engine) -> None:
    with engine.connect() as connection:
        found = find_collection(connection, "demo")
        assert found is not None
        clustering = find_clustering(connection, found[0])
    assert clustering is not None
    name_cluster(engine, "demo", 1, "wheat", clustering_id=clustering.id)
    make_clusters(grouped, k=2)
    with pytest.raises(NotFoundError, match="of that grouping any more"):
        name_cluster(engine, "demo", 1, "maize", clustering_id=clustering.id)


def test_a_collection_that_was_never_grouped_says_how_to(empty: Settings, engine: Engine) -> None:
    plant(empty, parcels("wheat", 2, 0))
    for ask in (lambda: name_cluster(engine, "demo", 1, "wheat"), lambda: list_clusters(engine)):
        with pytest.raises(NotFoundError, match="has no clusters yet; run parcelle cluster"):
            ask()


def test_a_cluster_is_named_while_a_reindex_runs(grouped: Settings, engine: Engine) -> None:
    with only_writer(grouped, engine, doing="reindex"):
        name_cluster(engine, "demo", 3, "grassland")
    assert names_of(engine) == {3: "grassland"}


def test_a_name_that_waits_can_be_dropped(grouped: Settings, engine: Engine) -> None:
    for number, name in enumerate(("wheat", "maize", "grass"), start=1):
        name_cluster(engine, "demo", number, name)
    make_clusters(grouped, k=2)
    waiting = [one.name for one in list_clusters(engine).unassigned]
    assert len(waiting) == 2
    forget_name(engine, "demo", waiting[0])
    assert [one.name for one in list_clusters(engine).unassigned] == waiting[1:]
    with pytest.raises(NotFoundError, match=f'there is "{waiting[1]}"'):
        forget_name(engine, "demo", waiting[0])
