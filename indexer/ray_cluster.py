"""The same work on many machines: a Ray cluster reads and embeds, this process plans and stores.

Workers get blocks of tiles and send back embedded parcels. These are stored here, in the order of
the images and their tiles, so that one database has one writer. A worker that dies loses nothing:
its blocks are given to others, and Ray starts it again.
"""

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from typing import Any, Final

from indexer.blocks import (
    TILES_OF_A_BLOCK,
    Block,
    BlockResult,
    BlockWork,
    Piece,
    PieceResult,
    RunEncoder,
    in_blocks,
    in_pieces,
)
from indexer.catalog.writing import Known
from indexer.chipping import ChipPlan
from indexer.errors import ImageryError, InvalidInputError
from indexer.findings import Findings
from indexer.imagery.sources import Source
from indexer.pipeline import Inputs, Opened, each_image
from indexer.progress import Progress

CPUS_OF_A_WORKER: Final = 4
"""Workers with fewer processors each would hold more copies of the network."""

MOST_LOSSES: Final = 3
"""Workers that a piece may take with it before it is left out."""

# Blocks at each worker, so that it never waits for the next; and with those that wait for an
# earlier one.
_AT_ONCE, _IN_MEMORY = 2, 4
_CONNECT_TIMEOUT_S = 5.0
# How long a cluster may have no worker at all: new machines take minutes to come up.
_PATIENCE_S = 300.0


@dataclass(eq=False)
class _Worker:
    """One of the cluster's workers, as it is known here."""

    actor: Any
    present: bool = False
    """False until it has said that it is alive, and from its death until it says so again."""
    tasks: "list[_Task]" = field(default_factory=list)
    """Under way there; the first is being worked on."""
    fatal: "_Task | None" = None
    """What it was doing when it died."""


@dataclass(eq=False)
class _Task:
    """A block on its way."""

    block: Block
    result: BlockResult | None = None
    losses: int = 0
    """Workers that died with it."""


