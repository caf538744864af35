import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.errors import ImageryError
from indexer.imagery.chip import Chip
from indexer.imagery.rasters import held_open
from indexer.imagery.reader import ReadingOptions, Scene, read_image
from indexer.imagery.safe import open_product
from indexer.imagery.safe_metadata import parse_metadata
from indexer.imagery.sources import ImageSource, find_sources, source_at
from indexer.sensors import PROFILES
from tests.indexer.imagery.safe_products import (
    L1C,
    L2A,
    OFFSETS,
    Layout,
    band_dn,
    clear_classes,
    image_name,
    make_product,
    metadata_xml,
    write_jp2,
    zip_product,
)
from tests.synthetic import write_band_folder

BANDS = PROFILES["l2a"]
LAYOUTS: tuple[Layout, ...] = ("l2a", "l2a-2017", "l2a-2016", "l1c", "l1c-2016")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Level-2A product that no test changes."""
    return make_product(tmp_path_factory.mktemp("product") / f"{L2A}.SAFE")


@pytest.fixture
def own_product(product: Path, tmp_path: Path) -> Path:
    """A product that a test may damage."""
    copied = tmp_path / product.name
    shutil.copytree(product, copied)
    return copied


def source_of(path: Path) -> ImageSource:
    (source,), skipped = find_sources([path])
    assert skipped == []
    return source


def read(path: Path, **options: Any) -> Chip:  # noqa: ANN401 - fields of ReadingOptions
    return Scene.open(source_of(path), ReadingOptions(**options)).read()


def refusal(path: Path, **options: Any) -> ImageryError:  # noqa: ANN401 - fields of ReadingOptions
    """The error that names the product."""
    with pytest.raises(ImageryError) as caught:
        read(path, **options)
    assert str(path) in caught.value.message
    return caught.value


def assert_same_pixels(chip: Chip, other: Chip) -> None:
    assert chip.bands == other.bands
    np.testing.assert_array_equal(chip.reflectance, other.reflectance)
    np.testing.assert_array_equal(chip.valid_mask, other.valid_mask)
    np.testing.assert_array_equal(chip.scl, other.scl)
    assert (chip.transform, chip.crs, chip.shape) == (other.transform, other.crs, other.shape)


# What is read


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_product_is_read_as_its_bands_are(tmp_path: Path, layout: Layout) -> None:
    dn = band_dn(seed=3)
    product = make_product(tmp_path / "products" / "X.SAFE", layout, bands=dn)
    level_2a = layout.startswith("l2a")
    layers = {band: dn[band] for band in BANDS} | ({"SCL": clear_classes()} if level_2a else {})
    expected = read(write_band_folder(tmp_path / "bands", layers), baseline="05.09")
    chip = read(product)
    assert_same_pixels(chip, expected)
    assert chip.shape == (120, 120)
    assert (chip.scl is not None) == level_2a
    np.testing.assert_allclose(chip.band("B04"), (dn["B04"] - 1000.0) / 10_000, atol=1e-7)


def test_each_band_is_scaled_as_the_metadata_state(tmp_path: Path) -> None:
    dn = {band: np.full_like(values, 2000) for band, values in band_dn().items()}
    offsets = OFFSETS | {"B02": -900.0, "B8A": -500.0, "B12": 0.0}
    stated = metadata_xml("l2a", quantification=5000, offsets=offsets)
    chip = read(make_product(tmp_path / "X.SAFE", bands=dn, metadata=stated))
    # (2000 - 1000) / 5000 but for the three.
    expected = {"B02": 0.22, "B8A": 0.3, "B12": 0.4}
    for band in BANDS:
        np.testing.assert_allclose(chip.band(band), expected.get(band, 0.2), atol=1e-7)


def test_every_digital_number_is_scaled_as_by_the_rule_of_its_baseline(tmp_path: Path) -> None:
    dn = np.arange(1, 65_535, dtype=np.uint16)[: 254 * 258].reshape(-1, 254)
    dn = np.resize(dn, (256, 256))
    product = make_product(tmp_path / "a" / "X.SAFE", bands={"B04": dn}, metadata=metadata_xml())
    told, ruled = (read(product, wanted=("B04",), baseline=baseline) for baseline in (None, "5.09"))
    assert told.processing_baseline == "05.09"
    np.testing.assert_array_equal(told.reflectance, ruled.reflectance)


def test_clouds_of_the_classification_are_masked(tmp_path: Path) -> None:
    classes = clear_classes()
    classes[10, 20] = 9
    chip = read(make_product(tmp_path / "X.SAFE", scl=classes))
    # A pixel of 20 m is four of 10 m.
    expected = np.ones((120, 120), dtype=bool)
    expected[20:22, 40:42] = False
    np.testing.assert_array_equal(chip.valid_mask, expected)
    assert chip.scl is not None
    assert chip.scl[20, 40] == 9


def test_digital_number_0_is_no_data(tmp_path: Path) -> None:
    dn = band_dn()
    dn["B03"][5, 7] = 0
    chip = read(make_product(tmp_path / "X.SAFE", bands=dn))
    assert np.argwhere(~chip.valid_mask).tolist() == [[5, 7]]
    assert np.isnan(chip.band("B03")[5, 7])


def test_of_a_band_at_several_pixel_sizes_the_finest_is_read(own_product: Path) -> None:
    fine = np.full((60, 60), 3000, dtype=np.uint16)
    write_jp2(own_product / image_name("l2a", "B01", 20), fine)
    np.testing.assert_allclose(read(own_product).band("B01"), 0.2, atol=1e-7)


def test_windows_of_a_product_are_read_as_they_are_cut_from_the_whole(product: Path) -> None:
    scene = Scene.open(source_of(product), ReadingOptions())
    whole = scene.read()
    windows = [(0, 0, 120, 120), (1, 7, 30, 40), (61, 59, 59, 61), (119, 119, 1, 1)]
    apart = [scene.read(*window) for window in windows]
    with held_open():
        held = [scene.read(*window) for window in windows]
    for window, one, other in zip(windows, apart, held, strict=True):
        assert_same_pixels(one, whole.window(*window))
        assert_same_pixels(other, whole.window(*window))


def test_a_product_is_a_chip_where_it_is_small(product: Path) -> None:
    assert_same_pixels(read_image(product, ReadingOptions()), read(product))


# Zip files


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("file", "root"),
    [
        (f"{L2A}.SAFE.zip", None),
        (f"{L2A}.zip", None),
        ("download (1).zip", None),
        ("a}b{c.zip", f"2023/june/{L2A}.SAFE"),
        (f"{L2A}.zip", ""),
    ],
    ids=["SAFE.zip", "zip", "other name", "deeper", "without its folder"],
)
def test_a_zip_file_is_read_as_the_folder_in_it(
    product: Path, tmp_path: Path, file: str, root: str | None, compression: int
) -> None:
    packed = zip_product(product, tmp_path / file, root=root, compression=compression)
    source = source_of(packed)
    assert (source.name, source.path, source.kind) == (L2A, packed, "safe")
    chip = read(packed)
    assert_same_pixels(chip, read(product))
    assert (chip.scene, chip.source) == (L2A, str(packed))


def test_a_zip_file_of_several_products_is_several_images(product: Path, tmp_path: Path) -> None:
    packed = zip_product(product, tmp_path / "both.zip")
    later = make_product(
        tmp_path / "later" / "later.SAFE", metadata=metadata_xml(start="2023-07-01T10:50:31Z")
    )
    with zipfile.ZipFile(packed, "a") as both:
        for path in later.rglob("*"):
            both.write(path, f"later.SAFE/{path.relative_to(later).as_posix()}")
    sources, _ = find_sources([packed])
    assert [source.name for source in sources] == [L2A, "later"]
    months = {
        source.name: Scene.open(source, ReadingOptions()).acquired_at.month  # type: ignore[union-attr]
        for source in sources
    }
    assert months == {L2A: 6, "later": 7}


# Time and baseline


def opened(path: Path, **options: Any) -> Scene:  # noqa: ANN401 - fields of ReadingOptions
    return Scene.open(source_of(path), ReadingOptions(wanted=("B04",), **options))


@pytest.mark.parametrize(
    ("name", "stated", "told", "baseline", "reflectance"),
    [
        (L2A, metadata_xml(), None, "05.09", 0.1),
        (L2A, metadata_xml(baseline="02.14", offsets={}), None, "02.14", 0.2),
        (L2A, metadata_xml(offsets={}), None, "05.09", 0.1),
        (L2A, metadata_xml(baseline=None), None, "05.09", 0.1),
        (L2A, metadata_xml(baseline="99.99"), None, "05.09", 0.1),
        (L2A, None, None, "05.09", 0.1),
        (L2A.replace("N0509", "N0214"), None, None, "02.14", 0.2),
        ("renamed", None, None, None, 0.1),
        (L2A, metadata_xml(), "02.14", "02.14", 0.2),
        (L2A, metadata_xml(offsets=OFFSETS | {"B04": -500.0}), "05.09", "05.09", 0.15),
        ("renamed", None, "02.14", "02.14", 0.2),
    ],
    ids=[
        "metadata",
        "metadata of an old baseline over the name",
        "metadata without offsets",
        "name where metadata are silent",
        "name where it was processed by hand",
        "name without metadata",
        "old name without metadata",
        "date alone",
        "user over metadata",
        "user of the same opinion",
        "user alone",
    ],
)
def test_the_offset_follows_from_the_best_knowledge_of_the_baseline(
    tmp_path: Path,
    name: str,
    stated: str | None,
    told: str | None,
    baseline: str | None,
    reflectance: float,
) -> None:
    dn = {"B04": np.full((120, 120), 2000, dtype=np.uint16)}
    product = make_product(tmp_path / f"{name}.SAFE", bands=dn, metadata=stated)
    scene = opened(product, baseline=told)
    assert scene.processing_baseline == baseline
    np.testing.assert_allclose(scene.read().reflectance, reflectance, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "stated", "moment"),
    [
        (L2A, metadata_xml(start="2022-02-03T10:11:12.5Z"), (2022, 2, 3, 10, 11, 12, 500_000)),
        (L2A, metadata_xml(start="2022-02-03T12:11:12+02:00"), (2022, 2, 3, 10, 11, 12)),
        (L2A, metadata_xml(start="yesterday"), (2023, 6, 1, 10, 50, 31)),
        (L2A.replace("2023", "2021"), None, (2021, 6, 1, 10, 50, 31)),
        ("renamed", None, (2023, 6, 1, 10, 50, 31)),
    ],
    ids=["metadata", "another zone", "unreadable metadata", "name", "names of the files"],
)
def test_the_time_is_that_of_the_datatake(
    tmp_path: Path, name: str, stated: str | None, moment: tuple[int, ...]
) -> None:
    dn = {"B04": band_dn()["B04"]}
    product = make_product(tmp_path / f"{name}.SAFE", bands=dn, metadata=stated)
    assert opened(product).acquired_at == datetime(*moment, tzinfo=UTC)  # type: ignore[misc,arg-type]


# How products are found


def test_products_are_found_among_other_images_and_not_searched(
    product: Path, tmp_path: Path
) -> None:
    shutil.copytree(product, tmp_path / "year" / product.name)
    shutil.copytree(product, tmp_path / "renamed")
    zip_product(product, tmp_path / "year" / f"{L1C}.zip", root=f"{L1C}.SAFE")
    (tmp_path / "a.tif").touch()
    with zipfile.ZipFile(tmp_path / "parcels.zip", "w") as parcels:
        parcels.writestr("parcels.shp", b"")
    sources, skipped = find_sources([tmp_path])
    assert skipped == []
    assert [(source.name, source.kind, source.class_name) for source in sources] == [
        ("a", "image", None),
        ("renamed", "safe", None),
        (L1C, "safe", "year"),
        (L2A, "safe", "year"),
    ]


def test_a_link_to_a_product_of_the_folder_is_the_product(product: Path, tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / product.name).symlink_to(product)
    (source,), skipped = find_sources([tmp_path / "scenes" / product.name])
    assert skipped == []
    chip = read(tmp_path / "scenes" / product.name)
    assert source.location == chip.source == str(tmp_path / "scenes" / product.name)
    assert_same_pixels(chip, read(product))


def test_a_link_to_a_product_elsewhere_is_not_followed_unless_it_is_named(
    product: Path, tmp_path: Path
) -> None:
    link = tmp_path / "scenes" / product.name
    link.parent.mkdir()
    link.symlink_to(product)
    (tmp_path / "scenes" / "a.tif").touch()
    (source,), (skipped,) = find_sources([link.parent])
    assert source.name == "a"
    assert (skipped.source, skipped.kind) == (str(link), "outside-folder")
    (named,), _ = find_sources([link])
    assert named.path == link


def test_band_files_beside_a_products_metadata_are_still_band_files(tmp_path: Path) -> None:
    layers = {band: band_dn()[band] for band in BANDS}
    folder = write_band_folder(tmp_path / L2A, layers)
    (folder / "MTD_MSIL2A.xml").write_text(metadata_xml(), encoding="utf-8")
    assert source_of(folder).is_band_folder


def test_a_product_of_sentinel_1_is_a_folder_of_geotiffs(tmp_path: Path) -> None:
    measured = tmp_path / "S1A_IW_GRDH_1SDV_20230601T054321.SAFE" / "measurement" / "a.tiff"
    measured.parent.mkdir(parents=True)
    measured.touch()
    assert [(one.path, one.kind) for one in find_sources([tmp_path])[0]] == [(measured, "image")]


@pytest.mark.parametrize("pattern", ["*.SAFE", "*", "**", "S2A_MSIL2A*"])
def test_a_glob_finds_products_once(product: Path, tmp_path: Path, pattern: str) -> None:
    shutil.copytree(product, tmp_path / product.name)
    sources, skipped = find_sources([str(tmp_path / pattern)])
    assert skipped == []
    assert [(source.name, source.path) for source in sources] == [(L2A, tmp_path / product.name)]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_product_is_found_again_for_some_of_its_bands(
    product: Path, tmp_path: Path, packed: bool
) -> None:
    path = zip_product(product, tmp_path / "a.zip") if packed else product
    first = read(path)
    source = source_at(Path(first.source), first.scene)
    assert source is not None
    bands = ("B08", "B04", "B03")
    again = Scene.reopen(source, bands, layer_bands=None, baseline=first.processing_baseline)
    np.testing.assert_array_equal(again.read().reflectance, first.stack(bands))
    assert source_at(path, "another") is None


def test_a_single_jpeg_2000_file_is_refused_with_advice(product: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    single = product / image_name("l2a", "B04", 10)
    _, (skipped,) = find_sources([tmp_path, single])
    assert (skipped.source, skipped.kind) == (str(single), "unreadable")
    assert ".SAFE folder" in skipped.reason


# Products that cannot be used


def no_bands(product: Path) -> None:
    shutil.rmtree(product / "GRANULE")


def missing_band(product: Path) -> None:
    (product / image_name("l2a", "B11", 20)).unlink()


def broken_band(product: Path) -> None:
    (product / image_name("l2a", "B11", 20)).write_bytes(b"\x00\x00\x00\x0cjP  \r\n\x87\n" * 9)


def truncated_band(product: Path) -> None:
    image = product / image_name("l2a", "B11", 20)
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])


def broken_metadata(product: Path) -> None:
    (product / "MTD_MSIL2A.xml").write_text(metadata_xml()[:-200], encoding="utf-8")


def other_metadata(product: Path) -> None:
    (product / "MTD_MSIL2A.xml").write_text("<html/>", encoding="utf-8")


def huge_metadata(product: Path) -> None:
    os.truncate(product / "MTD_MSIL2A.xml", 17 << 20)


def doctype(product: Path) -> None:
    head = '<!DOCTYPE a SYSTEM "file:///etc/passwd">'
    (product / "MTD_MSIL2A.xml").write_text(metadata_xml(head=head), encoding="utf-8")


def entity_bomb(product: Path) -> None:
    entities = "".join(
        f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "x" * 100}">' for n in range(12)
    )
    bomb = metadata_xml(head=f"<!DOCTYPE a [{entities}]>", quantification="&e11;")
    (product / "MTD_MSIL2A.xml").write_text(bomb, encoding="utf-16")


def no_number(product: Path) -> None:
    stated = metadata_xml(quantification="NaN")
    (product / "MTD_MSIL2A.xml").write_text(stated, encoding="utf-8")


def zero_quantification(product: Path) -> None:
    (product / "MTD_MSIL2A.xml").write_text(metadata_xml(quantification=0), encoding="utf-8")


def two_granules(product: Path) -> None:
    (granule,) = (product / "GRANULE").iterdir()
    shutil.copytree(granule, granule.with_name("L2A_T31TCK_A041474_20230601T105432"))


def other_ground(product: Path) -> None:
    wide = np.full((60, 120), 2000, dtype=np.uint16)
    write_jp2(product / image_name("l2a", "B11", 20), wide)


Damage = Callable[[Path], None]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("damage", "kind", "named"),
    [
        (no_bands, "no-product", "IMG_DATA"),
        (missing_band, "missing-band", "B11"),
        (broken_band, "unreadable", "B11_20m.jp2"),
        (truncated_band, "unreadable", "B11_20m.jp2"),
        (broken_metadata, "header-invalid", "MTD_MSIL2A.xml"),
        (other_metadata, "header-invalid", "MTD_MSIL2A.xml"),
        (huge_metadata, "header-invalid", "MTD_MSIL2A.xml"),
        (doctype, "header-invalid", "document type"),
        (entity_bomb, "header-invalid", "document type"),
        (no_number, "header-invalid", "NaN"),
        (zero_quantification, "header-invalid", "quantification"),
        (two_granules, "several-granules", "2 granules"),
        (other_ground, "grids-differ", "B11"),
    ],
)
def test_a_product_that_cannot_be_used_is_refused_by_name(
    own_product: Path, tmp_path: Path, damage: Damage, kind: str, named: str, packed: bool
) -> None:
    damage(own_product)
    path = own_product
    if packed:
        path = zip_product(own_product, tmp_path / f"{L2A}.zip", compression=zipfile.ZIP_STORED)
    error = refusal(path)
    assert error.kind == kind
    assert named in error.message


@pytest.mark.parametrize("name", ["MTD_MSIL2A.xml", image_name("l2a", "B04", 10), "GRANULE"])
def test_links_out_of_a_product_are_not_followed(
    own_product: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.move(own_product / name, outside / Path(name).name)
    (own_product / name).symlink_to(outside / Path(name).name)
    error = refusal(own_product)
    assert error.kind == "unsafe-path"


def test_a_link_under_a_bands_name_hides_no_other_kind_of_file(own_product: Path) -> None:
    image = own_product / image_name("l2a", "B04", 10)
    image.unlink()
    image.symlink_to(own_product / "manifest.safe")
    assert refusal(own_product).kind == "unsafe-path"


def test_links_within_a_product_are_followed(own_product: Path, product: Path) -> None:
    image = own_product / image_name("l2a", "B04", 10)
    image.rename(own_product / "elsewhere.jp2")
    image.symlink_to(own_product / "elsewhere.jp2")
    assert_same_pixels(read(own_product), read(product))


# Zip files that cannot be used


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_zip_file_is_refused_by_name(
    product: Path, tmp_path: Path, kept: float
) -> None:
    packed = zip_product(product, tmp_path / f"{L2A}.zip")
    content = packed.read_bytes()
    packed.write_bytes(content[: int(len(content) * kept)])
    # Also where it lies in a folder that is searched.
    for named in (packed, tmp_path):
        (source,), _ = find_sources([named])
        with pytest.raises(ImageryError, match="may be truncated") as caught:
            Scene.open(source, ReadingOptions())
        assert caught.value.kind == "unreadable"
        assert str(packed) in caught.value.message


def test_a_zip_file_without_a_product_is_refused_by_name(tmp_path: Path) -> None:
    packed = tmp_path / "parcels.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("parcels.shp", b"")
    assert refusal(packed).kind == "no-product"


@pytest.mark.parametrize(
    "name", [f"../{L2A}.SAFE/a.jp2", f"{L2A}.SAFE/../../a", "/etc/passwd", f"{L2A}.SAFE\\a"]
)
def test_a_zip_file_with_names_that_lead_out_of_it_is_refused(
    product: Path, tmp_path: Path, name: str
) -> None:
    packed = zip_product(product, tmp_path / f"{L2A}.zip")
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr(name, b"")
    assert refusal(packed).kind == "unsafe-path"


# The standard library warns of what is made here on purpose.
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_zip_file_with_two_files_of_one_name_is_refused(product: Path, tmp_path: Path) -> None:
    packed = zip_product(product, tmp_path / f"{L2A}.zip")
    with zipfile.ZipFile(packed, "a") as file:
        file.writestr(f"{product.name}/MTD_MSIL2A.xml", metadata_xml(quantification=1))
    error = refusal(packed)
    assert error.kind == "unsafe-path"
    assert "twice" in error.message


@pytest.mark.parametrize("name", [image_name("l2a", "B04", 10), "MTD_MSIL2A.xml"])
def test_a_zip_bomb_is_refused_by_what_its_directory_states(
    own_product: Path, tmp_path: Path, name: str
) -> None:
    (own_product / name).write_bytes(bytes(20 << 20))
    packed = zip_product(own_product, tmp_path / f"{L2A}.zip")
    assert packed.stat().st_size < 1 << 20
    error = refusal(packed)
    assert error.kind == "too-large"
    assert Path(name).name in error.message


def test_a_zip_file_whose_directory_lies_about_sizes_unpacks_no_more(
    own_product: Path, tmp_path: Path
) -> None:
    (own_product / "MTD_MSIL2A.xml").write_bytes(b" " * (20 << 20))
    packed = zip_product(own_product, tmp_path / f"{L2A}.zip")
    real, stated = struct.pack("<L", 20 << 20), struct.pack("<L", 1000)
    packed.write_bytes(packed.read_bytes().replace(real, stated))
    assert refusal(packed).kind in ("unreadable", "header-invalid")


def test_an_encrypted_zip_file_is_refused(product: Path, tmp_path: Path) -> None:
    packed = zip_product(product, tmp_path / f"{L2A}.zip")
    content = bytearray(packed.read_bytes())
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + flags_at] |= 1
            at = content.find(signature, at + 4)
    packed.write_bytes(content)
    error = refusal(packed)
    assert error.kind == "unreadable"
    assert "encrypted" in error.message


# rasterio cannot log what GDAL says about damaged bytes where it quotes them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(6))
def test_damaged_zip_files_never_end_in_anything_but_an_imagery_error(
    tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    small = {"B04": np.full((12, 12), 2000, dtype=np.uint16)}
    product = make_product(tmp_path / "a" / f"{L2A}.SAFE", bands=small)
    packed = zip_product(product, tmp_path / f"{L2A}.zip")
    content = np.frombuffer(packed.read_bytes(), dtype=np.uint8)
    for _ in range(8):
        damaged = content.copy()
        damaged[random.integers(0, len(content), 40)] = random.integers(0, 256, 40)
        damaged[-random.integers(1, 2500, 6)] = random.integers(0, 256, 6)
        packed.write_bytes(damaged.tobytes())
        sources, _ = find_sources([packed])
        for source in sources:
            try:
                Scene.open(source, ReadingOptions(wanted=("B04",))).read()
            except ImageryError as error:
                assert str(packed) in error.message  # noqa: PT017 - it may also be read


# What is listed and parsed, without images


def test_a_product_lists_each_band_once_and_nothing_else(product: Path) -> None:
    bands = open_product(product, L2A).bands
    assert [file.band for file in bands] == sorted([*BANDS, "SCL"])
    assert {file.name.rpartition("_")[2] for file in bands if file.band in ("B02", "B04")} == {
        "10m.jp2"
    }


def test_bands_are_known_by_their_physical_names() -> None:
    stated = metadata_xml(offsets={"B8A": -5.0}).replace(
        'bandId="8" physicalBand="B8A"', 'bandId="8" physicalBand="B9"'
    )
    assert parse_metadata(stated.encode(), "a").offsets_dn == {"B09": -5.0}


def test_bands_are_known_by_their_numbers_where_no_name_is_stated() -> None:
    stated = """<Level-2A_User_Product>
        <BOA_ADD_OFFSET band_id="8">-7</BOA_ADD_OFFSET>
        <BOA_ADD_OFFSET band_id="13">-1</BOA_ADD_OFFSET>
        <BOA_ADD_OFFSET band_id="all">-2</BOA_ADD_OFFSET>
    </Level-2A_User_Product>"""
    assert parse_metadata(stated.encode(), "a").offsets_dn == {"B8A": -7.0}
