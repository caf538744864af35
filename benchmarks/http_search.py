"""HTTP search beside the same search in process, on the same machine in one run.

    python -m benchmarks.http_search
    taskset --cpu-list 0,1 python -m benchmarks.http_search     # on two cores

Latency: one client, one request at a time, in turns with the same questions asked in process, so
that a disturbance of the machine meets both. Throughput: as many processes as workers that do
nothing but search, then the service with as many workers under ``--clients`` connections, in turns
as well; the program that asks runs on the same cores and takes its share of them.

Prints one JSON object.
"""

import argparse
import asyncio
import functools
import itertools
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop

from indexer.settings import Settings
from retriever.search import ParcelSearcher
from tests.drawn_index import draw_index

K = 10
_BLOCK = 50
_HOST = "127.0.0.1"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    parser.add_argument("--parcels", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="Of each round of throughput.")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="parcelle-bench-"))
    try:
        settings = draw_index(folder, options.parcels)
        ids = [f"p{(n * 7919) % options.parcels:06}" for n in range(20_000)]
        with serving(settings, options.workers) as port:
            latency = measure_latency(settings, port, ids, options.rounds)
            throughput = measure_throughput(settings, port, ids, options)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({**vars(options), "k": K, **latency, **throughput}, indent=2))


def _cores() -> int:
    # taskset counts, where there is one.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _AsWritten(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description and tells defaults."""


@contextmanager
def serving(settings: Settings, workers: int) -> Iterator[int]:
    """A service on a port of this machine."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("parcelle")), "serve", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--workers", str(workers)],
        env=os.environ | {"PARCELLE_DATA_DIR": str(settings.data_dir)},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                Connection(port).ask("p000000")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait(30)


class Connection:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((_HOST, port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, parcel_id: str) -> None:
        """Ask, and wait for the whole answer."""
        self._socket.sendall(_request(parcel_id))
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        expected = _length(received)
        while len(received) < expected:
            received += self._more()

    def _more(self) -> bytes:
        part = self._socket.recv(65_536)
        if not part:
            raise OSError("the service closed the connection")
        return part


def measure_latency(
    settings: Settings, port: int, ids: Sequence[str], rounds: int
) -> dict[str, float]:
    """Milliseconds of a search in process and over HTTP, in turns."""
    connection = Connection(port)
    in_process: list[float] = []
    over_http: list[float] = []
    with ParcelSearcher.open(settings) as searcher:
        for parcel_id in ids[:200]:
            searcher.similar_by_id(parcel_id, collection="demo", k=K)
            connection.ask(parcel_id)
        for block in range(4 * rounds):
            asked = ids[block * _BLOCK : (block + 1) * _BLOCK]
            for parcel_id in asked:
                began = time.perf_counter()
                searcher.similar_by_id(parcel_id, collection="demo", k=K)
                in_process.append(1e3 * (time.perf_counter() - began))
            for parcel_id in asked:
                began = time.perf_counter()
                connection.ask(parcel_id)
                over_http.append(1e3 * (time.perf_counter() - began))
    return {
        "in_process_p50_ms": _percentile(in_process, 50),
        "in_process_p99_ms": _percentile(in_process, 99),
        "http_p50_ms": _percentile(over_http, 50),
        "http_p99_ms": _percentile(over_http, 99),
        "http_adds_p50_ms": round(_percentile(over_http, 50) - _percentile(in_process, 50), 3),
    }


def measure_throughput(
    settings: Settings, port: int, ids: Sequence[str], options: argparse.Namespace
) -> dict[str, object]:
    """Searches a second in process and over HTTP, in turns; the ratio of each pair."""
    pairs = []
    for _ in range(options.rounds):
        alone = _in_process(settings, ids, options.workers, options.seconds)
        served = _over_http(port, ids, options.clients, options.seconds)
        pairs.append((alone, served))
    return {
        "in_process_per_s": [round(alone, 1) for alone, _ in pairs],
        "http_per_s": [round(served, 1) for _, served in pairs],
        "ratio_median": round(statistics.median(served / alone for alone, served in pairs), 3),
    }


def _in_process(settings: Settings, ids: Sequence[str], processes: int, seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(processes)
    counts = context.Queue()
    workers = [
        context.Process(target=_search, args=(settings, ids[n::processes], begin, seconds, counts))
        for n in range(processes)
    ]
    for worker in workers:
        worker.start()
    total: int = sum(counts.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total / seconds


def _search(settings, ids, begin, seconds, counts) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    with ParcelSearcher.open(settings) as searcher:
        for parcel_id in ids[:50]:
            searcher.similar_by_id(parcel_id, collection="demo", k=K)
        begin.wait()
        counts.put(
            _count(lambda one: searcher.similar_by_id(one, collection="demo", k=K), ids, seconds)
        )


def _over_http(port: int, ids: Sequence[str], clients: int, seconds: float) -> float:
    return uvloop.run(_load(port, ids, clients, seconds))


async def _load(port: int, ids: Sequence[str], clients: int, seconds: float) -> float:
    """Answers a second to so many clients, each of which asks again once it has its answer."""
    loop = asyncio.get_running_loop()
    asking = [
        (await loop.create_connection(functools.partial(_Client, ids[n::clients]), _HOST, port))[1]
        for n in range(clients)
    ]
    await asyncio.sleep(seconds)
    answered = sum(client.answered for client in asking)
    for client in asking:
        client.stop()
    return answered / seconds


class _Client(asyncio.Protocol):
    """Costs as little as a client can: it runs on the cores that it measures.

    Args:
        ids: Parcels to ask for, one after the other.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = itertools.cycle(ids)
        self._received = b""
        self._expected = 0
        self.answered = 0
        self._stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_request(next(self._ids)))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._expected and b"\r\n\r\n" in self._received:
            self._expected = _length(self._received)
        if self._expected and len(self._received) >= self._expected:
            self.answered += 1
            self._received, self._expected = b"", 0
            if not self._stopped:
                self._transport.write(_request(next(self._ids)))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._stopped:
            raise RuntimeError("the service closed a connection") from error

    def stop(self) -> None:
        self._stopped = True
        self._transport.close()


def _request(parcel_id: str) -> bytes:
    path = f"/collections/demo/items/{parcel_id}/similar?k={K}"
    return f"GET {path} HTTP/1.1\r\nHost: {_HOST}\r\n\r\n".encode()


def _length(received: bytes) -> int:
    """Of an answer with its headers, as they say."""
    head, _, _ = received.partition(b"\r\n\r\n")
    if b" 200 " not in head[:20]:
        raise RuntimeError(f"{head[:60]!r}")
    lowered = head.lower()
    at = lowered.index(b"content-length:") + len(b"content-length:")
    return len(head) + 4 + int(lowered[at:].split(b"\r\n", 1)[0])


def _count(ask, ids: Sequence[str], seconds: float) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """How many answers come until the time is over."""
    end = time.perf_counter() + seconds
    done = 0
    while time.perf_counter() < end:
        ask(ids[done % len(ids)])
        done += 1
    return done


def _percentile(values: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 3)


if __name__ == "__main__":
    main()
