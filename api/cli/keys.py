"""``parcelle keys``: make keys of the service."""

from typing import Annotated

import typer

from api.cli.console import say, say_json, tell
from api.keys import Scope, new_key

app = typer.Typer(help="Make keys of the service.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Make keys of the service."""


@app.command("new")
def new(
    scope: Annotated[
        Scope,
        typer.Option(help="read asks; write also changes names of clusters."),
    ] = "read",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a key, and the entry of PARCELLE_API_KEYS that lets it in.

    The key is shown this once: give it to whoever is to ask. The entry holds
    its digest alone, so whoever reads the settings learns no key.

    For example:

      parcelle keys new --scope read

      parcelle keys new --scope write --json
    """
    key, kept = new_key(scope)
    if as_json:
        say_json({"scope": scope, "key": key, "entry": kept.entry})
        return
    say(f"key    {key}")
    say(f"entry  {kept.entry}")
    tell(
        "The client sends the key, which is shown this once. Add the entry to PARCELLE_API_KEYS, "
        "after a comma where there are others, and start the service again."
    )
