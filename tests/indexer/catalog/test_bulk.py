"""What ``insert_rows`` stores is what SQLAlchemy's own statements store, on each database."""

from datetime import UTC, datetime, timedelta, timezone
from math import inf, isnan, nan
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.exc import DBAPIError, StatementError

from indexer.catalog.bulk import insert_rows
from indexer.catalog.tables import Base, Embedding, Observation, Parcel
from indexer.catalog.writing import ensure_collection
from tests.indexer.catalog.filling import make_space

PARCEL: dict[str, Any] = {
    "parcel_id": "usual",
    "geometry": None,
    "west": 2.0,
    "south": 49.0,
    "east": 2.01,
    "north": 49.02,
    "area_m2": 12_345.5,
    "crop_code": None,
    "crop_name": "wheat",
    "attributes": {},
}

ODD_PARCELS: dict[str, dict[str, Any]] = {
    "not a number": {"area_m2": nan},
    "infinity": {"area_m2": inf, "west": -inf},
    "the smallest and largest numbers": {"area_m2": 5e-324, "west": 1.7976931348623157e308},
    "a negative zero": {"area_m2": -0.0},
    "nothing": {"west": None, "south": None, "east": None, "north": None, "area_m2": None},
    "bytes": {"geometry": bytes(range(256)) * 40},
    "no bytes": {"geometry": b""},
    "integers of 64 bits": {"attributes": {"a": 2**64 - 1, "b": -(2**63), "c": 2**53 + 1}},
    "nested JSON": {"attributes": {"a": [1.5, None, True, {"b": "é\u2028\x00\ud83d"}], "": {}}},
    "not a number in JSON": {"attributes": {"a": None, "b": 1e300}},
    "an empty text": {"crop_name": ""},
    "what ends a line or a text": {
        "crop_name": "a\tb\nc\r\\N\\.\n'\"\x1b{}%s:x",
        "crop_code": "\\N",
    },
    "letters of all lengths": {"crop_name": "aé農\U0001f33e" * 10_000, "parcel_id": "農"},
}

# https://sqlite.org/floatingpoint.html: it has no NaN. Numbers without a fraction are kept as
# integers (https://sqlite.org/datatype3.html), which know no negative zero.
WITHOUT_ON_SQLITE: dict[str, dict[str, Any]] = {
    "not a number": {"area_m2": None},
    "a negative zero": {"area_m2": 0.0},
}

OBSERVATION: dict[str, Any] = {
    "scene": "scene",
    "source": "scene.tif",
    "layer_bands": None,
    "acquired_at": None,
    "processing_baseline": None,
    "pixels_inside": 1,
    "valid_pixels": 1.0,
    "valid_fraction": 1.0,
    "covered_fraction": 1.0,
    "cloud_cover_percent": None,
    "reliable": True,
    "indices": {},
    "fingerprint": "1" * 64,
}

