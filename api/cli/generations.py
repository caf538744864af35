"""``parcelle generations``: the published builds of the vector index."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options
from api.cli.console import say, say_json, say_table, tell
from indexer.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from indexer.generations.backends import Backend
    from indexer.generations.compaction import RecallNow
    from indexer.generations.damage import Damage
    from indexer.generations.manifest import Manifest, Published
    from indexer.lock import Held

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


@contextmanager
def _writing(doing: str) -> "Iterator[tuple[Settings, Engine, Held]]":
    """The catalog, for its only writer, who begins by clearing away what others left."""
    from indexer.catalog.database import opened_catalog
    from indexer.generations.backends import backend_of
    from indexer.generations.recovery import recover
    from indexer.lock import only_writer

    settings = Settings()
    with (
        opened_catalog(settings) as engine,
        only_writer(settings, engine, doing=f"generations {doing}") as held,
    ):
        recover(engine, settings.generations_dir, backend_of(settings))
        yield settings, engine, held


@app.command()
def rebuild(as_json: options.AsJson = False) -> None:
    """Build the indexes again from the database and publish them; nothing is embedded.

    For example:

      parcelle generations rebuild
    """
    from indexer.generations.backends import backend_of
    from indexer.generations.store import rebuild as run

    with _writing("rebuild") as (settings, engine, held):
        published = run(
            engine,
            settings.generations_dir,
            backend=backend_of(settings),
            note=_teller(),
            guard=held.still_held,
        )
    if as_json:
        say_json({"published": [_in_short(manifest) for manifest in published]})
        return
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
            "--verify",
            help="Read all files and measure recall first; where it fell by a point, "
            "it is due too.",
        ),
    ] = False,
    read: Annotated[
        bool,
        typer.Option("--read", help="Read all files first; a damaged generation is due too."),
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
    from indexer.generations.backends import backend_of
    from indexer.generations.compaction import compact as run
    from indexer.generations.damage import find_damage
    from indexer.generations.history import discard

    settings = Settings()
    folder, backend = settings.generations_dir, backend_of(settings)
    with opened_catalog(settings) as engine:
        # Others may write meanwhile.
        damaged = find_damage(engine, folder, backend) if read or verify_too else []
        for one in damaged:
            tell(f"[generation-corrupt] {one.message}")
        fallen = _fallen(engine, folder, backend) if verify_too else []
    with _writing("compact") as (_, engine, held):
        for one in damaged:
            _withdraw(engine, folder, one, backend, held)
        published = run(
            engine,
            folder,
            only_if_due=if_due,
            backend=backend,
            fallen={*fallen, *(one.space_id for one in damaged)},
            note=_teller(),
            guard=held.still_held,
        )
        numbers = [one.generation for one in damaged]
        discard(engine, folder, numbers, backend=backend, guard=held.still_held)
    if as_json:
        say_json({"published": [_in_short(manifest) for manifest in published]})
        return
    _say_published(published)
    if not published:
        say("Nothing is due." if if_due else "Nothing was committed since.")


def _withdraw(
    engine: "Engine", folder: "Path", damage: "Damage", backend: "Backend", held: "Held"
) -> None:
    from indexer.generations.damage import withdraw

    instead = withdraw(engine, folder, damage, backend=backend, guard=held.still_held)
    if instead is None:
        tell(f"Generation {damage.generation} goes on until a new one is built.")
    else:
        tell(f"Generation {instead} answers, with all that was committed since, until then.")


@app.command()
def verify(as_json: options.AsJson = False) -> None:
    """Read all files of the generations that are kept, and hold them against the database.

    Of those that answer, the recall is measured too. The exit code is 1 if any is damaged, or does
    not hold what the database does.

    For example:

      parcelle generations verify --json
    """
    from indexer.catalog.database import opened_catalog
    from indexer.generations.backends import backend_of
    from indexer.generations.verification import verify as run

    settings = Settings()
    with opened_catalog(settings) as engine:
        found = run(
            engine,
            settings.generations_dir,
            lambda step: tell(f"{step}..."),
            backend_of(settings),
        )
    good = all(one.ok for one in found)
    if as_json:
        say_json({"ok": good, "generations": [one.to_dict() for one in found]})
    else:
        for one in found:
            say(f"{'ok    ' if one.ok else 'FAILED'}  {one}")
        if not found:
            say("No generation is published yet; run parcelle reindex.")
    if not good:
        raise typer.Exit(1)


@app.command()
def rollback(
    generation: Annotated[
        int | None,
        typer.Argument(help="Its number; without one, the latest publication is undone."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Have an earlier generation answer again, with everything that was committed since.

    The index is rolled back, not the data: what was added, changed or deleted since stays so, and
    is searched beside the older index. Collections that were embedded anew, with another encoder,
    are searched in the space of the generation again. The generation that answered until now is
    kept until the next is published; to go forth again, name it.

    For example:

      parcelle generations rollback 41
    """
    from indexer.catalog.changes import snapshot
    from indexer.generations.backends import backend_of
    from indexer.generations.compaction import is_due, standing_of
    from indexer.generations.history import roll_back

    with _writing("rollback") as (settings, engine, held):
        folder = settings.generations_dir
        backend = backend_of(settings)
        rolled = roll_back(engine, folder, generation, backend=backend, guard=held.still_held)
        with snapshot(engine) as connection:
            since = standing_of(connection, folder, rolled.space_id, rolled.manifest)
    due = is_due(rolled.manifest, since)
    if as_json:
        say_json(
            {
                **_in_short(rolled.manifest),
                "former": list(rolled.former),
                "moved": list(rolled.moved),
                "since_publication": {"rows": since.rows, "removed": since.removed, "due": due},
            }
        )
        return
    say(
        f"Generation {rolled.manifest.generation} answers with {rolled.manifest.rows} vectors, "
        f"{since.rows} added and {since.removed} removed since."
    )
    for name in rolled.moved:
        say(f"Collection {name} is searched in its space, {rolled.manifest.space_digest[:12]}.")
    if due:
        say("So much was committed since that a compaction will build a new one.")


