from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import Engine, select

from indexer.catalog.changes import snapshot
from indexer.catalog.database import connect, upgrade
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import delete_parcels
from indexer.generations import compaction
from indexer.generations.compaction import (
    RecallNow,
    Standing,
    compact,
    due_spaces,
    is_due,
    most_changes,
    published_now,
    recall_now,
    standing_of,
    stands,
)
from indexer.generations.manifest import Manifest
from indexer.generations.store import build_generation, open_generation
from indexer.settings import Settings
from tests.indexer.catalog.filling import (
    known_of,
    manifest,
    record,
    save,
    save_parcels_with_vectors,
    unit_vectors,
)

FloatArray = npt.NDArray[np.float32]

VECTORS = unit_vectors(40)


class Catalog:
    """Ten parcels, p0 to p9, with a vector each, published as generation 1."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.space_id, self.collection_id = save_parcels_with_vectors(engine, VECTORS[:10])
        self.published = build_generation(engine, folder, self.space_id, self.collection_id)

    def save(self, parcel_id: str, vector: FloatArray, scene: str = "scene") -> None:
        """Write an observation of a parcel, new or in place of the one before."""
        with self.engine.begin() as connection:
            known = known_of(connection, self.collection_id, self.space_id, parcel_id)
            known = known if scene == "scene" else None
            save(connection, self.space_id, [record(parcel_id, vector, scene=scene, known=known)])

    def delete(self, *parcel_ids: str) -> None:
        with self.engine.begin() as connection:
            rows = select(ParcelRow.id).where(ParcelRow.parcel_id.in_(parcel_ids))
            delete_parcels(connection, connection.scalars(rows).all())

    def standing(self, published: Manifest | None = None, enough: int | None = None) -> Standing:
        with snapshot(self.engine) as connection:
            return standing_of(
                connection,
                self.folder,
                self.space_id,
                published or self.published,
                enough=enough,
            )

    def compact(self, *, only_if_due: bool = False) -> list[Manifest]:
        return compact(self.engine, self.folder, only_if_due=only_if_due)

    def measure(self) -> RecallNow:
        return recall_now(self.engine, self.folder, self.space_id, self.published)


@pytest.fixture
def catalog(settings: Settings) -> Iterator[Catalog]:
    engine = connect(settings)
    upgrade(engine)
    yield Catalog(engine, settings.generations_dir)
    engine.dispose()


# What stands ---------------------------------------------------------------------------------


def test_nothing_stands_right_after_a_publication(catalog: Catalog) -> None:
    assert catalog.standing() == Standing(0, 0)


def test_rows_of_written_parcels_stand_and_those_of_the_index_are_gone(catalog: Catalog) -> None:
    catalog.save("new", VECTORS[10])
    assert catalog.standing() == Standing(1, 0)
    # Changed pixels: the former row is gone from the index.
    catalog.save("p1", VECTORS[11])
    assert catalog.standing() == Standing(2, 1)
    # A second date of p1: both are searched beside the index.
    catalog.save("p1", VECTORS[12], scene="later")
    assert catalog.standing() == Standing(3, 1)
    catalog.delete("p2", "p3")
    assert catalog.standing() == Standing(3, 3)
    # What was new and is deleted again is as if it had never been.
    catalog.delete("new")
    assert catalog.standing() == Standing(2, 3)


def test_a_count_that_may_stop_still_tells_that_it_is_enough(catalog: Catalog) -> None:
    for number in range(3):
        catalog.save(f"new{number}", VECTORS[10 + number])
    assert catalog.standing(enough=1).changed > 1


def test_a_generation_is_listed_with_what_stands(catalog: Catalog) -> None:
    catalog.save("p0", VECTORS[10])
    catalog.compact()
    catalog.delete("p4")
    with snapshot(catalog.engine) as connection:
        newest, oldest = published_now(connection, catalog.folder)
    assert newest.since_publication == {"rows": 0, "removed": 1, "due": False}
    assert oldest.since_publication is None


def test_of_a_generation_that_cannot_be_read_nothing_is_said(catalog: Catalog) -> None:
    catalog.save("p0", VECTORS[10])
    for path in (catalog.folder / "1").iterdir():
        path.unlink()
    with snapshot(catalog.engine) as connection:
        (listed,) = published_now(connection, catalog.folder)
    assert listed.current
    assert listed.since_publication is None


# When it is due ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "bound"),
    [(10, 1_000), (20_000, 1_000), (100_000, 5_000), (400_000, 20_000), (10_000_000, 20_000)],
)
def test_the_bound_is_a_twentieth_between_a_thousand_and_twenty_thousand(
    rows: int, bound: int
) -> None:
    assert most_changes(rows) == bound


def of_rows(rows: int) -> Manifest:
    return Manifest.from_dict(manifest(1).to_dict() | {"rows": rows})


def test_it_is_due_beyond_the_bound_not_at_it(catalog: Catalog) -> None:
    large = of_rows(100_000)
    assert not is_due(large, Standing(2_500, 2_500))
    assert is_due(large, Standing(2_501, 2_500))


def test_it_is_due_where_nothing_of_the_index_is_left_but_something_else_is() -> None:
    assert is_due(of_rows(10), Standing(1, 10))
    assert not is_due(of_rows(10), Standing(1, 9))
    # There would be nothing to publish.
    assert not is_due(of_rows(5_000), Standing(0, 5_000))


def test_a_point_of_recall_may_be_lost_and_no_more() -> None:
    measured = Manifest.from_dict(manifest(1).to_dict() | {"recall_at_10": 0.96})
    assert not RecallNow(0.955, 500).has_fallen(measured)
    assert RecallNow(0.949, 500).has_fallen(measured)


def test_an_index_that_is_missing_is_due(catalog: Catalog) -> None:
    assert due_spaces(catalog.engine, catalog.folder) == []
    next((catalog.folder / "1").glob("vectors.npy")).unlink()
    assert due_spaces(catalog.engine, catalog.folder) == [catalog.space_id]
    (mended,) = catalog.compact(only_if_due=True)
    assert open_generation(catalog.folder, mended)[0].rows == 10


def test_only_a_large_index_with_few_changes_stands_after_a_reindex(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def may_stand() -> bool:
        return stands(catalog.engine, catalog.folder, catalog.space_id, catalog.published)

    assert not may_stand()
    monkeypatch.setattr(compaction, "BUILT_IN_SECONDS", 9)
    assert may_stand()
    catalog.save("p1", VECTORS[11])
    assert may_stand()
    monkeypatch.setattr(compaction, "FEWEST_CHANGES", 1)
    assert not may_stand()
    monkeypatch.undo()
    monkeypatch.setattr(compaction, "BUILT_IN_SECONDS", 9)
    (catalog.folder / "1" / "vectors.npy").write_bytes(b"")
    assert not may_stand()


# Compacting ----------------------------------------------------------------------------------


def test_a_compaction_builds_what_was_committed_into_the_index(catalog: Catalog) -> None:
    catalog.save("new", VECTORS[10])
    catalog.save("p1", VECTORS[11])
    catalog.delete("p2")
    steps: list[str] = []
    (built,) = compact(catalog.engine, catalog.folder, only_if_due=False, note=steps.append)
    assert (built.generation, built.rows) == (2, 10)
    assert catalog.standing(built) == Standing(0, 0)
    assert steps[0] == "reading vectors"
    index, columns = open_generation(catalog.folder, built)
    nearest = {number: index.search(VECTORS[number], 1)[0][0] for number in (10, 11, 1, 2)}
    assert min(nearest[10], nearest[11]) == pytest.approx(1, abs=1e-3)
    assert max(nearest[1], nearest[2]) < 0.5
    assert len(columns.ids) == 10


def test_with_few_changes_nothing_is_built_where_it_must_be_due(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        catalog.save(f"new{number}", VECTORS[10 + number])
    assert catalog.compact(only_if_due=True) == []
    monkeypatch.setattr(compaction, "FEWEST_CHANGES", 2)
    (built,) = catalog.compact(only_if_due=True)
    assert (built.generation, built.rows) == (2, 13)
    assert catalog.compact(only_if_due=True) == []


def test_without_a_change_there_is_nothing_to_compact(catalog: Catalog) -> None:
    assert catalog.compact() == []


def test_a_space_whose_recall_fell_is_built_whatever_changed(catalog: Catalog) -> None:
    (built,) = compact(catalog.engine, catalog.folder, only_if_due=True, fallen=[catalog.space_id])
    assert (built.generation, built.rows) == (2, 10)


def test_where_everything_is_deleted_there_is_nothing_to_build(catalog: Catalog) -> None:
    catalog.delete(*(f"p{number}" for number in range(10)))
    assert catalog.standing() == Standing(0, 10)
    assert catalog.compact() == []
    assert catalog.compact(only_if_due=True) == []


# Recall --------------------------------------------------------------------------------------


def test_an_index_that_looks_at_everything_finds_everything(catalog: Catalog) -> None:
    for number in range(10, 30):
        catalog.save(f"new{number}", VECTORS[number])
    catalog.save("p1", VECTORS[30])
    catalog.delete("p2")
    # Eight rows of the index, and 21 beside it.
    assert catalog.measure() == RecallNow(1.0, 29)


def test_without_a_neighbor_there_is_nothing_to_miss(catalog: Catalog) -> None:
    catalog.delete(*(f"p{number}" for number in range(9)))
    assert catalog.measure() == RecallNow(1.0, 1)


def test_neighbors_that_a_search_misses_are_missed_in_its_recall(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10, 20):
        catalog.save(f"new{number}", VECTORS[number])
    whole = compaction._searched

    def half_of_it(*arguments: object) -> npt.NDArray[np.int64]:
        ids = whole(*arguments)  # type: ignore[arg-type]
        # The first is the row that asks.
        return np.concatenate([ids[:1], ids[1::2]])

    monkeypatch.setattr(compaction, "_searched", half_of_it)
    assert catalog.measure() == RecallNow(0.5, 20)
