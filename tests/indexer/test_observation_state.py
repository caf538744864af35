import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from shapely import MultiPolygon, Polygon, affinity, box

from indexer import observation_state
from indexer.imagery.chip import BoolArray, Chip, FloatArray
from indexer.observation_state import ObservationState, Observed, observe, observe_parcels
from indexer.parcels.coverage import inner_buffers
from indexer.spectral_indices import INDICES, compute_index
from indexer.statistics import summarize
from tests.synthetic import make_chip

# rasterio 1.4 multiplies transforms with `*` inside Chip.window; affine 3 wants `@` some day.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

SIZE = 12
VEGETATION, SHADOW, CLOUD, NO_DATA = 4, 3, 9, 0


def scl_of(value: int) -> npt.NDArray[np.uint8]:
    return np.full((SIZE, SIZE), value, dtype=np.uint8)


def square(top: int, left: int, size: int) -> FloatArray:
    coverage = np.zeros((SIZE, SIZE), dtype=np.float32)
    coverage[top : top + size, left : left + size] = 1
    return coverage


def look(
    chip: Chip,
    coverage: FloatArray,
    whole_pixels: BoolArray | None = None,
    covered_fraction: float = 1.0,
) -> ObservationState:
    whole = coverage == 1 if whole_pixels is None else whole_pixels
    return observe(chip, coverage, whole_pixels=whole, covered_fraction=covered_fraction)


def red_and_nir(red: FloatArray, nir: FloatArray, **overrides: Any) -> Chip:  # noqa: ANN401
    return make_chip(reflectance=np.stack([red, nir]), bands=("B04", "B08"), **overrides)


def test_a_clear_parcel_is_seen_whole() -> None:
    state = look(make_chip(SIZE, scl=scl_of(VEGETATION)), square(2, 3, 4))
    assert state.pixels_inside == 16
    assert state.valid_pixels == 16
    assert state.valid_fraction == 1
    assert state.data_fraction == 1
    assert state.cloud_cover_percent == 0
    assert state.covered_fraction == 1
    assert state.whole_valid_pixels == 16
    assert state.reliable
    assert set(state.indices) == set(INDICES)


def test_cloudy_pixels_are_excluded() -> None:
    # NDVI is 0.6 on the clear half and 0 under the cloud.
    nir = np.full((SIZE, SIZE), 0.4, dtype=np.float32)
    red = np.full((SIZE, SIZE), 0.1, dtype=np.float32)
    scl = scl_of(VEGETATION)
    red[:, 6:] = 0.4
    scl[:, 6:] = CLOUD
    state = look(red_and_nir(red, nir, scl=scl), square(4, 4, 4))
    assert state.pixels_inside == 16
    assert state.valid_pixels == 8
    assert state.valid_fraction == 0.5
    assert state.data_fraction == 1
    assert state.cloud_cover_percent == 50
    assert state.whole_valid_pixels == 8
    assert state.indices["NDVI"].mean == pytest.approx(0.6)
    assert state.indices["NDVI"].std == pytest.approx(0, abs=1e-7)


def test_a_parcel_under_cloud_has_no_indices_and_is_not_reliable() -> None:
    state = look(make_chip(SIZE, scl=scl_of(CLOUD)), square(0, 0, 6))
    assert state.pixels_inside == 36
    assert state.valid_pixels == 0
    assert state.valid_fraction == 0
    assert state.data_fraction == 1
    assert state.cloud_cover_percent == 100
    assert state.whole_valid_pixels == 0
    assert not state.reliable
    assert state.indices == {}


def test_an_index_counts_a_pixel_by_its_share_inside_the_parcel() -> None:
    nir = np.full((SIZE, SIZE), 0.4, dtype=np.float32)
    red = np.full((SIZE, SIZE), 0.1, dtype=np.float32)
    red[0, 1] = 0.4
    coverage = np.zeros((SIZE, SIZE), dtype=np.float32)
    coverage[0, 0], coverage[0, 1] = 0.75, 0.25
    state = look(red_and_nir(red, nir), coverage)
    assert state.pixels_inside == 1
    # 0.75 * 0.6 + 0.25 * 0
    assert state.indices["NDVI"].mean == pytest.approx(0.45)
    assert state.indices["NDVI"].std == pytest.approx(math.sqrt(0.75 * 0.15**2 + 0.25 * 0.45**2))


