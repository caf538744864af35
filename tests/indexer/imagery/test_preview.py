import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.warp import transform_geom
from shapely import MultiPolygon, Polygon, box
from shapely.geometry import mapping, shape

from indexer.chipping import footprint_lon_lat
from indexer.imagery.preview import BANDS, Style, draw_preview
from indexer.imagery.reader import Scene
from indexer.imagery.sources import source_at
from indexer.sensors import PROFILES
from tests.synthetic import TRANSFORM, UTM_31, write_geotiff

UInt16Array = npt.NDArray[np.uint16]
Picture = npt.NDArray[np.uint8]

DARK, MIDDLE, LIGHT = 1000, 3000, 5000
# A gamma of 1.5: 255 * 0.5 ** (1 / 1.5) is 160.6.
SHOWN = {DARK: 0, MIDDLE: 161, LIGHT: 255}

MIXED = {"B02": MIDDLE, "B03": MIDDLE, "B04": MIDDLE, "B08": MIDDLE}


def ground(size: int = 100, **levels: int) -> dict[str, UInt16Array]:
    """Bands of one level each, with some dark and some light pixels in the last two rows."""
    bands = {
        band: np.full((size, size), level, np.uint16) for band, level in (MIXED | levels).items()
    }
    for values in bands.values():
        # A tenth of the pixels each decides what is black and what is white.
        values[-size // 5 : -size // 10] = DARK
        values[-size // 10 :] = LIGHT
    return bands


def scene_of(
    folder: Path,
    bands: dict[str, UInt16Array],
    style: Style = "true-color",
    **options: Any,  # noqa: ANN401 - handed on to write_geotiff as they come
) -> Scene:
    tags = {"PROCESSING_BASELINE": "03.01"}
    stack = np.stack(list(bands.values()))
    path = write_geotiff(folder / "scene.tif", stack, list(bands), tags=tags, **options)
    return opened(path, style)


def opened(path: Path, style: Style = "true-color") -> Scene:
    source = source_at(path, path.stem)
    assert source is not None
    return Scene.reopen(source, BANDS[style], layer_bands=None, baseline=None)


def in_lon_lat(outline: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    found = shape(transform_geom(UTM_31, "EPSG:4326", mapping(outline)))
    assert isinstance(found, Polygon | MultiPolygon)
    return found


def rectangle(left: float, top: float, right: float, bottom: float) -> Polygon:
    """A rectangle given in pixels of the scene, in its reference system."""
    return box(*(TRANSFORM @ (left, bottom)), *(TRANSFORM @ (right, top)))


def parcel(left: float, top: float, right: float, bottom: float) -> Polygon:
    """The same in longitude and latitude."""
    found = in_lon_lat(rectangle(left, top, right, bottom))
    assert isinstance(found, Polygon)
    return found


def picture(
    scene: Scene,
    outline: Polygon | MultiPolygon | None = None,
    size: int = 100,
    style: Style = "true-color",
) -> Picture:
    """The decoded picture, shape ``(size, size, 4)``."""
    with Image.open(io.BytesIO(draw_preview(scene, outline, style, size))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (size, size))
        return np.array(image)


# Colors --------------------------------------------------------------------------------------


def test_black_and_white_are_the_darkest_and_lightest_pixels_in_view(tmp_path: Path) -> None:
    shown = picture(scene_of(tmp_path, ground()))
    assert shown[10, 10].tolist() == [SHOWN[MIDDLE]] * 3 + [255]
    assert shown[85, 10].tolist() == [SHOWN[DARK]] * 3 + [255]
    assert shown[95, 10].tolist() == [SHOWN[LIGHT]] * 3 + [255]


@pytest.mark.parametrize(
    ("style", "levels", "color"),
    [
        ("true-color", {"B04": LIGHT, "B03": MIDDLE, "B02": DARK}, (LIGHT, MIDDLE, DARK)),
        ("true-color", {"B02": LIGHT, "B03": DARK, "B04": DARK}, (DARK, DARK, LIGHT)),
        ("false-color", {"B08": LIGHT, "B04": MIDDLE, "B03": DARK}, (LIGHT, MIDDLE, DARK)),
        ("false-color", {"B08": DARK, "B04": LIGHT, "B03": DARK}, (DARK, LIGHT, DARK)),
    ],
)
def test_each_band_has_its_color_and_all_share_one_stretch(
    tmp_path: Path, style: Style, levels: dict[str, int], color: tuple[int, ...]
) -> None:
    shown = picture(scene_of(tmp_path, ground(**levels), style), style=style)
    assert shown[10, 10, :3].tolist() == [SHOWN[level] for level in color]


def test_a_few_extreme_pixels_change_nothing(tmp_path: Path) -> None:
    bands = ground()
    usual = picture(scene_of(tmp_path / "usual", bands))
    for values in bands.values():
        values[0, :20] = 9000
    glaring = picture(scene_of(tmp_path / "glaring", bands))
    np.testing.assert_array_equal(glaring[1:], usual[1:])


def test_an_even_field_is_shown_evenly(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(2950, 3050, (3, 100, 100)).astype(np.uint16)
    bands = dict(zip(("B04", "B03", "B02"), noise, strict=True))
    shown = picture(scene_of(tmp_path, bands))
    # A hundredth of reflectance among the tenth that is always shown.
    assert np.ptp(shown[..., :3]) < 40
    assert 100 < shown[..., :3].mean() < 200


def test_woods_are_dark_and_keep_their_color(tmp_path: Path) -> None:
    # Reflectance of a spruce forest: 0.02 to 0.04, so that the least range begins at 0.
    levels = {"B04": 200, "B03": 400, "B02": 200}
    bands = {band: np.full((100, 100), level, np.uint16) for band, level in levels.items()}
    shown = picture(scene_of(tmp_path, bands))
    # 255 * 0.2 ** (1 / 1.5) and 255 * 0.4 ** (1 / 1.5).
    assert shown[50, 50].tolist() == [87, 138, 87, 255]


def test_the_air_above_level_1c_is_not_shown(tmp_path: Path) -> None:
    names = PROFILES["l1c"]
    levels = dict.fromkeys(names, 1000) | {"B04": 370, "B03": 750, "B02": 800}
    stack = np.stack([np.full((100, 100), levels[name], np.uint16) for name in names])
    path = write_geotiff(tmp_path / "scene.tif", stack, tags={"PROCESSING_BASELINE": "03.01"})
    source = source_at(path, path.stem)
    assert source is not None
    scene = Scene.reopen(source, BANDS["true-color"], layer_bands=names, baseline=None)
    # Below 0.017, 0.035 and 0.060 of air, 0.02, 0.04 and 0.02 are left.
    assert picture(scene)[50, 50].tolist() == [87, 138, 87, 255]


def test_clouds_do_not_decide_how_the_ground_looks(tmp_path: Path) -> None:
    bands = ground()
    clear = picture(scene_of(tmp_path / "clear", bands))
    classes = np.full((100, 100), 4, np.uint16)
    for values in bands.values():
        values[:50] = 9500
    classes[:50] = 9
    cloudy = picture(scene_of(tmp_path / "cloudy", {**bands, "SCL": classes}))
    np.testing.assert_array_equal(cloudy[50:], clear[50:])
    assert cloudy[:50, :, :3].min() == 255


def test_a_picture_of_nothing_but_clouds_is_drawn_all_the_same(tmp_path: Path) -> None:
    bands = ground()
    expected = picture(scene_of(tmp_path / "clear", bands))
    bands["SCL"] = np.full((100, 100), 9, np.uint16)
    np.testing.assert_array_equal(picture(scene_of(tmp_path / "cloudy", bands)), expected)


def test_pixels_without_data_are_transparent(tmp_path: Path) -> None:
    bands = ground()
    bands["B03"][:20, :30] = 0
    # A band that is not shown.
    bands["B08"][60:, 60:] = 0
    shown = picture(scene_of(tmp_path, bands))
    expected = np.full((100, 100), 255)
    expected[:20, :30] = 0
    np.testing.assert_array_equal(shown[..., 3], expected)


def test_an_image_without_data_there_is_transparent(tmp_path: Path) -> None:
    bands = {band: np.zeros((100, 100), np.uint16) for band in MIXED}
    assert not picture(scene_of(tmp_path, bands))[..., 3].any()


# Size ----------------------------------------------------------------------------------------


def test_enlarged_pixels_stay_square(tmp_path: Path) -> None:
    bands = ground(20)
    bands["B04"][3, 5] = LIGHT
    shown = picture(scene_of(tmp_path, bands), size=80)
    red = shown[..., 0] == SHOWN[LIGHT]
    expected = np.zeros((80, 80), np.bool_)
    expected[12:16, 20:24] = True
    np.testing.assert_array_equal(red[:64], expected[:64])


def test_pixels_that_are_too_many_are_averaged(tmp_path: Path) -> None:
    bands = ground(200)
    checkered = np.indices((150, 200)).sum(axis=0) % 2
    for values in bands.values():
        values[:150] = np.where(checkered, LIGHT, DARK)
    shown = picture(scene_of(tmp_path, bands))
    # Two of each four pixels are white, and the others black.
    assert set(np.unique(shown[:75, :, :3])) <= {127, 128}


def test_a_longish_image_is_shown_whole_in_the_middle(tmp_path: Path) -> None:
    bands = {band: values[:50] for band, values in ground(100).items()}
    opaque = picture(scene_of(tmp_path, bands))[..., 3] == 255
    assert opaque[25:75].all()
    assert not opaque[:25].any()
    assert not opaque[75:].any()


# The parcel and its surroundings ----------------------------------------------------------------


def test_a_parcel_is_shown_with_its_surroundings(tmp_path: Path) -> None:
    bands = ground(100)
    scene = scene_of(tmp_path, bands)
    # 200 m are 20 pixels: 60 pixels are shown, of which the first is (20, 10).
    bands["B04"][10, 20] = bands["B04"][69, 79] = LIGHT
    scene = scene_of(tmp_path, bands)
    shown = picture(scene, parcel(40, 30, 60, 50), size=60)
    assert shown[0, 0, 0] > shown[0, 1, 0]
    assert shown[59, 59, 0] > shown[59, 58, 0]


def on_one_level(folder: Path, level: int) -> Picture:
    """A parcel on even ground; four pixels of the picture to one of the scene, from (20, 10) on."""
    bands = ground(B02=level, B03=level, B04=level)
    for values in bands.values():
        values[10:13], values[13:16] = DARK, LIGHT
    return picture(scene_of(folder, bands), parcel(40, 30, 60, 50), size=240)


def test_the_outline_lies_on_the_border_of_the_parcel(tmp_path: Path) -> None:
    light = on_one_level(tmp_path, DARK)[..., 0].astype(float)
    positions = np.arange(240) + 0.5
    for profile in (light[120, 40:200], light[40:200, 120]):
        for border in (80, 160):
            near = slice(border - 40 - 10, border - 40 + 10)
            center = np.average(positions[40:200][near], weights=profile[near])
            # Pillow draws on whole pixels of its four times larger grid.
            assert center == pytest.approx(border, abs=0.2)
    assert light[90:150, 90:150].max() == 0


@pytest.mark.parametrize("level", [DARK, LIGHT])
def test_the_outline_stands_out_from_dark_and_light_ground(tmp_path: Path, level: int) -> None:
    across = on_one_level(tmp_path, level)[120, 70:90, 0].astype(int)
    assert across[0] == across[-1] == SHOWN[level]
    assert np.ptp(across) > 100


def test_the_outline_is_smooth(tmp_path: Path) -> None:
    corners = [TRANSFORM @ corner for corner in ((40, 30), (60, 33), (57, 50), (38, 48))]
    slanting = in_lon_lat(Polygon(corners))
    shown = picture(scene_of(tmp_path, ground(B02=DARK, B03=DARK, B04=DARK)), slanting, size=240)
    # Neither the ground nor the line.
    between = (shown[..., 0] > 40) & (shown[..., 0] < 215)
    assert between.sum() > 100


def test_holes_and_all_parts_are_outlined(tmp_path: Path) -> None:
    ring = rectangle(30, 30, 50, 50).difference(rectangle(36, 36, 44, 44))
    parts = MultiPolygon([ring, rectangle(54, 30, 60, 50)])
    shown = picture(
        scene_of(tmp_path, ground(B02=DARK, B03=DARK, B04=DARK)), in_lon_lat(parts), 280
    )
    across = shown[140, :, 0] > 200
    # 30 pixels of parts and 20 on each side: 4 to 1. A line for each side that the row crosses.
    starts = np.flatnonzero(across[1:] & ~across[:-1])
    assert np.round(starts / 4 + 10).tolist() == [30, 36, 44, 50, 54, 60]


def test_what_lies_beyond_the_scene_is_transparent_and_the_parcel_in_the_middle(
    tmp_path: Path,
) -> None:
    shown = picture(scene_of(tmp_path, ground()), parcel(0, 0, 20, 20), size=60)
    opaque = shown[..., 3] == 255
    assert opaque[20:, 20:].all()
    # But for the outline and its dark edge.
    assert not opaque[:18].any()
    assert not opaque[:, :18].any()


def test_a_small_parcel_has_surroundings_of_200_m(tmp_path: Path) -> None:
    bands = ground()
    for values in bands.values():
        values[:] = MIDDLE
        values[30, 30] = DARK
    bands["B04"][50, 70] = LIGHT
    shown = picture(scene_of(tmp_path, bands), parcel(50, 50, 51, 51), size=82)
    # 41 pixels around (50, 50): from 30 to 70.
    assert shown[0, 0, 0] < shown[0, 2, 0]
    assert shown[40, 81, 0] > shown[38, 81, 0]


def test_surroundings_are_as_wide_in_degrees_as_in_meters(tmp_path: Path) -> None:
    # 10 m from north to south, and at 60 degrees north half of that from west to east.
    degrees = 10 / 111_195
    to_map = Affine(degrees, 0, 2.0, 0, -degrees, 60.0)
    bands = ground(100)
    for column in (5, 11, 88, 94):
        bands["B04"][:, column] = LIGHT
    scene = scene_of(tmp_path, bands, crs=CRS.from_epsg(4326), transform=to_map)
    west, north = to_map @ (49, 49)
    east, south = to_map @ (51, 51)
    # 2 pixels of the parcel and 40 on each side are 82, from 9 on.
    red = picture(scene, box(west, south, east, north), size=164)[40, :, 0]
    assert np.flatnonzero(red == SHOWN[LIGHT]).tolist() == [4, 5, 158, 159]


def test_an_image_that_is_the_parcel_is_shown_whole_without_an_outline(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, ground())
    np.testing.assert_array_equal(picture(scene, footprint_lon_lat(scene)), picture(scene, None))


def test_an_image_without_a_place_is_shown_whole(tmp_path: Path) -> None:
    bands = ground()
    placed = picture(scene_of(tmp_path / "placed", bands))
    nowhere = scene_of(tmp_path / "nowhere", bands, crs=None, transform=None)
    np.testing.assert_array_equal(picture(nowhere, parcel(40, 30, 60, 50)), placed)


def test_parts_far_from_each_other_are_not_looked_for_between_them(tmp_path: Path) -> None:
    bands = ground(1500)
    bands["B04"][700:750, 10:60] = DARK
    far = MultiPolygon([rectangle(10, 700, 60, 750), rectangle(1440, 700, 1480, 740)])
    shown = picture(scene_of(tmp_path, bands), in_lon_lat(far), size=256)
    # The larger part, which alone is not gray.
    assert shown[128, 128, 0] < shown[128, 128, 1]
    # It is near the border of the scene.
    assert not shown[128, 0, 3]


def test_a_parcel_in_a_huge_scene_takes_the_memory_of_its_surroundings(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    grid = {"height": 20_000, "width": 20_000, "crs": UTM_31, "transform": TRANSFORM}
    storage = {"sparse_ok": True, "tiled": True, "compress": "deflate", "bigtiff": "yes"}
    with rasterio.open(path, "w", "GTiff", count=3, dtype="uint16", **grid, **storage) as file:
        file.descriptions = BANDS["true-color"]
    scene = opened(path)
    tracemalloc.start()
    draw_preview(scene, parcel(9_000, 9_000, 9_060, 9_040), "true-color", 256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Not the 4.8 GB of three bands.
    assert peak < 20_000_000
