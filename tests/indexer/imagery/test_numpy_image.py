import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from rasterio.crs import CRS

from indexer.errors import ImageryError, InvalidInputError
from indexer.imagery import numpy_image
from indexer.imagery.spectral_image import SpectralImage, open_spectral_image

UM = [0.49, 0.56, 0.665, 0.833]


def counted(dtype: str = "int16") -> npt.NDArray[Any]:
    """The numbers from 1 on, shape ``(y, x, band)``."""
    return np.arange(1, 61).reshape(3, 5, 4).astype(dtype)


def save(path: Path, cube: npt.NDArray[Any], **sidecar: object) -> Path:
    np.save(path, cube)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def opened(
    tmp_path: Path, cube: npt.NDArray[Any] | None = None, **sidecar: object
) -> SpectralImage:
    return open_spectral_image(
        save(tmp_path / "flight.npy", counted() if cube is None else cube, **sidecar)
    )


def refusal(path: Path) -> ImageryError:
    with pytest.raises(ImageryError) as caught:
        open_spectral_image(path)
    return caught.value


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "<u2", "int32", "float16", ">f4", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_each_number_is_read_as_it_is(tmp_path: Path, dtype: str, order: Any) -> None:  # noqa: ANN401
    image = opened(tmp_path, np.asarray(counted(dtype), order=order))
    assert image.shape == (3, 5)
    bands_first = counted().transpose(2, 0, 1)
    np.testing.assert_array_equal(image.read().reflectance, bands_first)
    np.testing.assert_array_equal(image.read(1, 2, 2, 3).reflectance, bands_first[:, 1:3, 2:5])


def test_without_a_sidecar_it_says_what_is_not_known(tmp_path: Path) -> None:
    image = opened(tmp_path)
    assert [note.split(":")[0] for note in image.notes] == [
        "no wavelengths",
        "no place on the map",
    ]
    assert [band.name for band in image.bands] == [f"band {number}" for number in range(1, 5)]
    assert (image.crs, image.acquired_at, image.default_bands) == (None, None, None)


def test_a_sidecar_tells_wavelengths_place_time_and_what_to_show(tmp_path: Path) -> None:
    image = opened(
        tmp_path,
        wavelengths=[490, 560, 665, 833],
        wavelength_units="nm",
        fwhm=[10, 10, 10, 20],
        crs="EPSG:32631",
        transform=[10, 0, 500_000, 0, -10, 5_000_000],
        default_bands=[3, 2, 1],
        datetime="2023-06-01T10:50:00Z",
        band_names=["blue", "green", "red", "nir"],
    )
    assert [band.center_wavelength_um for band in image.bands] == pytest.approx(UM)
    assert [band.fwhm_um for band in image.bands] == pytest.approx([0.01, 0.01, 0.01, 0.02])
    assert [band.name for band in image.bands] == ["blue", "green", "red", "nir"]
    assert image.crs == CRS.from_epsg(32631)
    assert image.transform == Affine(10, 0, 500_000, 0, -10, 5_000_000)
    assert image.acquired_at == datetime(2023, 6, 1, 10, 50, tzinfo=UTC)
    assert image.default_bands == (3, 2, 1)
    assert image.notes == ()


def test_bands_may_come_first(tmp_path: Path) -> None:
    cube = counted().transpose(2, 0, 1)
    image = opened(tmp_path, cube, axes="byx")
    assert image.shape == (3, 5)
    np.testing.assert_array_equal(image.read().reflectance, cube)


def test_nodata_scale_and_bad_bands_are_obeyed(tmp_path: Path) -> None:
    cube = counted()
    cube[1, 2, 3] = -1
    cube[0, 0, 1] = -1
    chip = opened(tmp_path, cube, nodata=-1, scale=0.5, bad_bands=[1]).read()
    assert chip.bands == ("band 1", "band 3", "band 4")
    assert np.argwhere(~chip.valid_mask).tolist() == [[1, 2]]
    assert chip.reflectance[2, 0, 0] == 2.0


