"""Indexes that are built once."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from indexer.vector_index.building import build_index
from indexer.vector_index.index import VectorIndex
from indexer.vector_index.sizing import Shape, choose_shape
from indexer.vector_index.tuning import Tuning
from tests.indexer.vector_index.drawing import DIMENSIONS, FloatArray, IntArray, clustered

PLENTY = 1 << 40
"""Bytes of memory that any test's index fits into."""


class Built(NamedTuple):
    """An index of ``clustered`` vectors."""

    folder: Path
    opened: VectorIndex
    order: IntArray
    tuning: Tuning
    vectors: FloatArray
    """As they were given."""


Build = Callable[..., Built]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds an index of n clustered vectors, of a shape of its own choice unless it is given."""
    made: dict[tuple[object, ...], Built] = {}

    def make(n: int, dimensions: int = DIMENSIONS, shape: Shape | None = None) -> Built:
        shape = shape or choose_shape(n, dimensions, PLENTY)
        if (n, dimensions, shape) not in made:
            folder = tmp_path_factory.mktemp("index")
            vectors = clustered(n, dimensions)
            made[n, dimensions, shape] = Built(
                folder, *build_index(folder, vectors, shape), vectors
            )
        return made[n, dimensions, shape]

    return make
