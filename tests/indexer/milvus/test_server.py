"""A server that is away, and names on it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from indexer.errors import StorageError
from indexer.milvus.building import build_collection
from indexer.milvus.index import MilvusIndex
from indexer.milvus.server import MilvusServer
from tests.indexer.milvus.conftest import DIMENSIONS, Process, error_of
from tests.indexer.vector_index.drawing import clustered

SMALL = clustered(60, DIMENSIONS)


def test_a_server_that_is_not_there_is_named_and_no_secret_is(unused: str) -> None:
    server = MilvusServer(f"http://root:hidden@{unused}", "user:secret", seconds=2)
    error = error_of(server)
    assert error.kind == "milvus-unreachable"
    assert f"http://{unused}" in error.message
    assert "PARCELLE_MILVUS_URI" in error.message
    assert "hidden" not in error.message
    assert "secret" not in error.message
    assert "http" not in error.told


@pytest.fixture
def unused() -> str:
    """An address that nobody listens at."""
    return "127.0.0.1:1"


@pytest.mark.parametrize("uri", ["milvus", "ftp://localhost:1", "file.sqlite"])
def test_an_address_that_is_none_of_milvus_is_refused(uri: str) -> None:
    error = error_of(MilvusServer(uri, seconds=2))
    assert error.kind == "milvus-unreachable"
    assert uri in error.message


def test_a_client_that_is_not_installed_is_told_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    error = error_of(MilvusServer("http://127.0.0.1:1"))
    assert error.kind == "milvus-unreachable"
    assert "pip install 'parcelle[milvus]'" in error.message


def test_a_second_process_that_opens_a_file_is_told_why_it_cannot(
    milvus: MilvusServer,
) -> None:
    milvus.call("list_collections")
    script = (
        "import sys\n"
        "from indexer.errors import StorageError\n"
        "from indexer.milvus.server import MilvusServer\n"
        "try:\n"
        "    MilvusServer(sys.argv[1]).call('list_collections')\n"
        "except StorageError as error:\n"
        "    print(error.kind, error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, milvus.address], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"milvus-unreachable {milvus.address} cannot be opened")
    assert "One process at a time" in done.stdout
    assert "PARCELLE_MILVUS_URI" in done.stdout
    assert done.stderr == ""


def test_a_file_that_was_closed_can_be_opened_again_and_holds_what_it_held(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "new" / "milvus.db")
    first = MilvusServer(path, seconds=60)
    parameters = build_collection(first, "parcelle_00000000_g1", SMALL)
    first.close()
    first.close()
    second = MilvusServer(path, seconds=60)
    scores, rows, _ = MilvusIndex(second, parameters).search(SMALL[7], 1)
    second.close()
    assert rows.tolist() == [7]
    assert scores[0] == pytest.approx(1, abs=1e-6)


def test_a_server_that_was_killed_is_missed_at_once_and_answers_after_it_is_back(
    process: Process,
) -> None:
    server = MilvusServer(process.uri, seconds=20)
    index = MilvusIndex(server, build_collection(server, "parcelle_00000000_g1", SMALL))
    process.kill()
    with pytest.raises(StorageError, match="PARCELLE_MILVUS_URI") as caught:
        index.search(SMALL[7], 1)
    assert caught.value.kind == "milvus-unreachable"
    process.start()
    rows = when_it_answers(index)
    server.close()
    assert rows == [7]


def when_it_answers(index: MilvusIndex) -> list[int]:
    """The row nearest to vector 7, from a server that was just started."""
    until = time.monotonic() + 30
    while True:
        try:
            _, rows, _ = index.search(SMALL[7], 1)
        except StorageError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return [int(row) for row in rows]


def test_a_server_that_hangs_is_given_up_and_answers_when_it_goes_on(process: Process) -> None:
    patient = MilvusServer(process.uri, seconds=20)
    index = MilvusIndex(patient, build_collection(patient, "parcelle_00000000_g1", SMALL))
    hasty = MilvusServer(process.uri, seconds=1)
    hasty.call("list_collections")
    process.send(signal.SIGSTOP)
    begun = time.monotonic()
    error = error_of(hasty)
    # Not a measurement: it would wait for ever.
    assert time.monotonic() - begun < 15
    assert error.kind == "milvus-unreachable"
    process.send(signal.SIGCONT)
    _, rows, _ = index.search(SMALL[7], 1)
    hasty.close()
    patient.close()
    assert rows.tolist() == [7]


def test_a_name_points_at_one_collection_and_then_at_another(milvus: MilvusServer) -> None:
    first, second, alias = "parcelle_00000001_g1", "parcelle_00000001_g2", "parcelle_00000001_s1"
    build_collection(milvus, first, SMALL[:20])
    build_collection(milvus, second, SMALL[:30])
    milvus.point(alias, first)
    assert milvus.count(alias) == 20
    milvus.point(alias, second)
    assert milvus.count(alias) == 30
    assert milvus.collections("parcelle_00000001_") == [first, second]
    milvus.drop(first)
    assert milvus.count(alias) == 30
    milvus.drop(second)
    milvus.drop(second)
    assert milvus.collections("parcelle_00000001_") == []