class RayCluster:
    """A connection to a cluster, and workers there that live as long as it.

    Args:
        address: ``HOST:PORT`` of the head, ``auto`` for the cluster of this machine, or ``local``
            to start one of this machine alone.
        work: What the workers do.

    Raises:
        InvalidInputError: If Ray is not installed, no cluster answers, or none of its machines can
            take a worker (``invalid-option``).
    """

    def __init__(self, address: str, work: BlockWork) -> None:
        self._address = address
        # Ray tells of its troubles on standard output, where results go.
        self._stdout = redirect_stdout(sys.stderr)
        self._ray = _connected(address)
        self._calls: dict[Any, tuple[_Worker, _Task | None]] = {}
        self._unplaced: deque[_Task] = deque()
        self._proven = False
        # Names of images that workers died of; what is left of them is left out.
        self._deadly: set[str] = set()
        try:
            self._workers = [_Worker(actor) for actor in self._actors(work)]
            for worker in self._workers:
                self._greet(worker)
        except BaseException:
            self._ray.shutdown()
            raise

    def __enter__(self) -> "RayCluster":
        self._stdout.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()
        self._stdout.__exit__(None, None, None)

    def results(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, BlockResult]]:
        """Work on blocks; in memory are at most four for each worker.

        Args:
            blocks: Taken one by one, as workers become free.

        Yields:
            Each block with its result, in order. A block whose worker died comes as its pieces.

        Raises:
            InvalidInputError: If workers die before any has done anything, or none is to be had
                (``invalid-option``).
            ParcelleError: What a worker met, other than images that cannot be used.
        """
        tasks: deque[_Task] = deque()
        for block in blocks:
            self._add(tasks, _Task(block))
            yield from self._until(tasks, _IN_MEMORY * max(1, len(self._workers)) - 1)
        yield from self._until(tasks, 0)

    def _until(self, tasks: deque[_Task], most: int) -> Iterator[tuple[Block, BlockResult]]:
        """Wait until all blocks are given out, and no more are in memory."""
        yield from _done(tasks)
        while self._unplaced or len(tasks) > most:
            self._wait(tasks)
            yield from _done(tasks)

    # Giving out -------------------------------------------------------------------------------

    def _actors(self, work: BlockWork) -> list[Any]:
        """As many workers as the cluster's machines hold."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        each: list[dict[str, int]] = [{"num_gpus": 1, "num_cpus": 1}] * gpus
        if not gpus:
            for cpus in (int(node.get("CPU", 0)) for node in nodes):
                workers = max(1, cpus // CPUS_OF_A_WORKER) if cpus else 0
                each += [{"num_cpus": min(cpus, CPUS_OF_A_WORKER)}] * workers
        if not each:
            raise self._useless("none of its machines offers a processor or a GPU to Ray")
        # Its blocks are repeated here and not by Ray, which would wait for a machine that is gone.
        kinds = [
            self._ray.remote(max_restarts=-1, max_task_retries=0, **resources)(_Actor)
            for resources in each
        ]
        return [kind.remote(work) for kind in kinds]

    def _greet(self, worker: _Worker) -> None:
        """Ask a worker to say that it is alive as soon as it is."""
        worker.present = False
        self._calls[worker.actor.greet.options(max_task_retries=-1).remote()] = worker, None

    def _add(self, tasks: deque[_Task], task: _Task) -> None:
        tasks.append(task)
        self._unplaced.append(task)
        self._place()

    def _place(self) -> None:
        """Give waiting blocks to those workers that have the least to do."""
        while self._unplaced:
            free = [one for one in self._workers if one.present and len(one.tasks) < _AT_ONCE]
            if not free:
                return
            worker, task = min(free, key=lambda one: len(one.tasks)), self._unplaced.popleft()
            if all(piece.source.name in self._deadly for piece in task.block.pieces):
                task.result = BlockResult()
                continue
            worker.tasks.append(task)
            self._calls[worker.actor.run.remote(task.block)] = worker, task

    # Taking back ------------------------------------------------------------------------------

    def _wait(self, tasks: deque[_Task]) -> None:
        """Wait until a worker sends or says something."""
        patience = None if any(one.present for one in self._workers) else _PATIENCE_S
        ready, _ = self._ray.wait(list(self._calls), timeout=patience)
        if not ready:
            raise self._useless(f"no worker could be started in {_PATIENCE_S / 60:.0f} minutes")
        for call in ready:
            worker, task = self._calls.pop(call)
            try:
                found = self._ray.get(call)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self._ray.exceptions.RayError as error:
                self._lost(tasks, worker, task, error)
                continue
            if task is None:
                worker.present = True
            else:
                worker.tasks.remove(task)
                task.result = found
                self._proven = True
        self._place()

    def _lost(
        self, tasks: deque[_Task], worker: _Worker, task: _Task | None, error: Exception
    ) -> None:
        """A worker has died: others do what it was doing."""
        if task is None:
            # Ray will not start it again.
            self._workers.remove(worker)
            if not self._workers:
                raise self._useless(f"no worker can be started there ({_short(error)})") from error
            return
        if worker.present:
            worker.fatal = worker.tasks[0]
            self._greet(worker)
        worker.tasks.remove(task)
        losses = task.losses + (task is worker.fatal)
        again = [
            _Task(replace(task.block, pieces=(piece,)), losses=losses)
            for piece in task.block.pieces
        ]
        if losses == MOST_LOSSES:
            if not self._proven:
                raise self._useless(f"its workers die at their first work ({_short(error)})")
            for one in again:
                self._deadly.add(one.block.pieces[0].source.name)
                one.result = _left_out(one.block.pieces[0])
        else:
            self._unplaced.extendleft(reversed(again))
        place = tasks.index(task)
        tasks.remove(task)
        for one in reversed(again):
            tasks.insert(place, one)

    def _useless(self, reason: str) -> InvalidInputError:
        return InvalidInputError(
            f"--ray {self._address}: {reason}; see ray status, and that every machine of the "
            "cluster has Parcelle, free processors and enough memory.",
            kind="invalid-option",
        )


class _Actor:
    """What runs on the cluster's machines."""

    def __init__(self, work: BlockWork) -> None:
        if os.path.isdir(work.folder):
            os.chdir(work.folder)
        self._work = work
        self._encoder: RunEncoder | None = None

    def greet(self) -> None:
        """Answer."""

    def run(self, block: Block) -> BlockResult:
        """Work on a block."""
        if self._encoder is None:
            self._encoder = self._work.open_encoder()
        return self._work.run(self._encoder, block)


