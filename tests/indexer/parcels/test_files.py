import json
from collections.abc import Callable, Sized
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely import LineString, MultiPolygon, Point, box

from indexer.errors import ParcelsError
from indexer.parcels.files import read_parcels
from indexer.parcels.parcel import geodesic_area_m2
from indexer.skipped import Skipped
from tests.indexer.parcels.squares import (
    BOWTIE,
    CORNERS,
    by_id,
    feature,
    feature_count,
    kinds,
    square,
    squares,
    write,
    write_geojson,
)


def test_hectares_in_single_precision_keep_their_decimals(tmp_path: Path) -> None:
    frame = squares(2154, id_parcel=["1"], surf_parc=np.array([0.45], dtype=np.float32))
    (parcel,) = read_parcels(write(frame, tmp_path / "rpg.gpkg"), "fr").parcels
    assert parcel.area_m2 == 4500.0


def test_an_undeclared_area_is_geodesic(tmp_path: Path) -> None:
    path = write(squares(2154, id=["a"]), tmp_path / "parcels.gpkg")
    (parcel,) = read_parcels(path, "c").parcels
    assert parcel.area_m2 == pytest.approx(geodesic_area_m2(parcel.geometry))
    # Lambert-93 stretches by less than 0.2 % in length.
    assert parcel.area_m2 == pytest.approx(10_000, rel=4e-3)


@pytest.mark.parametrize("declared", [0.0, -1.0, float("nan")])
def test_a_declared_area_that_cannot_be_is_replaced(tmp_path: Path, declared: float) -> None:
    columns: dict[str, Sized] = {"id": ["a", "b"], "metrics:area": [declared, 5.0]}
    frame = squares(2154, **columns)
    found = by_id(read_parcels(write(frame, tmp_path / "parcels.parquet"), "c"))
    assert found["a"].area_m2 == pytest.approx(10_000, rel=4e-3)
    assert found["b"].area_m2 == 5.0


@pytest.mark.parametrize("option", ["id_column", "crop_column"])
def test_a_named_column_that_is_missing_is_refused(tmp_path: Path, option: str) -> None:
    path = write(squares(id=["1"], kultur=["Weizen"]), tmp_path / "parcels.gpkg")
    with pytest.raises(ParcelsError, match=r"parcels\.gpkg.*'crop'.*id, kultur") as caught:
        read_parcels(path, "c", **{option: "crop"})
    assert caught.value.kind == "columns-missing"
    assert f"--{option.replace('_', '-')}" in caught.value.message


def test_other_columns_become_attributes_that_json_can_hold(tmp_path: Path) -> None:
    frame = squares(
        id=["1", "2"],
        count=[3, 4],
        share=[0.5, float("nan")],
        organic=[True, False],
        sown=[datetime(2022, 10, 1, 8, 30, tzinfo=UTC), None],
        note=["été", None],
        blank=["", " "],
        code=np.array([0.1, 2.5], dtype=np.float32),
    )
    path = write(frame, tmp_path / "parcels.parquet")
    found = by_id(read_parcels(path, "c"))
    first = found["1"].attributes
    assert {**first, "sown": None} == {
        "count": 3,
        "share": 0.5,
        "organic": True,
        "sown": None,
        "note": "été",
        "code": 0.1,
    }
    assert datetime.fromisoformat(str(first["sown"])) == datetime(2022, 10, 1, 8, 30, tzinfo=UTC)
    assert found["2"].attributes == {"count": 4, "organic": False, "code": 2.5}
    json.dumps(first, allow_nan=False)


def test_integers_with_gaps_stay_integers(tmp_path: Path) -> None:
    path = write_geojson(
        tmp_path / "parcels.geojson",
        feature(square(4326, 0), id="a", year=2022),
        feature(square(4326, 1), id="b", year=None),
    )
    found = by_id(read_parcels(path, "c"))
    assert found["a"].attributes == {"year": 2022}
    assert found["b"].attributes == {}


