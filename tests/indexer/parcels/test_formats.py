import json
import struct
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import shapely
from shapely import Point, box

from indexer.errors import NotFoundError, ParcelsError
from indexer.parcels.files import read_parcels
from tests.indexer.parcels.squares import (
    CORNERS,
    by_id,
    feature,
    square,
    squares,
    write,
    write_geojson,
)

SUFFIXES = [".gpkg", ".geojson", ".json", ".shp", ".parquet", ".geoparquet"]


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
    found = read_parcels(path, "c")
    assert found.parcels[0].crop_name == "Maïs"
    assert any("ISO-8859-1" in note for note in found.notes)


def test_a_shapefile_without_a_code_page_may_be_utf_8(tmp_path: Path) -> None:
    path = write(squares(id=["1"], crop_name=["小麦"]), tmp_path / "parcels.shp")
    path.with_suffix(".cpg").unlink()
    (parcel,) = read_parcels(path, "c").parcels
    assert parcel.crop_name == "小麦"


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
    assert not any("was read" in note for note in found.notes)


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
