"""Columns say of each row what the catalog says, and find rows as plain comparisons do."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from indexer.catalog.database import connect
from indexer.catalog.tables import Embedding, Observation, Parcel
from indexer.columns import Columns, reading
from indexer.columns.numbers import NO_TIME
from indexer.columns.table import coded_by
from indexer.errors import StorageError
from indexer.settings import Settings
from tests.postgres import empty_postgres as empty_postgres
from tests.postgres import postgres_url as postgres_url
from tests.retriever.planted import Seen, at_cosine, plant, settings_in

IntArray = npt.NDArray[np.int64]

SEEN = [
    Seen(
        "a",
        at_cosine(1),
        crop_code="BTH",
        crop_name="wheat",
        area_m2=1500.25,
        indices={"NDVI": 0.625},
        attributes={"farm": 17, "owner": "é", "dry": True},
    ),
    Seen("a", at_cosine(1), day="2023-06-01", crop_code="BTH", crop_name="wheat", reliable=False),
    Seen("b", at_cosine(1), corner=None, day=None, area_m2=None, collection="other", indices={}),
    Seen("c", at_cosine(1), corner=(-60.0, 10.0), attributes={"farm": 2**70, "dry": 1}),
]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A catalog of what was seen."""
    settings = settings_in(tmp_path)
    if request.param == "postgresql":
        url = request.getfixturevalue("empty_postgres")
        settings = settings.model_copy(update={"database_url": url})
    plant(settings, SEEN, publish=False)
    return settings


