import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.landscape import Landscape
from indexer.sensors import MODALITY_BANDS
from tests.api.cli.conftest import Parcelle
from tests.indexer.imagery.stac.catalogs import bands_of, item, write_bands, write_catalog
from tests.indexer.imagery.test_joint import write_radar
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


# Sources and what becomes of them ------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--bbox", "1,2,3,4"], "--stac"),
        (["--datetime", "2023"], "--stac"),
        (["--max-cloud", "20"], "--stac"),
        (["--stac", "catalog.json", "--bbox", "here"], 'bbox "here"'),
        (["--stac", "catalog.json", "--max-cloud", "101"], "--max-cloud"),
        (["--stac", "catalog.json", "--datetime", "soon"], "soon"),
        (["--modality", "thermal"], "thermal"),
        (["--precision", "fp8"], "fp8"),
        (["--gsd", "5"], "--parcels"),
        (["--gsd", "7", "--parcels", "parcels.geojson"], "--gsd 7"),
    ],
)
def test_options_of_sources_that_cannot_be_are_wrong_usage(
    parcelle: Parcelle, chips: Path, home: Path, arguments: list[str], word: str
) -> None:
    ran = parcelle("reindex", chips, "--weights", "untrained", *arguments)
    assert ran.exit_code == 2
    assert word in ran.stderr
    assert not home.exists()


def test_neither_images_nor_a_catalog_is_wrong_usage(parcelle: Parcelle) -> None:
    ran = parcelle("reindex", "--weights", "untrained")
    assert ran.exit_code == 2
    assert "[no-imagery]" in ran.stderr


def test_a_catalog_that_is_not_there_is_named_with_the_reason(
    parcelle: Parcelle, tiny_croma: str, tmp_path: Path
) -> None:
    ran = parcelle("reindex", "--stac", tmp_path / "catalog.json", "--encoder", tiny_croma)
    assert ran.exit_code == 2
    assert "catalog.json: no such file" in ran.stderr


def test_items_of_a_catalog_are_chosen_by_day_and_clouds(
    parcelle: Parcelle, tiny_croma: str, tmp_path: Path
) -> None:
    days = {"early": "2023-06-01", "clouded": "2023-06-11", "late": "2023-07-01"}
    items = [
        item(
            name,
            time=f"{day}T10:00:00Z",
            assets=bands_of("../bands/"),
            bbox=(4.36, 48.69, 4.43, 48.74),
            properties={"eo:cloud_cover": 90 if name == "clouded" else 5},
        )
        for name, day in days.items()
    ]
    write_bands(tmp_path / "s2" / "bands")
    ran = parcelle(
        "reindex", "--stac", write_catalog(tmp_path, items), "--encoder", tiny_croma,
        "--datetime", "2023-06", "--max-cloud", "20", "--bbox", "4.3,48.6,4.5,48.8",
        "--windows", "512", "--json",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.stderr
    assert (ran.json["read"], ran.json["embedded"]) == (1, 1)
    assert parcelle("state", "early-512px-r00000-c00000").exit_code == 0


def test_a_dry_run_says_how_many_passes_and_how_long(
    parcelle: Parcelle, tiny_croma: str, chips: Path
) -> None:
    planned = parcelle("reindex", chips, "--encoder", tiny_croma, "--dry-run")
    assert "That takes 2 forward passes and about 0 min " in planned.stdout
    assert "tiles/s" not in planned.stdout
    parcelle("reindex", chips, "--encoder", tiny_croma)
    again = parcelle("reindex", chips, "--encoder", tiny_croma, "--dry-run")
    assert "That takes no forward pass." in again.stdout


def test_parcels_that_are_retired_are_counted(
    parcelle: Parcelle, tiny_croma: str, chips: Path
) -> None:
    parcelle("reindex", chips, "--encoder", tiny_croma)
    (chips / "maize" / "maize_0.tif").unlink()
    arguments = ("reindex", chips, "--encoder", tiny_croma, "--prune")
    assert "1 parcels would be retired" in parcelle(*arguments, "--dry-run").stdout
    ran = parcelle(*arguments)
    assert ran.exit_code == 0, ran.stderr
    assert "1 parcels are retired" in ran.stdout
    assert "Collection parcels holds 1 parcels and 1 observations." in ran.stdout
    assert parcelle("state", "maize_0").exit_code == 1


def test_radar_answers_radar_and_nothing_else(
    parcelle: Parcelle, tiny_croma: str, chips: Path, tmp_path: Path
) -> None:
    for number in range(2):
        write_radar(tmp_path / "radar" / f"r{number}.tif", -8.0 - 5 * number, size=24)
    ran = parcelle(
        "reindex", tmp_path / "radar", "--modality", "sar", "--encoder", tiny_croma, "--json"
    )
    assert ran.exit_code == 0, ran.stderr
    assert ran.json["space"]["modality"] == "sar"
    image = tmp_path / "radar" / "r1.tif"
    asked = parcelle("similar", "--image", image, "--format", "json")
    first, second = asked.json["matches"]
    assert (first["id"], second["id"]) == ("r1", "r0")
    assert first["score"] == pytest.approx(1, abs=1e-3)
    refused = parcelle("similar", "--image", chips / "maize" / "maize_0.tif")
    assert refused.exit_code == 1
    assert "required band VV, VH is missing" in refused.stderr


def test_images_of_fourteen_bands_answer_images_of_fourteen_bands(
    parcelle: Parcelle, tiny_croma: str, tmp_path: Path
) -> None:
    for number in range(2):
        optical = make_chip(size=24, seed=number).reflectance
        backscatter = np.full((2, 24, 24), -10.0 - number, np.float32)
        stack = np.concatenate([optical, backscatter]).astype(np.float32)
        write_geotiff(
            tmp_path / "both" / f"field-{number}.tif", stack, descriptions=MODALITY_BANDS["joint"]
        )
    ran = parcelle(
        "reindex", tmp_path / "both", "--modality", "joint", "--encoder", tiny_croma, "--json"
    )
    assert ran.exit_code == 0, ran.stderr
    assert (ran.json["embedded"], ran.json["space"]["modality"]) == (2, "joint")
    asked = parcelle("similar", "--image", tmp_path / "both" / "field-1.tif", "--format", "json")
    assert [match["id"] for match in asked.json["matches"]] == ["field-1", "field-0"]


def test_embed_takes_the_same_sources(parcelle: Parcelle, tiny_croma: str, tmp_path: Path) -> None:
    write_radar(tmp_path / "r.tif", size=24)
    ran = parcelle(
        "embed", tmp_path / "r.tif", "--modality", "sar", "--encoder", tiny_croma,
        "--precision", "fp32", "--out", tmp_path / "r.npy", "--json",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.stderr
    assert ran.json["shape"] == [1, 512]
    assert ran.json["space"]["precision"] == "fp32"
