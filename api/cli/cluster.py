"""``parcelle cluster``: groups of parcels that look alike, named by an expert."""

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli import options
from api.cli.console import Bar, say, say_json, say_table, tell, tell_notes
from indexer.errors import InvalidInputError
from indexer.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from indexer.catalog.clusters import UnassignedName
    from indexer.clusters.listing import ClusterSummary, StoredClusters

EXIT_UNASSIGNED = 3

_MOST_SHOWN = 3
_MAX_SEED = 2**31 - 2  # The search counts in 32 bits, from 1.

app = typer.Typer()

OfCollection = Annotated[
    str | None,
    typer.Option("--collection", help="The collection; needed where there are several."),
]


@app.callback(invoke_without_command=True)
def cluster(
    context: typer.Context,
    collection: OfCollection = None,
    k: Annotated[
        str, typer.Option("--k", metavar="auto|N", help="Clusters wanted, 2 to 50, or auto.")
    ] = "auto",
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=_MAX_SEED, help="Where the search begins.")
    ] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Group the parcels of a collection by their vectors, and keep the groups.

    For example:

      parcelle cluster --collection farm-2024 --k auto

      parcelle cluster name 3 "winter wheat"

    A name follows its parcels into a new grouping where that is certain. Where it is
    not, you are asked, or told the command that assigns it: exit code 3 means that
    some names wait for it; none is lost.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before_command(context)
        return
    from indexer.catalog.database import opened_catalog
    from indexer.clusters.listing import list_clusters
    from indexer.clusters.making import make_clusters

    settings = Settings()
    report = make_clusters(settings, collection, parse_k(k), seed=seed, progress=Bar("vectors"))
    stored = report.stored
    asked = bool(stored.unassigned) and not as_json and sys.stdin.isatty()
    if as_json:
        say_json(report.to_dict())
    else:
        _show(stored)
        _show_choice(stored)
        for one in report.carried:
            say(f"Cluster {one.number} keeps the name of former cluster {one.former}: {one.name}")
    if asked:
        with opened_catalog(settings) as engine:
            _ask(engine, stored)
            stored = list_clusters(engine, stored.collection)
        _show_table(stored)
    _tell_unassigned(stored)
    if not as_json:
        tell_notes(stored.notes)
    if stored.unassigned:
        raise typer.Exit(EXIT_UNASSIGNED)


@app.command("name")
def name_one(
    number: Annotated[
        int, typer.Argument(metavar="CLUSTER", help="Its number, 1 for the largest.")
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help='At most 100 characters; "" takes the name away.'),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the cluster's name away.")] = False,
    collection: OfCollection = None,
) -> None:
    """Give a cluster a name; several clusters may bear the same.

    For example:

      parcelle cluster name 3 "winter wheat"

      parcelle cluster name 3 --remove
    """
    from indexer.catalog.database import opened_catalog
    from indexer.clusters.naming import check_name, name_cluster, only_collection, quoted

    if (name is None) != remove:
        raise InvalidInputError("Give the cluster a NAME, or --remove.", kind="invalid-option")
    given = check_name(name) if name is not None and name.strip() else None
    with opened_catalog(Settings()) as engine:
        with engine.connect() as connection:
            place = only_collection(connection, collection)
        before = name_cluster(engine, place, number, given)
    was = "" if before is None else f" It was {quoted(before)}."
    now = "has no name now" if given is None else f"is {quoted(given)} now"
    say(f"Cluster {number} of {place} {now}.{was}")


@app.command("list")
def list_all(collection: OfCollection = None, as_json: options.AsJson = False) -> None:
    """List the clusters of a collection, with names, declared crops and examples.

    For example:

      parcelle cluster list --json
    """
    from indexer.catalog.database import opened_catalog
    from indexer.clusters.listing import list_clusters

    with opened_catalog(Settings()) as engine:
        stored = list_clusters(engine, collection)
    if as_json:
        say_json(stored.to_dict())
        return
    _show(stored)
    _tell_unassigned(stored)
    tell_notes(stored.notes)


@app.command("forget")
def forget(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that no cluster bears.")],
    collection: OfCollection = None,
) -> None:
    """Drop a name that waits for a cluster since a new grouping.

    For example:

      parcelle cluster forget "winter wheat"
    """
    from indexer.catalog.database import opened_catalog
    from indexer.clusters.naming import forget_name, only_collection, quoted

    with opened_catalog(Settings()) as engine:
        with engine.connect() as connection:
            place = only_collection(connection, collection)
        forget_name(engine, place, name)
    say(f"{quoted(name)} is forgotten.")


