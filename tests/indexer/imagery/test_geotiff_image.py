import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from indexer.errors import ImageryError, InvalidInputError, NotFoundError
from indexer.imagery.reader import ReadingOptions, Scene
from indexer.imagery.sources import find_sources
from indexer.imagery.spectral_image import SpectralImage, open_spectral_image
from indexer.sensors import PROFILES, SENTINEL2_BANDS
from tests.synthetic import TRANSFORM, UTM_31, make_dn, write_band_folder, write_geotiff

BANDS = 5


def counted(count: int = BANDS, dtype: str = "int16") -> npt.NDArray[Any]:
    """The numbers from 1 on, shape ``(count, 4, 6)``."""
    return np.arange(1, 1 + count * 24).reshape(count, 4, 6).astype(dtype)


def opened(path: Path, stack: npt.NDArray[Any] | None = None, **options: Any) -> SpectralImage:  # noqa: ANN401
    return open_spectral_image(
        write_geotiff(path, counted() if stack is None else stack, **options)
    )


def refusal(path: Path) -> ImageryError:
    with pytest.raises(ImageryError) as caught:
        open_spectral_image(path)
    assert str(path) in caught.value.message
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flight_20230601.tif"


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("layout", [{}, {"interleave": "pixel"}, {"compress": "deflate"}])
def test_each_number_is_read_as_it_is(path: Path, dtype: str, layout: dict[str, str]) -> None:
    image = opened(path, counted(dtype=dtype), **layout)
    assert image.shape == (4, 6)
    assert (image.crs, image.transform) == (UTM_31, TRANSFORM)
    np.testing.assert_array_equal(image.read().reflectance, counted())
    np.testing.assert_array_equal(image.read(1, 2, 2, 3).reflectance, counted()[:, 1:3, 2:5])


def test_numbers_below_zero_are_measurements_and_65535_is_too(path: Path) -> None:
    np.testing.assert_array_equal(opened(path, -counted()).read().reflectance, -counted())
    high = np.full((2, 4, 6), 65_535, dtype=np.uint16)
    assert opened(path.with_name("high.tif"), high).read().valid_mask.all()


def test_without_a_place_an_image_is_read_and_says_so(path: Path) -> None:
    image = opened(path, crs=None, transform=None)
    assert image.crs is None
    assert any(note.startswith("no place") for note in image.notes)
    np.testing.assert_array_equal(image.read().reflectance, counted())


def test_a_scale_and_offset_of_the_file_are_applied(path: Path) -> None:
    image = opened(path, scale=0.5, offset=3)
    np.testing.assert_array_equal(image.read().reflectance, counted() * 0.5 + 3)


def test_the_time_is_taken_from_the_file_else_from_its_name(path: Path) -> None:
    assert opened(path).acquired_at == datetime(2023, 6, 1, tzinfo=UTC)
    told = opened(path.with_name("b.tif"), tags={"datetime": "2020-02-03T04:05:06"})
    assert told.acquired_at == datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)


# Wavelengths ------------------------------------------------------------------------------------


EXPECTED_UM = [0.45, 0.5512, 0.66, 0.72, 0.85]


def assert_wavelengths(image: SpectralImage) -> None:
    assert [band.center_wavelength_um for band in image.bands] == pytest.approx(EXPECTED_UM)
    assert [band.name for band in image.bands] == [
        "450 nm",
        "551.2 nm",
        "660 nm",
        "720 nm",
        "850 nm",
    ]


def test_wavelengths_are_read_from_gdals_imagery_metadata(path: Path) -> None:
    write_geotiff(path, counted())
    with rasterio.open(path, "r+") as file:
        for number, at in enumerate(EXPECTED_UM, start=1):
            file.update_tags(number, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(at), FWHM_UM="0.006")
    image = open_spectral_image(path)
    assert_wavelengths(image)
    assert [band.fwhm_um for band in image.bands] == [0.006] * BANDS
    # 0.551 lies near 0.560, 0.450 within 0.05 of 0.490.
    assert image.default_bands == (2, 1, 0)


