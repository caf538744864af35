import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.features import rasterize
from shapely.geometry import box

from indexer.errors import InvalidInputError
from indexer.landscape import DATES, Landscape, draw_landscape

Floats = npt.NDArray[np.float64]

CLOUDED = 2
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
CODES = {
    "winter wheat": "BTH",
    "winter barley": "ORH",
    "rapeseed": "CZH",
    "maize": "MIS",
    "sunflower": "TRN",
    "sugar beet": "BTN",
    "grassland": "PPH",
    "alfalfa": "LUZ",
}


@pytest.fixture(scope="module")
def landscape(tmp_path_factory: pytest.TempPathFactory) -> Landscape:
    return draw_landscape(tmp_path_factory.mktemp("landscape"))


@pytest.fixture(scope="module")
def parcels(landscape: Landscape) -> gpd.GeoDataFrame:
    return gpd.read_file(landscape.parcels_file).set_index("id")


@pytest.fixture(scope="module")
def layers(landscape: Landscape) -> list[dict[str, Floats]]:
    return [_layers(scene) for scene in landscape.scenes]


@pytest.fixture(scope="module")
def inside(landscape: Landscape, parcels: gpd.GeoDataFrame) -> dict[str, npt.NDArray[np.bool_]]:
    """Pixels well inside each parcel."""
    with rasterio.open(landscape.scenes[0]) as file:
        shape, transform, crs = file.shape, file.transform, file.crs
    shapes = zip(parcels.to_crs(crs).buffer(-10), range(1, len(parcels) + 1), strict=True)
    labels = rasterize([s for s in shapes if not s[0].is_empty], shape, transform=transform)
    return {name: labels == label for label, name in enumerate(parcels.index, start=1)}


def _layers(scene: Path) -> dict[str, Floats]:
    """Digital numbers by band name."""
    with rasterio.open(scene) as file:
        return dict(zip(file.descriptions, file.read().astype(np.float64), strict=True))


def _ndvi(layers: dict[str, Floats]) -> Floats:
    """NDVI from digital numbers: (DN - 1000) / 10000 is reflectance."""
    red, nir = layers["B04"] - 1000, layers["B08"] - 1000
    return (nir - red) / (nir + red)


def _clear(layers: dict[str, Floats]) -> npt.NDArray[np.bool_]:
    return np.isin(layers["SCL"], (4, 5))


def _ndvi_of(
    crop: str,
    day: date,
    landscape: Landscape,
    layers: list[dict[str, Floats]],
    inside: dict[str, npt.NDArray[np.bool_]],
) -> list[float]:
    """Median NDVI of each parcel of a crop, where the sky lets it be seen."""
    scene = layers[DATES.index(day)]
    ndvi, clear = _ndvi(scene), _clear(scene)
    seen = [inside[name] & clear for name, its_crop in landscape.crops.items() if its_crop == crop]
    medians = [float(np.median(ndvi[pixels])) for pixels in seen if pixels.any()]
    assert medians, f"no {crop} to be seen"
    return medians


def test_each_date_makes_one_scene_with_named_bands_in_level_2a_order(
    landscape: Landscape,
) -> None:
    assert len(landscape.scenes) == len(DATES)
    for scene in landscape.scenes:
        with rasterio.open(scene) as file:
            assert file.descriptions == (*BANDS, "SCL")
            assert set(file.dtypes) == {"uint16"}
            assert file.shape == (300, 300)


def test_scenes_are_georeferenced_tiled_and_compressed(landscape: Landscape) -> None:
    with rasterio.open(landscape.scenes[0]) as file:
        assert file.crs.to_epsg() == 32631
        assert file.res == (10, 10)
        assert set(file.block_shapes) == {(128, 128)}
        assert file.compression.name == "deflate"


def test_names_of_scenes_tell_date_and_processing_baseline(landscape: Landscape) -> None:
    for scene, day in zip(landscape.scenes, DATES, strict=True):
        mission, product, acquired, baseline, *_ = scene.stem.split("_")
        assert (mission, product, baseline) == ("S2A", "MSIL2A", "N0509")
        assert acquired[:8] == day.strftime("%Y%m%d")


def test_digital_numbers_carry_the_offset_of_1000_and_a_plausible_reflectance(
    layers: list[dict[str, Floats]],
) -> None:
    for scene in layers:
        stack = np.stack([scene[band] for band in BANDS])
        assert stack.min() >= 1000 + 100
        assert stack.max() <= 1000 + 6000


def test_cloud_and_shadow_stand_over_a_tenth_of_exactly_one_date(
    layers: list[dict[str, Floats]],
) -> None:
    for number, scene in enumerate(layers):
        found = set(np.unique(scene["SCL"]))
        assert found == ({3, 4, 5, 9} if number == CLOUDED else {4, 5})
    assert 0.10 <= 1 - _clear(layers[CLOUDED]).mean() <= 0.15


def test_cloud_is_bright_and_its_shadow_dark(layers: list[dict[str, Floats]]) -> None:
    scene = layers[CLOUDED]
    blue, scl = scene["B02"] - 1000, scene["SCL"]
    assert np.median(blue[scl == 9]) > 4000
    assert np.median(blue[scl == 3]) < 0.7 * np.median(blue[_clear(scene)])


