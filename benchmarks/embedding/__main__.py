"""How fast images become embeddings, beside the plain way, on the same machine in one run.

    python -m benchmarks.embedding --quick --json      # a minute on 2 cores, with croma-base
    python -m benchmarks.embedding                     # all of it, with croma-large
    python -m benchmarks.embedding --weights CROMA_large.pt --part chips
    python -m benchmarks.embedding --device cuda --part chips

chips    chips per second of every precision beside the plain loop (torchgeo's network as published,
         fp32, batches of 16), how its embeddings agree with fp32, and what share of the device's
         own speed with matrices of these shapes that is
parcels  parcels per second of reindex in a drawn scene of 25 parcels per km2, by tiles, beside one
         chip for each; the share of the time in which the network computes
memory   peak memory of reindex for few and for many images

Each way is timed in turn with the others, round by round; ratios are medians of those of the
rounds. With random weights the speed is that of learned ones; agreement may differ.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.embedding.table import table
from benchmarks.embedding.turns import say
from indexer.errors import ParcelleError

_PARTS: Final = ("chips", "parcels", "memory")
_GPU_CHIPS: Final = 256
_PACKAGES: Final = ("torch", "torchgeo", "numpy", "rasterio", "shapely", "faiss-cpu")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    encoder: str
    tiles_across: int
    """Of the drawn scene."""
    compared_tiles: int
    """Whose parcels are embedded in every precision."""
    rounds: int
    chips: int
    """That each precision embeds in a round."""
    one_chip_each: int
    """Parcels that are given a chip each."""
    batch_size: int
    """Of ``reindex``."""
    network: Literal["croma", "numpy"]
    """That memory is measured with."""
    images: tuple[int, int]
    """Few and many."""


QUICK: Final = Size(
    encoder="croma-base",
    tiles_across=4,
    compared_tiles=4,
    rounds=1,
    chips=8,
    one_chip_each=16,
    batch_size=4,
    network="numpy",
    images=(40, 400),
)
FULL: Final = Size(
    encoder="croma-large",
    tiles_across=9,
    compared_tiles=81,
    rounds=5,
    chips=16,
    one_chip_each=64,
    batch_size=16,
    network="croma",
    images=(200, 2000),
)


def main() -> None:
    """Measure and print."""
    options = _options()
    pinned = _pin(options.threads)
    # Chatter of libraries, not of Parcelle.
    warnings.simplefilter("ignore")
    began = time.monotonic()
    found: dict[str, Any] = {"environment": _environment(options, pinned)}
    with tempfile.TemporaryDirectory(prefix="parcelle-bench-") as folder:
        try:
            found |= _measure(options, Path(folder))
        except ParcelleError as error:
            # No GPU, no weights.
            sys.exit(str(error))
    found["seconds"] = round(time.monotonic() - began, 1)
    if options.json:
        print(json.dumps(found))
        return
    print(table(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.embedding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a small run with croma-base")
    add("--json", action="store_true", help="print one JSON object")
    add("--threads", type=int, default=2, help="threads and processors to use (default 2)")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--weights", default="untrained", help="untrained (default), pretrained or a file")
    add("--part", choices=_PARTS, action="append", help="only this; may be repeated")
    add("--rounds", type=int, help="in which all take turns")
    return parser.parse_args()


def _pin(threads: int) -> list[int] | None:
    """Keep to so many processors, and let every library start as many threads."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if not hasattr(os, "sched_setaffinity"):
        return None
    chosen = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, chosen)
    return chosen


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    size = QUICK if options.quick else FULL
    parts = options.part or _PARTS
    rounds = options.rounds or size.rounds
    found: dict[str, Any] = {"encoder": size.encoder, "weights": options.weights, "rounds": rounds}
    if "memory" in parts:
        from benchmarks.embedding.memory import MemoryRuns

        say(f"memory: {size.images[0]} and {size.images[1]} images")
        memory = MemoryRuns(size.network, *size.images)
        if parts == ["memory"] or not options.quick:
            found["memory"] = memory.result()
    if "chips" not in parts and "parcels" not in parts:
        return found
    say("importing, drawing a scene")
    from benchmarks.embedding.chips import Choice, PlainLoop, measure_chips, write_untrained
    from benchmarks.embedding.parcels import Runs, measure_parcels
    from benchmarks.embedding.scenes import draw_farmland, middle_parcels, tiles_of
    from indexer.encoders.croma import best_precision
    from indexer.encoders.simple_vit import choose_device

    choose_device(options.device)
    weights = options.weights
    if weights == "untrained":
        weights = str(write_untrained(size.encoder, folder / "untrained.pt"))
    choice = Choice(size.encoder, weights, options.device)
    plain = PlainLoop(choice)
    land = draw_farmland(folder / "land", size.tiles_across)
    if "memory" in parts and "memory" not in found:
        # Before anything is timed.
        found["memory"] = memory.result()
    if "chips" in parts:
        say(f"chips: {rounds} rounds")
        chips = _GPU_CHIPS if options.device == "cuda" else size.chips
        works = tiles_of(land, choice.open("fp32"))[: size.compared_tiles]
        found["chips"] = measure_chips(choice, plain, works, rounds, chips)
    if "parcels" in parts:
        say(f"parcels: {rounds} rounds in a scene of {land.count}")
        few = middle_parcels(land, size.one_chip_each, folder)
        runs = Runs(choice, best_precision(options.device), land, few, size.batch_size)
        found["parcels"] = measure_parcels(runs, plain, rounds)
    return found


def _environment(options: argparse.Namespace, pinned: list[int] | None) -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "pinned_to": pinned,
        "device": options.device,
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
