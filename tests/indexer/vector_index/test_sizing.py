import pytest

from indexer.vector_index.sizing import Shape, choose_nlist, choose_shape

PLENTY = 1 << 50


@pytest.mark.parametrize(
    ("n", "nlist"),
    [
        (1, 1),
        (4_096, 1),
        # At least 39 training points for each list: 5,000 / 39 = 128.2.
        (5_000, 128),
        # 2 * sqrt(100,000) = 632; the next power of two.
        (100_000, 1_024),
        (1_000_000, 2_048),
        (10_000_000, 8_192),
    ],
)
def test_each_list_gets_39_training_points_and_large_indexes_at_least_2_sqrt_n_lists(
    n: int, nlist: int
) -> None:
    assert choose_nlist(n) == nlist


def test_few_rows_are_all_scored_as_they_are() -> None:
    assert choose_shape(4_096, 512, 1) == Shape(1, "fp32", 0, 0)


@pytest.mark.parametrize(
    ("dimensions", "subquantizers", "sketch_dimensions"),
    [(512, 128, 128), (64, 16, 64), (130, 26, 128), (101, 1, 101), (3, 1, 3), (1, 1, 1)],
)
def test_four_dimensions_go_into_one_code_or_as_many_as_divide_a_vector(
    dimensions: int, subquantizers: int, sketch_dimensions: int
) -> None:
    shape = choose_shape(5_000, dimensions, PLENTY)
    assert (shape.subquantizers, shape.sketch_dimensions) == (subquantizers, sketch_dimensions)


def test_copies_are_of_one_byte_a_number_where_two_would_exceed_the_memory() -> None:
    # Two bytes each for 512 numbers, and what lies beside them.
    needed = 10_000_000 * 2 * 512
    assert choose_shape(10_000_000, 512, needed).precision == "int8"
    assert choose_shape(10_000_000, 512, 2 * needed).precision == "fp16"


def test_the_kind_of_an_index_is_told_in_faiss_words() -> None:
    assert Shape(1, "fp32", 0, 0).kind(512) == "IVF1,Flat(fp32)"
    told = Shape(1_024, "int8", 128, 128).kind(512)
    assert told == "IVF1024,PQ128x4fs,Refine(int8)+PCA128,SQ8"
