"""A catalog of synthetic parcels around given vectors: places, crops and days as the harness drew.

Every row of the harness becomes a parcel with one observation and one embedding. Row ``i`` is
parcel row, observation and embedding ``i + 1``, so that nothing has to be looked up to know an
answer's row. A parcel's outline has no extent: the harness's rows are points, and ours touch a
rectangle by their bounding boxes, so the same rows are inside.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from sqlalchemy import Connection, Engine

from indexer.catalog.bulk import insert_rows
from indexer.catalog.tables import Embedding, Observation
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import (
    ObservationRecord,
    create_space,
    ensure_collection,
    freeze_projection,
)
from indexer.columns import Columns
from indexer.embedding_space import Recipe, space_digest
from indexer.encoders.weights import Weights
from indexer.normalization import Normalization
from indexer.observation_state import ObservationState
from indexer.parcels.parcel import Parcel
from indexer.progress import Progress, Silent
from indexer.projection import VECTOR_DIMENSIONS, Projection
from indexer.sensors import PROFILES
from indexer.spectral_indices import INDICES
from indexer.statistics import Summary

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Meta = Mapping[str, npt.NDArray[Any]]
"""Of each row ``crop`` (0 to 19), ``date`` (a day number), ``lon`` and ``lat`` in degrees."""

COLLECTION: Final = "synthetic"
CROPS: Final = (
    *("winter wheat", "maize", "winter barley", "rapeseed", "sunflower"),
    *("grassland", "vineyard", "sugar beet", "potato", "durum wheat"),
    *("pea", "alfalfa", "orchard", "fallow", "spring barley"),
    *("soybean", "flax", "oat", "rye", "triticale"),
)
_DAYS: Final = 3 * 366
_MIDNIGHTS: Final = tuple(datetime(2021, 1, 1, tzinfo=UTC) + timedelta(n) for n in range(_DAYS))
_PASS: Final = timedelta(hours=10, minutes=50, seconds=31)
_SCENE: Final = "S2A_MSIL2A_{:%Y%m%d}T105031_N0509_R008_T31UDQ"
_ROWS_AT_ONCE: Final = 50_000
# Drawn states that take turns: as long in the database as measured ones, and drawn but once.
_STATES: Final = 251
_LEAST_AREA_M2: Final = 20_000.0
_AREAS: Final = 1000
_FARMS: Final = 97
_COMMUNES: Final = tuple(f"commune {n}" for n in range(31))


def midnight(day: int) -> datetime:
    """When a day of the harness begins."""
    return _MIDNIGHTS[day]


def crop_code(crop: int) -> str:
    """Of a crop of the harness."""
    return f"{crop:02}"


def parcel_id(row: int) -> str:
    """Of a row of the harness; sorts as the rows do."""
    return f"p{row:09}"


def row_of(parcel: str) -> int:
    """The row that ``parcel_id`` named."""
    return int(parcel[1:])


def fill_catalog(
    engine: Engine, vectors: FloatArray, meta: Meta, progress: Progress | None = None
) -> tuple[int, int]:
    """Write all rows into an empty catalog, some ten thousand in a transaction.

    Args:
        engine: A catalog of the current schema.
        vectors: Shape ``(n, 512)``, unit length; may be mapped, is read block by block.
        meta: What is known of each row.
        progress: Told of each block.

    Returns:
        Rows of the embedding space and of the collection.
    """
    progress = progress or Silent()
    with engine.begin() as connection:
        space_id = _make_space(connection)
        collection_id = ensure_collection(connection, COLLECTION)
    states = _draw_states()
    progress.start("Writing parcels", len(vectors), "parcels")
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = range(start, min(start + _ROWS_AT_ONCE, len(vectors)))
        some = {name: values[start : rows.stop] for name, values in meta.items()}
        with engine.begin() as connection:
            insert_rows(connection, ParcelRow, list(_parcels(rows, some, collection_id)))
            insert_rows(connection, Observation, list(_observations(rows, some, states)))
            embedded = _embeddings(rows, vectors[start : rows.stop], space_id)
            insert_rows(connection, Embedding, list(embedded))
        progress.advance(len(rows))
    progress.finish()
    return space_id, collection_id


def columns_of(rows: IntArray, meta: Meta) -> Columns:
    """What ``Columns.read`` gives of the same parcels, without a catalog.

    Args:
        rows: Rows of the harness in the order of an index; shape ``(n,)``.
        meta: What is known of each row of the harness.
    """
    crop, day, lon, lat = (meta[name][rows] for name in ("crop", "date", "lon", "lat"))
    states = _draw_states()
    medians = {name: np.array([state.indices[name].median for state in states]) for name in INDICES}
    midnights = np.array(
        [one.replace(tzinfo=None) for one in _MIDNIGHTS], dtype="datetime64[us]"
    ).astype(np.int64)
    every = np.ones(len(rows), dtype=np.uint8)
    return Columns.of_arrays(
        rows + 1,
        times=midnights[day] + _PASS // timedelta(microseconds=1),
        bounds=np.stack([lon, lat, lon, lat], axis=1),
        numbers={
            "metrics:area": (_LEAST_AREA_M2 + rows % _AREAS).astype(np.float64),
            "valid_fraction": every.astype(np.float64),
            **{name: values[rows % _STATES] for name, values in medians.items()},
        },
        coded={
            "collection": (every, [None, COLLECTION]),
            "crop": (
                (crop + 1).astype(np.uint8),
                [None, *((crop_code(n), name) for n, name in enumerate(CROPS))],
            ),
            "reliable": (2 * every, [None, False, True]),
            "has_geometry": (2 * every, [None, False, True]),
        },
        attributes={
            "farm": ((rows % _FARMS + 1).astype(np.uint8), [None, *range(_FARMS)]),
            "commune": ((rows % len(_COMMUNES) + 1).astype(np.uint8), [None, *_COMMUNES]),
        },
    )


def records_of(rows: IntArray, vectors: FloatArray, meta: Meta) -> list[ObservationRecord]:
    """The same of a few rows, as what ``save_observations`` takes."""
    states = _draw_states()
    outlines = _outlines(meta)
    return [
        ObservationRecord(
            parcel=Parcel(
                collection=COLLECTION,
                parcel_id=parcel_id(row),
                geometry=outline,
                area_m2=_area_m2(row),
                crop_code=crop_code(crop),
                crop_name=CROPS[crop],
                attributes=_attributes(row),
            ),
            scene=_scene(day),
            source="drawn",
            acquired_at=midnight(day) + _PASS,
            processing_baseline="05.09",
            state=states[row % _STATES],
            fingerprint=f"{row:064x}",
            known=None,
            embedding=vector,
        )
        for row, vector, outline, crop, day in zip(
            rows.tolist(),
            vectors,
            outlines,
            meta["crop"].tolist(),
            meta["date"].tolist(),
            strict=True,
        )
    ]


def _make_space(connection: Connection) -> int:
    """A space without an encoder: its vectors are drawn, and it says so."""
    recipe = Recipe(
        encoder="croma-large",
        weights=Weights("untrained", "synthetic vectors of a benchmark", None),
        bands=PROFILES["l2a"],
        normalization=Normalization.ssl4eo(),
        pooling="parcel",
        image_px=120,
        dimensions=VECTOR_DIMENSIONS,
    )
    projection = Projection(
        "orthonormal",
        np.zeros(VECTOR_DIMENSIONS, np.float32),
        np.eye(VECTOR_DIMENSIONS, dtype=np.float32),
    )
    space_id = create_space(connection, recipe.to_dict(), recipe.digest, None)
    digest = space_digest(recipe.to_dict(), projection)
    freeze_projection(connection, space_id, projection.kind, projection.to_bytes(), digest)
    return space_id


@cache
def _draw_states() -> list[ObservationState]:
    random = np.random.default_rng(0)
    return [
        ObservationState(
            pixels_inside=200.0,
            valid_pixels=200.0,
            valid_fraction=1.0,
            data_fraction=1.0,
            cloud_cover_percent=0.0,
            covered_fraction=1.0,
            whole_valid_pixels=160,
            reliable=True,
            indices={name: Summary(*random.uniform(0, 1, 5).round(6).tolist()) for name in INDICES},
        )
        for _ in range(_STATES)
    ]


def _outlines(meta: Meta) -> Any:  # noqa: ANN401
    """Polygons of no extent, shape ``(n,)``, as long in the database as a square field's."""
    return shapely.box(meta["lon"], meta["lat"], meta["lon"], meta["lat"])


