from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from indexer.errors import ImageryError, NotFoundError
from indexer.imagery.spectral_image import SpectralImage, open_spectral_image
from tests.indexer.imagery.envi_files import ORDERS, TYPE_CODES, write_envi

MAP_INFO = "{UTM, 1, 1, 500000, 5000000, 10, 10, 31, North, WGS-84, units=Meters}"


def counted(shape: tuple[int, int, int] = (4, 3, 5), dtype: str = "int16") -> npt.NDArray[Any]:
    """The numbers from 1 on, so that each place has a value of its own."""
    return np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)


def opened(tmp_path: Path, cube: npt.NDArray[Any] | None = None, **options: Any) -> SpectralImage:  # noqa: ANN401
    cube = counted() if cube is None else cube
    return open_spectral_image(write_envi(tmp_path / "flight.hdr", cube, **options))


def refusal(path: Path) -> ImageryError:
    with pytest.raises(ImageryError) as caught:
        open_spectral_image(path)
    return caught.value


@pytest.mark.parametrize("interleave", ORDERS)
@pytest.mark.parametrize("byte_order", [0, 1])
@pytest.mark.parametrize("offset", [0, 7])
def test_each_number_is_found_in_every_order_on_disk(
    tmp_path: Path, interleave: str, byte_order: int, offset: int
) -> None:
    image = opened(tmp_path, interleave=interleave, byte_order=byte_order, offset=offset)
    assert image.shape == (3, 5)
    np.testing.assert_array_equal(image.read().reflectance, counted())
    part = image.read(1, 2, 2, 3)
    np.testing.assert_array_equal(part.reflectance, counted()[:, 1:3, 2:5])


@pytest.mark.parametrize("dtype", TYPE_CODES)
def test_every_real_type_is_read(tmp_path: Path, dtype: str) -> None:
    np.testing.assert_array_equal(
        opened(tmp_path, counted(dtype=dtype), byte_order=1).read().reflectance, counted()
    )


def test_int16_below_zero_is_a_measurement(tmp_path: Path) -> None:
    image = opened(tmp_path, -counted())
    np.testing.assert_array_equal(image.read().reflectance, -counted())
    assert image.read().valid_mask.all()


@pytest.mark.parametrize("interleave", ORDERS)
def test_what_gdal_writes_is_read_as_gdal_reads_it(tmp_path: Path, interleave: str) -> None:
    path = tmp_path / "gdal.img"
    crs, transform = CRS.from_epsg(32631), Affine(10, 0, 500_000, 0, -10, 5_000_000)
    with rasterio.open(
        path,
        "w",
        driver="ENVI",
        interleave=interleave,
        count=4,
        height=3,
        width=5,
        dtype="float32",
        crs=crs,
        transform=transform,
        nodata=-9999,
    ) as file:
        cube = counted(dtype="float32")
        cube[2, 1, 1] = -9999
        file.write(cube)
    image = open_spectral_image(path)
    assert image.crs == crs
    assert image.transform == transform
    chip = image.read()
    assert np.argwhere(~chip.valid_mask).tolist() == [[1, 1]]
    cube[2, 1, 1] = np.nan
    np.testing.assert_array_equal(chip.reflectance, cube)


@pytest.mark.parametrize(
    "data", ["flight", "flight.img", "flight.dat", "flight.raw", "flight.bil", "flight.BSQ"]
)
def test_header_and_data_find_each_other(tmp_path: Path, data: str) -> None:
    header = write_envi(tmp_path / "flight.hdr", counted(), data=tmp_path / data)
    for path in (header, tmp_path / data):
        np.testing.assert_array_equal(open_spectral_image(path).read().reflectance, counted())


def test_a_header_may_bear_the_whole_name_of_its_data(tmp_path: Path) -> None:
    write_envi(tmp_path / "a.hdr", counted((2, 2, 2)), data=tmp_path / "a.dat")
    header = write_envi(tmp_path / "a.img.hdr", counted(), data=tmp_path / "a.img")
    for path in (header, tmp_path / "a.img"):
        assert open_spectral_image(path).shape == (3, 5)
    assert open_spectral_image(tmp_path / "a.dat").shape == (2, 2)


