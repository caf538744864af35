"""Reindexing with a CROMA of one layer: drawn images, and real ones where there are any."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from indexer.catalog.reading import collection_space
from indexer.encoders.croma import CromaEncoder, resize
from indexer.encoders.weights import locate_weights
from indexer.normalization import Normalization
from indexer.reindex import ReindexOptions, ReindexReport, reindex
from indexer.settings import Settings
from tests.indexer.farm import image_dn, reading, searching, vectors, write_images

TestData = Callable[[str], Path]

L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
L2A = tuple(band for band in L1C if band != "B10")
EUROSAT = (*(band for band in L1C if band != "B8A"), "B8A")


@pytest.fixture
def run(settings: Settings, tiny_croma: str) -> Callable[..., ReindexReport]:
    """Reindex images into an empty place."""

    def reindexed(imagery: Path, **options: str) -> ReindexReport:
        chosen = ReindexOptions(encoder=tiny_croma, device="cpu", **options)  # type: ignore[arg-type]
        return reindex(settings, [imagery], chosen)

    return reindexed


def ndvi_of_file(path: Path, bands: tuple[str, ...], offset: int = 0) -> npt.NDArray[np.float64]:
    """NDVI of the pixels that have a measurement in every band that is used, from raw numbers."""
    with rasterio.open(path) as file:
        dn = dict(zip(bands, file.read().astype(np.float64), strict=True))
    measured = np.all([dn[band] > 0 for band in L2A], axis=0)
    red, nir = dn["B04"][measured] + offset, dn["B08"][measured] + offset
    return np.asarray((nir - red) / (nir + red))


def assert_ndvi(settings: Settings, parcel_id: str, expected: npt.NDArray[np.float64]) -> None:
    with searching(settings) as searcher:
        (seen,) = searcher.state(parcel_id).observations
    assert seen.valid_pixels == expected.size
    assert abs(seen.indices["NDVI"]["mean"] - expected.mean()) < 1e-6
    assert abs(seen.indices["NDVI"]["median"] - np.median(expected)) < 1e-6


def assert_everyone_has_look_alikes(settings: Settings, names: set[str]) -> None:
    with searching(settings) as searcher:
        for name in names:
            answer = searcher.similar_by_id(name, k=50)
            assert {match.parcel_id for match in answer.matches} == names - {name}
            scores = [match.score for match in answer.matches]
            assert scores == sorted(scores, reverse=True)
            assert len(searcher.state(name).observations) == 1


def test_every_vector_is_the_projected_embedding_of_the_network(
    settings: Settings, run: Callable[..., ReindexReport], tiny_croma: str, tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 2)
    report = run(tmp_path / "images")
    assert (report.embedded, report.parcels, report.generation) == (2, 2, 1)
    with reading(settings) as connection:
        space = collection_space(connection, "parcels")
    assert space is not None
    assert space.projection is not None
    encoder = CromaEncoder(
        tiny_croma, locate_weights("untrained", tiny_croma), precision=space.recipe["precision"]
    )
    for seed in range(2):
        reflectance = image_dn(seed)[None].astype(np.float32) / np.float32(10_000)
        image = Normalization.ssl4eo().apply(resize(reflectance, 120))
        (embedding,) = encoder.encode(image, [np.ones((1, 15, 15), np.float32)])
        by_hand = space.projection.matrix.astype(np.float64) @ embedding[0]
        by_hand /= np.linalg.norm(by_hand)
        found = vectors(settings)[f"image-{seed:02d}", f"image-{seed:02d}"]
        np.testing.assert_allclose(found, by_hand, atol=1e-5)


def test_a_run_with_nothing_to_embed_builds_no_network(
    run: Callable[..., ReindexReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 1)
    run(tmp_path / "images")

    def refuse(_: CromaEncoder) -> None:
        raise AssertionError("there is nothing to embed")

    monkeypatch.setattr(CromaEncoder, "load", refuse)
    assert run(tmp_path / "images").unchanged == 1


def test_eurosat_chips_are_indexed_with_their_classes(
    settings: Settings, run: Callable[..., ReindexReport], test_data: TestData
) -> None:
    folder = test_data("eurosat_ms_mini")
    report = run(folder, bands="eurosat")
    files = {path.stem: path for path in folder.rglob("*.tif")}
    assert (report.read, report.embedded, report.skipped) == (len(files), len(files), [])
    assert_everyone_has_look_alikes(settings, set(files))
    for name, path in files.items():
        assert_ndvi(settings, name, ndvi_of_file(path, EUROSAT))
    with searching(settings) as searcher:
        assert searcher.state("AnnualCrop_1").parcel.crop_name == "AnnualCrop"


def test_bigearthnet_patches_are_indexed_one_file_a_band(
    settings: Settings, run: Callable[..., ReindexReport], test_data: TestData
) -> None:
    folder = test_data("bigearthnet_tiny")
    patches = {path.name: path for path in folder.iterdir() if path.is_dir()}
    report = run(folder)
    assert (report.read, report.embedded, report.skipped) == (len(patches), len(patches), [])
    assert_everyone_has_look_alikes(settings, set(patches))
    with searching(settings) as searcher:
        seen = searcher.state("S2A_MSIL2A_20170617T113321_36_85").observations[0]
    assert seen.acquired_at is not None
    assert seen.acquired_at.isoformat() == "2017-06-17T11:33:21+00:00"
    red, nir = (
        rasterio.open(folder / seen.scene / f"{seen.scene}_{band}.tif") for band in ("B04", "B08")
    )
    with red, nir:
        low, high = (file.read(1).astype(np.float64) for file in (red, nir))
    # Every pixel of this patch is measured in every band.
    assert seen.valid_pixels == 120 * 120
    assert_ndvi(settings, seen.scene, ((high - low) / (high + low)).ravel())


def test_level_2a_scenes_are_indexed_as_chips(
    settings: Settings, run: Callable[..., ReindexReport], test_data: TestData
) -> None:
    folder = test_data("terramesh_scenes") / "S2L2A"
    report = run(folder, bands="l2a")
    files = {path.stem: path for path in folder.glob("*.tif")}
    assert (report.read, report.embedded, report.skipped) == (len(files), len(files), [])
    assert_everyone_has_look_alikes(settings, set(files))
    assert_ndvi(settings, "637U_59R_1_3", ndvi_of_file(folder / "637U_59R_1_3.tif", L2A))


def test_level_1c_scenes_are_indexed_with_their_offset_and_a_lie_about_it_is_noted(
    settings: Settings, run: Callable[..., ReindexReport], test_data: TestData
) -> None:
    folder = test_data("terramesh_scenes") / "S2L1C"
    report = run(folder, bands="l1c", baseline="4.00")
    files = {path.stem: path for path in folder.glob("*.tif")}
    assert (report.read, report.embedded, report.skipped) == (len(files), len(files), [])
    assert_everyone_has_look_alikes(settings, set(files))
    path = folder / "282D_485L_3_3.tif"
    assert_ndvi(settings, path.stem, ndvi_of_file(path, L1C, offset=-1000))
    # The set's description: the offset is missing in this scene only.
    doubted = {name for name in files if any(name in note for note in report.notes)}
    assert doubted == {"637U_59R_1_3"}
