"""Trainings that last seconds, and give the same bits each time."""

from collections.abc import Iterator

import pytest

from tests.indexer.training.cubes import in_one_thread


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """See there."""
    yield from in_one_thread()
