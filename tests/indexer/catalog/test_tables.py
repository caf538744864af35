from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.exc import IntegrityError

from indexer.catalog.tables import Base, Collection, Embedding, Observation, Parcel
from tests.indexer.catalog.filling import known_of, make_space, record, save, unit_vectors


def times_of(connection: Connection) -> list[datetime | None]:
    return list(connection.scalars(select(Observation.acquired_at).order_by(Observation.scene)))


def test_times_come_back_in_utc_whatever_zone_they_were_given_in(connection: Connection) -> None:
    moment = datetime(2023, 5, 29, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    save(connection, make_space(connection), [record(acquired_at=moment)])
    (stored,) = times_of(connection)
    assert stored == datetime(2023, 5, 28, 23, 30, 0, 123456, tzinfo=UTC)
    assert stored.tzinfo == UTC


def test_an_unknown_time_stays_unknown(connection: Connection) -> None:
    save(connection, make_space(connection), [record(acquired_at=None)])
    assert times_of(connection) == [None]


def test_a_time_without_zone_is_refused(connection: Connection) -> None:
    naive = record(acquired_at=datetime(2023, 5, 29, 10, 50))
    with pytest.raises(ValueError, match="no time zone"):
        save(connection, make_space(connection), [naive])


def test_the_database_notes_when_a_row_was_made(connection: Connection) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    save(connection, make_space(connection), [record()])
    (made,) = connection.scalars(select(Collection.created_at))
    assert before < made < datetime.now(UTC) + timedelta(minutes=1)


def test_two_parcels_of_one_collection_never_share_an_id(catalog: Engine) -> None:
    with catalog.begin() as connection:
        save(connection, make_space(connection), [record("p1")])
    with pytest.raises(IntegrityError), catalog.begin() as connection:
        connection.execute(insert(Parcel).values(collection_id=1, parcel_id="p1", attributes={}))


def test_one_parcel_id_may_stand_in_two_collections(connection: Connection) -> None:
    space_id = make_space(connection)
    save(connection, space_id, [record("p1")], collection="one")
    save(connection, space_id, [record("p1")], collection="other")
    assert len(connection.scalars(select(Parcel.id)).all()) == 2


def test_a_scene_shows_a_parcel_once(catalog: Engine) -> None:
    with catalog.begin() as connection:
        space_id = make_space(connection)
        save(connection, space_id, [record()])
    with pytest.raises(IntegrityError), catalog.begin() as connection:
        save(connection, space_id, [record()])


def test_an_observation_has_one_current_embedding_in_a_space(catalog: Engine) -> None:
    row = {"observation_id": 1, "space_id": 1, "fingerprint": "1" * 64, "superseded": False}
    with catalog.begin() as connection:
        save(connection, make_space(connection), [record("p1", unit_vectors(1)[0])])
    with catalog.begin() as connection:
        # Any number of former ones may stand beside it until the next generation.
        connection.execute(insert(Embedding), [{**row, "superseded": True}] * 2)
    with pytest.raises(IntegrityError), catalog.begin() as connection:
        connection.execute(insert(Embedding).values(row))


def test_the_numbers_of_deleted_embeddings_are_not_given_again(connection: Connection) -> None:
    space_id = make_space(connection)
    vectors = unit_vectors(3)
    collection_id = save(connection, space_id, [record("p1", vectors[0])])
    save(connection, space_id, [record("p2", vectors[1])])
    connection.execute(text("DELETE FROM embeddings"))
    save(connection, space_id, [record("p3", vectors[2])])
    known = known_of(connection, collection_id, space_id, "p3")
    assert known is not None
    assert known.embedding_id == 3


def test_a_deleted_parcel_takes_its_observations_and_embeddings_along(
    connection: Connection,
) -> None:
    save(connection, make_space(connection), [record("p1", unit_vectors(1)[0])])
    connection.execute(text("DELETE FROM parcels"))
    assert connection.scalars(select(Observation.id)).all() == []
    assert connection.scalars(select(Embedding.id)).all() == []


@pytest.mark.parametrize("length", [300, 1_000])
def test_texts_of_strangers_may_be_long(connection: Connection, length: int) -> None:
    name = "ü" * length
    save(connection, make_space(connection), [record(name, scene=name, source=10 * name)])
    assert connection.scalars(select(Parcel.parcel_id)).all() == [name]


def test_every_constraint_has_a_name_that_a_migration_can_use() -> None:
    for table in Base.metadata.sorted_tables:
        assert all(constraint.name for constraint in table.constraints)
        assert all(index.name for index in table.indexes)
