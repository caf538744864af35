import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, func, select, text, update

from indexer.backup.description import Description
from indexer.backup.files import require_space
from indexer.backup.making import back_up
from indexer.backup.restoring import restore
from indexer.catalog.database import connect, downgrade, schema_status
from indexer.catalog.tables import Clustering, Embedding, EmbeddingSpace, Generation
from indexer.clusters.making import make_clusters
from indexer.errors import ConflictError, InvalidInputError, StorageError
from indexer.generations.recovery import recover
from indexer.generations.store import rebuild
from indexer.lock import only_writer
from indexer.progress import Silent
from indexer.settings import Settings
from tests.indexer.backups import answers_of, damages_of, field, plant_fields, rows_of
from tests.indexer.killed_writer import Told, vector_of
from tests.postgres import new_schema
from tests.retriever.planted import plant, searching, settings_in, uproot
from tests.schemas import copy_index, matter_of_sqlite

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]

Home = Callable[..., Settings]


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """Gives an empty place on a database of a kind."""
    opened = []

    def make(kind: str, name: str = "home") -> Settings:
        settings = settings_in(tmp_path / name)
        if kind == "sqlite":
            return settings.model_copy(
                update={"database_url": f"sqlite:///{settings.data_dir / 'parcelle.db'}"}
            )
        schema = new_schema(request.getfixturevalue("postgres_url"))
        opened.append(schema)
        return settings.model_copy(update={"database_url": schema.__enter__()})

    yield make
    for schema in opened:
        schema.__exit__(None, None, None)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An index that is only read, and copied."""
    settings = settings_in(tmp_path_factory.mktemp("planted") / "index")
    plant_fields(settings)
    return settings


@pytest.fixture
def index(planted: Settings, tmp_path: Path) -> Settings:
    """A copy of it."""
    settings = settings_in(tmp_path / "index")
    copy_index(planted.data_dir, settings.data_dir)
    return settings


@pytest.fixture(scope="module")
def backup(planted: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it, only to be read."""
    folder = tmp_path_factory.mktemp("backups") / "monday"
    back_up(planted, folder)
    return folder


@contextmanager
def opened(settings: Settings) -> Iterator[Engine]:
    engine = connect(settings)
    yield engine
    engine.dispose()


# From anywhere to anywhere ------------------------------------------------------------------------


@pytest.mark.parametrize("target", BOTH)
@pytest.mark.parametrize("source", BOTH)
def test_what_is_restored_holds_and_answers_the_same(
    home: Home, tmp_path: Path, source: str, target: str
) -> None:
    here, there = home(source, "here"), home(target, "there")
    plant_fields(here)
    rows, answers = rows_of(here), answers_of(here)
    made = back_up(here, tmp_path / "backup")
    assert damages_of(tmp_path / "backup") == []
    done = restore(there, tmp_path / "backup")
    assert rows_of(there) == rows
    assert answers_of(there) == answers
    # Neither of them was changed by the other.
    assert answers_of(here) == answers
    assert (made.database, done.replaced) == (source, False)
    assert made.counts == {table: len(some) for table, some in rows.items()}
    assert done.generations == [one["generation"] for one in made.generations]
    assert sorted(path.name for path in (there.data_dir / "generations").iterdir()) == sorted(
        map(str, done.generations)
    )


@pytest.mark.parametrize("target", BOTH)
@pytest.mark.parametrize("source", BOTH)
def test_numbers_go_on_above_all_that_were_ever_given(
    home: Home, tmp_path: Path, source: str, target: str
) -> None:
    here, there = home(source, "here"), home(target, "there")
    plant_fields(here)
    back_up(here, tmp_path / "backup")
    restore(there, tmp_path / "backup")
    # The same happens in both places.
    for settings in (here, there):
        plant(settings, [field(20)])
        make_clusters(settings, "fields", k=2)
    for table in (Embedding, Generation, Clustering):
        last = select(func.max(table.id))
        with opened(here) as one, opened(there) as other:
            with one.connect() as before, other.connect() as after:
                assert after.scalar(last) == before.scalar(last), table.__tablename__


