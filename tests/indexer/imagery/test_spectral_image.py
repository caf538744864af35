"""What holds for images of any format: windows, blocks, bands, pictures."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import ImageryError
from indexer.imagery.spectral_image import (
    SpectralBand,
    SpectralImage,
    block_rows,
    open_spectral_image,
    select_bands,
    survey_pixels,
    true_color,
    true_color_bands,
    valid_pixel_count,
    without_empty_bands,
)
from tests.indexer.imagery.envi_files import write_envi
from tests.synthetic import write_geotiff

BANDS, HEIGHT, WIDTH = 6, 23, 17
NODATA = -999


def drone_track(seed: int = 0) -> npt.NDArray[np.int16]:
    """Random numbers on a slanting strip, nodata beside it, shape ``(band, y, x)``."""
    random = np.random.default_rng(seed)
    cube = random.integers(-50, 4000, (BANDS, HEIGHT, WIDTH), dtype=np.int16)
    rows, columns = np.indices((HEIGHT, WIDTH))
    cube[:, np.abs(rows - columns - 3) > 8] = NODATA
    return cube


def expected(cube: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    return np.where(cube == NODATA, np.nan, cube).astype(np.float32)


def write_numpy(path: Path, cube: npt.NDArray[Any], **sidecar: object) -> Path:
    np.save(path, cube)
    path.with_suffix(".json").write_text(json.dumps({"axes": "byx"} | sidecar))
    return path


WRITERS: dict[str, Callable[[Path, npt.NDArray[np.int16]], Path]] = {
    "envi-bip": lambda folder, cube: write_envi(
        folder / "a.hdr", cube, "bip", 1, fields={"data ignore value": str(NODATA)}
    ),
    "envi-bil": lambda folder, cube: write_envi(
        folder / "b.hdr", cube, "bil", fields={"data ignore value": str(NODATA)}
    ),
    "geotiff": lambda folder, cube: write_geotiff(
        folder / "c.tif", cube, nodata=NODATA, tiled=True, blockxsize=16, blockysize=16
    ),
    "numpy": lambda folder, cube: write_numpy(folder / "d.npy", cube, nodata=NODATA),
}


@pytest.fixture(scope="module", params=WRITERS)
def track(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> SpectralImage:
    folder = tmp_path_factory.mktemp(request.param)
    return open_spectral_image(WRITERS[request.param](folder, drone_track()))


@given(st.data())
def test_a_window_equals_the_same_part_of_the_whole(
    track: SpectralImage, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, HEIGHT - 1))
    column = data.draw(st.integers(0, WIDTH - 1))
    height = data.draw(st.integers(1, HEIGHT - row))
    width = data.draw(st.integers(1, WIDTH - column))
    chip = track.read(row, column, height, width)
    whole = expected(drone_track())
    part = whole[:, row : row + height, column : column + width]
    np.testing.assert_array_equal(chip.reflectance, part)
    np.testing.assert_array_equal(chip.valid_mask, np.isfinite(part).all(axis=0))
    assert chip.transform == track.transform @ Affine.translation(column, row)
    assert chip.reflectance.dtype == np.float32


def test_without_a_size_a_window_reaches_to_the_end(track: SpectralImage) -> None:
    np.testing.assert_array_equal(
        track.read(20, 9).reflectance, expected(drone_track())[:, 20:, 9:]
    )


@pytest.mark.parametrize(
    "window", [(-1, 0, 2, 2), (0, -1, 2, 2), (HEIGHT, 0), (0, WIDTH), (0, 0, HEIGHT + 1, 1)]
)
def test_a_window_beyond_the_image_is_a_mistake(
    track: SpectralImage, window: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="window"):
        track.read(*window)


@pytest.mark.parametrize("memory_mib", [1e-6, 0.01, 0.03, 1])
def test_blocks_hold_every_row_once_and_no_more_than_they_may(
    track: SpectralImage, memory_mib: float
) -> None:
    blocks = list(block_rows(track, memory_mib))
    rows = [row for block in blocks for row in range(block.start, block.stop)]
    assert rows == list(range(HEIGHT))
    largest = max(block.stop - block.start for block in blocks)
    # A float32 for each number, at the very least.
    assert largest == 1 or largest * WIDTH * BANDS * 4 <= memory_mib * 2**20


def test_blocks_end_where_those_of_the_file_do(tmp_path: Path) -> None:
    path = WRITERS["geotiff"](tmp_path, drone_track())
    image = open_spectral_image(path)
    # 20 rows of 17 x 6 numbers of 24 bytes fit: one block of 16 rows.
    blocks = list(block_rows(image, 20 * 17 * 6 * 24 / 2**20))
    assert [(block.start, block.stop) for block in blocks] == [(0, 16), (16, 23)]


def test_reading_by_blocks_takes_no_more_memory_than_allowed(tmp_path: Path) -> None:
    cube = np.ones((20, 400, 200), dtype=np.float64)
    image = open_spectral_image(write_numpy(tmp_path / "a.npy", cube))
    del cube
    tracemalloc.start()
    try:
        # The image as float32 alone takes 6.1 MiB.
        assert valid_pixel_count(image, memory_mib=1) == 400 * 200
        assert tracemalloc.get_traced_memory()[1] < 1.1 * 2**20
    finally:
        tracemalloc.stop()


def test_pixels_are_counted(track: SpectralImage) -> None:
    cube = drone_track()
    survey = survey_pixels(track, memory_mib=0.01)
    assert survey.valid_pixels == valid_pixel_count(track) == (cube[0] != NODATA).sum()
    assert survey.band_pixels == (survey.valid_pixels,) * BANDS
    assert survey.empty_bands == ()
    assert without_empty_bands(track) is track


def test_an_image_without_a_valid_pixel_is_refused(tmp_path: Path) -> None:
    for name, cube in (
        ("zero.npy", np.zeros((3, 4, 5))),
        ("nan.npy", np.full((3, 4, 5), np.nan)),
        ("nodata.npy", np.full((3, 4, 5), 7)),
    ):
        image = open_spectral_image(write_numpy(tmp_path / name, cube, nodata=7))
        for function in (valid_pixel_count, without_empty_bands):
            with pytest.raises(ImageryError, match="none of its 4 x 5 pixels is valid") as caught:
                function(image)
            assert caught.value.kind == "no-valid-pixels"
            assert name in caught.value.message


def test_bands_without_any_data_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    cube = np.ones((6, 4, 5))
    cube[[1, 2, 4]] = -1
    image = open_spectral_image(write_numpy(tmp_path / "a.npy", cube, nodata=-1))
    with pytest.raises(ImageryError, match=r"band 2-3, 5 of 6 has data nowhere"):
        valid_pixel_count(image)
    left = without_empty_bands(image)
    assert [band.name for band in left.bands] == ["band 1", "band 4", "band 6"]
    assert left.read().valid_mask.all()
    assert "left out 3 bands without any data (2-3, 5)" in left.notes


def test_bands_that_were_left_out_for_an_encoder_are_left_out_of_its_images(tmp_path: Path) -> None:
    cube = np.ones((6, 4, 5))
    cube[2] = -1
    image = open_spectral_image(write_numpy(tmp_path / "a.npy", cube, nodata=-1))
    wanted = without_empty_bands(image).bands
    assert select_bands(image, wanted).bands == wanted
    cube[2], cube[3] = 1, -1
    other = open_spectral_image(write_numpy(tmp_path / "b.npy", cube, nodata=-1))
    cube[3] = 1
    full = open_spectral_image(write_numpy(tmp_path / "c.npy", cube, nodata=-1))
    for image in (other, full):
        with pytest.raises(ImageryError, match="6 bands, but 5 are wanted") as caught:
            select_bands(image, wanted)
        assert caught.value.kind == "band-count"


# Bands ------------------------------------------------------------------------------------------


def with_wavelengths(path: Path, nm: list[float], **sidecar: object) -> SpectralImage:
    cube = np.array(nm)[:, None, None] * np.ones((1, 2, 3))
    return open_spectral_image(
        write_numpy(path, cube, wavelengths=nm, wavelength_units="nm", **sidecar)
    )


def test_wanted_bands_come_in_the_wanted_order(tmp_path: Path) -> None:
    image = with_wavelengths(tmp_path / "a.npy", [490, 560, 665, 842, 945])
    wanted = [SpectralBand("", at, None) for at in (0.843, 0.490, 0.664)]
    chosen = select_bands(image, wanted)
    assert [band.name for band in chosen.bands] == ["842 nm", "490 nm", "665 nm"]
    assert chosen.read().reflectance[:, 0, 0].tolist() == [842, 490, 665]
    assert chosen.read().bands == ("842 nm", "490 nm", "665 nm")
    # Green is gone.
    assert image.default_bands == (2, 1, 0)
    assert chosen.default_bands is None
    again = select_bands(chosen, wanted[::-1])
    assert again.read().reflectance[:, 0, 0].tolist() == [665, 490, 842]


def test_bands_that_are_missing_are_named_with_the_file(tmp_path: Path) -> None:
    image = with_wavelengths(tmp_path / "a.npy", [490, 560, 665])
    with pytest.raises(ImageryError, match=r"a\.npy: 1 of 2 .*842 nm") as caught:
        select_bands(image, [SpectralBand("842 nm", 0.842), SpectralBand("490 nm", 0.49)])
    assert caught.value.kind == "missing-band"


def test_only_the_wanted_bands_decide_what_is_valid(tmp_path: Path) -> None:
    cube = np.ones((3, 2, 2))
    cube[1] = np.nan
    image = open_spectral_image(
        write_numpy(tmp_path / "a.npy", cube, wavelengths=[400, 500, 600], wavelength_units="nm")
    )
    assert not image.read().valid_mask.any()
    wanted = [SpectralBand("", 0.4), SpectralBand("", 0.6)]
    assert select_bands(image, wanted).read().valid_mask.all()


# Pictures ---------------------------------------------------------------------------------------


def test_the_default_bands_are_shown_stretched_and_no_data_is_white(tmp_path: Path) -> None:
    ramp = np.arange(101.0).reshape(1, 101) + 1
    cube = np.stack([ramp, ramp * 0 + 5, ramp[:, ::-1] * 1000]).repeat(2, axis=1)
    cube[:, 0, 50] = np.nan
    image = open_spectral_image(write_numpy(tmp_path / "a.npy", cube, default_bands=[2, 1, 0]))
    picture = true_color(image)
    assert picture.shape == (2, 101, 3)
    assert picture.dtype == np.uint8
    assert picture[0, 50].tolist() == [255, 255, 255]
    red, green, blue = picture[1].astype(int).T
    # An even band is a middling gray: 255 * 0.5 ** (1 / 1.5) = 160.6.
    assert set(green) == {161}
    assert (np.diff(blue) >= 0).all()
    assert (np.diff(red) <= 0).all()
    assert (blue[0], blue[-1], red[0], red[-1]) == (0, 255, 255, 0)


def test_a_large_image_is_shown_by_every_nth_pixel(track: SpectralImage) -> None:
    full, small = true_color(track), true_color(track, max_px=8)
    # 23 rows at every third pixel.
    assert small.shape == (8, 6, 3)
    white = (full == 255).all(axis=2)[::3, ::3]
    valid = (drone_track()[0] != NODATA)[::3, ::3]
    assert (white[~valid]).all()
    assert ((small == 255).all(axis=2)[~valid]).all()
    assert not (small == 255).all(axis=2)[valid].all()


def test_rows_of_a_small_picture_are_the_same_whether_read_one_by_one_or_not(
    tmp_path: Path,
) -> None:
    cube = drone_track()
    pictures = [
        true_color(open_spectral_image(write(tmp_path, cube)), max_px=5)
        for write in WRITERS.values()
    ]
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture, pictures[0])


def test_without_colors_three_bands_are_spread_and_it_says_so(track: SpectralImage) -> None:
    # 1/6, 1/2 and 5/6 of the way from band 1 to band 6.
    bands, note = true_color_bands(track)
    assert bands == (4, 2, 1)
    assert note == "no bands of red, green and blue: band 5, band 3, band 2 are shown as these"


def test_two_bands_make_a_picture_too(tmp_path: Path) -> None:
    image = open_spectral_image(write_numpy(tmp_path / "a.npy", drone_track()[:2]))
    assert true_color(image).shape == (HEIGHT, WIDTH, 3)


def test_an_image_without_valid_pixels_is_a_white_picture(tmp_path: Path) -> None:
    image = open_spectral_image(write_numpy(tmp_path / "a.npy", np.zeros((3, 4, 5))))
    assert (true_color(image) == 255).all()