def test_a_key_that_is_not_known_is_said(tmp_path: Path) -> None:
    image = opened(tmp_path, wavelenghts=[1, 2, 3, 4])
    assert "flight.json says wavelenghts, which is passed over" in image.notes


@pytest.mark.parametrize("packed", [np.savez, np.savez_compressed])
def test_the_cube_of_an_npz_is_the_image(tmp_path: Path, packed: Callable[..., None]) -> None:
    packed(tmp_path / "a.npz", cube=counted(), other=counted() + 1, gt=np.zeros((3, 5)))
    packed(tmp_path / "b.npz", anything=counted(), gt=np.zeros((3, 5)))
    for name in ("a.npz", "b.npz"):
        image = open_spectral_image(tmp_path / name)
        bands_first = counted().transpose(2, 0, 1)
        np.testing.assert_array_equal(image.read().reflectance, bands_first)
        np.testing.assert_array_equal(image.read(1, 2, 2, 3).reflectance, bands_first[:, 1:3, 2:])


def test_several_arrays_that_may_be_the_image_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=counted(), two=counted())
    error = refusal(tmp_path / "a.npz")
    assert error.kind == "unreadable"
    assert "one (3, 5, 4), two (3, 5, 4)" in error.message


@pytest.mark.parametrize("scene", ["salinas_a", "indian_pines_roi", "jasper_ridge"])
def test_real_scenes_are_read_as_they_are(test_data: Callable[[str], Path], scene: str) -> None:
    path = test_data("hyperspectral") / f"{scene}.npz"
    with np.load(path) as stored:
        cube = stored["cube"]
    image = open_spectral_image(path)
    chip = image.read()
    assert len(image.bands) == cube.shape[2]
    assert chip.valid_mask.all()
    np.testing.assert_array_equal(chip.reflectance, cube.transpose(2, 0, 1))


# What is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("wavelengths", [490, 560, 665]),
        ("wavelengths", "490"),
        ("wavelengths", [490, 560, 665, "833"]),
        ("wavelengths", [490, 560, 665, True]),
        ("fwhm", [1] * 5),
        ("band_names", ["a", "b"]),
        ("axes", "xyb"),
        ("nodata", "-1"),
        ("scale", [1]),
        ("crs", "/etc/passwd"),
        ("crs", "http://127.0.0.1/wkt"),
        ("crs", "EPSG:999999"),
        ("crs", "EPSG:UTM31"),
        ("wavelengths", [10**400] * 4),
        ("scale", 10**400),
        ("bad_bands", [0.5]),
        ("bad_bands", [float("inf")]),
        ("crs", "EPSG:4326"),
        ("transform", [1, 2, 3]),
        ("transform", [0, 0, 0, 0, 0, 0]),
        ("transform", [float("nan")] * 6),
        ("default_bands", [1]),
        ("bad_bands", [4]),
        ("datetime", 2023),
    ],
)
def test_a_sidecar_that_does_not_fit_is_refused_by_its_key(
    tmp_path: Path, key: str, value: object
) -> None:
    error = refusal(save(tmp_path / "a.npy", counted(), **{key: value}))
    assert error.kind == "header-invalid"
    assert str(tmp_path / "a.json") in error.message
    assert key in error.message


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000])
def test_a_sidecar_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    path = save(tmp_path / "a.npy", counted())
    (tmp_path / "a.json").write_text(content)
    error = refusal(path)
    assert error.kind == "header-invalid"
    assert "a.json" in error.message


def test_a_sidecar_may_not_lead_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "secret.json").write_text("{}")
    path = save(tmp_path / "here" / "a.npy", counted())
    (tmp_path / "here" / "a.json").symlink_to(tmp_path / "secret.json")
    assert refusal(path).kind == "unreadable"


@pytest.mark.parametrize("shape", [(60,), (12, 5), (1, 3, 5, 4), ()])
def test_arrays_of_other_than_three_sides_are_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    error = refusal(save(tmp_path / "a.npy", np.ones(shape)))
    assert error.kind == "unreadable"
    assert str(shape) in error.message
    assert "three sides" in error.message


