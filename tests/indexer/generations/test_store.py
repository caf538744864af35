import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import Engine

from indexer.catalog.changes import changed_parcels, last_change
from indexer.catalog.database import connect, upgrade
from indexer.catalog.reading import (
    SpaceRecord,
    current_extent,
    get_generation,
    get_space,
    list_generations,
)
from indexer.catalog.writing import publish_generation
from indexer.columns import Columns
from indexer.errors import StorageError
from indexer.generations import history, store
from indexer.generations.backends import FaissBackend
from indexer.generations.files import check_files
from indexer.generations.manifest import Manifest
from indexer.generations.store import (
    Additions,
    build_generation,
    is_current,
    open_generation,
    rebuild,
)
from indexer.settings import Settings
from indexer.vector_index import building
from tests.indexer.catalog.filling import (
    PROJECTION,
    RECIPE,
    known_of,
    make_space,
    record,
    save,
    save_parcels_with_vectors,
    unit_vectors,
)

FloatArray = npt.NDArray[np.float32]


class Crash(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """An empty catalog."""
    engine = connect(settings)
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def folder(settings: Settings) -> Path:
    """Where generations lie; not there yet."""
    return settings.generations_dir


def add_parcel(engine: Engine, space_id: int, parcel_id: str, vector: FloatArray) -> None:
    with engine.begin() as connection:
        save(connection, space_id, [record(parcel_id, vector)])


def space_of(engine: Engine, space_id: int) -> SpaceRecord:
    with engine.connect() as connection:
        return get_space(connection, space_id)


def current(engine: Engine, space_id: int) -> Manifest:
    """The manifest that the pointer leads to."""
    with engine.connect() as connection:
        number = get_space(connection, space_id).current_generation_id
        assert number is not None
        return Manifest.from_dict(get_generation(connection, number))


def assert_answers(folder: Path, manifest: Manifest, vectors: FloatArray) -> None:
    """Each vector's nearest row is its own; ids begin at 1."""
    index, columns = open_generation(folder, manifest)
    assert index.rows == columns.rows == len(vectors)
    for row, vector in enumerate(vectors, start=1):
        assert columns.ids[index.search(vector, 1)[1]].tolist() == [row]


def folders(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.parametrize("n", [1, 2, 10])
def test_a_published_generation_opens_and_finds_every_row(
    engine: Engine, folder: Path, n: int
) -> None:
    vectors = unit_vectors(n)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors)
    manifest = build_generation(engine, folder, space_id, collection_id)
    assert manifest.generation == 1
    assert current(engine, space_id) == manifest
    assert_answers(folder, manifest, vectors)


def test_the_manifest_says_all_that_is_needed_to_open_or_refuse(
    engine: Engine, folder: Path
) -> None:
    space_id, collection_id = save_parcels_with_vectors(engine, unit_vectors(10))
    manifest = build_generation(engine, folder, space_id, collection_id)
    assert manifest.files.keys() == folders(folder / "1") - {"manifest.json"}
    for name, described in manifest.files.items():
        content = (folder / "1" / name).read_bytes()
        assert described["bytes"] == len(content)
        assert described["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest.bytes == sum(described["bytes"] for described in manifest.files.values())
    assert manifest.space_digest == space_of(engine, space_id).digest
    assert manifest.recipe == RECIPE.to_dict()
    assert (manifest.rows, manifest.last_id, manifest.dimensions) == (10, 10, 512)
    assert (manifest.nlist, manifest.nprobe, manifest.recall_at_10) == (1, 1, 1.0)
    assert manifest.index_kind == "IVF1,Flat(fp32)"
    assert manifest.recall_queries == 0, "where every row is scored there is nothing to measure"
    assert manifest.efforts.keys() == {"0.9", "0.95", "0.99"}
    with engine.connect() as connection:
        assert manifest.last_change == last_change(connection) > 0
    assert manifest.projection == "orthonormal"
    assert manifest.versions.keys() == {"parcelle", "faiss-cpu"}
    age = datetime.now(UTC) - datetime.fromisoformat(manifest.created_at)
    assert timedelta(0) <= age < timedelta(minutes=5)


def test_the_folder_holds_the_manifest_for_people_to_read(engine: Engine, folder: Path) -> None:
    space_id, collection_id = save_parcels_with_vectors(engine, unit_vectors(2))
    manifest = build_generation(engine, folder, space_id, collection_id)
    written = json.loads((folder / "1" / "manifest.json").read_text())
    assert Manifest.from_dict(written) == manifest
    assert folders(folder) == {"1"}
    assert folders(folder / "1") == {*manifest.files, "manifest.json"}


def test_the_cost_of_the_projection_is_measured_on_the_kept_embeddings(
    engine: Engine, folder: Path
) -> None:
    # PROJECTION is the identity: it loses nothing.
    space_id, collection_id = save_parcels_with_vectors(engine, unit_vectors(30))
    manifest = build_generation(engine, folder, space_id, collection_id)
    assert (manifest.projection_recall_at_10, manifest.projection_rows) == (1.0, 30)
    assert PROJECTION.kind == manifest.projection


def test_one_row_has_no_neighbors_to_lose(engine: Engine, folder: Path) -> None:
    space_id, collection_id = save_parcels_with_vectors(engine, unit_vectors(1))
    assert build_generation(engine, folder, space_id, collection_id).projection_recall_at_10 is None


def test_the_next_generation_stands_beside_the_last_and_answers_instead(
    engine: Engine, folder: Path
) -> None:
    vectors = unit_vectors(4)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors[:3])
    first = build_generation(engine, folder, space_id, collection_id)
    add_parcel(engine, space_id, "new", vectors[3])
    second = build_generation(engine, folder, space_id, collection_id)
    assert (first.generation, second.generation) == (1, 2)
    assert current(engine, space_id) == second
    # Whoever has the first open, or opens it late, still reads what was published.
    assert_answers(folder, first, vectors[:3])
    assert_answers(folder, second, vectors)


def test_generations_are_numbered_over_all_spaces(engine: Engine, folder: Path) -> None:
    first, collection_id = save_parcels_with_vectors(engine, unit_vectors(2))
    second, other = save_parcels_with_vectors(engine, unit_vectors(3), "other")
    assert build_generation(engine, folder, first, collection_id).generation == 1
    assert build_generation(engine, folder, second, other).generation == 2
    assert current(engine, first).rows == 2
    assert current(engine, second).rows == 3


def test_a_superseded_row_is_in_no_later_generation(engine: Engine, folder: Path) -> None:
    old, new, other = unit_vectors(3)
    space_id, collection_id = save_parcels_with_vectors(engine, np.stack([old, other]))
    build_generation(engine, folder, space_id, collection_id)
    with engine.begin() as connection:
        known = known_of(connection, collection_id, space_id, "p0")
        save(connection, space_id, [record("p0", new, fingerprint="2" * 64, known=known)])
    manifest = build_generation(engine, folder, space_id, collection_id)
    index, columns = open_generation(folder, manifest)
    scores, rows, _ = index.search(old, 10)
    assert sorted(columns.ids[rows].tolist()) == [2, 3]
    assert scores.max() < 0.9


def test_a_parcel_that_is_retired_leaves_catalog_and_index_together(
    engine: Engine, folder: Path
) -> None:
    vectors = unit_vectors(4)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors)
    first = build_generation(engine, folder, space_id, collection_id)
    second = build_generation(engine, folder, space_id, collection_id, Additions(retired=[2, 3]))
    _, columns = open_generation(folder, second)
    assert sorted(columns.parcels.tolist()) == [1, 4]
    with engine.connect() as connection:
        assert current_extent(connection, space_id) == (2, 4)
        # Whoever still has the former one open learns who is gone.
        gone = changed_parcels(connection, first.last_change, last_change(connection))
    assert gone.tolist() == [2, 3]


