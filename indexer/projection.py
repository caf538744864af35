"""From the encoder's dimensions to 512: linear, frozen with the space, its cost measured."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

ProjectionKind = Literal["pca", "orthonormal", "padding"]

VECTOR_DIMENSIONS = 512
"""Length of the vectors that are searched."""

MIN_ROWS_FOR_PCA = 1024
"""Embeddings from which principal components are fitted rather than random rows drawn: two for
each direction kept, below which the trailing components describe the sample and not the land."""

MIN_ROWS_FOR_MEAN = 32
"""Embeddings from which their mean is subtracted. Embeddings of one encoder share a large common
component that would push every cosine towards 1; a mean of fewer rows would be those rows."""

MAX_ROWS_FOR_PCA = 4096
"""Embeddings kept at full length for the fit and for measuring what the projection costs."""

_ROWS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear map to unit vectors: ``v = (e - mean) @ matrix.T``, then length 1."""

    kind: ProjectionKind
    """How the matrix came about: fitted, seeded random orthonormal rows, or, for embeddings shorter
    than the vectors, the identity above rows of zeros."""
    mean: FloatArray
    """Shape ``(d,)``; subtracted first. Zero where there were too few rows to know it."""
    matrix: FloatArray
    """Shape ``(VECTOR_DIMENSIONS, d)``; orthonormal rows, or orthonormal columns for padding."""

    @classmethod
    def fit(cls, embeddings: FloatArray, seed: int = 0) -> "Projection":
        """PCA where there are enough rows, else seeded orthonormal rows.

        Embeddings shorter than the vectors are kept as they are, centered and padded with zeros:
        every angle and distance between them stays.

        Args:
            embeddings: Shape ``(n, d)``.
            seed: Of the orthonormal rows.
        """
        n, d = embeddings.shape
        rows = embeddings.astype(np.float64)
        mean = rows.mean(axis=0) if n >= MIN_ROWS_FOR_MEAN else np.zeros(d)
        if d < VECTOR_DIMENSIONS:
            padding = np.eye(VECTOR_DIMENSIONS, d, dtype=np.float32)
            return cls("padding", mean.astype(np.float32), padding)
        if n < MIN_ROWS_FOR_PCA:
            return cls("orthonormal", mean.astype(np.float32), _orthonormal_rows(d, seed))
        values, vectors = np.linalg.eigh(np.cov(rows - mean, rowvar=False))
        components = vectors[:, np.argsort(values)[::-1][:VECTOR_DIMENSIONS]].T
        # A component's sign is arbitrary; fix it so that the same rows give the same matrix.
        largest = np.abs(components).argmax(axis=1)
        components *= np.sign(components[np.arange(len(components)), largest])[:, None]
        return cls("pca", mean.astype(np.float32), components.astype(np.float32))

    @classmethod
    def from_bytes(cls, kind: str, content: bytes, dimensions: int) -> "Projection":
        """Restore what ``to_bytes`` wrote."""
        values = np.frombuffer(content, dtype="<f4").astype(np.float32)
        mean, matrix = values[:dimensions], values[dimensions:]
        known = next(known for known in get_args(ProjectionKind) if known == kind)
        return cls(known, mean, matrix.reshape(VECTOR_DIMENSIONS, dimensions))

    def to_bytes(self) -> bytes:
        """Mean and matrix as little-endian float32; what an embedding space's digest covers."""
        return self.mean.astype("<f4").tobytes() + self.matrix.astype("<f4").tobytes()

    def apply(self, embeddings: FloatArray) -> FloatArray:
        """Project and scale to unit length.

        Args:
            embeddings: Shape ``(n, d)``.

        Returns:
            float32, shape ``(n, VECTOR_DIMENSIONS)``, each of length 1; a row equal to the mean
            stays 0.
        """
        return unit_rows(_times(embeddings - self.mean, self.matrix.T))

    def center(self, embeddings: FloatArray) -> FloatArray:
        """The same centering without the projection, at unit length: to hold its cost against."""
        return unit_rows(embeddings - self.mean)


def _times(rows: FloatArray, matrix: FloatArray) -> FloatArray:
    """``rows @ matrix``, each row the same to the last bit whatever rows are beside it.

    How a product is rounded depends on its shape, so all are of one shape.
    """
    product = np.empty((len(rows), matrix.shape[1]), dtype=np.float32)
    block = np.zeros((_ROWS_AT_ONCE, rows.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        block[: len(some)] = some
        product[start : start + len(some)] = (block @ matrix)[: len(some)]
    return product


@lru_cache(maxsize=2)
def _orthonormal_rows(dimensions: int, seed: int) -> FloatArray:
    """Random orthonormal rows: lengths and angles are kept on average, nothing is fitted."""
    normal = np.random.default_rng(seed).standard_normal((dimensions, VECTOR_DIMENSIONS))
    basis, triangle = np.linalg.qr(normal)
    basis *= np.sign(np.diag(triangle))
    rows = np.ascontiguousarray(basis.T, dtype=np.float32)
    # Shared by all who ask for the same.
    rows.setflags(write=False)
    return rows


def unit_rows(rows: npt.NDArray[np.floating]) -> FloatArray:
    """Scale each row to length 1; rows of zeros stay zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