@pytest.mark.parametrize("kind", BOTH)
def test_a_backup_of_an_earlier_schema_is_upgraded_when_it_is_restored(
    home: Home, tmp_path: Path, kind: str
) -> None:
    here, there = home(kind, "here"), home("sqlite", "there")
    plant(here, [field(number) for number in range(4)])
    rows = rows_of(here)
    with opened(here) as engine:
        downgrade(engine, "0003")
    made = back_up(here, tmp_path / "backup")
    assert made.revision == "0003"
    assert "changes" not in made.counts
    restore(there, tmp_path / "backup")
    with opened(there) as engine:
        assert schema_status(engine) == "current"
    found = rows_of(there)
    last = max(one["id"] for one in rows.pop("changes"))
    # That schema has no log, so anything may have changed since.
    since = found.pop("changes")
    assert min(one["id"] for one in since) > last
    assert {one["parcel_id"] for one in since} >= {one["id"] for one in rows["parcels"]}
    assert found == rows
    with searching(there) as searcher:
        assert len(searcher.similar_by_id("field-01").matches) == 3


def test_an_empty_index_is_backed_up_and_restored(tmp_path: Path) -> None:
    here, there = settings_in(tmp_path / "here"), settings_in(tmp_path / "there")
    plant(here, [field(1)])
    uproot(here, "field-01")
    with opened(here) as engine, engine.begin() as connection:
        connection.execute(update(EmbeddingSpace).values(current_generation_id=None))
        connection.execute(delete(Generation))
    made = back_up(here, tmp_path / "backup")
    assert made.generations == []
    restore(there, tmp_path / "backup")
    assert rows_of(there) == rows_of(here)


# While others write -------------------------------------------------------------------------------


def test_a_backup_beside_a_writer_is_the_catalog_after_one_of_its_commits(
    tmp_path: Path,
) -> None:
    here = settings_in(tmp_path / "here")
    plant(here, [replace(field(1), collection="demo")])
    command = [sys.executable, "-m", "tests.indexer.killed_writer", str(here.data_dir), "1", "0"]
    told, states = Told(), [dict[int, int]()]
    environment = os.environ | {"PARCELLE_DATABASE_URL": here.resolved_database_url}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        for number in range(4):
            for _ in range(41):
                _hear(writer.stdout.readline(), told, states)
            back_up(here, tmp_path / f"backup-{number}")
        writer.kill()
        for line in writer.stdout:
            _hear(line, told, states)
    # It may have committed once more without saying so.
    if told.begun is not None:
        states.append(_with_step(states[-1], *told.begun))
    found = []
    for number in range(4):
        there = settings_in(tmp_path / f"there-{number}")
        restore(there, tmp_path / f"backup-{number}")
        found.append(states.index(_turns_in(there)))
    assert found == sorted(found)
    assert found[-1] > found[0]


def _hear(line: str, told: Told, states: list[dict[int, int]]) -> None:
    told.hear(line)
    what, number, turn = line.split()
    if what == "done":
        states.append(_with_step(states[-1], int(number), None if turn == "-" else int(turn)))


def _with_step(state: dict[int, int], number: int, turn: int | None) -> dict[int, int]:
    others = {one: seen for one, seen in state.items() if one != number}
    return others if turn is None else {**others, number: turn}


def _turns_in(settings: Settings) -> dict[int, int]:
    """Which turn's vector each parcel has; all that hangs on it is there, and nothing else."""
    rows = rows_of(settings)
    parcels = {row["id"]: row["parcel_id"] for row in rows["parcels"]}
    observations = {row["id"]: row["parcel_id"] for row in rows["observations"]}
    standing = [row for row in rows["embeddings"] if not row["superseded"]]
    assert set(observations.values()) == set(parcels)
    assert {row["observation_id"] for row in rows["embeddings"]} == set(observations)
    found = {}
    for row in standing:
        parcel_id = parcels[observations[row["observation_id"]]]
        if parcel_id != "field-01":
            number, turn = int(parcel_id.removeprefix("p")), int(row["fingerprint"])
            assert row["vector"] == vector_of(number, turn).tobytes()
            found[number] = turn
    assert len(standing) == len(parcels)
    return found


class _Meanwhile(Silent):
    """Does something when the catalog is copied, and the generations are about to be."""

    def __init__(self, *actions: Callable[[], None]) -> None:
        self._actions = list(actions)
        self.tasks: list[str] = []

    def start(self, task: str, total: int, unit: str | None = None) -> None:
        self.tasks.append(task)
        if task == "copying generations" and self._actions:
            self._actions.pop(0)()


