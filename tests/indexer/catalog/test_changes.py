import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, delete, insert, select

from indexer.catalog.changes import (
    CommitWatch,
    changed_parcels,
    last_change,
    log_changes,
    log_switch,
    prune_changes,
    snapshot,
    tells_since,
)
from indexer.catalog.tables import Change, Collection, Embedding
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import (
    delete_parcels,
    remember_image,
    save_parcels,
    set_vectors,
)
from tests.indexer.catalog.filling import (
    PARCEL,
    known_of,
    make_space,
    record,
    save,
    unit_vectors,
)

VECTORS = unit_vectors(4)


@pytest.fixture
def watch(catalog: Engine) -> Iterator[CommitWatch]:
    watch = CommitWatch(catalog)
    yield watch
    watch.close()


def parcel_row(connection: Connection, parcel_id: str) -> int:
    return connection.scalars(select(ParcelRow.id).where(ParcelRow.parcel_id == parcel_id)).one()


def logged(connection: Connection, since: int = 0) -> list[int]:
    """Parcels of the log, row by row."""
    return list(
        connection.scalars(select(Change.parcel_id).where(Change.id > since).order_by(Change.id))
    )


def test_an_empty_log_ends_at_zero(connection: Connection) -> None:
    assert last_change(connection) == 0
    assert changed_parcels(connection, 0, 0).tolist() == []


def test_new_observations_are_logged_once_for_each_parcel(connection: Connection) -> None:
    records = [record("p1", VECTORS[0]), record("p2"), record("p1", VECTORS[1], scene="later")]
    save(connection, make_space(connection), records)
    assert sorted(logged(connection)) == sorted(
        [parcel_row(connection, "p1"), parcel_row(connection, "p2")]
    )


def test_only_parcels_that_are_new_or_changed_are_logged(connection: Connection) -> None:
    collection_id = save(connection, make_space(connection), [record("p1"), record("p2")])
    since = last_change(connection)
    changed = replace(PARCEL, parcel_id="p2", crop_code="MIS")
    same = replace(PARCEL, parcel_id="p1")
    new = replace(PARCEL, parcel_id="p3")
    rows = save_parcels(connection, collection_id, [same, changed, new])
    assert sorted(logged(connection, since)) == sorted([rows["p2"], rows["p3"]])


def test_an_embedding_that_supersedes_another_is_logged(connection: Connection) -> None:
    space_id = make_space(connection)
    collection_id = save(connection, space_id, [record("p1", VECTORS[0])])
    since = last_change(connection)
    known = known_of(connection, collection_id, space_id)
    save(connection, space_id, [record("p1", VECTORS[1], fingerprint="2" * 64, known=known)])
    assert logged(connection, since) == [parcel_row(connection, "p1")]


def test_vectors_that_are_filled_in_are_logged(connection: Connection) -> None:
    space_id = make_space(connection, frozen=False)
    records = [
        record("p1", VECTORS[0]),
        record("p2", VECTORS[1]),
        record("p1", VECTORS[2], scene="2"),
    ]
    save(connection, space_id, records, projected=False)
    since = last_change(connection)
    ids = connection.scalars(select(Embedding.id).order_by(Embedding.id)).all()
    set_vectors(connection, [ids[0], ids[2]], VECTORS[[0, 2]])
    assert logged(connection, since) == [parcel_row(connection, "p1")]


def test_deleted_parcels_are_logged(connection: Connection) -> None:
    save(connection, make_space(connection), [record("p1", VECTORS[0]), record("p2")])
    row, since = parcel_row(connection, "p1"), last_change(connection)
    delete_parcels(connection, [row])
    assert logged(connection, since) == [row]


def test_an_image_that_lies_elsewhere_changes_nothing_that_is_searched(
    connection: Connection,
) -> None:
    space_id = make_space(connection)
    collection_id = save(connection, space_id, [record("p1", VECTORS[0])])
    since = last_change(connection)
    known = known_of(connection, collection_id, space_id)
    assert known is not None
    remember_image(connection, [known.observation_id], "elsewhere.tif", None)
    assert logged(connection, since) == []


def test_what_is_rolled_back_is_not_logged(catalog: Engine) -> None:
    with catalog.begin() as connection:
        space_id = make_space(connection)
        save(connection, space_id, [record("p1", VECTORS[0])])
        since = last_change(connection)
        row = parcel_row(connection, "p1")
    with catalog.connect() as connection:
        save(connection, space_id, [record("p2", VECTORS[1])])
        delete_parcels(connection, [row])
        assert len(logged(connection, since)) == 2
        connection.rollback()
        assert logged(connection, since) == []


def test_changed_parcels_are_told_once_in_order_and_between_two_changes(
    connection: Connection,
) -> None:
    for row in (7, 3, 7, 5, 3, 9):
        log_changes(connection, [row])
    first = last_change(connection) - 6
    assert changed_parcels(connection, first, first + 6).tolist() == [3, 5, 7, 9]
    assert changed_parcels(connection, first + 1, first + 4).tolist() == [3, 5, 7]
    assert changed_parcels(connection, first + 6, first + 6).tolist() == []


