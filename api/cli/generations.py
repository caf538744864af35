"""``parcelle generations``: the published builds of the vector index."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options
from api.cli.console import say, say_json, say_table, tell
from indexer.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from indexer.generations.compaction import RecallNow
    from indexer.generations.manifest import Manifest, Published

app = typer.Typer(help="The published builds of the vector index.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The published builds of the vector index."""


@app.command("list")
def list_all(as_json: options.AsJson = False) -> None:
    """List the generations, latest first; those marked answer searches now.

    SINCE tells how many rows were added (+) and removed (-) since, which searches find, or leave
    out, at once; "due" marks those that a compaction should build into the index.

    For example:

      parcelle generations list --json
    """
    from indexer.catalog.changes import snapshot
    from indexer.catalog.database import opened_catalog
    from indexer.generations.compaction import published_now

    settings = Settings()
    with opened_catalog(settings) as engine, snapshot(engine) as connection:
        found = published_now(connection, settings.generations_dir)
    if as_json:
        # What the service tells of them, and the rest of the manifests.
        say_json({"generations": [one.manifest.to_dict() | one.to_dict() for one in found]})
        return
    if not found:
        say("No generation is published yet; run parcelle reindex.")
        return
    say_table(
        (
            *("", "generation", "published", "rows", "since", "nlist/nprobe", "recall@10"),
            *("imbalance", "projection", "space"),
        ),
        [_row(one) for one in found],
        right={
            *("generation", "rows", "since", "nlist/nprobe", "recall@10", "imbalance"),
            "projection",
        },
    )


def _row(one: "Published") -> tuple[str, ...]:
    manifest, kept = one.manifest, one.manifest.projection_recall_at_10
    space = manifest.space
    return (
        "*" if one.current else "",
        str(manifest.generation),
        f"{one.published_at:%Y-%m-%d %H:%M}",
        str(manifest.rows),
        _since(one),
        f"{manifest.nlist}/{manifest.nprobe}",
        f"{manifest.recall_at_10:.3f}",
        f"{manifest.imbalance:.2f}",
        "-" if kept is None else f"{kept:.3f}",
        f"{manifest.space_digest[:12]} {space['encoder']} "
        f"({space['weights']}, {space['pooling']}, {space['modality']}, {space['precision']})",
    )


def _since(one: "Published") -> str:
    since = one.since_publication
    if since is None:
        return "unreadable" if one.current else "-"
    return f"+{since['rows']} -{since['removed']}{' due' if since['due'] else ''}"


@app.command()
def rebuild() -> None:
    """Build the indexes again from the database and publish them; nothing is embedded.

    For example:

      parcelle generations rebuild
    """
    from indexer.catalog.database import opened_catalog
    from indexer.generations.store import rebuild as run
    from indexer.lock import only_writer

    settings = Settings()
    with opened_catalog(settings) as engine, only_writer(settings.data_dir):
        published = run(
            engine,
            settings.generations_dir,
            memory_bytes=settings.index_memory_bytes,
            note=_teller(),
        )
    _say_published(published)
    if not published:
        say("There are no vectors to build an index of; run parcelle reindex.")


