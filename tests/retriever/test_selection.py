"""Columns allow the rows that SQL allows, on SQLite and PostgreSQL."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select, update

from indexer.catalog.database import connect
from indexer.catalog.tables import Collection, Embedding, Observation, Parcel
from indexer.columns import Columns, reading
from indexer.settings import Settings
from retriever.cql2.expression import Expression
from retriever.queries import Bbox, Interval, ParcelFilter
from retriever.selection import rows, select_rows
from retriever.selection.outlines import read_outlines
from retriever.statements import allowed_rows
from tests.retriever.cql2.strategies import TEXTS, expressions
from tests.retriever.planted import Seen, at_cosine, plant
from tests.retriever.stored import store_clusters

IntArray = npt.NDArray[np.int64]

FIELDS = [
    Seen("a", at_cosine(1), crop_code="BTH", crop_name="Été wheat", attributes={"x": "17"}),
    Seen("a", at_cosine(0.9), day="2023-06-01", crop_code="BTH", crop_name="Été wheat"),
    Seen("b", at_cosine(0.9), crop_name="maize", corner=(2.005, 49.0), attributes={"x": 17}),
    Seen(
        "c",
        at_cosine(0.8),
        day="2023-06-01",
        corner=None,
        area_m2=None,
        indices={},
        reliable=False,
        valid_fraction=0.5,
        attributes={"x": False, "y": 0.5},
    ),
    Seen("d", at_cosine(0.7), day=None, collection="other", corner=(3.0, 49.0)),
    Seen("e", at_cosine(0.7), collection="other", corner=(179.995, -17.0), crop_code="bth"),
    Seen("f", at_cosine(0.7), collection="third", corner=(-179.999, -17.0), crop_name="ÉTÉ WHEAT"),
    Seen("g", at_cosine(0.7), corner=(-60.0, 10.0), attributes={"x": True, "y": "TRUE", "z": 1}),
    *(
        Seen(f"text {n}", at_cosine(0.6), crop_name=text or None, attributes={"x": text})
        for n, text in enumerate(TEXTS)
    ),
    *(
        Seen(f"number {n}", at_cosine(0.6), indices={"NDVI": 0.5}, attributes={"x": n, "y": value})
        for n, value in enumerate([-1, 0.5, 2.25, 2**53, 2**53 + 1, 1e300])
    ),
]


def scattered(count: int) -> list[Seen]:
    """Fields here and there, on different days, of different crops and states."""
    random = np.random.default_rng(7)
    days = [f"2023-{month:02}-{day:02}" for month in (4, 5, 6) for day in (1, 11, 28, 29)]
    return [
        Seen(
            f"field {n}",
            at_cosine(0.5),
            day=None if n % 29 == 0 else days[random.integers(len(days))],
            collection=("demo", "other", "third")[random.integers(3)],
            crop_code=(None, "BTH", "MIS", "ORP")[random.integers(4)],
            crop_name=(None, "wheat", "Maïs", "MAÏS")[random.integers(4)],
            corner=None
            if n % 31 == 0
            else (float(random.uniform(1.9, 2.6)), float(random.uniform(48.9, 49.1))),
            area_m2=None if n % 37 == 0 else float(random.integers(1, 6) * 2500),
            reliable=bool(random.integers(2)),
            valid_fraction=float(random.integers(5)) / 4,
            indices={"NDVI": float(random.integers(-4, 5)) / 4},
            attributes={"x": float(random.integers(4)) / 2, "y": TEXTS[random.integers(6)]},
        )
        for n in range(count)
    ]


@dataclass
class Asked:
    """A catalog, and its columns in another order than that of their embeddings."""

    connection: Connection
    space_id: int
    columns: Columns

    def sql(self, chosen: ParcelFilter) -> IntArray:
        return allowed_rows(self.connection, self.space_id, chosen)

    def outlines(self, parcels: IntArray) -> list[bytes | None]:
        return read_outlines(self.connection, parcels)

    def select(self, chosen: ParcelFilter, *, shapes: bool = True) -> list[int]:
        """Embeddings that columns allow."""
        found = select_rows(self.columns, chosen, self.sql, self.outlines if shapes else None)
        assert found.count == len(found.rows)
        assert (np.diff(found.rows) > 0).all()
        return sorted(self.columns.ids[found.rows].tolist())

    def check(self, chosen: ParcelFilter, *, shapes: bool = True) -> list[int]:
        """They are those that SQL allows."""
        found = self.select(chosen, shapes=shapes)
        assert found == self.sql(chosen).tolist(), chosen
        return found


@pytest.fixture(scope="module")
def catalog(shared: Settings) -> Settings:
    """The index of all that was seen; only to be read."""
    plant(shared, FIELDS + scattered(150))
    return shared


def asked_of(connection: Connection) -> Asked:
    """The columns of the only space of a catalog."""
    ids = np.array(connection.scalars(select(Embedding.id)).all(), dtype=np.int64)
    ids = np.random.default_rng(0).permutation(ids)
    space_id = connection.scalar(select(Collection.space_id).limit(1))
    assert space_id is not None
    return Asked(connection, space_id, Columns.read(connection, ids))


@pytest.fixture(scope="module")
def asked(catalog: Settings) -> Iterator[Asked]:
    engine = connect(catalog)
    try:
        with engine.connect() as connection:
            yield asked_of(connection)
    finally:
        engine.dispose()


WAYS = {
    "lists": {"FEW": 10**6, "FEW_SHARE": 1, "SMALL_SHARE": 1},
    "some of both": {"FEW": 20, "FEW_SHARE": 10**6, "SMALL_SHARE": 4},
    "masks": {"FEW": -1, "FEW_SHARE": 10**6, "SMALL_SHARE": 10**6},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way in which a set of rows is found."""
    for name, value in WAYS[request.param].items():
        monkeypatch.setattr(rows, name, value)
    return str(request.param)


