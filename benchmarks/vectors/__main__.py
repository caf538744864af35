r"""What a search costs beyond the bare index, and how near exact scoring comes to streaming.

    python $HARNESS/datagen.py --n 100000 --out 100k
    taskset --cpu-list 0 python -m benchmarks.vectors 100k
    python -m benchmarks.vectors 100k --folder kept --json      # keep the catalog

layers   the same queries, in turns: the bare index; ParcelSearcher.nearest, which gives ids;
         similar_by_vector, which gives the matches with all that is known of them
by id    exact scores of given rows, from some to all, beside what one core reads in a second
         (maximum over 256 MB of float32), in turns as well: bytes of the stored vectors that were
         scored, and those of the same vectors as float32

All on one core.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.vectors.timing import on_one_core, percentiles_ms, streaming_gb_per_s, timed
from benchmarks.vectors_adapter import Ours
from indexer.vector_index.index import VectorIndex

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

K: Final = 10
_BLOCK: Final = 50
_SHARES: Final = (0.01, 0.1, 0.5, 1.0)


def main() -> None:
    """Measure and print."""
    options = _options()
    queries = np.load(options.data / "queries.npy")
    with _folder(options.folder) as folder, _opened(folder, options.data) as ours:
        index = _bare_index(ours)
        with on_one_core():
            found = {
                "rows": index.rows,
                "layers": _layers(ours, index, queries, options.rounds),
                "by_id": _by_id(index, queries, options.rounds),
            }
    print(json.dumps(found) if options.json else _table(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", type=Path, help="what the harness's datagen.py made")
    add("--folder", type=Path, help="keep the catalog here; what is there is used")
    add("--rounds", type=int, default=5, help="in which all take turns (default 5)")
    add("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


@contextlib.contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="parcelle-bench-") as name:
        yield Path(name)


@contextlib.contextmanager
def _opened(folder: Path, data: Path) -> Iterator[Ours]:
    """The catalog, built if it is not there."""
    vectors = np.load(data / "base.npy", mmap_mode="r")
    ours = Ours(str(folder), *vectors.shape)
    if ours.settings.generations_dir.exists():
        ours.open()
    else:
        _tell(f"building a catalog of {len(vectors):,} parcels")
        with np.load(data / "meta.npz") as meta:
            ours.build(vectors, dict(meta))
    try:
        yield ours
    finally:
        ours.close()


def _bare_index(ours: Ours) -> VectorIndex:
    """Of the generation that answers."""
    (folder,) = ours.settings.generations_dir.iterdir()
    return VectorIndex(folder)


def _layers(
    ours: Ours, index: VectorIndex, queries: FloatArray, rounds: int
) -> dict[str, dict[str, float]]:
    searcher = ours.searcher
    ways: dict[str, Callable[[FloatArray], object]] = {
        "index": lambda query: index.search(query, K),
        "nearest": lambda query: searcher.nearest(query, k=K),
        "similar_by_vector": lambda query: searcher.similar_by_vector(query, k=K),
    }
    _tell("layers")
    for ask in ways.values():
        timed(ask, queries)
    seconds: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in ways}
    for number in range(rounds):
        for at in range(0, len(queries), _BLOCK):
            # Every second round goes backwards, so that none always follows the same one.
            for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
                seconds[name].append(timed(ways[name], queries[at : at + _BLOCK])[0])
    found = {name: percentiles_ms(np.concatenate(some)) for name, some in seconds.items()}
    bare = float(np.concatenate(seconds["index"]).mean())
    for name, some in seconds.items():
        found[name]["adds_mean_ms"] = round(1e3 * (float(np.concatenate(some).mean()) - bare), 4)
    return found


def _by_id(index: VectorIndex, queries: FloatArray, rounds: int) -> list[dict[str, float]]:
    random = np.random.default_rng(0)
    sets = [
        np.sort(random.choice(index.rows, int(share * index.rows), replace=False)).astype(np.int64)
        for share in _SHARES
    ]
    streamed: list[float] = []
    best = [float("inf")] * len(sets)
    _tell("by id")
    for _ in range(rounds):
        streamed.append(streaming_gb_per_s(tries=2))
        for n, rows in enumerate(sets):
            few = queries[: max(3, min(100, 1_000_000 // len(rows)))]
            best[n] = min(best[n], _seconds_to_score(index, few, rows))
    stored = index.codec.code_size
    peak = max(streamed)
    return [
        {
            "rows": len(rows),
            "ms": round(1e3 * seconds, 4),
            "streaming_gb_per_s": round(peak, 2),
            "stored_gb_per_s": round(len(rows) * stored / seconds / 1e9, 2),
            "share": round(len(rows) * stored / seconds / 1e9 / peak, 3),
            "float32_share": round(len(rows) * 4 * index.dimensions / seconds / 1e9 / peak, 3),
        }
        for rows, seconds in zip(sets, best, strict=True)
    ]


def _seconds_to_score(index: VectorIndex, queries: FloatArray, rows: IntArray) -> float:
    """The least that scoring some rows took."""
    return float(timed(lambda query: index.score(query, rows, K), queries)[0].min())


def _tell(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _table(found: dict[str, Any]) -> str:
    row = "{:<20}{:>10}{:>10}{:>10}{:>14}".format
    lines = [
        f"{found['rows']:,} rows",
        row("one core", "a second", "p50 ms", "p99 ms", "adds, mean"),
    ]
    for name, one in found["layers"].items():
        figures = (f"{one['per_s']:,.0f}", f"{one['p50_ms']:.3f}", f"{one['p99_ms']:.3f}")
        lines.append(row(name, *figures, f"{one['adds_mean_ms']:+.3f} ms"))
    row = "{:<20}{:>10}{:>10}{:>22}{:>16}".format
    streaming = f"of {found['by_id'][0]['streaming_gb_per_s']:.1f} GB/s, stored"
    lines += ["", row("rows by id", "ms", "GB/s", streaming, "as float32")]
    for one in found["by_id"]:
        figures = (f"{one['ms']:.3f}", f"{one['stored_gb_per_s']:.1f}", f"{one['share']:.0%}")
        lines.append(row(f"{one['rows']:,}", *figures, f"{one['float32_share']:.0%}"))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
