"""ParcelSearcher: which parcels look like this one? One engine behind every door."""

import difflib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from sqlalchemy import Connection, Engine

from indexer.catalog.database import open_catalog
from indexer.catalog.reading import (
    collection_names,
    find_collection,
    get_generation,
    get_space,
)
from indexer.embedding_space import notes_for
from indexer.errors import (
    GenerationMismatchError,
    InvalidInputError,
    NotFoundError,
)
from indexer.generations.manifest import Manifest
from indexer.generations.store import open_generation
from indexer.imagery.chip import Chip
from indexer.settings import Settings
from indexer.vector_index import VectorIndex
from retriever import statements
from retriever.queries import DEFAULT_K, ParcelFilter, check_k
from retriever.quoting import quoted
from retriever.results import Match, Matches, iso
from retriever.state import ParcelState

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_ALL = ParcelFilter()

_MOST_NAMES = 10
_NEAREST_IDS = 3


@dataclass(frozen=True)
class OpenGeneration:
    """A published index in memory."""

    space_id: int
    manifest: Manifest
    index: VectorIndex


class ParcelSearcher:
    """Answers questions about parcels from the published generations.

    Safe to share between threads. A generation that is published meanwhile answers from the next
    question on.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self._open: dict[int, OpenGeneration] = {}
        self._opening = threading.Lock()

    @classmethod
    def open(cls, settings: Settings) -> "ParcelSearcher":
        """Open the catalog; an index is loaded when the first question needs it.

        Raises:
            StorageError: If the database cannot be used as it is.
        """
        return cls(settings, open_catalog(settings))

    def __enter__(self) -> "ParcelSearcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database and the indexes."""
        self._open.clear()
        self.engine.dispose()

    # Questions -------------------------------------------------------------------------------

    def similar_by_id(
        self,
        parcel_id: str,
        *,
        collection: str | None = None,
        k: int = DEFAULT_K,
        where: ParcelFilter = _ALL,
        observations: bool = False,
    ) -> Matches:
        """Parcels that look like a stored one, which is never its own match.

        Args:
            parcel_id: The parcel; its latest reliable observation asks (see ``query``).
            collection: Its collection; None where the id is unique over all.
            k: Matches wanted, 1 to 1000.
            where: Which parcels and observations may be returned.
            observations: Return every matching observation instead of each parcel's best one.

        Raises:
            NotFoundError: If there is no such parcel, or it has no vector.
            InvalidInputError: If k is out of range or the id stands in several collections.
        """
        check_k(k)
        with statements.snapshot(self.engine) as connection:
            parcel = self.find_parcel(connection, parcel_id, collection)
            generation = self._generation_of(connection, parcel.collection, parcel.space_id)
            asked = statements.query_vector(connection, generation.space_id, parcel.id, None)
            if asked is None:
                raise NotFoundError(
                    f"Parcel {quoted(parcel.parcel_id)} of {quoted(parcel.collection)} has no "
                    "vector: clouds or gaps hide too much of it in every image. Its state can "
                    "still be asked for.",
                    kind="parcel-not-embedded",
                )
            own = statements.rows_of_parcel(connection, generation.space_id, parcel.id)
            query = {
                "collection": parcel.collection,
                "id": parcel.parcel_id,
                "datetime": iso(asked.acquired_at),
                "scene": asked.scene,
                "reliable": asked.reliable,
            }
            vector = np.frombuffer(asked.vector, dtype="<f4").astype(np.float32)
            return self._search(
                connection, generation, vector, query, k, where, observations, exclude=own
            )

    def similar_by_vector(
        self,
        vector: FloatArray,
        *,
        collection: str | None = None,
        space: str | None = None,
        k: int = DEFAULT_K,
        where: ParcelFilter = _ALL,
        observations: bool = False,
    ) -> Matches:
        """Parcels whose vectors are closest to a given one.

        Args:
            vector: Shape ``(512,)``; any length but zero.
            collection: Whose space the vector is from; None where there is only one space.
            space: Id or digest of the space that the vector is from, to be held against it.
            k: Matches wanted, 1 to 1000.
            where: Which parcels and observations may be returned.
            observations: Return every matching observation instead of each parcel's best one.

        Raises:
            NotFoundError: If there is no such collection, or nothing is published.
            InvalidInputError: If the vector has another size or is not finite.
            GenerationMismatchError: If it is from another space.
        """
        check_k(k)
        unit = _unit(vector)
        with statements.snapshot(self.engine) as connection:
            generation = self._generation_for(connection, collection)
            _check_space(space, generation.manifest)
            if unit.shape != (generation.index.dimensions,):
                raise InvalidInputError(
                    f"The query vector has shape {unit.shape}; the index holds vectors of "
                    f"{generation.index.dimensions} numbers.",
                    kind="invalid-vector",
                )
            query = {"vector": f"{unit.shape[0]} numbers"}
            return self._search(connection, generation, unit, query, k, where, observations)

    def similar_by_chip(
        self,
        chip: Chip,
        *,
        collection: str | None = None,
        k: int = DEFAULT_K,
        where: ParcelFilter = _ALL,
        observations: bool = False,
    ) -> Matches:
        """Parcels that look like an image that need not be stored; embeds it first.

        Args:
            chip: Reflectance with the bands of the space's encoder.
            collection: Whose space is asked; None where there is only one.
            k: Matches wanted, 1 to 1000.
            where: Which parcels and observations may be returned.
            observations: Return every matching observation instead of each parcel's best one.

        Raises:
            ImageryError: If the chip lacks a band or any data.
            WeightsError: If the space's weights cannot be had.
            GenerationMismatchError: If they are no longer those that the index was made with.
        """
        # The only question that needs torch.
        from retriever.query_embedding import embed_chip

        check_k(k)
        with statements.snapshot(self.engine) as connection:
            generation = self._generation_for(connection, collection)
            space = get_space(connection, generation.space_id)
            vector = embed_chip(chip, space, self.settings)
            query = {"image": chip.scene, "datetime": iso(chip.acquired_at)}
            return self._search(connection, generation, vector, query, k, where, observations)

    def state(
        self, parcel_id: str, *, collection: str | None = None, where: ParcelFilter = _ALL
    ) -> ParcelState:
        """The state of a parcel, observation by observation.

        Args:
            parcel_id: The parcel.
            collection: Its collection; None where the id is unique over all.
            where: Only its interval counts.

        Raises:
            NotFoundError: If there is no such parcel, or it was not observed in the interval.
        """
        with statements.snapshot(self.engine) as connection:
            parcel = self.find_parcel(connection, parcel_id, collection)
            seen = statements.observations_of(connection, parcel.id, where.interval)
        if not seen:
            when = f" in {quoted(str(where.interval))}" if where.interval else ""
            raise NotFoundError(
                f"Parcel {quoted(parcel.parcel_id)} of {quoted(parcel.collection)} was not "
                f"observed{when}; ask for another interval or none.",
                kind="state-not-found",
            )
        return ParcelState.from_rows(parcel, seen)

    def generations(self) -> list[OpenGeneration]:
        """The generations that answer now, one for each space in use."""
        with statements.snapshot(self.engine) as connection:
            return [
                self._opened(connection, space_id, generation_id)
                for space_id, generation_id in statements.published_spaces(connection)
            ]

    # Finding things --------------------------------------------------------------------------

    def find_parcel(
        self, connection: Connection, parcel_id: str, collection: str | None
    ) -> statements.AnyRow:
        """One parcel by its id.

        Raises:
            NotFoundError: If there is none, with the ids that come close.
            InvalidInputError: If several collections hold one (``ambiguous-parcel``).
        """
        if collection is not None:
            self._require_collection(connection, collection)
        found = statements.find_parcels(connection, parcel_id, collection)
        if len(found) > 1:
            named = _listed([row.collection for row in found])
            raise InvalidInputError(
                f"Parcel {quoted(parcel_id)} stands in several collections ({named}); name one.",
                kind="ambiguous-parcel",
            )
        if not found:
            place = "" if collection is None else f" in collection {quoted(collection)}"
            raise NotFoundError(
                f"No parcel {quoted(parcel_id)}{place}."
                f"{self._did_you_mean(connection, parcel_id, collection)}",
                kind="parcel-not-found",
            )
        return found[0]

    def _did_you_mean(self, connection: Connection, parcel_id: str, collection: str | None) -> str:
        candidates = {
            candidate.casefold(): candidate
            for candidate in statements.ids_like(connection, parcel_id, collection)
        }
        if not candidates:
            return " There are no parcels."
        asked = parcel_id.casefold()
        close = difflib.get_close_matches(asked, candidates, n=_NEAREST_IDS, cutoff=0.4)
        names = [candidates[name] for name in close or list(candidates)[:_NEAREST_IDS]]
        return f" Nearest ids: {_listed(names)}."

    def _require_collection(self, connection: Connection, name: str) -> tuple[int, int | None]:
        found = find_collection(connection, name)
        if found is None:
            names = _listed(collection_names(connection)) or "none"
            raise NotFoundError(
                f"No collection {quoted(name)}; there is {names}.", kind="collection-not-found"
            )
        return found

    def _generation_for(self, connection: Connection, collection: str | None) -> OpenGeneration:
        """The generation that a question without a parcel is put to."""
        if collection is not None:
            _, space_id = self._require_collection(connection, collection)
            return self._generation_of(connection, collection, space_id)
        spaces = statements.published_spaces(connection)
        if len(spaces) > 1:
            names = _listed(collection_names(connection))
            raise InvalidInputError(
                "The collections lie in different embedding spaces, which never meet in one "
                f"search; name one of {names}.",
                kind="invalid-collection",
            )
        if not spaces:
            raise _nothing_published("The index")
        return self._opened(connection, *spaces[0])

    def _generation_of(
        self, connection: Connection, collection: str, space_id: int | None
    ) -> OpenGeneration:
        number = None if space_id is None else statements.current_generation(connection, space_id)
        if space_id is None or number is None:
            raise _nothing_published(f"Collection {quoted(collection)}")
        return self._opened(connection, space_id, number)

    def _opened(self, connection: Connection, space_id: int, number: int) -> OpenGeneration:
        """The generation in memory, loaded if it is not the one that was."""
        held = self._open.get(space_id)
        if held is not None and held.manifest.generation == number:
            return held
        with self._opening:
            held = self._open.get(space_id)
            if held is None or held.manifest.generation != number:
                manifest = Manifest.from_dict(get_generation(connection, number))
                index = open_generation(self.settings.generations_dir, manifest)
                held = OpenGeneration(space_id, manifest, index)
                self._open[space_id] = held
        return held

    # Searching -------------------------------------------------------------------------------

    def _search(
        self,
        connection: Connection,
        generation: OpenGeneration,
        vector: FloatArray,
        query: dict[str, Any],
        k: int,
        where: ParcelFilter,
        observations: bool,
        exclude: IntArray | None = None,
    ) -> Matches:
        for name in where.collections:
            self._require_collection(connection, name)
        allowed = None
        if not where.is_empty:
            allowed = statements.allowed_rows(connection, generation.space_id, where)
        excluded = set() if exclude is None else set(exclude.tolist())
        found = self._best(connection, generation.index, vector, k, allowed, excluded, observations)
        notes = list(notes_for(generation.manifest.recipe))
        if len(found) < k:
            what = "observations" if observations else "parcels"
            notes.append(f"Only {len(found)} {what} match; {k} were asked for.")
        return Matches(
            query={**query, "k": k, "filter": where.to_dict()},
            generation=generation.manifest.generation,
            space=generation.manifest.space,
            matches=tuple(
                _match(rank, score, row) for rank, (score, row) in enumerate(found, start=1)
            ),
            notes=tuple(notes),
        )

    def _best(
        self,
        connection: Connection,
        index: VectorIndex,
        vector: FloatArray,
        k: int,
        allowed: IntArray | None,
        excluded: set[int],
        observations: bool,
    ) -> list[tuple[float, statements.AnyRow]]:
        """The k best rows, each parcel once, widening the search until there are k or no more.

        A parcel with many dates fills many places of a search, and a row may have been replaced
        since the generation was published, so the first try can come out short.
        """
        wanted = k + len(excluded) if observations else 4 * k + len(excluded)
        rows: dict[int, statements.AnyRow] = {}
        while True:
            scores, ids = index.search(vector, wanted, allowed)
            new = [row_id for row_id in ids.tolist() if row_id not in rows]
            rows.update(statements.describe_rows(connection, new))
            best: list[tuple[float, statements.AnyRow]] = []
            taken: set[int] = set()
            for score, row_id in zip(scores.tolist(), ids.tolist(), strict=True):
                row = rows.get(row_id)
                if row is None or row_id in excluded:
                    continue
                if not observations and row.parcel_row in taken:
                    continue
                taken.add(row.parcel_row)
                best.append((score, row))
            if len(best) >= k or len(ids) < wanted:
                return best[:k]
            wanted *= 4


