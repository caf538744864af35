"""What is written when an index is built."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.vector_index import building, codecs
from indexer.vector_index.building import build_index
from indexer.vector_index.index import LISTS_FILE, PARAMETERS_FILE, SKETCHES_FILE, VectorIndex
from indexer.vector_index.sizing import Shape, choose_shape
from tests.indexer.vector_index.conftest import PLENTY, Build
from tests.indexer.vector_index.drawing import (
    DIMENSIONS,
    clustered,
    contents,
    unit,
)

LISTS = Shape(16, "fp16", 16, 32)
N = 1_000


def new_folder(parent: Path, name: str = "index") -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("n", "shape"), [(5, Shape(1, "fp32", 0, 0)), (N, LISTS)])
def test_each_row_of_the_index_is_the_vector_that_the_order_says(
    n: int, shape: Shape, tmp_path: Path
) -> None:
    vectors = clustered(n)
    index, order, _ = build_index(new_folder(tmp_path), vectors, shape)
    assert sorted(order.tolist()) == list(range(n))
    exact_to = 0 if shape.precision == "fp32" else 1e-3
    np.testing.assert_allclose(contents(index), vectors[order], atol=exact_to)


def test_rows_lie_in_the_order_of_their_lists_and_within_in_that_of_the_source(
    build: Build,
) -> None:
    _, index, order, _, _ = build(N, DIMENSIONS, LISTS)
    lists = index.lists_of(np.arange(N))
    assert (np.diff(lists) >= 0).all()
    for one in range(index.nlist):
        members = order[index.starts[one] : index.starts[one + 1]]
        assert (lists[index.starts[one] : index.starts[one + 1]] == one).all()
        assert (np.diff(members) > 0).all()
    assert (index.starts[0], index.starts[-1]) == (0, N)


def test_each_row_lies_in_the_list_of_its_nearest_centroid(build: Build) -> None:
    _, index, order, _, vectors = build(N, DIMENSIONS, LISTS)
    closeness = (vectors[order] @ index.centroid_axes.T) @ index.centroids.T
    own = closeness[np.arange(N), index.lists_of(np.arange(N))]
    np.testing.assert_allclose(own, closeness.max(axis=1), atol=1e-5)


def test_imbalance_is_one_where_all_lists_are_equally_long(build: Build) -> None:
    index = build(N, DIMENSIONS, LISTS).opened
    sizes = np.diff(index.starts)
    # The mean over rows of how long their own list is, beside N / nlist.
    assert index.imbalance == pytest.approx((sizes @ sizes / N) / (N / index.nlist))
    assert index.imbalance >= 1
    assert build(5).opened.imbalance == 1


@pytest.mark.parametrize("shape", [Shape(1, "fp32", 0, 0), LISTS])
def test_the_same_seed_gives_the_same_files(shape: Shape, tmp_path: Path) -> None:
    folders = [new_folder(tmp_path, name) for name in ("one", "two")]
    for folder in folders:
        build_index(folder, clustered(N), shape, seed=3)
    first, second = map(files, folders)
    # How many lists a search looks into is a matter of time too, which is measured.
    parameters = [json.loads(content.pop(PARAMETERS_FILE)) for content in (first, second)]
    assert first == second
    for content in parameters:
        del content["efforts"]
    assert parameters[0] == parameters[1]


# Of so many lists all rows are trained on; of more rows a file gives whole runs.
@pytest.mark.parametrize("shape", [Shape(1, "fp32", 0, 0), Shape(32, "fp16", 16, 32)])
def test_vectors_in_a_file_of_half_precision_give_the_index_that_they_give_in_memory(
    shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_BLOCK", 130)
    half = clustered(N).astype(np.float16)
    mapped = np.memmap(tmp_path / "spool", np.float16, "w+", shape=half.shape)
    mapped[:] = half
    folders = [new_folder(tmp_path, name) for name in ("memory", "mapped", "one-block")]
    build_index(folders[0], half.astype(np.float32), shape)
    build_index(folders[1], mapped, shape)
    monkeypatch.setattr(building, "_BLOCK", N)
    build_index(folders[2], half, shape)
    first, *others = map(files, folders)
    del first[PARAMETERS_FILE]
    for other in others:
        del other[PARAMETERS_FILE]
        assert other == first


def test_nothing_is_written_outside_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, folder = new_folder(tmp_path, "here"), new_folder(tmp_path)
    temporary = new_folder(tmp_path, "temporary")
    monkeypatch.chdir(here)
    monkeypatch.setenv("TMPDIR", str(temporary))
    build_index(folder, clustered(N), LISTS)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.parent != folder) == [
        "here",
        "index",
        "temporary",
    ]


ASK = """
import sys
import numpy as np
from pathlib import Path
from indexer.vector_index.index import VectorIndex

