r"""Ten million parcels, or as many as there are: build the index, then ask it, without a catalog.

    python $HARNESS/datagen.py --n 10000000 --out ten            # 20 GB of vectors
    python -m benchmarks.ten_million ten --folder built          # both phases
    python -m benchmarks.ten_million ten --folder built --phase search

build    makes index and columns of the harness's arrays: seconds and memory of each step, and the
         size on disk
search   opens them in a process of its own and measures the time to the first answer, with the
         files dropped from the page cache and once more; then, kept to one core and warm, recall@10
         and latency without a filter, for each recall that can be asked for, and with each of the
         harness's filters. A filter is a ParcelFilter made for each query, and what it allows is
         found in the time that is measured

Memory is counted as the kernel does: anon is the process's own; file are pages of mapped files, the
harness's among them, which the system takes back when it needs them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.vectors.catalog import columns_of
from benchmarks.vectors.filters import parcel_filter
from benchmarks.vectors.phases import Phases, resident_mib, summed
from benchmarks.vectors.timing import on_one_core, percentiles_ms, recall_of, timed
from indexer.columns import Columns
from indexer.vector_index.building import build_index
from indexer.vector_index.effort import DEFAULT_RECALL, RECALLS
from indexer.vector_index.index import VectorIndex
from indexer.vector_index.sizing import choose_shape
from retriever.queries import ParcelFilter
from retriever.selection import select_rows

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

K: Final = 10
_INDEX, _COLUMNS = "index", "columns"
_MEMORY_GIB: Final = 12.0


def main() -> None:
    """Measure and print."""
    options = _options()
    if options.phase is not None:
        measure = {"build": build, "search": search}[options.phase]
        found = {options.phase: measure(options)}
    else:
        found = {phase: _in_its_own_process(phase) for phase in ("build", "search")}
    print(json.dumps(found) if options.json else _table(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ten_million",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", type=Path, help="what the harness's datagen.py made")
    add("--folder", type=Path, required=True, help="where the index is built, or was built")
    add("--phase", choices=("build", "search"), help="only this one, in this process")
    add("--memory-gib", type=float, default=_MEMORY_GIB, help="for the index (default 12)")
    add("--rounds", type=int, default=3, help="in which all queries are asked (default 3)")
    add("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _in_its_own_process(phase: str) -> dict[str, Any]:
    """Memory and page cache of one phase are not those of the other."""
    command = [sys.executable, "-m", "benchmarks.ten_million", *sys.argv[1:]]
    done = subprocess.run(
        [*command, "--phase", phase, "--json"], stdout=subprocess.PIPE, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)[phase]
    return found


# Building ------------------------------------------------------------------------------------


def build(options: argparse.Namespace) -> dict[str, Any]:
    """Build index and columns; what each step took."""
    for name in (_INDEX, _COLUMNS):
        # What an earlier run built; nothing else in the folder.
        shutil.rmtree(options.folder / name, ignore_errors=True)
        (options.folder / name).mkdir(parents=True)
    vectors = np.load(options.data / "base.npy", mmap_mode="r")
    rows, dimensions = vectors.shape
    shape = choose_shape(rows, dimensions, int(options.memory_gib * 2**30))
    with Phases() as phases:
        index, order, tuning = build_index(
            options.folder / _INDEX, vectors, shape, note=phases.enter
        )
        phases.enter("columns")
        with np.load(options.data / "meta.npz") as meta:
            columns_of(order, dict(meta)).write(options.folder / _COLUMNS)
        phases.enter("flushing")
        os.sync()
    del index
    return {
        "rows": rows,
        "kind": shape.kind(dimensions),
        "phases": phases.result(),
        "all": summed(phases.result()),
        "disk_mib": {name: _mib_in(options.folder / name) for name in (_INDEX, _COLUMNS)},
        "measured_recall": {
            str(recall): round(effort.recall_at_10, 4) for recall, effort in tuning.efforts.items()
        },
    }


def _mib_in(folder: Path) -> float:
    files = (path.stat() for path in folder.rglob("*") if path.is_file())
    return round(sum(file.st_blocks * 512 for file in files) / 2**20, 1)


# Searching -----------------------------------------------------------------------------------


class Opened:
    """An index and its columns, as a process that searches holds them."""

    def __init__(self, folder: Path) -> None:
        self.index = VectorIndex(folder / _INDEX)
        self.columns = Columns.open(folder / _COLUMNS)

    def nearest(self, query: FloatArray, recall: float) -> IntArray:
        """Rows of the harness."""
        _, rows, _ = self.index.search(query, K, recall=recall)
        return self.columns.ids[rows] - 1

    def nearest_among(self, query: FloatArray, where: ParcelFilter, recall: float) -> IntArray:
        """Rows of the harness that a filter allows."""
        allowed = select_rows(self.columns, where, _no_sql)
        _, rows, _ = self.index.search_among(query, K, allowed, recall=recall)
        return self.columns.ids[rows] - 1


def _no_sql(where: ParcelFilter) -> IntArray:
    raise RuntimeError(f"the columns cannot answer {where.to_dict()}")


def search(options: argparse.Namespace) -> dict[str, Any]:
    """Open what was built and ask it; time, recall and memory."""
    queries = np.load(options.data / "queries.npy")
    truth = np.load(options.data / "gt.npy")[:, :K].tolist()
    _drop_from_page_cache(options.folder)
    cold = _opening(options.folder, queries[0])
    warm = _opening(options.folder, queries[0])
    opened = Opened(options.folder)
    with on_one_core():
        unfiltered = {
            str(recall): _unfiltered(opened, queries, truth, recall, options.rounds)
            for recall in RECALLS
        }
        after_unfiltered = resident_mib()
        cells = json.loads((options.data / "filters.json").read_text())
        filtered = [_filtered(opened, queries, cell, options.rounds) for cell in cells]
    return {
        "rows": opened.index.rows,
        "opening_s": {"cold": cold, "warm": warm},
        "unfiltered": unfiltered,
        "filtered": filtered,
        "memory_mib": {
            "after_unfiltered": _rounded(after_unfiltered),
            "at_the_end": _rounded(resident_mib()),
        },
    }


def _opening(folder: Path, query: FloatArray) -> float:
    began = time.perf_counter()
    Opened(folder).nearest(query, DEFAULT_RECALL)
    return round(time.perf_counter() - began, 3)


def _drop_from_page_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _unfiltered(
    opened: Opened, queries: FloatArray, truth: list[list[int]], recall: float, rounds: int
) -> dict[str, float]:
    _tell(f"no filter, recall {recall}")
    # The first round fetches what the queries need; the others are timed.
    _, answers = timed(lambda query: opened.nearest(query, recall), queries)
    seconds = [
        timed(lambda query: opened.nearest(query, recall), queries)[0] for _ in range(rounds)
    ]
    found = [recall_of(rows, true, K) for rows, true in zip(answers, truth, strict=True)]
    return {
        "recall_at_10": round(float(np.mean(found)), 4),
        **percentiles_ms(np.concatenate(seconds)),
    }


def _filtered(
    opened: Opened, queries: FloatArray, cell: dict[str, Any], rounds: int
) -> dict[str, Any]:
    """One kind of filter at one selectivity; queries that follow each other never share one."""
    _tell(f"{cell['kind']} {cell['sel']:.2%}")
    asked = [
        (cell["filters"][n], queries[cell["queries"][n][m]], cell["gt"][n][m])
        for m in range(len(cell["queries"][0]))
        for n in range(len(cell["filters"]))
    ]

    def ask(one: tuple[dict[str, Any], FloatArray, list[int]]) -> IntArray:
        return opened.nearest_among(one[1], parcel_filter(one[0]), DEFAULT_RECALL)

    _, answers = timed(ask, asked)
    seconds = [timed(ask, asked)[0] for _ in range(rounds)]
    found = [recall_of(rows, one[2], K) for rows, one in zip(answers, asked, strict=True)]
    return {
        "kind": cell["kind"],
        "selectivity": cell["sel"],
        "allowed": round(float(np.mean(cell["rows"]))),
        "recall_at_10": round(float(np.mean(found)), 4),
        **percentiles_ms(np.concatenate(seconds)),
    }


def _tell(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in values.items()}


# For people ----------------------------------------------------------------------------------


def _table(found: dict[str, Any]) -> str:
    shown = [show(found[phase]) for phase, show in _SHOWN.items() if phase in found]
    return "\n\n".join(shown)


def _build_table(found: dict[str, Any]) -> str:
    row = "{:<22}{:>10}{:>12}{:>12}".format
    lines = [f"{found['rows']:,} rows, {found['kind']}", row("", "seconds", "anon MiB", "file MiB")]
    for name, phase in {**found["phases"], "all": found["all"]}.items():
        lines.append(
            row(
                name,
                f"{phase['seconds']:,.1f}",
                f"{phase['anon_mib']:,.0f}",
                f"{phase['file_mib']:,.0f}",
            )
        )
    disk = ", ".join(f"{name} {size:,.0f} MiB" for name, size in found["disk_mib"].items())
    return "\n".join([*lines, f"on disk: {disk}"])


def _search_table(found: dict[str, Any]) -> str:
    row = "{:<22}{:>12}{:>10}{:>10}{:>10}{:>10}".format
    lines = [
        f"{found['rows']:,} rows; opened to the first answer in {found['opening_s']['cold']:.2f} s "
        f"from disk, {found['opening_s']['warm']:.2f} s from memory",
        row("one core, warm", "allowed", "recall@10", "a second", "p50 ms", "p99 ms"),
    ]
    for recall, one in found["unfiltered"].items():
        lines.append(row(f"no filter, {recall}", f"{found['rows']:,}", *_figures(one)))
    for one in found["filtered"]:
        name = f"{one['kind']} {one['selectivity']:.2%}"
        lines.append(row(name, f"{one['allowed']:,}", *_figures(one)))
    end = found["memory_mib"]["at_the_end"]
    return "\n".join([*lines, f"memory: own {end['anon']:,.0f} MiB, mapped {end['file']:,.0f} MiB"])


def _figures(one: dict[str, Any]) -> list[str]:
    return [
        f"{one['recall_at_10']:.3f}",
        f"{one['per_s']:,.0f}",
        f"{one['p50_ms']:.3f}",
        f"{one['p99_ms']:.3f}",
    ]


_SHOWN: Final = {"build": _build_table, "search": _search_table}


if __name__ == "__main__":
    main()