def test_logging_nothing_writes_nothing(connection: Connection) -> None:
    log_changes(connection, [])
    assert last_change(connection) == 0


def test_a_pruned_log_never_goes_back(catalog: Engine) -> None:
    with catalog.begin() as connection:
        log_changes(connection, [1, 2, 3])
        last = last_change(connection)
        prune_changes(connection, last - 1)
        # That of the number stays too: nothing after it is missing.
        assert logged(connection) == [2, 3]
        prune_changes(connection, last + 10)
        assert logged(connection) == [3]
        assert last_change(connection) == last
    with catalog.begin() as connection:
        log_changes(connection, [4])
        assert last_change(connection) > last
        assert changed_parcels(connection, last, last_change(connection)).tolist() == [4]


def test_a_log_knows_how_far_back_it_tells(catalog: Engine) -> None:
    with catalog.begin() as connection:
        assert tells_since(connection, 0)
        log_changes(connection, [1, 2, 3, 4])
        last = last_change(connection)
        assert tells_since(connection, last - 4)
        prune_changes(connection, last - 2)
        assert not tells_since(connection, last - 3)
        assert tells_since(connection, last - 2)
        assert tells_since(connection, last)
        # As versions before this one pruned it: nothing up to the number, save for the newest.
        connection.execute(delete(Change).where(Change.id <= last - 1))
        assert not tells_since(connection, last - 1)
        assert tells_since(connection, last)


def test_a_switch_of_generations_is_noticed_and_names_no_parcel(
    catalog: Engine, watch: CommitWatch
) -> None:
    with catalog.begin() as connection:
        save(connection, make_space(connection), [record("p1")])
        since = last_change(connection)
    before = watch.version()
    with catalog.begin() as connection:
        log_switch(connection)
    assert watch.version() != before
    with catalog.connect() as connection:
        named = changed_parcels(connection, since, last_change(connection))
        assert not set(named.tolist()) & set(connection.scalars(select(ParcelRow.id)))


def test_changes_become_visible_in_the_order_of_their_numbers(catalog: Engine) -> None:
    """Else a reader that saw the second would never look at the first."""
    written = threading.Event()

    def write_another() -> None:
        with catalog.begin() as connection:
            log_changes(connection, [2])
        written.set()

    other = threading.Thread(target=write_another)
    with catalog.begin() as connection:
        log_changes(connection, [1])
        other.start()
        assert not written.wait(0.3)
        with catalog.connect() as reader:
            assert last_change(reader) == 0
    other.join()
    with catalog.connect() as reader:
        assert logged(reader) == [1, 2]


def test_all_statements_of_a_snapshot_see_one_moment(catalog: Engine) -> None:
    with snapshot(catalog) as reader:
        assert last_change(reader) == 0
        with catalog.begin() as writer:
            log_changes(writer, [1])
        assert last_change(reader) == 0
    with snapshot(catalog) as reader:
        assert last_change(reader) == 1


def test_a_commit_changes_the_version_and_nothing_else_does(
    catalog: Engine, watch: CommitWatch
) -> None:
    before = watch.version()
    with catalog.connect() as connection:
        last_change(connection)
        log_changes(connection, [1])
        connection.rollback()
    assert watch.version() == before
    with catalog.begin() as connection:
        log_changes(connection, [1])
    after = watch.version()
    assert after != before
    assert watch.version() == after


def test_a_commit_of_another_process_changes_the_version(
    catalog: Engine, watch: CommitWatch
) -> None:
    before = watch.version()
    program = (
        "import sys; from sqlalchemy import create_engine; "
        "from indexer.catalog.changes import log_changes; "
        "c = create_engine(sys.argv[1]).connect(); log_changes(c, [1]); c.commit()"
    )
    url = catalog.url.render_as_string(hide_password=False)
    subprocess.run([sys.executable, "-c", program, url], check=True, timeout=60)
    assert watch.version() != before


def test_threads_may_share_a_watch(catalog: Engine, watch: CommitWatch) -> None:
    seen: list[int] = []
    before = watch.version()
    with catalog.begin() as connection:
        log_changes(connection, [1])
    threads = [threading.Thread(target=lambda: seen.append(watch.version())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1
    assert before not in seen


def test_a_watch_does_not_keep_the_log_of_writes_from_being_emptied(
    catalog: Engine, watch: CommitWatch
) -> None:
    if catalog.dialect.name != "sqlite":
        pytest.skip("a matter of SQLite's write-ahead log")
    watch.version()
    with catalog.begin() as connection:
        connection.execute(insert(Collection).values(name="new"))
    with catalog.connect() as connection:
        busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    assert busy == 0
