"""The encoder at work: tiles in, embedded parcels out, while the next tiles are being read."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.encoders.base import Encoder
from indexer.pipeline import TileWork
from indexer.preparing import Prepared

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """An observation that is ready to be stored."""

    prepared: Prepared
    embedding: FloatArray | None
    """Shape ``(d,)``; None where too little is seen."""


@dataclass
class _Sum:
    """What the tiles of one parcel have come to so far."""

    scene: str
    tokens: npt.NDArray[np.float64]
    weight: float = 0.0
    tiles: int = 0


class Embedder:
    """Embeds batches of tiles, and puts together the parcels that lie in several.

    A parcel is complete with the last of its tiles, so the order of what comes out depends on the
    order of the tiles alone, not on how they are grouped into batches.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._sums: dict[int, _Sum] = {}
        self.passes = 0
        """Tiles that went through the network."""
        self.seconds = 0.0
        """Time in which the network computed."""

    def embed(self, works: Sequence[TileWork]) -> list[Embedded]:
        """The parcels that are complete with these tiles, in order."""
        started = time.monotonic()
        busy = [work for work in works if work.jobs]
        pooled = iter(
            self._encoder.pool(
                [work.image for work in busy],
                [np.stack([weights for _, weights in work.jobs]) for work in busy],
            )
            if busy
            else []
        )
        done: list[tuple[Prepared, FloatArray | None]] = []
        for work in works:
            done += [(prepared, None) for prepared in work.clouded]
            if work.jobs:
                done += self._complete(work, next(pooled))
        embedded = self._finish(done)
        self.passes += len(busy)
        self.seconds += time.monotonic() - started
        return embedded

    def _complete(
        self, work: TileWork, means: FloatArray
    ) -> Iterator[tuple[Prepared, FloatArray | None]]:
        """The parcels of which this is the last tile, with the mean of all of their tokens."""
        for (prepared, weights), mean in zip(work.jobs, means, strict=True):
            if len(prepared.parts) == 1:
                yield prepared, mean
                continue
            self._forget_others(prepared.seen.scene)
            total = self._sums.setdefault(
                id(prepared), _Sum(prepared.seen.scene, np.zeros(mean.shape))
            )
            weight = float(weights.sum(dtype=np.float64))
            total.tokens += weight * mean.astype(np.float64)
            total.weight += weight
            total.tiles += 1
            if total.tiles == len(prepared.parts):
                del self._sums[id(prepared)]
                yield prepared, (total.tokens / total.weight).astype(np.float32)

    def _forget_others(self, scene: str) -> None:
        """Drop parcels of a scene that could not be read to its end."""
        for key in [key for key, total in self._sums.items() if total.scene != scene]:
            del self._sums[key]

    def _finish(self, done: Sequence[tuple[Prepared, FloatArray | None]]) -> list[Embedded]:
        means = [mean for _, mean in done if mean is not None]
        embeddings: Iterator[FloatArray] = iter(
            self._encoder.finish(np.stack(means)) if means else []
        )
        return [
            Embedded(prepared, None if mean is None else next(embeddings))
            for prepared, mean in done
        ]


def embed_ahead(
    embedder: Embedder, batches: Iterable[list[TileWork]]
) -> Iterator[tuple[list[Embedded], int]]:
    """Embed batch after batch in a thread of its own, so that reading and storing go on meanwhile.

    Yields:
        What is complete with a batch, and how many tiles that was. Whoever takes it stores it while
        the network is busy with the next batch already. Three batches are in memory at most.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="network") as network:
        running: tuple[Future[list[Embedded]], int] | None = None
        for batch in batches:
            following = network.submit(embedder.embed, batch), len(batch)
            # Or these tiles would stay in memory while the next batch is read.
            del batch
            if running is not None:
                yield running[0].result(), running[1]
            running = following
        if running is not None:
            yield running[0].result(), running[1]
