import json
from pathlib import Path

import numpy as np
import pytest

from tests.api.cli.conftest import Parcelle
from tests.indexer.flight import train, write_fields, write_flight
from tests.indexer.mapping.planted import planted_classes, write_planted


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    return write_planted(tmp_path / "planted.tif")


def test_map_says_what_it_found_and_where_it_is(
    parcelle: Parcelle, planted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map.tif"
    ran = parcelle("map", planted, "--out", out, "--k", "3", "--name", "3=winter wheat")
    assert ran.exit_code == 0, ran.stderr
    assert "708 pixels in 3 classes by mnf-kmeans" in ran.stdout
    assert "winter wheat" in ran.stdout
    assert str(out) in ran.stdout
    assert out.exists()


def test_map_prints_one_json_object(parcelle: Parcelle, planted: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.npy"
    np.save(truth, planted_classes())
    names = tmp_path / "names.json"
    names.write_text('{"1": "wheat"}', encoding="utf-8")
    ran = parcelle(
        "map", planted, "--out", tmp_path / "map.tif", "--labels", truth, "--names", names, "--json"
    )
    assert ran.exit_code == 0, ran.stderr
    assert (ran.json["k"], ran.json["pixels"], ran.json["method"]) == (3, 708, "mnf-kmeans")
    assert ran.json["classes"][0]["name"] == "wheat"
    assert [one["oa"] for one in ran.json["scores"][:2]] == [1, 1]
    assert ran.json["choice"]["candidates"][:2] == [2, 3]
    assert json.loads((tmp_path / "map.json").read_text())["classes"][0]["name"] == "wheat"


def test_map_scores_are_a_table(parcelle: Parcelle, planted: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.npy"
    np.save(truth, planted_classes())
    ran = parcelle("map", planted, "--out", tmp_path / "map.tif", "--k", "3", "--labels", truth)
    assert ran.exit_code == 0, ran.stderr
    for word in ("OA", "NMI", "ARI", "z-scored pixels", "gmm", "recall", "precision", "F1"):
        assert word in ran.stdout


@pytest.mark.parametrize("k", ["many", "1", "0", "51", "2.5"])
def test_map_refuses_what_is_no_number_of_classes(
    parcelle: Parcelle, planted: Path, tmp_path: Path, k: str
) -> None:
    ran = parcelle("map", planted, "--out", tmp_path / "map.tif", "--k", k)
    assert ran.exit_code == 2
    assert f"--k {k}" in ran.stderr.replace("'", "")
    assert not (tmp_path / "map.tif").exists()


def test_map_without_an_encoder_says_what_needs_one(
    parcelle: Parcelle, planted: Path, tmp_path: Path
) -> None:
    ran = parcelle("map", planted, "--out", tmp_path / "map.tif", "--method", "spectral")
    assert ran.exit_code == 2
    assert "--encoder simple-vit:FILE" in ran.stderr


def test_map_of_a_missing_image_fails_by_name(parcelle: Parcelle, tmp_path: Path) -> None:
    ran = parcelle("map", tmp_path / "absent.hdr", "--out", tmp_path / "map.tif")
    assert ran.exit_code in (1, 2)
    assert "absent.hdr" in ran.stderr


def test_map_of_a_collections_clusters_shows_their_names(
    parcelle: Parcelle, tmp_path: Path
) -> None:
    image, own = write_flight(tmp_path / "flight.tif"), tmp_path / "own.pt"
    write_fields(tmp_path / "fields.geojson")
    encoder = ("--encoder", f"simple-vit:{train(image, own)}")
    into = ("--collection", "farm")
    for command in (
        ("reindex", image, *encoder, "--parcels", tmp_path / "fields.geojson", *into),
        ("cluster", *into, "--k", "3"),
        ("cluster", "name", "2", "winter wheat", *into),
    ):
        assert parcelle(*command).exit_code == 0
    out = ("--out", tmp_path / "map.tif")
    ran = parcelle("map", image, *encoder, *out, *into)
    assert ran.exit_code == 0, ran.stderr
    assert 'The classes are the 3 clusters of "farm".' in ran.stdout
    assert "2  winter wheat" in ran.stdout
    for option in (("--k", "auto"), ("--k", "3"), ("--method", "kmeans")):
        ran = parcelle("map", image, *encoder, *out, *into, *option)
        assert ran.exit_code == 2
        assert " ".join(option) in ran.stderr
    other = train(image, tmp_path / "other.pt", steps=2, seed=3)
    ran = parcelle("map", image, "--encoder", f"simple-vit:{other}", *out, *into)
    assert ran.exit_code == 1
    assert "other.pt" in ran.stderr
