import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import shapely
from shapely import LineString, MultiPolygon, Point, Polygon, box
from shapely.geometry import mapping

from indexer.errors import NotFoundError, ParcelsError
from indexer.parcels.files import ParcelsFile, read_parcels
from indexer.parcels.parcel import Parcel, geodesic_area_m2
from indexer.skipped import Skipped

BOWTIE = Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
# A corner inside the area of use of each reference system.
CORNERS = {
    4326: (2.25, 48.5),
    2154: (652_000.0, 6_862_000.0),
    32638: (560_000.0, 4_388_000.0),
    28992: (155_000.0, 463_000.0),
}
SUFFIXES = [".gpkg", ".geojson", ".json", ".shp", ".parquet", ".geoparquet"]


def square(epsg: int, column: int = 0) -> Polygon:
    """The n-th of a row of squares, 100 m or 0.001 degrees wide."""
    x, y = CORNERS[epsg]
    side = 0.001 if epsg == 4326 else 100.0
    return box(x + column * side, y, x + (column + 1) * side, y + side)


def squares(epsg: int = 4326, **columns: object) -> gpd.GeoDataFrame:
    """A row of squares with one value of each column a square."""
    count = len(next(iter(columns.values())))  # type: ignore[call-overload]
    geometry = [square(epsg, column) for column in range(count)]
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=epsg)


def write(frame: gpd.GeoDataFrame, path: Path) -> Path:
    if path.suffix in (".parquet", ".geoparquet"):
        frame.to_parquet(path)
    else:
        frame.to_file(path, driver="GeoJSON" if path.suffix == ".json" else None)
    return path


def write_geojson(path: Path, *features: dict[str, Any]) -> Path:
    document = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def feature(geometry: object, **properties: object) -> dict[str, Any]:
    geometry = mapping(geometry) if isinstance(geometry, shapely.Geometry) else geometry
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def by_id(found: ParcelsFile) -> dict[str, Parcel]:
    return {parcel.parcel_id: parcel for parcel in found.parcels}


def kinds(found: ParcelsFile) -> list[str]:
    return [skipped.kind for skipped in found.skipped]


@pytest.mark.parametrize("epsg", CORNERS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_comes_out_in_longitude_and_latitude(
    tmp_path: Path, suffix: str, epsg: int
) -> None:
    path = write(squares(epsg, id=["a", "b"]), tmp_path / f"parcels{suffix}")
    to_lonlat = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)

    found = read_parcels(path, "somewhere")

    assert [parcel.parcel_id for parcel in found.parcels] == ["a", "b"]
    assert found.skipped == ()
    parcel = found.parcels[1]
    assert parcel.collection == "somewhere"
    corners = shapely.get_coordinates(square(epsg, 1))
    expected = shapely.MultiPoint([to_lonlat.transform(x, y) for x, y in corners])
    assert parcel.geometry is not None
    assert expected.hausdorff_distance(shapely.extract_unique_points(parcel.geometry)) < 1e-7


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_the_names_of_fiboa_are_recognized(tmp_path: Path, suffix: str) -> None:
    columns = {
        "id": ["100-1"],
        "crop:code": ["33101"],
        "crop:name": ["Winterweizen"],
        "metrics:area": [12_345.5],
        "determination:method": ["manual"],
    }
    path = write(squares(**columns), tmp_path / f"parcels{suffix}")
    (parcel,) = read_parcels(path, "de").parcels
    assert (parcel.parcel_id, parcel.crop_code, parcel.crop_name) == (
        "100-1",
        "33101",
        "Winterweizen",
    )
    assert parcel.area_m2 == 12_345.5
    assert parcel.attributes == {"determination:method": "manual"}


