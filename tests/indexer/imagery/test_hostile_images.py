"""Images as a hostile colleague would make them: each attack as a real file."""

import io
import json
import os
import struct
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from indexer.archives import MAX_DIRECTORY_BYTES
from indexer.errors import ParcelleError
from indexer.imagery import numpy_image
from indexer.imagery.envi import open_envi
from indexer.imagery.hardening import MAX_BANDS
from indexer.imagery.layers import MAX_SIDE_PX
from indexer.imagery.numpy_image import MAX_ARRAYS, open_numpy
from indexer.imagery.rasters import open_raster
from indexer.imagery.reader import ReadingOptions, Scene, read_image
from indexer.imagery.safe import open_product
from indexer.imagery.safe_metadata import parse_metadata
from indexer.imagery.sources import ImageSource, find_sources, source_at
from indexer.imagery.spectral_cube import MAX_ROW_VALUES
from indexer.imagery.spectral_image import open_spectral_image, read_labels
from indexer.imagery.stac.catalog import StacQuery, find_stac_items
from tests.indexer.imagery.envi_files import write_envi
from tests.indexer.imagery.safe_products import L2A, make_product, metadata_xml, write_jp2
from tests.indexer.imagery.stac.file_server import FileServer, serve_files
from tests.synthetic import TRANSFORM, UTM_31, make_dn, write_geotiff

BANDS = ("B02", "B03", "B04")
SECRET = 7777


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """An image elsewhere that nobody named."""
    return write_geotiff(
        tmp_path / "elsewhere" / "secret.tif", np.full((3, 40, 40), SECRET, np.uint16), BANDS
    )


