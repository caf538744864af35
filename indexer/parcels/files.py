"""Parcels from GeoPackage, GeoJSON, Shapefile and GeoParquet, as published, in any CRS."""

from dataclasses import dataclass
from pathlib import Path

from indexer.parcels.attributes import read_areas_m2, read_attributes
from indexer.parcels.columns import AREA_COLUMNS, choose_crop, choose_ids
from indexer.parcels.formats import open_table
from indexer.parcels.lonlat import in_lonlat
from indexer.parcels.parcel import Parcel
from indexer.parcels.table import without_nul
from indexer.parcels.troubles import add_duplicates, find_troubles, list_skipped
from indexer.skipped import Skipped


@dataclass(frozen=True)
class ParcelsFile:
    """What a parcels file held."""

    parcels: tuple[Parcel, ...]
    """In the order of the file."""
    skipped: tuple[Skipped, ...]
    """Features that cannot be used, in the order of the file."""
    notes: tuple[str, ...]
    """What was assumed, and what the reading library found odd; for people."""
    named: frozenset[str] = frozenset()
    """The ids of all features, also of those that cannot be used."""


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
    table = open_table(Path(path), notes)
    if not len(table.geometries):
        return ParcelsFile((), (), (*notes, f"{path}: holds no features."))
    crop = choose_crop(table, crop_column, notes)
    ids, id_name = choose_ids(table, id_column, notes)
    troubles = find_troubles(table, ids)
    geometries = in_lonlat(table, troubles)
    add_duplicates(table, ids, id_name, troubles)
    usable = [row for row in range(len(ids)) if row not in troubles]
    area = table.first(AREA_COLUMNS)
    areas_m2 = read_areas_m2(table, area, geometries, usable)
    code, name = (_cleaned(table.texts(column)) for column in crop)
    attributes = read_attributes(table, {id_name, area, *crop})
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
    named = frozenset(parcel_id for parcel_id in ids if parcel_id is not None)
    return ParcelsFile(tuple(parcels), list_skipped(table, ids, troubles), tuple(notes), named)


def _cleaned(texts: list[str | None]) -> list[str | None]:
    return [None if text is None else without_nul(text).strip() or None for text in texts]