def test_the_names_of_fiboa_are_recognized_as_a_shapefile_spells_them(tmp_path: Path) -> None:
    frame = squares(id=["1"], crop_code=["7"], crop_name=["wheat"], metrics_ar=[99.5])
    (parcel,) = read_parcels(write(frame, tmp_path / "parcels.shp"), "c").parcels
    assert (parcel.crop_code, parcel.crop_name, parcel.area_m2) == ("7", "wheat", 99.5)


@pytest.mark.parametrize("suffix", [".shp", ".gpkg"])
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_the_columns_of_the_french_register_are_recognized(
    tmp_path: Path, suffix: str, case: Callable[[str], str]
) -> None:
    columns = {
        case("ID_PARCEL"): ["123456"],
        case("SURF_PARC"): [2.48],
        case("CODE_CULTU"): ["BTH"],
        case("CODE_GROUP"): ["1"],
    }
    path = write(squares(2154, **columns), tmp_path / f"rpg{suffix}")
    found = read_parcels(path, "fr")
    (parcel,) = found.parcels
    assert parcel.parcel_id == "123456"
    assert parcel.crop_code == "BTH"
    assert parcel.crop_name is None
    assert parcel.area_m2 == 24_800.0
    assert parcel.attributes == {case("CODE_GROUP"): "1"}
    assert found.notes == ()


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
    frame = squares(2154, **{"id": ["a", "b"], "metrics:area": [declared, 5.0]})
    found = by_id(read_parcels(write(frame, tmp_path / "parcels.parquet"), "c"))
    assert found["a"].area_m2 == pytest.approx(10_000, rel=4e-3)
    assert found["b"].area_m2 == 5.0


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".parquet"])
def test_crop_names_keep_their_letters(tmp_path: Path, suffix: str) -> None:
    names = ["Mähwiese", "Græs", "Maïs ensilage", "Пшеница", "小麦"]
    frame = squares(id=list("abcde"), crop_name=names)
    path = write(frame, tmp_path / f"parcels{suffix}")
    assert [parcel.crop_name for parcel in read_parcels(path, "c").parcels] == names


def test_a_shapefile_without_a_code_page_is_read_as_latin_1(tmp_path: Path) -> None:
    frame = squares(id=["1"], crop_name=["Maïs"])
    path = tmp_path / "parcels.shp"
    frame.to_file(path, encoding="ISO-8859-1")
    path.with_suffix(".cpg").unlink()
    (parcel,) = read_parcels(path, "c").parcels
    assert parcel.crop_name == "Maïs"


@pytest.mark.parametrize("name", ["PARCEL_ID", "parcel_id", "POLYGON_ID", "Field_ID"])
def test_customary_id_columns_are_recognized_in_any_case(tmp_path: Path, name: str) -> None:
    path = write(squares(**{name: ["x7"]}), tmp_path / "parcels.geojson")
    found = read_parcels(path, "c")
    assert [parcel.parcel_id for parcel in found.parcels] == ["x7"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([123.0, 7.5], ["123", "7.5"]),
        ([123, 4], ["123", "4"]),
        ([2**60 + 1, 5], ["1152921504606846977", "5"]),
        ([" 12 ", "é/1"], ["12", "é/1"]),
    ],
    ids=["floats", "integers", "beyond floats", "texts"],
)
def test_ids_become_text(tmp_path: Path, ids: list[object], expected: list[str]) -> None:
    path = write(squares(id=ids), tmp_path / "parcels.gpkg")
    assert [parcel.parcel_id for parcel in read_parcels(path, "c").parcels] == expected


def test_the_id_column_can_be_named(tmp_path: Path) -> None:
    path = write(squares(id=["1", "2"], REF_ID=[501, 502]), tmp_path / "parcels.gpkg")
    found = by_id(read_parcels(path, "c", id_column="ref_id"))
    assert set(found) == {"501", "502"}
    assert found["501"].attributes == {"id": "1"}


