"""A file of Milvus Lite with one collection, and a server in a process of its own."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.errors import StorageError
from indexer.milvus.building import build_collection
from indexer.milvus.index import MilvusIndex, Parameters
from indexer.milvus.server import MilvusServer
from tests.indexer.vector_index.drawing import clustered

N = 6_000
"""Rows of the collection: more than are searched whole."""

DIMENSIONS = 32


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """Milvus Lite."""
    server = MilvusServer(str(tmp_path_factory.mktemp("milvus") / "milvus.db"), seconds=60)
    yield server
    server.close()


@pytest.fixture(scope="session")
def parameters(milvus: MilvusServer) -> Parameters:
    """Of a collection of ``clustered(N, DIMENSIONS)``; only to be read."""
    return build_collection(milvus, "parcelle_00000000_g1", clustered(N, DIMENSIONS))


@pytest.fixture(scope="session")
def index(milvus: MilvusServer, parameters: Parameters) -> MilvusIndex:
    """The same, opened."""
    return MilvusIndex(milvus, parameters)


class Process:
    """Milvus Lite as a server of its own, which can be ended and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        arguments = ["server", "--host", "127.0.0.1", "--port", str(self._port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "milvus_lite", *arguments, "--data-dir", str(self._folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                    return
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def send(self, what: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(what)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """A server of its own."""
    one = Process(tmp_path / "served")
    yield one
    one.kill()


def error_of(server: MilvusServer) -> StorageError:
    """What a question to it raises."""
    with pytest.raises(StorageError) as caught:
        server.call("list_collections")
    return caught.value