def test_cloud_or_shadow_hides_some_parcels_altogether(
    layers: list[dict[str, Floats]], inside: dict[str, npt.NDArray[np.bool_]]
) -> None:
    clear = _clear(layers[CLOUDED])
    hidden = [name for name, pixels in inside.items() if pixels.any() and not clear[pixels].any()]
    assert 1 <= len(hidden) < len(inside) / 4


def test_clear_pixels_are_vegetation_where_ndvi_exceeds_three_tenths(
    layers: list[dict[str, Floats]],
) -> None:
    for scene in layers:
        clear = _clear(scene)
        assert np.array_equal(scene["SCL"][clear] == 4, _ndvi(scene)[clear] > 0.3)


@pytest.mark.parametrize(
    ("crop", "day", "low", "high"),
    [
        ("winter wheat", date(2023, 5, 29), 0.7, 1.0),
        ("winter wheat", date(2023, 8, 12), 0.0, 0.3),
        ("winter barley", date(2023, 4, 24), 0.7, 1.0),
        ("winter barley", date(2023, 7, 3), 0.0, 0.35),
        ("rapeseed", date(2023, 8, 12), 0.0, 0.3),
        ("maize", date(2023, 4, 24), 0.0, 0.3),
        ("maize", date(2023, 7, 3), 0.6, 1.0),
        ("maize", date(2023, 8, 12), 0.7, 1.0),
        ("sunflower", date(2023, 7, 3), 0.6, 1.0),
        ("sugar beet", date(2023, 8, 12), 0.7, 1.0),
        ("grassland", date(2023, 3, 15), 0.4, 0.9),
    ],
)
def test_crops_follow_their_calendar(
    crop: str,
    day: date,
    low: float,
    high: float,
    landscape: Landscape,
    layers: list[dict[str, Floats]],
    inside: dict[str, npt.NDArray[np.bool_]],
) -> None:
    medians = _ndvi_of(crop, day, landscape, layers, inside)
    assert low <= min(medians)
    assert max(medians) <= high


def test_barley_ripens_before_wheat(
    landscape: Landscape,
    layers: list[dict[str, Floats]],
    inside: dict[str, npt.NDArray[np.bool_]],
) -> None:
    july = date(2023, 7, 3)
    barley = _ndvi_of("winter barley", july, landscape, layers, inside)
    wheat = _ndvi_of("winter wheat", july, landscape, layers, inside)
    assert np.median(barley) < np.median(wheat)


def test_rapeseed_flowers_yellow_in_late_april(
    landscape: Landscape,
    layers: list[dict[str, Floats]],
    inside: dict[str, npt.NDArray[np.bool_]],
) -> None:
    april = layers[DATES.index(date(2023, 4, 24))]
    yellow = np.minimum(april["B03"], april["B04"]) - april["B02"]
    medians = {name: np.median(yellow[pixels]) for name, pixels in inside.items() if pixels.any()}
    rapeseed = [value for name, value in medians.items() if landscape.crops[name] == "rapeseed"]
    others = [value for name, value in medians.items() if landscape.crops[name] != "rapeseed"]
    assert min(rapeseed) > max(others)


def test_sugar_beet_leaves_hold_more_water_than_maize_leaves(
    landscape: Landscape,
    layers: list[dict[str, Floats]],
    inside: dict[str, npt.NDArray[np.bool_]],
) -> None:
    swir = layers[DATES.index(date(2023, 8, 12))]["B11"]
    medians = {
        crop: [np.median(swir[inside[name]]) for name in _names_of(landscape, crop, inside)]
        for crop in ("sugar beet", "maize")
    }
    assert max(medians["sugar beet"]) < min(medians["maize"])


def _names_of(
    landscape: Landscape, crop: str, inside: dict[str, npt.NDArray[np.bool_]]
) -> Iterator[str]:
    """Parcels of a crop that have pixels of their own."""
    for name, its_crop in landscape.crops.items():
        if its_crop == crop and inside[name].any():
            yield name


