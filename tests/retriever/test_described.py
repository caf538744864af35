from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Barrier

import pytest
import shapely
from sqlalchemy import Connection, Engine, literal_column, select, text
from sqlalchemy.exc import DBAPIError

from indexer.catalog.database import connect
from indexer.catalog.tables import Embedding
from indexer.settings import Settings
from retriever.described import DESCRIBED, DescribedRow, describe_rows
from retriever.prepared import IDS, Prepared
from retriever.statements import current_generation, published_spaces, snapshot
from tests.retriever.planted import UNTRAINED, Seen, at_cosine, plant, random_vectors
from tests.retriever.stored import SCORE, store_clusters

FIELD = Seen(
    "field",
    at_cosine(0.9),
    crop_code="BTH",
    crop_name="winter wheat",
    corner=(2.0, 49.0),
    area_m2=12_345.5,
    valid_fraction=0.75,
    indices={"NDVI": 0.7, "NDMI": 0.3},
    attributes={"farm": 7},
)
BARE = Seen("bare", at_cosine(0.5), day=None, corner=None, area_m2=None, reliable=False, indices={})
MANY = 25


@pytest.fixture(scope="module")
def stored(shared: Settings) -> Settings:
    """Parcels with everything and with next to nothing, some in clusters, some replaced."""
    vectors = random_vectors(MANY)
    many = [Seen(f"m{n:02}", vectors[n], crop_name="100 % maize") for n in range(MANY)]
    replaced = Seen("replaced", at_cosine(0.4))
    moved = Seen("moved", at_cosine(0.3), collection="other")
    plant(shared, [FIELD, BARE, replaced, *many, moved])
    # Two embeddings: the one that still answers, and the one that waits for the next publication.
    plant(shared, [replace(replaced, vector=at_cosine(0.2))], publish=False)
    # The other collection is searched in another space from now on.
    plant(shared, [replace(moved, parcel_id="new")], weights=UNTRAINED)
    store_clusters(shared, [["field", "replaced"], ["m00"]], {1: "wheat"})
    return shared


@pytest.fixture
def engine(stored: Settings) -> Iterator[Engine]:
    engine = connect(stored)
    yield engine
    engine.dispose()


def all_ids(connection: Connection) -> list[int]:
    return list(connection.scalars(select(Embedding.id).order_by(Embedding.id)))


def by_sqlalchemy(connection: Connection, ids: list[int]) -> dict[int, DescribedRow]:
    found = connection.execute(DESCRIBED, {IDS: ids})
    return {row.row: DescribedRow(**row._mapping) for row in found}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, MANY])
def test_as_many_embeddings_as_one_likes_are_described_as_sqlalchemy_reads_them(
    engine: Engine, count: int
) -> None:
    with snapshot(engine) as connection:
        ids = all_ids(connection)[:count]
        assert describe_rows(connection, ids) == by_sqlalchemy(connection, ids)
        # As often as drivers and servers need to see a statement before they keep its plan.
        for _ in range(12):
            assert list(describe_rows(connection, ids)) != []


def test_all_kinds_of_embeddings_are_described_as_sqlalchemy_reads_them(engine: Engine) -> None:
    with snapshot(engine) as connection:
        ids = all_ids(connection)
        found = describe_rows(connection, ids)
        assert found == by_sqlalchemy(connection, ids)
    types = {tuple(map(type, row)) for row in found.values()}
    assert {type(None), datetime, bytes, bool, dict, float} <= {
        one for some in types for one in some
    }
    assert {row.superseded for row in found.values()} == {False, True}