def keys_of(connection: Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """Embedding and parcel by the parcel's id and the scene."""
    rows = connection.execute(
        select(Embedding.id, Parcel.id.label("parcel"), Parcel.parcel_id, Observation.scene)
        .join(Observation, Observation.id == Embedding.observation_id)
        .join(Parcel, Parcel.id == Observation.parcel_id)
    )
    return {(row.parcel_id, row.scene): (row.id, row.parcel) for row in rows}


def told(columns: Columns, name: str, row: int) -> Any:  # noqa: ANN401
    column = columns.attributes[name] if name in columns.attributes else columns.coded[name]
    return column.values[column.codes[row]]


@pytest.mark.parametrize("listed", [0, 5000])
def test_columns_say_of_each_row_what_the_catalog_says(
    catalog: Settings, monkeypatch: pytest.MonkeyPatch, listed: int
) -> None:
    monkeypatch.setattr(reading, "LISTED_IDS", listed)
    engine = connect(catalog)
    with engine.connect() as connection:
        keys = keys_of(connection)
        order = [("c", SEEN[3].scene), ("a", SEEN[1].scene), ("b", SEEN[2].scene),
                 ("a", SEEN[0].scene)]  # fmt: skip
        ids = np.array([keys[key][0] for key in order])
        columns = Columns.read(connection, ids)
    engine.dispose()
    assert columns.ids.tolist() == ids.tolist()
    assert columns.parcels.tolist() == [keys[key][1] for key in order]
    moments = [
        NO_TIME if day is None else int(datetime.fromisoformat(f"{day}T10:50:31").replace(
            tzinfo=UTC).timestamp()) * 1_000_000
        for day in ("2023-05-29", "2023-06-01", None, "2023-05-29")
    ]  # fmt: skip
    assert columns.times.values.tolist() == moments
    assert columns.boxes.corners[0].tolist() == [-60.0, 10.0, 59.99, -10.01]
    assert np.isnan(columns.boxes.corners[2]).all()
    area, ndvi = columns.numbers["metrics:area"].values, columns.numbers["NDVI"].values
    np.testing.assert_array_equal(area, [12345.0, 12345.0, np.nan, 12345.0])
    np.testing.assert_array_equal(ndvi, [0.7, 0.7, np.nan, 0.625])
    np.testing.assert_array_equal(columns.numbers["BI"].values, [np.nan] * 4)
    assert [told(columns, "collection", row) for row in range(4)] == ["demo"] * 2 + [
        "other",
        "demo",
    ]
    assert [told(columns, "crop", row) for row in (0, 3)] == [None, ("BTH", "wheat")]
    assert [told(columns, "reliable", row) for row in range(4)] == [True, False, True, True]
    assert [told(columns, "has_geometry", row) for row in range(4)] == [True, True, False, True]
    assert told(columns, "farm", 0) == 2.0**70
    assert told(columns, "dry", 0) == 1
    assert told(columns, "dry", 0) is not True
    assert columns.absent is None


def test_more_attributes_than_are_held_are_left_out(
    catalog: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_ATTRIBUTES", 2)
    engine = connect(catalog)
    with engine.connect() as connection:
        ids = np.array(connection.scalars(select(Embedding.id)).all())
        columns = Columns.read(connection, ids)
    engine.dispose()
    assert len(columns.attributes) == 2
    assert set(columns.attributes) | columns.left_out >= {"farm", "dry"}
    assert not set(columns.attributes) & columns.left_out


# Structures ----------------------------------------------------------------------------------

floats = st.one_of(st.just(np.nan), st.sampled_from([-1.0, 0.0, -0.0, 0.5, 1.0]), st.floats(-9, 9))
ends = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.floats(-9, 9))


@given(st.lists(floats, max_size=700), ends, ends, st.data())
def test_ranges_of_numbers_are_those_of_plain_comparisons(
    values: list[float], first: float | None, end: float | None, data: st.DataObject
) -> None:
    array = np.array(values, dtype=np.float64)
    column = Columns.of_arrays(np.arange(len(values)), numbers={"n": array}).numbers["n"]
    expected = ~np.isnan(array)
    expected &= True if first is None else array >= first
    expected &= True if end is None else array < end
    ranks = column.ranks(first, end)
    assert ranks[1] - ranks[0] == expected.sum()
    np.testing.assert_array_equal(column.mask(*ranks), expected)
    some = data.draw(st.lists(st.integers(0, max(0, len(values) - 1)), max_size=5))
    rows = np.array(some if values else [], dtype=np.int64)
    np.testing.assert_array_equal(column.within(rows, first, end), expected[rows])
    mask = np.arange(len(values)) % 3 > 0
    narrowed = mask.copy()
    column.narrow(narrowed, *ranks)
    np.testing.assert_array_equal(narrowed, mask & expected)


def test_a_wide_range_is_exact_in_the_buckets_of_its_ends() -> None:
    values = np.random.default_rng(0).permutation(20_000).astype(np.float64)
    column = Columns.of_arrays(np.arange(20_000), numbers={"n": values}).numbers["n"]
    for first, end in [(1, 19_999), (0, 20_000), (777, 15_000), (100, 101), (19_900, 20_000)]:
        expected = (values >= first) & (values < end)
        np.testing.assert_array_equal(column.mask(first, end), expected)
        mask = np.ones(20_000, dtype=np.bool_)
        column.narrow(mask, first, end)
        np.testing.assert_array_equal(mask, expected)


@given(
    st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(0, 9)), max_size=60),
    st.lists(st.integers(1, 3), unique=True, max_size=3),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_rows_of_values_in_an_interval_are_those_of_plain_comparisons(
    rows: list[tuple[str | None, int]], codes: list[int], first: int, end: int
) -> None:
    # Nine stands for a time that is not known.
    times = np.array([NO_TIME if time == 9 else time for _, time in rows], dtype=np.int64)
    crops, values = coded_by([crop for crop, _ in rows])
    codes = [code for code in codes if code < len(values)]
    columns = Columns.of_arrays(np.arange(len(rows)), times=times, coded={"crop": (crops, values)})
    column = columns.coded["crop"]
    expected = np.isin(crops, codes)
    np.testing.assert_array_equal(column.mask(codes), expected)
    assert column.count(codes) == expected.sum()
    in_time = np.flatnonzero(expected & (times >= first) & (times < end))
    spans = column.spans(codes, *columns.times.ranks(first, end))
    assert sorted(column.rows_in(spans).tolist()) == in_time.tolist()


