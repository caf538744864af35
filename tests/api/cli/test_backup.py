import json
from pathlib import Path

import pytest

from indexer.lock import only_writer
from indexer.settings import Settings
from tests.api.cli.conftest import Parcelle
from tests.retriever.planted import UNTRAINED, Seen, plant, random_vectors, settings_in
from tests.schemas import matter_of_sqlite

pytestmark = matter_of_sqlite("the tests tell where its file is")


@pytest.fixture
def index(home: Path) -> Settings:
    """Six parcels in the data folder of the commands."""
    settings = settings_in(home)
    vectors = random_vectors(6)
    plant(
        settings,
        [Seen(f"p{number}", vector) for number, vector in enumerate(vectors)],
        weights=UNTRAINED,
    )
    return settings


def test_an_index_is_moved_by_a_backup_and_a_restore(
    parcelle: Parcelle, index: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = parcelle("similar", "p1", "--format", "json").json
    ran = parcelle("backup", tmp_path / "backup")
    assert ran.exit_code == 0
    assert ran.stdout.startswith(
        f"{tmp_path / 'backup'}: 6 parcels, 6 embeddings and 1 generation in "
    )
    assert "copying the catalog" in ran.stderr
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(tmp_path / "elsewhere"))
    ran = parcelle("restore", tmp_path / "backup")
    assert ran.exit_code == 0
    assert "6 parcels and 6 embeddings as of " in ran.stdout
    assert ran.stdout.endswith("answered by generation 1.\n")
    assert parcelle("similar", "p1", "--format", "json").json == before


@pytest.mark.usefixtures("index")
def test_both_tell_what_they_did_as_json(
    parcelle: Parcelle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = parcelle("backup", tmp_path / "backup", "--json").json
    written = json.loads((tmp_path / "backup" / "backup.json").read_bytes())
    assert {name: made[name] for name in written} == written
    assert made["folder"] == str(tmp_path / "backup")
    assert made["bytes"] == sum(one["bytes"] for one in written["files"].values())
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(tmp_path / "elsewhere"))
    done = parcelle("restore", tmp_path / "backup", "--json").json
    assert done["database"] == f"sqlite:///{tmp_path / 'elsewhere' / 'parcelle.db'}"
    assert (done["generations"], done["replaced"]) == ([1], False)
    assert (done["counts"], done["revision"]) == (written["counts"], written["revision"])


def test_an_index_is_replaced_only_where_that_is_asked_for(
    parcelle: Parcelle, index: Settings, tmp_path: Path
) -> None:
    assert parcelle("backup", tmp_path / "backup").exit_code == 0
    plant(index, [Seen("p9", random_vectors(1, 9)[0])], weights=UNTRAINED)
    ran = parcelle("restore", tmp_path / "backup")
    assert ran.exit_code == 2
    assert "[index-exists]" in ran.stderr
    assert parcelle("state", "p9").exit_code == 0
    assert parcelle("restore", tmp_path / "backup", "--replace").exit_code == 0
    assert parcelle("state", "p9").exit_code == 1
    assert parcelle("generations", "verify").exit_code == 0


@pytest.mark.usefixtures("index")
def test_a_folder_that_is_in_use_or_no_backup_is_wrong_usage(
    parcelle: Parcelle, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    ran = parcelle("backup", tmp_path / "precious")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "[folder-not-empty]" in ran.stderr
    ran = parcelle("restore", tmp_path / "precious")
    assert ran.exit_code == 2
    assert "[no-backup]" in ran.stderr


def test_a_damaged_backup_and_a_writer_are_failures(
    parcelle: Parcelle, index: Settings, tmp_path: Path
) -> None:
    assert parcelle("backup", tmp_path / "backup").exit_code == 0
    with only_writer(index, doing="reindex"):
        # A backup waits for nobody.
        assert parcelle("backup", tmp_path / "another").exit_code == 0
        ran = parcelle("restore", tmp_path / "backup", "--replace")
    assert ran.exit_code == 1
    assert "[reindex-running]" in ran.stderr
    (tmp_path / "backup" / "catalog.db").write_bytes(b"")
    ran = parcelle("restore", tmp_path / "backup", "--replace")
    assert ran.exit_code == 1
    assert "[backup-corrupt]" in ran.stderr
    assert "catalog.db" in ran.stderr


@pytest.mark.usefixtures("home")
def test_where_there_is_no_index_a_backup_makes_nothing(parcelle: Parcelle, tmp_path: Path) -> None:
    ran = parcelle("backup", tmp_path / "backup")
    assert ran.exit_code == 1
    assert "[database-empty]" in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("index")
def test_a_restore_names_what_answers_and_not_what_is_kept_beside_it(
    parcelle: Parcelle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcelle("generations", "rebuild")
    ran = parcelle("backup", tmp_path / "backup")
    assert " and 2 generations in " in ran.stdout
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(tmp_path / "elsewhere"))
    assert parcelle("restore", tmp_path / "backup").stdout.endswith("answered by generation 2.\n")
    ran = parcelle("restore", tmp_path / "backup", "--replace")
    # Those of the backup, 1 and 2, are numbered above those that were there.
    assert ran.stdout.endswith("answered by generation 4.\n")
