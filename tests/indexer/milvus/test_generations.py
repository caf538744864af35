"""Generations whose vectors are collections: published, rolled back, pruned, damaged, restored."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from indexer.backup.making import back_up
from indexer.backup.restoring import restore
from indexer.catalog.database import connect, upgrade
from indexer.catalog.reading import generation_records, get_space
from indexer.errors import StorageError
from indexer.generations import store
from indexer.generations.backends import FAISS, Backend, backend_of
from indexer.generations.compaction import compact, due_spaces, recall_now, stands
from indexer.generations.damage import find_damage
from indexer.generations.history import prune, roll_back
from indexer.generations.manifest import Manifest
from indexer.generations.recovery import leftovers, recover
from indexer.generations.store import build_generation, is_current, open_generation, rebuild
from indexer.generations.verification import verify
from indexer.milvus.backend import MilvusBackend
from indexer.milvus.names import alias_of, collection_of, prefix
from indexer.milvus.server import MilvusServer
from indexer.settings import Settings
from tests.indexer.catalog.filling import record, save, save_parcels_with_vectors, unit_vectors

VECTORS = unit_vectors(40)


class Crash(BaseException):
    """Stands for the end of the process: nothing catches it."""


class Index:
    """A catalog of thirty parcels whose vectors are to lie in Milvus."""

    def __init__(self, engine: Engine, folder: Path, backend: MilvusBackend) -> None:
        self.engine = engine
        self.folder = folder
        self.backend = backend
        self.space_id, self.collection_id = save_parcels_with_vectors(engine, VECTORS[:30])

    def add(self, number: int) -> None:
        """Store one more parcel, with the vector of that number."""
        with self.engine.begin() as connection:
            save(connection, self.space_id, [record(f"more-{number}", VECTORS[number])])

    def publish(self, backend: Backend | None = None) -> Manifest:
        return build_generation(
            self.engine,
            self.folder,
            self.space_id,
            self.collection_id,
            backend=backend or self.backend,
        )

    @property
    def collections(self) -> list[str]:
        """Of this index, on the server."""
        return self.backend.server.collections(prefix(self.folder))

    @property
    def behind_the_name(self) -> int:
        """Rows of the collection that the space's name points at."""
        return self.backend.server.count(alias_of(self.folder, self.space_id))

    @property
    def numbers(self) -> list[int]:
        """Of the generations that the catalog has, latest first."""
        with self.engine.connect() as connection:
            return [one.number for one in generation_records(connection)]

    def is_current(self, backend: Backend | None = None) -> bool:
        with self.engine.connect() as connection:
            space = get_space(connection, self.space_id)
        return is_current(self.engine, self.folder, space, backend or self.backend)

    def assert_answers(self, manifest: Manifest, backend: Backend | None = None) -> None:
        """Each vector's nearest row is its own."""
        index, columns = open_generation(self.folder, manifest, backend or self.backend)
        assert index.rows == columns.rows == manifest.rows
        for number in (0, 7, manifest.rows - 1):
            assert columns.ids[index.search(VECTORS[number], 1)[1]].tolist() == [number + 1]


@pytest.fixture
def index(settings: Settings, milvus: MilvusServer) -> Iterator[Index]:
    """Not published yet; its collections go at the end."""
    engine = connect(settings)
    upgrade(engine)
    index = Index(engine, settings.generations_dir, MilvusBackend(milvus))
    yield index
    for name in index.collections:
        milvus.drop(name)
    engine.dispose()


@pytest.fixture
def away() -> MilvusBackend:
    """Of a server that nobody started."""
    return MilvusBackend(MilvusServer("http://127.0.0.1:1", seconds=1))


def kind_of(caught: pytest.ExceptionInfo[StorageError]) -> str:
    return caught.value.kind


# As it goes ----------------------------------------------------------------------------------


def test_a_published_generation_opens_and_its_manifest_tells_where_the_vectors_are(
    index: Index,
) -> None:
    manifest = index.publish()
    assert manifest.backend == "milvus"
    assert (manifest.rows, manifest.dimensions, manifest.index_kind) == (30, 512, "Milvus FLAT")
    assert (manifest.nlist, manifest.nprobe, manifest.recall_at_10) == (1, 1, 1.0)
    assert manifest.versions.keys() == {"parcelle", "pymilvus"}
    assert "milvus.json" in manifest.files
    assert index.collections == [collection_of(index.folder, 1)]
    index.assert_answers(manifest)
    assert index.is_current()
    recall = recall_now(index.engine, index.folder, index.space_id, manifest, index.backend)
    assert recall.recall_at_10 == 1
    assert leftovers(index.engine, index.folder).strange == ()


def test_the_name_follows_publication_rollback_and_compaction(index: Index) -> None:
    index.publish()
    assert index.behind_the_name == 30
    index.add(30)
    assert not index.is_current()
    index.publish()
    assert index.behind_the_name == 31
    roll_back(index.engine, index.folder, backend=index.backend)
    assert index.behind_the_name == 30
    roll_back(index.engine, index.folder, 2, backend=index.backend)
    assert index.behind_the_name == 31
    index.add(31)
    (built,) = compact(index.engine, index.folder, only_if_due=False, backend=index.backend)
    assert (built.generation, index.behind_the_name) == (3, 32)