def test_bytes_and_lists_are_left_out(tmp_path: Path) -> None:
    frame = squares(id=["1"], raw=[b"\x00\x01"], parts=[[1, 2]], year=[2022])
    (parcel,) = read_parcels(write(frame, tmp_path / "parcels.parquet"), "c").parcels
    assert parcel.attributes == {"year": 2022}


def test_a_multipolygon_stays_one_parcel(tmp_path: Path) -> None:
    both = MultiPolygon([square(2154, 0), square(2154, 2)])
    frame = gpd.GeoDataFrame({"id": ["1"]}, geometry=[both], crs=2154)
    (parcel,) = read_parcels(write(frame, tmp_path / "parcels.gpkg"), "c").parcels
    assert isinstance(parcel.geometry, MultiPolygon)
    assert parcel.area_m2 == pytest.approx(20_000, rel=4e-3)


def test_features_that_cannot_be_used_are_named_and_the_others_kept(tmp_path: Path) -> None:
    path = write_geojson(
        tmp_path / "parcels.geojson",
        feature(square(4326), id="good"),
        feature(None, id="null"),
        feature({"type": "Polygon", "coordinates": []}, id="hollow"),
        feature(BOWTIE, id="bowtie"),
        feature(Point(2, 48), id="point"),
        feature(LineString([(0, 0), (1, 1)]), id="line"),
        feature(square(4326, 1), id=None),
        feature(square(4326, 2), id=" "),
        feature(square(4326, 3), id="good"),
        feature(box(651_000, 6_860_000, 651_100, 6_860_100), id="metric"),
    )
    found = read_parcels(path, "c")
    assert list(by_id(found)) == ["good"]
    assert found.parcels[0].geometry is not None
    assert found.parcels[0].geometry.equals(square(4326))
    assert kinds(found) == [
        "geometry-empty",
        "geometry-empty",
        "geometry-invalid",
        "geometry-type",
        "geometry-type",
        "id-missing",
        "id-missing",
        "duplicate-id",
        "geometry-invalid",
    ]
    named = [
        "null",
        "hollow",
        "bowtie",
        "point",
        "line",
        "feature 7",
        "feature 8",
        "good",
        "metric",
    ]
    for skipped, name in zip(found.skipped, named, strict=True):
        assert skipped.reason.startswith(f"{path}: ")
        assert name in skipped.source
        assert name in skipped.reason


def test_an_id_that_no_index_takes_is_named_and_the_others_kept(tmp_path: Path) -> None:
    longest, longer = "é" * 1000, "é" * 1000 + "a"
    ids = ["a", "a\0b", longest, longer, "c" * 1_000_000]
    path = write(squares(id=ids), tmp_path / "parcels.parquet")
    found = read_parcels(path, "c")
    assert list(by_id(found)) == ["a", longest]
    assert kinds(found) == ["id-invalid"] * 3
    with_null, two_kilobytes, megabyte = found.skipped
    assert "parcel a\\x00b (feature 2): its id holds the character U+0000" in with_null.reason
    assert "(feature 4): its id takes 2,001 bytes, and at most 2,000" in two_kilobytes.reason
    assert "(feature 5): its id takes 1,000,000 bytes" in megabyte.reason
    assert max(len(one.source) for one in found.skipped) < 300 + len(str(path))


def test_ids_that_differ_only_in_what_cannot_be_stored_do_not_become_one(tmp_path: Path) -> None:
    found = read_parcels(write(squares(id=["a\0", "a"]), tmp_path / "parcels.parquet"), "c")
    assert list(by_id(found)) == ["a"]
    assert kinds(found) == ["id-invalid"]


def test_null_characters_are_left_out_of_texts_that_identify_nothing(tmp_path: Path) -> None:
    columns: dict[str, Sized] = {
        "id": ["1", "2"],
        "crop:code": ["B\0TH\0", "\0"],
        "crop:name": ["\0winter wheat", " \0 "],
        "note": ["clay\0 soil", "\0"],
        "so\0wn": [2022, 2023],
    }
    path = write(squares(2154, **columns), tmp_path / "parcels.parquet")
    found = by_id(read_parcels(path, "c"))
    assert (found["1"].crop_code, found["1"].crop_name) == ("BTH", "winter wheat")
    assert found["1"].attributes == {"note": "clay soil", "sown": 2022}
    assert (found["2"].crop_code, found["2"].crop_name) == (None, None)
    assert found["2"].attributes == {"sown": 2023}