def test_many_values_are_found_like_few() -> None:
    crops, values = coded_by([n % 300 for n in range(1000)])
    columns = Columns.of_arrays(np.arange(1000), coded={"crop": (crops, values)})
    wanted = list(range(1, 300, 7))
    assert columns.coded["crop"].codes.dtype == np.uint16
    expected = np.isin(crops, wanted)
    np.testing.assert_array_equal(columns.coded["crop"].mask(wanted), expected)
    rows = np.array([5, 7, 8])
    np.testing.assert_array_equal(columns.coded["crop"].among(rows, wanted), expected[rows])


sides = st.sampled_from([-180.0, -10.0, 0.0, 0.001, 2.0, 179.0]) | st.floats(-180, 180)
sizes = st.sampled_from([0.0, 0.001, 0.01, 5.0]) | st.floats(0, 30)
rectangles = st.builds(
    lambda west, south, width, height: (west, south / 2, west + width, south / 2 + height),
    sides, sides, sizes, sizes,
)  # fmt: skip


def touching(bounds: npt.NDArray[np.float64], box: tuple[float, ...]) -> npt.NDArray[np.bool_]:
    west, south, east, north = bounds.T
    touch: npt.NDArray[np.bool_] = (
        (west <= box[2]) & (east >= box[0]) & (south <= box[3]) & (north >= box[1])
    )
    return touch


def check_boxes(bounds: npt.NDArray[np.float64], box: tuple[float, float, float, float]) -> None:
    boxes = Columns.of_arrays(np.arange(len(bounds)), bounds=bounds).boxes
    limits = (box[2], box[3], -box[0], -box[1])
    expected = touching(bounds, box)
    np.testing.assert_array_equal(boxes.mask(limits), expected)
    rows = np.arange(0, len(bounds), 2)
    np.testing.assert_array_equal(boxes.among(rows, limits), expected[rows])
    assert boxes.most(limits) >= expected.sum()
    near = boxes.grid.spans(limits, len(bounds))
    assert near is not None
    found = sorted(boxes.rows_at(near[0], limits).tolist())
    assert found == np.flatnonzero(expected).tolist()
    assert near[1] >= len(found)
    if near[1]:
        assert boxes.grid.spans(limits, near[1] - 1) is None


@given(st.lists(st.none() | rectangles, max_size=40), rectangles)
def test_rectangles_that_touch_are_those_of_plain_comparisons(
    rows: Sequence[tuple[float, ...] | None], box: tuple[float, float, float, float]
) -> None:
    bounds = np.array([[np.nan] * 4 if row is None else row for row in rows]).reshape(-1, 4)
    check_boxes(bounds, box)


@pytest.mark.parametrize("size", [0.0, 0.002, 0.05])
def test_rectangles_are_found_among_thousands_some_of_them_large(size: float) -> None:
    random = np.random.default_rng(3)
    corners = random.uniform((1, 47), (3, 49), (8000, 2))
    # A second region far away, and a few parcels as large as a country.
    corners[::9] -= (60, 40)
    extents = random.uniform(0, size, (8000, 2))
    extents[:20] = 3
    bounds = np.concatenate([corners, corners + extents], axis=1)
    bounds[::50] = np.nan
    for west, south, side in [(1.5, 48, 0.01), (1, 47, 2), (-180, -90, 360), (70, 0, 1),
                              (-58.5, 8, 0.5), (2.9, 48.9, 1)]:  # fmt: skip
        check_boxes(bounds, (west, south, west + side, south + side))


