"""An index of drawn parcels, written in bulk, where thousands are needed."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from sqlalchemy import Connection, insert

from indexer.catalog.database import connect, upgrade
from indexer.catalog.tables import Collection, Embedding, Observation, Parcel
from indexer.catalog.writing import create_space, freeze_projection
from indexer.embedding_space import Recipe, space_digest
from indexer.encoders.weights import Weights
from indexer.generations.store import build_generation
from indexer.normalization import Normalization
from indexer.projection import VECTOR_DIMENSIONS, Projection, unit_rows
from indexer.sensors import PROFILES
from indexer.settings import Settings
from indexer.spectral_indices import INDICES

CROPS = ("winter wheat", "maize", "winter barley", "rapeseed", "sugar beet", "grassland")
_KINDS = 60
_SPREAD = 0.7


def draw_index(folder: Path, parcels: int, seed: int = 0) -> Settings:
    """Write an index of one collection, ``demo``, one observation a parcel, and publish it.

    The vectors lie in clusters, as those of land do; their places, crops and states are drawn.
    """
    settings = Settings(data_dir=folder, database_url="", croma_weights="untrained")
    random = np.random.default_rng(seed)
    kinds = random.integers(0, _KINDS, parcels)
    centers = random.standard_normal((_KINDS, VECTOR_DIMENSIONS))
    spread = _SPREAD * random.standard_normal((parcels, VECTOR_DIMENSIONS))
    vectors = unit_rows(centers[kinds] + spread)
    engine = connect(settings)
    upgrade(engine)
    with engine.begin() as connection:
        space_id = _space(connection)
        connection.execute(insert(Collection), [{"id": 1, "name": "demo", "space_id": space_id}])
        connection.execute(insert(Parcel), [_parcel(n, int(kinds[n])) for n in range(parcels)])
        connection.execute(insert(Observation), [_observation(n, random) for n in range(parcels)])
        connection.execute(
            insert(Embedding),
            [
                {
                    "id": n + 1,
                    "observation_id": n + 1,
                    "space_id": space_id,
                    "fingerprint": f"{n:064x}",
                    "vector": vectors[n].astype("<f4").tobytes(),
                    "superseded": False,
                }
                for n in range(parcels)
            ],
        )
    build_generation(engine, settings.generations_dir, space_id, 1)
    engine.dispose()
    return settings


def _space(connection: Connection) -> int:
    """A space without an encoder: its vectors are drawn."""
    recipe = Recipe(
        encoder="croma-large",
        weights=Weights("untrained", "drawn vectors", None),
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


def _parcel(n: int, kind: int) -> dict[str, Any]:
    """A field of about 2 ha in a grid, its corners not quite square."""
    west, south = 2.0 + 0.002 * (n % 300), 48.0 + 0.0015 * (n // 300)
    east, north = west + 0.0018, south + 0.0013
    shape = shapely.Polygon(
        [(west, south), (east, south + 1e-4), (east - 2e-4, north), (west + 1e-4, north - 2e-4)]
    )
    return {
        "id": n + 1,
        "collection_id": 1,
        "parcel_id": f"p{n:06}",
        "geometry": shapely.to_wkb(shape),
        "west": west,
        "south": south,
        "east": east,
        "north": north,
        "area_m2": 20_000.0 + n % 1000,
        "crop_code": f"{kind % len(CROPS):02}",
        "crop_name": CROPS[kind % len(CROPS)],
        "attributes": {"farm": n % 97, "commune": f"commune {n % 31}"},
    }


def _observation(n: int, random: np.random.Generator) -> dict[str, Any]:
    medians = random.uniform(0, 1, len(INDICES)).round(4)
    return {
        "id": n + 1,
        "parcel_id": n + 1,
        "scene": "S2A_MSIL2A_20230529T105031_N0509_R008_T31UDQ",
        "source": "drawn",
        "acquired_at": datetime(2023, 5, 29, 10, 50, 31, tzinfo=UTC),
        "processing_baseline": "05.09",
        "pixels_inside": 200.0,
        "valid_pixels": 200.0,
        "valid_fraction": 1.0,
        "covered_fraction": 1.0,
        "cloud_cover_percent": 0.0,
        "reliable": True,
        "indices": {
            name: dict.fromkeys(("median", "mean", "p10", "p90"), float(median)) | {"std": 0.1}
            for name, median in zip(INDICES, medians, strict=True)
        },
        "fingerprint": hashlib.sha256(str(n).encode()).hexdigest(),
    }
