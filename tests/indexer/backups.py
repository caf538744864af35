"""Indexes to back up, and what they hold and answer, in a form that can be compared."""

import json
from pathlib import Path
from typing import Any

from sqlalchemy import select

from indexer.backup.description import Description
from indexer.catalog.changes import snapshot
from indexer.catalog.database import connect
from indexer.catalog.tables import Base
from indexer.clusters.making import make_clusters
from indexer.clusters.naming import name_cluster
from indexer.generations.files import digest_of
from indexer.settings import Settings
from retriever.cql2.expression import Expression
from retriever.queries import Bbox, ParcelFilter
from tests.retriever.planted import UNTRAINED, Seen, plant, random_vectors, searching, uproot

Rows = dict[str, list[dict[str, Any]]]

FIELDS = 12


def field(number: int, seed: int = 0, day: str = "2023-05-29") -> Seen:
    """A parcel of the larger collection; the seed decides its vector."""
    return Seen(
        f"field-{number:02}",
        random_vectors(1, 1000 * number + seed)[0],
        day=day,
        collection="fields",
        crop_name=("wheat", "maïs", None)[number % 3],
        corner=(2.0 + 0.02 * number, 49.0),
        indices={"NDVI": 0.3 + 0.05 * number},
        # More than 64 bits, which not every reader of JSON takes.
        attributes={"variety": "été" if number % 2 else "hiver", "tag": 2**70 + number},
    )


def plant_fields(settings: Settings) -> None:
    """Two collections in two spaces, a former generation, named clusters, and later changes."""
    plant(settings, [field(number) for number in range(FIELDS // 2)])
    meadows = [
        Seen(f"meadow-{number}", vector, collection="meadows", corner=None, day=None)
        for number, vector in enumerate(random_vectors(4, seed=7))
    ]
    plant(settings, meadows, weights=UNTRAINED)
    plant(settings, [field(number) for number in range(FIELDS)])
    plant(settings, [field(number, day="2023-08-12") for number in range(4)])
    make_clusters(settings, "fields", k=3)
    engine = connect(settings)
    name_cluster(engine, "fields", 1, "early")
    engine.dispose()
    plant(settings, [field(number, seed=1) for number in range(10, 14)], publish=False)
    # The last row of all, whose numbers must not be given again.
    plant(settings, [field(14)], publish=False)
    uproot(settings, "field-00", "field-14")


def rows_of(settings: Settings) -> Rows:
    """All rows, in the types of the tables, whatever the database is."""
    engine = connect(settings)
    try:
        with snapshot(engine) as connection:
            return {
                table.name: [
                    dict(row)
                    for row in connection.execute(
                        select(table).order_by(*table.primary_key.columns)
                    ).mappings()
                ]
                for table in Base.metadata.sorted_tables
            }
    finally:
        engine.dispose()


def answers_of(settings: Settings) -> str:
    """What searches, filters and states say, all of it, as JSON."""
    early = ParcelFilter(expression=Expression.parse("cluster = 'early'"))
    green = ParcelFilter(expression=Expression.parse("NDVI > 0.5 AND variety = 'été'"))
    inside = ParcelFilter(bbox=Bbox(2.0, 48.9, 2.15, 49.1))
    with searching(settings) as searcher:
        found = [
            searcher.similar_by_id("field-05", collection="fields", k=50, where=where).to_dict()
            for where in (ParcelFilter(), early, green, inside)
        ]
        # Of what was committed after the last generation.
        found.append(searcher.similar_by_id("field-13", collection="fields", k=50).to_dict())
        found.append(searcher.similar_by_id("meadow-1", collection="meadows").to_dict())
        found.append(searcher.state("field-01", collection="fields").to_dict())
        found.append(searcher.clusters("fields").to_dict(members=True))
    return json.dumps(found, sort_keys=True, default=str)


def damages_of(folder: Path) -> list[str]:
    """Files that are not what the backup says, and those that it does not name."""
    description = Description.read(folder)
    there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    del there["backup.json"]
    wrong = sorted(there.keys() ^ description.files.keys())
    return wrong + [
        name
        for name, path in there.items()
        if name in description.files
        and (path.stat().st_size, digest_of(path))
        != (description.files[name]["bytes"], description.files[name]["sha256"])
    ]