@pytest.mark.parametrize("units", ["nm", None])
def test_wavelengths_are_read_from_a_tag_of_each_band(path: Path, units: str | None) -> None:
    write_geotiff(path, counted())
    with rasterio.open(path, "r+") as file:
        for number, at in enumerate(EXPECTED_UM, start=1):
            file.update_tags(number, wavelength=str(at * 1000), fwhm="6")
            if units is not None:
                file.update_tags(number, wavelength_units=units)
    image = open_spectral_image(path)
    assert_wavelengths(image)
    assert image.bands[0].fwhm_um == pytest.approx(0.006)
    assert any("taken as nm" in note for note in image.notes) == (units is None)


@pytest.mark.parametrize("text", ["450, 551.2, 660, 720, 850", "{450 551.2 660 720 850}"])
def test_wavelengths_are_read_from_a_list_of_the_file(path: Path, text: str) -> None:
    assert_wavelengths(opened(path, tags={"wavelengths": text, "wavelength_units": "nm"}))


def test_a_list_of_another_length_is_refused_with_both_counts(path: Path) -> None:
    write_geotiff(path, counted(), tags={"wavelengths": "450, 551.2"})
    error = refusal(path)
    assert error.kind == "header-invalid"
    assert "2 entries" in error.message
    assert "5 bands" in error.message


@pytest.mark.parametrize(
    "form", ["{:g} nm", "{:g}nm", "{:g} Nanometers"], ids=["apart", "together", "spelled out"]
)
def test_wavelengths_are_read_from_descriptions(path: Path, form: str) -> None:
    assert_wavelengths(opened(path, descriptions=[form.format(at * 1000) for at in EXPECTED_UM]))


def test_descriptions_may_be_in_micrometers_and_hold_a_name(path: Path) -> None:
    descriptions = ["blue (0.45 um)", "green, 551.2 nm", "red 0.66 µm", "Band 4", "tail"]
    image = opened(path, descriptions=descriptions)
    wavelengths = [band.center_wavelength_um for band in image.bands]
    assert wavelengths[:3] == pytest.approx(EXPECTED_UM[:3])
    assert wavelengths[3:] == [None, None]
    assert [band.name for band in image.bands] == [*descriptions[:3], "band 4", "tail"]


# Pixels without data ----------------------------------------------------------------------------


def invalid(image: SpectralImage) -> list[list[int]]:
    return np.argwhere(~image.read().valid_mask).tolist()


@pytest.mark.parametrize(("nodata", "dtype"), [(-9999, "int16"), (-3.5, "float32"), (7, "uint8")])
def test_the_declared_nodata_in_any_band_makes_a_pixel_invalid(
    path: Path, nodata: float, dtype: str
) -> None:
    stack = np.full((BANDS, 4, 6), 20, dtype=dtype)
    stack[3, 2, 5] = nodata
    assert invalid(opened(path, stack, nodata=nodata)) == [[2, 5]]


def test_nan_infinity_and_zero_in_all_bands_are_no_data(path: Path) -> None:
    stack = counted(dtype="float32")
    stack[0, 0, 0], stack[1, 1, 1], stack[:, 2, 2] = np.nan, np.inf, 0
    stack[:4, 3, 3] = 0
    assert invalid(opened(path, stack)) == [[0, 0], [1, 1], [2, 2]]


def test_an_opacity_is_a_mask_and_no_band(path: Path) -> None:
    stack = counted(4, "uint8")
    stack[3] = 255
    stack[3, 1, 4] = 0
    write_geotiff(path, stack)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * 2, ColorInterp.alpha]
    image = open_spectral_image(path)
    assert len(image.bands) == 3
    assert invalid(image) == [[1, 4]]
    assert "layer 4 is declared as opacity and taken as mask" in image.notes


