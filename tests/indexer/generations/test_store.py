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

from indexer.catalog.database import connect, upgrade
from indexer.catalog.reading import SpaceRecord, get_generation, get_space, list_generations
from indexer.errors import StorageError
from indexer.generations import store
from indexer.generations.manifest import Manifest
from indexer.generations.store import build_generation, is_current, open_generation, rebuild
from indexer.settings import Settings
from indexer.vector_index import VectorIndex
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
    index = open_generation(folder, manifest)
    assert index.rows == len(vectors)
    for row, vector in enumerate(vectors, start=1):
        assert index.search(vector, 1)[1].tolist() == [row]


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
    content = (folder / "1" / "index.faiss").read_bytes()
    assert manifest.index_sha256 == hashlib.sha256(content).hexdigest()
    assert manifest.index_bytes == len(content)
    assert manifest.space_digest == space_of(engine, space_id).digest
    assert manifest.recipe == RECIPE.to_dict()
    assert (manifest.rows, manifest.last_id, manifest.dimensions) == (10, 10, 512)
    assert (manifest.nlist, manifest.nprobe, manifest.recall_at_10) == (1, 1, 1.0)
    assert manifest.recall_queries == 10
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
    assert folders(folder / "1") == {"index.faiss", "manifest.json"}


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
    index = open_generation(folder, build_generation(engine, folder, space_id, collection_id))
    scores, ids = index.search(old, 10)
    assert sorted(ids.tolist()) == [2, 3]
    assert scores.max() < 0.9


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


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, os.unlink])
def test_a_damaged_index_is_refused_and_rebuilt_from_the_catalog(
    engine: Engine, folder: Path, damage: Callable[[Path], None]
) -> None:
    vectors = unit_vectors(5)
    space_id, collection_id = save_parcels_with_vectors(engine, vectors)
    manifest = build_generation(engine, folder, space_id, collection_id)
    damage(folder / "1" / "index.faiss")
    with pytest.raises(StorageError, match=r"1/index\.faiss.*parcelle generations rebuild") as err:
        open_generation(folder, manifest)
    assert err.value.kind == "generation-corrupt"
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


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (VectorIndex, "build", 1),
        (VectorIndex, "to_bytes", 1),
        (Path, "mkdir", 1),
        (Path, "mkdir", 2),
        (os, "fsync", 1),
        (os, "fsync", 2),
        (store, "_check_written", 1),
        (store, "_flush_folder", 1),
        (Path, "rename", 1),
        (store, "_flush_folder", 2),
        (store, "publish_generation", 1),
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


def test_what_a_killed_build_left_aside_is_cleared_away(engine: Engine, folder: Path) -> None:
    space_id, collection_id = save_parcels_with_vectors(engine, unit_vectors(2))
    for name in (".building-1", ".building-41", "1"):
        (folder / name).mkdir(parents=True)
        (folder / name / "index.faiss").write_bytes(b"half an index")
    manifest = build_generation(engine, folder, space_id, collection_id)
    assert folders(folder) == {"1"}
    assert_answers(folder, manifest, unit_vectors(2))


# A disk that fails ---------------------------------------------------------------------------


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def lose_the_end(path: Path, content: bytes) -> None:
    path.write_bytes(content[:-7])


@pytest.mark.parametrize(
    ("owner", "name", "failure"),
    [
        (os, "fsync", full_disk),
        (Path, "mkdir", full_disk),
        (Path, "rename", full_disk),
        (store, "_write_durably", lose_the_end),
    ],
    ids=["flushing", "making a folder", "renaming", "a short file without any error"],
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
    monkeypatch.setattr(owner, name, failure)
    with pytest.raises(StorageError, match="former generation goes on") as caught:
        build_generation(engine, folder, space_id, collection_id)
    monkeypatch.undo()
    assert caught.value.kind == "write-failed"
    assert current(engine, space_id) == former
    assert_answers(folder, former, vectors[:2])


def test_a_folder_that_cannot_be_made_is_named(engine: Engine, folder: Path) -> None:
    space_id, collection_id = save_parcels_with_vectors(engine, unit_vectors(2))
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
