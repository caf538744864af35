"""ParcelRetriever: the look-alikes of the parcels that a text names, as LangChain documents."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from indexer.embedding_space import UNTRAINED_NOTE
from retriever import statements
from retriever.finding import find_parcel
from retriever.queries import DEFAULT_K, MAX_K, ParcelFilter
from retriever.quoting import cleaned
from retriever.results import Match, Matches
from retriever.search import ParcelSearcher
from retriever.tools.arguments import MAX_ID
from retriever.tools.wording import (
    cluster_of,
    crop,
    day,
    hectares,
    index_values,
    key,
    quoted_id,
    without_surprises,
)

MOST_NAMED = 10
"""Most parcels of a query that ask together; those named later are passed over."""

_MOST_CANDIDATES = 50
_SCANNED = 10_000
_SHOWN_EXAMPLES = 3

_AROUND = re.compile(r"^\W+|\W+$")
_BETWEEN = re.compile(r"[^\w.+-]+")


class ParcelRetriever(BaseRetriever):
    """Finds the parcels that look like those that a query names; the query is no description.

    A query is the id of a stored parcel, or a text in which ids stand, such as "how is demo-012
    doing?". Several ids ask together, as the examples of ``find_similar_parcels`` do. ::

        retriever = ParcelRetriever(searcher=searcher, k=5)
        retriever.invoke("demo-012")

    Documents come best first. ``page_content`` says in a few words what was found, with text from
    the index quoted; ``metadata`` holds the match as the tools' artifacts do, with ``generation``,
    ``space``, ``notes`` and the ids that asked as ``query``; ``id`` is the collection and the
    parcel's id as they stand in a URL, ``demo/demo-012``.

    Asking raises ``NotFoundError`` if the query names no stored parcel, with the ids that come
    near, or one without a vector; ``InvalidInputError`` if an id stands in several collections or
    ``k`` is out of range; ``GenerationMismatchError`` if the parcels lie in different spaces.

    Args:
        searcher: Who answers; it stays the caller's.
        k: Documents wanted, 1 to 1000; ``invoke`` takes another as a keyword.
        collection: Where the parcels that a query names are; None where ids are unique over all.
        where: Which parcels and observations may be returned.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    searcher: ParcelSearcher = Field(exclude=True, repr=False)
    k: int = Field(default=DEFAULT_K, ge=1, le=MAX_K)
    collection: str | None = None
    where: ParcelFilter = ParcelFilter()

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        with statements.snapshot(self.searcher.engine) as connection:
            like = _parcels_named(connection, query, self.collection)
        found = self.searcher.similar_by_examples(
            like,
            collection=self.collection,
            k=self.k if k is None else k,
            where=self.where,
        )
        return [_document(match, found) for match in found.matches]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        # The base class would do the same, but takes no k.
        return await run_in_executor(
            None, self._get_relevant_documents, query, run_manager=run_manager.get_sync(), k=k
        )


# What a query names --------------------------------------------------------------------------


def _parcels_named(connection: Connection, query: str, collection: str | None) -> list[str]:
    """Ids of stored parcels in a query, in its order.

    Raises:
        NotFoundError: If there are none.
    """
    chunks = query[:_SCANNED].split()
    candidates = _likeliest([word for chunk in chunks for word in _spellings(chunk)])
    whole = [text for text in (query, query.strip()) if _may_be_id(text)]
    known = statements.known_ids(connection, [*whole, *candidates], collection)
    for text in whole:
        if text in known:
            return [text]
    found = list(dict.fromkeys(word for chunk in chunks for word in _ids_in(chunk, known)))
    if found:
        return found[:MOST_NAMED]
    # A word with a digit is the likeliest to be a misspelled id.
    missed = next((word for word in candidates if _has_digit(word)), query)
    return [find_parcel(connection, cleaned(missed, MAX_ID), collection).parcel_id]


def _readings(chunk: str) -> Iterator[list[str]]:
    """What may be an id in a text without spaces: all of it, without punctuation, its parts."""
    yield [chunk]
    bare = _AROUND.sub("", chunk)
    yield [bare]
    yield _BETWEEN.split(bare)


def _spellings(chunk: str) -> Iterator[str]:
    for reading in _readings(chunk):
        yield from reading


def _ids_in(chunk: str, known: set[str]) -> list[str]:
    """The ids of the first reading that has any."""
    for reading in _readings(chunk):
        ids = [word for word in reading if word in known]
        if ids:
            return ids
    return []


def _likeliest(words: Sequence[str]) -> list[str]:
    """As many different words as are looked up, those with a digit before the others."""
    some = dict.fromkeys(word for word in words if _may_be_id(word))
    return sorted(some, key=lambda word: not _has_digit(word))[:_MOST_CANDIDATES]


def _has_digit(word: str) -> bool:
    return any(char.isdigit() for char in word)


def _may_be_id(text: str) -> bool:
    # No database takes a null character or half a surrogate pair.
    half = any("\ud800" <= char <= "\udfff" for char in text[: MAX_ID + 1])
    return 0 < len(text) <= MAX_ID and "\0" not in text and not half


# What a document says ------------------------------------------------------------------------


def _document(match: Match, found: Matches) -> Document:
    metadata: dict[str, Any] = without_surprises(
        {
            **match.to_dict(),
            "generation": found.generation,
            "space": found.space,
            "query": _examples(found),
            "notes": found.notes,
        }
    )
    return Document(
        id=_url_path(match.collection, match.parcel_id),
        page_content=_sentences(match, found),
        metadata=metadata,
    )


def _sentences(match: Match, found: Matches) -> str:
    trust = "reliable" if match.reliable else "NOT reliable"
    found_in = "".join(f", {told}" for told in cluster_of(match.cluster))
    sentences = [
        f"Parcel {key(match.parcel_id, match.collection)}: "
        f"{crop(match.crop_name, match.crop_code)}{found_in}, {hectares(match.area_m2)}; "
        f"similarity to {_listed(_examples(found))} {match.score:.3f} (cosine, -1 to 1).",
        f"Seen {day(match.acquired_at)}, {trust}: "
        f"{index_values(match.medians, ('NDVI', 'NDMI'))} (medians, unitless).",
    ]
    if UNTRAINED_NOTE in found.notes:
        # Many chains hand on nothing but the text.
        sentences.append(f"Note: {UNTRAINED_NOTE}")
    return " ".join(sentences)


def _examples(found: Matches) -> list[str]:
    """Ids of the parcels that asked."""
    return [one["id"] for one in found.query.get("like", [found.query])]


def _listed(ids: Sequence[str]) -> str:
    more = len(ids) - _SHOWN_EXAMPLES
    shown = ", ".join(map(quoted_id, ids[:_SHOWN_EXAMPLES]))
    return f"{shown} and {more} more" if more > 0 else shown


def _url_path(collection: str, parcel_id: str) -> str:
    """Both as they stand in a URL, where no other pair looks the same."""
    return f"{_in_url(collection)}/{_in_url(parcel_id)}"


def _in_url(text: str) -> str:
    if len(text) <= MAX_ID:
        return quote(text, safe="")
    # A digest tells those apart that begin alike.
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{quote(text[:MAX_ID], safe='')}#{digest[:16]}"