def test_cloud_cover_is_a_share_of_the_pixels_with_data() -> None:
    scl = scl_of(VEGETATION)
    scl[0, :2] = CLOUD
    scl[0, 2] = SHADOW
    scl[1] = NO_DATA
    reflectance = make_chip(SIZE).reflectance.copy()
    reflectance[:, 1] = np.nan
    coverage = np.zeros((SIZE, SIZE), dtype=np.float32)
    coverage[:2, :6] = 0.5
    state = look(make_chip(SIZE, scl=scl, reflectance=reflectance), coverage)
    assert state.pixels_inside == 6
    assert state.data_fraction == 0.5
    assert state.cloud_cover_percent == 50
    assert state.valid_fraction == 0.25


def test_cloud_cover_is_unknown_without_a_scene_classification() -> None:
    assert look(make_chip(SIZE), square(0, 0, 4)).cloud_cover_percent is None


def test_cloud_cover_is_unknown_where_nothing_has_data() -> None:
    reflectance = np.full((12, SIZE, SIZE), np.nan, dtype=np.float32)
    state = look(make_chip(reflectance=reflectance, scl=scl_of(NO_DATA)), square(0, 0, 4))
    assert state.cloud_cover_percent is None
    assert state.data_fraction == 0
    assert state.indices == {}


def test_a_parcel_beside_the_chip_has_no_pixels() -> None:
    nothing = np.zeros((SIZE, SIZE), dtype=np.float32)
    state = look(make_chip(SIZE, scl=scl_of(VEGETATION)), nothing, covered_fraction=0.0)
    assert state == ObservationState(
        pixels_inside=0.0,
        valid_pixels=0.0,
        valid_fraction=0.0,
        data_fraction=0.0,
        cloud_cover_percent=None,
        covered_fraction=0.0,
        whole_valid_pixels=0,
        reliable=False,
        indices={},
    )


def test_an_index_whose_bands_the_chip_lacks_is_left_out() -> None:
    chip = make_chip(SIZE, bands=("B02", "B03", "B04", "B08"))
    assert set(look(chip, square(0, 0, 4)).indices) == {"NDVI", "NDWI", "EVI", "OSAVI"}


@pytest.mark.parametrize(("whole", "reliable"), [(7, False), (8, True)])
def test_a_parcel_is_reliable_from_eight_whole_pixels_on(whole: int, reliable: bool) -> None:
    whole_pixels = np.zeros((SIZE, SIZE), dtype=np.bool_)
    whole_pixels[3, 2 : 2 + whole] = True
    state = look(make_chip(SIZE), square(1, 1, 10), whole_pixels)
    assert state.whole_valid_pixels == whole
    assert state.reliable is reliable


@pytest.mark.parametrize(("cloudy_rows", "reliable"), [(5, True), (6, False), (7, False)])
def test_a_parcel_is_reliable_while_less_than_60_percent_of_its_pixels_are_lost(
    cloudy_rows: int, reliable: bool
) -> None:
    scl = scl_of(VEGETATION)
    scl[:cloudy_rows] = CLOUD
    state = look(make_chip(SIZE, scl=scl), square(0, 0, 10))
    assert state.valid_fraction == pytest.approx(1 - cloudy_rows / 10)
    assert state.reliable is reliable


@pytest.mark.parametrize(("covered_fraction", "reliable"), [(0.4, False), (0.41, True)])
def test_a_parcel_mostly_outside_the_image_is_not_reliable(
    covered_fraction: float, reliable: bool
) -> None:
    state = look(make_chip(SIZE), square(0, 0, 4), covered_fraction=covered_fraction)
    assert state.covered_fraction == covered_fraction
    assert state.reliable is reliable


def test_a_whole_pixel_under_cloud_does_not_count() -> None:
    scl = scl_of(VEGETATION)
    scl[0, 0] = CLOUD
    state = look(make_chip(SIZE, scl=scl), square(0, 0, 3))
    assert state.whole_valid_pixels == 8


def test_what_lies_beyond_the_parcel_does_not_matter() -> None:
    coverage = square(3, 5, 4)
    coverage[2, 6] = 0.3
    clear = make_chip(SIZE, scl=scl_of(VEGETATION))
    scl = np.where(coverage > 0, VEGETATION, CLOUD).astype(np.uint8)
    reflectance = np.where(coverage > 0, clear.reflectance, np.float32(np.nan))
    assert look(make_chip(reflectance=reflectance, scl=scl), coverage) == look(clear, coverage)


def test_the_state_reads_as_json_with_plain_numbers() -> None:
    state = look(make_chip(SIZE, scl=scl_of(VEGETATION)), square(2, 2, 5))
    told = json.loads(json.dumps(state.to_dict(), allow_nan=False))
    assert told["valid_fraction"] == 1.0
    assert told["reliable"] is True
    assert set(told["indices"]["NDVI"]) == {"median", "mean", "std", "p10", "p90"}
    assert told == state.to_dict()