index = VectorIndex(Path(sys.argv[1]))
queries = np.load(sys.argv[2])
print([index.search(query, 5)[1].tolist() for query in queries])
"""


@pytest.mark.parametrize("n", [100, N])
def test_the_files_are_enough_to_open_the_index_in_another_process(
    n: int, build: Build, tmp_path: Path
) -> None:
    built = build(n, DIMENSIONS, LISTS if n == N else None)
    queries = clustered(n + 5)[n:]
    np.save(tmp_path / "queries.npy", queries)
    answer = subprocess.run(
        [sys.executable, "-c", ASK, str(built.folder), str(tmp_path / "queries.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stderr == ""
    assert json.loads(answer.stdout) == [
        built.opened.search(query, 5)[1].tolist() for query in queries
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is mapped on Linux only")
def test_an_open_index_is_mapped_so_that_processes_share_it(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    build_index(folder, clustered(N), LISTS)
    index = VectorIndex(folder)
    mapped = Path("/proc/self/maps").read_text()
    for name in ("vectors.npy", SKETCHES_FILE, LISTS_FILE):
        assert str(folder / name) in mapped
    # Those who still ask do not notice that the files are gone.
    for path in folder.iterdir():
        path.unlink()
    assert len(index.search(clustered(1)[0], 10)[1]) == 10


def test_mapped_vectors_cannot_be_written_to(build: Build) -> None:
    index = build(N, DIMENSIONS, LISTS).opened
    for held in (index.codes, index.sketches):
        with pytest.raises(ValueError, match="read-only"):
            held[0, 0] = 1


@pytest.mark.parametrize("dimensions", [1, 2, 3, 30, 101, 129])
def test_any_number_of_dimensions_can_be_indexed(
    dimensions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.vector_index.sizing.SEARCHED_WHOLE", 100)
    shape = choose_shape(N, dimensions, PLENTY)
    assert shape.nlist > 1
    assert dimensions % shape.subquantizers == 0
    vectors = unit(np.random.default_rng(0).standard_normal((N, dimensions)))
    index, order, _ = build_index(new_folder(tmp_path), vectors, shape)
    # Of equal directions, any is the nearest.
    for row in range(0, N, 50):
        scores, rows, _ = index.search(vectors[row], 10)
        assert len(rows) == 10
        np.testing.assert_allclose(scores, vectors[order[rows]] @ vectors[row], atol=2e-3)


@pytest.mark.parametrize("n", [N, 5 * N])
def test_vectors_that_are_all_the_same_can_be_indexed(
    n: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    vectors = np.repeat(clustered(1), n, axis=0)
    for name, shape in (("whole", Shape(1, "fp32", 0, 0)), ("lists", LISTS)):
        index, _, _ = build_index(new_folder(tmp_path, name), vectors, shape)
        scores, rows, _ = index.search(vectors[0], n)
        assert sorted(rows.tolist()) == list(range(n))
        np.testing.assert_allclose(scores, 1, atol=1e-3)
    assert capfd.readouterr() == ("", "")


def test_many_copies_of_few_vectors_can_be_indexed(tmp_path: Path) -> None:
    vectors = np.tile(clustered(30), (200, 1))
    index, order, _ = build_index(new_folder(tmp_path), vectors, Shape(64, "fp16", 16, 32))
    for number in range(30):
        _, rows, _ = index.search(vectors[number], 100)
        assert set((order[rows] % 30).tolist()) == {number}


def test_there_may_be_more_lists_than_rows_in_a_list(tmp_path: Path) -> None:
    n = 200
    shape = Shape(150, "fp16", 16, 32)
    index, order, _ = build_index(new_folder(tmp_path), clustered(n), shape)
    for row in range(n):
        _, rows, _ = index.search(clustered(n)[row], 50)
        assert order[rows[0]] == row
        assert len(rows) == 50


@pytest.mark.parametrize("n", [1, 5, N])
def test_building_prints_nothing_and_says_what_it_does(
    n: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    notes: list[str] = []
    shape = LISTS if n == N else choose_shape(n, DIMENSIONS, PLENTY)
    build_index(new_folder(tmp_path), clustered(n), shape, note=notes.append)
    assert capfd.readouterr() == ("", "")
    assert notes[-1] == "measuring"


# A disk that fails ---------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk to write to")
@pytest.mark.parametrize("name", ["vectors.codec", LISTS_FILE, "sketches.codec"])
def test_a_full_disk_is_an_error_of_the_operating_system(name: str, tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    (folder / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        build_index(folder, clustered(N), LISTS)
    assert caught.value.errno == errno.ENOSPC


def test_room_for_the_vectors_is_made_before_they_are_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full_disk)
    with pytest.raises(OSError, match="No space left"):
        build_index(new_folder(tmp_path), clustered(N), LISTS)


@pytest.mark.parametrize("name", ["vectors.codec", LISTS_FILE, "sketches.codec"])
@pytest.mark.parametrize("lost", [1, 7, 1_000_000])
def test_a_file_that_was_cut_short_without_an_error_is_noticed(
    name: str, lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = codecs.write_index

    def lose_the_end(index: faiss.Index, path: Path) -> None:
        real(index, path)
        if path.name == name:
            os.truncate(path, max(0, path.stat().st_size - lost))

    for module in (building, codecs):
        monkeypatch.setattr(module, "write_index", lose_the_end)
    with pytest.raises(OSError, match="does not read back"):
        build_index(new_folder(tmp_path), clustered(N), LISTS)