@pytest.mark.parametrize(
    "cube",
    [counted().astype(complex), counted().astype(str), counted().astype(bool)],
    ids=["complex", "texts", "truth values"],
)
def test_what_is_no_number_is_refused(tmp_path: Path, cube: npt.NDArray[Any]) -> None:
    error = refusal(save(tmp_path / "a.npy", cube))
    assert error.kind == "unreadable"
    assert str(cube.dtype) in error.message


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path / "sprung").touch, ()

    cube = np.full((2, 2, 2), None, dtype=object)
    cube[0, 0, 0] = Trap()
    np.save(tmp_path / "a.npy", cube, allow_pickle=True)
    np.savez(tmp_path / "b.npz", cube=cube)
    for name in ("a.npy", "b.npz"):
        error = refusal(tmp_path / name)
        assert error.kind == "unreadable"
        assert "object" in error.message
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_than_it_states_is_refused_with_both(
    tmp_path: Path, change: int
) -> None:
    path = save(tmp_path / "a.npy", counted())
    content = path.read_bytes()
    path.write_bytes((content + b"\0")[: len(content) + change])
    error = refusal(path)
    assert error.kind == "size-mismatch"
    assert f"{len(content)} bytes in all" in error.message
    assert f"holds {len(content) + change}" in error.message


def test_a_header_that_states_a_huge_array_is_refused_before_memory_is_taken(
    tmp_path: Path,
) -> None:
    header = io.BytesIO()
    fields = {"descr": "<i2", "fortran_order": False, "shape": (10**6, 10**6, 200)}
    np.lib.format.write_array_header_1_0(header, fields)
    (tmp_path / "a.npy").write_bytes(header.getvalue() + b"\0" * 100)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as packed:
        packed.writestr("cube.npy", header.getvalue() + b"\0" * 100)
    tracemalloc.start()
    try:
        for name in ("a.npy", "b.npz"):
            assert refusal(tmp_path / name).kind == "size-mismatch"
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("position", range(10, 128))
def test_a_header_damaged_at_any_byte_is_read_or_refused(tmp_path: Path, position: int) -> None:
    path = save(tmp_path / "a.npy", counted())
    content = bytearray(path.read_bytes())
    content[position] = ord("[")
    path.write_bytes(bytes(content))
    # Nothing of the header may be lost but the blanks that pad it.
    assert refusal(path).kind in ("unreadable", "size-mismatch")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"text" * 100])
def test_what_is_no_numpy_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).kind == "unreadable"


def test_a_damaged_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", cube=counted())
    content = bytearray((tmp_path / "a.npz").read_bytes())
    # The last number of the array, far from the header and the directory of the archive.
    at = content.index(counted().tobytes()) + 100
    content[at] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(bytes(content))
    assert refusal(tmp_path / "a.npz").kind == "unreadable"


def test_an_npz_too_large_to_unpack_says_to_save_an_npy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_image, "MAX_UNPACKED_BYTES", 100)
    np.savez(tmp_path / "a.npz", cube=counted())
    error = refusal(tmp_path / "a.npz")
    assert error.kind == "too-large"
    assert ".npy" in error.message


def test_one_band_and_no_pixels_are_refused(tmp_path: Path) -> None:
    assert refusal(save(tmp_path / "a.npy", counted()[..., :1])).kind == "one-band"
    assert refusal(save(tmp_path / "b.npy", counted()[:0])).kind == "unreadable"


def test_bands_are_not_named_from_outside(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", counted())
    with pytest.raises(InvalidInputError, match="names its own") as caught:
        open_spectral_image(path, bands="B02,B03,B04,B08")
    assert caught.value.kind == "invalid-bands"


def test_only_the_window_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    # 4 GB of pixels that take no room: the file has a hole.
    shape = (20_000, 10_000, 10)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i2", "fortran_order": False, "shape": shape}
    )
    with path.open("wb") as file:
        file.write(header.getvalue())
        file.truncate(header.tell() + 20_000 * 10_000 * 10 * 2)
    image = open_spectral_image(path)
    tracemalloc.start()
    try:
        chip = image.read(19_000, 0, 100, 100)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert chip.shape == (100, 100)
