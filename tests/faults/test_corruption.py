"""Files of a generation are damaged: named at load, the rest goes on, one command mends."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from api.cli import main
from indexer.errors import StorageError
from tests.faults.report import counted, rounds
from tests.faults.small_indexes import plant_fields
from tests.faults.states import State, state_of
from tests.retriever.planted import searching, settings_in
from tests.schemas import matter_of_sqlite

pytestmark = matter_of_sqlite("files of its folder are damaged")

FILES = [
    "centroid_axes.npy",
    "centroids.npy",
    "columns.bin",
    "columns.json",
    "index.json",
    "lists.faiss",
    "manifest.json",
    "sketch_axes.npy",
    "sketches.codec",
    "sketches.npy",
    "starts.npy",
    "vectors.codec",
    "vectors.npy",
]
"""Of a generation with lists."""

DAMAGED, OTHER = "4", "1"
"""The generation that answers for the fields, and an older one of them."""


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def one_bit_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_another_index(path: Path) -> None:
    other = path.parents[1] / OTHER / path.name
    path.write_bytes(other.read_bytes() if other.exists() else b"of another index")


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def with_garbage_appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(os.urandom(100))


def missing(path: Path) -> None:
    path.unlink()


def a_folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_dead_link_instead(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def unreadable(path: Path) -> None:
    path.chmod(0)


DAMAGES: list[Callable[[Path], None]] = [
    truncated,
    one_bit_flipped,
    of_another_index,
    emptied,
    with_garbage_appended,
    missing,
    a_folder_instead,
    a_dead_link_instead,
    unreadable,
]

every_damage = pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that is as it should be; only to be copied."""
    place = tmp_path_factory.mktemp("whole") / "data"
    plant_fields(place, lists=True)
    names = {path.name for path in (place / "generations" / DAMAGED).iterdir()}
    assert names == {*FILES}, "this test no longer knows all files"
    return place


def damaged(whole: Path, place: Path, damage: Callable[[Path], None], file: str) -> Path:
    """A copy in which one file is not what was published."""
    if damage is unreadable and os.geteuid() == 0:
        pytest.skip("a file that may not be read: root reads every file")
    shutil.copytree(whole, place)
    damage(place / "generations" / DAMAGED / file)
    return place


def words(damage: Callable[[Path], None]) -> str:
    return damage.__name__.replace("_", " ")


def run(arguments: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of a command on a data folder."""
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(place))
    monkeypatch.delenv("PARCELLE_DATABASE_URL", raising=False)
    monkeypatch.setenv("PARCELLE_CROMA_WEIGHTS", "untrained")
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("file", FILES)
@every_damage
def test_a_damaged_file_is_refused_at_load_by_name_and_other_spaces_go_on(
    whole: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    file: str,
    request: pytest.FixtureRequest,
) -> None:
    place = damaged(whole, tmp_path / "data", damage, file)
    with searching(settings_in(whole)) as searcher:
        expected = searcher.similar_by_id("meadow-1", collection="meadows").matches
    fault = f"damaged file: {words(damage)}"
    with counted(fault, "loading", request), searching(settings_in(place)) as searcher:
        for _ in range(2):
            with pytest.raises(StorageError, match=rf"{DAMAGED}/{file}.*generations rebuild") as it:
                searcher.similar_by_id("field-05", collection="fields")
            assert it.value.kind == "generation-corrupt"
        found = searcher.similar_by_id("meadow-1", collection="meadows").matches
        assert found == expected


PAIRS = [
    (damage, file)
    for place, file in enumerate(FILES)
    for turn, damage in enumerate(DAMAGES)
    if rounds() > 1 or turn == place % len(DAMAGES)
]
"""Every file and every damage at least once; all of them in longer runs."""


@pytest.mark.parametrize(
    ("damage", "file"), PAIRS, ids=lambda one: one if isinstance(one, str) else one.__name__
)
def test_verify_and_check_name_a_damaged_file_and_rebuild_mends_it_from_the_database(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    file: str,
    request: pytest.FixtureRequest,
) -> None:
    place = damaged(whole, tmp_path / "data", damage, file)
    with counted(f"damaged file: {words(damage)}", "`generations rebuild`", request):
        for command in (["generations", "verify", "--json"], ["check", "--json"]):
            capsys.readouterr()
            assert run(command, place, monkeypatch) == 1
            told = capsys.readouterr()
            assert json.loads(told.out)["ok"] is False
            assert f"{DAMAGED}/{file}" in told.out
            assert "Traceback" not in told.err
        assert run(["generations", "rebuild"], place, monkeypatch) == 0
        assert run(["generations", "verify"], place, monkeypatch) == 0
        expected = mended(whole, tmp_path, monkeypatch)
        differences = state_of(settings_in(place)).differences(expected, numbered=False)
        assert not differences


def mended(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """What a rebuild of an undamaged index leaves."""
    place = tmp_path / "undamaged"
    shutil.copytree(whole, place)
    assert run(["generations", "rebuild"], place, monkeypatch) == 0
    return state_of(settings_in(place))


# The database ----------------------------------------------------------------------------------


def middle_overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 65536] = bytes(65536)
    path.write_bytes(content)


def start_overwritten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"no database" + content[11:])


READING = [
    ["similar", "field-05", "--collection", "fields", "--format", "json"],
    ["state", "field-05", "--collection", "fields", "--format", "json"],
    ["generations", "list", "--json"],
]
WRITING = [
    ["generations", "compact"],
    ["generations", "rebuild"],
    ["db", "upgrade"],
]
CHECKING = [["generations", "verify"], ["check"]]


@pytest.mark.parametrize(
    "damage", [truncated, middle_overwritten, start_overwritten, a_folder_instead, unreadable]
)
@pytest.mark.parametrize("command", [*READING, *WRITING, *CHECKING], ids=" ".join)
def test_a_damaged_database_is_named_and_nothing_is_rebuilt_over_it(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    command: list[str],
    request: pytest.FixtureRequest,
) -> None:
    if damage is unreadable and os.geteuid() == 0:
        pytest.skip("a file that may not be read: root reads every file")
    place, undamaged = tmp_path / "data", tmp_path / "undamaged"
    shutil.copytree(whole, place)
    shutil.copytree(whole, undamaged)
    database = place / "parcelle.db"
    damage(database)
    before = database.read_bytes() if database.is_file() else b""
    with counted(f"damaged database: {words(damage)}", "a command", request):
        code = run(command, place, monkeypatch)
        told = capsys.readouterr()
        assert (database.read_bytes() if database.is_file() else b"") == before
        assert "Traceback" not in told.out + told.err
        if code == 0 and command not in CHECKING:
            # What it read was not among what is damaged: then it answers as ever.
            assert damage is middle_overwritten
            assert run(command, undamaged, monkeypatch) == 0
            assert told.out.replace(str(place), str(undamaged)) == capsys.readouterr().out
        else:
            assert code == 1
            assert "parcelle.db" in told.out + told.err