def test_a_row_says_what_was_stored(engine: Engine) -> None:
    with snapshot(engine) as connection:
        found = {
            row.parcel_id: row for row in describe_rows(connection, all_ids(connection)).values()
        }
    field, bare = found["field"], found["bare"]
    summary = {"std": 0.0}
    assert field._replace(row=0, parcel_row=0, collection_id=0) == DescribedRow(
        row=0,
        superseded=False,
        collection="demo",
        collection_id=0,
        parcel_row=0,
        parcel_id="field",
        crop_code="BTH",
        crop_name="winter wheat",
        area_m2=12_345.5,
        geometry=shapely.to_wkb(shapely.box(2.0, 49.0, 2.01, 49.01)),
        longitude=(2.0 + 2.01) / 2,
        latitude=(49.0 + 49.01) / 2,
        acquired_at=datetime(2023, 5, 29, 10, 50, 31, tzinfo=UTC),
        scene="scene-2023-05-29",
        valid_fraction=0.75,
        reliable=True,
        indices={
            name: summary | dict.fromkeys(("median", "mean", "p10", "p90"), value)
            for name, value in FIELD.indices.items()
        },
        cluster_name="wheat",
        cluster_number=1,
        cluster_score=SCORE,
    )
    assert (bare.crop_code, bare.crop_name, bare.area_m2, bare.geometry) == (None,) * 4
    assert (bare.longitude, bare.latitude, bare.acquired_at) == (None,) * 3
    assert (bare.cluster_name, bare.cluster_number, bare.cluster_score) == (None,) * 3
    assert (bare.reliable, bare.indices) == (False, {})
    assert (found["m00"].cluster_name, found["m00"].cluster_number) == (None, 2)


def test_what_is_gone_and_what_is_searched_in_another_space_is_left_out(engine: Engine) -> None:
    with snapshot(engine) as connection:
        ids = all_ids(connection)
        found = describe_rows(connection, [*ids, 10**6, 2**40])
        names = [row.parcel_id for row in found.values()]
        assert describe_rows(connection, [10**6]) == {}
        assert describe_rows(connection, []) == {}
    assert "moved" not in names
    assert "new" in names
    assert names.count("replaced") == 2


def test_more_ids_than_a_statement_holds_are_described(engine: Engine) -> None:
    with snapshot(engine) as connection:
        ids = all_ids(connection)
        half = len(ids) // 2
        spread = [*ids[:half], *range(10**6, 10**6 + 40_000), *ids[half:]]
        assert describe_rows(connection, spread) == describe_rows(connection, ids)


def test_threads_that_share_an_engine_are_told_the_same(engine: Engine) -> None:
    fresh = Prepared(DESCRIBED, DescribedRow)
    start = Barrier(4)
    with snapshot(engine) as connection:
        ids = all_ids(connection)
        expected = {row.row: row for row in fresh.rows(connection, ids)}
    anew = Prepared(DESCRIBED, DescribedRow)

    def ask(thread: int) -> bool:
        start.wait()
        told = []
        for count in range(1, len(ids) + 1):
            with snapshot(engine) as connection:
                rows = anew.rows(connection, ids[:count])
            told.append(
                {row.row: row for row in rows}
                == {row: expected[row] for row in ids[:count] if row in expected}
            )
        return all(told)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == [True] * 4


def test_a_snapshot_sees_nothing_that_is_committed_after_its_first_question(
    engine: Engine,
) -> None:
    def publish(number: int | None) -> None:
        switch = text("UPDATE embedding_spaces SET current_generation_id = :it WHERE id = 1")
        with engine.begin() as other:
            other.execute(switch, {"it": number})

    with snapshot(engine) as connection:
        before = current_generation(connection, 1)
        try:
            publish(77)
            assert current_generation(connection, 1) == before
            with snapshot(engine) as later:
                assert current_generation(later, 1) == 77
        finally:
            publish(before)


def test_spaces_are_told_with_their_current_generations(engine: Engine) -> None:
    with snapshot(engine) as connection:
        published = published_spaces(connection)
        assert [space for space, _ in published] == [1, 2]
        assert published == [(space, current_generation(connection, space)) for space in (1, 2)]
        assert current_generation(connection, 99) is None


def test_what_the_database_refuses_is_an_error_of_sqlalchemy_that_tells_no_values(
    engine: Engine,
) -> None:
    nowhere = Prepared(
        select(literal_column("it").label("row")).select_from(text("nowhere")), tuple
    )
    with snapshot(engine) as connection, pytest.raises(DBAPIError, match="nowhere") as caught:
        nowhere.rows(connection)
    assert caught.value.hide_parameters
    assert caught.value.orig is not None


def test_sqlite_looks_for_a_cluster_by_the_index_of_the_embeddings_in_force(
    engine: Engine,
) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL plans by the size of the tables")
    compiled = DESCRIBED.params({IDS: [1, 2]}).compile(
        engine, compile_kwargs={"literal_binds": True}
    )
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}").all()
    assert any("embeddings_1 USING INDEX uq_embeddings_current" in step.detail for step in plan)