def publish_and_prune(settings: Settings) -> None:
    """Publish all indexes anew, and leave nothing of the former ones."""
    with opened(settings) as engine:
        for manifest in rebuild(engine, settings.generations_dir):
            with engine.begin() as connection:
                connection.execute(
                    delete(Generation).where(
                        Generation.id < manifest.generation,
                        Generation.manifest["space_digest"].as_string() == manifest.space_digest,
                    )
                )
                kept = {str(one) for one in connection.scalars(select(Generation.id))}
        for folder in settings.generations_dir.iterdir():
            if folder.name not in kept:
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()


def test_a_generation_that_is_pruned_meanwhile_makes_the_backup_begin_anew(
    index: Settings, tmp_path: Path
) -> None:
    meanwhile = _Meanwhile(lambda: publish_and_prune(index), lambda: publish_and_prune(index))
    made = back_up(index, tmp_path / "backup", meanwhile)
    assert meanwhile.tasks.count("copying the catalog") == 3
    assert damages_of(tmp_path / "backup") == []
    there = settings_in(tmp_path / "there")
    restore(there, tmp_path / "backup")
    assert rows_of(there) == rows_of(index)
    assert answers_of(there) == answers_of(index)
    assert all(one["current"] for one in made.generations)


# What cannot be backed up -------------------------------------------------------------------------


def test_a_damaged_generation_that_answers_is_named_and_nothing_is_left(
    index: Settings, tmp_path: Path
) -> None:
    current = max(int(path.name) for path in index.generations_dir.iterdir())
    damaged = index.generations_dir / str(current) / "vectors.npy"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(StorageError, match=r"vectors\.npy.*is damaged.*rebuild") as caught:
        back_up(index, tmp_path / "backups" / "monday")
    assert caught.value.kind == "generation-corrupt"
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_former_generation_that_is_damaged_is_left_out_and_named(
    index: Settings, tmp_path: Path
) -> None:
    with opened(index) as engine, engine.connect() as connection:
        current = set(connection.scalars(select(EmbeddingSpace.current_generation_id)))
        former = set(connection.scalars(select(Generation.id))) - current
    for number in former:
        (index.generations_dir / str(number) / "columns.bin").unlink()
    made = back_up(index, tmp_path / "backup")
    assert {one["generation"] for one in made.generations} == current
    assert former
    assert [one.partition(":")[0] for one in made.left_out[: len(former)]] == [
        f"Generation {number}, which does not answer" for number in sorted(former)
    ]
    assert damages_of(tmp_path / "backup") == []
    there = settings_in(tmp_path / "there")
    restore(there, tmp_path / "backup")
    assert answers_of(there) == answers_of(index)


@pytest.mark.parametrize("there", ["a file in it", "a file"])
def test_what_is_there_is_never_written_over(index: Settings, tmp_path: Path, there: str) -> None:
    folder = tmp_path / "backup"
    file = folder / "precious" if there == "a file in it" else folder
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious")
    with pytest.raises(InvalidInputError, match="name another") as caught:
        back_up(index, folder)
    assert caught.value.kind == "folder-not-empty"
    assert file.read_text() == "precious"


def test_an_empty_folder_is_filled(index: Settings, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    back_up(index, tmp_path / "backup")
    assert damages_of(tmp_path / "backup") == []


def test_where_a_disk_is_mounted_a_folder_in_it_is_asked_for(index: Settings) -> None:
    with pytest.raises(InvalidInputError, match="name a folder in it"):
        back_up(index, Path("/proc"))


@pytest.mark.parametrize("place", ["", "2", "backup/of/today"])
def test_a_backup_among_the_generations_is_refused_as_writers_clear_away_there(
    index: Settings, place: str
) -> None:
    with pytest.raises(InvalidInputError, match="name one outside"):
        back_up(index, index.generations_dir / place)


def test_two_backups_into_one_folder_do_not_mix(index: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "backup"

    def second() -> None:
        with pytest.raises(InvalidInputError, match="Another backup is being written"):
            back_up(index, folder)

    back_up(index, folder, _Meanwhile(second))
    assert damages_of(folder) == []


def test_where_there_is_no_index_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        back_up(settings_in(tmp_path / "nothing"), tmp_path / "backup")
    assert caught.value.kind == "database-empty"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"The backup takes about 1,152,921,504,606,846,976 MiB.*free"
    ):
        require_space(tmp_path / "not" / "there", 1 << 80, "The backup")


# What cannot be restored --------------------------------------------------------------------------


def put_a_folder_there(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one flipped bit": lambda path: path.write_bytes(
        path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])
    ),
    "more at the end": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "missing": Path.unlink,
    "a folder": put_a_folder_there,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["catalog.db", "generations/{current}/vectors.npy"])
