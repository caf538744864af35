from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import InvalidInputError
from retriever.cql2.expression import Expression
from retriever.queries import MAX_K, Bbox, Interval, ParcelFilter, check_k

longitudes = st.floats(-180, 180)
latitudes = st.floats(-90, 90)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


# Bbox ----------------------------------------------------------------------------------------


def test_a_bbox_is_west_south_east_north() -> None:
    assert Bbox.parse("2.25, 48.8,2.5,48.9") == Bbox(west=2.25, south=48.8, east=2.5, north=48.9)


def test_the_heights_of_a_bbox_are_left_out() -> None:
    # OGC API - Features, /req/core/fc-bbox-definition: four numbers or six.
    assert Bbox.parse("2.25,48.8,-10,2.5,48.9,4810") == Bbox(2.25, 48.8, 2.5, 48.9)
    assert Bbox.parse("179,-18,0,-179,-17,0") == Bbox(179, -18, -179, -17)


def test_a_bbox_may_cross_the_antimeridian() -> None:
    assert Bbox.parse("179,-18,-179,-17") == Bbox(179, -18, -179, -17)


@given(longitudes, latitudes, longitudes, latitudes)
def test_any_corners_on_earth_make_a_bbox_if_south_comes_first(
    west: float, south: float, east: float, north: float
) -> None:
    south, north = sorted((south, north))
    text = ",".join(map(repr, (west, south, east, north)))
    assert Bbox.parse(text) == Bbox(west, south, east, north)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2,48,3",
        "2,48,0,3,49",
        "2,48,0,3,49,100,0",
        "2,48,nan,3,49,100",
        "2,48,low,3,49,high",
        "2;48;3;49",
        "west,48,3,49",
        "2,49,3,48",
        "-181,48,3,49",
        "2,48,180.1,49",
        "2,-91,3,49",
        "2,48,3,90.5",
        "nan,48,3,49",
        "2,48,inf,49",
    ],
)
def test_anything_else_is_no_bbox(text: str) -> None:
    with pytest.raises(InvalidInputError, match="west,south,east,north") as caught:
        Bbox.parse(text)
    assert caught.value.kind == "invalid-bbox"
    assert f'bbox "{text}"' in str(caught.value)


# Interval ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2023-05-29", utc(2023, 5, 29), utc(2023, 5, 30)),
        ("2023-05", utc(2023, 5, 1), utc(2023, 6, 1)),
        ("2023-12", utc(2023, 12, 1), utc(2024, 1, 1)),
        ("2024-02", utc(2024, 2, 1), utc(2024, 3, 1)),
        ("2023", utc(2023, 1, 1), utc(2024, 1, 1)),
        ("2023-05-29/2023-05-29", utc(2023, 5, 29), utc(2023, 5, 30)),
        ("2023-05/2023-06", utc(2023, 5, 1), utc(2023, 7, 1)),
        ("2023-02-01/2023", utc(2023, 2, 1), utc(2024, 1, 1)),
        (" 2023-05-29/.. ", utc(2023, 5, 29), None),
        ("2023-05-29/", utc(2023, 5, 29), None),
        ("../2023-05-29", None, utc(2023, 5, 30)),
        ("/2023-05-29", None, utc(2023, 5, 30)),
        ("../..", None, None),
    ],
)
def test_dates_months_and_years_stand_for_all_of_them(
    text: str, start: datetime | None, end: datetime | None
) -> None:
    interval = Interval.parse(text)
    assert (interval.start, interval.end) == (start, end)
    assert str(interval) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "2023-05-29T10:50:31Z",
        "2023-05-29t10:50:31z",
        "2023-05-29 10:50:31",
        "2023-05-29T10:50:31.000",
        "2023-05-29T12:50:31+02:00",
    ],
)
def test_an_instant_is_itself_alone(text: str) -> None:
    moment = utc(2023, 5, 29, 10, 50, 31)
    interval = Interval.parse(text)
    assert interval.start == moment
    assert interval.end == moment + timedelta(microseconds=1)


def test_an_interval_of_times_includes_both_ends() -> None:
    interval = Interval.parse("2023-05-29T10:00Z/2023-05-29T11:00Z")
    assert interval.start == utc(2023, 5, 29, 10)
    assert interval.end == utc(2023, 5, 29, 11, 0, 0, 1)


