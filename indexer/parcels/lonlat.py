"""From the reference system of a file to longitude and latitude."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from indexer.errors import ParcelsError
from indexer.parcels.table import ObjectArray, Table
from indexer.parcels.troubles import Troubles


def placed_crs(path: Path, found: object) -> CRS:
    """The reference system that a file names, if it can be placed on Earth.

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
        _transformer(crs)
    except (CRSError, ProjError) as error:
        raise ParcelsError(
            f"{path}: its reference system {name[:80]!r} is not tied to longitude and "
            f"latitude; {advice}",
            kind="crs-missing",
        ) from error
    return crs


def _transformer(crs: CRS) -> Transformer:
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def in_lonlat(table: Table, troubles: Troubles) -> ObjectArray:
    """The usable geometries in EPSG:4326; adds those that fall off the Earth to the troubles.

    Raises:
        ParcelsError: If all of them do, so that the CRS must be wrong (``crs-missing``).
    """
    transformer = _transformer(table.crs)
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
    _add_broken(table, lonlat, usable, troubles)
    return lonlat


def _add_broken(
    table: Table, lonlat: ObjectArray, usable: npt.NDArray[np.int_], troubles: Troubles
) -> None:
    """Add what was a polygon in the file's own coordinates and is none in degrees.

    Far from where a reference system is used, or where corners are closer than numbers can tell,
    points fall together.
    """
    for row in usable[~shapely.is_valid(lonlat[usable])]:
        if row not in troubles:
            found = shapely.is_valid_reason(lonlat[row])
            troubles[int(row)] = (
                "geometry-invalid",
                f"its polygon is invalid in longitude and latitude: {found}; its coordinates may "
                f"not fit the CRS {table.crs.name}, or corners lie too close together. Draw it "
                "again",
            )
