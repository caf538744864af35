"""Parcels a second in a scene: tiles that serve many of them beside one chip for each."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from benchmarks.embedding.chips import PLAIN_BATCH, Choice, PlainLoop
from benchmarks.embedding.scenes import Farmland, chips_of
from benchmarks.embedding.turns import in_turns, median, ratio, rounded
from indexer import reindex as reindexing
from indexer.chipping import ParcelFinder
from indexer.embedder import Embedder
from indexer.embedding_space import Pooling
from indexer.encoders.agreement import Agreement
from indexer.encoders.croma import CromaEncoder, Precision
from indexer.pipeline import Opened
from indexer.preparing import Preparation
from indexer.progress import Progress, Silent
from indexer.reindex import ReindexOptions, ReindexReport, reindex
from indexer.settings import Settings

# What the thread beside the network does, and where.
_WORK: Final[dict[str, list[tuple[object, str]]]] = {
    "placing parcels on tiles": [(ParcelFinder, "plan")],
    "reading pixels": [(Opened, "read")],
    "observing parcels": [(Preparation, "parcels"), (Preparation, "view")],
    "making the input": [(Preparation, "input_of")],
    "asking the database": [(reindexing, "known_observations")],
    "writing to the database": [(reindexing, "save_observations")],
}


@dataclass
class Clock:
    """When a run began, when its network computed, and what was done beside it."""

    began: float = 0.0
    ended: float = 0.0
    loading: float = 0.0
    busy: list[tuple[float, float]] = field(default_factory=list)
    """From when to when, for each batch."""
    beside: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of each kind of work."""
    _renamed: float = 0.0

    # As progress, it is told when work begins and ends.

    def start(self, task: str, total: int, unit: str | None = None) -> None:
        """Reading begins."""
        self.began = time.monotonic()

    def expect(self, total: int) -> None:
        """The number does not matter."""

    def rename(self, task: str) -> None:
        """Weights are loaded in between, which is no embedding."""
        if task.startswith("Loading"):
            self._renamed = time.monotonic()
        elif task == "Embedding":
            self.loading += time.monotonic() - self._renamed

    def advance(self, done: int) -> None:
        """Nor does the step."""

    def finish(self) -> None:
        """Everything is written."""
        self.ended = time.monotonic()

    def waiting(self) -> dict[str, float]:
        """Seconds without the network: before its first batch, between batches, after the last."""
        first, last = self.busy[0][0], self.busy[-1][1]
        computing = sum(end - begin for begin, end in self.busy)
        return {
            "before the first pass": first - self.began - self.loading,
            "between batches": last - first - computing,
            "after the last pass": self.ended - last,
        }

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time what is done while a run goes on."""
        with ExitStack() as stack:
            stack.enter_context(patch.object(Embedder, "embed", self._network(Embedder.embed)))
            for name, places in _WORK.items():
                for owner, function in places:
                    timed = self._timed(name, getattr(owner, function))
                    stack.enter_context(patch.object(owner, function, timed))
            yield

    def _network(self, embed: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(embed)
        def timed(*arguments: Any) -> Any:  # noqa: ANN401
            began = time.monotonic()
            found = embed(*arguments)
            self.busy.append((began, time.monotonic()))
            return found

        return timed

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*arguments: Any) -> Any:  # noqa: ANN401
            began = time.monotonic()
            try:
                return function(*arguments)
            finally:
                self.beside[name] += time.monotonic() - began

        return timed


@dataclass(frozen=True)
class Runs:
    """Where and how a scene is embedded, again and again."""

    choice: Choice
    precision: Precision
    land: Farmland
    few: Path
    """A file of some of its parcels, for the ways that take a chip for each."""
    batch_size: int
    watched: list[tuple[ReindexReport, Clock]] = field(default_factory=list)
    """The runs by tiles."""

    def by_tiles(self) -> float:
        """Parcels a second of ``reindex``."""
        clock = Clock()
        with clock.watching():
            report = self._reindex(self.land.parcels, "parcel", clock)
        self.watched.append((report, clock))
        return report.embedded / report.seconds

    def one_chip_each(self) -> float:
        """Parcels a second of ``reindex --pooling image``: a pass for each."""
        report = self._reindex(self.few, "image", Silent())
        if report.chips != report.embedded:
            raise RuntimeError(f"{report.embedded} parcels took {report.chips} chips, not as many")
        return report.embedded / report.seconds

    def plain_loop(self, plain: PlainLoop, reader: CromaEncoder) -> float:
        """Parcels a second of the plain loop: a chip for each in batches of 16, nothing stored."""
        began = time.perf_counter()
        chips = chips_of(self.land.scene, self.few, reader)
        done = 0
        while batch := list(islice(chips, PLAIN_BATCH)):
            done += len(plain(np.stack(batch)))
        return done / (time.perf_counter() - began)

    def _reindex(self, parcels: Path, pooling: Pooling, progress: Progress) -> ReindexReport:
        options = ReindexOptions(
            parcels=parcels,
            encoder=self.choice.encoder,
            weights=self.choice.weights,
            precision=self.precision,
            pooling=pooling,
            batch_size=self.batch_size,
            device=self.choice.device,
        )
        with (
            tempfile.TemporaryDirectory(prefix="parcelle-bench-") as folder,
            # Measured elsewhere, and when the clock of a run has stopped.
            patch.object(reindexing, "measure_agreement", _no_agreement),
        ):
            settings = Settings(data_dir=Path(folder), database_url="")
            return reindex(settings, [self.land.scene], options, progress)


def _no_agreement(*_: object) -> Agreement:
    return Agreement(0, 1.0, 1.0, None)


def measure_parcels(runs: Runs, plain: PlainLoop, rounds: int) -> dict[str, Any]:
    """Rates of the three ways in turns, and the share of the network in the first."""
    reader = runs.choice.open(runs.precision)
    rates = in_turns(
        {
            "tiles": runs.by_tiles,
            "one chip each": runs.one_chip_each,
            "plain loop": lambda: runs.plain_loop(plain, reader),
        },
        rounds,
    )
    report = runs.watched[0][0]
    return {
        "precision": runs.precision,
        "parcels": runs.land.count,
        "area_km2": round(runs.land.area_km2, 2),
        "parcels_per_km2": round(runs.land.density, 1),
        "passes": report.chips,
        "parcels_per_pass": round(report.embedded / report.chips, 1),
        "parcels_per_s": median(rates["tiles"]),
        "one_chip_each_parcels_per_s": median(rates["one chip each"]),
        "plain_loop_parcels_per_s": median(rates["plain loop"]),
        "parcels_per_s_by_round": rounded(rates),
        "times_one_chip_each": ratio(rates["tiles"], rates["one chip each"]),
        "times_plain_loop": ratio(rates["tiles"], rates["plain loop"]),
        **_network(runs.watched),
    }


def _network(watched: Sequence[tuple[ReindexReport, Clock]]) -> dict[str, Any]:
    """How much of the time the network computes, where it waits, what is done beside it."""

    def share(seconds_of: Callable[[ReindexReport, Clock], float]) -> float:
        return median([seconds_of(*run) / run[0].seconds for run in watched])

    return {
        "seconds": median([report.seconds for report, _ in watched], 2),
        "network_share": share(lambda report, _: report.network_seconds),
        "network_s_per_pass": median([one.network_seconds / one.chips for one, _ in watched]),
        "waiting_shares": {
            name: share(lambda _, clock, name=name: clock.waiting()[name])  # type: ignore[misc]
            for name in watched[0][1].waiting()
        },
        "beside_shares": {
            name: share(lambda _, clock, name=name: clock.beside[name])  # type: ignore[misc]
            for name in _WORK
        },
    }
