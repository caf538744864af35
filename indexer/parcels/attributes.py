"""What the columns say of each parcel: its area, and the attributes that JSON can hold."""

from math import isfinite

from indexer.parcels.columns import AREA_COLUMNS
from indexer.parcels.parcel import JsonScalar, geodesic_areas_m2
from indexer.parcels.table import ObjectArray, Table, json_scalar, without_nul


def read_attributes(table: Table, taken: set[str | None]) -> list[dict[str, JsonScalar]]:
    """What the other columns hold, a row each; gaps are left out."""
    attributes: list[dict[str, JsonScalar]] = [{} for _ in table.geometries]
    for column in table.columns:
        if column in taken:
            continue
        for row, value in zip(attributes, table.values(column), strict=True):
            if (scalar := json_scalar(value)) is not None:
                row[without_nul(column)] = scalar
    return attributes


def read_areas_m2(
    table: Table, column: str | None, geometries: ObjectArray, usable: list[int]
) -> dict[int, float]:
    """Area by row: as declared, else geodesic."""
    areas_m2: dict[int, float] = {}
    if column is not None:
        unit_m2 = AREA_COLUMNS[column.lower()]
        declared = enumerate(_declared_m2(value, unit_m2) for value in table.values(column))
        areas_m2 = {row: area_m2 for row, area_m2 in declared if area_m2 is not None}
    left = [row for row in usable if row not in areas_m2]
    return areas_m2 | dict(zip(left, geodesic_areas_m2(geometries[left]).tolist(), strict=True))


def _declared_m2(value: object, unit_m2: float) -> float | None:
    """A declared area in square meters; None where it is no positive number."""
    try:
        area_m2 = float(str(value)) * unit_m2
    except ValueError:
        return None
    # Hectares have few decimals, which the multiplication blurs.
    return round(area_m2, 6) if isfinite(area_m2) and area_m2 > 0 else None
