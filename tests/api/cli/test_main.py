import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from indexer.catalog import database
from tests.api.cli.conftest import Parcelle
from tests.schemas import matter_of_sqlite
from tests.synthetic import make_chip, write_geotiff

COMMANDS = (
    ("demo",),
    ("reindex",),
    ("similar",),
    ("state",),
    ("serve",),
    ("mcp",),
    ("embed",),
    ("export",),
    ("pretrain",),
    ("map",),
    ("cluster",),
    ("cluster", "name"),
    ("cluster", "list"),
    ("cluster", "forget"),
    ("check",),
    ("backup",),
    ("restore",),
    ("db", "upgrade"),
    ("keys", "new"),
    ("generations", "list"),
    ("generations", "rebuild"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_gives_an_example(
    parcelle: Parcelle, command: tuple[str, ...]
) -> None:
    ran = parcelle(*command, "--help")
    assert ran.exit_code == 0
    assert "For example:" in ran.stdout
    assert re.search(rf"parcelle {' '.join(command)}\b", ran.stdout)


def test_help_loads_neither_torch_nor_geopandas() -> None:
    code = (
        "import sys\n"
        "from api.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'geopandas', 'faiss', 'fastapi', 'rasterio'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_unknown_command_is_wrong_usage(parcelle: Parcelle) -> None:
    assert parcelle("reindx").exit_code == 2


def test_setting_that_cannot_be_is_named_with_its_variable(
    parcelle: Parcelle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARCELLE_LOG_LEVEL", "LOUD")
    ran = parcelle("check")
    assert ran.exit_code == 2
    assert "PARCELLE_LOG_LEVEL" in ran.stderr
    assert "LOUD" in ran.stderr


def test_question_before_any_reindex_says_what_to_do(parcelle: Parcelle) -> None:
    ran = parcelle("similar", "demo-001")
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert "parcelle reindex" in ran.stderr


def test_unusable_database_url_is_an_error_without_traceback(
    parcelle: Parcelle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARCELLE_DATABASE_URL", "nonsense")
    ran = parcelle("state", "demo-001")
    assert ran.exit_code == 1
    assert "PARCELLE_DATABASE_URL" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_question_in_a_wrong_folder_makes_no_database_there(parcelle: Parcelle, home: Path) -> None:
    for question in (
        ("similar", "p1"),
        ("state", "p1"),
        ("generations", "list"),
        ("export", "x.npy"),
    ):
        ran = parcelle(*question)
        assert ran.exit_code == 1
        assert "[database-empty]" in ran.stderr
    assert not home.exists()


@matter_of_sqlite("one writer at a time")
def test_database_that_stays_locked_is_an_error_without_traceback(
    parcelle: Parcelle, home: Path, tiny_croma: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = make_chip(size=24)
    image = write_geotiff(home.parent / "chip.tif", chip.reflectance * 10_000, chip.bands)
    assert parcelle("db", "upgrade").exit_code == 0
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_MS", 50)
    with closing(sqlite3.connect(home / "parcelle.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        ran = parcelle("reindex", image, "--encoder", tiny_croma)
    assert ran.exit_code == 1
    assert "[database-unreachable]" in ran.stderr
    assert "locked" in ran.stderr
    assert parcelle("reindex", image, "--encoder", tiny_croma).exit_code == 0