@app.command()
def compact(
    if_due: Annotated[
        bool,
        typer.Option("--if-due", help="Only where so much has changed that searches take longer."),
    ] = False,
    verify_too: Annotated[
        bool,
        typer.Option(
            "--verify", help="Measure recall first; where it fell by a point, it is due too."
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Build what was committed since into the indexes, retrained, and publish them.

    Searches find it without, but beside the index and row by row. Whoever searches meanwhile does
    not wait. A service does the same in the background (PARCELLE_COMPACT_EVERY_S).

    For example:

      parcelle generations compact --if-due
    """
    from indexer.catalog.database import opened_catalog
    from indexer.generations.compaction import compact as run
    from indexer.lock import only_writer

    settings = Settings()
    with opened_catalog(settings) as engine:
        fallen = _fallen(engine, settings.generations_dir) if verify_too else []
        with only_writer(settings.data_dir):
            published = run(
                engine,
                settings.generations_dir,
                settings.index_memory_bytes,
                only_if_due=if_due,
                fallen=fallen,
                note=_teller(),
            )
    if as_json:
        say_json({"published": [_in_short(manifest) for manifest in published]})
        return
    _say_published(published)
    if not published:
        say("Nothing is due." if if_due else "Nothing was committed since.")


@app.command()
def verify(as_json: options.AsJson = False) -> None:
    """Read all files of the generations that answer, and measure their recall.

    The exit code is 1 if any is damaged.

    For example:

      parcelle generations verify --json
    """
    from indexer.catalog.database import opened_catalog

    settings = Settings()
    with opened_catalog(settings) as engine:
        found = [
            _verified(engine, settings.generations_dir, space_id, manifest)
            for space_id, manifest in _searched(engine)
        ]
    good = all(one["ok"] for one in found)
    if as_json:
        say_json({"ok": good, "generations": found})
    else:
        for one in found:
            say(f"{'ok    ' if one['ok'] else 'FAILED'}  {one['detail']}")
        if not found:
            say("No generation is published yet; run parcelle reindex.")
    if not good:
        raise typer.Exit(1)


def _verified(
    engine: "Engine", folder: "Path", space_id: int, manifest: "Manifest"
) -> dict[str, Any]:
    """What was found of one generation, with a sentence about it."""
    from indexer.catalog.changes import snapshot
    from indexer.errors import StorageError
    from indexer.generations.compaction import is_due, standing_of
    from indexer.generations.store import check_files

    told = {"generation": manifest.generation, "recall_at_10": manifest.recall_at_10}
    tell(f"Reading generation {manifest.generation}...")
    try:
        check_files(folder, manifest)
        now = _measured(engine, folder, space_id, manifest)
        with snapshot(engine) as connection:
            standing = standing_of(connection, folder, space_id, manifest)
    except StorageError as error:
        return {**told, "ok": False, "recall_now": None, "detail": error.message}
    detail = (
        f"generation {manifest.generation}: {manifest.rows} vectors as published, "
        f"{standing.rows} added and {standing.removed} removed since; recall@10 "
        f"{now.recall_at_10:.3f}, {manifest.recall_at_10:.3f} when published"
    )
    due = is_due(manifest, standing) or now.has_fallen(manifest)
    if due:
        detail += "; run parcelle generations compact"
    return {
        **told,
        "ok": True,
        "recall_now": round(now.recall_at_10, 4),
        "recall_queries": now.queries,
        "since_publication": {"rows": standing.rows, "removed": standing.removed, "due": due},
        "detail": detail,
    }


def _searched(engine: "Engine") -> "list[tuple[int, Manifest]]":
    from indexer.generations.compaction import searched_generations

    with engine.connect() as connection:
        return searched_generations(connection)


def _fallen(engine: "Engine", folder: "Path") -> list[int]:
    """Spaces whose recall is worse than when their generation was published."""
    from indexer.errors import StorageError

    fallen = []
    for space_id, manifest in _searched(engine):
        try:
            now = _measured(engine, folder, space_id, manifest)
        except StorageError:
            # Due for another reason.
            continue
        tell(
            f"Generation {manifest.generation} has a recall@10 of {now.recall_at_10:.3f}, "
            f"{manifest.recall_at_10:.3f} when published."
        )
        if now.has_fallen(manifest):
            fallen.append(space_id)
    return fallen


def _measured(engine: "Engine", folder: "Path", space_id: int, manifest: "Manifest") -> "RecallNow":
    from indexer.generations.compaction import recall_now

    tell(f"Measuring the recall of generation {manifest.generation}...")
    return recall_now(engine, folder, space_id, manifest)


def _teller() -> Callable[[str], None]:
    """Tells the steps of a build, on stderr."""
    return lambda step: tell(f"Building the index: {step}...")


def _in_short(manifest: "Manifest") -> dict[str, Any]:
    return {
        "generation": manifest.generation,
        "space": manifest.space,
        "rows": manifest.rows,
        "recall_at_10": manifest.recall_at_10,
        "imbalance": manifest.imbalance,
    }


def _say_published(published: "list[Manifest]") -> None:
    for manifest in published:
        say(f"Generation {manifest.generation} answers with {manifest.rows} vectors.")