def test_of_several_files_that_may_be_the_data_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    header = write_envi(tmp_path / "a.hdr", counted())
    (tmp_path / "a.dat").write_bytes(b"notes")
    np.testing.assert_array_equal(open_spectral_image(header).read().reflectance, counted())
    (tmp_path / "a.dat").write_bytes((tmp_path / "a.img").read_bytes())
    error = refusal(header)
    assert error.kind == "header-invalid"
    assert "a.dat, a.img" in error.message


@pytest.mark.parametrize(
    ("units", "values"),
    [
        ("Nanometers", "{490, 560.5, 665, 833}"),
        ("Micrometers", "{0.49, 0.5605, 0.665, 0.833}"),
        ("um", "{ 4.9e-1,\n 5.605E-1,\n .665, 0.833 }"),
    ],
)
def test_wavelengths_are_read_in_their_units(tmp_path: Path, units: str, values: str) -> None:
    fields = {"wavelength": values, "wavelength units": units}
    image = opened(tmp_path, fields=fields)
    assert [band.center_wavelength_um for band in image.bands] == pytest.approx(
        [0.49, 0.5605, 0.665, 0.833]
    )
    assert [band.name for band in image.bands] == ["490 nm", "560.5 nm", "665 nm", "833 nm"]
    assert image.default_bands == (2, 1, 0)
    assert image.notes == ("no place on the map: what is made from it has none either",)


@pytest.mark.parametrize("units", [None, "Unknown", "Micrometers"])
def test_units_that_are_missing_or_cannot_be_are_guessed_and_said(
    tmp_path: Path, units: str | None
) -> None:
    fields = {"wavelength": "{490, 560, 665, 833}", "wavelength units": units}
    image = opened(tmp_path, fields=fields)
    assert image.bands[0].center_wavelength_um == pytest.approx(0.49)
    assert any("taken as nm" in note for note in image.notes)


def test_without_wavelengths_bands_are_known_by_position_and_it_says_so(tmp_path: Path) -> None:
    image = opened(tmp_path)
    assert [band.name for band in image.bands] == ["band 1", "band 2", "band 3", "band 4"]
    assert not image.has_wavelengths
    assert image.default_bands is None
    assert any(note.startswith("no wavelengths") for note in image.notes)


def test_widths_names_time_and_default_bands_are_taken_from_the_header(tmp_path: Path) -> None:
    fields = {
        "wavelength": "{490, 560, 665, 833}",
        "wavelength units": "nm",
        "fwhm": "{10, 12, 0, 20}",
        "band names": "{blue, green, Band 3, nir}",
        "default bands": "{4, 3, 2}",
        "acquisition time": "2019-05-06T10:11:12Z",
    }
    image = opened(tmp_path, fields=fields)
    assert [band.name for band in image.bands] == ["blue", "green", "665 nm", "nir"]
    assert [band.fwhm_um for band in image.bands] == [
        pytest.approx(0.01),
        pytest.approx(0.012),
        None,
        pytest.approx(0.02),
    ]
    assert image.default_bands == (3, 2, 1)
    assert image.acquired_at == datetime(2019, 5, 6, 10, 11, 12, tzinfo=UTC)


def test_default_bands_that_do_not_exist_are_passed_over_and_said(tmp_path: Path) -> None:
    for shown in ("{30, 20, 10}", "{0, 1, 2}", "{1, 2}", "{inf, 1, 2}"):
        image = opened(tmp_path, fields={"default bands": shown})
        assert image.default_bands is None
        assert any(note.startswith("default bands") for note in image.notes)


def test_bad_bands_are_left_out_and_said(tmp_path: Path) -> None:
    fields = {
        "bbl": "{1, 0, 0, 1}",
        "wavelength": "{490, 560, 665, 833}",
        "default bands": "{4,3,1}",
    }
    image = opened(tmp_path, fields=fields)
    assert [band.name for band in image.bands] == ["490 nm", "833 nm"]
    np.testing.assert_array_equal(image.read().reflectance, counted()[[0, 3]])
    assert "left out 2 bands that the file calls bad (2-3)" in image.notes
    assert image.default_bands is None