def test_a_damaged_file_is_named_and_nothing_is_restored(
    backup: Path, tmp_path: Path, file: str, damage: str
) -> None:
    copied = tmp_path / "backup"
    copy_index(backup, copied)
    name = file.format(current=Description.read(copied).generations[-1]["generation"])
    DAMAGES[damage](copied / name)
    there = settings_in(tmp_path / "there")
    with pytest.raises(StorageError, match=name) as caught:
        restore(there, copied)
    assert caught.value.kind == "backup-corrupt"
    assert [path.name for path in there.data_dir.rglob("*")] in (
        ["reindex.lock", "generations"],
        ["generations", "reindex.lock"],
    )


def test_a_damaged_backup_leaves_the_index_that_it_should_replace(
    backup: Path, tmp_path: Path, index: Settings
) -> None:
    before = answers_of(index)
    copied = tmp_path / "backup"
    copy_index(backup, copied)
    DAMAGES["one flipped bit"](copied / "catalog.db")
    with pytest.raises(StorageError):
        restore(index, copied, replace=True)
    assert answers_of(index) == before


def folders_of(settings: Settings) -> set[str]:
    return {path.name for path in settings.generations_dir.iterdir()}


@contextmanager
def full_disk(name: str) -> Iterator[None]:
    """A disk that fills where a restore switches the catalog."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"indexer.backup.restoring.{name}", refuse)
        yield


@pytest.mark.parametrize("kind", BOTH)
def test_a_disk_that_fills_while_another_index_is_replaced_leaves_that_index_alone(
    home: Home, backup: Path, kind: str
) -> None:
    other = home(kind, "other")
    plant(other, [field(number) for number in range(3)])
    before = folders_of(other)
    with full_disk("copy_rows"), pytest.raises(StorageError) as caught:
        restore(other, backup, replace=True)
    assert caught.value.kind == "disk-full"
    with opened(other) as engine:
        # A server may have committed without having told, so there it is the next writer's matter.
        if kind == "postgresql":
            recover(engine, other.generations_dir)
    assert folders_of(other) == before


@matter_of_sqlite("its file is what fills the disk")
def test_after_a_disk_was_full_an_empty_place_is_filled_by_the_same_command(
    backup: Path, tmp_path: Path, planted: Settings
) -> None:
    there = settings_in(tmp_path / "there")
    with full_disk("_leave_one_file"), pytest.raises(StorageError):
        restore(there, backup)
    assert folders_of(there) == set()
    restore(there, backup)
    assert answers_of(there) == answers_of(planted)


def test_the_next_writer_clears_away_what_a_killed_restore_put_in_place(
    backup: Path, tmp_path: Path
) -> None:
    other = settings_in(tmp_path / "other")
    plant(other, [field(number) for number in range(3)])
    before = folders_of(other)
    child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("indexer.backup.restoring.copy_rows", lambda *_: os._exit(9))
            restore(other, backup, replace=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    # Numbers that this database never gave.
    assert len(folders_of(other)) > len(before) + 1
    with opened(other) as engine:
        recover(engine, other.generations_dir)
    assert folders_of(other) == before


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_what_is_no_backup_is_wrong_usage(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no backup")
    with pytest.raises(InvalidInputError, match="is no backup") as caught:
        restore(settings_in(tmp_path / "there"), tmp_path / name)
    assert caught.value.kind == "no-backup"
    assert not (tmp_path / "there").exists()


def rewritten(backup: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a backup whose description is changed."""
    copy_index(backup, folder)
    content = json.loads((folder / "backup.json").read_bytes())
    change(content)
    (folder / "backup.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("files"),
        lambda content: content.pop("format"),
        lambda content: content["files"].pop("catalog.db"),
        lambda content: content["files"].update({"../outside": {"bytes": 0, "sha256": ""}}),
        lambda content: content["files"].update({"/etc/passwd": {"bytes": 0, "sha256": ""}}),
        lambda content: content["files"].update({"generations/../x": {"bytes": 0, "sha256": ""}}),
        lambda content: content["files"].update({"weights/..": {"bytes": 0, "sha256": ""}}),
        lambda content: content.update(weights={"a": "/etc/passwd"}),
        lambda content: content["generations"].append({"generation": 99}),
        lambda content: content["generations"].append({"generation": "../.."}),
    ],
)
def test_a_description_that_names_what_is_no_part_of_a_backup_is_refused(
    backup: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    folder = rewritten(backup, tmp_path / "backup", change)
    with pytest.raises(StorageError, match="does not describe a backup") as caught:
        restore(settings_in(tmp_path / "there"), folder)
    assert caught.value.kind == "backup-corrupt"
    assert not (tmp_path / "there").exists()


def test_a_backup_of_a_newer_version_says_which(backup: Path, tmp_path: Path) -> None:
    folder = rewritten(
        backup,
        tmp_path / "backup",
        lambda content: content.update(format=2, versions={"parcelle": "9.1"}, more={}),
    )
    with pytest.raises(StorageError, match=r"newer Parcelle \(9\.1\); update") as caught:
        restore(settings_in(tmp_path / "there"), folder)
    assert caught.value.kind == "backup-newer"


def test_a_backup_of_a_newer_schema_is_refused(index: Settings, tmp_path: Path) -> None:
    back_up(index, tmp_path / "before")
    with opened(index) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError) as caught:
        back_up(index, tmp_path / "backup")
    assert caught.value.kind == "schema-newer"
    there = settings_in(tmp_path / "there")
    restore(there, tmp_path / "before")
    with pytest.raises(StorageError) as caught:
        restore(index, tmp_path / "before", replace=True)
    assert caught.value.kind == "schema-newer"


