"""Servers of their own, for clients that must not share a process with them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from indexer.settings import Settings


@contextmanager
def served_by_a_process(index: Settings, workers: int = 1, **variables: str) -> Iterator[str]:
    """The address of ``parcelle serve``; GDAL's readers would let no other thread run."""
    with serving_process(index, workers, **variables) as (address, _):
        yield address


@contextmanager
def serving_process(
    index: Settings, workers: int = 1, **variables: str
) -> Iterator[tuple[str, int]]:
    """The address of ``parcelle serve``, and the id of its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("parcelle")), "serve", "--port", str(port)]
    command += ["--workers", str(workers)]
    server = subprocess.Popen(
        command, env=environment_of(index) | variables, stderr=subprocess.DEVNULL
    )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not answers(address):
            assert server.poll() is None, "the server ended before it answered"
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.1)
        yield address, server.pid
    finally:
        server.terminate()
        server.wait(30)


def environment_of(index: Settings) -> dict[str, str]:
    """What a command needs to find an index."""
    return os.environ | {
        "PARCELLE_DATA_DIR": str(index.data_dir),
        "PARCELLE_DATABASE_URL": index.database_url,
    }


def answers(address: str) -> bool:
    """Whether a server lives."""
    try:
        # Without certificates, which take longest to read.
        return httpx2.get(f"{address}/health/live", verify=False).status_code == 200
    except httpx2.TransportError:
        return False
