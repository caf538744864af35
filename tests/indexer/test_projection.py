from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from indexer.projection import (
    MIN_ROWS_FOR_MEAN,
    MIN_ROWS_FOR_PCA,
    VECTOR_DIMENSIONS,
    Projection,
    unit_rows,
)

FloatArray = npt.NDArray[np.float32]

D = 600
"""Dimensions of the embeddings below: more than are kept, few enough to be quick."""


@cache
def embeddings(n: int, d: int = D, seed: int = 0) -> FloatArray:
    """Random embeddings around a common mean far from zero, as networks give them."""
    random = np.random.default_rng(seed)
    return (5 + random.standard_normal((n, d))).astype(np.float32)


@cache
def in_a_subspace(n: int) -> FloatArray:
    """Embeddings that differ within ``VECTOR_DIMENSIONS`` of ``D`` directions only."""
    random = np.random.default_rng(7)
    basis = np.linalg.qr(random.standard_normal((D, VECTOR_DIMENSIONS)))[0]
    return np.asarray(5 + random.standard_normal((n, VECTOR_DIMENSIONS)) @ basis.T, np.float32)


@cache
def fitted(n: int) -> Projection:
    return Projection.fit(embeddings(n))


def cosines(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Cosine of every pair of rows."""
    values = rows.astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values @ values.T


@pytest.mark.parametrize(
    ("n", "kind"),
    [(1, "orthonormal"), (MIN_ROWS_FOR_PCA - 1, "orthonormal"), (MIN_ROWS_FOR_PCA, "pca")],
)
def test_principal_components_are_fitted_from_1024_rows(n: int, kind: str) -> None:
    assert MIN_ROWS_FOR_PCA == 1024
    assert fitted(n).kind == kind


@pytest.mark.parametrize("n", [1, MIN_ROWS_FOR_MEAN, MIN_ROWS_FOR_PCA])
def test_the_rows_of_the_matrix_are_orthonormal(n: int) -> None:
    matrix = fitted(n).matrix.astype(np.float64)
    assert matrix.shape == (VECTOR_DIMENSIONS, D)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(VECTOR_DIMENSIONS), atol=1e-5)


def test_components_keep_cosines_of_centered_embeddings_that_need_no_more_dimensions() -> None:
    rows = in_a_subspace(MIN_ROWS_FOR_PCA)
    projection = Projection.fit(rows)
    assert projection.kind == "pca"
    centered = (rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0))[:100]
    vectors = projection.apply(rows[:100])
    np.testing.assert_allclose(cosines(vectors), cosines(centered), atol=1e-4)


def test_components_keep_the_directions_of_largest_variance() -> None:
    random = np.random.default_rng(3)
    spread = np.ones(D)
    loud = [5, 99, 401]
    spread[loud] = 20
    rows = (random.standard_normal((MIN_ROWS_FOR_PCA, D)) * spread).astype(np.float32)
    first_three = Projection.fit(rows).matrix[:3].astype(np.float64)
    # All of their length lies in the three loud directions.
    np.testing.assert_allclose((first_three[:, loud] ** 2).sum(axis=1), 1, atol=0.05)


def test_all_dimensions_are_kept_where_there_are_no_more_than_wanted() -> None:
    rows = embeddings(50, VECTOR_DIMENSIONS)
    projection = Projection.fit(rows)
    centered = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(cosines(projection.apply(rows)), cosines(centered), atol=1e-4)


@pytest.mark.parametrize("n", [1, MIN_ROWS_FOR_MEAN - 1])
def test_the_mean_of_few_rows_is_not_subtracted(n: int) -> None:
    assert (fitted(n).mean == 0).all()


@pytest.mark.parametrize("n", [MIN_ROWS_FOR_MEAN, MIN_ROWS_FOR_PCA])
def test_the_mean_of_enough_rows_is_subtracted(n: int) -> None:
    np.testing.assert_allclose(fitted(n).mean, embeddings(n).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(fitted(n).apply(fitted(n).mean[None]), 0, atol=1e-6)


def test_without_a_mean_all_cosines_would_be_near_one() -> None:
    # Why it is subtracted: these rows share a component five times their own spread.
    assert cosines(embeddings(100)).min() > 0.9
    assert np.abs(cosines(fitted(100).center(embeddings(100))) - np.eye(100)).max() < 0.5


def test_vectors_have_unit_length_and_are_the_projected_centered_embeddings() -> None:
    projection = fitted(MIN_ROWS_FOR_PCA)
    rows = embeddings(20, seed=9)
    by_hand = (rows.astype(np.float64) - projection.mean) @ projection.matrix.T.astype(np.float64)
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    vectors = projection.apply(rows)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, by_hand, atol=1e-5)


def test_a_vector_does_not_depend_on_the_rows_projected_with_it() -> None:
    rows = embeddings(20, seed=9)
    together = fitted(MIN_ROWS_FOR_PCA).apply(rows)
    alone = np.concatenate([fitted(MIN_ROWS_FOR_PCA).apply(row[None]) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_centering_alone_keeps_every_dimension_at_unit_length() -> None:
    projection = fitted(MIN_ROWS_FOR_PCA)
    centered = projection.center(embeddings(5))
    assert centered.shape == (5, D)
    np.testing.assert_allclose(np.linalg.norm(centered, axis=1), 1, atol=1e-6)
    expected = embeddings(5).astype(np.float64) - projection.mean
    np.testing.assert_allclose(cosines(centered), cosines(expected), atol=1e-5)


@pytest.mark.parametrize("n", [1, MIN_ROWS_FOR_PCA])
def test_bytes_restore_the_projection_exactly(n: int) -> None:
    projection = fitted(n)
    content = projection.to_bytes()
    assert len(content) == 4 * (D + VECTOR_DIMENSIONS * D)
    restored = Projection.from_bytes(projection.kind, content, D)
    assert restored.kind == projection.kind
    np.testing.assert_array_equal(restored.mean, projection.mean)
    np.testing.assert_array_equal(restored.matrix, projection.matrix)
    np.testing.assert_array_equal(restored.apply(embeddings(10)), projection.apply(embeddings(10)))


@pytest.mark.parametrize("n", [10, MIN_ROWS_FOR_PCA])
def test_the_same_rows_give_the_same_projection(n: int) -> None:
    again = Projection.fit(embeddings(n).copy())
    assert again.to_bytes() == fitted(n).to_bytes()


def test_random_rows_follow_from_the_seed_alone() -> None:
    np.testing.assert_array_equal(fitted(1).matrix, fitted(10).matrix)
    other = Projection.fit(embeddings(1), seed=1)
    assert not np.allclose(other.matrix, fitted(1).matrix)


@pytest.mark.parametrize("d", [2, 84, VECTOR_DIMENSIONS - 1])
@pytest.mark.parametrize("n", [1, MIN_ROWS_FOR_MEAN, MIN_ROWS_FOR_PCA])
def test_shorter_embeddings_keep_every_angle_between_them(n: int, d: int) -> None:
    rows = embeddings(n, d)
    projection = Projection.fit(rows)
    assert projection.kind == "padding"
    mean = rows.astype(np.float64).mean(axis=0) if n >= MIN_ROWS_FOR_MEAN else 0
    vectors = projection.apply(rows[:100])
    assert vectors.shape == (min(n, 100), VECTOR_DIMENSIONS)
    np.testing.assert_allclose(cosines(vectors), cosines(rows[:100] - mean), atol=1e-4)
    np.testing.assert_array_equal(vectors[:, d:], 0)


def test_bytes_restore_a_padding_exactly() -> None:
    rows = embeddings(MIN_ROWS_FOR_MEAN, 20)
    projection = Projection.fit(rows)
    restored = Projection.from_bytes(projection.kind, projection.to_bytes(), 20)
    assert restored.kind == "padding"
    np.testing.assert_array_equal(restored.apply(rows), projection.apply(rows))


def test_rows_of_zeros_stay_zero() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit_rows(rows), [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)
