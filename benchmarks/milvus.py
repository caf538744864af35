r"""The same vectors in our index and in Milvus, in one run on one machine.

    python -m benchmarks.milvus                       # 100,000 vectors of 512 numbers
    python -m benchmarks.milvus --rows 20000 --queries 20
    python -m benchmarks.milvus --uri http://localhost:19530

Without ``--uri`` it starts Milvus Lite as a server of its own: that is Milvus' protocol and client,
but another engine, written in Python for small collections. Nothing that is measured of it can be
said of a Milvus server; ``--uri`` measures one.

Both hold the same drawn vectors, and are asked the same drawn questions, with the same rows
allowed: without a filter, one at a time and 64 at a time, and with filters that leave .01, .5, 5
and 50 % of the rows, drawn at random for each question. Recall is held against exact search. Memory
is what the kernel counts of the process that searches, beyond what it had before it opened the
index: of Milvus it is that of its own process, started anew.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.vectors.phases import resident_mib
from benchmarks.vectors.timing import percentiles_ms, timed
from indexer.milvus.backend import MilvusBackend
from indexer.milvus.index import MilvusIndex
from indexer.milvus.names import collection_of
from indexer.milvus.server import MilvusServer
from indexer.row_sets import RowSet
from indexer.vector_index.building import build_index
from indexer.vector_index.index import VectorIndex
from indexer.vector_index.sizing import choose_shape

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

K: Final = 10
SHARES: Final = (0.0001, 0.005, 0.05, 0.5)
_KINDS, _SPREAD = 200, 0.7
_MEMORY: Final = 12 << 30
_SECONDS: Final = 300.0

Index = VectorIndex | MilvusIndex


def main() -> None:
    """Measure and print."""
    options = _options()
    if options.side is not None:
        print(json.dumps(SIDES[options.side](options)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = {side: _in_its_own_process(side, folder) for side in SIDES}
    found["faiss"] = found.pop("faiss-build") | found.pop("faiss")
    print(json.dumps(found) if options.json else _table(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.milvus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rows", type=int, default=100_000, help="vectors (default 100000)")
    add("--dimensions", type=int, default=512, help="numbers of each (default 512)")
    add("--queries", type=int, default=100, help="questions of each kind (default 100)")
    add("--uri", help="a Milvus server; else Milvus Lite is started")
    add("--folder", type=Path, help="where both are built (default a temporary one)")
    add("--side", choices=tuple(SIDES), help="only this one, in this process")
    add("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _in_its_own_process(side: str, folder: str) -> dict[str, Any]:
    """Memory of one side is not that of the other."""
    command = [sys.executable, "-m", "benchmarks.milvus", *sys.argv[1:], "--side", side, "--json"]
    done = subprocess.run([*command, "--folder", folder], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def draw(options: argparse.Namespace) -> tuple[FloatArray, FloatArray]:
    """Vectors and questions, unit length, in clusters as those of land; always the same."""
    random = np.random.default_rng(0)
    n, d = options.rows + options.queries, options.dimensions
    vectors = _SPREAD * random.standard_normal((n, d), dtype=np.float32)
    centers = random.standard_normal((_KINDS, d), dtype=np.float32)
    vectors += centers[random.integers(_KINDS, size=n)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[: options.rows], vectors[options.rows :]


# Our index -----------------------------------------------------------------------------------


def build_faiss(options: argparse.Namespace) -> dict[str, Any]:
    """Build ``indexer.vector_index``."""
    vectors, _ = draw(options)
    _tell("faiss: building")
    place = options.folder / "faiss"
    place.mkdir()
    began = time.perf_counter()
    _, order, _ = build_index(place, vectors, choose_shape(len(vectors), vectors.shape[1], _MEMORY))
    seconds = time.perf_counter() - began
    disk = _mib_in(place)
    np.save(options.folder / "order.npy", order)
    return {"build_s": round(seconds, 1), "disk_mib": disk}


def search_faiss(options: argparse.Namespace) -> dict[str, Any]:
    """Search what was built."""
    vectors, queries = draw(options)
    vectors = vectors[np.load(options.folder / "order.npy")]
    before = resident_mib()
    index = VectorIndex(options.folder / "faiss")
    found = searches(index, vectors, queries)
    after = resident_mib()
    memory = round(sum(after[part] - before[part] for part in ("anon", "file")))
    return {"kind": index.kind, "memory_mib": memory, **found}


# Milvus --------------------------------------------------------------------------------------


def build_and_search_milvus(options: argparse.Namespace) -> dict[str, Any]:
    """Build a collection and search it."""
    vectors, queries = draw(options)
    generations = options.folder / "generations"
    aside = generations / ".building-1"
    aside.mkdir(parents=True)
    data = options.folder / "milvus"
    with _served(options, data) as (uri, _):
        server = MilvusServer(uri, seconds=_SECONDS)
        version = server.version
        began = time.perf_counter()
        MilvusBackend(server).build(aside, 1, vectors, lambda step: _tell(f"milvus: {step}"))
        seconds = time.perf_counter() - began
        server.close()
    disk = _mib_in(data) if data.exists() else None
    with _served(options, data) as (uri, process):
        server = MilvusServer(uri, seconds=_SECONDS)
        before = None if process is None else _resident_mib_of(process)
        index = MilvusBackend(server).open(aside)
        found = searches(index, vectors, queries)
        memory = None if before is None else round(_resident_mib_of(process) - before)
        server.drop(collection_of(generations, 1))
        server.close()
    return {
        "server": version,
        "kind": index.kind,
        "build_s": round(seconds, 1),
        "disk_mib": disk,
        "memory_mib": memory,
        **found,
    }


@contextmanager
def _served(options: argparse.Namespace, data: Path) -> Iterator[tuple[str, int | None]]:
    """A server's address and, if it is one of our own, its process."""
    if options.uri:
        yield options.uri, None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--data-dir", str(data)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return


