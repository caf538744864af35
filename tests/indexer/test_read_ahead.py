import threading
from collections import defaultdict

import pytest

from indexer.chipping import ChipPlan, Target, Window
from indexer.errors import ImageryError
from indexer.imagery.chip import Chip
from indexer.parcels.parcel import Parcel
from indexer.read_ahead import NEIGHBORS, READERS, ReadAhead
from tests.synthetic import make_chip

WIDTH = 8 * 200

TARGET = Target(Parcel("test", "1", None), None)


def plan(count: int) -> list[ChipPlan]:
    return [ChipPlan(0, 8 * number, 8, 8, (TARGET,)) for number in range(count)]


def chip_at(window: Window) -> Chip:
    return make_chip(8, scene=str(window.column))


def test_tiles_come_in_order_each_with_its_own_pixels() -> None:
    with ReadAhead(chip_at, WIDTH) as ahead:
        scenes = [ahead.take(tile.window).scene for tile in ahead.through(plan(50))]
    assert scenes == [str(8 * number) for number in range(50)]


def test_tiles_of_different_strips_are_read_at_once() -> None:
    # One tile in each strip; nobody gets on until all readers have come with one.
    together = threading.Barrier(READERS, timeout=10)

    def read(window: Window) -> Chip:
        together.wait()
        return chip_at(window)

    strip_px = WIDTH // READERS
    apart = [ChipPlan(0, strip_px * number, 8, 8, (TARGET,)) for number in range(READERS)]
    with ReadAhead(read, WIDTH) as ahead:
        assert len([ahead.take(tile.window) for tile in ahead.through(apart)]) == READERS


def test_tiles_below_each_other_are_read_by_one_reader() -> None:
    readers: dict[int, set[str]] = defaultdict(set)

    def note(window: Window) -> Chip:
        readers[window.column].add(threading.current_thread().name)
        return chip_at(window)

    grid = [
        ChipPlan(8 * row, column, 8, 8, (TARGET,))
        for row in range(20)
        for column in range(0, WIDTH, 200)
    ]
    with ReadAhead(note, WIDTH) as ahead:
        for tile in ahead.through(grid):
            ahead.take(tile.window)
    assert {len(names) for names in readers.values()} == {1}
    assert len(set.union(*readers.values())) == READERS


def test_only_a_few_tiles_are_read_before_they_are_asked_for() -> None:
    read: list[Window] = []

    def note(window: Window) -> Chip:
        read.append(window)
        return chip_at(window)

    with ReadAhead(note, WIDTH) as ahead:
        for number, tile in enumerate(ahead.through(plan(200))):
            ahead.take(tile.window)
            assert len(read) <= number + (READERS + 2) * NEIGHBORS


def test_a_tile_that_cannot_be_read_is_an_error_when_it_is_asked_for() -> None:
    def read(window: Window) -> Chip:
        if window.column == 8 * 20:
            raise ImageryError("the server is gone", kind="unreadable")
        return chip_at(window)

    with ReadAhead(read, WIDTH) as ahead:
        tiles = list(ahead.through(plan(21)))
        # What its reader had read before goes with it.
        for tile in tiles[: 20 - NEIGHBORS]:
            ahead.take(tile.window)
        with pytest.raises(ImageryError, match="the server is gone"):
            ahead.take(tiles[20].window)


def test_a_window_that_nobody_foresaw_is_read_when_it_is_asked_for() -> None:
    beside = Window(100, 0, 8, 8)
    with ReadAhead(chip_at, WIDTH) as ahead:
        for tile in ahead.through(plan(3)):
            assert ahead.take(tile.window).scene == str(tile.column)
            # Taken already, or never planned.
            assert ahead.take(tile.window).scene == str(tile.column)
            assert ahead.take(beside).scene == "0"


def test_tiles_that_show_no_parcel_are_not_read() -> None:
    read: list[Window] = []

    def note(window: Window) -> Chip:
        read.append(window)
        return chip_at(window)

    empty = ChipPlan(0, 800, 8, 8, ())
    with ReadAhead(note, WIDTH) as ahead:
        assert list(ahead.through([*plan(2), empty])) == [*plan(2), empty]
    assert sorted(window.column for window in read) == [0, 8]