@pytest.fixture
def server(secret: Path) -> Iterator[FileServer]:
    """Remembers whoever asks."""
    with serve_files(secret.parent) as files:
        yield files


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A good image of 40 x 40 px, alone in its folder."""
    return write_geotiff(tmp_path / "here" / "a.tif", make_dn(40, BANDS), BANDS)


def as_spectra(path: Path) -> Any:  # noqa: ANN401 - an array
    return open_spectral_image(path).read().reflectance


def as_scene(path: Path) -> Any:  # noqa: ANN401 - an array
    return read_image(path, ReadingOptions(bands=BANDS, wanted=BANDS)).reflectance


EVERY_DOOR = pytest.mark.parametrize("read", [as_spectra, as_scene], ids=["spectral", "scene"])
Read = Callable[[Path], Any]


def read_or_refused(read: Callable[[], object]) -> ParcelleError | None:
    """The error; None where it was read after all."""
    try:
        read()
    except ParcelleError as error:
        return error
    return None


def refusal(read: Callable[[], object]) -> ParcelleError:
    """The error, which must come at once: what is refused is not waited for."""
    found: list[BaseException] = []

    def run() -> None:
        try:
            read()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it is waited for"
    assert found, "it was read"
    assert isinstance(found[0], ParcelleError), found[0]
    return found[0]


def vrt(secret: Path | str) -> str:
    return (
        '<VRTDataset rasterXSize="40" rasterYSize="40">'
        + "".join(
            f'<VRTRasterBand dataType="UInt16" band="{number}"><Description>{band}</Description>'
            f'<SimpleSource><SourceFilename relativeToVRT="0">{secret}</SourceFilename>'
            f"<SourceBand>{number}</SourceBand></SimpleSource></VRTRasterBand>"
            for number, band in enumerate(BANDS, start=1)
        )
        + "</VRTDataset>"
    )


# Files that are something else


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.img", "a.hdr", "a.npy", "a.npz"])
def test_a_virtual_raster_is_read_under_no_name(tmp_path: Path, secret: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(vrt(secret), encoding="utf-8")
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.open(path) as file,
    ):
        assert file.read(1)[0, 0] == SECRET, "the trap works where GDAL decides"
    refusal(lambda: open_spectral_image(path))
    refusal(lambda: read_labels(path, (40, 40)))


def test_a_virtual_raster_is_no_band_of_a_product(tmp_path: Path, secret: Path) -> None:
    product = make_product(tmp_path / f"{L2A}.SAFE", bands={"B02": make_dn(120, ("B02",))[0]})
    (band,) = product.glob("GRANULE/*/IMG_DATA/R10m/*_B02_10m.jp2")
    band.write_text(vrt(secret), encoding="utf-8")
    (source,), _ = find_sources([product])
    error = refusal(lambda: Scene.open(source, ReadingOptions(wanted=("B02",))))
    assert error.kind == "unreadable"


@EVERY_DOOR
def test_a_geotiff_inside_another_is_not_reached_by_name(
    image: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    monkeypatch.chdir(image.parent)
    for name in (
        "GTIFF_DIR:1:a.tif",
        "GTIFF_RAW:a.tif",
        "/vsizip//vsizip/a.zip/b.zip/a.tif",
        "/vsicurl/http://127.0.0.1:9/a.tif",
        "http://127.0.0.1:9/a.tif",
        "zip://a.zip!a.tif",
        "/vsisubfile/0_100,a.tif",
    ):
        refusal(partial(read, Path(name)))


# What a file names


@EVERY_DOOR
def test_overviews_that_a_geotiff_names_are_not_read(
    image: Path, secret: Path, server: FileServer, read: Read
) -> None:
    before = read(image)
    for target in (secret, f"{server.url}/secret.tif", f"/vsicurl/{server.url}/secret.tif"):
        with rasterio.open(image, "r+") as file:
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(target))
        np.testing.assert_array_equal(read(image), before)
    assert server.requests == []


@EVERY_DOOR
def test_files_beside_a_geotiff_change_nothing(image: Path, secret: Path, read: Read) -> None:
    before = read(image)
    other = secret.read_bytes()
    for beside in (".ovr", ".msk", ".aux", ".vrt"):
        image.with_name(f"a.tif{beside}").write_bytes(other)
    place = "1\n0\n0\n-1\n5\n5\n"
    for name in ("a.tfw", "a.tifw", "a.wld", "a.tif.wld"):
        image.with_name(name).write_text(place, encoding="utf-8")
    image.with_name("a.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:2154</SRS><GeoTransform>1,2,3,4,5,6</GeoTransform>"
        f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI></Metadata>'
        '<PAMRasterBand band="1"><NoDataValue>1300</NoDataValue></PAMRasterBand></PAMDataset>',
        encoding="utf-8",
    )
    image.with_name("a.prj").write_text('PROJCS["x"]', encoding="utf-8")
    np.testing.assert_array_equal(read(image), before)
    with open_raster(str(image)) as file:
        assert (file.crs, file.transform) == (UTM_31, TRANSFORM)
        assert file.files == [str(image)]


def test_a_world_file_gives_an_image_without_place_none(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", make_dn(8, BANDS), BANDS, crs=None, transform=None)
    path.with_suffix(".tfw").write_text("10\n0\n0\n-10\n500005\n4999995\n", encoding="utf-8")
    assert open_spectral_image(path).transform == rasterio.Affine.identity()


def box(kind: bytes, content: bytes) -> bytes:
    """Of a JPEG 2000 file (ISO 15444-1, annex I)."""
    return struct.pack(">I", 8 + len(content)) + kind + content


def boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        size = size or len(content) - at
        yield content[at + 4 : at + 8], content[at : at + size]
        at += size


def test_gml_in_a_jpeg_2000_file_asks_no_server_and_reads_no_file(
    tmp_path: Path, secret: Path, server: FileServer
) -> None:
    plain = write_jp2(tmp_path / "a.jp2", np.ones((40, 40), dtype=np.uint16)).read_bytes()
    path = tmp_path / "gml.jp2"
    for target in (f"{server.url}/crs.xml", str(secret), f"file://{secret}"):
        gml = (
            '<gml:FeatureCollection xmlns:gml="http://www.opengis.net/gml" '
            'xmlns:xlink="http://www.w3.org/1999/xlink"><gml:featureMember>'
            '<gml:RectifiedGridCoverage dimension="2"><gml:rectifiedGridDomain>'
            f'<gml:RectifiedGrid dimension="2" srsName="{target}"><gml:limits><gml:GridEnvelope>'
            "<gml:low>0 0</gml:low><gml:high>39 39</gml:high></gml:GridEnvelope></gml:limits>"
            f'<gml:origin><gml:Point srsName="{target}"><gml:pos>1 2</gml:pos></gml:Point>'
            f'</gml:origin><gml:offsetVector srsName="{target}">10 0</gml:offsetVector>'
            f'<gml:offsetVector srsName="{target}">0 -10</gml:offsetVector></gml:RectifiedGrid>'
            f'</gml:rectifiedGridDomain><gml:rangeSet><gml:File><gml:fileName xlink:href="{target}"'
            f">{target}</gml:fileName></gml:File></gml:rangeSet></gml:RectifiedGridCoverage>"
            "</gml:featureMember></gml:FeatureCollection>"
        )
        instance = box(b"lbl ", b"gml.root-instance") + box(b"xml ", gml.encode())
        outer = box(b"asoc", box(b"lbl ", b"gml.data") + box(b"asoc", instance))
        kept = [raw for kind, raw in boxes(plain) if kind not in (b"uuid", b"asoc", b"jp2c")]
        codestream = [raw for kind, raw in boxes(plain) if kind == b"jp2c"]
        path.write_bytes(b"".join([*kept, outer, *codestream]))
        with open_raster(str(path)) as file:
            assert file.crs is None
            assert (file.read(1) == 1).all()
    assert server.requests == []


def test_a_sidecars_reference_system_is_not_looked_up(tmp_path: Path, server: FileServer) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 4, 3)))
    for crs in (f"{server.url}/crs", "/etc/passwd", "+init=/tmp/x:1", "PROJ:/etc/passwd"):
        about = {"crs": crs, "transform": [1, 0, 0, 0, 1, 0]}
        (tmp_path / "a.json").write_text(json.dumps(about), encoding="utf-8")
        assert refusal(lambda: open_numpy(tmp_path / "a.npy")).kind == "header-invalid"
    assert server.requests == []


@EVERY_DOOR
@pytest.mark.parametrize("number", [np.nan, np.inf, 0.0, 1e-320, 1e-200, 1e300])
def test_an_image_that_lies_nowhere_is_refused(image: Path, read: Read, number: float) -> None:
    # Tag 33550, ModelPixelScale (OGC 19-008r4, 7.1): the width and height of a pixel.
    content = image.read_bytes()
    # GDAL has written it twice: when the file was made, and when it was described.
    assert struct.pack("<3d", 10, 10, 0) in content
    nowhere = struct.pack("<3d", number, number, 0)
    image.write_bytes(content.replace(struct.pack("<3d", 10, 10, 0), nowhere))
    found = read_or_refused(lambda: read(image))
    assert found is None or found.kind == "unreadable"


# Headers of more than there is


def sparse_geotiff(path: Path, **profile: Any) -> Path:  # noqa: ANN401 - creation options
    """A GeoTIFF whose header states much and that holds nothing."""
    options = {
        "driver": "GTiff",
        "count": 3,
        "dtype": "uint16",
        "sparse_ok": True,
        "tiled": True,
        "bigtiff": "yes",
        "crs": UTM_31,
        "transform": TRANSFORM,
        **profile,
    }
    with rasterio.open(path, "w", **options) as file:
        for number in range(1, min(3, file.count) + 1):
            file.set_band_description(number, BANDS[number - 1])
    return path


def test_a_header_of_longer_sides_than_any_scene_is_refused(tmp_path: Path) -> None:
    stack = np.zeros((3, 2, MAX_SIDE_PX + 1), dtype=np.uint16)
    path = write_geotiff(tmp_path / "a.tif", stack, BANDS, compress="deflate")
    assert refusal(lambda: as_scene(path)).kind == "too-large"


@EVERY_DOOR
def test_a_header_of_very_many_pixels_that_are_not_there_is_refused(
    tmp_path: Path, read: Read
) -> None:
    path = sparse_geotiff(tmp_path / "a.tif", width=100_000, height=100_000)
    assert path.stat().st_size < 4 << 20
    assert refusal(lambda: read(path)).kind in ("size-mismatch", "too-large")


def test_a_header_of_as_many_bands_as_tiff_has_is_read_or_refused_soon(tmp_path: Path) -> None:
    path = sparse_geotiff(
        tmp_path / "a.tif",
        width=16,
        height=16,
        count=MAX_BANDS,
        dtype="uint8",
        interleave="pixel",
        blockxsize=16,
        blockysize=16,
        photometric="minisblack",
        alpha="no",
    )
    assert refusal(lambda: as_spectra(path)).kind == "size-mismatch"
    assert np.isnan(as_scene(path)).all()


def test_a_damaged_box_of_jpeg_2000_does_not_keep_the_reader_for_minutes(tmp_path: Path) -> None:
    path = write_jp2(tmp_path / "a.jp2", np.ones((60, 60), dtype=np.uint8))
    content = path.read_bytes()
    label = struct.pack(">I", 17) + b"lbl gml.data"[:9]
    assert content.count(label) == 1
    path.write_bytes(content.replace(label, struct.pack(">I", 0) + b"\x80bl gml.d"))
    read: list[Any] = []

    def open_and_read() -> None:
        source = ImageSource("a", tmp_path, (("B02", path),))
        read.append(Scene.open(source, ReadingOptions(wanted=("B02",))).read())

    # A daemon: GDAL cannot be stopped once it has begun to go through the boxes.
    thread = threading.Thread(target=open_and_read, daemon=True)
    thread.start()
    thread.join(20)
    assert [chip.reflectance.shape for chip in read] == [(1, 60, 60)]


@pytest.mark.parametrize("number", ["abc", "0", "-5", "99", "9" * 400, "16"])
def test_a_number_of_bits_that_is_none_is_passed_over(image: Path, number: str) -> None:
    with rasterio.open(image, "r+") as file:
        file.update_tags(1, ns="IMAGE_STRUCTURE", NBITS=number)
    assert as_spectra(image).shape == (3, 40, 40)


@pytest.mark.parametrize(
    "header",
    [
        "lines = 999999999999\nsamples = 999999999999\nbands = 4",
        "lines = 30\nsamples = 20\nbands = 4\nheader offset = 999999999999999999",
        "lines = 9223372036854775807\nsamples = 2\nbands = 4",
        "lines = 4294967296\nsamples = 4294967296\nbands = 2",
    ],
)
def test_an_envi_header_beyond_the_numbers_of_a_machine_is_refused(
    tmp_path: Path, header: str
) -> None:
    (tmp_path / "a.img").write_bytes(bytes(30 * 20 * 4))
    kind = "data type = 1\ninterleave = bsq\nbyte order = 0\n"
    (tmp_path / "a.hdr").write_text(f"ENVI\n{header}\n{kind}", encoding="utf-8")
    error = refusal(lambda: open_envi(tmp_path / "a.hdr"))
    assert error.kind in ("size-mismatch", "header-invalid")


@pytest.mark.parametrize("named", ["/etc/passwd", "../elsewhere/secret.tif", "secret.tif"])
def test_an_envi_header_names_no_other_file_as_its_data(
    tmp_path: Path, secret: Path, named: str
) -> None:
    header = write_envi(tmp_path / "a.hdr", np.ones((2, 4, 4), dtype=np.uint8))
    before = as_spectra(header)
    with header.open("a", encoding="utf-8") as file:
        for key in ("data file", "file name", "raster file", "data", "spectra file"):
            file.write(f"{key} = {named}\n")
    np.testing.assert_array_equal(as_spectra(header), before)


def hollow(path: Path, size: int) -> Path:
    """A file of any size that takes no room."""
    with path.open("ab") as file:
        file.truncate(size)
    return path


def test_a_hollow_envi_file_of_many_bands_is_refused_before_they_are_named(tmp_path: Path) -> None:
    bands = 1_000_000_000
    hollow(tmp_path / "a.img", bands)
    (tmp_path / "a.hdr").write_text(
        f"ENVI\nlines = 1\nsamples = 1\nbands = {bands}\ndata type = 1\ninterleave = bsq\n",
        encoding="utf-8",
    )
    assert refusal(lambda: open_envi(tmp_path / "a.hdr")).kind == "too-large"


def npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    file = io.BytesIO()
    about = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()


@pytest.mark.parametrize(
    "shape", [(1, 1, 1_000_000_000), (2, MAX_ROW_VALUES, 2)], ids=["bands", "row"]
)
def test_a_hollow_array_is_refused_before_its_bands_or_rows_fill_the_memory(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    header = npy_header(shape)
    (tmp_path / "a.npy").write_bytes(header)
    hollow(tmp_path / "a.npy", len(header) + int(np.prod(shape)))
    assert refusal(lambda: open_numpy(tmp_path / "a.npy")).kind == "too-large"


# NumPy


class Payload:
    """What pickle would run."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("/tmp/never-made",)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickled_objects_are_never_loaded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    objects = np.empty((2, 2, 2), dtype=object)
    objects[:] = Payload()
    if suffix == ".npy":
        np.save(path, objects, allow_pickle=True)
    else:
        np.savez(path, cube=objects, gt=objects[0])
    refusal(lambda: open_numpy(path))
    refusal(lambda: read_labels(path, (2, 2)))
    assert not Path("/tmp/never-made").exists()


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (10**30, 2, 2), }",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 2, 2), }",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (2.5, 2, 2), }",
        b"{'descr': [('a', '|u1', (1000, 1000, 1000))], 'fortran_order': False, 'shape': (2,2,2)}",
        b"{'descr': '|V999999999', 'fortran_order': False, 'shape': (2, 2, 2), }",
        b"__import__('os').mkdir('/tmp/never-made')",
        b"[" * 9000,
        b"(" * 9000,
        b"-" * 9000 + b"1",
    ],
)
def test_a_header_of_numpy_that_is_none_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8))
    refusal(lambda: open_numpy(path))
    assert not Path("/tmp/never-made").exists()