def _match(rank: int, score: float, row: statements.AnyRow) -> Match:
    return Match(
        rank=rank,
        score=float(np.clip(score, -1.0, 1.0)),
        collection=row.collection,
        parcel_id=row.parcel_id,
        crop_code=row.crop_code,
        crop_name=row.crop_name,
        area_m2=row.area_m2,
        acquired_at=row.acquired_at,
        scene=row.scene,
        valid_fraction=row.valid_fraction,
        reliable=row.reliable,
        geometry=None if row.geometry is None else shapely.from_wkb(row.geometry),
    )


def _unit(vector: FloatArray | Sequence[float]) -> FloatArray:
    try:
        # Squares of large and of small float32 numbers exceed float32.
        values = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(
            "The query vector must be a list of numbers.", kind="invalid-vector"
        ) from None
    length = np.linalg.norm(values)
    if not np.isfinite(length) or length == 0:
        raise InvalidInputError(
            "The query vector must hold finite numbers, not all zero.", kind="invalid-vector"
        )
    unit: FloatArray = (values / length).astype(np.float32)
    return unit


def _check_space(space: str | None, manifest: Manifest) -> None:
    if space is not None and (len(space) < 12 or not manifest.space_digest.startswith(space)):
        raise GenerationMismatchError(
            f"The query is from embedding space {quoted(space)}, the index from "
            f"{manifest.space_digest[:12]}; vectors of two spaces cannot be compared. Embed the "
            "query with the index's encoder and weights.",
            kind="space-mismatch",
        )


def _nothing_published(what: str) -> NotFoundError:
    return NotFoundError(
        f"{what} has no published generation yet; run parcelle reindex.",
        kind="generation-not-found",
    )


def _listed(names: Sequence[str]) -> str:
    """Names in a message, the first of many."""
    more = len(names) - _MOST_NAMES
    return ", ".join(map(quoted, names[:_MOST_NAMES])) + (f" and {more} more" if more > 0 else "")