ODD_OBSERVATIONS: dict[str, dict[str, Any]] = {
    "UTC": {"acquired_at": datetime(2023, 5, 29, 10, 50, 31, 123_456, tzinfo=UTC)},
    "east of UTC": {
        "acquired_at": datetime(2023, 1, 1, 3, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    },
    "west of UTC": {
        "acquired_at": datetime(2023, 12, 31, 23, tzinfo=timezone(-timedelta(hours=9)))
    },
    "before 1970": {"acquired_at": datetime(1900, 2, 28, tzinfo=UTC)},
    "no time": {"acquired_at": None},
    "bands": {"layer_bands": ["B02", "B04"]},
    "no bands": {"layer_bands": None},
    "false": {"reliable": False, "valid_fraction": 0},
}


def same(found: Any, expected: Any) -> bool:  # noqa: ANN401 - of a column
    if isinstance(found, float) and isinstance(expected, float) and isnan(expected):
        return isnan(found)
    # 1 is also 1.0 and True, but not here; neither is 0.0 -0.0.
    return bool(repr(found) == repr(expected))


def stored_by_both(
    connection: Connection, table: type[Base], row: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row as it comes back, first from ``insert_rows``, then from SQLAlchemy's INSERT."""
    found = []
    for store in (
        lambda: insert_rows(connection, table, [row]),
        lambda: connection.execute(insert(table), [row]),
    ):
        store()
        (read,) = connection.execute(select(*(getattr(table, name) for name in row))).mappings()
        found.append(dict(read))
        connection.execute(delete(table))
    return found


def assert_same(connection: Connection, table: type[Base], row: dict[str, Any]) -> dict[str, Any]:
    copied, inserted = stored_by_both(connection, table, row)
    differing = [name for name in row if not same(copied[name], inserted[name])]
    assert differing == []
    return copied


@pytest.mark.parametrize("name", ODD_PARCELS)
def test_odd_values_of_a_parcel_come_back_as_from_an_ordinary_insert(
    connection: Connection, name: str
) -> None:
    row = PARCEL | {"collection_id": ensure_collection(connection, "demo")} | ODD_PARCELS[name]
    found = assert_same(connection, Parcel, row)
    if connection.dialect.name == "sqlite":
        row |= WITHOUT_ON_SQLITE.get(name, {})
    assert [one for one in row if not same(found[one], row[one])] == []


def test_integers_beyond_64_bits_come_back_as_from_an_ordinary_insert(
    connection: Connection,
) -> None:
    attributes = {"a": 2**70, "b": -(2**64), "c": 10**30 + 1}
    collection_id = ensure_collection(connection, "demo")
    row = PARCEL | {"collection_id": collection_id, "attributes": attributes}
    # All digits are stored, and read as the nearest number of double precision.
    assert assert_same(connection, Parcel, row)["attributes"] == {
        name: float(value) for name, value in attributes.items()
    }


@pytest.mark.parametrize("name", ODD_OBSERVATIONS)
def test_odd_values_of_an_observation_come_back_as_from_an_ordinary_insert(
    connection: Connection, name: str
) -> None:
    collection_id = ensure_collection(connection, "demo")
    insert_rows(connection, Parcel, [PARCEL | {"collection_id": collection_id}])
    parcel_row = connection.scalars(select(Parcel.id)).one()
    row = OBSERVATION | {"parcel_id": parcel_row} | ODD_OBSERVATIONS[name]
    found = assert_same(connection, Observation, row)
    assert found["acquired_at"] == row["acquired_at"]
    assert found["acquired_at"] is None or found["acquired_at"].tzinfo == UTC
    assert found["layer_bands"] == row["layer_bands"]
    without = select(func.count()).where(Observation.layer_bands.is_(None))
    insert_rows(connection, Observation, [row])
    # JSON's null would be something.
    assert connection.scalars(without).one() == (row["layer_bands"] is None)


def test_a_time_without_a_zone_is_refused_as_by_an_ordinary_insert(
    connection: Connection,
) -> None:
    row = OBSERVATION | {"parcel_id": 1, "acquired_at": datetime(2023, 5, 29)}
    with pytest.raises(ValueError, match="no time zone"):
        insert_rows(connection, Observation, [row])
    with pytest.raises(StatementError, match="no time zone"):
        connection.execute(insert(Observation), [row])


def test_rows_keep_their_order_and_each_column_its_values(connection: Connection) -> None:
    collection_id = ensure_collection(connection, "demo")
    rows = [
        # In another order than the table's.
        {"attributes": {"n": n}, "area_m2": n / 7, "parcel_id": f"p{n}"}
        | {"collection_id": collection_id}
        for n in range(2_000)
    ]
    insert_rows(connection, Parcel, rows)
    statement = select(Parcel.parcel_id, Parcel.area_m2, Parcel.attributes, Parcel.crop_name)
    found = connection.execute(statement.order_by(Parcel.id)).all()
    assert [tuple(row) for row in found] == [(f"p{n}", n / 7, {"n": n}, None) for n in range(2_000)]


def test_no_row_is_stored_where_one_is_refused(catalog: Engine) -> None:
    with catalog.begin() as connection:
        collection_id = ensure_collection(connection, "demo")
    rows = [PARCEL | {"collection_id": collection_id, "parcel_id": one} for one in "abca"]
    with pytest.raises(DBAPIError), catalog.begin() as connection:
        insert_rows(connection, Parcel, rows)
    with catalog.begin() as connection:
        assert connection.scalars(select(func.count()).select_from(Parcel)).one() == 0
        insert_rows(connection, Parcel, rows[:3])
        assert connection.scalars(select(func.count()).select_from(Parcel)).one() == 3


def test_a_vector_of_any_bytes_comes_back(connection: Connection) -> None:
    collection_id, space_id = ensure_collection(connection, "demo"), make_space(connection)
    insert_rows(connection, Parcel, [PARCEL | {"collection_id": collection_id}])
    parcel_row = connection.scalars(select(Parcel.id)).one()
    insert_rows(connection, Observation, [OBSERVATION | {"parcel_id": parcel_row}])
    row = {
        "observation_id": connection.scalars(select(Observation.id)).one(),
        "space_id": space_id,
        "fingerprint": "f" * 64,
        "vector": bytes(range(256)) * 8,
        "embedding": None,
        "superseded": False,
    }
    found = assert_same(connection, Embedding, row)
    assert found == row