def test_an_array_that_unpacks_to_more_than_is_read_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_image, "MAX_UNPACKED_BYTES", 1 << 20)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, cube=np.zeros((1024, 512, 3), np.uint8))
    assert path.stat().st_size < 10_000
    assert refusal(lambda: open_numpy(path)).kind == "too-large"


def test_an_array_that_states_more_than_its_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("cube.npy", npy_header((30_000, 30_000, 3)) + bytes(1 << 20))
    assert refusal(lambda: open_numpy(tmp_path / "a.npz")).kind == "size-mismatch"


def test_names_of_classes_that_fill_the_memory_are_refused(tmp_path: Path) -> None:
    names = np.zeros(2_000, dtype="<U20000")
    np.savez_compressed(tmp_path / "a.npz", gt=np.ones((4, 4), np.uint8), label_names=names)
    assert refusal(lambda: read_labels(tmp_path / "a.npz", (4, 4))).kind == "too-large"


def test_an_archive_of_very_many_arrays_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        for number in range(MAX_ARRAYS + 1):
            packed.writestr(f"{number}.npy", b"")
    assert refusal(lambda: open_numpy(tmp_path / "a.npz")).kind == "too-large"


# Zip files and products


def test_a_zip_file_whose_list_fills_the_memory_is_refused_unread(tmp_path: Path) -> None:
    size = MAX_DIRECTORY_BYTES + 1
    path = hollow(tmp_path / f"{L2A}.zip", size)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFE, 0xFFFE, size, 0, 0)
    with path.open("ab") as file:
        file.write(end)
    source = source_at(path, L2A)
    assert source is not None
    assert refusal(lambda: open_product(path, L2A)).kind == "too-large"
    path.rename(tmp_path / "a.npz")
    assert refusal(lambda: open_numpy(tmp_path / "a.npz")).kind in ("too-large", "unreadable")


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd",
        "/etc/passwd",
        "X.SAFE/../../secret.jp2",
        "X.SAFE\\..\\secret.jp2",
        "X.SAFE/GRANULE/\x1b[2J/IMG_DATA/R10m/T_B02_10m.jp2",
    ],
)
def test_a_zip_file_with_a_name_that_leads_out_or_that_a_terminal_obeys_is_refused(
    tmp_path: Path, name: str
) -> None:
    with zipfile.ZipFile(tmp_path / "X.zip", "w") as packed:
        packed.writestr("X.SAFE/GRANULE/L2A_X/IMG_DATA/R10m/T31TCJ_1_B02_10m.jp2", b"x")
        packed.writestr(zipfile.ZipInfo(name), b"x")
    error = refusal(lambda: open_product(tmp_path / "X.zip", "X"))
    assert error.kind == "unsafe-path"
    assert error.message.isprintable()


