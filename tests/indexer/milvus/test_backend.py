"""Generations as collections: the database decides, the server follows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import StorageError
from indexer.milvus.backend import MilvusBackend
from indexer.milvus.names import alias_of, collection_of, prefix
from indexer.milvus.server import MilvusServer
from indexer.settings import Settings
from tests.indexer.milvus.conftest import DIMENSIONS
from tests.indexer.vector_index.drawing import clustered

SMALL = clustered(40, DIMENSIONS)

LAST = 4
"""Number of the generation that would come next."""


@pytest.fixture
def folder(tmp_path: Path, milvus: MilvusServer) -> Iterator[Path]:
    """Where generations lie; their collections go at the end."""
    yield tmp_path
    for name in milvus.collections(prefix(tmp_path)):
        milvus.drop(name)


def built(backend: MilvusBackend, folder: Path, generation: int, rows: int) -> Path:
    """The folder of a generation of so many vectors."""
    aside = folder / f".building-{generation}"
    aside.mkdir()
    backend.build(aside, generation, SMALL[:rows])
    return aside.rename(folder / str(generation))


def test_a_generation_is_opened_from_its_folder(milvus: MilvusServer, folder: Path) -> None:
    backend = MilvusBackend(milvus)
    aside = folder / ".building-3"
    aside.mkdir()
    index, order, queries = backend.build(aside, 3, SMALL)
    assert order.tolist() == list(range(40))
    assert queries == 0
    opened = backend.open(aside)
    assert (opened.rows, opened.dimensions, opened.kind) == (40, DIMENSIONS, index.kind)
    np.testing.assert_array_equal(opened.vectors(np.arange(40)), SMALL)
    backend.check(aside, thorough=True)


def test_names_follow_what_answers_and_collections_what_is_kept(
    milvus: MilvusServer, folder: Path
) -> None:
    backend = MilvusBackend(milvus)
    for generation, rows in ((1, 10), (2, 20), (3, 30)):
        built(backend, folder, generation, rows)
    assert backend.follow(folder, {1, 2, 3}, {7: 1}, LAST) == []
    assert milvus.count(alias_of(folder, 7)) == 10
    assert backend.follow(folder, {2, 3}, {7: 3}, LAST) == [collection_of(folder, 1)]
    assert milvus.count(alias_of(folder, 7)) == 30
    # Rolled back; and again, for a process that died before it was done.
    for _ in range(2):
        assert backend.follow(folder, {2, 3}, {7: 2}, LAST) == []
        assert milvus.count(alias_of(folder, 7)) == 20


def test_collections_of_another_installation_stay_as_they_are(
    milvus: MilvusServer, folder: Path, tmp_path: Path
) -> None:
    backend = MilvusBackend(milvus)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = built(backend, elsewhere, 1, 10)
    built(backend, folder, 2, 20)
    assert backend.follow(folder, set(), {}, LAST) == [collection_of(folder, 2)]
    backend.check(other, thorough=True)
    assert backend.follow(elsewhere, set(), {}, LAST) == [collection_of(elsewhere, 1)]


def test_a_copy_that_was_restored_elsewhere_reads_the_collection_and_never_drops_it(
    milvus: MilvusServer, folder: Path, tmp_path: Path
) -> None:
    backend = MilvusBackend(milvus)
    original = built(backend, folder, 1, 10)
    restored = tmp_path / "restored"
    copy = restored / "1"
    copy.mkdir(parents=True)
    (copy / "milvus.json").write_bytes((original / "milvus.json").read_bytes())
    assert backend.open(copy).rows == 10
    assert backend.follow(restored, {1}, {7: 1}, LAST) == []
    own = built(backend, restored, 2, 20)
    assert backend.follow(restored, {2}, {7: 2}, LAST) == []
    backend.check(original, thorough=True)
    backend.check(own, thorough=True)
    milvus.drop(collection_of(restored, 2))


def test_what_cannot_be_tidied_while_the_server_is_away_is_tidied_later(
    milvus: MilvusServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built(MilvusBackend(milvus), folder, 1, 10)
    away = MilvusBackend(MilvusServer("http://127.0.0.1:1", seconds=2))
    assert away.follow(folder, set(), {}, LAST) == []
    assert "http://127.0.0.1:1" in caplog.text
    assert MilvusBackend(milvus).follow(folder, set(), {}, LAST) == [collection_of(folder, 1)]


def test_where_nothing_was_built_there_is_nothing_to_tidy(tmp_path: Path) -> None:
    away = MilvusBackend(MilvusServer("http://127.0.0.1:1", seconds=2))
    assert away.follow(tmp_path, {1}, {7: 1}, LAST) == []
    assert list(tmp_path.iterdir()) == []


def test_a_generation_whose_collection_is_gone_is_refused(
    milvus: MilvusServer, folder: Path
) -> None:
    backend = MilvusBackend(milvus)
    place = built(backend, folder, 1, 10)
    milvus.drop(collection_of(folder, 1))
    with pytest.raises(StorageError, match="parcelle generations rebuild") as caught:
        backend.open(place)
    assert caught.value.kind == "generation-corrupt"


def test_all_that_a_process_does_on_a_server_is_done_on_one_connection(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, milvus_uri="", milvus_token="a:b")
    first, second = MilvusBackend.of(settings), MilvusBackend.of(settings)
    assert first.server is second.server
    assert first.server.address == str(tmp_path / "milvus.db")
    other = Settings(data_dir=tmp_path, milvus_uri="http://localhost:19530")
    assert MilvusBackend.of(other).server.address == "http://localhost:19530"
