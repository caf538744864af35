from pathlib import Path

import pytest

from api.cli import demo as demo_command
from indexer.encoders import weights
from indexer.errors import WeightsError
from indexer.landscape import Landscape, draw_landscape
from tests.api.cli.conftest import Parcelle
from tests.schemas import ON_POSTGRES, matter_of_sqlite


def index_landscape(parcelle: Parcelle, landscape: Landscape, encoder: str) -> None:
    ran = parcelle(
        "reindex", landscape.scenes[0], "--parcels", landscape.parcels_file, "--encoder", encoder
    )
    assert ran.exit_code == 0, ran.stderr


def test_check_passes_on_a_sound_index(in_demo: Parcelle) -> None:
    ran = in_demo("check", "--json")
    assert ran.exit_code == 0, ran.stdout
    assert ran.json["ok"]
    names = [result["name"] for result in ran.json["checks"]]
    assert names == [
        *("disk", "rasters", "keys", "database", "integrity", "schema", "writer"),
        *("generation 1", "leftovers", "weights"),
    ]
    assert not any("warning" in result for result in ran.json["checks"])


@matter_of_sqlite("a server is there before its tables are")
def test_check_fails_where_there_is_no_database(parcelle: Parcelle) -> None:
    ran = parcelle("check")
    assert ran.exit_code == 1
    assert "FAILED  database" in ran.stdout
    assert "point PARCELLE_DATA_DIR or PARCELLE_DATABASE_URL at the right one" in ran.stdout


def test_check_finds_a_damaged_index_and_rebuild_mends_it_from_sql(
    parcelle: Parcelle, demo_landscape: Landscape, tiny_croma: str, home: Path
) -> None:
    index_landscape(parcelle, demo_landscape, tiny_croma)
    before = parcelle("similar", "demo-005", "--format", "json").json["matches"]
    index = home / "generations" / "1" / "vectors.npy"
    content = bytearray(index.read_bytes())
    content[len(content) // 2] ^= 1
    index.write_bytes(content)
    found = parcelle("check")
    assert found.exit_code == 1
    assert "FAILED  generation 1" in found.stdout
    assert parcelle("similar", "demo-005").exit_code == 1
    mended = parcelle("generations", "rebuild")
    assert mended.exit_code == 0, mended.stderr
    assert parcelle("check").exit_code == 0
    assert parcelle("similar", "demo-005", "--format", "json").json["matches"] == before


def test_generations_list_marks_the_one_that_answers(
    parcelle: Parcelle, demo_landscape: Landscape, tiny_croma: str
) -> None:
    index_landscape(parcelle, demo_landscape, tiny_croma)
    parcelle("generations", "rebuild")
    found = parcelle("generations", "list", "--json").json["generations"]
    assert [(entry["generation"], entry["current"]) for entry in found] == [(2, True), (1, False)]
    first, second = (entry["files"]["vectors.npy"]["sha256"] for entry in found)
    assert first == second
    lines = parcelle("generations", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["*", "1"]


def test_db_upgrade_makes_the_tables_and_can_be_repeated(parcelle: Parcelle, home: Path) -> None:
    first = parcelle("db", "upgrade")
    assert first.exit_code == 0, first.stderr
    assert "was empty" in first.stdout
    assert (home / "parcelle.db").is_file() != ON_POSTGRES
    assert "was current already" in parcelle("db", "upgrade").stdout


def test_demo_goes_on_untrained_and_says_so_where_weights_cannot_be_had(
    parcelle: Parcelle, home: Path, tiny_croma: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(encoder: str) -> Path:
        raise WeightsError("The pretrained weights cannot be had.", kind="weights-not-found")

    monkeypatch.setenv("PARCELLE_CROMA_WEIGHTS", "pretrained")
    monkeypatch.setattr(weights, "_pretrained_file", offline)
    monkeypatch.setattr(demo_command, "ENCODER", tiny_croma)
    monkeypatch.setattr(
        "indexer.landscape.draw_landscape",
        lambda folder: draw_landscape(folder, size_px=240, parcels_across=6),
    )
    ran = parcelle("demo")
    assert ran.exit_code == 0, ran.stderr
    assert "The demo goes on with untrained weights." in ran.stderr
    assert f"Parcels like {demo_command.PARCEL}" in ran.stdout
    assert f"Parcel {demo_command.PARCEL} of demo" in ran.stdout
    assert " serve " in ran.stdout
    assert [path.name for path in home.iterdir()] == ["demo"]
    again = parcelle("demo")
    assert "embedded 0 observations" in again.stdout


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "example.org"])
def test_serve_refuses_other_hosts_without_keys(parcelle: Parcelle, host: str) -> None:
    ran = parcelle("serve", "--host", host)
    assert ran.exit_code == 2
    assert "PARCELLE_API_KEYS" in ran.stderr
    assert host in ran.stderr
