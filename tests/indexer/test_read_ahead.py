import threading

import pytest

from indexer.chipping import ChipPlan, Target, Window
from indexer.errors import ImageryError
from indexer.imagery.chip import Chip
from indexer.parcels.parcel import Parcel
from indexer.read_ahead import NEIGHBORS, READERS, ReadAhead
from tests.synthetic import make_chip

TARGET = Target(Parcel("test", "1", None), None)


def plan(count: int) -> list[ChipPlan]:
    return [ChipPlan(0, 8 * number, 8, 8, (TARGET,)) for number in range(count)]


def chip_at(window: Window) -> Chip:
    return make_chip(8, scene=str(window.column))


def test_tiles_come_in_order_each_with_its_own_pixels() -> None:
    with ReadAhead(chip_at) as ahead:
        scenes = [ahead.take(tile.window).scene for tile in ahead.through(plan(50))]
    assert scenes == [str(8 * number) for number in range(50)]


def test_several_tiles_are_read_at_once() -> None:
    # Nobody gets on until all readers have come, each with a tile of its own.
    together = threading.Barrier(READERS, timeout=10)

    def read(window: Window) -> Chip:
        if window.column % (8 * NEIGHBORS) == 0:
            together.wait()
        return chip_at(window)

    with ReadAhead(read) as ahead:
        taken = [ahead.take(tile.window) for tile in ahead.through(plan(READERS * NEIGHBORS))]
    assert len(taken) == READERS * NEIGHBORS


def test_only_a_few_tiles_are_read_before_they_are_asked_for() -> None:
    read: list[Window] = []

    def note(window: Window) -> Chip:
        read.append(window)
        return chip_at(window)

    with ReadAhead(note) as ahead:
        for number, tile in enumerate(ahead.through(plan(200))):
            ahead.take(tile.window)
            assert len(read) <= number + (READERS + 2) * NEIGHBORS


def test_a_tile_that_cannot_be_read_is_an_error_when_it_is_asked_for() -> None:
    def read(window: Window) -> Chip:
        if window.column == 8 * 20:
            raise ImageryError("the server is gone", kind="unreadable")
        return chip_at(window)

    with ReadAhead(read) as ahead:
        tiles = list(ahead.through(plan(21)))
        # What its reader had read before goes with it.
        for tile in tiles[: 20 - NEIGHBORS]:
            ahead.take(tile.window)
        with pytest.raises(ImageryError, match="the server is gone"):
            ahead.take(tiles[20].window)


def test_a_window_that_nobody_foresaw_is_read_when_it_is_asked_for() -> None:
    beside = Window(100, 0, 8, 8)
    with ReadAhead(chip_at) as ahead:
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
    with ReadAhead(note) as ahead:
        assert list(ahead.through([*plan(2), empty])) == [*plan(2), empty]
    assert sorted(window.column for window in read) == [0, 8]