# In place of another index ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_an_index_that_is_there_stays_unless_it_is_to_be_replaced(
    backup: Path, home: Home, kind: str
) -> None:
    there = home(kind)
    plant(there, [field(1), field(2)])
    before = rows_of(there)
    with pytest.raises(InvalidInputError, match="--replace") as caught:
        restore(there, backup)
    assert caught.value.kind == "index-exists"
    assert rows_of(there) == before


def test_generations_that_no_database_names_stay_too(backup: Path, tmp_path: Path) -> None:
    there = settings_in(tmp_path / "there")
    (there.generations_dir / "3").mkdir(parents=True)
    (there.generations_dir / "3" / "precious").touch()
    with pytest.raises(InvalidInputError, match="holds generations"):
        restore(there, backup)
    assert (there.generations_dir / "3" / "precious").exists()
    assert not (there.data_dir / "parcelle.db").exists()


def without_numbers(answers: str, numbers: dict[int, int]) -> Any:  # noqa: ANN401 - JSON
    """Answers whose generations and clusterings bear the numbers that they get."""

    def renumber(value: Any) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, list):
            return [renumber(one) for one in value]
        if isinstance(value, dict):
            return {
                name: numbers[one] if name == "generation" else renumber(one)
                for name, one in value.items()
                if name != "clustering"
            }
        return value

    return renumber(json.loads(answers))


@pytest.mark.parametrize("kind", BOTH)
def test_a_service_that_is_open_answers_from_the_replaced_index_at_once(
    planted: Settings, backup: Path, home: Home, kind: str
) -> None:
    there = home(kind)
    # The same numbers for other things: the next generation, other vectors, other clusters.
    for number in range(3):
        plant(there, [field(one, seed=5) for one in range(6 + number)])
    make_clusters(there, "fields", k=2)
    with searching(there) as service:
        assert len(service.similar_by_id("field-05", k=50).matches) == 7
        service.clusters("fields")
        service.queryables("fields")
        done = restore(there, backup, replace=True)
        assert done.replaced
        found = service.similar_by_id("field-05", collection="fields", k=50)
        clusters = service.clusters("fields")
        names = service.collections()
    with searching(planted) as expected:
        wanted = expected.similar_by_id("field-05", collection="fields", k=50)
        assert [match.to_dict() for match in found.matches] == [
            match.to_dict() for match in wanted.matches
        ]
        assert [one.to_dict() for one in clusters.clusters] == [
            one.to_dict() for one in expected.clusters("fields").clusters
        ]
        assert [one.name for one in names] == [one.name for one in expected.collections()]
    old = [one["generation"] for one in Description.read(backup).generations]
    numbers = dict(zip(old, done.generations, strict=True))
    assert min(done.generations) > 3
    assert without_numbers(answers_of(there), {n: n for n in done.generations}) == without_numbers(
        answers_of(planted), numbers
    )
    assert sorted(int(path.name) for path in there.generations_dir.iterdir()) == done.generations
    # And goes on: what is committed next is found, and published.
    plant(there, [field(30)], publish=False)
    with searching(there) as service:
        assert "field-30" in [
            match.parcel_id
            for match in service.similar_by_id("field-05", collection="fields", k=50).matches
        ]


