"""Reading the tiles of an image on a server before they are asked for.

A window of thirteen bands takes a quarter of a second over the network, most of it waiting. Several
threads wait at once; each reads neighboring tiles, which lie in the same blocks of the files.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, Self

from indexer.chipping import ChipPlan, Window
from indexer.imagery.chip import Chip
from indexer.imagery.rasters import hold_in_this_thread

READERS: Final = 4
NEIGHBORS: Final = 4
"""Tiles that one reader takes at once."""


class ReadAhead:
    """Reads the windows of tiles that will be asked for next.

    Args:
        read: Reads a window; called in threads of its own.
    """

    def __init__(self, read: Callable[[Window], Chip]) -> None:
        self._read = read
        self._readers = ThreadPoolExecutor(
            READERS, thread_name_prefix="reader", initializer=hold_in_this_thread
        )
        self._coming: dict[Window, Future[dict[Window, Chip]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.shutdown(cancel_futures=True)

    def through(self, plan: Iterable[ChipPlan]) -> Iterator[ChipPlan]:
        """The tiles of a plan; while one is taken, those after it are read."""
        tiles = iter(plan)
        ahead: deque[list[ChipPlan]] = deque()
        while True:
            while len(ahead) <= READERS and (some := list(islice(tiles, NEIGHBORS))):
                self._begin(some)
                ahead.append(some)
            if not ahead:
                return
            yield from ahead.popleft()

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
            coming = self._readers.submit(self._read_all, windows)
            self._coming.update(dict.fromkeys(windows, coming))

    def _read_all(self, windows: Sequence[Window]) -> dict[Window, Chip]:
        return {window: self._read(window) for window in windows}