def _done(tasks: deque[_Task]) -> Iterator[tuple[Block, BlockResult]]:
    """Those that no earlier one is missing for."""
    while tasks and tasks[0].result is not None:
        task = tasks.popleft()
        if task.result is not None:
            yield task.block, task.result


def _left_out(piece: Piece) -> BlockResult:
    error = ImageryError(
        f"{piece.source.location}: {MOST_LOSSES} workers died over {len(piece.plan)} of its tiles; "
        "look at it by itself without --ray, or give the machines more memory.",
        kind="unreadable",
    )
    return BlockResult(pieces=[PieceResult(piece.source, error=error)])


# Connecting -----------------------------------------------------------------------------------


def _connected(address: str) -> Any:  # noqa: ANN401 - Ray, which need not be installed
    """Ray, connected to a cluster.

    Raises:
        InvalidInputError: If it cannot be (``invalid-option``).
    """
    # Nothing is told to anybody, and no warning shown of what we do not use.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            "--ray: Ray is not installed here; pip install 'parcelle[ray]'.",
            kind="invalid-option",
        ) from error
    try:
        if address not in ("auto", "local"):
            _knock(address)
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"--ray {address}: no Ray cluster answers there ({_short(error)}); start one with "
            "ray start --head, give the address that it prints, and run this on one of its "
            "machines.",
            kind="invalid-option",
        ) from error
    return ray


def _knock(address: str) -> None:
    """See whether anybody listens at an address; Ray itself would try for a minute.

    Raises:
        OSError: If not.
        ValueError: If it is no address.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or "/" in host:
        raise ValueError("not HOST:PORT, auto or local")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:200]


# A run ----------------------------------------------------------------------------------------


def embed_on_cluster(
    cluster: RayCluster,
    inputs: Inputs,
    findings: Findings,
    progress: Progress,
    known: Callable[[Source, Sequence[ChipPlan]], Mapping[str, Known]],
    sampled: int,
) -> Iterator[BlockResult]:
    """Embed all images on a cluster.

    Args:
        cluster: Where to.
        inputs: What is read.
        findings: Receives what was met, here and there.
        progress: Is told of every tile.
        known: Tells what the catalog holds of the parcels of some tiles of an image.
        sampled: Tiles that are to be sent back, at least where there are so many.

    Yields:
        The results in the order of the images and their tiles. Of an image that cannot be read to
        its end there is what comes before.
    """
    broken: dict[str, Source] = {}
    wanted = sampled

    def pieces(opened: Opened) -> Iterator[Piece]:
        for plan, steps in in_pieces(opened.plan, TILES_OF_A_BLOCK):
            opened.begun += steps
            source = opened.image.source
            yield Piece(source, plan, known(source, plan), steps)

    def blocks() -> Iterator[Block]:
        images = each_image(inputs, findings, progress, "Embedding", pieces)
        for together in in_blocks(images, TILES_OF_A_BLOCK):
            yield Block(together, wanted)

    for block, result in cluster.results(blocks()):
        wanted = max(0, wanted - len(result.sample))
        result = _until_broken(result, broken, findings)
        progress.advance(block.steps)
        yield result
    # They could be opened here, but not be read there.
    findings.read -= len(broken)


def _until_broken(
    result: BlockResult, broken: dict[str, Source], findings: Findings
) -> BlockResult:
    """Leave out what comes after the place where an image could not be read."""
    scenes = set(broken)
    kept: list[PieceResult] = []
    for piece in result.pieces:
        if piece.source.name in broken:
            continue
        kept.append(piece)
        findings.add(piece.findings)
        if piece.error is not None:
            broken[piece.source.name] = piece.source
            findings.skip(piece.source.location, piece.error)
    embedded = [one for one in result.embedded if one.prepared.seen.scene not in scenes]
    return replace(result, pieces=kept, embedded=embedded)
