from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from indexer.chipping import ChipPlan, ParcelFinder, Target, footprint_lon_lat
from indexer.embedding_space import Pooling
from indexer.encoders.base import Images
from indexer.encoders.weights import Weights
from indexer.errors import ImageryError
from indexer.imagery.chip import Chip
from indexer.imagery.reader import ReadingOptions, Scene
from indexer.imagery.sources import find_sources
from indexer.inputs import EmbeddingOptions, resolve_inputs
from indexer.normalization import Normalization
from indexer.parcels.parcel import Parcel
from indexer.pipeline import (
    Findings,
    Inputs,
    Prepared,
    chips,
    encode,
    encoder_input,
    in_batches,
    measure_normalization,
    prepare,
)
from indexer.progress import Silent
from indexer.sensors import PROFILES
from tests.synthetic import make_chip, make_dn, write_geotiff

FloatArray = npt.NDArray[np.float32]

L2A = PROFILES["l2a"]
PATCHES = 15


def inputs_of(
    folder: Path, *parcels: shapely.Polygon, wanted: tuple[str, ...] = L2A, baseline: str = "03.01"
) -> Inputs:
    """All images below a folder; polygons in longitude and latitude become parcels 0, 1, 2, ..."""
    sources, _ = find_sources([folder])
    found = [Parcel("test", str(number), polygon) for number, polygon in enumerate(parcels)]
    return Inputs(
        sources=sources,
        finder=ParcelFinder(found) if parcels else None,
        parcels_source="parcels.gpkg",
        collection="test",
        pooling="parcel" if parcels else "image",
        reading=ReadingOptions(baseline=baseline, wanted=wanted),
        chip_px=120,
    )


def read_chips(inputs: Inputs, findings: Findings) -> list[tuple[Chip, ChipPlan]]:
    return list(chips(inputs, findings, Silent(), "Reading"))


def footprint_of(path: Path) -> shapely.Polygon:
    (source,), _ = find_sources([path])
    footprint = footprint_lon_lat(Scene.open(source, ReadingOptions()))
    assert footprint is not None
    return footprint


