"""A program that inserts, changes and deletes parcels, commit by commit, until it is killed.

It prints a line before each commit and another after it: what it is about to do, and that it is
done. What a parcel's vector is follows from its number and its turn.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, select

from indexer.catalog.database import connect
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import delete_parcels
from indexer.settings import Settings
from tests.indexer.catalog.filling import known_of, record, save, unit_vectors

FloatArray = npt.NDArray[np.float32]


def vector_of(number: int, turn: int) -> FloatArray:
    """What parcel ``number`` looks like in a turn."""
    found: FloatArray = unit_vectors(1, seed=1_000 * number + turn)[0]
    return found


@dataclass
class Told:
    """What a writer said."""

    done: dict[int, int | None] = field(default_factory=dict)
    """Turn of each parcel's vector that was committed last; None where it is deleted."""
    begun: tuple[int, int | None] | None = None
    """The step that may or may not be committed."""

    def hear(self, line: str) -> None:
        """Take one line of its output."""
        what, number, turn = line.split()
        step = (int(number), None if turn == "-" else int(turn))
        if what == "begin":
            self.begun = step
        else:
            self.done[step[0]] = step[1]
            self.begun = None

    def possible(self, number: int) -> set[int | None]:
        """What may stand in the catalog for a parcel."""
        found = {self.done.get(number)}
        if self.begun is not None and self.begun[0] == number:
            found.add(self.begun[1])
        return found


def _write(engine: Engine, space_id: int, number: int, turn: int | None) -> None:
    with engine.begin() as connection:
        name = f"p{number}"
        row = connection.scalar(select(ParcelRow.id).where(ParcelRow.parcel_id == name))
        if turn is None:
            delete_parcels(connection, [row] if row is not None else [])
            return
        known = None if row is None else known_of(connection, 1, space_id, name)
        print_of = f"{turn:064d}"
        one = record(name, vector_of(number, turn), fingerprint=print_of, known=known)
        save(connection, space_id, [one])


def main(data_dir: str, space_id: int, first: int) -> None:
    """Write for ever."""
    engine = connect(Settings(data_dir=Path(data_dir)))
    rng = np.random.default_rng(first)
    turn = first
    while True:
        turn += 1
        number = int(rng.integers(20))
        step = None if rng.random() < 0.3 else turn
        told = f"{number} {'-' if step is None else step}"
        print("begin", told, flush=True)
        _write(engine, space_id, number, step)
        print("done", told, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
