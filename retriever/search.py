"""ParcelSearcher: every question about parcels. One engine behind every door."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine

from indexer.catalog.database import open_catalog
from indexer.catalog.reading import collection_names, get_space
from indexer.clusters.naming import check_name, name_cluster
from indexer.embedding_space import describe_space, notes_for
from indexer.errors import GenerationMismatchError, InvalidInputError, NotFoundError, StorageError
from indexer.generations.manifest import Manifest
from indexer.imagery.chip import Chip
from indexer.imagery.preview import Style
from indexer.settings import Settings
from indexer.vector_index.effort import DEFAULT_RECALL
from retriever import list_statements, statements
from retriever.candidates import Anchor
from retriever.clusters import DEFAULT_CLUSTERS, Clusterings, Clusters
from retriever.comparison import (
    MOST_COMPARED,
    Compared,
    Comparison,
    comparable_observations,
    pairwise_scores,
)
from retriever.cql2.properties import Queryable, attribute_queryables, fixed_queryables
from retriever.examples import (
    Example,
    check_examples,
    check_one_space,
    combined,
    vector_from,
)
from retriever.finding import check_properties, find_parcel, require_collection
from retriever.history import dated, gaps_of, last_change_of, peak_of, reliability_of, trend_of
from retriever.listing import MOST_COUNTED, ListedParcel, ParcelList, page_of
from retriever.nearest import Asking, Nearest, nearest, nearest_many
from retriever.observed import ObservedState
from retriever.peers import Peers, peers_of
from retriever.previews import DEFAULT_SIZE_PX, Preview, Previews
from retriever.published import OpenGeneration, PublishedGenerations
from retriever.queries import DEFAULT_K, Interval, ParcelFilter, check_k
from retriever.quoting import quoted
from retriever.ranking import rank
from retriever.results import Matches, iso
from retriever.space_catalog import LazyCatalog
from retriever.state import ParcelFacts, ParcelState
from retriever.summaries import CollectionSummary
from retriever.waiting import about_to_wait

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_ALL = ParcelFilter()

# How far the square of a length may be from 1 where float32 numbers were made a unit vector.
_UNIT_ROUNDING = 1e-6

# Matches that are described, and examples that are found, in a few milliseconds.
_FEW_MATCHES, _FEW_EXAMPLES = 50, 5


class ParcelSearcher:
    """Answers questions about parcels from the catalog and the published generations.

    Safe to share between threads. A generation that is published meanwhile answers from the next
    question on.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self._published = PublishedGenerations(settings, engine)
        self._previews = Previews()
        self._clusterings = Clusterings()
        self._summaries: tuple[object, list[CollectionSummary]] = (None, [])
        self._queryables: dict[str, tuple[object, tuple[Queryable, ...]]] = {}

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
        self._published.close()
        self.engine.dispose()

    # Similar parcels -------------------------------------------------------------------------

    def similar_by_id(
        self,
        parcel_id: str,
        *,
        collection: str | None = None,
        k: int = DEFAULT_K,
        where: ParcelFilter = _ALL,
        observations: bool = False,
        recall: float = DEFAULT_RECALL,
        explain: bool = False,
    ) -> Matches:
        """Parcels that look like a stored one, which is never its own match.

        Args:
            parcel_id: The parcel; its latest reliable observation asks (see ``query``).
            collection: Its collection; None where the id is unique over all.
            k: Matches wanted, 1 to 1000.
            where: Which parcels and observations may be returned.
            observations: Return every matching observation instead of each parcel's best one.
            recall: Share of the true nearest that is to be found: .9, .95 or .99.
            explain: Say in the answer how it was found.

        Raises:
            NotFoundError: If there is no such parcel, or it has no vector.
            InvalidInputError: If k is out of range or the id stands in several collections.
        """
        return self.similar_by_examples(
            [parcel_id],
            collection=collection,
            k=k,
            where=where,
            observations=observations,
            recall=recall,
            explain=explain,
        )

    def similar_by_examples(
        self,
        like: Sequence[str],
        unlike: Sequence[str] = (),
        *,
        collection: str | None = None,
        k: int = DEFAULT_K,
        where: ParcelFilter = _ALL,
        observations: bool = False,
        recall: float = DEFAULT_RECALL,
        explain: bool = False,
    ) -> Matches:
        """Parcels that look like some stored ones, and not like others.

        The mean of the wanted vectors, less half the mean of the unwanted ones, asks; a score is
        the cosine similarity to that. No example is ever a match.

        Args:
            like: Ids of parcels, at least one; the latest reliable observation of each counts.
            unlike: Ids of parcels.
            collection: Their collection; None where the ids are unique over all.
            k: Matches wanted, 1 to 1000.
            where: Which parcels and observations may be returned.
            observations: Return every matching observation instead of each parcel's best one.
            recall: Share of the true nearest that is to be found: .9, .95 or .99.
            explain: Say in the answer how it was found.

        Raises:
            NotFoundError: If there is no such parcel, or it has no vector.
            InvalidInputError: If k is out of range, an id stands in several collections, or
                nothing is wanted.
            GenerationMismatchError: If the examples lie in different embedding spaces.
        """
        check_k(k)
        check_examples(like, unlike)
        _may_take_long(k, where, examples=len(like) + len(unlike))
        self._published.refresh()
        with statements.snapshot(self.engine) as connection:
            parcels = [find_parcel(connection, one, collection) for one in (*like, *unlike)]
            check_one_space(parcels)
            first = parcels[0]
            generation = self._published.of_space(first.collection, first.space_id)
            examples = [Example.of(connection, parcel) for parcel in parcels]
            wanted, unwanted = examples[: len(like)], examples[len(like) :]
            query = wanted[0].to_dict()
            if len(wanted) > 1 or unwanted:
                query["like"] = [one.to_dict() for one in wanted]
                query["unlike"] = [one.to_dict() for one in unwanted]
            return rank(
                connection,
                generation,
                combined(wanted, unwanted),
                query,
                k=k,
                where=where,
                asking=Asking(recall, observations, explain),
                without=[parcel.id for parcel in parcels],
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
        recall: float = DEFAULT_RECALL,
        explain: bool = False,
    ) -> Matches:
        """Parcels whose vectors are closest to a given one.

        Args:
            vector: Shape ``(512,)``; any length but zero.
            collection: Whose space the vector is from; None where there is only one space.
            space: Id or digest of the space that the vector is from, to be held against it.
            k: Matches wanted, 1 to 1000.
            where: Which parcels and observations may be returned.
            observations: Return every matching observation instead of each parcel's best one.
            recall: Share of the true nearest that is to be found: .9, .95 or .99.
            explain: Say in the answer how it was found.

        Raises:
            NotFoundError: If there is no such collection, or nothing is published.
            InvalidInputError: If the vector has another size or is not finite.
            GenerationMismatchError: If it is from another space.
        """
        check_k(k)
        unit = _unit(vector)
        _may_take_long(k, where)
        generation = self._published.for_collection(collection)
        _check_space(space, generation.manifest)
        _check_dimensions(unit, generation)
        with statements.snapshot(self.engine) as connection:
            query = {"vector": f"{unit.shape[0]} numbers"}
            asking = Asking(recall, observations, explain)
            return rank(connection, generation, unit, query, k=k, where=where, asking=asking)

    def similar_by_chip(
        self,
        chip: Chip,
        *,
        collection: str | None = None,
        k: int = DEFAULT_K,
        where: ParcelFilter = _ALL,
        observations: bool = False,
        recall: float = DEFAULT_RECALL,
        explain: bool = False,
    ) -> Matches:
        """Parcels that look like an image that need not be stored; embeds it first.

        Args:
            chip: Reflectance with the bands of the space's encoder.
            collection: Whose space is asked; None where there is only one.
            k: Matches wanted, 1 to 1000.
            where: Which parcels and observations may be returned.
            observations: Return every matching observation instead of each parcel's best one.
            recall: Share of the true nearest that is to be found: .9, .95 or .99.
            explain: Say in the answer how it was found.

        Raises:
            ImageryError: If the chip lacks a band or any data.
            WeightsError: If the space's weights cannot be had.
            GenerationMismatchError: If they are no longer those that the index was made with.
        """
        # The only question that needs torch.
        from retriever.query_embedding import embed_chip

        check_k(k)
        about_to_wait()
        generation = self._published.for_collection(collection)
        with statements.snapshot(self.engine) as connection:
            space = get_space(connection, generation.space_id)
            vector = embed_chip(chip, space, self.settings)
            query = {"image": chip.scene, "datetime": iso(chip.acquired_at)}
            asking = Asking(recall, observations, explain)
            return rank(connection, generation, vector, query, k=k, where=where, asking=asking)

    def nearest(
        self,
        vector: FloatArray,
        *,
        collection: str | None = None,
        k: int = DEFAULT_K,
        where: ParcelFilter = _ALL,
        recall: float = DEFAULT_RECALL,
        observations: bool = False,
    ) -> Nearest:
        """The embeddings that are closest to a vector, without anything said of them.

        Asks the database only whether something was committed, and for conditions that the columns
        of the index do not hold.

        Args:
            vector: Shape ``(512,)``; any length but zero.
            collection: Whose space the vector is from; None where there is only one space.
            k: Matches wanted, 1 to 1000.
            where: Which parcels and observations may be returned.
            recall: Share of the true nearest that is to be found: .9, .95 or .99.
            observations: Return every matching observation instead of each parcel's best one.

        Raises:
            NotFoundError: If there is no such collection, or nothing is published.
            InvalidInputError: If the vector has another size or is not finite, or k or the recall
                is out of range.
        """
        check_k(k)
        unit = _unit(vector)
        generation = self._published.for_collection(collection)
        _check_dimensions(unit, generation)
        return nearest(
            generation,
            unit,
            k,
            where=where,
            catalog=LazyCatalog(self.engine, generation.space_id),
            recall=recall,
            observations=observations,
        )

    def nearest_many(
        self,
        vectors: FloatArray,
        *,
        collection: str | None = None,
        k: int = DEFAULT_K,
        recall: float = DEFAULT_RECALL,
        threads: int | None = None,
    ) -> list[Nearest]:
        """The embeddings that are closest to each of several vectors, without a filter.

        Args:
            vectors: Shape ``(n, 512)``; any length but zero.
            collection: Whose space the vectors are from; None where there is only one space.
            k: Matches wanted for each, 1 to 1000.
            recall: Share of the true nearest that is to be found: .9, .95 or .99.
            threads: Vectors at once, one core each; None for as many as there are cores.

        Raises:
            NotFoundError: If there is no such collection, or nothing is published.
            InvalidInputError: If the vectors have another size or are not finite, or k or the
                recall is out of range.
        """
        check_k(k)
        generation = self._published.for_collection(collection)
        units = np.stack([_unit(vector) for vector in vectors]) if len(vectors) else vectors
        if len(units):
            _check_dimensions(units[0], generation)
        return nearest_many(generation, units, k, recall=recall, threads=threads)

    # Parcels ---------------------------------------------------------------------------------

    def state(
        self,
        parcel_id: str,
        *,
        collection: str | None = None,
        where: ParcelFilter = _ALL,
        peers: bool = True,
    ) -> ParcelState:
        """The state of a parcel: observation by observation, over time, and against its kind.

        Args:
            parcel_id: The parcel.
            collection: Its collection; None where the id is unique over all.
            where: Only its interval counts.
            peers: Whether to hold it against its kind, which needs the vector index.

        Raises:
            NotFoundError: If there is no such parcel, or it was not observed in the interval.
        """
        with statements.snapshot(self.engine) as connection:
            parcel = find_parcel(connection, parcel_id, collection)
            seen = _observed(connection, parcel, where.interval)
            if not seen:
                when = f" in {quoted(str(where.interval))}" if where.interval else ""
                raise NotFoundError(
                    f"Parcel {quoted(parcel.parcel_id)} of {quoted(parcel.collection)} was not "
                    f"observed{when}; ask for another interval or none.",
                    kind="state-not-found",
                )
            vectors = _vectors(connection, parcel, where.interval)
            space = statements.space_of(connection, parcel.space_id)
            notes = [] if space is None else list(notes_for(space.recipe))
            measured = [one for one in seen if one.valid_pixels]
            if measured and not any(one.indices for one in measured):
                notes.append("No spectral index is measured: the images have none of their bands.")
            generation, against = None, None
            if peers:
                try:
                    generation, against = self._against_its_kind(connection, parcel, seen, vectors)
                except (NotFoundError, StorageError) as error:
                    # What was measured stays true without an index to compare it with.
                    notes.append(f"Not compared with other parcels: {error.told}")
        return ParcelState(
            parcel=ParcelFacts.from_row(parcel),
            observations=tuple(seen),
            reliability=reliability_of(seen),
            trend=trend_of(seen),
            peak=peak_of(seen),
            last_change=last_change_of(seen, vectors),
            gaps=gaps_of(seen),
            peers=against,
            generation=None if generation is None else generation.number,
            space=None if space is None else describe_space(space.recipe, space.digest),
            notes=tuple(notes),
        )

    def _against_its_kind(
        self,
        connection: Connection,
        parcel: statements.AnyRow,
        seen: Sequence[ObservedState],
        vectors: Mapping[str, FloatArray],
    ) -> tuple[OpenGeneration, Peers]:
        """Hold the latest reliable observation that has a vector against the parcel's kind."""
        generation = self._published.of_space(parcel.collection, parcel.space_id)
        embedded = dated([one for one in seen if one.scene in vectors])
        if not embedded:
            raise NotFoundError(
                "it has no reliable observation with a date and a vector.",
                kind="parcel-not-embedded",
            )
        acquired_at, latest = embedded[-1]
        place = None if parcel.longitude is None else (parcel.longitude, parcel.latitude)
        anchor = Anchor(
            parcel_row=parcel.id,
            vector=vectors[latest.scene],
            acquired_at=acquired_at,
            scene=latest.scene,
            medians=latest.medians,
            crop=statements.DeclaredCrop(parcel.collection_id, parcel.crop_code, parcel.crop_name),
            place=place,
        )
        return generation, peers_of(connection, generation, anchor)

    def compare(
        self,
        parcel_ids: Sequence[str],
        *,
        collection: str | None = None,
        where: ParcelFilter = _ALL,
    ) -> Comparison:
        """Parcels side by side, each by an observation of about the same date.

        Args:
            parcel_ids: From 2 to ``MOST_COMPARED`` parcels.
            collection: Their collection; None where the ids are unique over all.
            where: Only its interval counts.

        Raises:
            NotFoundError: If there is no such parcel.
            InvalidInputError: If an id stands in several collections, or twice among the ids, or
                there are too few or too many of them.
        """
        if not 2 <= len(parcel_ids) <= MOST_COMPARED:
            raise InvalidInputError(
                f"{len(parcel_ids)} parcels were given; compare 2 to {MOST_COMPARED}.",
                kind="invalid-examples",
            )
        if len(set(parcel_ids)) < len(parcel_ids):
            raise InvalidInputError(
                "A parcel was given twice; name parcels that differ.", kind="invalid-examples"
            )
        with statements.snapshot(self.engine) as connection:
            parcels = [find_parcel(connection, one, collection) for one in parcel_ids]
            series = [_observed(connection, one, where.interval) for one in parcels]
            vectors = [_vectors(connection, one, where.interval) for one in parcels]
            used = {one.space_id for one in parcels if one.space_id is not None}
            spaces = [statements.space_of(connection, space_id) for space_id in sorted(used)]
        chosen = comparable_observations(series)
        scores = pairwise_scores(
            [
                (parcel.space_id, known[seen.scene])
                if seen is not None and seen.scene in known
                else None
                for parcel, seen, known in zip(parcels, chosen, vectors, strict=True)
            ]
        )
        found = [space for space in spaces if space is not None]
        return Comparison(
            parcels=tuple(
                Compared(
                    parcel=ParcelFacts.from_row(parcel),
                    observation=seen,
                    reliability=reliability_of(observations),
                    trend=trend_of(observations),
                    peak=peak_of(observations),
                )
                for parcel, seen, observations in zip(parcels, chosen, series, strict=True)
            ),
            scores=scores,
            spaces=tuple(describe_space(space.recipe, space.digest) for space in found),
            notes=tuple(dict.fromkeys(note for space in found for note in notes_for(space.recipe))),
        )

    def collections(self, name: str | None = None) -> list[CollectionSummary]:
        """What there is: all collections, or one, as of the last publication.

        Args:
            name: The one; None for all.

        Raises:
            NotFoundError: If there is no collection of this name.
        """
        with statements.snapshot(self.engine) as connection:
            if name is not None:
                require_collection(connection, name)
            moment = (statements.published_spaces(connection), collection_names(connection))
            known, summaries = self._summaries
            if known != moment:
                # Reads every parcel and observation, which takes a while in a large catalog.
                rows = list_statements.summaries(connection)
                summaries = [CollectionSummary.from_row(row) for row in rows]
                self._summaries = (moment, summaries)
        return [found for found in summaries if name in (None, found.name)]

    def queryables(self, collection: str) -> tuple[Queryable, ...]:
        """What a filter may name of a collection's parcels, as of the last publication.

        Args:
            collection: Its name.

        Raises:
            NotFoundError: If there is no collection of this name.
        """
        with statements.snapshot(self.engine) as connection:
            require_collection(connection, collection)
            moment = statements.published_spaces(connection)
            known, found = self._queryables.get(collection, (None, ()))
            if known != moment:
                # Reads the attributes of every parcel.
                attributes = attribute_queryables(connection, (collection,))
                found = (*fixed_queryables(), *attributes)
                self._queryables[collection] = (moment, found)
        return found

    def parcels(
        self,
        *,
        where: ParcelFilter = _ALL,
        limit: int = DEFAULT_K,
        after: int = 0,
        count: bool = True,
    ) -> ParcelList:
        """Stored parcels that fit a filter, in order of their collections' age and of ids.

        Args:
            where: Which parcels; an interval leaves those that were observed in it.
            limit: Most parcels of the page, 1 to 1000.
            after: Row of the last parcel of the page before; 0 at the beginning.
            count: Whether to count all that fit, which costs more than a page.

        Raises:
            NotFoundError: If the filter names a collection that does not exist.
            InvalidInputError: If the limit is out of range, the filter names an attribute that
                no parcel has, or ``after`` is gone.
        """
        check_k(limit, "limit", "parcels")
        with statements.snapshot(self.engine) as connection:
            for name in where.collections:
                require_collection(connection, name)
            check_properties(connection, where)
            if after and not list_statements.has_parcel(connection, after):
                raise InvalidInputError(
                    "The parcel that the last page ended with is gone; begin again.",
                    kind="cursor-expired",
                )
            rows = list_statements.list_parcels(connection, where, after=after, limit=limit + 1)
            matched = None
            if count:
                matched = list_statements.count_parcels(connection, where, MOST_COUNTED + 1)
        return page_of(where.to_dict(), rows, limit, matched)

    def parcel(self, parcel_id: str, *, collection: str | None = None) -> ListedParcel:
        """One stored parcel with the observation that stands for it.

        Args:
            parcel_id: The parcel.
            collection: Its collection; None where the id is unique over all.

        Raises:
            NotFoundError: If there is no such parcel.
        """
        with statements.snapshot(self.engine) as connection:
            row = find_parcel(connection, parcel_id, collection).id
            return ListedParcel.from_row(list_statements.parcel_of_row(connection, row))

    def preview(
        self,
        parcel_id: str,
        *,
        collection: str | None = None,
        where: ParcelFilter = _ALL,
        style: Style = "true-color",
        size_px: int = DEFAULT_SIZE_PX,
    ) -> Preview:
        """A picture of a parcel: its latest reliable observation, else the latest.

        Args:
            parcel_id: The parcel.
            collection: Its collection; None where the id is unique over all.
            where: Only its interval counts.
            style: Which bands are shown.
            size_px: Width and height of the picture, 64 to 512.

        Raises:
            NotFoundError: If there is no such parcel, or it was not observed in the interval.
            InvalidInputError: If style or size is out of range.
        """
        with statements.snapshot(self.engine) as connection:
            return self._previews.find(
                connection,
                parcel_id,
                collection=collection,
                interval=where.interval,
                style=style,
                size_px=size_px,
            )

    def clusters(self, collection: str, *, k: int | None = None) -> Clusters:
        """The parcels of a collection in groups that look alike.

        Args:
            collection: The collection.
            k: None for the stored clusters, with their names; where there are none, for
                ``DEFAULT_CLUSTERS`` of the moment. A number for as many of the moment, 2 to 50 and
                no more than there are parcels with a vector; those have no names.

        Raises:
            NotFoundError: If there is no such collection, or nothing is published.
            InvalidInputError: If k is out of range.
        """
        stored = self._clusterings.stored(self.engine, collection) if k is None else None
        if stored is not None:
            return stored
        groups = DEFAULT_CLUSTERS if k is None else k
        return self._clusterings.of(self.engine, self._published, collection, groups)

    def name_cluster(
        self, collection: str, number: int, name: str | None, *, clustering: int | None = None
    ) -> str | None:
        """Give a stored cluster a name, which every process tells from the next question on.

        Args:
            collection: The collection.
            number: The cluster's number.
            name: 1 to 100 characters; None takes the name away.
            clustering: The clustering that the number is of; None for the current one.

        Returns:
            The name as it is stored.

        Raises:
            NotFoundError: If there is no such collection or cluster, or it was grouped anew since.
            InvalidInputError: If the name is none (``invalid-name``).
        """
        checked = None if name is None else check_name(name)
        name_cluster(self.engine, collection, number, checked, clustering_id=clustering)
        return checked

    def generations(self) -> list[OpenGeneration]:
        """The generations that answer now, one for each space in use."""
        return self._published.all()


