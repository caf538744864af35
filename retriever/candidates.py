"""Observations of other parcels that can be held against one: its season, region and crop."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import compress

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from retriever import statements
from retriever.nearest import scores_of
from retriever.published import OpenGeneration
from retriever.queries import Bbox
from retriever.statements import DeclaredCrop

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

COMPARABLE = timedelta(days=15)
"""How far apart two observations may be and still show the same stage of a season."""

REGIONS_KM = (5.0, 15.0, 50.0)
"""How far away a peer may lie: the first of these that holds enough candidates, else the last."""

ENOUGH_CANDIDATES = 200
"""Parcels to choose peers from. In dense farmland they are near, which is better and faster."""

_EARTH_RADIUS_KM = 6371.0
_KM_PER_DEGREE = math.pi * _EARTH_RADIUS_KM / 180


@dataclass(frozen=True)
class Anchor:
    """The observation of a parcel that is held against its kind."""

    parcel_row: int
    vector: FloatArray
    acquired_at: datetime
    scene: str
    medians: dict[str, float]
    crop: DeclaredCrop
    place: tuple[float, float] | None
    """Longitude and latitude in degrees of the middle of the parcel's bounding box."""


@dataclass(frozen=True)
class Candidates:
    """Comparable observations of other parcels, one a parcel: the one nearest in time."""

    rows: IntArray
    """Embedding ids, shape ``(n,)``."""
    places: Float64Array
    """Longitude and latitude in degrees, shape ``(n, 2)``; NaN without a place."""
    within_km: float | None
    """How far away they were looked for."""

    def most_similar(
        self, generation: OpenGeneration, vector: FloatArray, k: int
    ) -> dict[int, float]:
        """Scores by embedding id, closest first."""
        if self.rows.size == 0:
            return {}
        return scores_of(generation, vector, self.rows, k)

    def nearest(self, place: tuple[float, float], k: int) -> list[int]:
        """Embedding ids, nearest on the ground first."""
        order = np.argsort(distances_km(place, self.places), kind="stable")[:k]
        return [int(row) for row in self.rows[order]]


def candidates(
    connection: Connection,
    generation: OpenGeneration,
    anchor: Anchor,
    crop: DeclaredCrop | None,
) -> Candidates:
    """Candidates of a crop, or of any, from the smallest region that holds enough."""
    if anchor.place is None:
        return _within(connection, generation, anchor, crop, None)
    for within_km in REGIONS_KM:
        found = _within(connection, generation, anchor, crop, within_km)
        if len(found.rows) >= ENOUGH_CANDIDATES:
            break
    return found


def _within(
    connection: Connection,
    generation: OpenGeneration,
    anchor: Anchor,
    crop: DeclaredCrop | None,
    within_km: float | None,
) -> Candidates:
    bbox = None
    if anchor.place is not None and within_km is not None:
        bbox = around(anchor.place, within_km)
    parcels = statements.parcels_around(
        connection, generation.space_id, besides=anchor.parcel_row, bbox=bbox, crop=crop
    )
    places = {row.id: (row.longitude, row.latitude) for row in parcels}
    if anchor.place is not None and within_km is not None:
        near = distances_km(anchor.place, _places(places.values())) <= within_km
        places = dict(compress(places.items(), near))
    nearest: dict[int, statements.AnyRow] = {}
    for row in statements.comparable_rows(
        connection,
        generation.space_id,
        parcels=list(places),
        start=anchor.acquired_at - COMPARABLE,
        end=anchor.acquired_at + COMPARABLE,
    ):
        held = nearest.get(row.parcel_row)
        if held is None or _apart(row, anchor) < _apart(held, anchor):
            nearest[row.parcel_row] = row
    return Candidates(
        rows=np.array([row.row for row in nearest.values()], dtype=np.int64),
        places=_places(places[parcel] for parcel in nearest),
        within_km=within_km,
    )


def _places(places: Iterable[tuple[float | None, float | None]]) -> Float64Array:
    """Longitudes and latitudes, shape ``(n, 2)``; NaN where there is no place."""
    return np.array(list(places), dtype=np.float64).reshape(-1, 2)


def _apart(row: statements.AnyRow, anchor: Anchor) -> timedelta:
    apart: timedelta = abs(row.acquired_at - anchor.acquired_at)
    return apart


def distances_km(place: tuple[float, float], places: Float64Array) -> Float64Array:
    """Great-circle distances on a sphere of the mean Earth radius (haversine formula).

    Args:
        place: Longitude and latitude in degrees.
        places: The same, shape ``(n, 2)``.

    Returns:
        Kilometers, shape ``(n,)``; NaN where a place is.
    """
    longitudes, latitudes = np.radians(places).T
    longitude, latitude = np.radians(place)
    half = (
        np.sin((latitudes - latitude) / 2) ** 2
        + np.cos(latitude) * np.cos(latitudes) * np.sin((longitudes - longitude) / 2) ** 2
    )
    distances: Float64Array = 2 * _EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))
    return distances


def around(place: tuple[float, float], within_km: float) -> Bbox:
    """A rectangle that holds every place within a distance.

    Args:
        place: Longitude and latitude in degrees.
        within_km: The distance.
    """
    longitude, latitude = place
    up = within_km / _KM_PER_DEGREE
    south, north = max(latitude - up, -90.0), min(latitude + up, 90.0)
    widest = max(abs(south), abs(north))
    if widest > 89:
        return Bbox(-180.0, south, 180.0, north)
    aside = up / math.cos(math.radians(widest))
    # Beyond the antimeridian west comes out above east, as GeoJSON writes it.
    return Bbox(_wrapped(longitude - aside), south, _wrapped(longitude + aside), north)


def _wrapped(longitude: float) -> float:
    return (longitude + 180) % 360 - 180
