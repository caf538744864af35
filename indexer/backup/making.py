"""Writes a backup of an index that is in use; nobody who reads or writes it waits."""

import fcntl
import importlib.metadata
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import DBAPIError

from indexer.backup.description import (
    CATALOG_FILE,
    DESCRIPTION_FILE,
    GENERATIONS,
    WEIGHTS,
    Description,
)
from indexer.backup.files import UNIT, copy, not_written, require_space, steps
from indexer.backup.tables import copy_rows, count_rows
from indexer.catalog.changes import snapshot
from indexer.catalog.database import (
    connect,
    database_exists,
    open_catalog,
    require_current_schema,
    schema_status,
    unreachable,
    upgrade,
)
from indexer.catalog.tables import Base, Generation
from indexer.embedding_space import bands_in
from indexer.errors import InvalidInputError, StorageError
from indexer.generations.files import (
    corrupt,
    digest_of,
    flush_file,
    flush_folder,
    write_durably,
)
from indexer.generations.manifest import MANIFEST_FILE, Manifest
from indexer.progress import Progress, Silent
from indexer.settings import Settings

_ATTEMPTS: Final = 5

_NOTHING_WRITTEN: Final = "No backup was written."

_INSTRUCTIONS: Final = 100_000
"""Of SQLite's machine, between two looks at how far it has come."""


class _Pruned(Exception):
    """A generation was pruned while it was copied."""


@dataclass(frozen=True)
class _Found:
    """What the catalog of a backup says, whatever version's it is."""

    revision: str
    counts: dict[str, int]
    manifests: dict[int, Manifest]
    """Of all generations, by number."""
    current: set[int]
    """Those that answer."""
    spaces: list[tuple[dict[str, Any], str | None]]
    """Recipe of each space, and where its weights were last seen."""