def test_the_crop_column_can_be_named_and_gives_code_and_name(tmp_path: Path) -> None:
    path = write(squares(id=["1"], CROP_TYPE=["barley"]), tmp_path / "parcels.geojson")
    (parcel,) = read_parcels(path, "c", crop_column="CROP_TYPE").parcels
    assert (parcel.crop_code, parcel.crop_name) == ("barley", "barley")
    assert parcel.attributes == {}


def test_naming_the_recognized_crop_column_changes_nothing(tmp_path: Path) -> None:
    frame = squares(**{"id": ["1"], "crop:code": ["7"], "crop:name": ["wheat"]})
    path = write(frame, tmp_path / "parcels.gpkg")
    assert read_parcels(path, "c", crop_column="crop:code") == read_parcels(path, "c")


def test_a_file_without_a_crop_column_says_which_columns_it_has(tmp_path: Path) -> None:
    path = write(squares(id=["1"], kultur=["Weizen"]), tmp_path / "parcels.gpkg")
    (note,) = read_parcels(path, "c").notes
    assert "kultur" in note
    assert "--crop-column" in note


@pytest.mark.parametrize("option", ["id_column", "crop_column"])
def test_a_named_column_that_is_missing_is_refused(tmp_path: Path, option: str) -> None:
    path = write(squares(id=["1"], kultur=["Weizen"]), tmp_path / "parcels.gpkg")
    with pytest.raises(ParcelsError, match=r"parcels\.gpkg.*'crop'.*id, kultur") as caught:
        read_parcels(path, "c", **{option: "crop"})
    assert caught.value.kind == "columns-missing"
    assert f"--{option.replace('_', '-')}" in caught.value.message


@pytest.mark.parametrize("suffix", [".geojson", ".shp", ".parquet"])
def test_a_file_without_ids_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write(squares(kultur=["Weizen", "Mais"]), tmp_path / f"parcels{suffix}")
    with pytest.raises(ParcelsError, match=r"kultur.*--id-column") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "id-missing"


def test_a_geopackage_without_ids_falls_back_on_feature_numbers_and_says_so(
    tmp_path: Path,
) -> None:
    path = write(squares(REF=[11, 12], group=["x", "x"]), tmp_path / "parcels.gpkg")
    found = read_parcels(path, "c")
    assert [parcel.parcel_id for parcel in found.parcels] == ["1", "2"]
    assert any("feature numbers (fid)" in note and "REF." in note for note in found.notes)


def test_feature_numbers_of_a_geopackage_can_be_asked_for(tmp_path: Path) -> None:
    frame = squares(**{"id": ["a", "b"], "crop:code": ["1", "2"]})
    path = write(frame, tmp_path / "parcels.gpkg")
    found = read_parcels(path, "c", id_column="fid")
    assert [parcel.parcel_id for parcel in found.parcels] == ["1", "2"]
    assert found.notes == ()


def test_a_column_of_feature_numbers_is_used_and_named(tmp_path: Path) -> None:
    path = write(squares(OBJECTID=[5, 6]), tmp_path / "parcels.shp")
    found = read_parcels(path, "c")
    assert [parcel.parcel_id for parcel in found.parcels] == ["5", "6"]
    assert any("feature numbers (OBJECTID)" in note for note in found.notes)


@pytest.mark.parametrize("ids", [[2, 2, 2, 1], [None, None, None, 1]], ids=["class", "empty"])
def test_an_id_column_that_identifies_nothing_is_passed_over(
    tmp_path: Path, ids: list[int | None]
) -> None:
    path = write(squares(id=ids, parcel_id=list("wxyz")), tmp_path / "parcels.gpkg")
    assert set(by_id(read_parcels(path, "c"))) == set("wxyz")

    path = write(squares(id=ids), tmp_path / "only.gpkg")
    found = read_parcels(path, "c")
    assert set(by_id(found)) == {"1", "2", "3", "4"}
    assert any("empty or repeating: id" in note for note in found.notes)