def _resident_mib_of(process: int | None) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return 0.0 if found is None else int(found[1]) / 1024


# Searching -----------------------------------------------------------------------------------


def searches(index: Index, vectors: FloatArray, queries: FloatArray) -> dict[str, Any]:
    """Recall and latency of each kind of question.

    Args:
        index: Whose row ``i`` is that of ``vectors``.
        vectors: Shape ``(n, d)``.
        queries: Shape ``(n_queries, d)``.
    """
    _tell("searching")
    everything = RowSet.of_rows(np.arange(len(vectors)), len(vectors))
    index.search(queries[0], K)
    alone = _asked(lambda one: index.search(one[0], K)[1], vectors, queries, everything)
    began = time.perf_counter()
    index.search_many(queries[:64], K)
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {"all": alone, "by_64_per_s": round(len(queries[:64]) / seconds, 1)}
    random = np.random.default_rng(1)
    for share in SHARES:
        count = max(1, round(share * len(vectors)))
        allowed = [
            RowSet.of_rows(np.sort(random.choice(len(vectors), count, replace=False)), len(vectors))
            for _ in queries
        ]
        found[f"{100 * share:g} %"] = _asked(
            lambda one: index.search_among(one[0], K, one[1])[1], vectors, queries, allowed
        )
    return found


def _asked(
    ask: Callable[[tuple[FloatArray, RowSet]], IntArray],
    vectors: FloatArray,
    queries: FloatArray,
    allowed: RowSet | list[RowSet],
) -> dict[str, Any]:
    each = allowed if isinstance(allowed, list) else [allowed] * len(queries)
    questions = list(zip(queries, each, strict=True))
    seconds, answers = timed(ask, questions)
    shares = []
    for (query, among), rows in zip(questions, answers, strict=True):
        scores = vectors[among.rows] @ query
        true = among.rows[np.argsort(-scores, kind="stable")[:K]]
        shares.append(np.isin(true, rows).mean())
    return {"recall": round(float(np.mean(shares)), 4), **percentiles_ms(seconds)}


# Telling -------------------------------------------------------------------------------------


def _mib_in(folder: Path) -> int:
    files = (path.stat() for path in folder.rglob("*") if path.is_file())
    return round(sum(file.st_blocks * 512 for file in files) / 2**20)


def _tell(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _table(found: dict[str, Any]) -> str:
    lines = []
    for side, told in sorted(found.items()):
        lines.append(
            " ".join([side, *([told["server"]] if "server" in told else []), told["kind"]])
        )
        lines.append(
            f"  built in {told['build_s']} s, {told['disk_mib']} MiB on disk, "
            f"{told['memory_mib']} MiB in memory; 64 at once: {told['by_64_per_s']}/s"
        )
        for name in ("all", *(f"{100 * share:g} %" for share in SHARES)):
            one = told[name]
            lines.append(
                f"  {name:>6}: recall {one['recall']:.4f}, {one['per_s']}/s, "
                f"{one['p50_ms']} ms, p99 {one['p99_ms']} ms"
            )
    return "\n".join(lines)


SIDES: Final[dict[str, Callable[[argparse.Namespace], dict[str, Any]]]] = {
    "faiss-build": build_faiss,
    "faiss": search_faiss,
    "milvus": build_and_search_milvus,
}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