def test_a_ring_that_crosses_itself_is_located_and_a_repair_named(tmp_path: Path) -> None:
    x, y = CORNERS[2154]
    crossing = shapely.transform(BOWTIE, lambda points: points * 100 + (x, y))
    frame = gpd.GeoDataFrame({"id": ["7"]}, geometry=[crossing], crs=2154)
    (skipped,) = read_parcels(write(frame, tmp_path / "parcels.gpkg"), "c").skipped
    assert skipped.kind == "geometry-invalid"
    # The crossing is the middle of the bowtie, in the coordinates of the file.
    assert "Self-intersection[652050 6862050]" in skipped.reason
    assert "make_valid" in skipped.reason


def test_a_ring_too_short_to_decode_is_invalid_not_empty(tmp_path: Path) -> None:
    path = write_geojson(
        tmp_path / "parcels.geojson",
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, id="short"),
        feature(square(4326), id="good"),
    )
    found = read_parcels(path, "c")
    assert kinds(found) == ["geometry-invalid"]
    assert any("Non closed ring" in note for note in found.notes)


def test_a_duplicate_names_the_feature_that_was_kept(tmp_path: Path) -> None:
    path = write(squares(parcel_id=["a", "b", "a", "a", "c"]), tmp_path / "parcels.shp")
    found = read_parcels(path, "c")
    assert list(by_id(found)) == ["a", "b", "c"]
    assert kinds(found) == ["duplicate-id", "duplicate-id"]
    assert found.skipped[0].source.endswith("parcel a (feature 3)")
    assert "feature 1" in found.skipped[0].reason
    assert "column parcel_id" in found.skipped[0].reason


def test_a_usable_feature_is_kept_though_an_unusable_one_had_its_id(tmp_path: Path) -> None:
    path = write_geojson(
        tmp_path / "parcels.geojson", feature(BOWTIE, id="a"), feature(square(4326), id="a")
    )
    found = read_parcels(path, "c")
    assert list(by_id(found)) == ["a"]
    assert kinds(found) == ["geometry-invalid"]


def test_metric_coordinates_that_claim_to_be_degrees_are_refused(tmp_path: Path) -> None:
    path = write_geojson(
        tmp_path / "parcels.geojson", feature(square(2154, 0), id=1), feature(square(2154, 1), id=2)
    )
    with pytest.raises(ParcelsError, match=r"652100, 6862000.*WGS 84") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "crs-missing"


def test_what_was_skipped_is_json() -> None:
    skipped = Skipped.from_error("a.tif", ParcelsError("a.tif: empty.", kind="geometry-empty"))
    assert skipped.to_dict() == {
        "source": "a.tif",
        "kind": "geometry-empty",
        "reason": "a.tif: empty.",
    }


REGISTERS = [
    "at_2025_extract100.gpkg",
    "az_beylagan_crops_103.geojson",
    "be_vlg_2023_extract100.gpkg",
    "br_ba_lem_extract100.gpkg",
    "dk_2026_extract100.gpkg",
    "es_cat_2023_extract100.gpkg",
    "fr_rpg_2022_extract100.gpkg",
    "nl_2023_extract100.gpkg",
]


@pytest.mark.parametrize("name", REGISTERS)
def test_every_feature_of_a_real_register_is_read_or_named(
    test_data: Callable[[str], Path], name: str
) -> None:
    path = test_data("parcels_lpis") / name
    found = read_parcels(path, "register")
    assert len(found.parcels) + len(found.skipped) == feature_count(path)
    assert len(found.parcels) >= 100
    for parcel in found.parcels:
        geodesic = geodesic_area_m2(parcel.geometry)
        # Registers round to 0.01 ha.
        assert parcel.area_m2 == pytest.approx(geodesic, rel=0.05, abs=100)
