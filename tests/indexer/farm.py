"""Images and parcels to reindex, and what the catalog holds of them afterwards."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.warp import transform_geom
from shapely import Polygon, box
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry
from sqlalchemy import Connection, select

from indexer.catalog.database import connect
from indexer.catalog.tables import Collection, Embedding, Observation, Parcel
from indexer.reindex import ReindexOptions
from indexer.sensors import PROFILES, SCL
from indexer.settings import Settings
from retriever.search import ParcelSearcher
from tests.indexer.one_layer import NAME
from tests.synthetic import TRANSFORM, UTM_31, write_geotiff

FloatArray = npt.NDArray[np.float32]

SIZE_PX = 24
"""Side of an image: as many pixels as a fifth of the encoder's input, so that it is quick."""

VEGETATION, CLOUD = 4, 9
"""Classes of Sentinel-2's scene classification."""

Seen = tuple[str, str]
"""A parcel and the scene that shows it."""


def image_dn(seed: int) -> npt.NDArray[np.uint16]:
    """Digital numbers without offset, shape ``(12, SIZE_PX, SIZE_PX)``.

    Each band has a level of its own, and its pixels lie around it.
    """
    random = np.random.default_rng(seed)
    levels = random.uniform(400, 4000, (12, 1, 1))
    return (levels * random.uniform(0.8, 1.2, (12, SIZE_PX, SIZE_PX))).astype(np.uint16)


def write_image(
    path: Path,
    seed: int = 0,
    scl: int | npt.NDArray[np.uint16] | None = None,
    **options: Any,  # noqa: ANN401 - handed on to write_geotiff as they come
) -> Path:
    """A GeoTIFF whose bands are named; the same seed gives the same pixels.

    Args:
        path: The file.
        seed: Decides the pixels.
        scl: Adds a scene classification: one class for all pixels, or shape ``(y, x)``.
        **options: Arguments of ``write_geotiff``.
    """
    stack, names = image_dn(seed), PROFILES["l2a"]
    if scl is not None:
        classes = np.broadcast_to(np.asarray(scl, np.uint16), stack.shape[1:])
        stack, names = np.concatenate([stack, classes[None]]), (*names, SCL)
    return write_geotiff(path, stack, names, **options)


def write_images(folder: Path, count: int) -> list[Path]:
    """Images ``image-00`` and so on, all different."""
    return [write_image(folder / f"image-{n:02d}.tif", seed=n) for n in range(count)]


def on_image(left: int, top: int, right: int, bottom: int) -> Polygon:
    """A rectangle given in pixels of ``write_image``, in its reference system."""
    return box(
        *(TRANSFORM @ (left, bottom)),
        *(TRANSFORM @ (right, top)),
    )


def write_parcels(path: Path, *parcels: tuple[str | None, BaseGeometry]) -> Path:
    """GeoJSON of parcels: id, and outline in the reference system of ``write_image``."""
    features = [
        {
            "type": "Feature",
            "properties": {"id": parcel_id, "crop:name": "wheat"},
            "geometry": {"type": "Polygon", "coordinates": []}
            if outline.is_empty
            else transform_geom(UTM_31, "EPSG:4326", mapping(outline), precision=9),
        }
        for parcel_id, outline in parcels
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def options(**chosen: Any) -> ReindexOptions:  # noqa: ANN401 - fields of ReindexOptions
    """Options with the encoder that is quick."""
    usual = {"encoder": NAME, "weights": "untrained", "device": "cpu", "precision": "fp32"}
    return ReindexOptions(**(usual | chosen))


@contextmanager
def reading(settings: Settings) -> Iterator[Connection]:
    """A look into the catalog."""
    engine = connect(settings)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def searching(settings: Settings) -> Iterator[ParcelSearcher]:
    """A searcher that is closed in the end."""
    searcher = ParcelSearcher.open(settings)
    try:
        yield searcher
    finally:
        searcher.close()


def stored(settings: Settings, collection: str = "parcels") -> dict[Seen, tuple[int, FloatArray]]:
    """Id and vector of each current embedding in the collection's own space."""
    statement = (
        select(Parcel.parcel_id, Observation.scene, Embedding.id, Embedding.vector)
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(Parcel, Parcel.id == Observation.parcel_id)
        .join(Collection, Collection.id == Parcel.collection_id)
        .where(
            Collection.name == collection,
            Embedding.space_id == Collection.space_id,
            Embedding.superseded.is_(False),
        )
    )
    with reading(settings) as connection:
        rows = connection.execute(statement).all()
    found: dict[Seen, tuple[int, FloatArray]] = {}
    for parcel_id, scene, row, vector in rows:
        assert vector is not None
        found[parcel_id, scene] = (row, np.frombuffer(vector, dtype="<f4").astype(np.float32))
    return found


def ids(settings: Settings, collection: str = "parcels") -> dict[Seen, int]:
    """Embedding id of each observation that has a vector."""
    return {seen: row for seen, (row, _) in stored(settings, collection).items()}


def vectors(settings: Settings, collection: str = "parcels") -> dict[Seen, FloatArray]:
    """Vector of each observation that has one."""
    return {seen: vector for seen, (_, vector) in stored(settings, collection).items()}


def states(settings: Settings) -> dict[Seen, tuple[float, dict[str, Any]]]:
    """Valid fraction and indices of every observation."""
    statement = select(
        Parcel.parcel_id, Observation.scene, Observation.valid_fraction, Observation.indices
    ).join(Parcel, Parcel.id == Observation.parcel_id)
    with reading(settings) as connection:
        rows = connection.execute(statement).all()
    return {(parcel_id, scene): (valid, found) for parcel_id, scene, valid, found in rows}


def assert_same_vectors(found: dict[Seen, FloatArray], expected: dict[Seen, FloatArray]) -> None:
    """The same observations, and each with the same vector but for rounding."""
    assert found.keys() == expected.keys()
    for seen, vector in found.items():
        np.testing.assert_allclose(vector, expected[seen], atol=1e-5)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder, with the digest of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kinds(skipped: Sequence[Any]) -> list[str]:
    """Kinds of what was skipped, in order."""
    return [one.kind for one in skipped]