def moments() -> st.SearchStrategy[datetime | None]:
    days = st.sampled_from(["2023-04-01", "2023-05-28", "2023-05-29T10:50:31", "2023-06-01"])
    moment = days.map(lambda day: datetime.fromisoformat(day).replace(tzinfo=UTC))
    later = moment.map(lambda time: time + timedelta(microseconds=1))
    return st.none() | moment | later


def boxes() -> st.SearchStrategy[Bbox]:
    west = st.sampled_from([-180.0, -60.0, 1.0, 2.0, 2.01, 2.3, 179.9, 180.0])
    south = st.sampled_from([-90.0, -17.0, 48.9, 49.0, 49.01])
    height = st.sampled_from([0.0, 0.005, 0.05, 41.0])
    return st.builds(lambda w, e, s, h: Bbox(w, s, e, min(s + h, 90)), west, west, south, height)


def filters() -> st.SearchStrategy[ParcelFilter]:
    """Filters of every part, each of them there or not."""
    value = st.sampled_from([*TEXTS, "17", " 17 ", "true", "1e0", 17, 0.5, 1, 2**53, True, False])
    return st.builds(
        ParcelFilter,
        collections=st.lists(st.sampled_from(["demo", "other", "no"]), max_size=2).map(tuple),
        crops=st.lists(
            st.sampled_from(["bth", "BTH", "été WHEAT", "maïs", "Maïs", "wheat", "É", "none"]),
            max_size=2,
        ).map(tuple),
        bbox=st.none() | boxes(),
        interval=st.none()
        | st.builds(lambda start, end: Interval(start, end, ""), moments(), moments()),
        attributes=st.lists(
            st.tuples(st.sampled_from(["x", "y", "absent"]), value), max_size=1
        ).map(tuple),
        text=st.none() | st.sampled_from(["wheat", "a", "MAÏS field", " "]),
        expression=st.none() | expressions().map(Expression.from_json),
    )


@pytest.mark.usefixtures("way")
def test_columns_allow_what_sql_allows(asked: Asked) -> None:
    @settings(max_examples=60)
    @given(filters())
    def check(chosen: ParcelFilter) -> None:
        asked.check(chosen)

    check()


@pytest.mark.usefixtures("way")
def test_one_condition_allows_what_it_allows_in_sql(asked: Asked) -> None:
    @settings(max_examples=60)
    @given(filters(), st.sampled_from(["crops", "bbox", "interval", "attributes"]))
    def check(chosen: ParcelFilter, name: str) -> None:
        asked.check(ParcelFilter(**{name: getattr(chosen, name)}))

    check()


