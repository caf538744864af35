"""Vectors as files that other programs read: ``.npy`` with a sidecar, or GeoParquet."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.errors import InvalidInputError, StorageError

FloatArray = npt.NDArray[np.float32]

NPY = ".npy"
PARQUET = (".parquet", ".geoparquet")

STAC_EMBEDDING = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
"""The STAC extension (a proposal) whose ``emb:`` fields the Parquet files carry."""

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class VectorRow:
    """What one row of vectors belongs to."""

    collection: str
    parcel_id: str
    scene: str
    source: str
    acquired_at: datetime | None
    processing_baseline: str | None
    crop_code: str | None
    crop_name: str | None
    area_m2: float | None
    geometry: bytes | None
    """Well-known binary in longitude and latitude."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without the geometry."""
        return {
            "collection": self.collection,
            "id": self.parcel_id,
            "scene": self.scene,
            "source": self.source,
            "datetime": None if self.acquired_at is None else self.acquired_at.isoformat(),
            "processing:version": self.processing_baseline,
            "crop:code": self.crop_code,
            "crop:name": self.crop_name,
            "metrics:area": self.area_m2,
        }


def check_suffix(path: Path) -> None:
    """Refuse a file name whose ending names no format.

    Raises:
        InvalidInputError: ``invalid-option``.
    """
    if path.suffix.lower() not in (NPY, *PARQUET):
        raise InvalidInputError(
            f"{path}: unknown ending {path.suffix or '(none)'!r}; write {NPY} or {PARQUET[0]}.",
            kind="invalid-option",
        )


def sidecar(path: Path) -> Path:
    """The JSON file beside an ``.npy`` that names its rows."""
    return path.with_suffix(".json")


def write_vectors(
    path: Path, vectors: FloatArray, rows: Sequence[VectorRow], about: dict[str, Any]
) -> list[Path]:
    """Write vectors and what their rows belong to; a file is whole or not there.

    Args:
        path: Ends in ``.npy`` or ``.parquet``.
        vectors: Shape ``(n, d)``; may be mapped from disk.
        rows: What each row belongs to, in the same order.
        about: Embedding space and provenance, for the sidecar or the Parquet metadata.

    Returns:
        The files written.

    Raises:
        InvalidInputError: If the ending names no format.
        StorageError: If a file cannot be written (``write-failed``).
    """
    check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in PARQUET:
        _replace(path, lambda aside: _write_parquet(aside, vectors, rows, about))
        return [path]
    content = {**about, "shape": list(vectors.shape), "rows": [row.to_dict() for row in rows]}
    _replace(path, lambda aside: _write_npy(aside, vectors))
    _replace(sidecar(path), lambda aside: aside.write_text(json.dumps(content, indent=1) + "\n"))
    return [path, sidecar(path)]


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, then rename over it."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        write(aside)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); what stood there stays.",
            kind="write-failed",
        ) from error


def _write_npy(path: Path, vectors: FloatArray) -> None:
    # Given a name, numpy would append .npy to it.
    with path.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)


def _write_parquet(
    path: Path, vectors: FloatArray, rows: Sequence[VectorRow], about: dict[str, Any]
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    dimensions = vectors.shape[1]
    schema = pa.schema(
        [
            ("collection", pa.string()),
            ("id", pa.string()),
            ("scene", pa.string()),
            ("source", pa.string()),
            ("datetime", pa.timestamp("us", tz="UTC")),
            ("processing:version", pa.string()),
            ("crop:code", pa.string()),
            ("crop:name", pa.string()),
            ("metrics:area", pa.float64()),
            ("geometry", pa.binary()),
            ("embedding", pa.list_(pa.float32(), dimensions)),
        ],
        metadata={"geo": json.dumps(_geo(rows)), "emb": json.dumps(_stac(about, dimensions))},
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            flat = np.ascontiguousarray(vectors[start : start + len(part)]).reshape(-1)
            columns = [
                pa.array([row.collection for row in part]),
                pa.array([row.parcel_id for row in part]),
                pa.array([row.scene for row in part]),
                pa.array([row.source for row in part]),
                pa.array([row.acquired_at for row in part], schema.field("datetime").type),
                pa.array([row.processing_baseline for row in part], pa.string()),
                pa.array([row.crop_code for row in part], pa.string()),
                pa.array([row.crop_name for row in part], pa.string()),
                pa.array([row.area_m2 for row in part], pa.float64()),
                pa.array([row.geometry for row in part], pa.binary()),
                pa.FixedSizeListArray.from_arrays(pa.array(flat), dimensions),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _geo(rows: Sequence[VectorRow]) -> dict[str, Any]:
    """GeoParquet 1.1 metadata (https://geoparquet.org/releases/v1.1.0/); no ``crs`` is CRS84."""
    import shapely

    kinds = {shapely.from_wkb(row.geometry).geom_type for row in rows if row.geometry is not None}
    column = {"encoding": "WKB", "geometry_types": sorted(kinds)}
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _stac(about: dict[str, Any], dimensions: int) -> dict[str, Any]:
    return {
        "stac_extensions": [STAC_EMBEDDING],
        "emb:type": "chip",
        "emb:dimensions": dimensions,
        "data_type": "float32",
        "emb:preprocessing": {"format": "parcelle", "expression": about.get("recipe")},
        **about,
    }


class GrowingArray:
    """Rows of float32 appended to a file on disk, so that memory does not grow with them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._width = 0
        self.rows = 0

    def append(self, row: FloatArray) -> None:
        """Add one row, shape ``(d,)``; all rows have the same d."""
        self._width = len(row)
        self._file.write(np.ascontiguousarray(row, dtype="<f4").tobytes())
        self.rows += 1

    def mapped(self) -> FloatArray:
        """All rows, shape ``(rows, d)``, mapped from disk."""
        self._file.flush()
        if self.rows == 0:
            return np.empty((0, self._width), np.float32)
        return np.memmap(self._path, dtype="<f4", mode="r", shape=(self.rows, self._width))

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


@contextmanager
def growing_array(beside: Path) -> Iterator[GrowingArray]:
    """A growing array next to a file that will be made of it, gone at the end."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    array = GrowingArray(beside.with_name(f".{beside.name}.rows"))
    try:
        yield array
    finally:
        array.close()
