import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from indexer.encoders.cores import Cores


@pytest.fixture
def two_cores() -> Iterator[Cores]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield Cores()
    torch.set_num_threads(before)


def threads_of(_: int) -> int:
    return torch.get_num_threads()


def test_items_are_computed_side_by_side_each_on_one_core(two_cores: Cores) -> None:
    together = threading.Barrier(2, timeout=10)

    def work(number: int) -> tuple[int, int]:
        together.wait()
        return number, torch.get_num_threads()

    assert two_cores.each(work, [1, 2, 3, 4]) == [(1, 1), (2, 1), (3, 1), (4, 1)]


def test_a_single_item_gets_all_cores(two_cores: Cores) -> None:
    assert two_cores.each(threads_of, [1]) == [torch.get_num_threads()]


def test_later_threads_have_all_cores_again(two_cores: Cores) -> None:
    two_cores.each(threads_of, [1, 2, 3])
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2
    assert torch.get_num_threads() == 2


def test_an_error_of_one_item_is_told(two_cores: Cores) -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    with pytest.raises(ValueError, match="two"):
        two_cores.each(work, [1, 2, 3])


def test_items_and_what_belongs_to_them_must_be_as_many(two_cores: Cores) -> None:
    with pytest.raises(ValueError, match="argument 2"):
        two_cores.each(lambda one, other: None, [1, 2], [1])
