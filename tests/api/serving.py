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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PARCELLE_DATA_DIR": str(index.data_dir),
        "PARCELLE_DATABASE_URL": index.database_url,
        **variables,
    }
    command = [str(Path(sys.executable).with_name("parcelle")), "serve", "--port", str(port)]
    command += ["--workers", str(workers)]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not answers(address):
            assert server.poll() is None, "the server ended before it answered"
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def answers(address: str) -> bool:
    """Whether a server lives."""
    try:
        # Without certificates, which take longest to read.
        return httpx2.get(f"{address}/health/live", verify=False).status_code == 200
    except httpx2.TransportError:
        return False