def test_many_vectors_wait_in_a_file_that_is_gone_afterwards(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SPOOLED_BYTES", 0)
    vectors = unit_vectors(5)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors)
    manifest = build_generation(engine, folder, space_id, collection_id)
    assert_answers(folder, manifest, vectors)
    assert folders(folder / "1") == {*manifest.files, "manifest.json"}


def test_a_large_index_has_lists_and_columns_in_their_order(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.vector_index.sizing.SEARCHED_WHOLE", 100)
    vectors = unit_vectors(200)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors)
    manifest = build_generation(engine, folder, space_id, collection_id)
    # At least 39 rows to a list: 200 / 39 = 5.1.
    assert (manifest.nlist, manifest.recall_queries) == (5, 200)
    assert manifest.imbalance >= 1
    assert_answers(folder, manifest, vectors)
    small = build_generation(engine, folder, space_id, collection_id, backend=FaissBackend(1))
    assert "fp16" in manifest.index_kind
    assert "int8" in small.index_kind
    assert_answers(folder, small, vectors)


# The change log ------------------------------------------------------------------------------


def test_changes_are_forgotten_that_every_kept_generation_holds(
    engine: Engine, folder: Path
) -> None:
    first, collection_id = save_parcels_with_vectors(engine, unit_vectors(3))
    one = build_generation(engine, folder, first, collection_id)
    second, other = save_parcels_with_vectors(engine, unit_vectors(2), "other")
    two = build_generation(engine, folder, second, other)
    assert 0 < one.last_change < two.last_change
    with engine.connect() as connection:
        # By the last one of them it is known that nothing later is missing.
        assert changed_parcels(connection, 0, one.last_change).tolist() == [3]
        # The index of the first space has yet to be told of these.
        assert changed_parcels(connection, one.last_change, two.last_change).tolist() == [4, 5]
    build_generation(engine, folder, first, collection_id)
    with engine.connect() as connection:
        # The one before is kept, and may answer again.
        assert changed_parcels(connection, 0, two.last_change).tolist() == [3, 4, 5]
    build_generation(engine, folder, first, collection_id)
    with engine.connect() as connection:
        assert changed_parcels(connection, 0, two.last_change).tolist() == [5]
        assert last_change(connection) == two.last_change


