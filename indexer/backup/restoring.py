"""Brings an index back from a backup: into an empty place, or in place of another index.

Nothing counts before all files of the backup are copied, compared with their digests and on the
disk. Then the published indexes are renamed to where they belong, and last of all the catalog
switches: a SQLite file that is not there yet by one rename, any other database by one transaction.
So a service that runs meanwhile sees the former index, or the restored one. A SQLite file that is
there is never replaced: services have it, and its write-ahead log, open.
"""

import errno
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, bindparam, func, make_url, select, text, update
from sqlalchemy.exc import DBAPIError

from indexer.backup.description import (
    CATALOG_FILE,
    GENERATIONS,
    WEIGHTS,
    Description,
    corrupt,
    newer,
)
from indexer.backup.files import UNIT, copy, not_written, require_space, steps
from indexer.backup.tables import (
    AS_IT_IS,
    Renumbering,
    copy_rows,
    count_rows,
    delete_rows,
    last_numbers,
    replacing,
)
from indexer.catalog.changes import snapshot
from indexer.catalog.database import (
    connect,
    database_exists,
    require_current_schema,
    schema_status,
    unreachable,
    upgrade,
)
from indexer.catalog.tables import Collection, EmbeddingSpace, Generation
from indexer.errors import InvalidInputError, ParcelleError
from indexer.generations.files import (
    PLACED_FILE,
    RESTORING,
    flush_file,
    flush_folder,
    make_folder,
    placed_by_restore,
    remove_generations,
    write_durably,
)
from indexer.generations.manifest import MANIFEST_FILE
from indexer.lock import Held, only_writer
from indexer.progress import Progress, Silent
from indexer.settings import Settings

_NOTHING_RESTORED: Final = "Nothing was restored; what was there goes on."


