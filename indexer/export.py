"""``export``: the vectors of an index as a file."""

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine

from indexer.catalog.reading import collection_spaces, get_space, rows_to_export
from indexer.embedding_space import describe_space, notes_for
from indexer.errors import InvalidInputError, NotFoundError
from indexer.vector_files import VectorRow, check_suffix, growing_array, write_vectors


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote."""

    files: list[str]
    rows: int
    space: dict[str, Any]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dict(self.__dict__)


def export(engine: Engine, out: Path, collection: str | None = None) -> ExportReport:
    """Write the current vectors of a collection, or of all if they share one space.

    Args:
        engine: A catalog of this version.
        out: ``.npy``, with a JSON sidecar that names the rows, or ``.parquet``.
        collection: None exports all collections.

    Raises:
        NotFoundError: If there is no such collection or it has no vectors.
        InvalidInputError: If the collections lie in different spaces.
    """
    check_suffix(out)
    space_id = _space_of(engine, collection)
    with engine.connect() as connection, growing_array(out) as vectors:
        space = get_space(connection, space_id)
        rows: list[VectorRow] = []
        with closing(rows_to_export(connection, space_id, collection)) as found:
            for vector, *fields in found:
                vectors.append(np.frombuffer(vector, dtype="<f4").astype(np.float32))
                rows.append(VectorRow(*fields))
        about: dict[str, Any] = {
            "space": {**describe_space(space.recipe, space.digest), "digest": space.digest},
            "recipe": space.recipe,
            "notes": list(notes_for(space.recipe)),
            "processing:datetime": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        files = write_vectors(out, vectors.mapped(), rows, about)
    return ExportReport(
        files=[str(file) for file in files],
        rows=len(rows),
        space=about["space"],
        notes=about["notes"],
    )


def _space_of(engine: Engine, collection: str | None) -> int:
    with engine.connect() as connection:
        found = collection_spaces(connection)
    names = ", ".join(found) or "none"
    if collection is not None and collection not in found:
        raise NotFoundError(
            f"No collection {collection}; there is {names}.", kind="collection-not-found"
        )
    chosen = [found[collection]] if collection is not None else found.values()
    spaces = {space for space in chosen if space is not None}
    if not spaces:
        raise NotFoundError(
            "There are no vectors to export yet; run parcelle reindex.",
            kind="generation-not-found",
        )
    if len(spaces) > 1:
        raise InvalidInputError(
            f"The collections ({names}) lie in different embedding spaces; name one with "
            "--collection.",
            kind="invalid-collection",
        )
    return spaces.pop()
