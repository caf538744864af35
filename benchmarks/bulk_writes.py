r"""Rows of a reindex on their way into a database: by COPY, by INSERT, and into SQLite.

    python -m benchmarks.bulk_writes                  # 10,000 parcels at a time
    python -m benchmarks.bulk_writes --rows 2000 --rounds 9
    python -m benchmarks.bulk_writes --url postgresql+psycopg://user@host/database

Each parcel has an outline, an observation and a vector of 512 numbers: three rows, which a round
writes and commits. What is written is the same for all, and they take turns. ``COPY`` and
``SQLite`` are what Parcelle does (``indexer.catalog.bulk``); ``INSERT`` gives the same values to
the driver's ``executemany``. Without ``--url`` a PostgreSQL server is started in a folder of its
own, which does not wait for the disk (``fsync=off``); SQLite writes below ``TMPDIR`` and waits.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from shapely import Point, to_wkb
from sqlalchemy import Connection, Engine, delete, func, insert, select

from indexer.catalog.bulk import insert_rows
from indexer.catalog.database import connect, upgrade
from indexer.catalog.tables import Base, Embedding, Observation, Parcel
from indexer.catalog.writing import create_space, ensure_collection
from indexer.settings import Settings
from indexer.spectral_indices import INDICES
from tests.postgres import new_schema, started_server

Rows = list[dict[str, Any]]
Insert = Callable[[Connection, type[Base], Rows], None]

TABLES = {"parcels": Parcel, "observations": Observation, "embeddings": Embedding}
VECTOR = 512


def main() -> None:
    """Measure and print."""
    options = _options()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = options.url or stack.enter_context(started_server()).url
        postgres = stack.enter_context(_filled(stack.enter_context(new_schema(url)), folder))
        sqlite = stack.enter_context(_filled(f"sqlite:///{folder / 'parcelle.db'}", folder))
        ways: dict[str, tuple[Engine, Insert]] = {
            "COPY": (postgres, insert_rows),
            "INSERT": (postgres, insert_by_executemany),
            "SQLite": (sqlite, insert_rows),
        }
        drawn = _draw(options.rows)
        seconds: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for number in range(options.rounds + 1):
            for way, (engine, store) in ways.items():
                found = _round(engine, store, drawn)
                # The first round makes the tables' files, and is left out.
                if number:
                    seconds[way].append(found)
                    print(f"{way}: {found['all']:.2f} s", file=sys.stderr)
    print(json.dumps(_summary(options.rows, seconds), indent=2))


def insert_by_executemany(connection: Connection, table: type[Base], rows: Rows) -> None:
    """As ``insert_rows``, but one INSERT for all rows in place of a COPY."""
    names = tuple(rows[0])
    dialect = connection.dialect
    compiled = insert(table).inline().compile(dialect=dialect, column_keys=names)
    types = {name: table.__table__.columns[name].type.dialect_impl(dialect) for name in names}
    columns = []
    for name in names:
        convert = types[name].bind_processor(dialect)
        values = [row[name] for row in rows]
        columns.append(values if convert is None else list(map(convert, values)))
    parameters = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    connection.exec_driver_sql(str(compiled), parameters)


def _round(engine: Engine, store: Insert, drawn: dict[str, Rows]) -> dict[str, float]:
    """Write all rows and commit; seconds of each table, and of all with the commit."""
    with engine.begin() as connection:
        connection.execute(delete(Parcel))
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM")
    seconds = {}
    started = time.perf_counter()
    with engine.begin() as connection:
        ids: Sequence[int] = ()
        for name, table in TABLES.items():
            rows = _placed(name, drawn[name], ids)
            before = time.perf_counter()
            store(connection, table, rows)
            seconds[name] = time.perf_counter() - before
            asked, number = time.perf_counter(), table.__table__.c.id
            ids = connection.scalars(select(number).order_by(number)).all()
            started += time.perf_counter() - asked
    return {**seconds, "all": time.perf_counter() - started}


def _placed(name: str, rows: Rows, ids: Sequence[int]) -> Rows:
    """Rows that refer to those of the table before."""
    if name == "parcels":
        return rows
    reference = {"observations": "parcel_id", "embeddings": "observation_id"}[name]
    return [{**row, reference: id_} for row, id_ in zip(rows, ids, strict=True)]


def _draw(count: int) -> dict[str, Rows]:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((count, VECTOR)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # As many corners as a parcel of a register has, some thirty.
    outlines = to_wkb([Point(x, 49).buffer(0.001, 8) for x in random.uniform(2, 3, count)])
    summary = {"median": 0.5125, "mean": 0.5003, "std": 0.125, "p10": 0.25, "p90": 0.75}
    parcels = [
        {
            "collection_id": 1,
            "parcel_id": f"parcel-{number}",
            "geometry": outline,
            "west": 2.0,
            "south": 49.0,
            "east": 2.002,
            "north": 49.002,
            "area_m2": 12_345.5,
            "crop_code": "BTH",
            "crop_name": "winter wheat",
            "attributes": {"owner": f"owner {number}", "organic": True, "slope": 0.5},
        }
        for number, outline in enumerate(outlines)
    ]
    observation = {
        "scene": "S2A_MSIL2A_20230529T105031_N0509_R051_T31UDQ",
        "source": "/data/S2A_MSIL2A_20230529T105031_N0509_R051_T31UDQ.SAFE",
        "layer_bands": None,
        "acquired_at": datetime(2023, 5, 29, 10, 50, 31, tzinfo=UTC),
        "processing_baseline": "05.09",
        "pixels_inside": 120.25,
        "valid_pixels": 90.5,
        "valid_fraction": 0.75,
        "covered_fraction": 0.875,
        "cloud_cover_percent": 25.0,
        "reliable": True,
        "indices": {name: summary for name in INDICES},
        "fingerprint": "1" * 64,
    }
    embeddings = [
        {
            "space_id": 1,
            "fingerprint": "1" * 64,
            "vector": vector.tobytes(),
            "embedding": None,
            "superseded": False,
        }
        for vector in vectors
    ]
    return {
        "parcels": parcels,
        "observations": [observation] * count,
        "embeddings": embeddings,
    }


@contextmanager
def _filled(url: str, folder: Path) -> Iterator[Engine]:
    """A catalog with a collection and a space, both numbered 1."""
    engine = connect(Settings(data_dir=folder, database_url=url))
    upgrade(engine)
    with engine.begin() as connection:
        numbers = ensure_collection(connection, "demo"), create_space(connection, {}, "", None)
        assert numbers == (1, 1)
        assert connection.scalar(select(func.count()).select_from(Parcel)) == 0
    yield engine
    engine.dispose()


def _summary(rows: int, seconds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    middle = {
        way: {part: median(one[part] for one in rounds) for part in rounds[0]}
        for way, rounds in seconds.items()
    }
    return {
        "parcels": rows,
        "rounds": len(seconds["COPY"]),
        "rows_per_s": {
            way: {part: round((3 if part == "all" else 1) * rows / s) for part, s in parts.items()}
            for way, parts in middle.items()
        },
        "copy_over_insert": {
            part: round(middle["INSERT"][part] / s, 2) for part, s in middle["COPY"].items()
        },
        "copy_over_insert_each_round": [
            round(inserted["all"] / copied["all"], 2)
            for copied, inserted in zip(seconds["COPY"], seconds["INSERT"], strict=True)
        ],
        "copy_over_sqlite": round(middle["SQLite"]["all"] / middle["COPY"]["all"], 2),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000, help="parcels of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--url", help="of a PostgreSQL database, in which a schema is made")
    return parser.parse_args()


if __name__ == "__main__":
    main()