def test_a_generation_that_knows_no_change_keeps_the_whole_log(
    engine: Engine, folder: Path
) -> None:
    first, collection_id = save_parcels_with_vectors(engine, unit_vectors(3))
    publish_as_before(engine, folder, first, collection_id)
    second, other = save_parcels_with_vectors(engine, unit_vectors(2), "other")
    manifest = build_generation(engine, folder, second, other)
    with engine.connect() as connection:
        logged = changed_parcels(connection, 0, manifest.last_change)
    assert logged.tolist() == [1, 2, 3, 4, 5]


# Generations of before -----------------------------------------------------------------------


def publish_as_before(
    engine: Engine, folder: Path, space_id: int, collection_id: int
) -> dict[str, object]:
    """A generation of one index file, as versions up to 0.9 published it; returns its manifest."""
    former: dict[str, object] = {
        "generation": 1,
        "space_digest": space_of(engine, space_id).digest,
        "recipe": RECIPE.to_dict(),
        "projection": "orthonormal",
        "rows": 3,
        "last_id": 3,
        "dimensions": 512,
        "index_kind": "IVF_FLAT",
        "index_sha256": hashlib.sha256(b"an index").hexdigest(),
        "index_bytes": 8,
        "nlist": 1,
        "nprobe": 1,
        "recall_at_10": 1.0,
        "recall_queries": 3,
        "projection_recall_at_10": 1.0,
        "projection_rows": 3,
        "created_at": "2023-05-29T10:50:31+00:00",
        "versions": {"parcelle": "0.1", "faiss-cpu": "1.10"},
    }
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "index.faiss").write_bytes(b"an index")
    with engine.begin() as connection:
        publish_generation(
            connection,
            generation_id=1,
            space_id=space_id,
            collection_id=collection_id,
            manifest=former,
        )
    return former


def test_a_generation_of_an_earlier_version_is_listed_and_refused_until_it_is_rebuilt(
    engine: Engine, folder: Path
) -> None:
    vectors = unit_vectors(3)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors)
    publish_as_before(engine, folder, space_id, collection_id)
    with engine.connect() as connection:
        (listed,) = list_generations(connection)
    assert listed.current
    assert (listed.manifest.generation, listed.manifest.rows) == (1, 3)
    assert listed.to_dict()["index_kind"] == "IVF_FLAT"
    for refuse in (open_generation, check_files):
        with pytest.raises(
            StorageError, match=r"earlier version.*parcelle generations rebuild"
        ) as caught:
            refuse(folder, listed.manifest)
        assert caught.value.kind == "generation-corrupt"
    assert not is_current(engine, folder, space_of(engine, space_id))
    (rebuilt,) = rebuild(engine, folder)
    assert_answers(folder, rebuilt, vectors)
    assert is_current(engine, folder, space_of(engine, space_id))


