import shutil
from pathlib import Path

import pytest

from indexer.landscape import Landscape
from tests.api.cli.conftest import Parcelle
from tests.synthetic import make_chip, write_geotiff


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    """Two chips in class folders and one file that is no image."""
    folder = tmp_path / "chips"
    for number, crop in enumerate(("maize", "wheat")):
        chip = make_chip(size=24, seed=number)
        path = folder / crop / f"{crop}_{number}.tif"
        path.parent.mkdir(parents=True)
        write_geotiff(path, chip.reflectance * 10_000, descriptions=chip.bands)
    return folder


def test_reindex_tells_what_it_did(parcelle: Parcelle, tiny_croma: str, chips: Path) -> None:
    ran = parcelle("reindex", chips, "--encoder", tiny_croma, "--collection", "crops")
    assert ran.exit_code == 0, ran.stderr
    assert "Read 2 images: embedded 2 observations" in ran.stdout
    assert "Collection crops holds 2 parcels and 2 observations." in ran.stdout
    assert "Generation 1 answers" in ran.stdout
    assert "untrained (random)" in ran.stderr


def test_reindex_json_is_one_object_on_stdout(
    parcelle: Parcelle, tiny_croma: str, chips: Path
) -> None:
    report = parcelle("reindex", chips, "--encoder", tiny_croma, "--json").json
    assert report["read"] == report["embedded"] == report["parcels"] == 2
    assert report["skipped"] == []
    assert report["seconds"] > 0
    assert report["recall_at_10"] == 1.0
    again = parcelle("reindex", chips, "--encoder", tiny_croma, "--json").json
    assert again["embedded"] == 0
    assert again["unchanged"] == 2
    assert again["generation"] == report["generation"]


def test_skipped_input_is_named_and_gives_exit_code_3(
    parcelle: Parcelle, tiny_croma: str, chips: Path
) -> None:
    (chips / "maize" / "broken.tif").write_bytes(b"no image at all")
    ran = parcelle("reindex", chips, "--encoder", tiny_croma)
    assert ran.exit_code == 3
    assert "broken.tif" in ran.stderr
    assert "[unreadable]" in ran.stderr
    assert "embedded 2 observations" in ran.stdout


def test_run_in_which_nothing_could_be_read_has_failed(
    parcelle: Parcelle, tiny_croma: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.tif").write_bytes(b"no image at all")
    ran = parcelle("reindex", tmp_path / "broken.tif", "--encoder", tiny_croma)
    assert ran.exit_code == 1
    assert "No generation is published" in ran.stdout


def test_dry_run_writes_nothing(
    parcelle: Parcelle, tiny_croma: str, chips: Path, home: Path
) -> None:
    ran = parcelle("reindex", chips, "--encoder", tiny_croma, "--dry-run")
    assert ran.exit_code == 0, ran.stderr
    assert "would embed 2 observations" in ran.stdout
    assert not home.exists()


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--bands", "B02,B99", "B99"),
        ("--baseline", "new", "new"),
        ("--encoder", "croma-huge", "croma-huge"),
        ("--collection", "a/b", "a/b"),
        ("--pooling", "median", "median"),
        ("--batch-size", "0", "batch-size"),
    ],
)
def test_wrong_option_is_wrong_usage_and_named(
    parcelle: Parcelle, chips: Path, home: Path, option: str, value: str, word: str
) -> None:
    ran = parcelle("reindex", chips, option, value)
    assert ran.exit_code == 2
    assert option in ran.stderr
    assert word in ran.stderr
    assert not home.exists()


def test_missing_weights_stop_the_run_before_any_work(
    parcelle: Parcelle, chips: Path, home: Path
) -> None:
    ran = parcelle("reindex", chips, "--weights", "/nowhere/CROMA_large.pt")
    assert ran.exit_code == 1
    assert "[weights-not-found]" in ran.stderr
    assert "PARCELLE_CROMA_WEIGHTS" in ran.stderr
    assert not home.exists()


def test_parcels_on_scenes_are_found_with_crop_and_skipped_by_name_outside(
    parcelle: Parcelle, tiny_croma: str, demo_landscape: Landscape, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "parcels.geojson"
    shutil.copy(demo_landscape.parcels_file, elsewhere)
    text = elsewhere.read_text()
    far = (
        '{"type": "Feature", "properties": {"id": "far-away"}, "geometry": {"type": "Polygon", '
        '"coordinates": [[[10, 10], [10.1, 10], [10.1, 10.1], [10, 10]]]}}, '
    )
    elsewhere.write_text(text.replace('"features": [', '"features": [' + far, 1))
    ran = parcelle(
        "reindex", demo_landscape.scenes[0], "--parcels", elsewhere, "--encoder", tiny_croma,
        "--json",
    )  # fmt: skip
    assert ran.exit_code == 3
    assert [(entry["kind"], "far-away" in entry["reason"]) for entry in ran.json["skipped"]] == [
        ("outside-imagery", True)
    ]
    assert ran.json["parcels"] == len(demo_landscape.crops)


def test_collection_without_a_vector_is_not_said_to_be_answered_for(
    parcelle: Parcelle, tiny_croma: str, chips: Path, tmp_path: Path
) -> None:
    assert parcelle("reindex", chips, "--encoder", tiny_croma).exit_code == 0
    (tmp_path / "broken.tif").write_bytes(b"no image at all")
    ran = parcelle(
        "reindex", tmp_path / "broken.tif", "--encoder", tiny_croma, "--collection", "other"
    )
    assert ran.exit_code == 1
    assert "No generation is published" in ran.stdout
