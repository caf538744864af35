"""Parcels from GeoPackage, GeoJSON, Shapefile and GeoParquet, as published, in any CRS."""

import glob
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from indexer.errors import NotFoundError, ParcelsError
from indexer.parcels.parcel import JsonScalar, Parcel, geodesic_areas_m2
from indexer.skipped import Skipped

ObjectArray = npt.NDArray[np.object_]
BoolArray = npt.NDArray[np.bool_]

# Names are compared in lower case. Underscores stand for the colons that a shapefile cannot hold,
# and its names end after 10 characters.
_ID_COLUMNS = ("id", "id_parcel", "parcel_id", "parcelid", "polygon_id", "field_id")
_CODE_COLUMNS = ("crop:code", "crop_code", "code_cultu")
_NAME_COLUMNS = ("crop:name", "crop_name")
_AREA_COLUMNS = {
    "metrics:area": 1.0,
    "metrics_area": 1.0,
    "metrics:ar": 1.0,
    "metrics_ar": 1.0,
    "surf_parc": 10_000.0,
}
"""Area columns and the square meters in one of their units: fiboa has m2, the French RPG ha."""
# Numbers that a program gave the features when it wrote the file: they identify nothing elsewhere.
_NUMBER_COLUMNS = ("fid", "ogc_fid", "objectid")

_POLYGONAL = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf")


@dataclass(frozen=True)
class ParcelsFile:
    """What a parcels file held."""

    parcels: tuple[Parcel, ...]
    """In the order of the file."""
    skipped: tuple[Skipped, ...]
    """Features that cannot be used, in the order of the file."""
    notes: tuple[str, ...]
    """What was assumed, and what the reading library found odd; for people."""


def read_parcels(
    path: Path, collection: str, *, id_column: str | None = None, crop_column: str | None = None
) -> ParcelsFile:
    """Read the parcels of a file and bring them to longitude and latitude.

    Args:
        path: GeoPackage (``.gpkg``), GeoJSON (``.geojson``, ``.json``), Shapefile (``.shp``, or
            one in a ``.zip``) or GeoParquet (``.parquet``, ``.geoparquet``).
        collection: Collection that the parcels belong to.
        id_column: Column of the parcel id; may name a GeoPackage's feature number. None recognizes
            the names of fiboa, of the French RPG and some customary ones.
        crop_column: Column of the crop. Its values are taken as code and as name, unless it is the
            column that would be recognized as the code. None recognizes the names of fiboa and of
            the French RPG.

    Returns:
        The usable parcels; a declared area goes before the geodesic one. Features that cannot be
        used are listed beside them and do not stop the others.

    Raises:
        NotFoundError: If there is no such file (``file-not-found``).
        ParcelsError: If the file is damaged or of another format (``unreadable``), its reference
            system is missing or wrong (``crs-missing``), it lacks a named column
            (``columns-missing``), or nothing identifies its parcels (``id-missing``).
    """
    notes: list[str] = []
    table = _load(Path(path), notes)
    if not len(table.geometries):
        return ParcelsFile((), (), (*notes, f"{path}: holds no features."))
    crop = _choose_crop(table, crop_column, notes)
    ids, id_name = _choose_ids(table, id_column, notes)
    troubles = _troubles(table, ids)
    geometries = _in_lonlat(table, troubles)
    _add_duplicates(table, ids, id_name, troubles)
    skipped = [_skipped(table, ids, row, *troubles[row]) for row in sorted(troubles)]
    usable = [row for row in range(len(ids)) if row not in troubles]
    area = next(iter(table.find(_AREA_COLUMNS)), None)
    areas_m2 = _areas_m2(table, area, geometries, usable)
    code, name = (_texts(table, column) for column in crop)
    attributes = _attributes(table, {id_name, area, *crop})
    parcels = [
        Parcel(
            collection=collection,
            parcel_id=str(ids[row]),
            geometry=geometries[row],
            area_m2=areas_m2[row],
            crop_code=code[row],
            crop_name=name[row],
            attributes=attributes[row],
        )
        for row in usable
    ]
    return ParcelsFile(tuple(parcels), tuple(skipped), tuple(notes))


