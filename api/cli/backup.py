"""``parcelle backup`` and ``parcelle restore``: the whole index in one folder, and back."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli import options
from api.cli.console import Bar, say, say_json, tell_notes
from indexer.settings import Settings


def backup(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="An empty folder, or one to be made.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Write the whole index into a folder while it is in use: the catalog and its generations.

    For example:

      parcelle backup /backups/parcelle-$(date +%F)
    """
    from indexer.backup.making import back_up

    made = back_up(Settings(), folder, Bar())
    if as_json:
        say_json({"folder": str(folder.absolute()), "bytes": made.total_bytes} | made.to_dict())
        return
    say(
        f"{folder}: {made.counts.get('parcels', 0)} parcels, {made.counts.get('embeddings', 0)} "
        f"embeddings and {_counted(len(made.generations))} in {made.total_bytes / 1e6:,.1f} MB."
    )
    tell_notes(f"Not in the backup: {one}" for one in made.left_out)


def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What parcelle backup wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the index that is there.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Bring an index back from a backup, into SQLite or PostgreSQL, whatever it came from.

    All files are compared with their digests first. Who searches meanwhile sees the former index,
    or the restored one.

    For example:

      PARCELLE_DATA_DIR=/srv/parcelle parcelle restore /backups/monday
    """
    from indexer.backup.restoring import restore as run

    done = run(Settings(), folder, replace=replace, progress=Bar())
    if as_json:
        say_json({"folder": str(folder.absolute())} | done.to_dict())
        return
    counts = done.description.counts
    of_backup = zip(done.generations, done.description.generations, strict=True)
    answering = [number for number, one in of_backup if one["current"]]
    say(
        f"{done.database}: {counts.get('parcels', 0)} parcels and {counts.get('embeddings', 0)} "
        f"embeddings as of {done.description.created_at}, answered by "
        f"{_named(answering) if answering else 'no generation'}."
    )
    tell_notes(f"Not in the backup: {one}" for one in done.description.left_out)


def _counted(generations: int) -> str:
    return f"{generations} generation{'' if generations == 1 else 's'}"


def _named(numbers: list[int]) -> str:
    word = "generation" if len(numbers) == 1 else "generations"
    return f"{word} {', '.join(map(str, numbers))}"