def test_most_parcels_look_most_like_another_one_of_their_crop(
    landscape: Landscape,
    layers: list[dict[str, Floats]],
    inside: dict[str, npt.NDArray[np.bool_]],
) -> None:
    # Seen on every date: all but those under the cloud.
    names = [name for name, pixels in inside.items() if (pixels & _clear(layers[CLOUDED])).any()]
    season = np.array(
        [
            [
                np.median(scene[band][inside[name] & _clear(scene)])
                for scene in layers
                for band in BANDS
            ]
            for name in names
        ]
    )
    crops = np.array([landscape.crops[name] for name in names])
    distances = np.linalg.norm(season[:, None] - season[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    agreement = (crops[distances.argmin(axis=1)] == crops).mean()
    chance = sum((crops == crop).mean() ** 2 for crop in CODES)
    assert agreement >= 0.6 > 2 * chance


def test_pixels_of_a_parcel_differ_but_little(
    layers: list[dict[str, Floats]], inside: dict[str, npt.NDArray[np.bool_]]
) -> None:
    nir = layers[0]["B08"] - 1000
    spreads = [nir[pixels].std() / nir[pixels].mean() for pixels in inside.values() if pixels.any()]
    assert 0.01 < float(np.median(spreads)) < 0.15


def test_parcels_carry_fiboa_names_and_french_crop_codes(
    landscape: Landscape, parcels: gpd.GeoDataFrame
) -> None:
    assert parcels.crs.to_epsg() == 4326
    assert set(parcels) == {"crop:code", "crop:name", "metrics:area", "variety", "geometry"}
    assert parcels["crop:code"].tolist() == [CODES[crop] for crop in parcels["crop:name"]]
    assert parcels["crop:name"].to_dict() == landscape.crops


def test_ids_count_from_demo_001(parcels: gpd.GeoDataFrame) -> None:
    assert parcels.index.tolist() == [f"demo-{n:03d}" for n in range(1, len(parcels) + 1)]


def test_about_the_square_of_parcels_across_is_drawn_and_every_crop_twice(
    parcels: gpd.GeoDataFrame,
) -> None:
    assert 50 <= len(parcels) <= 85
    counts = parcels["crop:name"].value_counts()
    assert set(counts.index) == set(CODES)
    assert counts.min() >= 2


def test_area_is_that_of_the_geometry_and_sizes_differ(parcels: gpd.GeoDataFrame) -> None:
    area_m2 = parcels["metrics:area"]
    assert np.allclose(parcels.to_crs(32631).area, area_m2, rtol=1e-3)
    assert area_m2.min() < 15_000
    assert area_m2.max() > 5 * area_m2.min()


@pytest.mark.parametrize(
    ("size_px", "across", "seed"), [(300, 8, 0), (130, 8, 1), (130, 1, 2), (200, 12, 3)]
)
def test_parcels_are_valid_apart_and_inside_the_scene(
    size_px: int, across: int, seed: int, tmp_path: Path
) -> None:
    drawn = draw_landscape(
        tmp_path, size_px=size_px, parcels_across=across, seed=seed, dates=[date(2023, 5, 29)]
    )
    parcels = gpd.read_file(drawn.parcels_file).to_crs(32631)
    with rasterio.open(drawn.scenes[0]) as file:
        scene = box(*file.bounds)
        scl = file.read(13)
    assert parcels.geom_type.eq("Polygon").all()
    assert parcels.is_valid.all()
    assert parcels.within(scene).all()
    # Areas add up only where nothing overlaps.
    assert parcels.union_all().area == pytest.approx(parcels.area.sum(), rel=1e-9)
    assert 0.10 <= np.isin(scl, (3, 9)).mean() <= 0.15


def test_the_same_seed_draws_the_same_landscape(tmp_path: Path) -> None:
    first, again = (
        draw_landscape(tmp_path / name, size_px=130, parcels_across=4, seed=7)
        for name in ("first", "again")
    )
    assert first.crops == again.crops
    assert first.parcels_file.read_bytes() == again.parcels_file.read_bytes()
    for one, other in zip(first.scenes, again.scenes, strict=True):
        assert one.name == other.name
        with rasterio.open(one) as left, rasterio.open(other) as right:
            assert left.read().tobytes() == right.read().tobytes()


def test_another_seed_draws_another_landscape(tmp_path: Path) -> None:
    first, other = (
        draw_landscape(tmp_path / str(seed), size_px=130, parcels_across=4, seed=seed)
        for seed in (1, 2)
    )
    assert first.parcels_file.read_bytes() != other.parcels_file.read_bytes()
    assert not np.array_equal(_layers(first.scenes[0])["B08"], _layers(other.scenes[0])["B08"])


def test_a_clear_date_looks_the_same_whichever_others_are_drawn(tmp_path: Path) -> None:
    march, may, july = DATES[0], DATES[2], DATES[3]
    two = draw_landscape(tmp_path / "two", size_px=130, parcels_across=4, dates=[march, may])
    three = draw_landscape(
        tmp_path / "three", size_px=130, parcels_across=4, dates=[march, july, may]
    )
    assert np.array_equal(_layers(two.scenes[0])["B08"], _layers(three.scenes[0])["B08"])


def test_drawing_again_into_a_folder_replaces_the_files(tmp_path: Path) -> None:
    for seed in (1, 2):
        drawn = draw_landscape(
            tmp_path / "new" / "folder", size_px=130, parcels_across=4, dates=DATES[:1], seed=seed
        )
    features = json.loads(drawn.parcels_file.read_text(encoding="utf-8"))["features"]
    assert [feature["properties"]["id"] for feature in features] == list(drawn.crops)
    assert len(list(drawn.parcels_file.parent.iterdir())) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"size_px": 129},
        {"dates": []},
        {"dates": [date(2023, 5, 29), date(2023, 5, 29)]},
        {"seed": -1},
        {"parcels_across": 0},
        {"parcels_across": 25},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_make_no_landscape_are_named(
    options: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(options))) as caught:
        draw_landscape(tmp_path / "none", **options)  # type: ignore[arg-type]
    assert caught.value.kind == "invalid-option"
    assert not (tmp_path / "none").exists()