def test_an_index_from_before_the_log_replaces_another(tmp_path: Path, index: Settings) -> None:
    here = settings_in(tmp_path / "here")
    plant(here, [field(number) for number in range(4)])
    _forget_log(here)
    back_up(here, tmp_path / "backup")
    with searching(index) as service:
        service.similar_by_id("field-05", collection="fields")
        restore(index, tmp_path / "backup", replace=True)
        assert len(service.similar_by_id("field-01").matches) == 3
        plant(index, [field(9)], publish=False)
        assert len(service.similar_by_id("field-01").matches) == 4


def _forget_log(settings: Settings) -> None:
    """Leave an index as versions before the log of changes wrote it."""
    with opened(settings) as engine:
        with engine.begin() as connection:
            number, manifest = connection.execute(select(Generation.id, Generation.manifest)).one()
            del manifest["last_change"]
            connection.execute(update(Generation).values(manifest=manifest))
        downgrade(engine, "0003")
    path = settings.generations_dir / str(number) / "manifest.json"
    path.write_text(json.dumps(manifest))


def test_nothing_is_restored_while_another_command_writes(backup: Path, index: Settings) -> None:
    before = answers_of(index)
    with only_writer(index, doing="reindex"), pytest.raises(ConflictError) as caught:
        restore(index, backup, replace=True)
    assert caught.value.kind == "reindex-running"
    assert answers_of(index) == before


@matter_of_sqlite("its write-ahead log is a file beside it")
def test_the_log_of_a_deleted_file_is_not_taken_for_the_restored_one(
    planted: Settings, backup: Path, index: Settings
) -> None:
    database = index.data_dir / "parcelle.db"
    with opened(index) as engine, engine.begin() as connection:
        # Open, so that the log is not brought into the file.
        with engine.begin() as writing:
            writing.execute(text("UPDATE parcels SET crop_name = 'weeds'"))
        connection.execute(select(func.count()).select_from(Generation))
        log = database.with_name("parcelle.db-wal").read_bytes()
    assert b"weeds" in log
    database.unlink()
    database.with_name("parcelle.db-wal").write_bytes(log)
    restore(index, backup, replace=True)
    rows = rows_of(index)
    assert {row["crop_name"] for row in rows["parcels"]} == {"wheat", "maïs", None}
    assert rows["parcels"] == rows_of(planted)["parcels"]


# Weights ------------------------------------------------------------------------------------------


def test_weights_of_an_encoder_of_ones_own_come_along_and_others_are_named(
    index: Settings, tmp_path: Path
) -> None:
    own = tmp_path / "own.pt"
    own.write_bytes(b"weights of one's own")
    digest = hashlib.sha256(b"weights of one's own").hexdigest()
    with opened(index) as engine, engine.begin() as connection:
        row = connection.scalar(select(func.min(EmbeddingSpace.id)))
        recipe = {
            **{"wavelengths_um": [], "fwhm_um": [], "bands": [], "encoder": "simple-vit"},
            "weights": {"kind": "trained", "digest": digest},
        }
        connection.execute(
            update(EmbeddingSpace)
            .where(EmbeddingSpace.id == row)
            .values(recipe=recipe, weights_path=str(own))
        )
    made = back_up(index, tmp_path / "backup")
    assert made.weights == {digest: f"weights/{digest[:16]}.pt"}
    own.write_bytes(b"another file by now")
    there = settings_in(tmp_path / "there")
    restore(there, tmp_path / "backup")
    with opened(there) as engine, engine.connect() as connection:
        path = connection.scalar(
            select(EmbeddingSpace.weights_path).where(EmbeddingSpace.id == row)
        )
    assert path is not None
    assert Path(path).is_relative_to(there.data_dir)
    assert Path(path).read_bytes() == b"weights of one's own"
    # The file that is there now is none of the index's.
    again = back_up(index, tmp_path / "again")
    assert again.weights == {}
    assert any("there is another file there now" in one for one in again.left_out)
    own.unlink()
    missing = back_up(index, tmp_path / "missing")
    assert any("No such file" in one for one in missing.left_out)


def test_weights_of_croma_are_named_as_left_out(backup: Path) -> None:
    assert any("croma-large, aaaaaaaaaaaa" in one for one in Description.read(backup).left_out)
