from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from indexer.errors import ImageryError
from indexer.imagery.image import ImagePart
from indexer.imagery.preview import Style
from indexer.imagery.spectral_image import SpectralImage, open_spectral_image
from indexer.imagery.spectral_preview import shown_image
from tests.synthetic import TRANSFORM, UTM_31, write_geotiff

FloatArray = npt.NDArray[np.float32]

AT_NM = (840, 450, 560, 665)


def image_of(folder: Path, cube: FloatArray, names: tuple[str, ...]) -> SpectralImage:
    return open_spectral_image(write_geotiff(folder / "flight.tif", cube, names))


def ramps(count: int = 4) -> FloatArray:
    """Bands of very different units, each rising by column from 0 to 100 of its own."""
    rise = np.broadcast_to(np.linspace(0, 100, 101), (20, 101))
    return np.stack([1 + rise * 10.0**band for band in range(count)]).astype(np.float32)


def named() -> tuple[str, ...]:
    return tuple(f"{at} nm" for at in AT_NM)


@pytest.mark.parametrize(
    ("style", "shown"),
    [
        ("true-color", ("665 nm", "560 nm", "450 nm")),
        ("false-color", ("840 nm", "665 nm", "560 nm")),
    ],
)
def test_the_bands_nearest_to_the_colors_are_shown(
    tmp_path: Path, style: Style, shown: tuple[str, ...]
) -> None:
    chip = shown_image(image_of(tmp_path, ramps(), named()), style).read()
    assert chip.bands == shown


def test_each_band_is_stretched_by_itself(tmp_path: Path) -> None:
    chip = shown_image(image_of(tmp_path, ramps(), named()), "true-color").read()
    # From the 1st to the 99th percentile: columns 1 to 99.
    expected = np.clip((np.arange(101) - 1) / 98, 0, 1)
    for band in chip.reflectance:
        np.testing.assert_allclose(band, np.broadcast_to(expected, (20, 101)), atol=1e-3)


def test_what_is_even_is_gray_and_what_is_nodata_stays_so(tmp_path: Path) -> None:
    cube = np.full((4, 8, 8), 7, np.float32)
    cube[:, 0, 0] = np.nan
    chip = shown_image(image_of(tmp_path, cube, named()), "true-color").read()
    assert np.isnan(chip.reflectance[:, 0, 0]).all()
    np.testing.assert_array_equal(chip.reflectance[:, 1:], 0.5)


def test_without_wavelengths_there_is_true_color_only(tmp_path: Path) -> None:
    image = image_of(tmp_path, ramps(), ("one", "two", "three", "four"))
    assert len(shown_image(image, "true-color").read().bands) == 3
    with pytest.raises(ImageryError, match="no band near 842 nm") as caught:
        shown_image(image, "false-color")
    assert caught.value.kind == "missing-band"


def test_a_part_of_an_image_is_an_image(tmp_path: Path) -> None:
    image = image_of(tmp_path, ramps(), named())
    part = ImagePart(image, 5, 20, (10, 30))
    np.testing.assert_array_equal(part.read().reflectance, image.read(5, 20, 10, 30).reflectance)
    np.testing.assert_array_equal(
        part.read(2, 3, 4, 5).reflectance, image.read(7, 23, 4, 5).reflectance
    )
    assert part.crs == UTM_31
    assert part.source == image.source
    west, north = TRANSFORM @ (20, 5)
    assert part.bounds == (west, north - 100, west + 300, north)