def in_chip(chip: Chip, left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """A rectangle of a chip's pixels in map coordinates."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return shapely.Polygon([chip.transform @ corner for corner in corners])


def prepare_one(
    chip: Chip, geometry: shapely.Polygon | None = None, pooling: Pooling = "parcel"
) -> Prepared:
    """The parcel of a chip; without geometry the whole chip is the parcel."""
    prepared = prepare(chip, plan_of(chip, geometry), pooling, PATCHES, Findings())
    (parcel,) = prepared
    return parcel


def plan_of(chip: Chip, *geometries: shapely.Polygon | None) -> ChipPlan:
    targets = tuple(
        Target(Parcel("test", str(number), None), geometry)
        for number, geometry in enumerate(geometries)
    )
    return ChipPlan(0, 0, *chip.shape, targets)


# Reading


def test_an_unusable_image_is_skipped_by_name_and_the_others_are_read(tmp_path: Path) -> None:
    for name in ("a", "c"):
        write_geotiff(tmp_path / f"{name}.tif", make_dn(), L2A)
    write_geotiff(tmp_path / "b.tif", make_dn(bands=L2A[:9]), L2A[:9])
    (tmp_path / "d.tif").write_text("lost", encoding="utf-8")
    findings = Findings()
    read = read_chips(inputs_of(tmp_path), findings)
    assert [chip.scene for chip, _ in read] == ["a", "c"]
    assert findings.read == 2
    assert [(item.source, item.kind) for item in findings.skipped] == [
        (str(tmp_path / "b.tif"), "missing-band"),
        (str(tmp_path / "d.tif"), "unreadable"),
    ]
    assert all(item.source in item.reason for item in findings.skipped)


def test_parcels_are_served_by_chips_of_120_pixels(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "scene.tif", make_dn(200), L2A)
    findings = Findings()
    ((chip, plan),) = read_chips(inputs_of(tmp_path, footprint_of(path).buffer(-0.005)), findings)
    assert chip.shape == (120, 120)
    assert [target.parcel.parcel_id for target in plan.targets] == ["0"]
    whole = Scene.open(find_sources([path])[0][0], ReadingOptions(baseline="03.01")).read()
    np.testing.assert_array_equal(
        chip.reflectance, whole.window(plan.row, plan.column, 120, 120).reflectance
    )
    assert findings.skipped == []


def test_a_parcel_outside_of_every_image_is_skipped_by_its_id(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "scene.tif", make_dn(32), L2A)
    inside = footprint_of(path)
    findings = Findings()
    read = read_chips(
        inputs_of(tmp_path, inside, shapely.affinity.translate(inside, 1.0)), findings
    )
    assert len(read) == 1
    (skipped,) = findings.skipped
    assert (skipped.source, skipped.kind) == ("parcels.gpkg#1", "outside-imagery")
    assert "Parcel 1 lies outside of every image" in skipped.reason


def test_an_image_without_a_reference_system_is_skipped_where_parcels_are_given(
    tmp_path: Path,
) -> None:
    placed = write_geotiff(tmp_path / "placed.tif", make_dn(32), L2A)
    write_geotiff(tmp_path / "lost.tif", make_dn(32), L2A, crs=None, transform=None)
    findings = Findings()
    read = read_chips(inputs_of(tmp_path, footprint_of(placed)), findings)
    assert [chip.scene for chip, _ in read] == ["placed"]
    assert [(item.source, item.kind) for item in findings.skipped] == [
        (str(tmp_path / "lost.tif"), "no-crs")
    ]


def test_an_image_without_a_reference_system_is_a_parcel_where_none_are_given(
    tmp_path: Path,
) -> None:
    write_geotiff(tmp_path / "lost.tif", make_dn(32), L2A, crs=None, transform=None)
    ((chip, plan),) = read_chips(inputs_of(tmp_path), Findings())
    assert chip.crs is None
    assert [target.parcel.parcel_id for target in plan.targets] == ["lost"]


def test_an_implausible_baseline_is_noted_and_the_image_is_read(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "a.tif", make_dn(), L2A)
    findings = Findings()
    # Digital numbers of 1300 at least: with the offset still in, nothing falls below 0.13.
    assert len(read_chips(inputs_of(tmp_path, baseline="03.01"), findings)) == 1
    (note,) = findings.notes
    assert str(tmp_path / "a.tif") in note
    assert "--baseline 04.00" in note
    findings = Findings()
    read_chips(inputs_of(tmp_path, baseline="04.00"), findings)
    assert findings.notes == []


def test_many_doubts_are_not_all_listed() -> None:
    findings = Findings()
    for number in range(100):
        findings.doubt(f"image {number} is strange")
        findings.doubt(f"image {number} is strange")
        findings.doubt(None)
    assert findings.notes[:2] == ["image 0 is strange", "image 1 is strange"]
    assert len(findings.notes) == 21
    assert "not listed" in findings.notes[-1]


def test_what_many_images_share_is_told_once(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "a.tif", make_dn(), L2A)
    (source,), _ = find_sources([tmp_path])
    findings = Findings()
    for _ in range(3):
        findings.remark(source, ["it has no wavelengths", "it has no place"])
    findings.remark(source, ["it is dark"])
    assert findings.told == [
        "a and 2 more: it has no wavelengths.",
        "a and 2 more: it has no place.",
        "a: it is dark.",
    ]


def test_empty_windows_are_announced_and_left_out(tmp_path: Path) -> None:
    stack = make_dn(24)
    stack[:, :, 12:] = 0
    write_geotiff(tmp_path / "track.tif", stack, L2A)
    findings, progress = Findings(), Counter()
    inputs = replace(inputs_of(tmp_path, baseline="04.00"), windows_px=12)
    taken = [plan for _, plan in chips(inputs, findings, progress, "Reading")]
    assert [(plan.row, plan.column) for plan in taken] == [(0, 0), (12, 0)]
    assert findings.told == ["track: 2 windows without data are left out."]
    assert progress.announced == len(taken) + progress.reported == 4


@dataclass
class Counter(Silent):
    """Adds up what is announced and what is reported."""

    announced: int = 0
    reported: int = 0

    def start(self, task: str, total: int) -> None:
        self.announced += total

    def advance(self, done: int) -> None:
        self.reported += done


@pytest.mark.parametrize("with_parcels", [False, True])
def test_what_is_announced_as_work_is_read_or_skipped(tmp_path: Path, with_parcels: bool) -> None:
    scene = write_geotiff(tmp_path / "a.tif", make_dn(300), L2A)
    (tmp_path / "b.tif").write_text("lost", encoding="utf-8")
    west, south, east, north = footprint_of(scene).bounds
    corners = [shapely.box(west, south, west + 1e-3, south + 1e-3)]
    corners += [shapely.box(east - 1e-3, north - 1e-3, east, north)]
    inputs = inputs_of(tmp_path, *(corners if with_parcels else ()))
    progress = Counter()
    taken = sum(1 for _ in chips(inputs, Findings(), progress, "Reading"))
    assert taken == (2 if with_parcels else 1)
    assert progress.announced == taken + progress.reported


# Preparing


def test_a_parcel_without_data_is_skipped_and_the_others_are_prepared() -> None:
    chip = make_chip()
    reflectance = chip.reflectance.copy()
    reflectance[3, :, :60] = np.nan
    chip = make_chip(reflectance=reflectance, source="scene.tif")
    plan = plan_of(chip, in_chip(chip, 10, 10, 50, 50), in_chip(chip, 70, 10, 110, 50))
    findings = Findings()
    prepared = prepare(chip, plan, "parcel", PATCHES, findings)
    assert [parcel.parcel.parcel_id for parcel in prepared] == ["1"]
    (skipped,) = findings.skipped
    assert (skipped.source, skipped.kind) == ("scene.tif", "no-valid-pixels")
    assert "parcel 0 is nodata" in skipped.reason


def test_an_image_without_data_is_skipped() -> None:
    chip = make_chip(8, reflectance=np.full((12, 8, 8), np.nan, dtype=np.float32))
    findings = Findings()
    assert prepare(chip, plan_of(chip, None), "image", PATCHES, findings) == []
    assert [item.kind for item in findings.skipped] == ["no-valid-pixels"]
    assert "every pixel is nodata" in findings.skipped[0].reason


@pytest.mark.parametrize(("clouded", "embeddable"), [(0, True), (59, True), (60, False)])
def test_a_parcel_is_embedded_where_less_than_60_percent_of_it_is_lost(
    clouded: int, embeddable: bool
) -> None:
    classes = np.full(100, 4, dtype=np.uint8)
    classes[:clouded] = 9
    prepared = prepare_one(make_chip(10, scl=classes.reshape(10, 10)))
    assert prepared.embeddable is embeddable


def test_a_patch_weighs_by_the_share_of_it_inside_of_the_parcel() -> None:
    chip = make_chip()
    # Patches of 8 px: columns 8 to 12 are half of the second, rows 0 to 10 all of the first
    # and a quarter of the second.
    weights = prepare_one(chip, in_chip(chip, 8, 0, 12, 10)).pooling_weights
    expected = np.zeros((PATCHES, PATCHES))
    expected[0, 1], expected[1, 1] = 0.5, 0.125
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_the_patches_of_a_smaller_chip_are_smaller() -> None:
    chip = make_chip(60)
    # 60 px in 15 patches are 4 px a patch.
    weights = prepare_one(chip, in_chip(chip, 0, 56, 2, 60)).pooling_weights
    expected = np.zeros((PATCHES, PATCHES))
    expected[14, 0] = 0.5
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_a_parcel_cut_by_the_edge_weighs_with_what_is_left_of_it() -> None:
    chip = make_chip()
    weights = prepare_one(chip, in_chip(chip, 116, -50, 300, 8)).pooling_weights
    expected = np.zeros((PATCHES, PATCHES))
    expected[0, 14] = 0.5
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_with_image_pooling_every_patch_weighs_the_same() -> None:
    chip = make_chip()
    for geometry in (None, in_chip(chip, 8, 0, 12, 10)):
        assert (prepare_one(chip, geometry, "image").pooling_weights == 1).all()
    assert (prepare_one(chip, None, "parcel").pooling_weights == 1).all()


def test_the_fingerprint_is_that_of_pixels_and_parcel_not_of_their_names() -> None:
    chip = make_chip()
    geometry = in_chip(chip, 8, 0, 40, 40)
    fingerprint = prepare_one(chip, geometry).fingerprint
    renamed = replace(chip, scene="other", source="other.tif", acquired_at=None)
    assert prepare_one(renamed, geometry).fingerprint == fingerprint
    assert len(fingerprint) == 64


def test_the_fingerprint_tells_of_every_change() -> None:
    chip = make_chip()
    geometry = in_chip(chip, 8, 0, 40, 40)
    brighter, masked = chip.reflectance.copy(), chip.valid_mask.copy()
    brighter[5, 100, 100] += np.float32(1e-4)
    masked[100, 100] = False
    changed = [
        prepare_one(chip, geometry),
        prepare_one(chip, in_chip(chip, 8, 0, 40, 40.001)),
        prepare_one(chip, geometry, "image"),
        prepare_one(make_chip(reflectance=brighter), geometry),
        prepare_one(make_chip(valid_mask=masked), geometry),
        prepare_one(make_chip(bands=L2A[::-1]), geometry),
    ]
    assert len({prepared.fingerprint for prepared in changed}) == len(changed)


# The encoder's input


def test_the_encoder_gets_its_bands_by_name_whatever_the_order_of_the_chip() -> None:
    chip = make_chip(64)
    turned = replace(chip, bands=L2A[::-1], reflectance=chip.reflectance[::-1])
    image = encoder_input(chip, Normalization.ssl4eo(), 120)
    assert image.shape == (12, 120, 120)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(encoder_input(turned, Normalization.ssl4eo(), 120), image)


def test_gaps_are_neutral_and_do_not_spread() -> None:
    reflectance = make_chip(120).reflectance.copy()
    clean = encoder_input(make_chip(reflectance=reflectance), Normalization.ssl4eo(), 120)
    reflectance[:, 10:20, 30:40] = np.nan
    image = encoder_input(make_chip(reflectance=reflectance), Normalization.ssl4eo(), 120)
    # The stored mean is the middle of [0, 1].
    np.testing.assert_allclose(image[:, 10:20, 30:40], 0.5, atol=1e-6)
    untouched = np.ones((120, 120), dtype=np.bool_)
    untouched[10:20, 30:40] = False
    np.testing.assert_array_equal(image[:, untouched], clean[:, untouched])


def test_a_chip_without_one_of_the_bands_cannot_be_encoded() -> None:
    with pytest.raises(ImageryError, match="B01"):
        encoder_input(make_chip(8, bands=L2A[1:]), Normalization.ssl4eo(), 120)


class Averaging:
    """An encoder whose tokens are the patches' mean of the first band."""

    name = "averaging"
    weights = Weights("untrained", "averages", None)
    dimensions = 1
    patches_per_side = PATCHES
    loaded = True

    def load(self) -> None:
        """There is nothing to read."""

    def encode(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        tokens = np.stack(list(images))[:, 0].reshape(-1, PATCHES, 8, PATCHES, 8).mean(axis=(2, 4))
        return [
            np.array([[np.average(token, weights=weight)] for weight in weights], np.float32)
            for token, weights in zip(tokens, pooling_weights, strict=True)
        ]


def test_each_parcel_gets_the_embedding_of_its_own_patches() -> None:
    chip = make_chip()
    images: list[FloatArray] = []
    for brightness in (0.0, 0.5):
        image = np.full((12, 120, 120), brightness, dtype=np.float32)
        image[0, :, :60] += 0.25
        images.append(image)
    left, right = in_chip(chip, 0, 0, 40, 40), in_chip(chip, 80, 80, 120, 120)
    prepared = [
        prepare(chip, plan_of(chip, *geometries), "parcel", PATCHES, Findings())
        for geometries in ((left, right), (right,))
    ]
    first, second = encode(Averaging(), images, prepared)
    np.testing.assert_allclose(first, [[0.25], [0.0]], atol=1e-6)
    np.testing.assert_allclose(second, [[0.5]], atol=1e-6)


# Batches


@given(st.integers(0, 40), st.integers(1, 17))
def test_batches_hold_everything_in_order_and_none_is_too_large(count: int, size: int) -> None:
    chip = make_chip(1)
    items: list[Any] = [(np.array([number]), [], chip) for number in range(count)]
    batches = list(in_batches(iter(items), size))
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(0 < len(batch) <= size for batch in batches[-1:])


def test_chips_that_are_large_come_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = make_chip(4)
    monkeypatch.setattr("indexer.pipeline._MOST_BATCH_BYTES", 2 * chip.reflectance.nbytes)
    items: list[Any] = [(np.array([number]), [], chip) for number in range(5)]
    assert [len(batch) for batch in in_batches(iter(items), 16)] == [2, 2, 1]


# Statistics


def test_statistics_are_those_of_all_valid_pixels_of_all_images(tmp_path: Path) -> None:
    bands = ("B04", "B08", "SCL")
    # B04 holds 0.1 and 0.3, B08 holds 0.2 and 0.6; the clouded and the empty pixel do not count.
    first = [[[1000, 9000]], [[2000, 9000]], [[4, 9]]]
    second = [[[3000, 5000]], [[6000, 0]], [[5, 4]]]
    for name, values in (("a", first), ("b", second)):
        write_geotiff(tmp_path / f"{name}.tif", np.array(values, dtype=np.uint16), bands)
    inputs = inputs_of(tmp_path, wanted=("B04", "B08"))
    normalization = measure_normalization(inputs, Silent())
    assert normalization.name == "dataset"
    assert normalization.bands == ("B04", "B08")
    np.testing.assert_allclose(normalization.mean, [0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(normalization.std, [0.1, 0.2], rtol=1e-6)


def test_without_a_valid_pixel_there_are_no_statistics(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "a.tif", np.zeros((12, 8, 8), dtype=np.uint16), L2A)
    with pytest.raises(ImageryError, match="--normalization dataset") as caught:
        measure_normalization(inputs_of(tmp_path), Silent())
    assert caught.value.kind == "no-valid-pixels"


def test_an_unusable_image_does_not_take_its_name_from_a_usable_one(tmp_path: Path) -> None:
    """Sentinel-2 and land cover of one place are often two files of one name."""
    stack = make_dn(16)
    write_geotiff(tmp_path / "cover" / "place.tif", stack[:1])
    write_geotiff(tmp_path / "sentinel" / "place.tif", stack)
    findings = Findings()
    inputs = resolve_inputs([tmp_path], EmbeddingOptions(bands="l2a"), findings)
    read = list(chips(inputs, findings, Silent(), "Reading"))
    assert [plan.targets[0].parcel.parcel_id for _, plan in read] == ["place"]
    assert [skipped.kind for skipped in findings.skipped] == ["band-count"]