# Whether there is something to publish -------------------------------------------------------


def test_a_space_is_current_until_its_catalog_moves_on(engine: Engine, folder: Path) -> None:
    vectors = unit_vectors(3)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors[:2])
    assert not is_current(engine, folder, space_of(engine, space_id))
    build_generation(engine, folder, space_id, collection_id)
    assert is_current(engine, folder, space_of(engine, space_id))
    add_parcel(engine, space_id, "new", vectors[2])
    assert not is_current(engine, folder, space_of(engine, space_id))


def test_a_space_is_not_current_when_a_row_was_replaced_or_lost(
    engine: Engine, folder: Path
) -> None:
    vectors = unit_vectors(3)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors[:2])
    for vector in (vectors[2], None):
        build_generation(engine, folder, space_id, collection_id)
        assert is_current(engine, folder, space_of(engine, space_id))
        with engine.begin() as connection:
            known = known_of(connection, collection_id, space_id, "p1")
            save(connection, space_id, [record("p1", vector, fingerprint="2" * 64, known=known)])
        assert not is_current(engine, folder, space_of(engine, space_id))


# Damage --------------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


WHOLE_FILES = ["columns.bin", "columns.json", "index.json", "vectors.codec", "vectors.npy"]
LIST_FILES = [
    *WHOLE_FILES,
    "centroid_axes.npy",
    "centroids.npy",
    "lists.faiss",
    "sketch_axes.npy",
    "sketches.codec",
    "sketches.npy",
    "starts.npy",
]