@pytest.mark.usefixtures("way")
def test_expressions_mean_in_columns_what_they_mean_in_sql(asked: Asked) -> None:
    @settings(max_examples=80)
    @given(expressions(), st.booleans())
    def check(tree: Any, shapes: bool) -> None:  # noqa: ANN401 - JSON
        asked.check(ParcelFilter(expression=Expression.from_json(tree)), shapes=shapes)

    check()


CONDITIONS = [
    "datetime <> DATE('2023-05-29')",
    "NOT datetime <> DATE('2023-05-29')",
    "t_during(datetime, INTERVAL('..', '..'))",
    "t_during(datetime, INTERVAL('2023-05-29T10:50:31Z', '..'))",
    "t_during(datetime, INTERVAL('..', '2023-05-29T10:50:31Z'))",
    "NOT t_after(datetime, INTERVAL('2023-05-01', '..'))",
    "t_disjoint(datetime, INTERVAL('2023-05-01', '2023-05-29'))",
    "datetime IS NULL OR geometry IS NULL",
    "NOT (datetime IS NULL OR geometry IS NULL OR \"metrics:area\" IS NULL)",
    "NDVI IN (0.5, -0.25) AND NOT \"metrics:area\" IN (2500, 5000)",
    "NDVI <> 0.5 AND valid_fraction <= 0.5",
    "NOT NDVI <> 0.5",
    "reliable = FALSE",
    "reliable > FALSE OR absent = 1",
    "NOT absent = 1",
    "absent IS NULL AND NOT x IS NULL",
    "NOT absent IS NULL",
    "\"crop:code\" IS NULL AND \"crop:name\" IS NOT NULL",
    "NOT \"crop:code\" LIKE 'B%' AND NOT casei(\"crop:name\") = casei('MAÏS')",
    "casei(\"crop:name\") LIKE casei('%ï_')",
    "casei(\"crop:name\") IN (casei('été wheat'), casei('maïs'))",
    "\"crop:code\" < 'C' OR \"crop:name\" >= 'É'",
    "collection IN ('demo', 'third') AND collection <> 'demo'",
    "x IN ('17', 17, TRUE)",
    "NOT x IN (17, 0.5)",
    "NOT x IN (17, 'a')",
    "x >= 0 AND NOT y > 'a'",
    "id = 'a' OR NDVI > 0.5",
    "NOT (id LIKE 'field%' OR reliable = TRUE)",
    "NDVI > 0 AND id LIKE 'field%' AND reliable = TRUE",
    "cluster = 'first'",
    "NOT \"cluster:number\" = 2 AND reliable = TRUE",
    "cluster IS NULL AND NDVI = 0.5",
    "s_intersects(geometry, BBOX(2.0, 48.95, 2.3, 49.0))",
    "NOT s_intersects(geometry, BBOX(2.0, 48.95, 2.3, 49.0))",
    "s_intersects(geometry, BBOX(179.9, -18, -179.9, 0))",
    "s_intersects(geometry, BBOX(2.05, 48.9, 2.051, 49.1)) AND NDVI > 0",
    "s_intersects(geometry, POLYGON((2.0 48.9, 2.3 48.9, 2.0 49.1, 2.0 48.9)))",
    "NOT s_intersects(geometry, LINESTRING(2.0 48.9, 2.3 49.1)) OR reliable = TRUE",
    "TRUE AND NOT FALSE",
    "FALSE OR datetime > DATE('2023-05-29')",
]  # fmt: skip


@pytest.mark.usefixtures("way")
def test_each_condition_means_in_columns_what_it_means_in_sql(asked: Asked) -> None:
    for condition in CONDITIONS:
        chosen = ParcelFilter(expression=Expression.parse(condition))
        found = asked.check(chosen)
        assert asked.check(chosen, shapes=False) == found


@pytest.fixture
def planted(empty: Settings) -> Iterator[Callable[[list[Seen]], Asked]]:
    """Makes an index of some fields."""
    engine = connect(empty)
    connections = []

    def make(seen: list[Seen]) -> Asked:
        plant(empty, seen)
        connections.append(engine.connect())
        return asked_of(connections[-1])

    yield make
    for connection in connections:
        connection.close()
    engine.dispose()


