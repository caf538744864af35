"""Reading the tiles of an image on a server before they are asked for.

A window of thirteen bands takes a quarter of a second over the network, most of it waiting. Several
threads wait at once. Each reads the tiles of its own strips of the image, because tiles that lie
beside or below each other share blocks of the files, which the thread has already.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice
from typing import Final, Self

from indexer.chipping import ChipPlan, Window
from indexer.imagery.chip import Chip
from indexer.imagery.rasters import hold_in_this_thread

READERS: Final = 4
NEIGHBORS: Final = 4
"""Most tiles that one reader is given at once."""

# Width of a strip: the side of the blocks in most GeoTIFFs on servers, or half of it.
_STRIP_PX = 512


class ReadAhead:
    """Reads the windows of tiles that will be asked for next.

    Args:
        read: Reads a window; called in threads of its own.
        width: Of the image, in pixels.
    """

    def __init__(self, read: Callable[[Window], Chip], width: int) -> None:
        self._read = read
        # A narrow image is work for all readers, too.
        self._strip_px = max(1, min(_STRIP_PX, math.ceil(width / READERS)))
        self._readers = [
            ThreadPoolExecutor(1, f"reader-{number}", initializer=hold_in_this_thread)
            for number in range(READERS)
        ]
        self._coming: dict[Window, Future[dict[Window, Chip]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.shutdown(wait=False, cancel_futures=True)
        for reader in self._readers:
            reader.shutdown()

    def through(self, plan: Iterable[ChipPlan]) -> Iterator[ChipPlan]:
        """The tiles of a plan; while one is taken, those after it are read."""
        groups = self._groups(plan)
        ahead: deque[list[ChipPlan]] = deque()
        waiting = 0
        while True:
            while waiting < READERS * NEIGHBORS and (some := next(groups, None)):
                self._begin(some)
                ahead.append(some)
                waiting += len(some)
            if not ahead:
                return
            for tile in ahead.popleft():
                yield tile
                waiting -= 1

    def _groups(self, plan: Iterable[ChipPlan]) -> Iterator[list[ChipPlan]]:
        """Tiles that follow each other in one strip, a few at a time."""
        for _, strip in groupby(plan, lambda tile: tile.column // self._strip_px):
            while some := list(islice(strip, NEIGHBORS)):
                yield some

    def take(self, window: Window) -> Chip:
        """A window that was read ahead; another one is read now.

        Raises:
            ImageryError: If it cannot be read.
        """
        coming = self._coming.pop(window, None)
        chip = None if coming is None else coming.result().pop(window, None)
        return self._read(window) if chip is None else chip

    def _begin(self, tiles: Sequence[ChipPlan]) -> None:
        windows = [
            window
            for tile in tiles
            for window in (
                *(view.window for view in tile.views),
                *([tile.window] if tile.targets else []),
            )
        ]
        if windows:
            reader = self._readers[tiles[0].column // self._strip_px % READERS]
            coming = reader.submit(self._read_all, windows)
            self._coming.update(dict.fromkeys(windows, coming))

    def _read_all(self, windows: Sequence[Window]) -> dict[Window, Chip]:
        return {window: self._read(window) for window in windows}
