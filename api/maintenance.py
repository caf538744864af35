"""What a service does by itself: clear away, and have the index built anew when it should be.

At its start it removes what a process left that was killed while it published. An index should be
built anew when much was committed since, when its recall has fallen, or when a file turns out to be
damaged. The work is done by a process of its own, of low priority: whoever asks meanwhile is
answered, from the former generation and what was committed since. Whatever ends that process,
nothing is lost.
"""

import asyncio
import fcntl
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.settings import ApiSettings
from indexer.catalog.changes import snapshot
from indexer.errors import ConflictError, ParcelleError, StorageError
from indexer.generations.backends import backend_of
from indexer.generations.compaction import (
    due_spaces,
    most_changes,
    searched_generations,
    standing_of,
)
from indexer.generations.damage import has_unread_files
from indexer.generations.recovery import leftovers, recover
from indexer.lock import only_writer

KEEPER_FILE: Final = "compaction.lock"

_PROGRAM: Final = "import os, sys; os.nice(10); from api.cli import main; main(sys.argv[1:])"
_BUSY: Final = "[reindex-running]"
_DAMAGED: Final = "[generation-corrupt]"
_LONGEST_END_S: Final = 5
_AFTER_FAILURE_S: Final = 600
_TOLD_CHARACTERS: Final = 1000

_log = logging.getLogger(__name__)


@asynccontextmanager
async def compacting(settings: ApiSettings, engine: Callable[[], Engine]) -> AsyncIterator[None]:
    """Look now and then whether the index should be built anew, and have it done.

    Args:
        settings: How often, and where the index is.
        engine: Gives the catalog, or raises a ``StorageError`` where there is none yet.
    """
    await run_in_threadpool(_clear_away, settings, engine)
    if not settings.compact_every_s:
        yield
        return
    task = asyncio.create_task(_Keeper(settings, engine).keep())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _clear_away(settings: ApiSettings, engine: Callable[[], Engine]) -> None:
    """Remove what is left of publications that did not take place, unless somebody writes."""
    folder = settings.generations_dir
    try:
        # Most of the time there is nothing, and nobody should find the index locked because of it.
        if leftovers(engine(), folder).discarded:
            with only_writer(settings, engine(), doing="serve"):
                recover(engine(), folder, backend_of(settings))
    except ConflictError as error:
        _log.debug("Nothing is cleared away: %s", error)
    except (ParcelleError, SQLAlchemyError) as error:
        # There may be no database yet, or a disk that is only to be read.
        _log.info("Nothing is cleared away: %s", error)


class _Keeper:
    """Looks after the index, as one of the processes that serve it."""

    def __init__(self, settings: ApiSettings, engine: Callable[[], Engine]) -> None:
        self._settings = settings
        self._engine = engine
        self._measured: set[int] = set()
        """Generations whose recall was measured on the way to their compaction."""
        self._read: set[int] = set()
        """Generations of which a process has read the files that opening only compares in size."""

    async def keep(self) -> None:
        """Look for ever."""
        with ExitStack() as held:
            alone = False
            while True:
                await asyncio.sleep(self._settings.compact_every_s)
                alone = alone or _is_alone(self._settings.data_dir, held)
                if alone:
                    await self._look()

    async def _look(self) -> None:
        try:
            arguments = await run_in_threadpool(self._wanted)
            if arguments is not None:
                await self._have_compacted(arguments)
        except StorageError as error:
            # As long as there is no database; requests are told the same.
            _log.info("No look at the index: %s", error)
        except (ParcelleError, SQLAlchemyError, OSError) as error:
            _log.warning("The index could not be looked after: %s", error)

    def _wanted(self) -> list[str] | None:
        """Arguments of the command that should run; None where nothing is to be done."""
        engine, folder = self._engine(), self._settings.generations_dir
        if due_spaces(engine, folder, backend_of(self._settings)):
            return ["--if-due"]
        unread = self._unread(engine)
        if not unread <= self._read:
            self._read |= unread
            return ["--if-due", "--read"]
        halfway = self._halfway(engine, folder)
        if halfway <= self._measured:
            return None
        self._measured |= halfway
        return ["--if-due", "--verify"]

    def _unread(self, engine: Engine) -> set[int]:
        """Generations with files so large that a flipped bit is not noticed at opening."""
        with snapshot(engine) as connection:
            return {
                manifest.generation
                for _, manifest in searched_generations(connection)
                if has_unread_files(manifest)
            }

    def _halfway(self, engine: Engine, folder: Path) -> set[int]:
        """Generations of which half as much has changed as makes them due."""
        with snapshot(engine) as connection:
            return {
                manifest.generation
                for space_id, manifest in searched_generations(connection)
                if 2 * standing_of(connection, folder, space_id, manifest).changed
                > most_changes(manifest.rows)
            }

    async def _have_compacted(self, arguments: list[str]) -> None:
        """Run ``parcelle generations compact``; end it if the service ends."""
        command = [sys.executable, "-P", "-c", _PROGRAM, "generations", "compact", *arguments]
        with tempfile.TemporaryFile() as told:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=told,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                code = await process.wait()
            finally:
                await _end(process)
            told.seek(0)
            said = told.read().decode(errors="replace").strip()
        self._tell_damage(said, done=code == 0)
        if code == 0:
            _log.info("Compacted: %s", said.rpartition("\n")[2])
        elif _BUSY in said:
            _log.debug("Somebody else writes; the index is compacted later.")
        else:
            _log.warning("Compaction ended with code %s: %s", code, said[-_TOLD_CHARACTERS:])
            # A disk that is full will be for a while.
            await asyncio.sleep(_AFTER_FAILURE_S)

    def _tell_damage(self, said: str, *, done: bool) -> None:
        """Log which files were found damaged; look at them again if they still are."""
        for line in said.splitlines():
            if _DAMAGED in line:
                _log.warning("The index is damaged%s: %s", ", and built anew" * done, line)
                if not done:
                    self._read.clear()

    def _environment(self) -> dict[str, str]:
        """Of the process, which may not find these settings in ours."""
        return os.environ | {
            "PARCELLE_DATA_DIR": str(self._settings.data_dir),
            "PARCELLE_DATABASE_URL": self._settings.database_url,
            "PARCELLE_INDEX_MEMORY": self._settings.index_memory,
            "PARCELLE_VECTOR_BACKEND": self._settings.vector_backend,
            "PARCELLE_MILVUS_URI": self._settings.milvus_uri,
            "PARCELLE_MILVUS_TOKEN": self._settings.milvus_token.get_secret_value(),
            # Its threads wait by turning in circles, which takes time from those who are asked:
            # on a busy machine a build of 5 seconds took 18.
            "OPENBLAS_NUM_THREADS": "1",
        }


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have a process end that has not yet; what it was building is cleared away by the next."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _LONGEST_END_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _is_alone(data_dir: Path, held: ExitStack) -> bool:
    """Whether no other process looks after the index; none will while ``held`` is open."""
    try:
        file = (data_dir / KEEPER_FILE).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
    except OSError as error:
        # There is no such folder yet, or nothing may be written to it.
        _log.info("%s cannot be looked after: %s", data_dir, error)
        return False
    held.enter_context(file)
    return True