@dataclass
class _Copied:
    """What of the files is in the backup so far."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    generations: list[int] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def back_up(settings: Settings, folder: Path, progress: Progress | None = None) -> Description:
    """Write a backup of the catalog as it is at one moment, and of its generations.

    It is written beside the folder and renamed when all of it is on the disk: whatever dies before
    leaves no backup, and what is left is removed by the next one into the same folder.

    On SQLite, the write-ahead log grows as long as the catalog is copied.

    Args:
        settings: Where data and database are.
        folder: Must be empty, or not there.
        progress: Is told how far the work has come.

    Raises:
        InvalidInputError: If something is in the folder (``folder-not-empty``), or it lies among
            the generations (``invalid-option``).
        StorageError: If the catalog cannot be read, a generation that answers is damaged
            (``generation-corrupt``), or the backup cannot be written (``write-failed``,
            ``disk-full``).
    """
    folder = folder.absolute()
    progress = progress or Silent()
    _require_outside(folder, settings)
    _require_empty(folder)
    engine = _opened(settings)
    try:
        _require_space(engine, folder)
        with _aside(folder) as aside:
            description = _write(settings, engine, aside, progress)
            aside.rename(folder)
            flush_folder(folder.parent)
    except OSError as error:
        raise not_written(error, folder, _NOTHING_WRITTEN) from error
    finally:
        engine.dispose()
    return description


def _require_outside(folder: Path, settings: Settings) -> None:
    """Refuse a place where the next writer would clear the backup away."""
    if folder.resolve().is_relative_to(settings.generations_dir.resolve()):
        raise InvalidInputError(
            f"{folder} is in the folder of the generations, where writers remove what they do not "
            f"know; name one outside of {settings.generations_dir}.",
            kind="invalid-option",
        )


def _require_empty(folder: Path) -> None:
    if os.path.ismount(folder):
        raise InvalidInputError(
            f"{folder} is where a disk is mounted, and cannot be written at once; name a folder "
            "in it.",
            kind="folder-not-empty",
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InvalidInputError(
            f"{folder} is not an empty folder; name another: each backup has a folder of its own.",
            kind="folder-not-empty",
        )


def _opened(settings: Settings) -> Engine:
    """The catalog, also of an earlier version: before an upgrade is a good time for a backup."""
    if not database_exists(settings):
        return open_catalog(settings)
    engine = connect(settings)
    try:
        if schema_status(engine) != "outdated":
            require_current_schema(engine)
    except StorageError:
        engine.dispose()
        raise
    return engine


def _require_space(engine: Engine, folder: Path) -> None:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            sizes = [
                connection.scalar(text(f"PRAGMA {name}")) for name in ("page_count", "page_size")
            ]
            size = sizes[0] * sizes[1]
        else:
            names = [table.name for table in Base.metadata.sorted_tables]
            size = connection.scalar(
                text(
                    "SELECT coalesce(sum(pg_table_size(to_regclass(name))), 0)"
                    " FROM unnest(CAST(:names AS text[])) AS name"
                ),
                {"names": names},
            )
        manifests = map(Manifest.from_dict, connection.scalars(select(Generation.manifest)))
        size += sum(manifest.bytes for manifest in manifests)
    require_space(folder.parent, int(size), "The backup")


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """An empty folder to write in, which is gone in the end unless it was renamed."""
    aside = folder.with_name(f".{folder.name}.writing")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside.mkdir(exist_ok=True)
    descriptor = os.open(aside, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidInputError(
                f"Another backup is being written to {folder}; name another folder.",
                kind="folder-not-empty",
            ) from error
        for left in list(aside.iterdir()):
            # Of one that was killed.
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield aside
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)


def _write(settings: Settings, engine: Engine, aside: Path, progress: Progress) -> Description:
    """All files of a backup."""
    copied = _Copied()
    for _ in range(_ATTEMPTS):
        (aside / CATALOG_FILE).unlink(missing_ok=True)
        created_at = datetime.now(UTC)
        _write_catalog(settings, engine, aside / CATALOG_FILE, progress)
        found = _look_into(aside / CATALOG_FILE)
        try:
            copied = _copy_generations(settings, engine, aside, found, progress)
            break
        except _Pruned:
            shutil.rmtree(aside / GENERATIONS)
    else:
        raise StorageError(
            f"Generations were pruned faster than they could be copied, {_ATTEMPTS} times; try "
            "again when less is published.",
            kind="write-failed",
        )
    _copy_weights(aside, found, copied)
    catalog = aside / CATALOG_FILE
    flush_file(catalog)
    copied.files[CATALOG_FILE] = {"bytes": catalog.stat().st_size, "sha256": digest_of(catalog)}
    description = Description(
        revision=found.revision,
        created_at=created_at.isoformat(timespec="seconds"),
        versions={"parcelle": importlib.metadata.version("parcelle")},
        database=engine.dialect.name,
        counts=found.counts,
        generations=[
            {
                "generation": number,
                "rows": found.manifests[number].rows,
                "current": number in found.current,
            }
            for number in copied.generations
        ],
        weights=copied.weights,
        left_out=copied.left_out,
        files=dict(sorted(copied.files.items())),
    )
    write_durably(aside / DESCRIPTION_FILE, description.to_json())
    flush_folder(aside)
    return description


# The catalog --------------------------------------------------------------------------------------


def _write_catalog(settings: Settings, engine: Engine, path: Path, progress: Progress) -> None:
    try:
        if engine.dialect.name == "sqlite":
            _vacuum_into(engine, path, progress)
        else:
            _copy_rows_into(settings, engine, path, progress)
    except DBAPIError as error:
        if engine.dialect.name != "sqlite" and not isinstance(error.orig, sqlite3.Error):
            raise unreachable(error) from error
        raise StorageError(
            f"{path}: the catalog cannot be copied there ({error.orig}). {_NOTHING_WRITTEN}",
            kind="disk-full" if "full" in str(error.orig) else "write-failed",
        ) from error
    finally:
        progress.finish()


def _vacuum_into(engine: Engine, path: Path, progress: Progress) -> None:
    """SQLite's own way: one read transaction, at the pace of the disk."""
    with engine.connect() as connection:
        pages, size = (
            connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("page_count", "page_size")
        )
        progress.start("copying the catalog", steps([pages * size]), UNIT)
        done = 0

        def look() -> int:
            nonlocal done
            now = steps([path.stat().st_size]) if path.exists() else 0
            progress.advance(now - done)
            done = now
            return 0

        driver: Any = connection.connection.dbapi_connection
        driver.set_progress_handler(look, _INSTRUCTIONS)
        try:
            connection.exec_driver_sql("VACUUM INTO ?", (str(path),))
            look()
        finally:
            driver.set_progress_handler(None, 0)


def _copy_rows_into(settings: Settings, engine: Engine, path: Path, progress: Progress) -> None:
    """Row by row, from one snapshot."""
    made = connect(settings.model_copy(update={"database_url": f"sqlite:///{path}"}))
    try:
        with snapshot(engine) as source:
            upgrade(made, _revision(source))
            progress.start("copying the catalog", sum(count_rows(source).values()), "rows")
            with made.connect() as target:
                # One file, of which nothing counts before all of it is flushed in the end.
                target.exec_driver_sql("PRAGMA journal_mode=OFF")
                target.exec_driver_sql("PRAGMA synchronous=OFF")
                copy_rows(source, target, advance=progress.advance)
                target.commit()
    finally:
        made.dispose()


