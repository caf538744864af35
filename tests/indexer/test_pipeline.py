from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from indexer.chipping import ChipPlan, ParcelFinder, footprint_lon_lat
from indexer.errors import ImageryError
from indexer.findings import Findings
from indexer.imagery.chip import Chip
from indexer.imagery.reader import ReadingOptions, Scene
from indexer.imagery.sources import find_sources
from indexer.inputs import EmbeddingOptions, resolve_inputs
from indexer.parcels.parcel import Parcel
from indexer.pipeline import (
    Inputs,
    Opened,
    TileWork,
    each_image,
    in_batches,
    measure_normalization,
    tile_works,
)
from indexer.preparing import Prepared
from indexer.progress import Progress, Silent
from indexer.sensors import PROFILES
from tests.indexer.one_chip import preparation
from tests.synthetic import make_dn, write_geotiff

L2A = PROFILES["l2a"]


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


def chips_of(opened: Opened) -> Iterator[tuple[Chip, ChipPlan]]:
    """Every tile of an image."""
    for plan in opened.plan:
        opened.begun += 1
        yield opened.read(plan.window), plan


def read_chips(inputs: Inputs, findings: Findings) -> list[tuple[Chip, ChipPlan]]:
    return list(each_image(inputs, findings, Silent(), "Reading", chips_of))


def footprint_of(path: Path) -> shapely.Polygon:
    (source,), _ = find_sources([path])
    footprint = footprint_lon_lat(Scene.open(source, ReadingOptions()))
    assert footprint is not None
    return footprint


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
    middle = footprint_of(path).centroid.buffer(1e-3)
    ((chip, plan),) = read_chips(inputs_of(tmp_path, middle), findings)
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
    taken = list(works(inputs, findings, progress))
    windows = [prepared.parts[0][0] for work in taken for prepared, _ in work.jobs]
    assert [(window.row, window.column) for window in windows] == [(0, 0), (12, 0)]
    assert findings.told == ["track: 2 windows without data are left out."]
    assert progress.announced == len(taken) + progress.reported == 4


@dataclass
class Counter(Silent):
    """Adds up what is announced and what is reported."""

    announced: int = 0
    reported: int = 0

    def expect(self, total: int) -> None:
        self.announced = total

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
    taken = sum(1 for _ in works(inputs, Findings(), progress))
    assert taken == (2 if with_parcels else 1)
    assert progress.announced == taken + progress.reported


# Work


def works(
    inputs: Inputs,
    findings: Findings,
    progress: Progress,
    wanted: Callable[[list[Prepared]], list[Prepared]] = list,
) -> Iterator[TileWork]:
    """The tiles of all images with what there is to embed in them."""
    ready = preparation(inputs.pooling)
    take = partial(
        tile_works,
        preparation=ready,
        findings=findings,
        progress=progress,
        wanted=wanted,
        input_of=ready.input_of,
    )
    return each_image(inputs, findings, progress, "Embedding", take)


def test_a_tile_is_read_into_the_encoders_input_once_for_all_of_its_parcels(
    tmp_path: Path,
) -> None:
    path = write_geotiff(tmp_path / "scene.tif", make_dn(120), L2A)
    west, south, east, north = footprint_of(path).bounds
    middle = (west + east) / 2
    halves = shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)
    (work,) = works(inputs_of(tmp_path, *halves), Findings(), Silent())
    assert work.image.shape == (12, 120, 120)
    assert [prepared.parcel.parcel_id for prepared, _ in work.jobs] == ["0", "1"]


def test_a_large_parcel_is_in_the_work_of_each_of_its_tiles(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "scene.tif", make_dn(200), L2A)
    found = list(works(inputs_of(tmp_path, footprint_of(path).buffer(-1e-4)), Findings(), Silent()))
    assert len(found) == 4
    (prepared,) = {prepared for work in found for prepared, _ in work.jobs}
    assert prepared.state.pixels_inside == pytest.approx(200 * 200, rel=0.05)
    weights = sum(float(weights.sum()) for work in found for _, weights in work.jobs)
    # Patches of 8 x 8 px.
    assert weights == pytest.approx(prepared.state.pixels_inside / 64, rel=1e-4)


def test_tiles_of_which_nothing_is_wanted_are_passed_over(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "scene.tif", make_dn(200), L2A)
    west, _, _, north = footprint_of(path).bounds
    corner = shapely.box(west, north - 1e-3, west + 1e-3, north)
    inputs = inputs_of(tmp_path, footprint_of(path).buffer(-1e-4), corner)
    progress = Counter()

    def small(prepared: list[Prepared]) -> list[Prepared]:
        return [one for one in prepared if one.parcel.parcel_id == "1"]

    (work,) = works(inputs, Findings(), progress, small)
    assert [prepared.parcel.parcel_id for prepared, _ in work.jobs] == ["1"]
    assert progress.reported == 3


def test_a_parcel_under_clouds_has_no_part_in_any_pass(tmp_path: Path) -> None:
    stack = np.concatenate([make_dn(120), np.full((1, 120, 120), 9, np.uint16)])
    path = write_geotiff(tmp_path / "scene.tif", stack, (*L2A, "SCL"))
    inputs = inputs_of(tmp_path, footprint_of(path).buffer(-1e-3))
    (work,) = works(inputs, Findings(), Silent())
    assert (work.image.size, len(work.jobs)) == (0, 0)
    assert [prepared.parcel.parcel_id for prepared in work.clouded] == ["0"]


# Batches


def work_of(size: int) -> TileWork:
    return TileWork(np.zeros(size, np.float32), [], [])


@given(st.integers(0, 40), st.integers(1, 17))
def test_batches_hold_everything_in_order_and_none_is_too_large(count: int, size: int) -> None:
    items = [work_of(1) for _ in range(count)]
    batches = list(in_batches(iter(items), size))
    assert [id(item) for batch in batches for item in batch] == [id(item) for item in items]
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(0 < len(batch) <= size for batch in batches[-1:])


def test_chips_that_are_large_come_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [work_of(16) for _ in range(5)]
    monkeypatch.setattr("indexer.pipeline._MOST_BATCH_BYTES", 2 * items[0].image.nbytes)
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
    read = list(each_image(inputs, findings, Silent(), "Reading", chips_of))
    assert [plan.targets[0].parcel.parcel_id for _, plan in read] == ["place"]
    assert [skipped.kind for skipped in findings.skipped] == ["band-count"]