def test_a_link_in_a_zip_file_is_its_text_and_leads_nowhere(tmp_path: Path, secret: Path) -> None:
    link = zipfile.ZipInfo("X.SAFE/GRANULE/L2A_X/IMG_DATA/R10m/T31TCJ_1_B02_10m.jp2")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "X.zip", "w") as packed:
        packed.writestr(link, str(secret))
    (source,), _ = find_sources([tmp_path / "X.zip"])
    error = refusal(lambda: Scene.open(source, ReadingOptions(wanted=("B02",))))
    assert error.kind == "unreadable"


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">',
        '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1:9/x"> %a;]>',
    ],
    ids=["many", "file", "address", "parameter"],
)
def test_metadata_that_define_entities_are_refused(head: str) -> None:
    text = metadata_xml(head=head).replace("05.09", "&a;")
    error = refusal(lambda: parse_metadata(text.encode(), "X"))
    assert error.kind == "header-invalid"


def test_metadata_nested_very_deeply_or_of_very_many_lines_are_read_or_refused() -> None:
    for text in ("<a>" * 200_000, "<a>" + "\n" * 10_000_000, "<a " + 'b="c" ' * 100_000):
        error = refusal(partial(parse_metadata, text.encode(), "X"))
        assert error.kind == "header-invalid"