@given(st.dates(date(1, 1, 1), date(9999, 12, 30)), st.integers(0, 24 * 3600 * 10**6 - 1))
def test_a_date_holds_every_moment_of_its_day(day: date, microseconds: int) -> None:
    interval = Interval.parse(day.isoformat())
    assert interval.start is not None
    assert interval.end is not None
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    moment += timedelta(microseconds=microseconds)
    assert interval.start <= moment < interval.end
    assert interval.end - interval.start == timedelta(days=1)


@given(st.dates(date(1, 1, 1), date(9999, 11, 30)))
def test_a_month_ends_where_the_next_begins(day: date) -> None:
    following = date(day.year + day.month // 12, day.month % 12 + 1, 1)
    interval = Interval.parse(f"{day:%Y-%m}" if day.year > 999 else f"{day.year:04}-{day.month:02}")
    assert interval.end == Interval.parse(following.isoformat()).start


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "yesterday",
        "29.05.2023",
        "20230529",
        "2023-W22-1",
        "2023-5-29",
        "2023-02-30",
        "2023-13",
        "0000",
        "2023-05-29T10",
        "2023-05-29T25:00Z",
        "0001-01-01T00:00+01:00",
        "\uff12\uff10\uff12\uff13",
        "2023-05-29/2023-06-29/2023-07-29",
        "2023-05-29/soon",
    ],
)
def test_anything_else_is_no_datetime(text: str) -> None:
    with pytest.raises(InvalidInputError, match="write a date or time") as caught:
        Interval.parse(text)
    assert caught.value.kind == "invalid-datetime"


def test_an_interval_does_not_end_before_it_starts() -> None:
    with pytest.raises(InvalidInputError, match="ends before it starts"):
        Interval.parse("2023-06/2023-05")


@pytest.mark.parametrize("parse", [Bbox.parse, Interval.parse])
def test_a_message_holds_little_of_what_was_sent(parse: type) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse("\x1b[2J\n" + 10_000_000 * "9")
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


# Filter and k --------------------------------------------------------------------------------


def test_an_empty_filter_lets_everything_through_and_says_nothing() -> None:
    assert ParcelFilter().is_empty
    assert ParcelFilter().to_dict() == {}


def test_a_filter_tells_what_was_asked_for_in_json() -> None:
    chosen = ParcelFilter(
        collections=("demo",),
        crops=("BTH", "maize"),
        bbox=Bbox.parse("179,-18,-179,-17"),
        interval=Interval.parse("2023-05/.."),
        expression=Expression.parse("(NDVI>0.5)"),
    )
    assert not chosen.is_empty
    assert chosen.to_dict() == {
        "collections": ["demo"],
        "crops": ["BTH", "maize"],
        "bbox": "179,-18,-179,-17",
        "datetime": "2023-05/..",
        "filter": "NDVI > 0.5",
    }


def test_a_bbox_is_told_as_exactly_as_it_was_given() -> None:
    assert str(Bbox.parse("-179.1234567,48.85,2,48.9000001")) == "-179.1234567,48.85,2,48.9000001"


@pytest.mark.parametrize(
    "condition",
    [
        ParcelFilter(collections=("demo",)),
        ParcelFilter(crops=("maize",)),
        ParcelFilter(bbox=Bbox(-180, -90, 180, 90)),
        ParcelFilter(interval=Interval.parse("../..")),
        ParcelFilter(expression=Expression.parse("TRUE")),
    ],
)
def test_any_condition_makes_a_filter(condition: ParcelFilter) -> None:
    assert not condition.is_empty


@pytest.mark.parametrize("k", [1, 10, MAX_K])
def test_k_within_bounds_is_kept(k: int) -> None:
    assert check_k(k) == k


@pytest.mark.parametrize("k", [0, -1, MAX_K + 1])
def test_k_out_of_bounds_is_refused(k: int) -> None:
    with pytest.raises(InvalidInputError, match=f"k is {k}; ask for at least 1") as caught:
        check_k(k)
    assert caught.value.kind == "invalid-k"
