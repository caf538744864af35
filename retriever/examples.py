"""Parcels as examples: more like these, less like those."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from indexer.errors import GenerationMismatchError, InvalidInputError, NotFoundError
from retriever import statements
from retriever.quoting import quoted
from retriever.results import iso

FloatArray = npt.NDArray[np.float32]

AVOIDANCE = 0.5
"""Weight of the mean of what is not wanted against the mean of what is (Rocchio's formula).

Rocchio (1971), Relevance feedback in information retrieval, in Salton, The SMART Retrieval
System, 313-323. At one half, what both kinds of examples share stays in the query.
"""


@dataclass(frozen=True)
class Example:
    """A stored parcel with the observation that stands for it."""

    parcel: statements.AnyRow
    vector: FloatArray
    acquired_at: datetime | None
    scene: str
    reliable: bool

    @classmethod
    def of(cls, connection: Connection, parcel: statements.AnyRow) -> "Example":
        """A parcel by its latest reliable observation with a vector, else the latest.

        Args:
            connection: Open connection.
            parcel: The parcel.

        Raises:
            NotFoundError: If it has none (``parcel-not-embedded``).
        """
        asked = statements.query_vector(connection, parcel.space_id, parcel.id)
        if asked is None:
            raise NotFoundError(
                f"Parcel {quoted(parcel.parcel_id)} of {quoted(parcel.collection)} has no "
                "vector: clouds or gaps hide too much of it in every image. Its state can "
                "still be asked for.",
                kind="parcel-not-embedded",
            )
        return cls(
            parcel=parcel,
            vector=vector_from(asked.vector),
            acquired_at=asked.acquired_at,
            scene=asked.scene,
            reliable=asked.reliable,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "collection": self.parcel.collection,
            "id": self.parcel.parcel_id,
            "datetime": iso(self.acquired_at),
            "scene": self.scene,
            "reliable": self.reliable,
        }


def vector_from(stored: bytes) -> FloatArray:
    """A vector as the catalog holds it, shape ``(d,)``."""
    return np.frombuffer(stored, dtype="<f4").astype(np.float32)


def check_examples(like: Sequence[str], unlike: Sequence[str]) -> None:
    """Let ids pass of which at least one is wanted, and none stands twice.

    Raises:
        InvalidInputError: Else (``invalid-examples``).
    """
    if not like:
        raise InvalidInputError(
            "Name at least one parcel that matches should be like.", kind="invalid-examples"
        )
    twice = [one for one, times in Counter([*like, *unlike]).items() if times > 1]
    if twice:
        raise InvalidInputError(
            f"Parcel {quoted(twice[0])} stands twice among the examples; name it once.",
            kind="invalid-examples",
        )


def check_one_space(parcels: Sequence[statements.AnyRow]) -> None:
    """Let parcels pass whose vectors can be combined.

    Raises:
        GenerationMismatchError: If two are from different embedding spaces.
    """
    first, *others = parcels
    for other in others:
        if other.space_id != first.space_id:
            named = " and ".join(
                f"{quoted(one.parcel_id)} of {quoted(one.collection)}" for one in (first, other)
            )
            raise GenerationMismatchError(
                f"{named} lie in different embedding spaces, which never meet in one search; "
                "leave one of them out.",
                kind="space-mismatch",
            )


def combined(like: Sequence[Example], unlike: Sequence[Example]) -> FloatArray:
    """The unit vector that is near to what is wanted and away from what is not.

    Args:
        like: At least one.
        unlike: Any number.

    Raises:
        InvalidInputError: If they cancel each other out (``invalid-examples``).
    """
    if len(like) == 1 and not unlike:
        return like[0].vector
    vector = np.mean([one.vector for one in like], axis=0, dtype=np.float64)
    if unlike:
        vector -= AVOIDANCE * np.mean([one.vector for one in unlike], axis=0, dtype=np.float64)
    length = np.linalg.norm(vector)
    if length < 1e-6:
        raise InvalidInputError(
            "The examples cancel each other out; leave some of them out.", kind="invalid-examples"
        )
    return np.asarray(vector / length, dtype=np.float32)