def test_filters_allow_the_rows_that_fulfill_them(
    planted: Callable[[list[Seen]], Asked],
) -> None:
    asked = planted(
        [
            Seen("wheat", at_cosine(1), crop_name="Winter Wheat", corner=(2.0, 49.0)),
            Seen("maize", at_cosine(1), crop_code="MIS", corner=(2.5, 49.0), day="2023-06-01"),
            Seen("unknown", at_cosine(1), corner=None, day=None),
        ]
    )

    def ids(**parts: Any) -> list[str]:  # noqa: ANN401
        return sorted(
            asked.connection.scalars(
                select(Parcel.parcel_id)
                .join(Observation)
                .join(Embedding)
                .where(Embedding.id.in_(asked.check(ParcelFilter(**parts))))
            )
        )

    assert ids() == ["maize", "unknown", "wheat"]
    assert ids(crops=("winter wheat", "mis")) == ["maize", "wheat"]
    assert ids(bbox=Bbox(1.9, 48.9, 2.0, 49.0)) == ["wheat"]
    assert ids(bbox=Bbox(2.511, 48.9, 3.0, 49.0)) == []
    assert ids(interval=Interval.parse("2023-06")) == ["maize"]
    assert ids(interval=Interval.parse("../..")) == ["maize", "wheat"]
    assert ids(text="mai") == ["maize"]


def test_sql_is_asked_for_what_columns_do_not_hold_and_nothing_else(asked: Asked) -> None:
    heard: list[ParcelFilter] = []

    def ask(chosen: ParcelFilter) -> IntArray:
        heard.append(chosen)
        return asked.sql(chosen)

    select_rows(asked.columns, ParcelFilter(crops=("BTH",), attributes=(("x", 17),)), ask)
    select_rows(asked.columns, ParcelFilter(expression=Expression.parse("NDVI > 0")), ask)
    assert heard == []
    both = ParcelFilter(expression=Expression.parse("NDVI > 0 AND id LIKE 'field%'"))
    select_rows(asked.columns, both, ask)
    assert [str(one.expression) for one in heard] == ["id LIKE 'field%'"]


def test_sql_is_not_asked_where_no_row_is_left(asked: Asked) -> None:
    def ask(_: ParcelFilter) -> IntArray:
        pytest.fail("SQL was asked")

    nowhere = ParcelFilter(bbox=Bbox(70, 70, 71, 71), text="wheat")
    assert select_rows(asked.columns, nowhere, ask).count == 0