def _revision(connection: Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or "base"


def _look_into(path: Path) -> _Found:
    """What stands in the catalog of a backup."""
    # All that is asked for here is as old as the first revision.
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        counts = {
            table.name: connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0]
            for table in Base.metadata.sorted_tables
            if table.name in tables
        }
        manifests = connection.execute("SELECT id, manifest FROM generations ORDER BY id")
        current = connection.execute(
            "SELECT current_generation_id FROM embedding_spaces"
            " WHERE id IN (SELECT space_id FROM collections)"
        )
        spaces = connection.execute("SELECT recipe, weights_path FROM embedding_spaces")
        return _Found(
            revision=revision,
            counts=counts,
            manifests={n: Manifest.from_dict(json.loads(content)) for n, content in manifests},
            current={number for (number,) in current if number is not None},
            spaces=[(json.loads(recipe), seen) for recipe, seen in spaces],
        )


# The files ----------------------------------------------------------------------------------------


def _copy_generations(
    settings: Settings, engine: Engine, aside: Path, found: _Found, progress: Progress
) -> _Copied:
    """Copy the files of all generations, and compare them with what was published."""
    copied = _Copied()
    (aside / GENERATIONS).mkdir()
    manifests = found.manifests.values()
    # And each manifest, which is small.
    sizes = [one["bytes"] for manifest in manifests for one in manifest.files.values()]
    sizes += [1 for _ in manifests]
    progress.start("copying generations", steps(sizes), UNIT)
    try:
        for number, manifest in found.manifests.items():
            try:
                files = _copy_generation(
                    settings.generations_dir, aside, manifest, progress.advance
                )
            except StorageError as error:
                if _is_pruned(engine, number):
                    raise _Pruned from error
                if number in found.current:
                    raise
                shutil.rmtree(aside / GENERATIONS / str(number), ignore_errors=True)
                copied.left_out.append(f"Generation {number}, which does not answer: {error}")
                continue
            copied.files |= files
            copied.generations.append(number)
            if manifest.backend != "faiss":
                copied.left_out.append(
                    f"The vectors of generation {number} in {manifest.backend}; after a restore, "
                    "parcelle generations rebuild puts them there again."
                )
    finally:
        progress.finish()
    flush_folder(aside / GENERATIONS)
    return copied


def _copy_generation(
    folder: Path, aside: Path, manifest: Manifest, advance: Callable[[int], None]
) -> dict[str, dict[str, Any]]:
    """Copy one generation; returns size and digest of each file by its path in the backup."""
    place, name = folder / str(manifest.generation), f"{GENERATIONS}/{manifest.generation}"
    if not manifest.files:
        raise corrupt(place, manifest, "was written by an earlier version of Parcelle")
    (aside / name).mkdir()
    files = {}
    for file, known in {**manifest.files, MANIFEST_FILE: None}.items():
        try:
            same = copy(place / file, aside / name / file, advance)
        except OSError as error:
            if error.filename != str(place / file):
                raise
            raise corrupt(
                place / file, manifest, f"cannot be read ({error.strerror or error})"
            ) from error
        if known is not None and same != {"bytes": known["bytes"], "sha256": known["sha256"]}:
            raise corrupt(place / file, manifest, "is damaged: it is not what was published")
        files[f"{name}/{file}"] = same
    flush_folder(aside / name)
    return files


def _is_pruned(engine: Engine, number: int) -> bool:
    with engine.connect() as connection:
        return connection.scalar(select(Generation.id).where(Generation.id == number)) is None


def _copy_weights(aside: Path, found: _Found, copied: _Copied) -> None:
    """Copy weight files of encoders of one's own; name those of others."""
    for recipe, seen in found.spaces:
        digest = recipe["weights"]["digest"]
        if recipe["weights"]["kind"] == "untrained" or digest in copied.weights:
            continue
        named = f"The weights of {recipe['encoder']}, {digest[:12]}, last seen at {seen}"
        if bands_in(recipe) is None or seen is None:
            copied.left_out.append(f"{named}: to be kept, or fetched again.")
            continue
        (aside / WEIGHTS).mkdir(exist_ok=True)
        name = f"{WEIGHTS}/{digest[:16]}{Path(seen).suffix}"
        try:
            same = copy(Path(seen), aside / name, lambda _: None)
        except OSError as error:
            if error.filename != seen:
                raise
            copied.left_out.append(f"{named}: {error.strerror}.")
            continue
        if same["sha256"] != digest:
            (aside / name).unlink()
            copied.left_out.append(f"{named}: there is another file there now.")
            continue
        copied.files[name] = same
        copied.weights[digest] = name
    if (aside / WEIGHTS).exists():
        flush_folder(aside / WEIGHTS)