def test_a_small_rectangle_asks_about_few_of_many_rows() -> None:
    random = np.random.default_rng(5)
    corners = random.uniform(0, 1, (100_000, 2))
    bounds = np.concatenate([corners, corners + 0.001], axis=1)
    boxes = Columns.of_arrays(np.arange(100_000), bounds=bounds).boxes
    # A hundredth of each side: 10 rows have their corner in it.
    near = boxes.grid.spans((0.51, 0.51, -0.5, -0.5), 100_000)
    assert near is not None
    assert near[1] < 100


# Ids -----------------------------------------------------------------------------------------


def test_rows_are_found_by_embedding_and_by_parcel() -> None:
    columns = Columns.of_arrays(
        np.array([9, 4, 7, 5]), parcels=np.array([2, 1, 2, 3], dtype=np.int64)
    )
    assert columns.rows_of_ids(np.array([5, 9, 6, 9])).tolist() == [0, 3]
    assert columns.rows_of_ids(np.array([], dtype=np.int64)).tolist() == []
    assert columns.rows_of_parcels(np.array([2, 8, 1])).tolist() == [0, 1, 2]


# Files ---------------------------------------------------------------------------------------


def some_columns() -> Columns:
    random = np.random.default_rng(1)
    corners = random.uniform(0, 1, (500, 2))
    return Columns.of_arrays(
        random.permutation(500) + 1,
        parcels=random.integers(1, 300, 500),
        times=np.where(random.random(500) < 0.1, NO_TIME, random.integers(0, 50, 500)),
        bounds=np.concatenate([corners, corners + 0.1], axis=1),
        numbers={"NDVI": random.random(500)},
        coded={"crop": coded_by([(None, "é"), ("A", "b"), None, ("C", None), None] * 100)},
        attributes={"x": coded_by([1, "1", None, 0.5, "é"] * 100)},
        left_out=frozenset({"y"}),
    )


def test_what_was_written_opens_as_it_was(tmp_path: Path) -> None:
    columns = some_columns()
    columns.write(tmp_path)
    opened = Columns.open(tmp_path)
    assert opened.left_out == {"y"}
    assert opened.rows == 500
    for one, other in [
        (columns.ids, opened.ids),
        (columns.parcels, opened.parcels),
        (columns.times.values, opened.times.values),
        (columns.numbers["NDVI"].buckets, opened.numbers["NDVI"].buckets),
        (columns.boxes.corners, opened.boxes.corners),
        (columns.boxes.sides[2].ordered, opened.boxes.sides[2].ordered),
        (columns.boxes.grid.rows, opened.boxes.grid.rows),
        (columns.coded["crop"].codes, opened.coded["crop"].codes),
        (columns.coded["crop"].time_ranks, opened.coded["crop"].time_ranks),
        (columns.attributes["x"].codes, opened.attributes["x"].codes),
    ]:
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
        assert not other.flags.writeable
    assert opened.coded["crop"].values == columns.coded["crop"].values
    assert opened.attributes["x"].values == columns.attributes["x"].values
    assert opened.rows_of_ids(np.array([3])).tolist() == columns.rows_of_ids(np.array([3])).tolist()


def test_columns_of_no_rows_are_written_and_opened(tmp_path: Path) -> None:
    Columns.of_arrays(np.empty(0, dtype=np.int64)).write(tmp_path)
    opened = Columns.open(tmp_path)
    assert opened.rows == 0
    assert opened.rows_of_ids(np.array([1])).tolist() == []
    assert opened.boxes.mask((1, 1, 1, 1)).tolist() == []


def test_files_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    some_columns().write(tmp_path)
    path = tmp_path / "columns.bin"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StorageError, match=r"columns.bin.*bytes.*parcelle reindex") as caught:
        Columns.open(tmp_path)
    assert caught.value.kind == "generation-corrupt"


def test_files_of_another_version_are_refused(tmp_path: Path) -> None:
    some_columns().write(tmp_path)
    path = tmp_path / "columns.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(StorageError, match="version 99"):
        Columns.open(tmp_path)


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        Columns.open(tmp_path)


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written") as caught:
        some_columns().write(tmp_path / "none")
    assert caught.value.kind == "write-failed"