@dataclass(frozen=True)
class _Table:
    """A file as it lies on disk; row numbers hold for all members."""

    path: Path
    geometries: ObjectArray
    """Shapely geometries in ``crs``, without heights; None where null or not decodable."""
    undecodable: BoolArray
    crs: CRS
    columns: dict[str, Any]
    """Arrow column by name; only columns that hold one number, text or time a row."""
    number_name: str | None = None
    """Name under which a GeoPackage numbers its features."""
    numbers: Sequence[int] = ()

    def find(self, names: Iterable[str]) -> list[str]:
        """The columns of these lower-case names, in the order of the names."""
        lower = {column.lower(): column for column in reversed(self.columns)}
        return [lower[name] for name in names if name in lower]

    def named(self, name: str, option: str) -> str:
        """The column that an option asks for, in any case if no column is written that way.

        Raises:
            ParcelsError: If there is none (``columns-missing``).
        """
        if name in self.columns:
            return name
        found = self.find([name.lower()])
        if not found:
            raise ParcelsError(
                f"{self.path}: has no column {name!r}; it has {self.listed()}. "
                f"Name one of them with {option}.",
                kind="columns-missing",
            )
        return found[0]

    def listed(self) -> str:
        """The column names, for messages."""
        return ", ".join(self.columns) or "no columns"


def _load(path: Path, notes: list[str]) -> _Table:
    """Open a file of any of the formats.

    Raises:
        NotFoundError: If there is no such file (``file-not-found``).
        ParcelsError: If it cannot be read (``unreadable``) or placed on Earth (``crs-missing``).
    """
    if not path.is_file():
        raise NotFoundError(
            f"{path}: no such file; check the path of the parcels file.", kind="file-not-found"
        )
    match path.suffix.lower():
        case ".parquet" | ".geoparquet":
            return _load_geoparquet(path)
        case ".gpkg":
            return _load_with_gdal(path, str(path), notes)
        case ".geojson" | ".json":
            return _with_feature_ids(_load_with_gdal(path, str(path), notes))
        case ".shp":
            _check_shapefile(path)
            return _load_with_gdal(path, str(path), notes)
        case ".zip":
            return _load_with_gdal(path, f"/vsizip/{path}/{_shapefile_in_zip(path)}", notes)
    raise _unreadable(
        path,
        f"its extension is {path.suffix or 'missing'}",
        "Use GeoPackage (.gpkg), GeoJSON (.geojson, .json), Shapefile (.shp, .zip) or GeoParquet "
        "(.parquet, .geoparquet).",
    )


def _unreadable(path: Path, found: object, advice: str = "") -> ParcelsError:
    advice = advice or "The file may be truncated or of another format; fetch it again."
    return ParcelsError(
        f"{path}: cannot be read: {str(found).rstrip('.')}. {advice}", kind="unreadable"
    )


