import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from shapely import Polygon, box, to_wkb

from retriever.memberships import Membership
from retriever.results import Match, Matches, feature, iso

MATCH = Match(
    rank=1,
    score=0.123456789,
    collection="demo",
    parcel_id="demo-017",
    crop_code="BTH",
    crop_name="winter wheat",
    area_m2=12_345.678,
    acquired_at=datetime(2023, 5, 29, 10, 50, 31, 5000, tzinfo=UTC),
    scene="scene-a",
    valid_fraction=0.987654,
    reliable=True,
    medians={"NDVI": 0.712345},
    wkb=to_wkb(box(2, 49, 2.01, 49.01)),
    cluster=Membership(3, "winter wheat", 0.93456),
)
BARE = replace(
    MATCH,
    rank=2,
    crop_code=None,
    crop_name=None,
    area_m2=None,
    acquired_at=None,
    wkb=None,
    cluster=None,
)
MATCHES = Matches(
    query={"id": "demo-001", "k": 2},
    generation=3,
    space={"id": "0123456789ab", "encoder": "croma-large"},
    matches=(MATCH, BARE),
    notes=("Mind this.",),
)


def test_a_match_in_json_has_fiboa_names_and_no_geometry() -> None:
    assert MATCH.to_dict() == {
        "rank": 1,
        "score": 0.123457,
        "collection": "demo",
        "id": "demo-017",
        "crop:code": "BTH",
        "crop:name": "winter wheat",
        "metrics:area": 12345.7,
        "datetime": "2023-05-29T10:50:31Z",
        "scene": "scene-a",
        "valid_fraction": 0.9877,
        "reliable": True,
        "medians": {"NDVI": 0.7123},
        "cluster": "winter wheat",
        "cluster:number": 3,
        "cluster:score": 0.9346,
    }


def test_what_is_unknown_is_null() -> None:
    bare = BARE.to_dict()
    assert {name for name, value in bare.items() if value is None} == {
        "crop:code",
        "crop:name",
        "metrics:area",
        "datetime",
        "cluster",
        "cluster:number",
        "cluster:score",
    }


def test_matches_in_json_hold_question_provenance_and_notes() -> None:
    assert MATCHES.to_dict() == {
        "query": {"id": "demo-001", "k": 2},
        "generation": 3,
        "space": {"id": "0123456789ab", "encoder": "croma-large"},
        "matches": [MATCH.to_dict(), BARE.to_dict()],
        "notes": ["Mind this."],
    }


def test_matches_as_geojson_are_features_that_each_name_their_provenance() -> None:
    collection = MATCHES.to_geojson()
    assert collection["type"] == "FeatureCollection"
    assert collection["numberReturned"] == 2
    assert collection["generation"] == 3
    assert collection["notes"] == ["Mind this."]
    assert "matches" not in collection
    first, second = collection["features"]
    assert first["type"] == "Feature"
    assert first["id"] == "demo-017"
    assert first["properties"] == {**MATCH.to_dict(), "generation": 3, "space": "0123456789ab"}
    assert first["geometry"]["type"] == "Polygon"
    assert second["geometry"] is None


def test_coordinates_are_told_to_seven_decimals() -> None:
    third = 1 / 3
    outline = Polygon([(third, 48), (1, 48), (1, 48 + third)])
    drawn = feature("a", outline, {})["geometry"]
    assert drawn["coordinates"] == [
        [[0.3333333, 48.0], [1.0, 48.0], [1.0, 48.3333333], [0.3333333, 48.0]]
    ]


def test_the_geometry_of_a_match_is_made_of_its_well_known_binary() -> None:
    assert MATCH.geometry == box(2, 49, 2.01, 49.01)
    assert BARE.geometry is None


def test_matches_are_equal_and_travel_whether_or_not_somebody_looked_at_their_geometry() -> None:
    looked, other = replace(MATCH), replace(MATCH)
    assert looked.geometry is looked.geometry
    assert looked == other
    assert looked != replace(MATCH, wkb=to_wkb(box(2, 49, 2.02, 49.01)))
    for match in (looked, other, BARE):
        received = pickle.loads(pickle.dumps(match))
        assert received == match
        assert received.geometry == match.geometry


def test_a_match_in_words_of_python_holds_no_binary() -> None:
    assert "wkb" not in repr(MATCH)
    assert "demo-017" in repr(MATCH)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (None, None),
        (datetime(2023, 5, 29, tzinfo=UTC), "2023-05-29T00:00:00Z"),
        (datetime(2023, 5, 29, 10, 50, 31, 999_999, tzinfo=UTC), "2023-05-29T10:50:31Z"),
        (datetime(2023, 5, 29, 2, tzinfo=timezone(timedelta(hours=4))), "2023-05-28T22:00:00Z"),
    ],
)
def test_times_are_told_in_utc_to_the_second(moment: datetime | None, text: str | None) -> None:
    assert iso(moment) == text