@pytest.mark.parametrize("wrong", ["coverage", "whole_pixels"])
def test_arrays_of_another_shape_than_the_chip_are_refused(wrong: str) -> None:
    coverage = np.ones((SIZE, SIZE - (wrong == "coverage")), dtype=np.float32)
    whole_pixels = np.ones((SIZE, SIZE - (wrong == "whole_pixels")), dtype=np.bool_)
    with pytest.raises(ValueError, match=f"{wrong} .* does not fit"):
        observe(make_chip(SIZE), coverage, whole_pixels=whole_pixels, covered_fraction=1.0)


# Many parcels of a chip ----------------------------------------------------------------------

Outline: TypeAlias = Polygon | MultiPolygon | None

DEGREES: dict[str, Any] = {
    "transform": Affine(1e-4, 0, 2.0, 0, -7e-5, 48.0),
    "crs": CRS.from_epsg(4326),
}
ROTATED: dict[str, Any] = {"transform": Affine(8, 6, 500_000, 6, -8, 5_000_000)}


def cloudy_chip(size: int = 30, **overrides: Any) -> Chip:  # noqa: ANN401
    """A chip with clouds, gaps, and reflectance in steps, so that pixels are alike."""
    random = np.random.default_rng(1)
    scl = np.where(random.random((size, size)) < 0.2, CLOUD, VEGETATION).astype(np.uint8)
    reflectance = (random.integers(1, 40, (12, size, size)) / 80).astype(np.float32)
    reflectance[:, random.random((size, size)) < 0.1] = np.nan
    return make_chip(size, reflectance=reflectance, scl=scl, **overrides)


def placed(outline: Polygon | MultiPolygon, chip: Chip) -> Polygon | MultiPolygon:
    """An outline given in columns and rows, in map coordinates."""
    a, b, c, d, e, f = chip.transform[:6]
    return affinity.affine_transform(outline, [a, b, d, e, c, f])


def shares_by_intersection(chip: Chip, geometry: Polygon | MultiPolygon) -> FloatArray:
    """The definition of coverage: the area that the parcel has in common with each pixel."""
    rows, columns = np.indices(chip.shape)
    corners = np.stack(
        [
            np.stack([columns + right, rows + down], axis=-1)
            for right, down in ((0, 0), (1, 0), (1, 1), (0, 1))
        ],
        axis=-2,
    )
    pixels = shapely.transform(shapely.polygons(corners), lambda points: on_the_map(points, chip))
    area = abs(chip.transform.determinant)
    shares = np.minimum(shapely.area(shapely.intersection(geometry, pixels)) / area, 1)
    # What float32 cannot tell from none beside 1 is none.
    return np.where(shares < 1e-6, 0, shares).astype(np.float32)


def on_the_map(points: npt.NDArray[np.float64], chip: Chip) -> npt.NDArray[np.float64]:
    a, b, c, d, e, f = chip.transform[:6]
    x, y = points.T
    return np.column_stack([a * x + b * y + c, d * x + e * y + f])


def by_definition(chip: Chip, geometry: Outline) -> tuple[ObservationState, FloatArray]:
    """What one parcel's state must be, and its share of each pixel, taken one by one."""
    if geometry is None:
        shares = np.ones(chip.shape, dtype=np.float32)
        whole, fraction = shares > 0, 1.0
    else:
        assert chip.crs is not None
        shares = shares_by_intersection(chip, geometry)
        (core,) = inner_buffers([geometry], chip.crs, 5)
        whole = shares_by_intersection(chip, core) > 1 - 1e-5
        area = abs(chip.transform.determinant) * shares.sum(dtype=np.float64)
        fraction = float(area / geometry.area) if geometry.area else 0.0
    inside = shares.astype(np.float64)
    valid = np.where(chip.valid_mask, inside, 0)
    has_data = np.isfinite(chip.reflectance).all(axis=0)
    with_data = np.where(has_data, inside, 0)
    clouds = (
        np.zeros(chip.shape, np.bool_) if chip.scl is None else np.isin(chip.scl, (3, 8, 9, 10))
    )
    total, seen = inside.sum(), with_data.sum()
    valid_fraction = float(valid.sum() / total) if total else 0.0
    pixels = int((whole & chip.valid_mask).sum())
    computed = {
        name: summarize(compute_index(name, chip), valid)
        for name, index in INDICES.items()
        if set(index.bands) <= set(chip.bands)
    }
    state = ObservationState(
        pixels_inside=float(total),
        valid_pixels=float(valid.sum()),
        valid_fraction=valid_fraction,
        data_fraction=float(seen / total) if total else 0.0,
        cloud_cover_percent=(
            float(100 * with_data[clouds].sum() / seen) if seen and chip.scl is not None else None
        ),
        covered_fraction=fraction,
        whole_valid_pixels=pixels,
        reliable=pixels >= 8 and valid_fraction > 0.4 and fraction > 0.4,
        indices={name: summary for name, summary in computed.items() if summary is not None},
    )
    return state, shares


