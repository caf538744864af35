"""The database's own files are damaged or lost: what can be had back, and how."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.app import create_app
from api.cli import main
from api.settings import ApiSettings
from indexer.backup.making import back_up
from indexer.catalog.database import connect
from indexer.settings import Settings
from tests.faults.report import counted
from tests.faults.small_indexes import field, plant_fields
from tests.faults.states import state_of
from tests.retriever.planted import plant, settings_in
from tests.schemas import matter_of_sqlite

pytestmark = matter_of_sqlite("its files are damaged")

OTHERS = ("-wal", "-shm")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def start_overwritten(path: Path) -> None:
    path.write_bytes(b"no database" + path.read_bytes()[11:])


def middle_overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 65536] = bytes(65536)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder, and in it a backup of it; only to be copied."""
    place = tmp_path_factory.mktemp("whole") / "data"
    plant_fields(place)
    back_up(settings_in(place), place / "kept")
    return place


@pytest.fixture
def index(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A copy, which commands look for, too."""
    place = tmp_path / "data"
    shutil.copytree(whole, place)
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(place))
    monkeypatch.delenv("PARCELLE_DATABASE_URL", raising=False)
    return settings_in(place)


def run(*arguments: str) -> int:
    """A command's exit code."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


@pytest.mark.parametrize("damage", [truncated, start_overwritten, middle_overwritten])
def test_a_damaged_database_that_is_moved_away_as_the_message_says_is_restored_from_a_backup(
    index: Settings,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    request: pytest.FixtureRequest,
) -> None:
    before = state_of(index)
    database = index.data_dir / "parcelle.db"
    damage(database)
    fault = f"damaged database: {damage.__name__.replace('_', ' ')}"
    with counted(fault, "`restore --replace`", request):
        assert run("generations", "compact") == 1
        told = capsys.readouterr().err
        assert f"Error [database-corrupt]: The database {database} is damaged" in told
        assert "move that file away, then restore a backup: parcelle restore DIR --replace" in told
        database.rename(index.data_dir / "damaged.db")
        assert run("restore", str(index.data_dir / "kept"), "--replace") == 0
        assert not state_of(index).differences(before, numbered=False)


@pytest.mark.parametrize("damage", [start_overwritten, middle_overwritten])
def test_a_service_with_a_damaged_database_answers_503_and_tells_no_path(
    index: Settings, damage: Callable[[Path], None]
) -> None:
    damage(index.data_dir / "parcelle.db")
    served = ApiSettings(data_dir=index.data_dir, database_url="", api_keys="")
    with TestClient(create_app(served)) as client:
        found = client.get("/collections/fields/items/field-05/similar")
    assert found.status_code == 503
    assert found.json()["kind"] == "database-corrupt"
    assert str(index.data_dir) not in found.text


def test_an_empty_database_file_beside_indexes_is_told_of_and_restored_from_a_backup(
    index: Settings, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    before = state_of(index)
    emptied(index.data_dir / "parcelle.db")
    with counted("damaged database: emptied", "`restore --replace`", request):
        assert run("similar", "field-05", "--collection", "fields") == 1
        assert "Error [database-empty]" in capsys.readouterr().err
        assert run("check") == 1
        assert (index.generations_dir / "4").is_dir()
        assert run("restore", str(index.data_dir / "kept"), "--replace") == 0
        assert not state_of(index).differences(before, numbered=False)


def test_without_its_write_ahead_log_the_database_is_as_it_was_when_that_was_last_emptied(
    index: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    expected = state_of(index)
    engine = connect(index)
    with engine.connect() as connection:
        # As long as somebody reads, nobody else brings the log into the file.
        connection.execute(text("BEGIN"))
        connection.execute(text("SELECT count(*) FROM parcels")).scalar_one()
        plant(index, [field(number, seed=3, day="2023-09-01") for number in range(5)])
        assert state_of(index).differences(expected)
        shutil.copytree(index.data_dir, tmp_path / "lost")
    engine.dispose()
    lost = settings_in(tmp_path / "lost")
    for ending in OTHERS:
        (lost.data_dir / f"parcelle.db{ending}").unlink()
    with counted("the write-ahead log is lost", "reading", request):
        assert not state_of(lost).differences(expected)
        # The index that nobody knows any more is no hindrance to the next.
        plant(lost, [field(number, seed=3, day="2023-09-01") for number in range(5)])
        assert not state_of(lost).differences(state_of(index))
