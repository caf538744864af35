"""A catalog whose parcels are published again and again, and the questions that tests put to it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, select

from indexer.catalog.changes import snapshot
from indexer.catalog.reading import answering, find_collection, generation_records
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import delete_parcels
from indexer.delta import Delta
from indexer.generations.manifest import Manifest
from indexer.generations.store import build_generation, open_generation
from tests.indexer.catalog.filling import known_of, make_space, record, save, unit_vectors

FloatArray = npt.NDArray[np.float32]

VECTORS = unit_vectors(40)


class Published:
    """A catalog and its generations; nothing is in it yet."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder

    def space(self) -> int:
        with self.engine.begin() as connection:
            return make_space(connection)

    def save(self, space_id: int, parcel_id: str, vector: int, collection: str = "demo") -> int:
        """Store the vector of that number for a parcel, in place of what was there."""
        with self.engine.begin() as connection:
            known = None
            there = find_collection(connection, collection)
            if there is not None:
                known = known_of(connection, there[0], space_id, parcel_id)
            # Each vector comes from other pixels.
            print_of = f"{vector:064d}"
            one = record(parcel_id, VECTORS[vector], fingerprint=print_of, known=known)
            return save(connection, space_id, [one], collection=collection)

    def delete(self, *parcel_ids: str) -> None:
        with self.engine.begin() as connection:
            rows = select(ParcelRow.id).where(ParcelRow.parcel_id.in_(parcel_ids))
            delete_parcels(connection, connection.scalars(rows).all())

    def publish(self, space_id: int, collection_id: int | None = None) -> Manifest:
        return build_generation(self.engine, self.folder, space_id, collection_id)

    @property
    def rows(self) -> list[int]:
        """Generations of the database, latest first."""
        with self.engine.connect() as connection:
            return [record.number for record in generation_records(connection)]

    @property
    def folders(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()

    @property
    def current(self) -> dict[int, int]:
        """By space the generation that answers."""
        with self.engine.connect() as connection:
            return {one.space_id: one.generation for one in answering(connection)}

    def found(self, space_id: int) -> dict[int, int]:
        """What a search in a space may find: vectors by their numbers, and the ids of each."""
        number = self.current[space_id]
        with snapshot(self.engine) as connection:
            records = {one.number: one for one in generation_records(connection)}
            manifest = records[number].manifest
            index, columns = open_generation(self.folder, manifest)
            delta = Delta.empty(columns, index.dimensions, manifest.last_change)
            delta = delta.advanced(connection, space_id, columns)
        found = {}
        for row in range(index.rows):
            word, bit = divmod(row, 64)
            if not int(delta.removed[word]) >> bit & 1:
                found[int(columns.ids[row])] = index.vectors(np.array([row]))[0]
        for block in delta.blocks:
            for place in np.flatnonzero(block.live):
                found[int(block.columns.ids[place])] = block.vectors[place]
        return {id_: int(np.argmax(VECTORS @ vector)) for id_, vector in found.items()}