def assert_alike(told: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare states but for rounding."""
    assert list(told) == list(expected)
    for name, value in told.items():
        if isinstance(value, dict):
            assert_alike(value, expected[name])
        elif value is None:
            assert expected[name] is None
        else:
            assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-5)


def nearly_whole(chip: Chip, geometry: Outline) -> int:
    """Pixels of which float32 cannot tell whether they count as wholly inside the inner buffer."""
    if geometry is None:
        return 0
    assert chip.crs is not None
    (core,) = inner_buffers([geometry], chip.crs, 5)
    return int((np.abs(shares_by_intersection(chip, core) - (1 - 1e-5)) < 2e-6).sum())


def assert_as_defined(chip: Chip, geometries: Sequence[Outline]) -> list[Observed]:
    """Check what is observed of each parcel against its definition."""
    observed = observe_parcels(chip, geometries)
    assert len(observed) == len(geometries)
    for one, geometry in zip(observed, geometries, strict=True):
        state, shares = by_definition(chip, geometry)
        found = np.zeros(chip.shape, dtype=np.float32)
        found[one.rows, one.columns] = one.share
        np.testing.assert_allclose(found, shares, atol=2e-6)
        told, expected = one.state.to_dict(), state.to_dict()
        doubtful = nearly_whole(chip, geometry)
        if 0 < abs(told["whole_valid_pixels"] - expected["whole_valid_pixels"]) <= doubtful:
            # So near to whole that the last digit decides, and with it what is reliable.
            for name in ("whole_valid_pixels", "reliable"):
                told[name] = expected[name]
        assert_alike(told, expected)
    return observed


PARCELS: dict[str, Polygon | MultiPolygon] = {
    "a quiet one": box(3.25, 4.5, 12.75, 15.125),
    "with a hole": box(2.5, 2.5, 20.25, 18.75) - box(6.25, 5.5, 12.5, 9.75),
    "of two parts": MultiPolygon([box(1.5, 1.5, 5.25, 6.5), box(20.5, 19.25, 28.5, 27.75)]),
    "a sliver": Polygon([(2.125, 3.5), (26.5, 21.25), (26.5, 21.375), (2.125, 3.625)]),
    "within a pixel": box(7.25, 7.25, 7.5, 7.75),
    "beside the chip": box(40, 40, 50, 50),
    "half beside it": box(-10.5, 5.5, 8.25, 17.75),
    "larger than it": box(-20, -30, 50, 60),
    "nothing": Polygon(),
}


@pytest.mark.parametrize("place", [{}, DEGREES, ROTATED], ids=["UTM", "degrees", "rotated"])
def test_many_parcels_are_each_observed_by_definition(place: dict[str, Any]) -> None:
    chip = cloudy_chip(**place)
    observed = assert_as_defined(chip, [placed(outline, chip) for outline in PARCELS.values()])
    states = dict(zip(PARCELS, (one.state for one in observed), strict=True))
    # What a definition cannot tell: that these are the cases that they are meant to be.
    assert states["a quiet one"].reliable
    assert states["with a hole"].whole_valid_pixels > 50
    assert states["a sliver"].whole_valid_pixels == 0
    assert 0.3 < states["half beside it"].covered_fraction < 0.6
    assert states["larger than it"].pixels_inside == 900
    assert states["beside the chip"].pixels_inside == states["nothing"].pixels_inside == 0


# The same outlines in every run: a percentile of a needle jumps where a share is near nothing.
@settings(derandomize=True)
@given(
    corners=st.lists(
        st.tuples(st.floats(-8, 20), st.floats(-8, 20)), min_size=3, max_size=8, unique=True
    ),
    beside=st.lists(st.sampled_from([*PARCELS.values()]), max_size=3),
)
def test_any_outline_is_observed_by_definition(
    corners: list[tuple[float, float]], beside: list[Polygon | MultiPolygon]
) -> None:
    chip = cloudy_chip(size=12)
    # In steps that stay exact on the map: rounding may cross the sides of a needle.
    outline = shapely.set_precision(shapely.make_valid(Polygon(corners)).buffer(0), 1 / 64)
    outline = shapely.from_wkb(shapely.to_wkb(outline))
    assert_as_defined(chip, [placed(one, chip) for one in (*beside, outline)])


@pytest.mark.parametrize("country", ["fr_rpg_2022", "es_cat_2023"])
def test_real_parcels_are_observed_by_definition(
    test_data: Callable[[str], Path], country: str
) -> None:
    path = test_data("parcels_lpis") / f"{country}_extract100.gpkg"
    _, _, stored, _ = pyogrio.raw.read(path, max_features=40)
    chip = cloudy_chip()
    parcels: list[Outline] = []
    for number, outline in enumerate(shapely.force_2d(shapely.from_wkb(stored))):
        center = outline.centroid
        x, y = chip.transform @ (number % 7 * 4, number % 6 * 5)
        parcels.append(affinity.translate(outline, x - center.x, y - center.y))
    assert_as_defined(chip, parcels)


def test_a_parcel_is_observed_alike_whatever_others_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chip = cloudy_chip(**ROTATED)
    outlines: list[Outline] = [None, *(placed(outline, chip) for outline in PARCELS.values())]
    together = observe_parcels(chip, outlines)
    # With one parcel's pixels at a time, and one index at a time.
    monkeypatch.setattr(observation_state, "_MOST_PIXELS", 20)
    in_parts = observe_parcels(chip, outlines[::-1])[::-1]
    for one, other, outline in zip(together, in_parts, outlines, strict=True):
        (alone,) = observe_parcels(chip, [outline])
        assert one.state == other.state == alone.state
        assert (one.rows, one.columns) == (alone.rows, alone.columns)
        np.testing.assert_array_equal(one.share, alone.share)


def test_a_whole_chip_is_a_parcel_without_an_outline() -> None:
    chip = cloudy_chip(crs=None)
    (observed,) = assert_as_defined(chip, [None])
    assert (observed.rows, observed.columns) == (slice(0, 30), slice(0, 30))
    assert (observed.share == 1).all()


def test_no_parcels_are_no_observations() -> None:
    assert observe_parcels(make_chip(SIZE), []) == []


def test_a_parcel_with_an_outline_needs_a_chip_with_a_place() -> None:
    with pytest.raises(ValueError, match="needs a chip with a CRS"):
        observe_parcels(make_chip(SIZE, crs=None), [box(0, 0, 1, 1)])


@pytest.mark.parametrize("bands", [("VV", "VH"), tuple(f"b{n}" for n in range(40))])
def test_a_chip_of_other_bands_has_states_without_indices(bands: tuple[str, ...]) -> None:
    reflectance = np.random.default_rng(0).uniform(-30, 0, (len(bands), SIZE, SIZE))
    reflectance[0, 3, 3:6] = np.nan
    chip = make_chip(SIZE, bands=bands, reflectance=reflectance.astype(np.float32))
    outline = placed(box(2, 2, 8, 7), chip)
    (observed,) = assert_as_defined(chip, [outline])
    assert observed.state.pixels_inside == 30
    assert observed.state.valid_pixels == 27
    assert observed.state.cloud_cover_percent is None
    assert observed.state.indices == {}


def test_a_parcel_under_a_cloud_is_observed_beside_one_in_the_sun() -> None:
    scl = scl_of(VEGETATION)
    scl[:, 6:] = CLOUD
    chip = make_chip(SIZE, scl=scl)
    sunny, cloudy = observe_parcels(
        chip, [placed(box(0, 0, 5, 5), chip), placed(box(7, 0, 12, 5), chip)]
    )
    assert set(sunny.state.indices) == set(INDICES)
    assert (cloudy.state.indices, cloudy.state.cloud_cover_percent) == ({}, 100)
    assert (cloudy.state.data_fraction, cloudy.state.valid_fraction) == (1, 0)


def test_an_index_counts_the_pixels_where_it_can_be_computed() -> None:
    reflectance = np.full((2, SIZE, SIZE), 0.25, dtype=np.float32)
    reflectance[1, 2, 2:6] = 0.75
    # NDVI is 0.5 at four pixels of sixteen, has no value at two, and is 0 at ten.
    reflectance[:, 5, 2:4] = 0
    chip = make_chip(SIZE, bands=("B04", "B08"), reflectance=reflectance)
    (observed,) = observe_parcels(chip, [placed(box(2, 2, 6, 6), chip)])
    assert observed.state.valid_pixels == 16
    assert observed.state.indices["NDVI"].mean == pytest.approx(2 / 14)
    # (0.25 - 0.25) / (0.25 + 0.25 + 0.16), 0.5 / 1.16 and 0 / 0.16
    assert observed.state.indices["OSAVI"].mean == pytest.approx(0.5 / 1.16 / 4)
