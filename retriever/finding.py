"""Finding what a question names: its collection, its parcel."""

import difflib
from collections.abc import Sequence

from sqlalchemy import Connection

from indexer.catalog.reading import collection_names, find_collection
from indexer.errors import InvalidInputError, NotFoundError
from retriever import statements
from retriever.cql2.properties import PROPERTIES
from retriever.queries import ParcelFilter
from retriever.quoting import quoted
from retriever.waiting import about_to_wait

_MOST_NAMES = 20
_NEAREST_IDS = 3


def find_parcel(
    connection: Connection, parcel_id: str, collection: str | None
) -> statements.AnyRow:
    """One parcel by its id.

    Args:
        connection: Open connection.
        parcel_id: The parcel.
        collection: Its collection; None where the id is unique over all.

    Raises:
        NotFoundError: If there is none, with the ids that come close.
        InvalidInputError: If several collections hold one (``ambiguous-parcel``).
    """
    if collection is not None:
        require_collection(connection, collection)
    found = statements.find_parcels(connection, parcel_id, collection)
    if len(found) > 1:
        named = listed([row.collection for row in found])
        raise InvalidInputError(
            f"Parcel {quoted(parcel_id)} stands in several collections ({named}); name one.",
            kind="ambiguous-parcel",
        )
    if not found:
        place = "" if collection is None else f" in collection {quoted(collection)}"
        raise NotFoundError(
            f"No parcel {quoted(parcel_id)}{place}."
            f"{_did_you_mean(connection, parcel_id, collection)}",
            kind="parcel-not-found",
        )
    return found[0]


def _did_you_mean(connection: Connection, parcel_id: str, collection: str | None) -> str:
    about_to_wait()
    candidates = {
        candidate.casefold(): candidate
        for candidate in statements.ids_like(connection, parcel_id, collection)
    }
    if not candidates:
        return " There are no parcels."
    asked = parcel_id.casefold()
    close = difflib.get_close_matches(asked, candidates, n=_NEAREST_IDS, cutoff=0.4)
    names = [candidates[name] for name in close or list(candidates)[:_NEAREST_IDS]]
    return f" Nearest ids: {listed(names)}."


def require_collection(connection: Connection, name: str) -> tuple[int, int | None]:
    """The row of a collection and of its space.

    Raises:
        NotFoundError: If there is none, with the names that there are.
    """
    found = find_collection(connection, name)
    if found is None:
        names = listed(collection_names(connection)) or "none"
        raise NotFoundError(
            f"No collection {quoted(name)}; there is {names}.", kind="collection-not-found"
        )
    return found


def check_properties(connection: Connection, where: ParcelFilter) -> None:
    """Let a filter pass whose attributes some parcel has.

    Raises:
        InvalidInputError: If one is unknown, with those that there are (``unknown-property``).
    """
    asked = [name for name, _ in where.attributes]
    free = () if where.expression is None else where.expression.attributes
    if not asked and not free:
        return
    known = statements.attribute_names(connection, where.collections)
    for name in (*asked, *free):
        if name in known or statements.has_attribute_name(connection, name, where.collections):
            continue
        there_are = f"there are {listed(known)}" if known else "no parcel has any"
        if name in asked:
            raise InvalidInputError(
                f"Attribute {quoted(name)} is unknown; {there_are}.", kind="unknown-property"
            )
        raise InvalidInputError(
            f"Property {quoted(name)} is unknown; there are {', '.join(PROPERTIES)}; of attributes "
            f"{there_are}.",
            kind="unknown-property",
        )


def listed(names: Sequence[str]) -> str:
    """Names in a message, the first of many."""
    more = len(names) - _MOST_NAMES
    return ", ".join(map(quoted, names[:_MOST_NAMES])) + (f" and {more} more" if more > 0 else "")