def test_a_mask_inside_the_file_is_obeyed(path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_geotiff(path, counted())
        with rasterio.open(path, "r+") as file:
            mask = np.full((4, 6), 255, dtype=np.uint8)
            mask[3, 0] = 0
            file.write_mask(mask)
    assert invalid(open_spectral_image(path)) == [[3, 0]]


# Sentinel-2 -------------------------------------------------------------------------------------


def as_scene(path: Path, wanted: tuple[str, ...], **options: Any) -> npt.NDArray[np.float32]:  # noqa: ANN401
    (source,), _ = find_sources([path])
    return Scene.open(source, ReadingOptions(wanted=wanted, **options)).read().reflectance


def test_bands_named_as_sentinel_2s_are_read_as_its_reflectance(path: Path) -> None:
    dn = make_dn(4, ("B04", "B03", "B08"))
    write_geotiff(path, dn, descriptions=["B4", "B03", "B08"])
    image = open_spectral_image(path, baseline="04.00")
    assert [band.name for band in image.bands] == ["B04", "B03", "B08"]
    assert image.bands[0].center_wavelength_um == SENTINEL2_BANDS["B04"].center_wavelength_um
    # (DN - 1000) / 10000, from baseline 04.00 on.
    np.testing.assert_allclose(image.read().reflectance, (dn - 1000.0) / 10_000, atol=1e-6)
    assert any("Sentinel-2" in note for note in image.notes)


def test_bands_named_by_the_user_are_sentinel_2s(path: Path) -> None:
    write_geotiff(path, make_dn(4, PROFILES["l2a"]))
    image = open_spectral_image(path, bands="l2a", baseline="3.01")
    assert tuple(band.name for band in image.bands) == PROFILES["l2a"]
    expected = as_scene(path, PROFILES["l2a"], bands=PROFILES["l2a"], baseline="03.01")
    np.testing.assert_array_equal(image.read().reflectance, expected)


def test_a_folder_of_band_files_is_one_image_and_clouds_are_not_valid(tmp_path: Path) -> None:
    scl = np.full((6, 6), 4, dtype=np.uint8)
    scl[2, 3] = 9
    bands = {"B02": make_dn(6, ["B02"])[0], "B11": make_dn(3, ["B11"])[0], "SCL": scl}
    folder = write_band_folder(tmp_path / "patch", bands)
    image = open_spectral_image(folder, baseline="03.01")
    assert [band.name for band in image.bands] == ["B02", "B11"]
    chip = image.read()
    assert np.argwhere(~chip.valid_mask).tolist() == [[2, 3]]
    np.testing.assert_array_equal(
        chip.reflectance, as_scene(folder, ("B02", "B11"), baseline="03.01")
    )
    assert chip.scl is not None
    np.testing.assert_array_equal(image.with_bands([1]).read().reflectance, chip.reflectance[1:])


def test_the_same_names_at_other_wavelengths_are_another_instruments(path: Path) -> None:
    write_geotiff(path, counted(3), descriptions=["B2", "B3", "B4"])
    with rasterio.open(path, "r+") as file:
        for number, at in enumerate((0.70, 0.75, 0.80), start=1):
            file.update_tags(number, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(at))
    np.testing.assert_array_equal(open_spectral_image(path).read().reflectance, counted(3))


@pytest.mark.parametrize(
    "descriptions",
    [["blue", "green", "red"], ["B1", "B2", "B90"] * 2, ["B1", "B20", "B21", "B22"]],
    ids=["names of any instrument", "named twice", "mostly others"],
)
def test_other_names_are_not_sentinel_2s(path: Path, descriptions: list[str]) -> None:
    stack = counted(len(descriptions))
    image = opened(path, stack, descriptions=descriptions)
    np.testing.assert_array_equal(image.read().reflectance, stack)


def test_a_folder_of_several_images_is_refused(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        write_geotiff(tmp_path / "both" / name, counted())
    with pytest.raises(InvalidInputError, match="holds 2 images"):
        open_spectral_image(tmp_path / "both")


# What is wrong ----------------------------------------------------------------------------------


def test_one_band_is_refused(path: Path) -> None:
    write_geotiff(path, counted(1))
    assert refusal(path).kind == "one-band"


def test_complex_numbers_are_refused(path: Path) -> None:
    write_geotiff(path, counted(2).astype("complex64"))
    error = refusal(path)
    assert error.kind == "unreadable"
    assert "complex" in error.message


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    for name in ("a.tif", "a.hdr", "a.npy", "a.npz", "a.img", "a"):
        with pytest.raises(NotFoundError):
            open_spectral_image(tmp_path / name)
    for name in ("/vsicurl/http://127.0.0.1/a.tif", "GTIFF_DIR:1:a.tif"):
        with pytest.raises(NotFoundError):
            open_spectral_image(name)


def test_other_formats_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0")
    error = refusal(tmp_path / "a.mat")
    assert error.kind == "unreadable"
    for word in (".tif", ".hdr", ".npy", ".npz"):
        assert word in error.message


def test_a_vrt_under_the_name_of_a_geotiff_is_not_followed(tmp_path: Path) -> None:
    secret = write_geotiff(tmp_path / "secret.tif", counted())
    (tmp_path / "a.tif").write_text(
        '<VRTDataset rasterXSize="6" rasterYSize="4"><VRTRasterBand dataType="Int16" band="1">'
        f"<SimpleSource><SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert refusal(tmp_path / "a.tif").kind == "unreadable"
    (tmp_path / "b.vrt").write_text((tmp_path / "a.tif").read_text())
    (tmp_path / "c.tif").symlink_to(tmp_path / "b.vrt")
    assert refusal(tmp_path / "c.tif").kind == "unreadable"


def test_metadata_beside_a_geotiff_is_not_looked_at(path: Path) -> None:
    write_geotiff(path, counted())
    path.with_name(path.name + ".aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Description>B04</Description></PAMRasterBand>'
        "</PAMDataset>"
    )
    assert open_spectral_image(path).bands[0].name == "band 1"


def test_another_file_named_as_overview_is_not_opened(tmp_path: Path) -> None:
    other = write_geotiff(tmp_path / "other.tif", counted() + 1000)
    path = tmp_path / "a.tif"
    write_geotiff(path, counted())
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(other))
    np.testing.assert_array_equal(open_spectral_image(path).read().reflectance, counted())


def test_a_truncated_geotiff_is_refused_by_its_size(path: Path) -> None:
    layout = {"count": BANDS, "width": 100, "height": 100, "dtype": "float32"}
    place = {"crs": UTM_31, "transform": TRANSFORM}
    with rasterio.open(path, "w", driver="GTiff", **layout, **place) as file:
        file.write(np.ones((BANDS, 100, 100), dtype=np.float32))
    # The header stands before the pixels.
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    error = refusal(path)
    assert error.kind == "size-mismatch"
    # 100 x 100 px x 5 bands x 4 bytes.
    assert "200000 bytes" in error.message
    assert str(len(content) // 2) in error.message


def test_a_compressed_geotiff_that_breaks_off_is_refused_when_it_is_read(path: Path) -> None:
    random = np.random.default_rng(0)
    layout = {"count": 2, "width": 100, "height": 100, "dtype": "uint16", "compress": "deflate"}
    place = {"crs": UTM_31, "transform": TRANSFORM}
    with rasterio.open(path, "w", driver="GTiff", **layout, **place) as file:
        file.write(random.integers(0, 60_000, (2, 100, 100), dtype=np.uint16))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    image = open_spectral_image(path)
    with pytest.raises(ImageryError) as caught:
        image.read()
    assert caught.value.kind == "unreadable"
    assert str(path) in caught.value.message


def test_the_name_of_a_band_does_not_make_a_file_of_many_bands_one_band(tmp_path: Path) -> None:
    for name in ("flight_B2.tif", "flight_B3.tif"):
        image = opened(tmp_path / name)
        np.testing.assert_array_equal(image.read().reflectance, counted())
        assert image.source.path == tmp_path / name


@pytest.mark.parametrize("compress", [None, "deflate"])
def test_a_header_of_a_huge_image_without_pixels_is_refused(
    path: Path, compress: str | None
) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=3,
        width=100_000,
        height=100_000,
        dtype="uint16",
        sparse_ok=True,
        tiled=True,
        blockxsize=4096,
        blockysize=4096,
        compress=compress,
        crs=UTM_31,
        transform=Affine(10, 0, 0, 0, -10, 0),
    ):
        pass
    error = refusal(path)
    assert error.kind == "size-mismatch"
    assert str(100_000**2 * 3 * 2) in error.message


def test_blocks_that_do_not_fit_into_memory_are_refused(path: Path) -> None:
    write_geotiff(
        path,
        np.ones((2, 16, 16), dtype=np.uint16),
        tiled=True,
        blockxsize=16,
        blockysize=16,
        endianness="little",
    )
    content = bytearray(path.read_bytes())
    # TileWidth (322) and TileLength (323): 16 becomes 65,520 where they were written last.
    for tag in (322, 323):
        at = content.rindex(struct.pack("<HHI", tag, 3, 1))
        content[at + 8 : at + 10] = struct.pack("<H", 65_520)
    path.write_bytes(bytes(content))
    error = refusal(path)
    assert error.kind == "too-large"
    assert "TILED=YES" in error.message
