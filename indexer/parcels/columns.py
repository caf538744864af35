"""Which columns hold a parcel's id, crop and area: the names that fiboa and others give them."""

from indexer.errors import ParcelsError
from indexer.parcels.table import Table

# Names are compared in lower case. Underscores stand for the colons that a shapefile cannot hold,
# and its names end after 10 characters.
ID_COLUMNS = ("id", "id_parcel", "parcel_id", "parcelid", "polygon_id", "field_id")
_CODE_COLUMNS = ("crop:code", "crop_code", "code_cultu")
_NAME_COLUMNS = ("crop:name", "crop_name")
# Numbers that a program gave the features when it wrote the file: they identify nothing elsewhere.
_NUMBER_COLUMNS = ("fid", "ogc_fid", "objectid")
AREA_COLUMNS = {
    "metrics:area": 1.0,
    "metrics_area": 1.0,
    "metrics:ar": 1.0,
    "metrics_ar": 1.0,
    "surf_parc": 10_000.0,
}
"""Area columns and the square meters in one of their units: fiboa has m2, the French RPG ha."""


def choose_crop(
    table: Table, crop_column: str | None, notes: list[str]
) -> tuple[str | None, str | None]:
    """The columns of the crop's code and name.

    Raises:
        ParcelsError: If ``crop_column`` is not in the file (``columns-missing``).
    """
    code = table.first(_CODE_COLUMNS)
    name = table.first(_NAME_COLUMNS)
    if crop_column is not None:
        named = table.named(crop_column, "--crop-column")
        return (code, name) if named == code else (named, named)
    if code is None and name is None:
        notes.append(
            f"{table.path}: no column of crops was recognized; it has {table.listed()}. If one of "
            "them tells the crop, name it with --crop-column."
        )
    return code, name


def choose_ids(
    table: Table, id_column: str | None, notes: list[str]
) -> tuple[list[str | None], str | None]:
    """Parcel ids, and the name of the column they come from; None for feature numbers.

    Raises:
        ParcelsError: If ``id_column`` is not in the file (``columns-missing``), or nothing in it
            identifies parcels (``id-missing``).
    """
    if id_column is None:
        return _recognize_ids(table, notes)
    if table.number_name and id_column.lower() == table.number_name.lower():
        return _feature_numbers(table), None
    column = table.named(id_column, "--id-column")
    return table.texts(column), column


def _recognize_ids(table: Table, notes: list[str]) -> tuple[list[str | None], str | None]:
    """As `choose_ids`, where no column was named."""
    candidates = table.find((*ID_COLUMNS, *_NUMBER_COLUMNS))
    for column in candidates:
        ids = table.texts(column)
        if _identifies(ids):
            if column.lower() in _NUMBER_COLUMNS:
                notes.append(_number_note(table, column))
            return ids, column
    if table.number_name:
        notes.append(_number_note(table, table.number_name))
        return _feature_numbers(table), None
    if candidates:
        return table.texts(candidates[0]), candidates[0]
    raise ParcelsError(
        f"{table.path}: no column of parcel ids was recognized; it has {table.listed()}. "
        "Name the one that identifies a parcel with --id-column, or add one.",
        kind="id-missing",
    )


def _feature_numbers(table: Table) -> list[str | None]:
    return [str(number) for number in table.numbers]


def _identifies(ids: list[str | None]) -> bool:
    """Whether ids tell parcels apart, a few mistakes aside.

    Digitizing programs add a column ``id`` that stays empty, or holds the class of the polygon.
    """
    return 2 * len(set(ids) - {None}) >= len(ids)


def _number_note(table: Table, column: str) -> str:
    passed_over = table.find(ID_COLUMNS)
    unique = [name for name in _unique_columns(table) if name != column]
    because = f" (empty or repeating: {', '.join(passed_over)})" if passed_over else ""
    return (
        f"{table.path}: no column identifies the parcels{because}, so their ids are the feature "
        f"numbers ({column}) of this file; another edition may number them otherwise. "
        "If a column tells them apart in every edition, name it with --id-column"
        + (f"; unique in this file: {', '.join(unique)}." if unique else ".")
    )


def _unique_columns(table: Table) -> list[str]:
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