def test_a_named_id_column_is_taken_at_its_word(tmp_path: Path) -> None:
    path = write(squares(id=[2, 2, 2, 1]), tmp_path / "parcels.gpkg")
    found = read_parcels(path, "c", id_column="id")
    assert set(by_id(found)) == {"1", "2"}
    assert kinds(found) == ["duplicate-id", "duplicate-id"]


@pytest.mark.parametrize("ids", [["f1", "f2"], [17, 4]], ids=["text", "numbers"])
def test_ids_beside_the_properties_of_geojson_are_read(tmp_path: Path, ids: list[object]) -> None:
    features = [
        {**feature(square(4326, column), name="x"), "id": one} for column, one in enumerate(ids)
    ]
    path = write_geojson(tmp_path / "parcels.geojson", *features)
    assert list(by_id(read_parcels(path, "c"))) == [str(one) for one in ids]


def test_an_id_among_the_properties_goes_before_one_beside_them(tmp_path: Path) -> None:
    path = write_geojson(
        tmp_path / "parcels.geojson", {**feature(square(4326), id=5), "id": "outer"}
    )
    (parcel,) = read_parcels(path, "c").parcels
    assert parcel.parcel_id == "5"


def test_geojson_of_one_feature_a_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "parcels.geojson"
    lines = [json.dumps(feature(square(4326, n), n=n)) for n in range(2)]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert [p.parcel_id for p in read_parcels(path, "c", id_column="n").parcels] == ["0", "1"]


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


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".parquet"])
def test_heights_are_dropped(tmp_path: Path, suffix: str) -> None:
    high = shapely.force_3d(square(2154), 312.0)
    frame = gpd.GeoDataFrame({"id": ["1"]}, geometry=[high], crs=2154)
    (parcel,) = read_parcels(write(frame, tmp_path / f"parcels{suffix}"), "c").parcels
    assert parcel.geometry is not None
    assert not parcel.geometry.has_z


def test_arcs_become_polygons(tmp_path: Path) -> None:
    # CURVEPOLYGON (CIRCULARSTRING ...): a circle of radius 100 m, written as ISO WKB.
    points = [(-100, 0), (0, 100), (100, 0), (0, -100), (-100, 0)]
    x, y = CORNERS[2154]
    ring = struct.pack("<BII", 1, 8, 5)
    ring += b"".join(struct.pack("<dd", x + dx, y + dy) for dx, dy in points)
    circle = struct.pack("<BII", 1, 10, 1) + ring
    pyogrio.raw.write(
        tmp_path / "parcels.gpkg",
        geometry=np.array([circle], dtype=object),
        field_data=[np.array(["1"], dtype=object)],
        fields=["id"],
        geometry_type="Unknown",
        crs="EPSG:2154",
    )
    (parcel,) = read_parcels(tmp_path / "parcels.gpkg", "c").parcels
    assert parcel.area_m2 == pytest.approx(np.pi * 100**2, rel=5e-3)


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


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.gpkg") as caught:
        read_parcels(tmp_path / "nowhere.gpkg", "c")
    assert caught.value.kind == "file-not-found"


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_a_file_without_a_crs_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"parcels{suffix}"
    frame = gpd.GeoDataFrame({"id": ["1"]}, geometry=[box(0, 0, 1, 1)])
    if suffix == ".gpkg":
        with pytest.warns(UserWarning, match="'crs' was not provided"):
            write(frame, path)
    else:
        write(frame, path)
    with pytest.raises(ParcelsError, match=r"no reference system \(CRS\); set the one") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "crs-missing"


def test_a_shapefile_without_prj_is_refused(tmp_path: Path) -> None:
    path = write(squares(2154, id=["1"]), tmp_path / "parcels.shp")
    path.with_suffix(".prj").unlink()
    with pytest.raises(ParcelsError, match=r"\.prj") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "crs-missing"