def _may_take_long(k: int, where: ParcelFilter, examples: int = 0) -> None:
    """Say so of a search that a filter goes before, or that describes or asks with many parcels."""
    if k > _FEW_MATCHES or examples > _FEW_EXAMPLES or not where.is_empty:
        about_to_wait()


def _observed(
    connection: Connection, parcel: statements.AnyRow, interval: Interval | None
) -> list[ObservedState]:
    rows = statements.observations_of(connection, parcel.id, interval)
    return [ObservedState.from_row(row) for row in rows]


def _vectors(
    connection: Connection, parcel: statements.AnyRow, interval: Interval | None
) -> dict[str, FloatArray]:
    """Vectors of a parcel's observations in the space of its collection, by scene."""
    if parcel.space_id is None:
        return {}
    stored = statements.vectors_of(connection, parcel.space_id, parcel.id, interval)
    return {scene: vector_from(vector) for scene, vector in stored.items()}


def _unit(vector: FloatArray | Sequence[float]) -> FloatArray:
    if isinstance(vector, np.ndarray) and vector.dtype == np.float32 and vector.ndim == 1:
        with np.errstate(over="ignore"):
            square = float(np.dot(vector, vector))
        if abs(square - 1) < _UNIT_ROUNDING:
            return vector
    try:
        # Squares of large and of small float32 numbers exceed float32.
        values = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(
            "The query vector must be a list of numbers.", kind="invalid-vector"
        ) from None
    # Of numbers beyond 1e154 the squares are too large even so.
    with np.errstate(over="ignore"):
        length = np.linalg.norm(values)
    if not np.isfinite(length) or length == 0:
        raise InvalidInputError(
            "The query vector must hold finite numbers, not all zero.", kind="invalid-vector"
        )
    unit: FloatArray = (values / length).astype(np.float32)
    return unit


def _check_dimensions(unit: FloatArray, generation: OpenGeneration) -> None:
    if unit.shape != (generation.index.dimensions,):
        raise InvalidInputError(
            f"The query vector has shape {unit.shape}; the index holds vectors of "
            f"{generation.index.dimensions} numbers.",
            kind="invalid-vector",
        )


def _check_space(space: str | None, manifest: Manifest) -> None:
    if space is not None and (len(space) < 12 or not manifest.space_digest.startswith(space)):
        raise GenerationMismatchError(
            f"The query is from embedding space {quoted(space)}, the index from "
            f"{manifest.space_digest[:12]}; vectors of two spaces cannot be compared. Embed the "
            "query with the index's encoder and weights.",
            kind="space-mismatch",
        )
