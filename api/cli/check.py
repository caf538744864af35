"""``parcelle check``: is everything as it should be?"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from api.cli import options
from api.cli.console import say, say_json
from indexer.errors import ParcelleError
from indexer.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

_LOW_DISK_BYTES = 1 << 30


def check(as_json: options.AsJson = False) -> None:
    """Examine database, schema, generations, weights and disk; exit code 1 if anything is wrong.

    For example:

      parcelle check --json
    """
    settings = Settings()
    results = [{"name": name, "ok": ok, "detail": detail} for name, ok, detail in examine(settings)]
    good = all(result["ok"] for result in results)
    if as_json:
        say_json({"ok": good, "checks": results})
    else:
        for result in results:
            say(f"{'ok    ' if result['ok'] else 'FAILED'}  {result['name']}: {result['detail']}")
    if not good:
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    """Each check's name, whether it passed, and what was found."""
    from indexer.catalog.database import connect, database_exists, require_current_schema

    yield _disk(settings)
    if not database_exists(settings):
        yield "database", False, f"{settings.resolved_database_url} is not there; run reindex"
        return
    try:
        engine = connect(settings)
    except ParcelleError as error:
        yield "database", False, error.message
        return
    try:
        yield "database", True, engine.url.render_as_string(hide_password=True)
        require_current_schema(engine)
        yield "schema", True, "current"
        yield from _generations(settings, engine)
        yield from _own_encoders(engine)
    except ParcelleError as error:
        yield "schema", False, error.message
        return
    finally:
        engine.dispose()
    yield _croma_weights(settings)


def _disk(settings: Settings) -> tuple[str, bool, str]:
    folder = settings.data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return "disk", free >= _LOW_DISK_BYTES, f"{free / (1 << 30):.1f} GiB free at {folder}"


def _generations(settings: Settings, engine: "Engine") -> Iterator[tuple[str, bool, str]]:
    from indexer.catalog.changes import snapshot
    from indexer.catalog.reading import get_generation
    from indexer.generations.compaction import standing_of
    from indexer.generations.manifest import Manifest
    from indexer.generations.store import check_files, open_generation
    from retriever.statements import published_spaces

    with snapshot(engine) as connection:
        published = published_spaces(connection)
        if not published:
            yield "generations", False, "none is published; run parcelle reindex"
        for space_id, number in published:
            name = f"generation {number}"
            manifest = Manifest.from_dict(get_generation(connection, number))
            try:
                check_files(settings.generations_dir, manifest)
                index, _ = open_generation(settings.generations_dir, manifest)
                since = standing_of(connection, settings.generations_dir, space_id, manifest)
            except ParcelleError as error:
                yield name, False, error.message
                continue
            if index.rows != manifest.rows:
                yield name, False, f"{index.rows} vectors, {manifest.rows} were published"
            else:
                moved = f", {since.rows} added and {since.removed} removed since"
                yield (
                    name,
                    True,
                    f"{index.rows} vectors, digests as published, space "
                    f"{manifest.space_digest[:12]}{moved if since.changed else ''}",
                )


def _own_encoders(engine: "Engine") -> Iterator[tuple[str, bool, str]]:
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
            yield (
                name,
                False,
                f"{path} is not there, so no image can ask; put it back, or reindex with "
                f"--encoder {encoder}:FILE, which embeds nothing again",
            )
        elif sha256_of(path) != digest:
            yield name, False, f"{path} is another file now; put the former one back"
        else:
            yield name, True, f"{path}, as the index was made with"


def _croma_weights(settings: Settings) -> tuple[str, bool, str]:
    from indexer.encoders.weights import is_at_hand

    found = is_at_hand(settings.croma_weights)
    detail = f"PARCELLE_CROMA_WEIGHTS={settings.croma_weights}"
    if not found:
        detail += ": not on this machine yet; CROMA cannot embed images until it is"
    return "weights", True, detail
