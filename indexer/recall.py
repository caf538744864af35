"""recall@k against exact search: the gate before publishing, and what a projection costs."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

RECALL_K = 10
"""Neighbors that recall is measured on."""


def exact_neighbors(
    queries: FloatArray, vectors: FloatArray, k: int, exclude: IntArray | None = None
) -> IntArray:
    """Rows of the k vectors with the largest inner product, by looking at all of them.

    Args:
        queries: Shape ``(n_queries, d)``.
        vectors: Shape ``(n, d)``.
        k: At most n, less one where a row is excluded.
        exclude: For each query the row that must not be its own neighbor, shape ``(n_queries,)``.

    Returns:
        Shape ``(n_queries, k)``, closest first; equal scores in order of row.
    """
    scores = queries @ vectors.T
    if exclude is not None:
        scores[np.arange(len(queries)), exclude] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)


def recall_at_k(found: IntArray, true: IntArray) -> float:
    """Share of the true neighbors that were found.

    Args:
        found: Shape ``(n_queries, k)``; -1 where a search returned fewer.
        true: Shape ``(n_queries, k)``.

    Returns:
        Between 0 and 1; 1 where there are no true neighbors to find.
    """
    if true.size == 0:
        return 1.0
    hits = sum(len(np.intersect1d(f, t)) for f, t in zip(found, true, strict=True))
    return hits / true.size


def projection_recall(full: FloatArray, projected: FloatArray, k: int = RECALL_K) -> float | None:
    """Share of the k nearest neighbors in full length that are kept after projection.

    Args:
        full: Centered unit embeddings, shape ``(n, d)``.
        projected: The same rows projected, unit length, shape ``(n, d_projected)``.
        k: Neighbors compared; fewer where there are fewer other rows.

    Returns:
        Between 0 and 1; None for fewer than two rows, which have no neighbors.
    """
    n = len(full)
    if n < 2:
        return None
    k = min(k, n - 1)
    queries = np.arange(n)[:: max(1, n // 512)]
    return recall_at_k(
        exact_neighbors(projected[queries], projected, k, exclude=queries),
        exact_neighbors(full[queries], full, k, exclude=queries),
    )
