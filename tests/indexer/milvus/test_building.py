"""Collections: what they hold, and what is noticed when they hold something else."""

from pathlib import Path

import numpy as np
import pytest

from indexer.errors import StorageError
from indexer.milvus.building import build_collection, check_collection
from indexer.milvus.index import MilvusIndex, Parameters
from indexer.milvus.server import SECONDS_TO_BUILD, MilvusServer
from tests.indexer.milvus.conftest import DIMENSIONS, N
from tests.indexer.vector_index.drawing import FloatArray, clustered

SMALL = clustered(300, DIMENSIONS)
NAME = "parcelle_00000000_g9"


def test_a_row_is_the_vector_at_its_place_bit_by_bit(index: MilvusIndex) -> None:
    assert (index.rows, index.dimensions) == (N, DIMENSIONS)
    np.testing.assert_array_equal(index.vectors(np.arange(N)), clustered(N, DIMENSIONS))


def test_recall_is_measured_and_more_of_it_looks_into_no_fewer_lists(index: MilvusIndex) -> None:
    efforts = [index.efforts[recall] for recall in (0.9, 0.95, 0.99)]
    assert all(
        one.recall_at_10 >= recall for one, recall in zip(efforts, (0.9, 0.95, 0.99), strict=True)
    )
    for k in (10, 100, 1000):
        lists = [one.nprobe_for(k) for one in efforts]
        assert lists == sorted(lists)
    for one in efforts:
        lists = [one.nprobe_for(k) for k in (1, 10, 11, 100, 500, 1000, 4000)]
        assert lists == sorted(lists)


def test_what_is_known_of_a_collection_is_restored_from_its_file(
    parameters: Parameters, tmp_path: Path
) -> None:
    parameters.write(tmp_path)
    assert Parameters.read(tmp_path) == parameters


def test_vectors_of_half_precision_are_held_as_they_are(milvus: MilvusServer) -> None:
    halves = SMALL.astype(np.float16)
    index = MilvusIndex(milvus, build_collection(milvus, NAME, halves))
    np.testing.assert_array_equal(index.vectors(np.arange(300)), halves.astype(np.float32))


def test_vectors_that_are_sent_in_many_pieces_keep_their_rows(
    milvus: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.milvus.building._SEGMENT_ROWS", 70)
    monkeypatch.setattr("indexer.milvus.building._BLOCK", 25)
    monkeypatch.setattr("indexer.milvus.server._FETCHED_BYTES", 4 * DIMENSIONS * 10)
    parameters = build_collection(milvus, NAME, SMALL)
    np.testing.assert_array_equal(MilvusIndex(milvus, parameters).vectors(np.arange(300)), SMALL)
    check_collection(milvus, parameters, thorough=True)


def test_what_a_build_that_died_left_behind_is_replaced(milvus: MilvusServer) -> None:
    milvus.create(NAME, DIMENSIONS)
    milvus.insert(NAME, 0, clustered(40, DIMENSIONS, seed=7))
    parameters = build_collection(milvus, NAME, SMALL)
    check_collection(milvus, parameters, thorough=True)


def test_a_collection_as_it_was_published_is_found_to_be_so(
    milvus: MilvusServer, parameters: Parameters
) -> None:
    check_collection(milvus, parameters)
    check_collection(milvus, parameters, thorough=True)


def test_a_row_too_few_is_noticed(milvus: MilvusServer) -> None:
    parameters = build_collection(milvus, NAME, SMALL)
    milvus.call("delete", NAME, ids=[17])
    milvus.call("flush", NAME, seconds=SECONDS_TO_BUILD)
    with pytest.raises(
        StorageError, match=f"{NAME} has 299 rows, but 300 were published"
    ) as caught:
        check_collection(milvus, parameters)
    assert caught.value.kind == "generation-corrupt"
    assert "parcelle generations rebuild" in caught.value.message


def test_one_other_number_in_one_vector_is_noticed_by_a_thorough_check(
    milvus: MilvusServer,
) -> None:
    parameters = build_collection(milvus, NAME, SMALL)
    other = SMALL[123].copy()
    other[5] = np.nextafter(other[5], np.float32(2))
    milvus.call("upsert", NAME, [{"row": 123, "vector": other}])
    check_collection(milvus, parameters)
    with pytest.raises(StorageError, match="is damaged: SHA-256 of its vectors") as caught:
        check_collection(milvus, parameters, thorough=True)
    assert caught.value.kind == "generation-corrupt"


def test_a_collection_that_is_gone_is_told_with_what_to_do(milvus: MilvusServer) -> None:
    parameters = build_collection(milvus, NAME, SMALL)
    index = MilvusIndex(milvus, parameters)
    milvus.drop(NAME)
    for ask in (
        lambda: index.search(SMALL[0], 10),
        lambda: index.vectors(np.arange(3)),
        lambda: check_collection(milvus, parameters),
    ):
        with pytest.raises(StorageError, match="parcelle generations rebuild") as caught:
            ask()
        assert caught.value.kind == "generation-corrupt"
        assert NAME in caught.value.message


class Losing(MilvusServer):
    """A server that forgets the last vector of all it is sent."""

    def insert(self, collection: str, first: int, vectors: FloatArray) -> None:
        """Send one vector less."""
        super().insert(collection, first, vectors[:-1])


class Rounding(MilvusServer):
    """A server that keeps vectors less exactly than it is told."""

    def insert(self, collection: str, first: int, vectors: FloatArray) -> None:
        """Send vectors of half precision."""
        super().insert(collection, first, vectors.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("kind", [Losing, Rounding])
def test_nothing_is_published_of_what_does_not_read_back_as_it_was(
    kind: type[MilvusServer], milvus: MilvusServer
) -> None:
    # The same file, in the same process.
    faulty = kind(milvus.address, seconds=60)
    with pytest.raises(StorageError, match="something else than it was given") as caught:
        build_collection(faulty, NAME, SMALL)
    assert caught.value.kind == "write-failed"
    assert not milvus.call("has_collection", NAME)