def test_a_crs_that_is_not_tied_to_the_earth_is_refused(tmp_path: Path) -> None:
    local = (
        'ENGCRS["building site",EDATUM["unknown"],CS[Cartesian,2],'
        'AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    )
    frame = gpd.GeoDataFrame({"id": ["1"]}, geometry=[box(0, 0, 1, 1)], crs=local)
    path = write(frame, tmp_path / "parcels.parquet")
    with pytest.raises(ParcelsError, match="building site") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "crs-missing"


def test_metric_coordinates_that_claim_to_be_degrees_are_refused(tmp_path: Path) -> None:
    path = write_geojson(
        tmp_path / "parcels.geojson", feature(square(2154, 0), id=1), feature(square(2154, 1), id=2)
    )
    with pytest.raises(ParcelsError, match=r"652100, 6862000.*WGS 84") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "crs-missing"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = write(squares(id=[str(n) for n in range(300)]), tmp_path / f"parcels{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ParcelsError, match="cannot be read") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("part", [".shp", ".shx", ".dbf"])
def test_a_truncated_part_of_a_shapefile_is_refused(
    tmp_path: Path, part: str, share: float
) -> None:
    path = write(squares(id=[str(n) for n in range(300)]), tmp_path / "parcels.shp")
    content = path.with_suffix(part).read_bytes()
    path.with_suffix(part).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ParcelsError, match="cannot be read") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("part", [".shx", ".dbf"])
def test_a_shapefile_that_lacks_a_part_is_refused(tmp_path: Path, part: str) -> None:
    path = write(squares(id=["1"]), tmp_path / "parcels.shp")
    path.with_suffix(part).unlink()
    with pytest.raises(ParcelsError, match=rf"its \{part} is missing") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "unreadable"


def test_a_geopackage_with_a_hole_in_its_pages_is_refused(tmp_path: Path) -> None:
    path = write(squares(id=[str(n) for n in range(3000)]), tmp_path / "parcels.gpkg")
    content = bytearray(path.read_bytes())
    hole = slice(len(content) // 3, len(content) // 3 + 8192)
    content[hole] = bytes(8192)
    path.write_bytes(content)
    with pytest.raises(ParcelsError, match="cannot be read") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".json", ".shp", ".parquet", ".zip"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"parcels{suffix}"
    path.write_text("id;crop\n1;wheat\n" * 20, encoding="utf-8")
    with pytest.raises(ParcelsError, match="cannot be read") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "unreadable"


def test_an_unknown_extension_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "parcels.kml"
    path.write_text("<kml/>", encoding="utf-8")
    with pytest.raises(ParcelsError, match=r"\.kml.*GeoPackage.*GeoParquet") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "unreadable"


def test_parquet_without_geometry_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "table.parquet")
    with pytest.raises(ParcelsError, match="GeoParquet") as caught:
        read_parcels(tmp_path / "table.parquet", "c")
    assert caught.value.kind == "unreadable"


def test_geoparquet_with_geoarrow_geometry_is_read(tmp_path: Path) -> None:
    path = tmp_path / "parcels.parquet"
    squares(2154, id=["1"]).to_parquet(path, geometry_encoding="geoarrow", schema_version="1.1.0")
    (parcel,) = read_parcels(path, "c").parcels
    assert parcel.area_m2 == pytest.approx(10_000, rel=4e-3)


def test_a_folder_name_that_looks_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "year=2022"
    folder.mkdir()
    (parcel,) = read_parcels(write(squares(id=["1"]), folder / "p.parquet"), "c").parcels
    assert parcel.attributes == {}


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".parquet"])
def test_a_file_without_features_gives_a_note(tmp_path: Path, suffix: str) -> None:
    path = write(squares(id=["1"]).iloc[:0], tmp_path / f"parcels{suffix}")
    found = read_parcels(path, "c")
    assert (found.parcels, found.skipped) == ((), ())
    assert found.notes[-1].endswith("holds no features.")