def test_the_ignored_value_is_no_data(tmp_path: Path) -> None:
    cube = counted()
    cube[1, 0, 2] = -9999
    chip = opened(tmp_path, cube, fields={"data ignore value": "-9999"}).read()
    assert np.argwhere(~chip.valid_mask).tolist() == [[0, 2]]
    assert np.isnan(chip.reflectance[1, 0, 2])


def test_the_ignored_value_is_found_among_floats_as_these_round_it(tmp_path: Path) -> None:
    cube = counted(dtype="float32")
    cube[:, 0, 0] = np.finfo(np.float32).min
    fields = {"data ignore value": "-3.40282346638528860e+038"}
    assert np.argwhere(~opened(tmp_path, cube, fields=fields).read().valid_mask).tolist() == [
        [0, 0]
    ]


def test_a_pixel_of_nothing_but_zeros_is_no_data(tmp_path: Path) -> None:
    cube = counted()
    cube[:, 2, 4] = 0
    cube[:3, 1, 1] = 0
    chip = opened(tmp_path, cube).read()
    assert np.argwhere(~chip.valid_mask).tolist() == [[2, 4]]


def test_values_are_divided_by_the_reflectance_scale_factor(tmp_path: Path) -> None:
    image = opened(tmp_path, fields={"reflectance scale factor": "10000"})
    np.testing.assert_allclose(image.read().reflectance, counted() / 10_000, rtol=1e-6)


def test_gains_and_offsets_of_each_band_are_applied(tmp_path: Path) -> None:
    fields = {"data gain values": "{1, 2, 3, 4}", "data offset values": "{0, 10, 20, 30}"}
    expected = counted() * np.array([1, 2, 3, 4]).reshape(4, 1, 1) + np.array(
        [0, 10, 20, 30]
    ).reshape(4, 1, 1)
    np.testing.assert_array_equal(opened(tmp_path, fields=fields).read().reflectance, expected)


def test_the_place_is_read_from_the_map_info(tmp_path: Path) -> None:
    image = opened(tmp_path, fields={"map info": MAP_INFO})
    assert image.crs == CRS.from_epsg(32631)
    assert image.transform == Affine(10, 0, 500_000, 0, -10, 5_000_000)
    assert image.bounds == (500_000.0, 4_999_970.0, 500_050.0, 5_000_000.0)
    assert image.read(1, 2).transform == Affine(10, 0, 500_020, 0, -10, 4_999_990)


# What is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["samples", "lines", "bands", "data type", "interleave", "byte order"]
)
def test_a_header_without_a_needed_key_is_refused_by_that_key(tmp_path: Path, key: str) -> None:
    error = refusal(write_envi(tmp_path / "a.hdr", counted(), fields={key: None}))
    assert error.kind == "header-invalid"
    assert f"a.hdr: {key} is missing" in error.message


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("samples", "-5"),
        ("samples", "0"),
        ("samples", "five"),
        ("lines", "1e3"),
        ("data type", "6"),
        ("data type", "99"),
        ("interleave", "zip"),
        ("byte order", "2"),
        ("file compression", "1"),
        ("wavelength", "{1, 2, 3}"),
        ("wavelength", "{1, 2, 3, x}"),
        ("fwhm", "{1, 2, 3, 4, 5}"),
        ("bbl", "{1}"),
        ("data gain values", "{1, 2}"),
        ("reflectance scale factor", "0"),
        ("data ignore value", "none"),
        ("default bands", "{red}"),
        ("description", "{ never closed"),
        ("map info", "{}"),
    ],
)
def test_a_header_that_says_nonsense_is_refused_by_its_name(
    tmp_path: Path, key: str, text: str
) -> None:
    fields = {"byte order": "0", key: text}
    header = write_envi(tmp_path / "a.hdr", counted(), fields=fields)
    if key == "map info":
        # Nothing is said, so nothing is known.
        assert open_spectral_image(header).crs is None
        return
    error = refusal(header)
    assert error.kind == "header-invalid"
    assert key in error.message or "complex" in error.message or "compressed" in error.message


