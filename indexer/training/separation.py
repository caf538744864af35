"""How clearly an image's pixels fall into groups by themselves, without their surroundings."""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

GROUPS: Final = (5, 6, 7, 8)
"""Numbers of groups whose silhouettes are averaged: enough that two or three far ones, such as
water and land, do not decide alone."""

_BEGINNINGS = 4
# Width of the turn from one block to the other, in units of the silhouette. Between scenes whose
# pixels are better used alone and those that are better used with their surroundings lies 0.03.
_TURN = 0.015


def separation(pixels: FloatArray) -> float:
    """Mean simplified silhouette of K-means groups, from 0 for none to 1 for groups of equals.

    A pixel's silhouette is ``1 - a / b``, a its distance to the center of its own group, b to the
    next. Above 0.5 the structure is reasonable, below it is weak (Kaufman and Rousseeuw).

    Args:
        pixels: Shape ``(n, d)``, no more than some thousands.

    References:
        Kaufman and Rousseeuw (1990), Finding Groups in Data, chapter 2, table 4; simplified after
        Hruschka, de Castro and Campello (2004), ICDM, pp. 403-406.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    rows = pixels.astype(np.float64)
    different = len(np.unique(rows, axis=0))
    found = []
    for groups in GROUPS:
        if different <= groups:
            return 1.0
        # One thread, so that a seed means the same file however many there are.
        with threadpool_limits(1):
            kmeans = KMeans(groups, n_init=_BEGINNINGS, random_state=0).fit(rows)
        apart = np.sort(kmeans.transform(rows), axis=1)
        found.append(float(np.mean(1 - apart[:, 0] / apart[:, 1])))
    return float(np.mean(found))


def center_share(silhouette: float, clear: float) -> float:
    """Share of the center pixel's block, 0 to 1, beside the embedding's: half at ``clear``."""
    return 1 / (1 + math.exp((clear - silhouette) / _TURN))


def unwhitened(channels: FloatArray, whitening: float) -> FloatArray:
    """Components with the ratios of their amplitudes as they were before whitening.

    Args:
        channels: Components whose amplitudes were brought to the power ``1 - whitening``, shape
            ``(n, d)``.
        whitening: From 0 to below 1; amplitudes that are all alike cannot be had back.
    """
    if whitening >= 1:
        return channels
    # The amplitude is std^(1 / (1 - w)), of which std is there already.
    return np.asarray(channels * channels.std(axis=0) ** (whitening / (1 - whitening)))