def _load_with_gdal(path: Path, address: str, notes: list[str]) -> _Table:
    # Importing pyogrio imports geopandas, which takes a second that no other command should pay.
    import pyogrio

    is_geopackage = path.suffix.lower() == ".gpkg"
    try:
        with _warnings_as_notes(path, notes):
            # Each look at a GeoJSON file reads all of it, and only a GeoPackage has layers and a
            # count of features that a damaged file falls short of.
            layer = _choose_layer(path, notes) if is_geopackage else None
            declared = pyogrio.read_info(address, layer=layer)["features"] if is_geopackage else 0
            meta, table = _read_arrow(path, address, layer, notes)
            geometry_at = table.schema.get_all_field_indices(
                meta["geometry_name"] or "wkb_geometry"
            )[-1]
            wkb = table.column(geometry_at).to_pylist()
            if any(_is_curved(one) for one in wkb):
                # Arcs become chains of short lines, which read_arrow cannot make.
                wkb = pyogrio.raw.read(address, layer=layer, columns=[])[2]
    except (RuntimeError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    if len(wkb) < declared:
        raise _unreadable(path, f"only {len(wkb)} of {declared} features came out")
    geometries = shapely.from_wkb(wkb, on_invalid="ignore")
    return _Table(
        path,
        shapely.force_2d(geometries),
        undecodable=shapely.is_missing(geometries)
        & np.array([one is not None for one in wkb], bool),
        crs=_crs(path, meta["crs"]),
        columns=_scalar_columns(table.remove_column(geometry_at).remove_column(0)),
        number_name=meta["fid_column"] if is_geopackage else None,
        numbers=table.column(0).to_pylist(),
    )


def _read_arrow(
    path: Path, address: str, layer: str | None, notes: list[str]
) -> tuple[dict[str, Any], Any]:
    """Read a layer's metadata and its table: feature numbers, attributes, geometry."""
    import pyarrow as pa
    import pyogrio

    meta, table = pyogrio.read_arrow(address, layer=layer, return_fids=True)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        if path.suffix.lower() not in (".shp", ".zip"):
            raise
        # Old shapefiles name no encoding; dBASE was written in the one of the machine.
        notes.append(f"{path}: names no encoding (.cpg); its text was read as ISO-8859-1.")
        meta, table = pyogrio.read_arrow(
            address, layer=layer, return_fids=True, encoding="ISO-8859-1"
        )
    return meta, table


def _is_curved(wkb: bytes | None) -> bool:
    """Whether a geometry has arcs."""
    # Types 8 to 12 of ISO 13249-3; heights and measures add thousands.
    return wkb is not None and (int.from_bytes(wkb[1:5], "little") & 0xFFFF) % 1000 in range(8, 13)


@contextmanager
def _warnings_as_notes(path: Path, notes: list[str]) -> Iterator[None]:
    """Hand on what GDAL warns of, once each; a reader of a report never sees Python's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if not issubclass(warning.category, RuntimeWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    texts = (str(one.message) for one in caught if issubclass(one.category, RuntimeWarning))
    notes.extend(f"{path}: {text}" for text in dict.fromkeys(texts))


def _choose_layer(path: Path, notes: list[str]) -> str:
    """The first layer of polygons, else the first with any geometry.

    Raises:
        ParcelsError: If no layer has geometry (``unreadable``).
    """
    import pyogrio

    # QGIS keeps styles as a layer without geometry beside the data.
    spatial: dict[str, str] = {
        name: kind for name, kind in pyogrio.list_layers(path) if kind is not None
    }
    polygonal = [name for name, kind in spatial.items() if "Polygon" in kind or "Surface" in kind]
    candidates = polygonal or list(spatial)
    if not candidates:
        raise _unreadable(path, "no layer of it has geometry", "Use a file of parcel polygons.")
    if len(candidates) > 1:
        notes.append(
            f"{path}: holds the layers {', '.join(candidates)}; only {candidates[0]} was read."
        )
    return candidates[0]


def _load_geoparquet(path: Path) -> _Table:
    import geopandas
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            geo = json.loads((file.schema_arrow.metadata or {}).get(b"geo", b"{}"))
            spatial = set(geo.get("columns", ()))
            names = [name for name in file.schema_arrow.names if not name.startswith("__index_")]
            table = file.read(columns=[name for name in names if name not in spatial])
        if not spatial:
            raise _unreadable(
                path,
                "it is Parquet without the metadata of GeoParquet",
                "Write it as GeoParquet, for example with geopandas.",
            )
        frame = geopandas.read_parquet(path, columns=[geo["primary_column"]])
    except (pa.ArrowException, shapely.GEOSException, KeyError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    geometries = shapely.force_2d(frame.geometry.to_numpy())
    return _Table(
        path,
        geometries,
        undecodable=np.zeros(len(geometries), dtype=bool),
        crs=_crs(path, frame.crs),
        columns=_scalar_columns(table),
    )


def _check_shapefile(path: Path) -> None:
    """Compare sizes with headers: GDAL reads a truncated shapefile without a word.

    Raises:
        ParcelsError: If a part is missing or too short (``unreadable``).
    """
    parts = {part.suffix.lower(): part for part in path.parent.glob(f"{glob.escape(path.stem)}.*")}
    missing = [suffix for suffix in _SHAPEFILE_PARTS if suffix not in parts]
    if missing:
        raise _unreadable(
            path,
            f"its {' and '.join(missing)} is missing",
            "Keep the files of a shapefile (.shp, .shx, .dbf, .prj) together.",
        )
    # ESRI Shapefile Technical Description (1998), p. 4: length in 16-bit words, big-endian.
    expected = {suffix: _header(parts[suffix], ">i", 24)[0] * 2 for suffix in (".shp", ".shx")}
    # dBASE III: number of records, bytes of the header, bytes of a record, little-endian.
    records, header_bytes, record_bytes = _header(parts[".dbf"], "<IHH", 4)
    expected[".dbf"] = header_bytes + records * record_bytes
    for suffix, size in expected.items():
        if (found := parts[suffix].stat().st_size) < size:
            raise _unreadable(path, f"its {suffix} has {found} of {size} bytes")


def _header(path: Path, layout: str, offset: int) -> tuple[int, ...]:
    try:
        with path.open("rb") as file:
            return struct.unpack_from(layout, file.read(100), offset)
    except struct.error:
        raise _unreadable(path, "it ends inside its header") from None


def _shapefile_in_zip(path: Path) -> str:
    """Name of the only shapefile in a zip file.

    Raises:
        ParcelsError: If the zip file is damaged or holds none or several (``unreadable``).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # macOS packs a shadow of each file into a folder of its own.
            names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        raise _unreadable(path, error) from error
    if damaged:
        raise _unreadable(path, f"{damaged} in it is damaged")
    found = [name for name in names if name.lower().endswith(".shp")]
    if len(found) != 1:
        raise _unreadable(
            path,
            f"it holds {len(found)} shapefiles ({', '.join(names[:5])})",
            "Zip one shapefile, or unpack it and name the file inside.",
        )
    parts = {found[0].lower().removesuffix(".shp") + suffix for suffix in _SHAPEFILE_PARTS}
    if missing := parts - {name.lower() for name in names}:
        raise _unreadable(path, f"it lacks {', '.join(sorted(missing))}")
    return found[0]


def _with_feature_ids(table: _Table) -> _Table:
    """Add the ids that GeoJSON features carry beside their properties, where GDAL hides them."""
    # GDAL makes a column of ids that are text, but turns numbers into its own feature numbers,
    # which it also invents where there are none.
    if table.find(_ID_COLUMNS):
        return table
    try:
        document = json.loads(table.path.read_bytes())
        ids = [feature.get("id") for feature in document["features"]]
    except (ValueError, TypeError, KeyError):
        # GDAL reads dialects of GeoJSON, one feature a line among them; they number nothing.
        return table
    if len(ids) != len(table.geometries) or not any(isinstance(one, int) for one in ids):
        return table
    import pyarrow as pa

    column = pa.chunked_array([pa.array([None if one is None else str(one) for one in ids])])
    return replace(table, columns={"id": column, **table.columns})


def _crs(path: Path, found: object) -> CRS:
    """The file's reference system.

    Raises:
        ParcelsError: If there is none, or none that is tied to the Earth (``crs-missing``).
    """
    advice = "set the one that its coordinates are in, for example with QGIS or ogr2ogr -a_srs."
    if found is None:
        raise ParcelsError(
            f"{path}: names no reference system (CRS); {advice}"
            + (" A shapefile keeps it in its .prj." if path.suffix.lower() == ".shp" else ""),
            kind="crs-missing",
        )
    name = str(found)
    try:
        crs = CRS.from_user_input(found)
        name = crs.name
        _to_lonlat(crs)
    except (CRSError, ProjError) as error:
        raise ParcelsError(
            f"{path}: its reference system {name[:80]!r} is not tied to longitude and "
            f"latitude; {advice}",
            kind="crs-missing",
        ) from error
    return crs


def _to_lonlat(crs: CRS) -> Transformer:
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def _scalar_columns(table: Any) -> dict[str, Any]:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    return {
        name: table.column(position)
        for position, name in enumerate(table.column_names)
        if not pa.types.is_nested(kind := table.schema.field(position).type)
        and not pa.types.is_binary(kind)
    }


def _values(table: _Table, column: str) -> list[object]:
    import pyarrow as pa

    values = table.columns[column]
    if pa.types.is_float32(values.type):
        # By way of text, so that 0.45 stays 0.45.
        values = values.cast(pa.string()).cast(pa.float64())
    found: list[object] = values.to_pylist()
    return found


def _json_scalar(value: object) -> JsonScalar:
    """The value as JSON can hold it; None for gaps and for what JSON has no form for."""
    match value:
        case str():
            # Formats without null, such as the shapefile, leave text blank.
            return value if value.strip() else None
        case bool() | int():
            return value
        case float() | Decimal():
            return float(value) if isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
    return None


def _text(value: object) -> str | None:
    """A value as id or code: ``123.0`` is ``123``, blank is None."""
    scalar = _json_scalar(value)
    if isinstance(scalar, float) and scalar.is_integer():
        scalar = int(scalar)
    return None if scalar is None else str(scalar).strip() or None


def _texts(table: _Table, column: str | None) -> list[str | None]:
    if column is None:
        return [None] * len(table.geometries)
    return [_text(value) for value in _values(table, column)]


def _choose_crop(
    table: _Table, crop_column: str | None, notes: list[str]
) -> tuple[str | None, str | None]:
    """The columns of the crop's code and name.

    Raises:
        ParcelsError: If ``crop_column`` is not in the file (``columns-missing``).
    """
    code = next(iter(table.find(_CODE_COLUMNS)), None)
    name = next(iter(table.find(_NAME_COLUMNS)), None)
    if crop_column is not None:
        named = table.named(crop_column, "--crop-column")
        return (code, name) if named == code else (named, named)
    if code is None and name is None:
        notes.append(
            f"{table.path}: no column of crops was recognized; it has {table.listed()}. If one of "
            "them tells the crop, name it with --crop-column."
        )
    return code, name


def _choose_ids(
    table: _Table, id_column: str | None, notes: list[str]
) -> tuple[list[str | None], str | None]:
    """Parcel ids, and the name of the column they come from; None for feature numbers.

    Raises:
        ParcelsError: If ``id_column`` is not in the file (``columns-missing``), or nothing in it
            identifies parcels (``id-missing``).
    """
    number_name = table.number_name
    if id_column is not None:
        if number_name and id_column.lower() == number_name.lower():
            return [str(number) for number in table.numbers], None
        column = table.named(id_column, "--id-column")
        return _texts(table, column), column
    candidates = table.find((*_ID_COLUMNS, *_NUMBER_COLUMNS))
    for column in candidates:
        ids = _texts(table, column)
        if _identifies(ids):
            if column.lower() in _NUMBER_COLUMNS:
                notes.append(_number_note(table, column))
            return ids, column
    if number_name:
        notes.append(_number_note(table, number_name))
        return [str(number) for number in table.numbers], None
    if candidates:
        return _texts(table, candidates[0]), candidates[0]
    raise ParcelsError(
        f"{table.path}: no column of parcel ids was recognized; it has {table.listed()}. "
        "Name the one that identifies a parcel with --id-column, or add one.",
        kind="id-missing",
    )


def _identifies(ids: list[str | None]) -> bool:
    """Whether ids tell parcels apart, a few mistakes aside.

    Digitizing programs add a column ``id`` that stays empty, or holds the class of the polygon.
    """
    return 2 * len(set(ids) - {None}) >= len(ids)


def _number_note(table: _Table, column: str) -> str:
    passed_over = table.find(_ID_COLUMNS)
    unique = [name for name in _unique_columns(table) if name != column]
    because = f" (empty or repeating: {', '.join(passed_over)})" if passed_over else ""
    return (
        f"{table.path}: no column identifies the parcels{because}, so their ids are the feature "
        f"numbers ({column}) of this file; another edition may number them otherwise. "
        "If a column tells them apart in every edition, name it with --id-column"
        + (f"; unique in this file: {', '.join(unique)}." if unique else ".")
    )


def _unique_columns(table: _Table) -> list[str]:
    """Columns of text or whole numbers in which no value repeats or lacks."""
    import pyarrow as pa
    from pyarrow import compute

    def may_identify(kind: pa.DataType) -> bool:
        return bool(pa.types.is_integer(kind) or pa.types.is_string(kind))

    rows = len(table.geometries)
    return [
        name
        for name, values in table.columns.items()
        if may_identify(values.type) and compute.count_distinct(values).as_py() == rows
    ]


_Troubles = dict[int, tuple[str, str]]
"""Row number to the kind of trouble, and what was found with what to do."""


def _troubles(table: _Table, ids: list[str | None]) -> _Troubles:
    """The rows that cannot be parcels; the first trouble of a row is the one reported."""
    geometries, troubles = table.geometries, _Troubles()

    def add(rows: BoolArray, kind: str, describe: Callable[[int], str]) -> None:
        for row in np.flatnonzero(rows).tolist():
            if row not in troubles:
                troubles[row] = kind, describe(row)

    add(
        np.array([one is None for one in ids], bool),
        "id-missing",
        lambda _: "it has no id; give it one, or name another column with --id-column",
    )
    add(
        table.undecodable,
        "geometry-invalid",
        lambda _: "it cannot be decoded: a ring may be open or of too few points; draw it again",
    )
    add(
        shapely.is_missing(geometries) | shapely.is_empty(geometries),
        "geometry-empty",
        lambda _: "it has no geometry; draw it, or remove the feature",
    )
    add(
        ~np.isin(shapely.get_type_id(geometries), _POLYGONAL),
        "geometry-type",
        lambda row: (
            f"its geometry is a {geometries[row].geom_type}; parcels are Polygon or MultiPolygon, "
            "so convert it, or remove the feature"
        ),
    )
    add(
        ~shapely.is_valid(geometries),
        "geometry-invalid",
        lambda row: (
            f"its polygon is invalid: {shapely.is_valid_reason(geometries[row])} in the "
            "coordinates of the file; repair it, for example with make_valid"
        ),
    )
    return troubles


def _in_lonlat(table: _Table, troubles: _Troubles) -> ObjectArray:
    """The usable geometries in EPSG:4326; adds those that fall off the Earth to the troubles.

    Raises:
        ParcelsError: If all of them do, so that the CRS must be wrong (``crs-missing``).
    """
    transformer = _to_lonlat(table.crs)
    usable = np.array([row for row in range(len(table.geometries)) if row not in troubles], int)
    lonlat = np.full(len(table.geometries), None, dtype=object)
    lonlat[usable] = shapely.transform(
        table.geometries[usable],
        lambda points: np.column_stack(transformer.transform(*points.T)),
    )
    bounds = np.abs(shapely.bounds(lonlat[usable])).reshape(-1, 2, 2).max(axis=1)
    off = usable[~(bounds <= (180, 90)).all(axis=1)]
    for row in off:
        x, y = shapely.get_coordinates(table.geometries[row])[0]
        found = (
            f"its coordinates, such as ({x:.10g}, {y:.10g}), do not fit the CRS {table.crs.name}"
        )
        troubles[int(row)] = ("geometry-invalid", f"{found}; correct them")
        if len(off) == len(usable):
            raise ParcelsError(
                f"{table.path}: {found} that the file names or implies; set the one that they are "
                "in, for example with QGIS or ogr2ogr -a_srs.",
                kind="crs-missing",
            )
    return lonlat


def _add_duplicates(
    table: _Table, ids: list[str | None], id_name: str | None, troubles: _Troubles
) -> None:
    first: dict[str | None, int] = {}
    for row, parcel_id in enumerate(ids):
        if row in troubles:
            continue
        kept = first.setdefault(parcel_id, row)
        if kept != row:
            found = (
                f"feature {kept + 1} has the same id in column {id_name} and was kept; make ids "
                "unique, or name another column with --id-column"
            )
            troubles[row] = ("duplicate-id", found)


def _skipped(table: _Table, ids: list[str | None], row: int, kind: str, found: str) -> Skipped:
    who = f"feature {row + 1}" if ids[row] is None else f"parcel {ids[row]} (feature {row + 1})"
    source = f"{table.path}: {who}"
    return Skipped.from_error(source, ParcelsError(f"{source}: {found}.", kind=kind))


def _areas_m2(
    table: _Table, column: str | None, geometries: ObjectArray, usable: list[int]
) -> dict[int, float]:
    """Area by row: as declared, else geodesic."""
    areas_m2: dict[int, float] = {}
    if column is not None:
        unit_m2 = _AREA_COLUMNS[column.lower()]
        declared = enumerate(_declared_m2(value, unit_m2) for value in _values(table, column))
        areas_m2 = {row: area_m2 for row, area_m2 in declared if area_m2 is not None}
    left = [row for row in usable if row not in areas_m2]
    return areas_m2 | dict(zip(left, geodesic_areas_m2(geometries[left]).tolist(), strict=True))


def _attributes(table: _Table, taken: set[str | None]) -> list[dict[str, JsonScalar]]:
    """What the other columns hold, a row each; gaps are left out."""
    attributes: list[dict[str, JsonScalar]] = [{} for _ in table.geometries]
    for column in table.columns:
        if column in taken:
            continue
        for row, value in zip(attributes, _values(table, column), strict=True):
            if (scalar := _json_scalar(value)) is not None:
                row[column] = scalar
    return attributes


def _declared_m2(value: object, unit_m2: float) -> float | None:
    """A declared area in square meters; None where it is no positive number."""
    try:
        area_m2 = float(str(value)) * unit_m2
    except ValueError:
        return None
    # Hectares have few decimals, which the multiplication blurs.
    return round(area_m2, 6) if isfinite(area_m2) and area_m2 > 0 else None