@pytest.fixture(scope="module")
def with_lists(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Where a generation with lists lies, and its manifest; only to be read."""
    place = tmp_path_factory.mktemp("with-lists")
    engine = connect(Settings(data_dir=place, database_url=""))
    upgrade(engine)
    space_id, collection_id = save_parcels_with_vectors(engine, unit_vectors(200))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.vector_index.sizing.SEARCHED_WHOLE", 100)
        manifest = build_generation(engine, place / "generations", space_id, collection_id)
    engine.dispose()
    return place / "generations", manifest


def copied(with_lists: tuple[Path, Manifest], folder: Path) -> Manifest:
    shutil.copytree(with_lists[0], folder)
    return with_lists[1]


def test_every_file_of_a_generation_can_be_damaged_below(
    with_lists: tuple[Path, Manifest],
) -> None:
    assert with_lists[1].files.keys() == set(LIST_FILES)
    open_generation(*with_lists)
    check_files(*with_lists)


@pytest.mark.parametrize("name", LIST_FILES)
@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, os.unlink])
def test_damage_to_any_file_is_noticed_when_it_is_opened(
    with_lists: tuple[Path, Manifest],
    folder: Path,
    damage: Callable[[Path], None],
    name: str,
) -> None:
    manifest = copied(with_lists, folder)
    damage(folder / "1" / name)
    for refuse in (open_generation, check_files):
        with pytest.raises(StorageError, match=rf"1/{name}.*generations rebuild") as caught:
            refuse(folder, manifest)
        assert caught.value.kind == "generation-corrupt"


@pytest.mark.parametrize("name", LIST_FILES)
def test_of_larger_files_opening_compares_sizes_and_a_check_everything(
    with_lists: tuple[Path, Manifest], folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHECKED_BYTES", 0)
    manifest = copied(with_lists, folder)
    open_generation(folder, manifest)
    flip_a_bit(folder / "1" / name)
    with pytest.raises(StorageError, match=rf"1/{name}.*is damaged.*generations rebuild"):
        check_files(folder, manifest)
    cut_short(folder / "1" / name)
    with pytest.raises(StorageError, match=rf"1/{name}.*bytes.*generations rebuild"):
        open_generation(folder, manifest)


@pytest.mark.parametrize("name", LIST_FILES)
def test_a_large_file_that_is_no_longer_what_it_should_be_is_refused_all_the_same(
    with_lists: tuple[Path, Manifest], folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHECKED_BYTES", 0)
    manifest = copied(with_lists, folder)
    path = folder / "1" / name
    content = path.read_bytes()
    path.write_bytes(b"?" * 64 + content[64:])
    if name == "columns.bin":
        # Numbers without a header: only the check of everything can tell.
        with pytest.raises(StorageError):
            check_files(folder, manifest)
        return
    with pytest.raises(StorageError) as caught:
        open_generation(folder, manifest)
    assert caught.value.kind == "generation-corrupt"


@pytest.mark.parametrize("name", WHOLE_FILES)
@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, os.unlink])
def test_a_damaged_generation_is_rebuilt_from_the_catalog(
    engine: Engine, folder: Path, damage: Callable[[Path], None], name: str
) -> None:
    vectors = unit_vectors(5)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors)
    manifest = build_generation(engine, folder, space_id, collection_id)
    assert manifest.files.keys() == set(WHOLE_FILES)
    damage(folder / "1" / name)
    assert not is_current(engine, folder, space_of(engine, space_id))
    (rebuilt,) = rebuild(engine, folder)
    assert current(engine, space_id) == rebuilt
    assert_answers(folder, rebuilt, vectors)


def test_every_space_that_is_searched_can_be_rebuilt_from_the_catalog_alone(
    engine: Engine, folder: Path
) -> None:
    spaces = []
    for number, collection in enumerate(("one", "other"), start=2):
        space_id, collection_id = save_parcels_with_vectors(
            engine, unit_vectors(number), collection
        )
        build_generation(engine, folder, space_id, collection_id)
        spaces.append(space_id)
    save_parcels_with_vectors(engine, unit_vectors(9), "never published")
    shutil.rmtree(folder)
    assert [manifest.rows for manifest in rebuild(engine, folder)] == [2, 3]
    assert all(is_current(engine, folder, space_of(engine, space_id)) for space_id in spaces)


def test_an_empty_catalog_has_nothing_to_rebuild(engine: Engine, folder: Path) -> None:
    assert rebuild(engine, folder) == []
    assert not folder.exists()


# Death at every step -------------------------------------------------------------------------

FLUSHED = 10
"""Two files of columns as they are written, then all five, the manifest, and two folders."""


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (Path, "mkdir", 1),
        (store, "vector_blocks", 1),
        (building, "_build_whole", 1),
        (building, "_write_parameters", 1),
        (building, "_write_parameters", 2),
        (Columns, "read", 1),
        (Columns, "write", 1),
        *((os, "fsync", number) for number in range(1, FLUSHED + 1)),
        (store, "write_durably", 1),
        (store, "_check_written", 1),
        (store, "flush_folder", 1),
        (Path, "rename", 1),
        (store, "flush_folder", 2),
        (store, "publish_generation", 1),
        (store, "delete_parcels", 1),
        (store, "forget", 1),
        (history, "delete_generations", 1),
        (history, "prune_changes", 1),
    ],
    ids=lambda value: "" if isinstance(value, type | ModuleType) else str(value),
)
def test_whatever_dies_on_the_way_the_former_generation_answers_and_the_next_build_succeeds(
    engine: Engine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    call: int,
) -> None:
    vectors = unit_vectors(4)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors[:3])
    former = build_generation(engine, folder, space_id, collection_id)
    add_parcel(engine, space_id, "new", vectors[3])
    real, calls = getattr(owner, name), 0

    def die(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Crash
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        with pytest.raises(Crash):
            build_generation(engine, folder, space_id, collection_id)
    assert current(engine, space_id) == former
    assert_answers(folder, former, vectors[:3])
    following = build_generation(engine, folder, space_id, collection_id)
    assert current(engine, space_id) == following
    assert_answers(folder, following, vectors)
    assert folders(folder) == {"1", "2"}
    with engine.connect() as connection:
        assert len(list_generations(connection)) == 2


def test_what_a_killed_build_left_in_its_place_is_cleared_away(
    engine: Engine, folder: Path
) -> None:
    space_id, collection_id = save_parcels_with_vectors(engine, unit_vectors(2))
    for name in (".building-1", "1"):
        (folder / name).mkdir(parents=True)
        (folder / name / "index.faiss").write_bytes(b"half an index")
    manifest = build_generation(engine, folder, space_id, collection_id)
    assert folders(folder) == {"1"}
    assert folders(folder / "1") == {*manifest.files, "manifest.json"}
    assert_answers(folder, manifest, unit_vectors(2))


def test_the_folders_above_are_on_the_disk_before_anything_is_written_into_them(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space_id, collection_id = save_parcels_with_vectors(engine, unit_vectors(2))
    flushed: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    above = tmp_path / "volume" / "index"
    build_generation(engine, above / "generations", space_id, collection_id)
    assert flushed[:3] == [str(tmp_path), str(tmp_path / "volume"), str(above)]
    aside = above / "generations" / ".building-1"
    # All of its files, then the folder, then the folder that names it.
    assert {str(aside / name) for name in [*WHOLE_FILES, "manifest.json"]} <= set(flushed)
    assert flushed[-2:] == [str(aside), str(above / "generations")]


# A disk that fails ---------------------------------------------------------------------------


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("owner", "name", "failure"),
    [
        (os, "fsync", full_disk),
        (os, "posix_fallocate", full_disk),
        (np, "save", full_disk),
        (building, "_write_parameters", full_disk),
        (store, "write_durably", full_disk),
        (store, "flush_folder", full_disk),
        (Path, "mkdir", full_disk),
        (Path, "rename", full_disk),
    ],
    ids=[
        "flushing",
        "room for many vectors",
        "the vectors",
        "the parameters",
        "the manifest",
        "flushing a folder",
        "making a folder",
        "renaming",
    ],
)
def test_a_failing_disk_is_reported_and_publishes_nothing(
    engine: Engine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    failure: Callable[..., None],
) -> None:
    vectors = unit_vectors(3)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors[:2])
    former = build_generation(engine, folder, space_id, collection_id)
    add_parcel(engine, space_id, "new", vectors[2])
    if name == "posix_fallocate":
        monkeypatch.setattr(store, "_SPOOLED_BYTES", 0)
    monkeypatch.setattr(owner, name, failure)
    with pytest.raises(StorageError, match="cannot be written") as caught:
        build_generation(engine, folder, space_id, collection_id)
    monkeypatch.undo()
    assert caught.value.kind == "write-failed"
    assert current(engine, space_id) == former
    assert_answers(folder, former, vectors[:2])
    # A full disk has no room for half an index.
    assert folders(folder) == {"1"}


@pytest.mark.parametrize("call", range(1, FLUSHED + 1))
def test_a_flush_that_fails_once_publishes_nothing_and_is_not_tried_again(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    vectors = unit_vectors(3)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors[:2])
    former = build_generation(engine, folder, space_id, collection_id)
    add_parcel(engine, space_id, "new", vectors[2])
    real, flushed = os.fsync, []

    def fail_once(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        if len(flushed) == call:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_once)
        with pytest.raises(StorageError, match="cannot be written"):
            build_generation(engine, folder, space_id, collection_id)
    assert len(flushed) == call, "something was flushed after the failure"
    assert current(engine, space_id) == former
    assert folders(folder) == {"1"}
    following = build_generation(engine, folder, space_id, collection_id)
    assert_answers(folder, following, vectors)


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_a_short_file_without_any_error_is_noticed_before_anybody_trusts_it(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    vectors = unit_vectors(3)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors[:2])
    former = build_generation(engine, folder, space_id, collection_id)
    add_parcel(engine, space_id, "new", vectors[2])
    real = store._flushed

    def lose_the_end(path: Path) -> object:
        if path.name == name:
            os.truncate(path, path.stat().st_size - 7)
        return real(path)

    monkeypatch.setattr(store, "_flushed", lose_the_end)
    with pytest.raises(StorageError, match="former generation goes on") as caught:
        build_generation(engine, folder, space_id, collection_id)
    assert caught.value.kind == "write-failed"
    assert current(engine, space_id) == former
    assert_answers(folder, former, vectors[:2])


def test_a_folder_that_cannot_be_made_is_named(engine: Engine, folder: Path) -> None:
    space_id, collection_id = save_parcels_with_vectors(engine, unit_vectors(2))
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file")
    with pytest.raises(StorageError, match="generations: cannot be written") as caught:
        build_generation(engine, folder, space_id, collection_id)
    assert caught.value.kind == "write-failed"


def test_a_space_without_projection_cannot_be_published(engine: Engine, folder: Path) -> None:
    with engine.begin() as connection:
        space_id = make_space(connection, frozen=False)
        save(connection, space_id, [record("p1", unit_vectors(1)[0])], projected=False)
    with pytest.raises(TypeError, match="no projection"):
        build_generation(engine, folder, space_id, None)
