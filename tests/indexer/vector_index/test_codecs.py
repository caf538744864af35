from pathlib import Path

import numpy as np
import pytest

from indexer.vector_index.codecs import BYTES_PER_NUMBER, Codec, Precision
from tests.indexer.vector_index.drawing import clustered


@pytest.mark.parametrize(("precision", "exact_to"), [("fp32", 0.0), ("fp16", 2**-11)])
@pytest.mark.parametrize("n", [1, 2, 500])
def test_a_code_is_as_exact_as_its_precision(n: int, precision: Precision, exact_to: float) -> None:
    vectors = clustered(n)
    codec = Codec.trained(precision, vectors)
    codes = codec.encode(vectors)
    assert codes.shape == (n, 64 * BYTES_PER_NUMBER[precision])
    # The relative error of a number of 11 binary digits, none of which exceeds 1.
    np.testing.assert_allclose(codec.decode(codes), vectors, rtol=0, atol=exact_to)


def test_a_code_of_a_byte_divides_the_range_of_each_dimension_into_255_steps() -> None:
    vectors = clustered(500)
    codec = Codec.trained("int8", vectors)
    steps = (vectors.max(axis=0) - vectors.min(axis=0)) / 255
    error = np.abs(codec.decode(codec.encode(vectors)) - vectors)
    assert codec.code_size == 64
    assert (error <= steps * 1.01).all()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_codec_read_back_encodes_and_decodes_as_before(
    precision: Precision, tmp_path: Path
) -> None:
    vectors = clustered(500)
    codec = Codec.trained(precision, vectors)
    codec.write(tmp_path / "codec")
    again = Codec.read(tmp_path / "codec")
    codes = codec.encode(vectors)
    np.testing.assert_array_equal(again.encode(vectors), codes)
    np.testing.assert_array_equal(again.decode(codes), codec.decode(codes))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_codes_are_an_index_that_scores_them_as_they_lie(precision: Precision) -> None:
    vectors = clustered(500)
    codec = Codec.trained(precision, vectors)
    codes = codec.encode(vectors)
    scores, rows = codec.stored(codes).search(vectors[:20], 500)
    exact = codec.decode(codes) @ vectors[:20].T
    for number in range(20):
        np.testing.assert_allclose(scores[number], exact[rows[number], number], atol=1e-5)
        assert sorted(rows[number].tolist()) == list(range(500))
