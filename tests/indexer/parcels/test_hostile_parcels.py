"""Parcels files as a hostile colleague would make them: each attack as a real file."""

import json
import os
import shutil
import sqlite3
import struct
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from indexer.errors import ParcelsError
from indexer.parcels import geoparquet, hardening, troubles
from indexer.parcels.files import ParcelsFile, read_parcels
from tests.indexer.imagery.stac.file_server import FileServer, serve_files
from tests.indexer.parcels.squares import by_id, feature, kinds, square, squares, write


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A register elsewhere that nobody named."""
    (tmp_path / "elsewhere").mkdir()
    return write(squares(id=["secret"]), tmp_path / "elsewhere" / "secret.gpkg")


@pytest.fixture
def server(secret: Path) -> Iterator[FileServer]:
    """Remembers whoever asks."""
    with serve_files(secret.parent) as files:
        yield files


@pytest.fixture
def geopackage(tmp_path: Path) -> Path:
    """A good one, of the parcels a and b in the layer ``a``."""
    return write(squares(id=["a", "b"]), tmp_path / "a.gpkg")


def outcome(path: Path) -> ParcelsFile | BaseException:
    """What was read, or the error; either must come soon."""
    found: list[ParcelsFile | BaseException] = []

    def run() -> None:
        try:
            found.append(read_parcels(path, "c"))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert found, "it is waited for"
    return found[0]


def refusal(path: Path) -> ParcelsError:
    found = outcome(path)
    assert isinstance(found, ParcelsError), found
    return found


def geojson(path: Path, **members: object) -> Path:
    collection = {"type": "FeatureCollection", "features": [feature(square(4326), id="a")]}
    path.write_text(json.dumps({**collection, **members}), encoding="utf-8")
    return path


# Files that are something else


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".json", ".shp", ".parquet", ".zip"])
def test_a_virtual_layer_is_read_under_no_name(tmp_path: Path, secret: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    source = f"<SrcDataSource>{secret}</SrcDataSource>"
    path.write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="secret">{source}</OGRVRTLayer></OGRVRTDataSource>',
        encoding="utf-8",
    )
    assert list(gpd.read_file(path).id) == ["secret"] if suffix == ".geojson" else True
    assert refusal(path).kind == "unreadable"


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".json"])
@pytest.mark.parametrize("kind", ["WFS", "CSW"])
def test_a_file_that_names_a_server_asks_nobody(
    tmp_path: Path, server: FileServer, suffix: str, kind: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(
        f"<OGR{kind}DataSource><URL>{server.url}/x</URL></OGR{kind}DataSource>", encoding="utf-8"
    )
    assert refusal(path).kind == "unreadable"
    assert server.requests == []


def test_json_that_is_a_command_of_gdal_runs_nothing(tmp_path: Path, secret: Path) -> None:
    path = tmp_path / "a.geojson"
    command = f"gdal vector pipeline ! read {secret} ! write --output-format=stream x"
    about = {"type": "gdal_streamed_alg", "command_line": command}
    path.write_text(json.dumps(about), encoding="utf-8")
    assert list(gpd.read_file(path).id) == ["secret"], "the trap works where GDAL decides"
    assert refusal(path).kind == "unreadable"


@pytest.mark.parametrize("suffix", [".geojson", ".shp", ".parquet", ".zip", ".json"])
def test_the_content_must_be_of_the_endings_format(geopackage: Path, suffix: str) -> None:
    error = refusal(geopackage.rename(geopackage.with_suffix(suffix)))
    assert error.kind == "unreadable"


def test_a_name_that_looks_like_a_connection_is_that_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["PG:dbname=x.geojson", "a?b#c.geojson", "zip:!x.geojson", "{a}.geojson", "%20.geojson"]
    for name in names:
        path = geojson(Path(name))
        assert list(by_id(read_parcels(path, "c"))) == ["a"], name


# Reference systems


@pytest.mark.parametrize(
    "crs",
    [
        {"type": "link", "properties": {"href": "SERVER/crs", "type": "ogcwkt"}},
        {"type": "\u006cink", "properties": {"href": "SERVER/crs", "type": "proj4"}},
        {"type": "url", "properties": {"url": "SERVER/crs"}},
        {"type": "name", "properties": {"name": "SERVER/crs"}},
        {"type": "name", "properties": {"name": "/etc/passwd"}},
        {"type": "name", "properties": {"name": "+proj=longlat +nadgrids=/etc/passwd"}},
        {"type": "name", "properties": {"name": "+init=/etc/passwd:1"}},
        {"TYPE": "LINK", "PROPERTIES": {"HREF": "SERVER/crs"}},
    ],
)
@pytest.mark.parametrize("member", ['"crs"', '"CRS"', '"\\u0063rs"'])
def test_a_reference_system_of_geojson_is_never_fetched(
    tmp_path: Path, server: FileServer, crs: dict[str, object], member: str
) -> None:
    path = geojson(tmp_path / "a.geojson", crs=crs)
    text = path.read_text(encoding="utf-8").replace("SERVER", server.url).replace('"crs"', member)
    path.write_text(text, encoding="utf-8")
    assert refusal(path).kind == "crs-missing"
    assert server.requests == []


@pytest.mark.parametrize(
    "name",
    [
        "urn:ogc:def:crs:OGC:1.3:CRS84",
        "urn:ogc:def:crs:EPSG::4326",
        "EPSG:4326",
        "http://www.opengis.net/def/crs/OGC/1.3/CRS84",
    ],
)
def test_the_customary_names_of_reference_systems_are_taken(tmp_path: Path, name: str) -> None:
    path = geojson(tmp_path / "a.geojson", crs={"type": "name", "properties": {"name": name}})
    assert list(by_id(read_parcels(path, "c"))) == ["a"]


def test_a_property_called_crs_is_no_reference_system(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    features = [feature(square(4326), id="a", crs="EPSG:2154", more={"crs": {"name": 5}})]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert list(by_id(read_parcels(path, "c"))) == ["a"]


def with_grid(grid: Path | str) -> str:
    """WKT whose shift to WGS 84 stands in a file."""
    return (
        'PROJCS["x",GEOGCS["y",DATUM["z",SPHEROID["GRS 1980",6378137,298.257222101],'
        f'EXTENSION["PROJ4_GRIDS","{grid}"]],PRIMEM["Greenwich",0],'
        'UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
        'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",3],'
        'PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],'
        f'PARAMETER["false_northing",0],UNIT["metre",1],EXTENSION["PROJ4","+proj=utm +zone=31 '
        f'+ellps=GRS80 +nadgrids={grid} +units=m"]]'
    )


def test_a_shapefile_whose_reference_system_names_a_file_is_refused(tmp_path: Path) -> None:
    path = write(squares(2154, id=["a"]), tmp_path / "a.shp")
    path.with_suffix(".prj").write_text(with_grid(tmp_path / "grid.gsb"), encoding="utf-8")
    assert refusal(path).kind in ("crs-missing", "unreadable")


@pytest.mark.parametrize(
    "crs",
    [
        "+init=/etc/passwd:1",
        "+proj=longlat +nadgrids=/etc/passwd +type=crs",
        "http://127.0.0.1:9/crs",
        with_grid("/etc/passwd"),
        {"type": "GeographicCRS", "parameters": [{"name": "file", "value": "/etc/passwd"}]},
        5,
    ],
)
def test_a_reference_system_of_geoparquet_names_no_file_or_server(
    tmp_path: Path, crs: object
) -> None:
    path = write(squares(id=["a"]), tmp_path / "a.parquet")
    table = pq.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    geo["columns"]["geometry"]["crs"] = crs
    pq.write_table(table.replace_schema_metadata({b"geo": json.dumps(geo)}), path)
    assert refusal(path).kind in ("crs-missing", "unreadable")


# GeoPackage


def alter(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)
    return path


def as_layer(name: str) -> list[str]:
    """Statements that make a view or table the only layer."""
    return [
        f"UPDATE gpkg_contents SET table_name = '{name}', identifier = '{name}'",
        f"UPDATE gpkg_geometry_columns SET table_name = '{name}'",
    ]


@pytest.mark.parametrize(
    "select",
    [
        "SELECT fid, geom, id FROM a",
        "SELECT fid, geom, ogr_geocode('paris') AS id FROM a",
        "SELECT fid, geom, ogr_datasource_load_layers('SECRET') AS id FROM a",
        "SELECT fid, geom, load_extension('SECRET') AS id FROM a",
        "SELECT fid, geom, hex(zeroblob(900000000)) AS id FROM a",
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) "
        "SELECT i AS fid, (SELECT geom FROM a) AS geom, i AS id FROM r",
    ],
)
def test_a_view_is_not_run(geopackage: Path, secret: Path, select: str) -> None:
    view = f"CREATE VIEW v AS {select.replace('SECRET', str(secret))}"
    alter(geopackage, "PRAGMA foreign_keys = OFF", view, *as_layer("v"))
    error = refusal(geopackage)
    assert error.kind == "unreadable"
    assert "views (v)" in error.message


@pytest.mark.parametrize("name", ["gpkg_contents", "gpkg_spatial_ref_sys"])
def test_a_view_in_the_place_of_a_table_of_the_format_is_not_run(
    geopackage: Path, name: str
) -> None:
    alter(
        geopackage,
        "PRAGMA foreign_keys = OFF",
        f"ALTER TABLE {name} RENAME TO moved",
        f"CREATE VIEW {name} AS SELECT * FROM moved",
    )
    assert "views" in refusal(geopackage).message


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIRTUAL TABLE v USING VirtualOGR('SECRET')",
        "CREATE VIRTUAL TABLE \"v using rtree(\" USING VirtualOGR('SECRET')",
        "CREATE/**/VIRTUAL TABLE v USING VirtualOGR('SECRET')",
        "CREATE VIRTUAL TABLE v USING VirtualShape('SECRET', 'UTF-8', 4326)",
        "CREATE VIRTUAL TABLE v USING fts5(id)",
    ],
)
def test_a_virtual_table_is_not_opened(geopackage: Path, secret: Path, sql: str) -> None:
    with closing(sqlite3.connect(geopackage)) as database, database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute(
            "INSERT INTO sqlite_master VALUES ('table', 'v', 'v', 0, ?)",
            (sql.replace("SECRET", str(secret)),),
        )
    error = refusal(geopackage)
    assert error.kind == "unreadable"
    assert "secret" not in error.message


def test_a_column_that_is_computed_is_not(geopackage: Path) -> None:
    alter(geopackage, "ALTER TABLE a ADD COLUMN more AS (hex(zeroblob(900000000)))")
    assert "computed columns (a)" in refusal(geopackage).message


def test_triggers_do_not_keep_a_geopackage_from_being_read(geopackage: Path) -> None:
    alter(geopackage, "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a; END")
    assert list(by_id(read_parcels(geopackage, "c"))) == ["a", "b"]


def test_a_database_that_is_no_geopackage_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.gpkg")) as database, database:
        database.execute("CREATE TABLE x (id TEXT, WKT TEXT)")
        database.execute("INSERT INTO x VALUES ('a', 'POLYGON((2 48, 3 48, 3 49, 2 48))')")
    assert "no GeoPackage" in refusal(tmp_path / "a.gpkg").message


# GeoJSON


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"a":' * 1_000_000,
        '{"type":"FeatureCollection","features":[' * 10_000,
        '{"type":"FeatureCollection","crs":' + '{"a":' * 100_000,
        '{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"id":'
        + "[" * 100_000
        + "]" * 100_000
        + '},"geometry":null}]}',
        '{"type":"FeatureCollection","features":null}',
        '{"type":"FeatureCollection","features":{"a":1}}',
        '{"type":"FeatureCollection"',
        "{",
        "\x1e",
        "{}",
    ],
    ids=lambda text: str(text)[:40],
)
def test_json_of_no_end_or_sense_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(text, encoding="utf-8")
    assert refusal(path).kind in ("unreadable", "crs-missing", "id-missing")


@pytest.mark.parametrize("strange", [None, [1], "x", 5, True, {}])
def test_features_that_are_none_do_not_keep_others_from_being_read(
    tmp_path: Path, strange: object
) -> None:
    path = tmp_path / "a.geojson"
    features = [strange, {**feature(square(4326)), "id": 7}]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = outcome(path)
    assert isinstance(found, ParcelsError | ParcelsFile), found


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity", "9" * 5000, "1e308", "-1e308"])
def test_coordinates_beyond_all_measure_make_no_parcel(tmp_path: Path, number: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(
        '{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"id":"a"},'
        f'"geometry":{{"type":"Polygon","coordinates":[[[{number},48],[3,48],[3,49],'
        f"[{number},48]]]}}}}]}}",
        encoding="utf-8",
    )
    found = outcome(path)
    if isinstance(found, ParcelsFile):
        assert found.parcels == ()
        assert len(found.skipped) == 1
    else:
        assert isinstance(found, ParcelsError), found


def test_text_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    path = geojson(tmp_path / "a.geojson")
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"\xff\xfe"'))
    assert refusal(path).kind == "unreadable"


def test_a_parcel_of_very_many_corners_is_listed_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "MAX_CORNERS", 1000)
    circle = shapely.Point(2.25, 48.5).buffer(0.001, quad_segs=500)
    frame = gpd.GeoDataFrame({"id": ["round", "square"]}, geometry=[circle, square(4326)], crs=4326)
    found = read_parcels(write(frame, tmp_path / "a.gpkg"), "c")
    assert list(by_id(found)) == ["square"]
    assert kinds(found) == ["too-large"]


def test_two_million_corners_are_refused_soon(tmp_path: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, 2_000_000, endpoint=False)
    ring = np.column_stack([2.25 + 0.1 * np.cos(angles), 48.5 + 0.1 * np.sin(angles)])
    frame = gpd.GeoDataFrame({"id": ["a"]}, geometry=[shapely.Polygon(ring)], crs=4326)
    found = outcome(write(frame, tmp_path / "a.parquet"))
    assert isinstance(found, ParcelsFile)
    assert kinds(found) == ["too-large"]


def test_a_polygon_that_reprojection_breaks_is_listed(tmp_path: Path) -> None:
    # A billionth of a meter: corners that are apart in meters fall together in degrees.
    x, y, tiny = 652_000.0, 6_862_000.0, 2e-9
    ring = [(x, y), (x + tiny, y), (x + tiny, y + tiny), (x, y + tiny)]
    frame = gpd.GeoDataFrame({"id": ["a"]}, geometry=[shapely.Polygon(ring)], crs=2154)
    assert frame.is_valid.all()
    found = read_parcels(write(frame, tmp_path / "a.gpkg"), "c")
    assert all(one.geometry is not None and one.geometry.is_valid for one in found.parcels)
    assert len(found.parcels) + len(found.skipped) == 1


# More than is read


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".parquet"])
def test_more_features_than_are_read_are_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geoparquet, "MAX_FEATURES", 2)
    path = write(squares(id=["a", "b", "c"]), tmp_path / f"a{suffix}")
    assert refusal(path).kind == "too-large"


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_a_file_of_more_bytes_than_are_read_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardening, "MAX_FILE_BYTES", 100)
    assert refusal(write(squares(id=["a"]), tmp_path / f"a{suffix}")).kind == "too-large"


def test_a_column_for_each_feature_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    features = [feature(square(4326), **{f"p{number}": number}) for number in range(5_000)]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert refusal(path).kind == "too-large"


def test_a_text_that_each_row_repeats_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geoparquet, "MAX_TABLE_BYTES", 100 << 20)
    rows = 1_000
    path = write(squares(id=[str(row) for row in range(rows)]), tmp_path / "a.parquet")
    plain = pq.read_table(path)
    long = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["x" * (1 << 20)])
    schema = plain.schema.append(pa.field("crop_name", pa.string()))
    pq.write_table(plain.append_column("crop_name", long.cast(pa.string())).cast(schema), path)
    assert path.stat().st_size < 1 << 20
    assert refusal(path).kind == "too-large"


@pytest.mark.parametrize(
    "geo",
    [
        b"[" * 100_000,
        b"[]",
        b"5",
        b"null",
        b'{"columns": []}',
        b'{"columns": {"geometry": 5}, "primary_column": "geometry"}',
        b'{"columns": {"geometry": {}}, "primary_column": ["geometry"]}',
        b'{"columns": {"x": {"encoding": "WKB"}}, "primary_column": "x"}',
        b'{"columns": {"geometry": {"encoding": "WKB", "crs": []}}, "primary_column": "geometry"}',
        b'{"columns": {"geometry": {"encoding": 5}}, "primary_column": "geometry"}',
        b"\xff",
    ],
)
def test_metadata_of_geoparquet_that_are_none_are_refused(tmp_path: Path, geo: bytes) -> None:
    path = write(squares(id=["a"]), tmp_path / "a.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"geo": geo}), path)
    assert refusal(path).kind in ("unreadable", "crs-missing")


def test_texts_of_geoparquet_that_are_no_utf_8_are_refused(tmp_path: Path) -> None:
    path = write(squares(id=["abcdefgh", "b"]), tmp_path / "a.parquet")
    content = path.read_bytes()
    plain = pq.read_table(path)
    pq.write_table(plain, path, compression="none", use_dictionary=False, write_statistics=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"abcdefgh", b"abc\x80\xffgh\xfe"))
    assert refusal(path).kind == "unreadable"


# Shapefiles and zip files


@pytest.mark.parametrize("suffix", [".dbf", ".prj", ".cpg", ".qix", ".sbn", ".shp.xml"])
def test_what_lies_beside_a_shapefile_is_no_link_or_pipe(
    tmp_path: Path, secret: Path, suffix: str
) -> None:
    for make in (lambda path: path.symlink_to(secret), os.mkfifo):
        folder = tmp_path / make.__name__
        folder.mkdir()
        path = write(squares(2154, id=["a"]), folder / "a.shp")
        beside = path.with_suffix(suffix)
        beside.unlink(missing_ok=True)
        make(beside)
        assert refusal(path).kind == "unreadable"
        shutil.rmtree(folder)


def test_a_code_page_that_does_not_exist_changes_nothing_else(tmp_path: Path) -> None:
    path = write(squares(2154, id=["a"]), tmp_path / "a.shp")
    path.with_suffix(".cpg").write_text("../../etc/passwd", encoding="utf-8")
    path.with_suffix(".qix").write_bytes(b"SQT\x01\x01\x00\x00\x00" + b"\xff" * 100)
    found = outcome(path)
    assert isinstance(found, ParcelsFile | ParcelsError)


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, bytes]:
    """Of a good shapefile."""
    (tmp_path / "parts").mkdir()
    write(squares(2154, id=["a"]), tmp_path / "parts" / "a.shp")
    return {path.name: path.read_bytes() for path in (tmp_path / "parts").iterdir()}


@pytest.mark.parametrize("name", ["../a.txt", "/etc/passwd", "..\\a.txt", "x/../../a.txt"])
def test_a_zip_file_with_a_name_that_leads_out_is_refused(
    tmp_path: Path, parts: dict[str, bytes], name: str
) -> None:
    error = refusal(zipped(tmp_path / "a.zip", {**parts, name: b"x"}))
    assert "leads out" in error.message


def test_a_zip_file_that_unpacks_to_far_more_is_refused_unpacked(
    tmp_path: Path, parts: dict[str, bytes]
) -> None:
    path = zipped(tmp_path / "a.zip", {**parts, "readme.txt": bytes(80 << 20)})
    assert path.stat().st_size < 1 << 20
    assert refusal(path).kind == "too-large"


def test_a_zip_file_in_a_zip_file_is_not_gone_into(tmp_path: Path, parts: dict[str, bytes]) -> None:
    inner = zipped(tmp_path / "inner.zip", parts).read_bytes()
    assert "0 shapefiles" in refusal(zipped(tmp_path / "a.zip", {"inner.zip": inner})).message


def test_a_header_in_a_zip_file_states_no_more_than_there_is(
    tmp_path: Path, parts: dict[str, bytes]
) -> None:
    shp = bytearray(parts["a.shp"])
    shp[24:28] = struct.pack(">i", 0x7FFFFFFF)
    assert (
        "of 4294967294 bytes"
        in refusal(zipped(tmp_path / "a.zip", {**parts, "a.shp": bytes(shp)})).message
    )
    dbf = bytearray(parts["a.dbf"])
    dbf[4:8] = struct.pack("<I", 0xFFFFFFF0)
    assert refusal(zipped(tmp_path / "a.zip", {**parts, "a.dbf": bytes(dbf)})).kind == "unreadable"


def test_a_pipe_is_no_parcels_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.geojson")
    found = outcome(tmp_path / "a.geojson")
    assert getattr(found, "kind", None) == "file-not-found"


# What damage at random has found


def test_a_schema_of_names_that_are_no_utf_8_is_refused(geopackage: Path) -> None:
    content = geopackage.read_bytes()
    # The schema cannot be parsed, and the message about it cannot be decoded.
    damaged = content.replace(b'CREATE TABLE "a"', b'CREATE TABLE "\xe7" "')
    assert damaged != content
    geopackage.write_bytes(damaged)
    assert refusal(geopackage).kind == "unreadable"


def test_a_reference_system_that_gdal_reads_but_cannot_write_is_refused(tmp_path: Path) -> None:
    path = write(squares(2154, id=["a"]), tmp_path / "a.shp")
    text = path.with_suffix(".prj").read_bytes()
    damaged = text.replace(b'"Degree",', b'"Degree"\xac0.017,')
    damaged = damaged.replace(b"Parallel_1", b"Parallel_0x10").replace(b"llel_2", b"\xffel_2")
    assert damaged != text
    path.with_suffix(".prj").write_bytes(damaged)
    with pytest.raises(UnboundLocalError):
        pyogrio.read_info(path)
    assert refusal(path).kind == "unreadable"