def _area_m2(row: int) -> float:
    return _LEAST_AREA_M2 + row % _AREAS


def _attributes(row: int) -> dict[str, Any]:
    return {"farm": row % _FARMS, "commune": _COMMUNES[row % len(_COMMUNES)]}


def _scene(day: int) -> str:
    return _SCENE.format(midnight(day))


def _parcels(rows: range, meta: Meta, collection_id: int) -> Iterator[dict[str, Any]]:
    columns = (meta[name].tolist() for name in ("crop", "lon", "lat"))
    outlines = shapely.to_wkb(_outlines(meta))
    for row, outline, crop, lon, lat in zip(rows, outlines, *columns, strict=True):
        yield {
            "id": row + 1,
            "collection_id": collection_id,
            "parcel_id": parcel_id(row),
            "geometry": outline,
            "west": lon,
            "south": lat,
            "east": lon,
            "north": lat,
            "area_m2": _area_m2(row),
            "crop_code": crop_code(crop),
            "crop_name": CROPS[crop],
            "attributes": _attributes(row),
        }


def _observations(
    rows: range, meta: Meta, states: list[ObservationState]
) -> Iterator[dict[str, Any]]:
    kept = Observation.__table__.columns.keys()
    drawn = [
        {name: value for name, value in state.to_dict().items() if name in kept} for state in states
    ]
    scenes = {day: _scene(day) for day in set(meta["date"].tolist())}
    for row, day in zip(rows, meta["date"].tolist(), strict=True):
        yield {
            **drawn[row % _STATES],
            "id": row + 1,
            "parcel_id": row + 1,
            "scene": scenes[day],
            "source": "drawn",
            "layer_bands": None,
            "acquired_at": _MIDNIGHTS[day] + _PASS,
            "processing_baseline": "05.09",
            "fingerprint": f"{row:064x}",
        }


def _embeddings(rows: range, vectors: FloatArray, space_id: int) -> Iterator[dict[str, Any]]:
    for row, vector in zip(rows, np.ascontiguousarray(vectors, dtype="<f4"), strict=True):
        yield {
            "id": row + 1,
            "observation_id": row + 1,
            "space_id": space_id,
            "fingerprint": f"{row:064x}",
            "vector": vector.tobytes(),
            "superseded": False,
        }