def test_layers_without_polygons_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "parcels.gpkg"
    wells = gpd.GeoDataFrame({"id": ["w"]}, geometry=[Point(2, 48)], crs=4326)
    wells.to_file(path, layer="wells")
    pyogrio.write_dataframe(wells[["id"]], path, layer="layer_styles", append=True)
    squares(id=["1"]).to_file(path, layer="fields")
    found = read_parcels(path, "c")
    assert list(by_id(found)) == ["1"]
    assert not any("layers" in note for note in found.notes)


def test_only_the_first_of_several_polygon_layers_is_read_and_the_note_says_so(
    tmp_path: Path,
) -> None:
    path = tmp_path / "parcels.gpkg"
    squares(id=["1"]).to_file(path, layer="y2021")
    squares(id=["2"]).to_file(path, layer="y2022")
    found = read_parcels(path, "c")
    assert list(by_id(found)) == ["1"]
    assert any("y2021, y2022; only y2021" in note for note in found.notes)


def test_a_geopackage_without_any_geometry_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "parcels.gpkg"
    pyogrio.write_dataframe(squares(id=["1"])[["id"]], path, layer="table")
    with pytest.raises(ParcelsError, match="geometry") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("folder", ["", "RPG 2022/"])
def test_a_zipped_shapefile_is_read(tmp_path: Path, folder: str) -> None:
    write(squares(2154, id_parcel=["1", "2"]), tmp_path / "rpg.shp")
    with zipfile.ZipFile(tmp_path / "rpg.zip", "w") as archive:
        for part in tmp_path.glob("rpg.*"):
            if part.suffix != ".zip":
                archive.write(part, folder + part.name)
                archive.writestr(f"__MACOSX/{folder}._{part.name}", b"shadow")
    assert list(by_id(read_parcels(tmp_path / "rpg.zip", "fr"))) == ["1", "2"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["read.me"], "0 shapefiles"),
        (["a.shp", "b.shp"], "2 shapefiles"),
        (["a.shp", "a.shx"], "lacks a.dbf"),
    ],
    ids=["none", "several", "incomplete"],
)
def test_a_zip_file_without_exactly_one_whole_shapefile_is_refused(
    tmp_path: Path, names: list[str], reason: str
) -> None:
    with zipfile.ZipFile(tmp_path / "parcels.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    with pytest.raises(ParcelsError, match=reason) as caught:
        read_parcels(tmp_path / "parcels.zip", "c")
    assert caught.value.kind == "unreadable"


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


def feature_count(path: Path) -> int:
    return int(pyogrio.read_info(path, force_feature_count=True)["features"])


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


def test_the_real_french_register_needs_no_options(test_data: Callable[[str], Path]) -> None:
    found = read_parcels(test_data("parcels_lpis") / "fr_rpg_2022_extract100.gpkg", "fr")
    assert found.notes == ()
    assert all(parcel.crop_code and len(parcel.crop_code) == 3 for parcel in found.parcels)
    assert all("code_group" in parcel.attributes for parcel in found.parcels)


def test_real_parcels_whose_id_is_a_class_are_all_kept(test_data: Callable[[str], Path]) -> None:
    path = test_data("wheat_mustard_india") / "parcels.gpkg"
    found = read_parcels(path, "india", crop_column="name")
    assert len(found.parcels) == feature_count(path)
    assert {parcel.crop_name for parcel in found.parcels} == {"wheat", "mustard"}


def test_a_real_register_reads_the_same_from_a_read_only_folder(
    test_data: Callable[[str], Path], tmp_path: Path
) -> None:
    original = test_data("parcels_lpis") / "be_vlg_2023_extract100.gpkg"
    shutil.copy(original, tmp_path / "copy.gpkg")
    assert (
        read_parcels(original, "be", id_column="REF_ID").parcels
        == read_parcels(tmp_path / "copy.gpkg", "be", id_column="REF_ID").parcels
    )