@dataclass(frozen=True)
class Restored:
    """What was brought back."""

    description: Description
    database: str
    """Where to, without a password."""
    generations: list[int]
    """Their numbers now."""
    replaced: bool
    """Whether another index made room."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "database": self.database,
            "replaced": self.replaced,
            "generations": self.generations,
            "counts": self.description.counts,
            "created_at": self.description.created_at,
            "revision": self.description.revision,
            "left_out": self.description.left_out,
        }


def restore(
    settings: Settings, folder: Path, *, replace: bool = False, progress: Progress | None = None
) -> Restored:
    """Bring back what a backup holds, into whatever database the settings name.

    In an empty place all numbers stay as they were. In place of another index, generations,
    clusterings and changes are numbered above those that were there, so that nobody who remembers
    a number takes one for the other.

    Args:
        settings: Where data and database are to be.
        folder: The backup.
        replace: Whether an index that is there makes room.
        progress: Is told how far the work has come.

    Raises:
        InvalidInputError: If the folder is no backup (``no-backup``), or an index is there
            (``index-exists``).
        ConflictError: If another process writes (``reindex-running``).
        StorageError: If the backup is damaged (``backup-corrupt``) or a later version's
            (``backup-newer``), or what it holds cannot be written (``write-failed``,
            ``disk-full``, ``database-unreachable``).
    """
    folder = folder.absolute()
    description = Description.read(folder)
    progress = progress or Silent()
    # Nothing is made before everything is known to be in order.
    engine = connect(settings) if database_exists(settings) else None
    try:
        with only_writer(settings, engine, doing="restore") as held:
            return _Restoration(settings, engine, held, folder, description, progress).run(replace)
    except OSError as error:
        raise not_written(error, settings.data_dir, _NOTHING_RESTORED) from error
    except DBAPIError as error:
        raise unreachable(error) from error
    finally:
        if engine is not None:
            engine.dispose()


class _Restoration:
    """The state of one restore on its way from files to a catalog."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine | None,
        held: Held,
        folder: Path,
        description: Description,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.engine = engine
        """None where a SQLite file is to be made."""
        self.held = held
        self.folder = folder
        self.description = description
        self.progress = progress
        self.generations = settings.generations_dir
        self.aside = self.generations / RESTORING

    def run(self, replace: bool) -> Restored:
        """Do all of it."""
        self._clear_away_what_was_left()
        there = self._is_there()
        if there is not None and not replace:
            raise InvalidInputError(
                f"{there}. parcelle restore --replace puts the backup in its place; or restore "
                "into another PARCELLE_DATA_DIR and PARCELLE_DATABASE_URL.",
                kind="index-exists",
            )
        rows = 1 if self.engine is None else 3
        catalog = int(self.description.files[CATALOG_FILE]["bytes"])
        wanted = self.description.total_bytes + rows * catalog
        require_space(self.settings.data_dir, wanted, "What is restored")
        make_folder(self.generations)
        self.aside.mkdir()
        try:
            self._copy_files()
            with self._staged() as staged:
                renumbering = AS_IT_IS if there is None else self._renumbering()
                self._place_weights(staged)
                placed = self._place_generations(staged, renumbering)
                if self.engine is not None:
                    self._fill(self.engine, staged, renumbering)
                elif renumbering != AS_IT_IS:
                    self._fill_new(staged, renumbering)
            if self.engine is None and renumbering == AS_IT_IS:
                self._place_catalog()
            remove_generations(self.generations, self._numbers() - set(placed))
        except BaseException:
            self._clear_away_after_failure()
            raise
        shutil.rmtree(self.aside, ignore_errors=True)
        url = make_url(self.settings.resolved_database_url)
        return Restored(
            self.description,
            url.render_as_string(hide_password=True),
            placed,
            replaced=there is not None,
        )

    # What is there ---------------------------------------------------------------------------

    def _clear_away_what_was_left(self) -> None:
        """Remove what a restore left that was killed before the catalog knew of it."""
        placed = placed_by_restore(self.generations)
        remove_generations(self.generations, placed - self._known())
        if self.aside.exists():
            shutil.rmtree(self.aside)

    def _clear_away_after_failure(self) -> None:
        """Leave nothing; a server may still commit, so there the next writer asks what it did."""
        if self.engine is not None and self.engine.dialect.name != "sqlite":
            if placed_by_restore(self.generations):
                return
        with suppress(ParcelleError, DBAPIError, OSError):
            self._clear_away_what_was_left()

    def _known(self) -> set[int]:
        """Generations that the catalog names, as far as there is one by now."""
        if not database_exists(self.settings):
            return set()
        engine = self.engine or connect(self.settings)
        try:
            if schema_status(engine) == "empty":
                return set()
            with engine.connect() as connection:
                return set(connection.scalars(select(Generation.id)))
        finally:
            if engine is not self.engine:
                engine.dispose()

    def _is_there(self) -> str | None:
        """What would have to make room, as a sentence without an end; None for an empty place."""
        if self.engine is not None:
            status = schema_status(self.engine)
            if status == "newer":
                require_current_schema(self.engine)
            if status != "empty":
                with self.engine.connect() as connection:
                    names = connection.scalars(select(Collection.name)).all()
                    spaces = connection.scalar(select(func.count()).select_from(EmbeddingSpace))
                if names or spaces:
                    shown = self.engine.url.render_as_string(hide_password=True)
                    return f"The database {shown} holds an index of {len(names)} collections"
        if self._numbers():
            return f"{self.generations} holds generations"
        return None

    def _numbers(self) -> set[int]:
        """Of the generations whose folders are there."""
        if not self.generations.is_dir():
            return set()
        names = [path.name for path in self.generations.iterdir()]
        return {int(name) for name in names if name.isascii() and name.isdecimal()}

    def _renumbering(self) -> Renumbering:
        folders = max(self._numbers(), default=0)
        if self.engine is None or schema_status(self.engine) == "empty":
            return Renumbering(generations=folders)
        with self.engine.connect() as connection:
            last = last_numbers(connection)
        return Renumbering(
            generations=max(folders, last.get("generations", 0)),
            changes=last.get("changes", 0),
            clusterings=last.get("clusterings", 0),
        )

    # Copying ---------------------------------------------------------------------------------

    def _copy_files(self) -> None:
        """Copy the backup, and compare it with what it says of itself."""
        files = self.description.files
        self.progress.start("copying files", steps(one["bytes"] for one in files.values()), UNIT)
        try:
            for name, known in files.items():
                self._copy(name, known)
        finally:
            self.progress.finish()
        for path in [self.aside, *self.aside.rglob("*")]:
            if path.is_dir():
                flush_folder(path)

    def _copy(self, name: str, known: dict[str, Any]) -> None:
        source, target = self.folder / name, self.aside / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = source.stat().st_size
            same = None if found != known["bytes"] else copy(source, target, self.progress.advance)
        except OSError as error:
            if error.filename != str(source):
                raise
            raise corrupt(source, f"cannot be read ({error.strerror})") from error
        if same is None:
            raise corrupt(source, f"has {found} bytes, but {known['bytes']} were written")
        if same["sha256"] != known["sha256"]:
            raise corrupt(
                source,
                f"is damaged: SHA-256 is {same['sha256'][:12]}…, not {known['sha256'][:12]}…",
            )

    @contextmanager
    def _staged(self) -> Iterator[Engine]:
        """The copy of the catalog, with this version's schema; one file of it is left."""
        path = self.aside / CATALOG_FILE
        staged = connect(self.settings.model_copy(update={"database_url": f"sqlite:///{path}"}))
        try:
            status = schema_status(staged)
            if status == "newer":
                raise newer(self.folder, self.description.versions)
            if status == "empty":
                raise corrupt(self.folder / CATALOG_FILE, "holds no catalog")
            if status == "outdated":
                upgrade(staged)
            yield staged
        finally:
            staged.dispose()

    # Putting in place ------------------------------------------------------------------------

    def _place_weights(self, staged: Engine) -> None:
        """Put weight files into the data folder, and note where they are now."""
        if not self.description.weights:
            return
        home = (self.settings.data_dir / WEIGHTS).absolute()
        make_folder(home)
        places = {}
        for digest, name in self.description.weights.items():
            place = home / Path(name).name
            # Named by its content: what is there is the same.
            (self.aside / name).replace(place)
            places[digest] = str(place)
        flush_folder(home)
        table = EmbeddingSpace
        with staged.begin() as connection:
            found = connection.execute(select(table.id, table.recipe)).all()
            moved = [
                {"row": row, "path": places[recipe["weights"]["digest"]]}
                for row, recipe in found
                if recipe["weights"]["digest"] in places
            ]
            statement = update(table).where(table.id == bindparam("row"))
            connection.execute(statement.values(weights_path=bindparam("path")), moved)

    def _place_generations(self, staged: Engine, renumbering: Renumbering) -> list[int]:
        """Put indexes where a service looks for them once the catalog names them."""
        with staged.connect() as connection:
            rows = connection.execute(select(Generation.id, Generation.manifest))
            manifests = {row.id: row.manifest for row in rows}
        wanted = [int(one["generation"]) for one in self.description.generations]
        placed = [number + renumbering.generations for number in wanted]
        write_durably(self.aside / PLACED_FILE, json.dumps(placed).encode())
        flush_folder(self.aside)
        for number, place in zip(wanted, placed, strict=True):
            folder = self.aside / GENERATIONS / str(number)
            if renumbering != AS_IT_IS:
                manifest = renumbering.manifest(manifests[number])
                write_durably(
                    folder / MANIFEST_FILE, (json.dumps(manifest, indent=2) + "\n").encode()
                )
            folder.rename(self.generations / str(place))
        flush_folder(self.generations)
        return placed

    def _fill(self, engine: Engine, staged: Engine, renumbering: Renumbering) -> None:
        """Replace all rows of a database, in one transaction."""
        if schema_status(engine) in ("empty", "outdated"):
            upgrade(engine)
        with snapshot(staged) as source, replacing(engine) as target:
            self.held.still_held(target)
            delete_rows(target)
            total = sum(count_rows(source).values())
            self.progress.start("writing the catalog", total, "rows")
            try:
                copy_rows(source, target, renumbering, self.progress.advance)
            finally:
                self.progress.finish()
            if engine.dialect.name == "postgresql":
                # Or the first searches would be planned for empty tables.
                target.execute(text("ANALYZE"))

    def _fill_new(self, staged: Engine, renumbering: Renumbering) -> None:
        """Fill a new SQLite file, where indexes are left of one that is gone."""
        self._prepare_place()
        made = connect(self.settings)
        try:
            self._fill(made, staged, renumbering)
        finally:
            made.dispose()

    def _prepare_place(self) -> Path:
        """Where the database is to be, with nothing there that belongs to another."""
        database = Path(make_url(self.settings.resolved_database_url).database or "")
        make_folder(database.parent)
        # Left by a file that somebody deleted; SQLite would take them for the new one's.
        for ending in ("-wal", "-shm", "-journal"):
            database.with_name(database.name + ending).unlink(missing_ok=True)
        self.held.still_held()
        if database.exists():
            raise InvalidInputError(
                f"{database} was made meanwhile; parcelle restore --replace fills it.",
                kind="index-exists",
            )
        return database

    def _place_catalog(self) -> None:
        """Make the copy of the catalog the database."""
        staged = self.aside / CATALOG_FILE
        _leave_one_file(staged)
        database = self._prepare_place()
        try:
            staged.rename(database)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            beside = database.with_name(f".{database.name}.restoring")
            beside.unlink(missing_ok=True)
            copy(staged, beside, lambda _: None)
            beside.rename(database)
        flush_folder(database.parent)


def _leave_one_file(path: Path) -> None:
    """Bring the write-ahead log of a SQLite file into it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    flush_file(path)