def parse_k(text: str) -> int | Literal["auto"]:
    """Number of clusters as it was typed.

    Raises:
        InvalidInputError: If it is neither a number nor "auto" (``invalid-k``).
    """
    if text == "auto":
        return "auto"
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInputError(
            f"--k is {text!r}; write auto or a number from 2 to 50.", kind="invalid-k"
        )
    return int(text)


def _refuse_options_before_command(context: typer.Context) -> None:
    """Options of the grouping before a command would do nothing, and nobody would know."""
    for name, option in (
        ("collection", "--collection"),
        ("k", "--k"),
        ("seed", "--seed"),
        ("as_json", "--json"),
    ):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InvalidInputError(
                f"Write {option} after {context.invoked_subcommand}, if it takes it.",
                kind="invalid-option",
            )


def _show(stored: "StoredClusters") -> None:
    say(
        f"Collection {stored.collection}, generation {stored.generation}: "
        f"{sum(one.parcels for one in stored.clusters)} parcels in {len(stored.clusters)} "
        f"clusters. {stored.chosen['reason']}"
    )
    if len(stored.clusters) < stored.k:
        filled = f"{len(stored.clusters)} of {stored.k}"
        tell(f"Note: only {filled} clusters hold parcels: the vectors are too much alike.")
    _show_table(stored)


def _show_choice(stored: "StoredClusters") -> None:
    """The score of each k that was tried."""
    scores = [f"{one['k']}: {one['score']:.3f}" for one in stored.chosen.get("candidates", ())]
    if scores:
        say(f"{stored.chosen['criterion'].capitalize()} by k: {', '.join(scores)}")


def _show_table(stored: "StoredClusters") -> None:
    say_table(
        ("cluster", "name", "parcels", "share", "declared crops", "examples"),
        (_row(one) for one in stored.clusters),
        right={"cluster", "parcels", "share"},
    )


def _row(one: "ClusterSummary") -> tuple[str, ...]:
    crops = ", ".join(
        f"{name or code} {count / one.parcels:.0%}"
        for (code, name), count in one.crops[:_MOST_SHOWN]
    )
    return (
        str(one.number),
        one.name or "-",
        str(one.parcels),
        f"{one.share:.1%}",
        crops or "-",
        ", ".join(one.examples[:_MOST_SHOWN]) or "-",
    )


def _ask(engine: "Engine", stored: "StoredClusters") -> None:
    """Put each uncertain name to whoever sits at the terminal; each answer is kept at once."""
    from indexer.clusters.naming import name_cluster, quoted

    names = {str(one.number): one.name for one in stored.clusters}
    for waiting in stored.unassigned:
        tell(f"Which cluster is {quoted(waiting.name)} now? It is uncertain: {waiting.reason}.")
        for candidate in waiting.candidates:
            name = names[str(candidate["cluster"])]
            known = "" if name is None else f", named {quoted(name)}"
            tell(f"  {candidate['cluster']}: {_likeness(candidate)}{known}")
        warned = None
        while True:
            tell("Number of the cluster, or Enter to leave it unassigned:")
            answer = sys.stdin.readline().strip()
            if not answer:
                break
            if answer not in names:
                tell(f"There is no cluster {quoted(answer)}; there are 1 to {len(names)}.")
            elif names[answer] not in (None, waiting.name) and answer != warned:
                # In a merger, several names are answered with one cluster, which bears one.
                tell(
                    f"Cluster {answer} is {quoted(str(names[answer]))} already, a name that would "
                    f"be lost. Answer {answer} again to replace it."
                )
                warned = answer
            else:
                name_cluster(engine, stored.collection, int(answer), waiting.name)
                names[answer] = waiting.name
                break


def _likeness(candidate: dict[str, Any]) -> str:
    found = []
    if candidate["shared"] is not None:
        found.append(f"{candidate['shared']:.0%} of its parcels")
    if candidate["cosine"] is not None:
        found.append(f"cosine of the centers {candidate['cosine']:.3f}")
    return ", ".join(found)


def _tell_unassigned(stored: "StoredClusters") -> None:
    for waiting in stored.unassigned:
        tell(_how_to_assign(waiting, stored.collection))


def _how_to_assign(waiting: "UnassignedName", collection: str) -> str:
    from indexer.clusters.naming import quoted

    likeliest = waiting.candidates[0]["cluster"] if waiting.candidates else "CLUSTER"
    # A name may begin like an option.
    dashes = "-- " if waiting.name.startswith("-") else ""
    name, place = shlex.quote(waiting.name), f"--collection {shlex.quote(collection)}"
    return (
        f"Unassigned: {quoted(waiting.name)}, because {waiting.reason}. Assign it: "
        f"parcelle cluster name {place} {dashes}{likeliest} {name}; or drop it: "
        f"parcelle cluster forget {place} {dashes}{name}"
    )