@pytest.mark.parametrize("change", [-1, 1, -60])
def test_header_and_data_of_different_size_are_refused_with_both(
    tmp_path: Path, change: int
) -> None:
    header = write_envi(tmp_path / "a.hdr", counted())
    data = tmp_path / "a.img"
    content = data.read_bytes()
    data.write_bytes((content + b"\0")[: len(content) + change])
    for path in (header, data):
        error = refusal(path)
        assert error.kind == "size-mismatch"
        # 3 x 5 pixels of 4 bands of 2 bytes.
        assert "120 bytes" in error.message
        assert f"holds {120 + change}" in error.message


def test_a_header_of_a_huge_image_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    fields = {"samples": "100000000", "lines": "100000000"}
    error = refusal(write_envi(tmp_path / "a.hdr", counted(), fields=fields))
    assert error.kind == "size-mismatch"
    assert str(100_000_000**2 * 4 * 2) in error.message


def test_a_header_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "esri.hdr").write_text("BYTEORDER I\nNROWS 3\n")
    assert refusal(tmp_path / "esri.hdr").kind == "header-invalid"


def test_a_header_without_data_and_data_without_header_name_what_lacks(tmp_path: Path) -> None:
    header = write_envi(tmp_path / "a.hdr", counted())
    (tmp_path / "a.img").rename(tmp_path / "b.img")
    for path, lacking in ((header, "a.hdr: no data"), (tmp_path / "b.img", "b.hdr")):
        with pytest.raises(NotFoundError, match=lacking) as caught:
            open_spectral_image(path)
        assert caught.value.kind == "file-not-found"


def test_one_band_is_refused_with_what_to_do(tmp_path: Path) -> None:
    error = refusal(write_envi(tmp_path / "a.hdr", counted((1, 3, 5))))
    assert error.kind == "one-band"
    assert "has 1 band;" in error.message
    assert "folder" in error.message
    fields = {"bbl": "{0, 0, 1, 0}"}
    error = refusal(write_envi(tmp_path / "b.hdr", counted(), fields=fields))
    assert error.kind == "one-band"
    assert "3 of them called bad" in error.message


def test_a_map_of_classes_is_no_image(tmp_path: Path) -> None:
    fields = {"file type": "ENVI Classification", "classes": "3"}
    error = refusal(write_envi(tmp_path / "a.hdr", counted((1, 3, 5), "uint8"), fields=fields))
    assert "labels" in error.message


def test_data_that_is_a_link_to_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    header = write_envi(tmp_path / "here" / "a.hdr", counted(), data=tmp_path / "elsewhere.img")
    (tmp_path / "here" / "a.img").symlink_to(tmp_path / "elsewhere.img")
    error = refusal(header)
    assert error.kind == "unreadable"
    assert "elsewhere.img" in error.message


def test_a_link_that_hides_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("ENVI\n")
    (tmp_path / "a.hdr").symlink_to(tmp_path / "secret.txt")
    error = refusal(tmp_path / "a.hdr")
    assert error.kind == "unreadable"
    assert "secret.txt" in error.message


def test_a_reference_system_that_names_a_file_is_not_looked_up(tmp_path: Path) -> None:
    (tmp_path / "place.prj").write_text(CRS.from_epsg(4326).to_wkt())
    fields = {
        "map info": "{Arbitrary, 1, 1, 0, 0, 1, 1}",
        "coordinate system string": f"{{{tmp_path / 'place.prj'}}}",
    }
    assert opened(tmp_path, fields=fields).crs is None


def test_only_the_window_is_read(tmp_path: Path) -> None:
    # 8 GB of pixels that take no room: the file has a hole.
    header = write_envi(
        tmp_path / "a.hdr", counted((2, 1, 1)), fields={"samples": "40000", "lines": "50000"}
    )
    with (tmp_path / "a.img").open("wb") as file:
        file.truncate(40_000 * 50_000 * 2 * 2)
    chip = open_spectral_image(header).read(49_999, 39_000, 1, 1000)
    assert chip.shape == (1, 1000)
    assert not chip.valid_mask.any()