@app.command()
def prune(
    keep: Annotated[
        int,
        typer.Option(
            "--keep", min=1, help="Generations to keep of each index: 1 for what answers only."
        ),
    ] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Forget earlier generations, with their files. Vectors stay in the database.

    Every publication does the same, and keeps two. What somebody has open is read to its end.
    What was rolled back from stays until the next publication, to go forth to again.

    For example:

      parcelle generations prune --keep 1 --dry-run
    """
    from indexer.catalog.database import opened_catalog
    from indexer.generations.backends import backend_of
    from indexer.generations.history import prune as run

    if dry_run:
        # Only looks, so others may write meanwhile, and what they left stays.
        settings = Settings()
        with opened_catalog(settings) as engine:
            gone = run(engine, settings.generations_dir, keep, dry_run=True)
    else:
        with _writing("prune") as (settings, engine, held):
            gone = run(
                engine,
                settings.generations_dir,
                keep,
                backend=backend_of(settings),
                guard=held.still_held,
            )
    if as_json:
        told = [{"generation": one.generation, "bytes": one.bytes} for one in gone]
        say_json({"pruned": told, "dry_run": dry_run})
        return
    for manifest in gone:
        would = "would be" if dry_run else "is"
        say(f"Generation {manifest.generation} {would} gone, {manifest.bytes / 1e6:.1f} MB.")
    if not gone:
        say("Nothing is to be pruned.")


def _fallen(engine: "Engine", folder: "Path", backend: "Backend") -> list[int]:
    """Spaces whose recall is worse than when their generation was published."""
    from indexer.errors import StorageError
    from indexer.generations.backends import raise_if_away
    from indexer.generations.compaction import searched_generations

    fallen = []
    with engine.connect() as connection:
        answering = searched_generations(connection)
    for space_id, manifest in answering:
        try:
            now = _measured(engine, folder, space_id, manifest, backend)
        except StorageError as error:
            raise_if_away(error)
            # Due for another reason.
            continue
        tell(
            f"Generation {manifest.generation} has a recall@10 of {now.recall_at_10:.3f}, "
            f"{manifest.recall_at_10:.3f} when published."
        )
        if now.has_fallen(manifest):
            fallen.append(space_id)
    return fallen


def _measured(
    engine: "Engine", folder: "Path", space_id: int, manifest: "Manifest", backend: "Backend"
) -> "RecallNow":
    from indexer.generations.compaction import recall_now

    tell(f"Measuring the recall of generation {manifest.generation}...")
    return recall_now(engine, folder, space_id, manifest, backend)


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
