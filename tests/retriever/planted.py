"""Plants an index whose vectors, crops, places and times are chosen, without any imagery."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from shapely import box
from sqlalchemy import Connection, Engine, event, select

from indexer.catalog.database import connect, schema_status, upgrade
from indexer.catalog.reading import find_space, get_space, known_observations
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import (
    ObservationRecord,
    create_space,
    delete_parcels,
    ensure_collection,
    freeze_projection,
    save_observations,
    save_parcels,
)
from indexer.embedding_space import Recipe, space_digest
from indexer.encoders.weights import Weights
from indexer.generations.backends import backend_of
from indexer.generations.store import build_generation
from indexer.normalization import Normalization
from indexer.observation_state import ObservationState
from indexer.parcels.parcel import JsonScalar, Parcel
from indexer.projection import VECTOR_DIMENSIONS, Projection, unit_rows
from indexer.sensors import PROFILES
from indexer.settings import Settings
from indexer.statistics import Summary
from retriever.search import ParcelSearcher

FloatArray = npt.NDArray[np.float32]

TRAINED = Weights("file", "a" * 64, Path("croma.pt"))
UNTRAINED = Weights("untrained", "seed 0", None)

_SIDE_DEG = 0.01


@dataclass(frozen=True)
class Seen:
    """One parcel on one day."""

    parcel_id: str
    vector: FloatArray | None = None
    """Shape ``(512,)``, unit length; None where clouds hide it."""
    day: str | None = "2023-05-29"
    collection: str = "demo"
    crop_code: str | None = None
    crop_name: str | None = None
    corner: tuple[float, float] | None = (2.0, 49.0)
    """West and south of its square in degrees; None for no place."""
    area_m2: float | None = 12_345.0
    reliable: bool = True
    valid_fraction: float = 1.0
    indices: dict[str, float] = field(default_factory=lambda: {"NDVI": 0.7, "NDMI": 0.3})
    """Median of each spectral index."""
    attributes: dict[str, JsonScalar] = field(default_factory=dict)
    """Of the parcel."""

    @property
    def scene(self) -> str:
        """One scene a day."""
        return f"scene-{self.day}"


def settings_in(folder: Path) -> Settings:
    """Settings of an index in a folder, whatever the environment says."""
    return Settings(data_dir=folder, database_url="", croma_weights="untrained")


@contextmanager
def searching(settings: Settings) -> Iterator[ParcelSearcher]:
    """A searcher that is closed in the end."""
    searcher = ParcelSearcher.open(settings)
    try:
        yield searcher
    finally:
        searcher.close()


def write_image(path: Path, seed: int, bands: tuple[str, ...] = PROFILES["l2a"]) -> None:
    """A GeoTIFF of 120 x 120 px without a date, whose bands have levels of their own."""
    random = np.random.default_rng(seed)
    levels = random.uniform(500, 4000, (len(bands), 1, 1))
    dn = (levels * random.uniform(0.8, 1.2, (len(bands), 120, 120))).astype(np.uint16)
    profile = {"driver": "GTiff", "dtype": "uint16", "width": 120, "height": 120}
    with rasterio.open(
        path,
        "w",
        **profile,
        count=len(bands),
        crs="EPSG:32631",
        transform=Affine(10, 0, 500_000, 0, -10, 5_000_000),
    ) as file:
        file.descriptions = bands
        file.write(dn)


def random_vectors(n: int, seed: int = 0) -> FloatArray:
    """Unit vectors in all directions, shape ``(n, 512)``."""
    rows = np.random.default_rng(seed).standard_normal((n, VECTOR_DIMENSIONS))
    return unit_rows(rows)


def at_cosine(cosine: float, axis: int = 1) -> FloatArray:
    """The unit vector with this cosine to ``at_cosine(1)``, leaning towards one axis."""
    vector = np.zeros(VECTOR_DIMENSIONS, np.float32)
    vector[0], vector[axis] = cosine, np.sqrt(1 - cosine**2)
    return vector


def plant(
    settings: Settings,
    observations: Sequence[Seen],
    *,
    weights: Weights = TRAINED,
    encoder: str = "croma-large",
    publish: bool = True,
) -> None:
    """Store observations, and publish a generation that holds them.

    What was planted before of the same parcels and days is superseded. Each encoder and weights
    make a space of their own.
    """
    engine = connect(settings)
    try:
        if schema_status(engine) == "empty":
            _make_tables(engine)
        with engine.begin() as connection:
            space_id = _space(connection, encoder, weights)
            collections = {
                seen.collection: ensure_collection(connection, seen.collection)
                for seen in observations
            }
            for (collection, scene), seen in _by_scene(observations).items():
                _save(connection, collections[collection], space_id, scene, seen)
        if publish:
            for collection_id in collections.values():
                build_generation(
                    engine,
                    settings.generations_dir,
                    space_id,
                    collection_id,
                    backend=backend_of(settings),
                )
    finally:
        engine.dispose()


def redeclare(settings: Settings, *changed: Seen) -> None:
    """Change parcels, not what was observed of them."""
    engine = connect(settings)
    try:
        with engine.begin() as connection:
            for seen in changed:
                collection_id = ensure_collection(connection, seen.collection)
                save_parcels(connection, collection_id, [_parcel(seen)])
    finally:
        engine.dispose()


def uproot(settings: Settings, *parcel_ids: str) -> None:
    """Delete parcels of these ids."""
    engine = connect(settings)
    try:
        with engine.begin() as connection:
            found = select(ParcelRow.id).where(ParcelRow.parcel_id.in_(parcel_ids))
            delete_parcels(connection, connection.scalars(found).all())
    finally:
        engine.dispose()


_MIGRATIONS: dict[str, list[tuple[str, Any]]] = {}
"""By dialect, the statements of all migrations with their values."""


def _make_tables(engine: Engine) -> None:
    """As the migrations do; working out their statements takes longer than executing them."""
    dialect = engine.dialect.name
    if dialect in _MIGRATIONS:
        with engine.begin() as connection:
            for statement, values in _MIGRATIONS[dialect]:
                connection.exec_driver_sql(statement, values)
        return
    noted: list[tuple[str, Any]] = []

    def note(_1: object, _2: object, statement: str, values: Any, *_3: object) -> None:  # noqa: ANN401
        if not statement.lstrip().upper().startswith(("SELECT", "PRAGMA", "BEGIN")):
            noted.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    upgrade(engine)
    event.remove(engine, "before_cursor_execute", note)
    _MIGRATIONS[dialect] = noted


def _space(connection: Connection, encoder: str, weights: Weights) -> int:
    recipe = Recipe(
        encoder=encoder,
        weights=weights,
        bands=PROFILES["l2a"],
        normalization=Normalization.ssl4eo(),
        pooling="parcel",
        image_px=120,
        dimensions=VECTOR_DIMENSIONS,
    )
    found = find_space(connection, recipe.digest, None, new=False)
    if found is not None:
        return found.id
    as_they_are = Projection(
        "orthonormal",
        np.zeros(VECTOR_DIMENSIONS, np.float32),
        np.eye(VECTOR_DIMENSIONS, dtype=np.float32),
    )
    space_id = create_space(connection, recipe.to_dict(), recipe.digest, None)
    freeze_projection(
        connection,
        space_id,
        as_they_are.kind,
        as_they_are.to_bytes(),
        space_digest(recipe.to_dict(), as_they_are),
    )
    return get_space(connection, space_id).id


def _by_scene(observations: Iterable[Seen]) -> dict[tuple[str, str], list[Seen]]:
    groups: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for seen in observations:
        groups[seen.collection, seen.scene].append(seen)
    return groups


def _save(
    connection: Connection, collection_id: int, space_id: int, scene: str, group: Sequence[Seen]
) -> None:
    ids = [seen.parcel_id for seen in group]
    known = known_observations(connection, collection_id, space_id, scene, ids)
    records = [
        ObservationRecord(
            parcel=_parcel(seen),
            scene=scene,
            source=f"{scene}.tif",
            acquired_at=_time(seen.day),
            processing_baseline="05.09",
            state=_state(seen),
            fingerprint=_fingerprint(seen),
            known=known.get(seen.parcel_id),
            embedding=seen.vector,
        )
        for seen in group
    ]
    vectors = [seen.vector for seen in group]
    save_observations(connection, collection_id, space_id, records, vectors, keep_embeddings=0)


def _fingerprint(seen: Seen) -> str:
    vector = b"" if seen.vector is None else seen.vector.tobytes()
    return hashlib.sha256(repr(replace(seen, vector=None)).encode() + vector).hexdigest()


def _parcel(seen: Seen) -> Parcel:
    geometry = None
    if seen.corner is not None:
        west, south = seen.corner
        geometry = box(west, south, west + _SIDE_DEG, south + _SIDE_DEG)
    return Parcel(
        collection=seen.collection,
        parcel_id=seen.parcel_id,
        geometry=geometry,
        area_m2=seen.area_m2,
        crop_code=seen.crop_code,
        crop_name=seen.crop_name,
        attributes=seen.attributes,
    )


def _time(day: str | None) -> datetime | None:
    return None if day is None else datetime.fromisoformat(f"{day}T10:50:31").replace(tzinfo=UTC)


def _state(seen: Seen) -> ObservationState:
    fields: dict[str, Any] = {
        name: Summary(median=median, mean=median, std=0.0, p10=median, p90=median)
        for name, median in seen.indices.items()
    }
    return ObservationState(
        pixels_inside=100.0,
        valid_pixels=100.0 * seen.valid_fraction,
        valid_fraction=seen.valid_fraction,
        data_fraction=1.0,
        cloud_cover_percent=100.0 * (1 - seen.valid_fraction),
        covered_fraction=1.0,
        whole_valid_pixels=80,
        reliable=seen.reliable,
        indices=fields,
    )
