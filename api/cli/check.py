"""``parcelle check``: is everything as it should be?"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from api.cli import options
from api.cli.console import say, say_json
from indexer.errors import ParcelleError
from indexer.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

_LOW_DISK_BYTES = 1 << 30


@dataclass(frozen=True)
class Found:
    """What one check found."""

    name: str
    ok: bool
    detail: str
    warning: bool = False
    """It works, but somebody should look after it."""

    @property
    def mark(self) -> str:
        """In front of its line."""
        if not self.ok:
            return "FAILED"
        return "look  " if self.warning else "ok    "

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        told = {"name": self.name, "ok": self.ok, "detail": self.detail}
        return told | ({"warning": True} if self.warning else {})


def check(as_json: options.AsJson = False) -> None:
    """Examine database, schema, generations, weights, disk and settings.

    The exit code is 1 if anything is wrong. What only should be looked after is marked; it changes
    no exit code.

    For example:

      parcelle check --json
    """
    results = list(examine(Settings()))
    good = all(result.ok for result in results)
    if as_json:
        say_json({"ok": good, "checks": [result.to_dict() for result in results]})
    else:
        for result in results:
            say(f"{result.mark}  {result.name}: {result.detail}")
    if not good:
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Found]:
    """What each check found, one after the other."""
    yield _disk(settings)
    yield _rasters()
    yield _keys()
    yield from _database(settings)
    yield _croma_weights(settings)


def _database(settings: Settings) -> Iterator[Found]:
    from indexer.catalog.database import connect, database_exists, require_current_schema

    try:
        if not database_exists(settings):
            yield Found(
                "database",
                False,
                f"{settings.resolved_database_url} is not there; run parcelle reindex, or point "
                "PARCELLE_DATA_DIR or PARCELLE_DATABASE_URL at the right one",
            )
            return
        engine = connect(settings)
    except ParcelleError as error:
        yield Found("database", False, error.message)
        return
    try:
        yield Found("database", True, engine.url.render_as_string(hide_password=True))
        yield _integrity(engine)
        require_current_schema(engine)
        yield Found("schema", True, "current")
        yield _writer(settings, engine)
        yield from _milvus(settings, engine)
        yield from _generations(settings, engine)
        yield _leftovers(settings, engine)
        yield from _own_encoders(engine)
    except ParcelleError as error:
        name = "schema" if error.kind.startswith("schema") else "catalog"
        yield Found(name, False, error.message)
    finally:
        engine.dispose()


def _disk(settings: Settings) -> Found:
    folder = settings.data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Found("disk", free >= _LOW_DISK_BYTES, f"{free / (1 << 30):.1f} GiB free at {folder}")


def _integrity(engine: "Engine") -> Found:
    """Whether the pages of a SQLite file fit together, and its rows name each other."""
    name = "integrity"
    if engine.dialect.name != "sqlite":
        return Found(name, True, "left to the database server")
    try:
        with engine.connect() as connection:
            told = connection.exec_driver_sql("PRAGMA quick_check(3)").scalars().all()
            orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(3)
    except ParcelleError as error:
        return Found(name, False, error.message)
    if list(told) != ["ok"]:
        file, said = engine.url.database, "; ".join(told)
        todo = "move that file away, then restore a backup: parcelle restore DIR --replace"
        return Found(name, False, f"{file} is damaged ({said}); {todo}")
    if orphans:
        tables = ", ".join(sorted({str(row[0]) for row in orphans}))
        return Found(name, False, f"rows of {tables} belong to rows that are not there")
    return Found(name, True, "pages and references fit together")


def _writer(settings: Settings, engine: "Engine") -> Found:
    from indexer.lock import find_writer

    writer = find_writer(settings, engine)
    return Found("writer", True, "nobody writes" if writer is None else f"now {writer}")


def _milvus(settings: Settings, engine: "Engine") -> Iterator[Found]:
    """Whether the server that is to hold the vectors answers, and has those that are kept."""
    if settings.vector_backend != "milvus":
        return
    from indexer.catalog.reading import generation_records
    from indexer.generations.backends import check_generation
    from indexer.milvus.backend import MilvusBackend

    backend = MilvusBackend.of(settings)
    with engine.connect() as connection:
        manifests = [record.manifest for record in generation_records(connection)]
    kept = [manifest for manifest in manifests if manifest.backend == backend.name]
    try:
        version = backend.server.version
        for manifest in kept:
            check_generation(settings.generations_dir, manifest, backend, at_most=0)
    except ParcelleError as error:
        yield Found("milvus", False, error.message)
        return
    held = f"the vectors of {len(kept)} generation{'' if len(kept) == 1 else 's'}"
    yield Found("milvus", True, f"Milvus {version} at {backend.server.address} holds {held}")


def _generations(settings: Settings, engine: "Engine") -> Iterator[Found]:
    from indexer.catalog.changes import snapshot
    from indexer.generations.backends import backend_of
    from indexer.generations.compaction import searched_generations, standing_of
    from indexer.generations.files import check_files
    from indexer.generations.store import open_generation
    from indexer.generations.verification import compare_ids

    folder, backend = settings.generations_dir, backend_of(settings)
    with snapshot(engine) as connection:
        published = searched_generations(connection)
        if not published:
            yield Found("generations", False, "none is published; run parcelle reindex")
        for space_id, manifest in published:
            name = f"generation {manifest.generation}"
            try:
                check_files(folder, manifest)
                index, columns = open_generation(folder, manifest, backend)
                since = standing_of(connection, folder, space_id, manifest)
                ids = compare_ids(connection, space_id, manifest, columns)
            except ParcelleError as error:
                yield Found(name, False, error.message)
                continue
            if index.rows != manifest.rows:
                detail = f"{index.rows} vectors, {manifest.rows} were published"
                yield Found(name, False, detail)
                continue
            moved = f", {since.rows} added and {since.removed} removed since"
            detail = (
                f"{index.rows} vectors, digests as published, space {manifest.space_digest[:12]}"
                f"{moved if since.changed else ''}; {ids}"
            )
            yield Found(name, ids.agree, detail)


def _leftovers(settings: Settings, engine: "Engine") -> Found:
    from indexer.generations.recovery import leftovers
    from indexer.lock import find_writer

    name, folder = "leftovers", settings.generations_dir
    found, told = leftovers(engine, folder), []
    if found.missing:
        numbers = ", ".join(map(str, found.missing))
        told.append(f"the files of generation {numbers} are gone; run parcelle generations rebuild")
    if found.strange:
        told.append(f"nobody knows {', '.join(found.strange)}; look at it and move it away")
    if found.discarded and find_writer(settings, engine) is None:
        told.append(f"{', '.join(found.discarded)}; the next writer clears them away")
    if told:
        return Found(name, True, f"{folder}: {'. '.join(told)}", warning=True)
    return Found(name, True, "none")


def _keys() -> Found:
    """Whether the keys of the service can be read by whoever reads its settings."""
    from api.settings import ApiSettings

    name, keys = "keys", ApiSettings().api_keys
    plain = sum(key.is_plain for key in keys)
    if plain:
        detail = f"{plain} of {len(keys)} keys in PARCELLE_API_KEYS are plain text; parcelle keys "
        return Found(name, True, f"{detail}new makes one of which only a digest is kept", True)
    told = f"{len(keys)}, kept as digests" if keys else "none; only this machine may ask"
    return Found(name, True, told)


def _rasters() -> Found:
    """GDAL's drivers for what is read, and that the settings that confine it are in force."""
    import rasterio
    from rasterio.env import get_gdal_config

    from indexer.imagery.hardening import ALONE

    name = "rasters"
    with rasterio.Env(**ALONE) as environment:
        drivers = environment.drivers()
        missing = [driver for driver in ("GTiff", "JP2OpenJPEG") if driver not in drivers]
        loose = [key for key, value in ALONE.items() if str(get_gdal_config(key)) != value]
    if missing:
        return Found(name, False, f"GDAL lacks {', '.join(missing)}; install rasterio's wheel")
    if loose:
        return Found(name, False, f"GDAL does not take {', '.join(loose)}")
    version = rasterio.__gdal_version__
    return Found(name, True, f"GDAL {version} reads GeoTIFF and JPEG 2000, and no other files")