def test_collections_go_with_their_generations(index: Index) -> None:
    for number in (30, 31, 32):
        index.publish()
        index.add(number)
    assert index.numbers == [3, 2]
    assert index.collections == [collection_of(index.folder, number) for number in (2, 3)]
    prune(index.engine, index.folder, 1, backend=index.backend)
    assert index.collections == [collection_of(index.folder, 3)]


# What died -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["_check_written", "_move", "publish_generation"])
def test_nothing_is_left_of_a_build_that_died_once_the_next_writer_begins(
    index: Index, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first = index.publish()
    index.add(30)

    def die(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(store, step, die)
        with pytest.raises(Crash):
            index.publish()
    assert collection_of(index.folder, 2) in index.collections
    recover(index.engine, index.folder, index.backend)
    assert index.collections == [collection_of(index.folder, 1)]
    index.assert_answers(first)
    assert index.publish().generation == 2
    assert index.behind_the_name == 31


def test_the_next_writer_lets_names_follow_a_commit_after_which_the_process_died(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (30, 31):
        index.publish()
        index.add(number)

    def die(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(MilvusBackend, "tidy", die)
        with pytest.raises(Crash):
            index.publish()
    assert index.numbers == [3, 2]
    assert index.behind_the_name == 31
    recover(index.engine, index.folder, index.backend)
    assert index.behind_the_name == 32
    assert index.collections == [collection_of(index.folder, number) for number in (2, 3)]


def test_collections_with_numbers_that_this_database_never_gave_stay(index: Index) -> None:
    index.publish()
    other = collection_of(index.folder, 99)
    index.backend.server.create(other, 8)
    recover(index.engine, index.folder, index.backend)
    assert other in index.collections


# What is damaged -----------------------------------------------------------------------------


def lose(index: Index) -> str:
    """Drop the collection; returns what its error says."""
    index.backend.server.drop(collection_of(index.folder, 1))
    return collection_of(index.folder, 1)


def shorten(index: Index) -> str:
    name = collection_of(index.folder, 1)
    index.backend.server.call("delete", name, filter="row == 7")
    return f"{name} has 29 rows, but 30 were published"


def empty_the_file(index: Index) -> str:
    (index.folder / "1" / "milvus.json").write_bytes(b"")
    return "milvus.json"


def spoil_the_file(index: Index) -> str:
    path = index.folder / "1" / "milvus.json"
    path.write_bytes(b"[" + path.read_bytes()[1:])
    return "milvus.json"


@pytest.mark.parametrize("damage", [lose, shorten, empty_the_file, spoil_the_file])
def test_a_damaged_generation_is_refused_by_name_and_rebuilt_from_the_database(
    index: Index, damage: object
) -> None:
    manifest = index.publish()
    assert callable(damage)
    said = damage(index)
    with pytest.raises(StorageError, match="parcelle generations rebuild") as caught:
        open_generation(index.folder, manifest, index.backend)
    assert kind_of(caught) == "generation-corrupt"
    assert said in caught.value.message
    assert not index.is_current()
    assert due_spaces(index.engine, index.folder, index.backend) == [index.space_id]
    (found,) = verify(index.engine, index.folder, backend=index.backend)
    assert found.problem is not None
    assert said in found.problem
    (rebuilt,) = rebuild(index.engine, index.folder, backend=index.backend)
    index.assert_answers(rebuilt)
    assert index.numbers == [2]
    assert index.collections == [collection_of(index.folder, 2)]


def test_other_vectors_in_as_many_rows_are_found_by_whoever_reads_all_of_them(
    index: Index,
) -> None:
    index.publish()
    server, name = index.backend.server, collection_of(index.folder, 1)
    assert find_damage(index.engine, index.folder, index.backend) == []
    server.create(name, 512)
    server.insert(name, 0, VECTORS[10:40])
    server.make_index(name, "FLAT", 1)
    (damage,) = find_damage(index.engine, index.folder, index.backend)
    assert name in damage.message
    (found,) = verify(index.engine, index.folder, backend=index.backend)
    assert found.problem == damage.message


# The other backend ---------------------------------------------------------------------------


@pytest.mark.parametrize("towards", ["milvus", "faiss"])
def test_what_the_other_backend_holds_is_refused_by_name_and_moved_by_a_rebuild(
    index: Index, towards: str
) -> None:
    own, other = (FAISS, index.backend) if towards == "milvus" else (index.backend, FAISS)
    manifest = index.publish(own)
    for refused in (
        lambda: open_generation(index.folder, manifest, other),
        lambda: due_spaces(index.engine, index.folder, other),
        lambda: compact(index.engine, index.folder, only_if_due=False, backend=other),
        lambda: find_damage(index.engine, index.folder, other),
    ):
        with pytest.raises(StorageError, match="parcelle generations rebuild") as caught:
            refused()
        assert kind_of(caught) == "backend-differs"
        assert f"PARCELLE_VECTOR_BACKEND={own.name}" in caught.value.message
    assert not index.is_current(other)
    assert not stands(index.engine, index.folder, index.space_id, manifest, other)
    (rebuilt,) = rebuild(index.engine, index.folder, backend=other)
    assert rebuilt.backend == other.name
    index.assert_answers(rebuilt, other)
    assert index.is_current(other)


def test_the_way_back_is_a_rollback_as_long_as_the_former_generation_is_kept(
    index: Index,
) -> None:
    former = index.publish(FAISS)
    index.publish()
    with pytest.raises(StorageError) as caught:
        roll_back(index.engine, index.folder, 1, backend=index.backend)
    assert kind_of(caught) == "backend-differs"
    assert [one.ok for one in verify(index.engine, index.folder, backend=index.backend)] == [
        True,
        True,
    ]
    roll_back(index.engine, index.folder, 1, backend=FAISS)
    index.assert_answers(former, FAISS)
    assert index.is_current(FAISS)


# The server is away --------------------------------------------------------------------------


def test_a_server_that_is_away_says_nothing_about_what_it_holds(
    index: Index, away: MilvusBackend, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = index.publish()
    index.add(30)
    index.publish()
    for refused in (
        lambda: index.is_current(away),
        lambda: open_generation(index.folder, manifest, away),
        lambda: index.publish(away),
        lambda: rebuild(index.engine, index.folder, backend=away),
        lambda: due_spaces(index.engine, index.folder, away),
        lambda: roll_back(index.engine, index.folder, backend=away),
        lambda: find_damage(index.engine, index.folder, away),
    ):
        with pytest.raises(StorageError) as caught:
            refused()
        assert kind_of(caught) == "milvus-unreachable"
    recover(index.engine, index.folder, away)
    assert "Collections that are not needed stay" in caplog.text
    assert index.numbers == [2, 1]
    assert index.behind_the_name == 31
    index.assert_answers(manifest)


# Backups -------------------------------------------------------------------------------------


@pytest.fixture
def backup(index: Index, settings: Settings, tmp_path: Path) -> Path:
    """Of one generation."""
    index.publish()
    back_up(settings, tmp_path / "backup")
    return tmp_path / "backup"


def restored(folder: Path, backup: Path) -> tuple[Engine, Path, Manifest]:
    """A catalog and its generations, from a backup."""
    there = Settings(data_dir=folder, database_url="", croma_weights="untrained")
    restore(there, backup)
    engine = connect(there)
    with engine.connect() as connection:
        (one,) = generation_records(connection)
    return engine, there.generations_dir, one.manifest


def test_a_backup_does_not_say_whose_collections_are_whose(backup: Path, index: Index) -> None:
    assert (index.folder / "milvus-installation").exists()
    assert not list(backup.rglob("milvus-installation"))
    assert list(backup.rglob("milvus.json"))


def test_what_is_restored_elsewhere_answers_from_the_collection_and_leaves_it(
    index: Index, backup: Path, tmp_path: Path
) -> None:
    engine, folder, manifest = restored(tmp_path / "elsewhere", backup)
    recover(engine, folder, index.backend)
    open_generation(folder, manifest, index.backend)
    (own,) = rebuild(engine, folder, backend=index.backend)
    assert open_generation(folder, own, index.backend)[0].rows == 30
    (here,) = index.collections
    (there,) = index.backend.server.collections(prefix(folder))
    assert here != there
    index.backend.server.drop(there)
    engine.dispose()


def test_what_is_restored_without_its_server_says_how_it_is_rebuilt(
    index: Index, backup: Path, tmp_path: Path
) -> None:
    lose(index)
    engine, folder, manifest = restored(tmp_path / "elsewhere", backup)
    with pytest.raises(StorageError, match="parcelle generations rebuild") as caught:
        open_generation(folder, manifest, index.backend)
    assert kind_of(caught) == "generation-corrupt"
    (own,) = rebuild(engine, folder, backend=index.backend)
    opened, columns = open_generation(folder, own, index.backend)
    assert columns.ids[opened.search(VECTORS[7], 1)[1]].tolist() == [8]
    index.backend.server.drop(collection_of(folder, own.generation))
    engine.dispose()


def test_what_is_restored_in_its_own_place_keeps_its_collection_under_a_new_number(
    index: Index, settings: Settings, backup: Path
) -> None:
    index.add(30)
    index.publish()
    restore(settings, backup, replace=True)
    recover(index.engine, index.folder, index.backend)
    with index.engine.connect() as connection:
        (one,) = generation_records(connection)
    assert one.number > 2
    index.assert_answers(one.manifest)
    assert index.collections == [collection_of(index.folder, 1)]
    assert index.behind_the_name == 30


# Settings ------------------------------------------------------------------------------------


def test_the_settings_choose_and_nothing_is_asked_before_it_must_be(tmp_path: Path) -> None:
    assert backend_of(Settings(data_dir=tmp_path)).name == "faiss"
    chosen = backend_of(
        Settings(data_dir=tmp_path, vector_backend="milvus", milvus_uri="http://127.0.0.1:1")
    )
    assert (chosen.name, chosen.library) == ("milvus", "pymilvus")
    assert list(tmp_path.iterdir()) == []
