"""What an index may answer while it is written: each parcel with all that it ever was."""

import threading
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from sqlalchemy import Engine, select

from indexer.catalog.tables import Collection, Embedding, Observation
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import delete_parcels
from indexer.observation_state import ObservationState
from indexer.parcels.parcel import Parcel
from indexer.projection import unit_rows
from indexer.statistics import Summary
from tests.indexer.catalog.filling import STATE, known_of, record, save

FloatArray = npt.NDArray[np.float32]

SCENE = "scene"
"""Of every observation that is written later; the one that the index was drawn with goes."""

_MOVED = 0.4


@dataclass(frozen=True)
class Version:
    """One parcel between two commits."""

    turn: int
    vector: FloatArray | None
    """None where the parcel is deleted."""
    begun: float
    """When its commit began, by the monotonic clock."""
    done: float = float("inf")
    """When its commit was acknowledged."""


class World:
    """The truth beside a catalog that this process alone writes.

    Safe to share between threads; one of them writes.
    """

    def __init__(self, engine: Engine, seed: int = 0) -> None:
        self._engine = engine
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._parcels: list[Parcel] = []
        self._histories: list[list[Version]] = []
        self.commits = 0
        vectors = []
        with engine.connect() as connection:
            space_id, self._collection_id = connection.execute(
                select(Collection.space_id, Collection.id)
            ).one()
            assert space_id is not None
            self._space_id: int = space_id
            found = connection.execute(
                select(ParcelRow, Embedding.vector)
                .join(Observation, Observation.parcel_id == ParcelRow.id)
                .join(Embedding, Embedding.observation_id == Observation.id)
                .order_by(ParcelRow.parcel_id)
                .add_columns(ParcelRow.__table__)
            ).mappings()
            for row in found:
                vector = np.frombuffer(row["vector"], "<f4").astype(np.float32)
                vectors.append(vector)
                self._parcels.append(
                    Parcel(
                        collection="demo",
                        parcel_id=row["parcel_id"],
                        geometry=shapely.from_wkb(row["geometry"]),
                        area_m2=row["area_m2"],
                        crop_code=row["crop_code"],
                        crop_name=row["crop_name"],
                        attributes=row["attributes"],
                    )
                )
                self._histories.append([Version(0, vector, 0.0, 0.0)])
        self._now = np.array(vectors)
        self._there = np.ones(len(vectors), dtype=np.bool_)
        self.numbers = {one.parcel_id: n for n, one in enumerate(self._parcels)}
        self.crops = np.array([one.crop_name for one in self._parcels])

    def __len__(self) -> int:
        return len(self._parcels)

    def name(self, number: int) -> str:
        """Id of a parcel."""
        return self._parcels[number].parcel_id

    # Writing ---------------------------------------------------------------------------------

    def write_one(self) -> None:
        """Commit one change: a parcel seen anew, deleted, or back again."""
        number = int(self._random.integers(len(self)))
        if self._there[number] and self._random.random() < 0.2:
            self._commit(number, None)
            return
        self._commit(number, self._moved(self._now[number], self._random))

    def _commit(self, number: int, vector: FloatArray | None) -> None:
        with self._lock:
            history = self._histories[number]
            version = Version(history[-1].turn + 1, vector, time.monotonic())
            history.append(version)
        self._store(number, version)
        with self._lock:
            history[-1] = Version(version.turn, vector, version.begun, time.monotonic())
            self._there[number] = vector is not None
            if vector is not None:
                self._now[number] = vector
            self.commits += 1

    def _store(self, number: int, version: Version) -> None:
        parcel = self._parcels[number]
        with self._engine.begin() as connection:
            row = connection.scalar(
                select(ParcelRow.id).where(ParcelRow.parcel_id == parcel.parcel_id)
            )
            known = None
            if row is not None:
                known = known_of(connection, self._collection_id, self._space_id, parcel.parcel_id)
            # The observation that was drawn is of another scene; so each parcel has one only.
            if row is not None and (version.vector is None or known is None):
                delete_parcels(connection, [row])
            if version.vector is not None:
                one = record(
                    parcel.parcel_id,
                    version.vector,
                    scene=SCENE,
                    fingerprint=f"{version.turn:064x}",
                    known=known,
                    parcel=parcel,
                    state=state_of(version.turn),
                )
                save(connection, self._space_id, [one])

    def drawn_near(self, number: int, seed: float) -> FloatArray:
        """A unit vector that nobody has, as close to a parcel's as one that is seen anew."""
        random = np.random.default_rng(int(seed * 2**32))
        return self._moved(self._now[number], random)

    def _moved(self, vector: FloatArray, random: np.random.Generator) -> FloatArray:
        step = random.standard_normal(len(vector)) / np.sqrt(len(vector))
        moved: FloatArray = unit_rows((vector + _MOVED * step)[None])[0].astype(np.float32)
        return moved

    # Judging ---------------------------------------------------------------------------------

    def possible(self, number: int, asked: float, answered: float) -> list[Version]:
        """What a parcel may have been for somebody who asked and was answered then."""
        with self._lock:
            history = list(self._histories[number])
        ends = [one.done for one in history[1:]] + [float("inf")]
        return [
            one
            for one, end in zip(history, ends, strict=True)
            if one.begun <= answered and end >= asked
        ]

    def nearest(self, query: FloatArray, k: int, crop: str | None, but: int | None) -> list[int]:
        """The k parcels that are closest to a vector now."""
        with self._lock:
            scores = np.where(self._there, self._now @ query, -np.inf)
        if crop is not None:
            scores[self.crops != crop] = -np.inf
        if but is not None:
            scores[but] = -np.inf
        order = np.argsort(-scores)[:k]
        return [int(number) for number in order if scores[number] > -np.inf]


def state_of(turn: int) -> ObservationState:
    """The state of a parcel in one of its turns."""
    ndvi = median_of(turn)
    summary = Summary(median=ndvi, mean=ndvi, std=0.1, p10=ndvi, p90=ndvi)
    return ObservationState(**{**STATE.__dict__, "indices": {"NDVI": summary}})


def median_of(turn: int) -> float:
    """Its median NDVI, of four digits."""
    return (turn * 37 % 10_000) / 10_000