def test_attributes_of_too_many_values_are_asked_of_sql(
    catalog: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_VALUES", 2)
    engine = connect(catalog)
    with engine.connect() as connection:
        asked = asked_of(connection)
        assert {"x", "y"} <= asked.columns.left_out
        found = asked.check(ParcelFilter(attributes=(("x", 17),)))
        assert found == asked.check(ParcelFilter(expression=Expression.parse("x = 17")))
        assert found
        asked.check(ParcelFilter(attributes=(("x", 1), ("z", 1)), crops=("wheat",)))
        asked.check(ParcelFilter(expression=Expression.parse("NOT x IS NULL AND NDVI = 0.5")))
    engine.dispose()


def test_clusters_are_asked_of_sql(empty: Settings) -> None:
    plant(empty, FIELDS[:4])
    store_clusters(empty, [["a"], ["b"]], {1: "first"})
    engine = connect(empty)
    with engine.connect() as connection:
        asked = asked_of(connection)
        assert len(asked.check(ParcelFilter(expression=Expression.parse("cluster = 'first'")))) == 2
        for condition in CONDITIONS:
            if "cluster" in condition:
                asked.check(ParcelFilter(expression=Expression.parse(condition)))
    engine.dispose()


def test_rows_whose_embedding_is_gone_are_never_allowed(empty: Settings) -> None:
    plant(empty, FIELDS)
    engine = connect(empty)
    with engine.begin() as connection:
        before = asked_of(connection)
        gone = int(before.columns.ids[3])
        ids = np.append(before.columns.ids, [10**6])
        connection.execute(
            Embedding.__table__.delete().where(Embedding.id == gone)  # type: ignore[attr-defined]
        )
        asked = Asked(connection, before.space_id, Columns.read(connection, ids))
        found = asked.check(ParcelFilter())
        assert gone not in found
        assert len(found) == len(FIELDS) - 1
        for chosen in (
            ParcelFilter(expression=Expression.parse("NOT absent = 1 OR absent IS NULL")),
            ParcelFilter(expression=Expression.parse("datetime IS NULL OR NDVI IS NULL")),
        ):
            asked.check(chosen)
    engine.dispose()


def test_crops_are_compared_without_case_whatever_letters_they_have() -> None:
    columns = of_crops(["été", "ÉTÉ", "Été", "étÉ", "ete", "Weizen", "WEIZEN"])
    assert allowed(columns, "été") == [0, 1, 2, 3]
    assert allowed(columns, "ÉTÉ") == [0, 1, 2, 3]
    assert allowed(columns, "weizen") == [5, 6]


def of_crops(names: list[str]) -> Columns:
    values = [None, *((None, name) for name in names)]
    codes = np.arange(1, len(values), dtype=np.uint8)
    return Columns.of_arrays(np.arange(1, len(values)), coded={"crop": (codes, values)})


def allowed(columns: Columns, *crops: str) -> list[int]:
    found = select_rows(columns, ParcelFilter(crops=crops), lambda _: np.empty(0, np.int64))
    return list(found.rows.tolist())


def test_outlines_are_read_only_where_rectangles_do_not_tell(empty: Settings) -> None:
    inside, corner, beside = (2.5, 49.5), (2.995, 49.995), (3.1, 49.5)
    plant(
        empty,
        [
            Seen("inside", at_cosine(1), corner=inside),
            Seen("corner", at_cosine(1), corner=corner),
            Seen("beside", at_cosine(1), corner=beside),
        ],
    )
    engine = connect(empty)
    with engine.begin() as connection:
        # Its rectangle has a corner in the shape, itself it lies beyond.
        triangle = shapely.Polygon([(3.005, 49.995), (3.005, 50.005), (2.995, 50.005)])
        corner_row = connection.scalar(select(Parcel.id).where(Parcel.parcel_id == "corner"))
        assert corner_row is not None
        connection.execute(
            update(Parcel).where(Parcel.id == corner_row).values(geometry=shapely.to_wkb(triangle))
        )
        asked = asked_of(connection)
        read: list[int] = []

        def outlines(parcels: IntArray) -> list[bytes | None]:
            read.extend(parcels.tolist())
            return read_outlines(connection, parcels)

        for shape in (
            "BBOX(2, 49, 3, 49.999)",
            "POLYGON((2 49, 3 49, 3 49.999, 2 49.999, 2 49))",
        ):
            chosen = ParcelFilter(expression=Expression.parse(f"s_intersects(geometry, {shape})"))
            found = select_rows(asked.columns, chosen, asked.sql, outlines)
            expected = asked.sql(chosen).tolist()
            assert len(expected) == 1
            assert asked.columns.ids[found.rows].tolist() == expected
            assert read == [corner_row]
            read.clear()
    engine.dispose()


def test_a_parcel_of_two_parts_meets_nothing_that_lies_between_them(empty: Settings) -> None:
    plant(empty, [Seen("split", at_cosine(1), corner=(2.5, 49.5))])
    parts = [shapely.box(2.5, 49.5, 2.51, 49.502), shapely.box(2.5, 49.508, 2.51, 49.51)]
    engine = connect(empty)
    with engine.begin() as connection:
        connection.execute(update(Parcel).values(geometry=shapely.MultiPolygon(parts).wkb))
        asked = asked_of(connection)
        for shape, expected in [
            ("BBOX(2.4, 49.503, 2.6, 49.507)", 0),
            ("POLYGON((2.4 49.503, 2.6 49.503, 2.6 49.507, 2.4 49.507, 2.4 49.503))", 0),
            ("BBOX(2.4, 49.503, 2.6, 49.508)", 1),
            ("BBOX(2.4, 49.503, 2.6, 49.6)", 1),
        ]:
            chosen = ParcelFilter(expression=Expression.parse(f"s_intersects(geometry, {shape})"))
            assert len(asked.check(chosen)) == expected
    engine.dispose()


def test_columns_that_were_written_allow_the_same(asked: Asked, tmp_path: Path) -> None:
    asked.columns.write(tmp_path)
    opened = Asked(asked.connection, asked.space_id, Columns.open(tmp_path))

    @settings(max_examples=30)
    @given(filters())
    def check(chosen: ParcelFilter) -> None:
        opened.check(chosen)

    check()