@pytest.mark.parametrize("number", ["1e-320", "1e308", "-1", "0", "nan", "inf"])
def test_a_quantification_that_no_product_has_is_refused(number: str) -> None:
    text = metadata_xml(quantification=number)
    error = refusal(lambda: parse_metadata(text.encode(), "X"))
    assert error.kind == "header-invalid"


# Files that are none


def test_a_pipe_as_a_band_is_refused_wherever_it_is_found(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    refusal(lambda: as_spectra(tmp_path / "a.tif"))
    refusal(lambda: as_scene(tmp_path / "a.tif"))

    # The door itself is asked, too: something may have been put there since it was found.
    with pytest.raises(RasterioError, match="no file"), open_raster(str(tmp_path / "a.tif")):
        pytest.fail("it was opened")


def test_a_pipe_beside_an_image_is_not_waited_for(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 4, 3)))
    os.mkfifo(tmp_path / "a.json")
    refusal(lambda: open_numpy(tmp_path / "a.npy"))
    (tmp_path / "b.img").write_bytes(bytes(16))
    os.mkfifo(tmp_path / "b.hdr")
    refusal(lambda: open_envi(tmp_path / "b.img"))


def test_a_pipe_in_a_catalog_is_not_waited_for(tmp_path: Path) -> None:
    catalog = {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "c",
        "links": [{"rel": "item", "href": "./pipe.json"}],
    }
    (tmp_path / "catalog.json").write_text(json.dumps(catalog), encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.json")
    found: list[Any] = []
    query = StacQuery(str(tmp_path / "catalog.json"))
    thread = threading.Thread(target=lambda: found.append(find_stac_items(query)), daemon=True)
    thread.start()
    thread.join(10)
    ((sources, skipped),) = found
    assert sources == []
    assert [one.kind for one in skipped] == ["unreadable"]
