import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import box
from sqlalchemy import Connection, Engine, select, update

from indexer.catalog.changes import CommitWatch, last_change, snapshot
from indexer.catalog.database import connect, upgrade
from indexer.catalog.reading import vector_blocks
from indexer.catalog.tables import Collection, Embedding, Observation
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import (
    delete_parcels,
    ensure_collection,
    publish_generation,
    save_parcels,
    set_vectors,
)
from indexer.columns import Columns
from indexer.delta import Delta
from indexer.delta_blocks import MOST_ROWS
from indexer.parcels.parcel import JsonScalar
from indexer.row_sets import RowSet, rows_in
from indexer.settings import Settings
from tests.indexer.catalog.filling import (
    PARCEL,
    known_of,
    make_space,
    record,
    save,
    unit_vectors,
)
from tests.indexer.killed_writer import Told, vector_of

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

DIMENSIONS = 512
VECTORS = unit_vectors(40)


class Catalog:
    """A catalog with one collection, searched in one space, and an index of what it held."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with engine.begin() as connection:
            self.space_id = make_space(connection)
            self.collection_id = ensure_collection(connection, "demo")
            connection.execute(update(Collection).values(space_id=self.space_id))
        self.publish()

    def publish(self) -> None:
        """Let the base be what the catalog holds."""
        with snapshot(self.engine) as connection:
            found = [ids for ids, _ in vector_blocks(connection, self.space_id)]
            ids = np.concatenate([np.empty(0, dtype=np.int64), *found])
            self.base = Columns.read(connection, ids)
            self.base_change = last_change(connection)

    @property
    def empty(self) -> Delta:
        return Delta.empty(self.base, DIMENSIONS, self.base_change)

    def advanced(self, delta: Delta | None = None) -> Delta:
        with snapshot(self.engine) as connection:
            return (delta or self.empty).advanced(connection, self.space_id, self.base)

    def save(self, parcel_id: str, vector: FloatArray | None, *, scene: str = "scene") -> None:
        """Write an observation of a parcel, new or in place of the one before."""
        with self.engine.begin() as connection:
            known = None
            if scene == "scene":
                known = known_of(connection, self.collection_id, self.space_id, parcel_id)
            save(connection, self.space_id, [record(parcel_id, vector, scene=scene, known=known)])

    def delete(self, parcel_id: str) -> None:
        with self.engine.begin() as connection:
            delete_parcels(connection, [self.row_of(parcel_id)])

    def row_of(self, parcel_id: str) -> int:
        with self.engine.connect() as connection:
            return connection.scalars(
                select(ParcelRow.id).where(ParcelRow.parcel_id == parcel_id)
            ).one()

    def ids_of(self, *parcel_ids: str) -> list[int]:
        """Embeddings in force of some parcels in the space."""
        with self.engine.connect() as connection:
            return list(
                connection.scalars(
                    select(Embedding.id)
                    .join(Observation, Observation.id == Embedding.observation_id)
                    .join(ParcelRow, ParcelRow.id == Observation.parcel_id)
                    .where(
                        ParcelRow.parcel_id.in_(parcel_ids),
                        Embedding.space_id == self.space_id,
                        Embedding.superseded.is_(False),
                        Embedding.vector.is_not(None),
                    )
                    .order_by(Embedding.id)
                )
            )

    def answers(self, delta: Delta) -> dict[int, FloatArray]:
        """Vectors by embedding id: of base and delta together; of the base as it was stored."""
        gone = set(rows_in(delta.removed)[: delta.removed_count].tolist())
        kept = [int(id_) for row, id_ in enumerate(self.base.ids) if row not in gone]
        with self.engine.connect() as connection:
            found = {
                row.id: np.frombuffer(row.vector, dtype="<f4")
                for row in connection.execute(
                    select(Embedding.id, Embedding.vector).where(Embedding.id.in_(kept))
                )
            }
        assert sorted(found) == sorted(kept)
        return found | held(delta)

    def truth(self) -> dict[int, FloatArray]:
        """Vectors by embedding id, as the catalog has them."""
        with self.engine.connect() as connection:
            return {
                int(id_): vector
                for ids, vectors in vector_blocks(connection, self.space_id)
                for id_, vector in zip(ids, vectors, strict=True)
            }


def held(delta: Delta) -> dict[int, FloatArray]:
    """Vectors of a delta by embedding id."""
    found: dict[int, FloatArray] = {}
    for block in delta.blocks:
        for id_, vector in zip(
            block.columns.ids[block.live], block.vectors[block.live], strict=True
        ):
            assert int(id_) not in found
            found[int(id_)] = vector
    return found


def assert_same(found: dict[int, FloatArray], expected: dict[int, FloatArray]) -> None:
    assert sorted(found) == sorted(expected)
    for id_, vector in expected.items():
        np.testing.assert_array_equal(found[id_], vector)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("empty_postgres")
    engine = connect(Settings(data_dir=tmp_path, database_url=url))
    upgrade(engine)
    yield Catalog(engine)
    engine.dispose()


@pytest.fixture
def indexed(catalog: Catalog) -> Catalog:
    """Three parcels in the base, p0 to p2, with the vectors of their numbers."""
    for number in range(3):
        catalog.save(f"p{number}", VECTORS[number])
    catalog.publish()
    return catalog


def removed_parcels(catalog: Catalog, delta: Delta) -> list[int]:
    return sorted(catalog.base.parcels[rows_in(delta.removed)].tolist())


def ids_found(delta: Delta, query: FloatArray, k: int = 100) -> list[int]:
    return [int(id_) for id_ in delta.search(query, k)[1]]


def test_a_delta_without_changes_is_empty_and_stays_the_same(indexed: Catalog) -> None:
    delta = indexed.empty
    assert delta.is_empty
    assert indexed.advanced(delta) is delta
    scores, ids = delta.search(VECTORS[0], 10)
    assert len(scores) == len(ids) == 0


def test_a_new_parcel_is_found_once_it_is_committed(indexed: Catalog) -> None:
    indexed.save("p3", VECTORS[3])
    delta = indexed.advanced()
    scores, ids = delta.search(VECTORS[3], 10)
    assert ids.tolist() == indexed.ids_of("p3")
    assert scores == pytest.approx([1.0], abs=1e-6)
    assert delta.removed_count == 0
    assert delta.rows == 1
    assert not delta.is_empty


def test_a_parcel_that_is_embedded_anew_is_found_by_its_new_vector_only(indexed: Catalog) -> None:
    indexed.save("p1", VECTORS[5])
    delta = indexed.advanced()
    assert removed_parcels(indexed, delta) == [indexed.row_of("p1")]
    assert_same(held(delta), dict(zip(indexed.ids_of("p1"), VECTORS[[5]], strict=True)))


def test_new_attributes_of_a_parcel_are_in_the_columns_of_the_delta(indexed: Catalog) -> None:
    changed = replace(PARCEL, parcel_id="p1", crop_code="MIS", crop_name="maize")
    with indexed.engine.begin() as connection:
        save_parcels(connection, indexed.collection_id, [changed])
    delta = indexed.advanced()
    assert removed_parcels(indexed, delta) == [indexed.row_of("p1")]
    (block,) = delta.blocks
    assert block.columns.ids.tolist() == indexed.ids_of("p1")
    crop = block.columns.coded["crop"]
    assert [crop.values[code] for code in crop.codes] == [("MIS", "maize")]
    np.testing.assert_array_equal(block.vectors, VECTORS[[1]])


def test_a_parcel_that_moved_has_its_new_place_in_the_delta(indexed: Catalog) -> None:
    moved = replace(PARCEL, parcel_id="p2", geometry=box(10.0, 20.0, 10.5, 20.25))
    with indexed.engine.begin() as connection:
        save_parcels(connection, indexed.collection_id, [moved])
    (block,) = indexed.advanced().blocks
    # West, south, -east, -north.
    assert block.columns.boxes.corners.tolist() == [[10.0, 20.0, -10.5, -20.25]]


def test_a_deleted_parcel_is_gone_from_base_and_delta(indexed: Catalog) -> None:
    indexed.save("p3", VECTORS[3])
    before = indexed.advanced()
    indexed.delete("p3")
    (row,) = (indexed.row_of("p0"),)
    indexed.delete("p0")
    delta = indexed.advanced(before)
    assert removed_parcels(indexed, delta) == [row]
    assert delta.removed_count == 1
    assert delta.blocks == ()
    assert not delta.is_empty
    assert ids_found(before, VECTORS[3]) != []


def test_all_observations_of_a_changed_parcel_come_into_the_delta(indexed: Catalog) -> None:
    indexed.save("p1", VECTORS[7], scene="later")
    delta = indexed.advanced()
    assert sorted(held(delta)) == indexed.ids_of("p1")
    assert len(held(delta)) == 2
    assert delta.removed_count == 1


def test_rows_of_another_space_are_no_part_of_it(indexed: Catalog) -> None:
    with indexed.engine.begin() as connection:
        other = make_space(connection)
        save(connection, other, [record("p8", VECTORS[8])], collection="other")
        connection.execute(
            update(Collection).where(Collection.name == "other").values(space_id=other)
        )
    indexed.save("p3", VECTORS[3])
    delta = indexed.advanced()
    assert sorted(held(delta)) == indexed.ids_of("p3")
    with snapshot(indexed.engine) as connection:
        nothing = Columns.read(connection, np.empty(0, dtype=np.int64))
        theirs = Delta.empty(nothing, DIMENSIONS, 0).advanced(connection, other, nothing)
        (mine,) = connection.scalars(select(Embedding.id).where(Embedding.space_id == other))
    assert list(held(theirs)) == [mine]


def test_a_collection_that_is_searched_elsewhere_by_now_is_no_part_of_it(
    indexed: Catalog,
) -> None:
    with indexed.engine.begin() as connection:
        other = make_space(connection)
        publish_generation(
            connection,
            generation_id=1,
            space_id=other,
            collection_id=indexed.collection_id,
            manifest={"generation": 1},
        )
    indexed.save("p1", VECTORS[9])
    delta = indexed.advanced()
    assert held(delta) == {}
    assert removed_parcels(indexed, delta) == [indexed.row_of("p1")]


def test_an_embedding_waits_until_it_has_its_vector(indexed: Catalog) -> None:
    with indexed.engine.begin() as connection:
        save(connection, indexed.space_id, [record("p4", VECTORS[4])], projected=False)
    waiting = indexed.advanced()
    assert waiting.rows == 0
    with indexed.engine.begin() as connection:
        (id_,) = connection.scalars(select(Embedding.id).where(Embedding.vector.is_(None)))
        set_vectors(connection, [id_], VECTORS[[4]])
    assert ids_found(indexed.advanced(waiting), VECTORS[4]) == [id_]


def test_a_delta_is_not_changed_by_what_comes_later(indexed: Catalog) -> None:
    indexed.save("p3", VECTORS[3])
    first = indexed.advanced()
    before, removed = held(first), first.removed.copy()
    indexed.save("p3", VECTORS[4])
    indexed.save("p0", VECTORS[5])
    second = indexed.advanced(first)
    assert_same(held(first), before)
    np.testing.assert_array_equal(first.removed, removed)
    assert_same(indexed.answers(second), indexed.truth())


def test_scores_are_cosines_in_order_and_equal_ones_are_in_order_of_their_ids(
    indexed: Catalog,
) -> None:
    twins = [3, 4, 3, 4, 3, 3, 4]
    delta = indexed.empty
    for number, which in enumerate(twins):
        indexed.save(f"t{number}", VECTORS[which])
        delta = indexed.advanced(delta)
    ids = [indexed.ids_of(f"t{number}")[0] for number in range(len(twins))]
    like = [id_ for id_, which in zip(ids, twins, strict=True) if which == 3]
    unlike = [id_ for id_, which in zip(ids, twins, strict=True) if which == 4]
    scores, found = delta.search(VECTORS[3], 10)
    assert found.tolist() == sorted(like) + sorted(unlike)
    expected = [1.0] * 4 + [float(VECTORS[3] @ VECTORS[4])] * 3
    assert scores.tolist() == pytest.approx(expected, abs=1e-6)
    assert delta.search(VECTORS[3], 2)[1].tolist() == sorted(like)[:2]
    assert delta.search(VECTORS[3], 5)[1].tolist() == [*sorted(like), sorted(unlike)[0]]


@pytest.mark.parametrize("listed", [True, False])
def test_only_allowed_rows_are_found(indexed: Catalog, listed: bool) -> None:
    for number in range(10, 30):
        indexed.save(f"p{number}", VECTORS[number])
    delta = indexed.advanced()
    indexed.delete("p12")
    delta = indexed.advanced(delta)
    wanted = set(indexed.ids_of("p11", "p20", "p29"))
    extra = {id_ for block in delta.blocks for id_ in block.columns.ids[~block.live].tolist()}
    assert len(extra) == 1

    def allow(columns: Columns) -> RowSet:
        mask = np.isin(columns.ids, list(wanted | extra))
        if listed:
            return RowSet.of_rows(np.flatnonzero(mask), columns.rows)
        return RowSet.of_mask(mask)

    _, ids = delta.search(VECTORS[20], 10, allow)
    assert set(ids.tolist()) == wanted
    assert ids[0] == indexed.ids_of("p20")[0]


def test_many_small_commits_lie_in_few_blocks(catalog: Catalog) -> None:
    delta = catalog.empty
    for number in range(33):
        catalog.save(f"p{number}", VECTORS[number])
        delta = catalog.advanced(delta)
        sizes = [len(block.live) for block in delta.blocks]
        assert sum(sizes) == number + 1
        # As the digits of a binary number: 33 is 32 + 1.
        assert sizes == [2**place for place in range(6, -1, -1) if (number + 1) >> place & 1]
    assert MOST_ROWS > 33


def test_merged_blocks_keep_what_filters_ask_of_each_row(catalog: Catalog) -> None:
    crops = ["BTH", "MIS", "BTH", None, "ORP"]
    delta = catalog.empty
    for number, crop in enumerate(crops):
        attributes: dict[str, JsonScalar] = {
            "number": number,
            "even": number % 2 == 0,
            "note": str(number),
        }
        if number == 1:
            attributes = {"number": 1.5, "tags": "one"}
        parcel = replace(
            PARCEL, parcel_id=f"p{number}", crop_code=crop, crop_name=None, attributes=attributes
        )
        with catalog.engine.begin() as connection:
            one = record(f"p{number}", VECTORS[number], parcel=parcel)
            save(connection, catalog.space_id, [one])
        delta = catalog.advanced(delta)
    delta = catalog.advanced(delta)
    for block in delta.blocks:
        with catalog.engine.connect() as connection:
            expected = Columns.read(connection, block.columns.ids)
        assert_same_columns(block.columns, expected)
    assert [len(block.live) for block in delta.blocks] == [4, 1]


def assert_same_columns(found: Columns, expected: Columns) -> None:
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.parcels, expected.parcels)
    np.testing.assert_array_equal(found.times.values, expected.times.values)
    np.testing.assert_array_equal(found.boxes.corners, expected.boxes.corners)
    assert found.left_out == expected.left_out
    assert set(found.numbers) == set(expected.numbers)
    for name, number in expected.numbers.items():
        np.testing.assert_array_equal(found.numbers[name].values, number.values)
    for mine, theirs in (
        (found.coded, expected.coded),
        (found.attributes, expected.attributes),
    ):
        assert set(mine) == set(theirs)
        for name, column in theirs.items():
            values = [mine[name].values[code] for code in mine[name].codes]
            wanted = [column.values[code] for code in column.codes]
            assert [(type(one), one) for one in values] == [(type(one), one) for one in wanted]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["save", "again", "attributes", "delete", "look", "publish"]),
        st.integers(0, 5),
        st.integers(0, len(VECTORS) - 1),
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def machine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deltas")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_step_by_step_and_from_scratch_come_to_what_the_catalog_holds(
    machine_folder: Path, steps: Sequence[tuple[str, int, int]]
) -> None:
    (machine_folder / "parcelle.db").unlink(missing_ok=True)
    engine = connect(Settings(data_dir=machine_folder))
    try:
        upgrade(engine)
        catalog = Catalog(engine)
        delta = catalog.empty
        for what, number, which in steps:
            delta = _step(catalog, delta, what, f"p{number}", VECTORS[which])
        delta, scratch = catalog.advanced(delta), catalog.advanced()
        assert_same(catalog.answers(delta), catalog.truth())
        assert_same(held(delta), held(scratch))
        np.testing.assert_array_equal(delta.removed, scratch.removed)
        assert delta.removed_count == scratch.removed_count == len(rows_in(delta.removed))
        assert delta.rows == len(held(delta))
        mine, theirs = delta.search(VECTORS[0], 4), scratch.search(VECTORS[0], 4)
        np.testing.assert_array_equal(mine[0], theirs[0])
        np.testing.assert_array_equal(mine[1], theirs[1])
    finally:
        engine.dispose()


def _step(catalog: Catalog, delta: Delta, what: str, parcel_id: str, vector: FloatArray) -> Delta:
    with catalog.engine.connect() as connection:
        there = _is_there(connection, parcel_id)
    if what == "save":
        catalog.save(parcel_id, vector)
    elif what == "again" and there:
        # A second scene; seen again, it would be another observation of the same.
        catalog.save(parcel_id, vector, scene=f"scene {vector[0]} {last_of(catalog)}")
    elif what == "attributes" and there:
        changed = replace(PARCEL, parcel_id=parcel_id, crop_code=str(vector[0]))
        with catalog.engine.begin() as connection:
            save_parcels(connection, catalog.collection_id, [changed])
    elif what == "delete" and there:
        catalog.delete(parcel_id)
    elif what == "look":
        return catalog.advanced(delta)
    elif what == "publish":
        catalog.publish()
        return catalog.empty
    return delta


def last_of(catalog: Catalog) -> int:
    with catalog.engine.connect() as connection:
        return last_change(connection)


def _is_there(connection: Connection, parcel_id: str) -> bool:
    found = connection.scalar(select(ParcelRow.id).where(ParcelRow.parcel_id == parcel_id))
    return found is not None


def test_a_writer_that_is_killed_loses_nothing_acknowledged_and_brings_nothing_back(
    tmp_path: Path,
) -> None:
    engine = connect(Settings(data_dir=tmp_path))
    upgrade(engine)
    catalog, told = Catalog(engine), Told()
    watch, delta = CommitWatch(engine), catalog.empty
    for life in range(3):
        delta = _live_and_die(tmp_path, catalog, watch, delta, told, life)
        assert_as_told(catalog, told, delta)
        assert_as_told(catalog, told, catalog.advanced())
    watch.close()
    engine.dispose()


def _live_and_die(
    folder: Path, catalog: Catalog, watch: CommitWatch, delta: Delta, told: Told, life: int
) -> Delta:
    """Let a writer run for some commits, reading beside it, and kill it in the middle."""
    program = [sys.executable, "-m", "tests.indexer.killed_writer"]
    arguments = [str(folder), str(catalog.space_id), str(100 * life)]
    seen = watch.version()
    with subprocess.Popen(
        [*program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as writer:
        assert writer.stdout is not None
        acknowledged = 0
        for line in writer.stdout:
            told.hear(line)
            if line.startswith("done"):
                acknowledged += 1
                # It may be ahead of what it said, so that this was read already.
                if (version := watch.version()) != seen:
                    seen, delta = version, catalog.advanced(delta)
            # In the middle of a commit, or shortly before.
            elif acknowledged >= 20 + 7 * life:
                os.kill(writer.pid, signal.SIGKILL)
                break
        # What it said before it died.
        for line in writer.stdout:
            told.hear(line)
    assert writer.returncode == -signal.SIGKILL
    return delta if watch.version() == seen else catalog.advanced(delta)


def assert_as_told(catalog: Catalog, told: Told, delta: Delta) -> None:
    for number in range(20):
        ids = catalog.ids_of(f"p{number}")
        vectors = [held(delta)[id_] for id_ in ids]
        assert len(vectors) <= 1
        expected = [
            [] if turn is None else [vector_of(number, turn).tolist()]
            for turn in told.possible(number)
        ]
        assert [vector.tolist() for vector in vectors] in expected
    assert_same(catalog.answers(delta), catalog.truth())