def _own_encoders(engine: "Engine") -> Iterator[Found]:
    """The files of encoders of one's own, each once: nowhere else can they be had from."""
    from indexer.catalog.reading import get_space
    from indexer.embedding_space import bands_in
    from indexer.encoders.weights import sha256_of
    from retriever.statements import published_spaces

    with engine.connect() as connection:
        spaces = [get_space(connection, space_id) for space_id, _ in published_spaces(connection)]
    files = {
        (Path(space.weights_path), space.recipe["weights"]["digest"]): space.recipe["encoder"]
        for space in spaces
        if space.weights_path is not None and bands_in(space.recipe) is not None
    }
    for (path, digest), encoder in files.items():
        name = f"encoder {encoder} {digest[:12]}"
        if not path.is_file():
            yield Found(
                name,
                False,
                f"{path} is not there, so no image can ask; put it back, or reindex with "
                f"--encoder {encoder}:FILE, which embeds nothing again",
            )
        elif sha256_of(path) != digest:
            yield Found(name, False, f"{path} is another file now; put the former one back")
        else:
            yield Found(name, True, f"{path}, as the index was made with")


def _croma_weights(settings: Settings) -> Found:
    from indexer.encoders.weights import is_at_hand

    found = is_at_hand(settings.croma_weights)
    detail = f"PARCELLE_CROMA_WEIGHTS={settings.croma_weights}"
    if not found:
        detail += ": not on this machine yet; CROMA cannot embed images until it is"
    return Found("weights", True, detail, warning=not found)
