"""GeoParquet, read so that a small file cannot fill the memory."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely

from indexer.parcels.hardening import (
    MAX_COLUMNS,
    MAX_FEATURES,
    MAX_TABLE_BYTES,
    check_reference,
    too_large,
)
from indexer.parcels.lonlat import placed_crs
from indexer.parcels.table import ObjectArray, Table, unreadable

_BATCH_ROWS: Final = 65_536
_MAX_GEO_BYTES: Final = 16 << 20
# What a missing reference system means (GeoParquet 1.1, "crs").
_DEFAULT_CRS: Final = "OGC:CRS84"


def read_geoparquet(path: Path, real: str) -> Table:
    """Read a GeoParquet file.

    Args:
        path: For messages.
        real: The same without anything relative.

    Raises:
        ParcelsError: ``unreadable``, ``crs-missing``, ``too-large``; whatever Arrow raises at
            damaged files, too.
    """
    from pyarrow.parquet import ParquetFile

    with ParquetFile(real) as file:
        _check_sizes(path, file.metadata)
        geo = _geo(path, (file.schema_arrow.metadata or {}).get(b"geo", b"{}"))
        column, about = _primary(path, geo)
        found = about.get("crs", _DEFAULT_CRS)
        if found is not None:
            check_reference(path, found if isinstance(found, str) else json.dumps(found))
        names = [name for name in file.schema_arrow.names if not name.startswith("__index_")]
        table = _read(path, real, [name for name in names if name not in geo["columns"]])
        geometries, undecodable = _geometries(path, real, column, about)
    return Table(
        path,
        flat(geometries),
        undecodable=undecodable,
        crs=placed_crs(path, found),
        columns=scalar_columns(table),
    )


def scalar_columns(table: Any) -> dict[str, Any]:  # noqa: ANN401 - pyarrow has no types
    """The columns of an Arrow table that hold one number, text or time a row."""
    import pyarrow as pa

    return {
        name: table.column(position)
        for position, name in enumerate(table.column_names)
        if not pa.types.is_nested(kind := table.schema.field(position).type)
        and not pa.types.is_binary(kind)
    }


def from_wkb(stored: list[bytes | None]) -> ObjectArray:
    """Geometries of WKB; None where there is none, or none that can be decoded."""
    # Coordinates that are no numbers are found when geometries are looked at.
    with np.errstate(invalid="ignore"):
        geometries: ObjectArray = shapely.from_wkb(stored, on_invalid="ignore")
    return geometries


def flat(geometries: ObjectArray) -> ObjectArray:
    """Geometries without heights."""
    with np.errstate(invalid="ignore"):
        found: ObjectArray = shapely.force_2d(geometries)
    return found


def bounded(path: Path, batches: Iterable[Any]) -> Iterator[Any]:
    """Hand on batches of rows until there are more than are read.

    Raises:
        ParcelsError: ``too-large``.
    """
    rows = held = 0
    for batch in batches:
        rows, held = rows + batch.num_rows, held + batch.nbytes
        if rows > MAX_FEATURES:
            raise too_large(path, f"has more than {MAX_FEATURES:,} features")
        if held > MAX_TABLE_BYTES:
            raise too_large(path, f"takes more than {MAX_TABLE_BYTES >> 30} GiB in memory")
        yield batch


def _check_sizes(path: Path, metadata: Any) -> None:  # noqa: ANN401 - pyarrow has no types
    """Hold what the footer states against what is read, before any page is unpacked."""
    if metadata.num_rows > MAX_FEATURES:
        raise too_large(path, f"has {metadata.num_rows:,} features; at most {MAX_FEATURES:,}")
    if metadata.num_columns > MAX_COLUMNS:
        raise too_large(path, f"has {metadata.num_columns} columns; at most {MAX_COLUMNS}")
    stated = values = 0
    for group in range(metadata.num_row_groups):
        for at in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(at)
            stated += max(0, chunk.total_uncompressed_size)
            values += max(0, chunk.num_values)
    # Lists hold several numbers a row, of at most 8 bytes each.
    if max(stated, 8 * values) > MAX_TABLE_BYTES:
        raise too_large(
            path, f"unpacks to {max(stated, 8 * values):,} bytes; at most {MAX_TABLE_BYTES:,}"
        )


def _geo(path: Path, text: bytes) -> dict[str, Any]:
    """The metadata of GeoParquet, checked as far as it is used."""
    if len(text) > _MAX_GEO_BYTES:
        raise unreadable(path, f"its metadata geo has {len(text)} bytes")
    geo = json.loads(text)
    columns = geo.get("columns") if isinstance(geo, dict) else None
    if not isinstance(columns, dict) or not columns:
        raise unreadable(
            path,
            "it is Parquet without the metadata of GeoParquet",
            "Write it as GeoParquet, for example with geopandas.",
        )
    return {**geo, "columns": columns}


def _primary(path: Path, geo: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name = geo.get("primary_column")
    about = geo["columns"].get(name) if isinstance(name, str) else None
    if not isinstance(name, str) or not isinstance(about, dict):
        raise unreadable(path, "its metadata geo does not describe the primary column")
    return name, about


def _read(path: Path, real: str, names: list[str]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Read columns; texts that repeat are unpacked only after their size is known.

    A dictionary of one text of many megabytes, named by each of a million rows, takes a few
    kilobytes in the file.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with ParquetFile(real) as plain:
        kinds = {field.name: field.type for field in plain.schema_arrow if field.name in names}
    texts = [name for name, kind in kinds.items() if _is_text(kind)]
    with ParquetFile(real, read_dictionary=texts) as file:
        batches = file.iter_batches(_BATCH_ROWS, columns=names)
        table = pa.Table.from_batches(
            bounded(path, batches), schema=_schema_of(file.schema_arrow, names)
        )
    for at, name in enumerate(table.column_names):
        column = table.column(at)
        if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(kinds[name]):
            _check_unpacked(path, name, column)
            table = table.set_column(at, name, column.cast(kinds[name]))
    table.validate(full=True)
    return table


def _is_text(kind: Any) -> bool:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _schema_of(schema: Any, names: list[str]) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    return pa.schema([field for field in schema if field.name in names])


def _check_unpacked(path: Path, name: str, column: Any) -> None:  # noqa: ANN401
    """Refuse a column of texts that take too much once each row has its own."""
    import pyarrow as pa
    from pyarrow import compute

    total = 0
    for chunk in column.chunks:
        lengths = compute.binary_length(chunk.dictionary).cast(pa.int64())
        total += compute.sum(lengths.take(chunk.indices)).as_py() or 0
    if total > MAX_TABLE_BYTES:
        raise too_large(path, f"takes more than {MAX_TABLE_BYTES >> 30} GiB in column {name[:60]}")


def _geometries(
    path: Path, real: str, column: str, about: dict[str, Any]
) -> tuple[ObjectArray, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Geometries, and which of them cannot be decoded."""
    if about.get("encoding") == "WKB":
        stored = _read(path, real, [column]).column(0).to_pylist()
        geometries = from_wkb(stored)
        there = np.array([one is not None for one in stored], dtype=bool)
        return geometries, shapely.is_missing(geometries) & there
    import geopandas

    geometries = geopandas.read_parquet(real, columns=[column]).geometry.to_numpy()
    return geometries, np.zeros(len(geometries), dtype=bool)
