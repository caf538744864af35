from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, delete, event, func, inspect, select

from indexer.catalog.clusters import (
    UnassignedName,
    add_members,
    replace_clustering,
    replace_unassigned_names,
)
from indexer.catalog.database import downgrade, schema_status, upgrade
from indexer.catalog.tables import Base, Collection, Embedding, Observation, Parcel
from indexer.catalog.writing import publish_generation
from tests.indexer.catalog.filling import PARCEL, make_space, record, save, unit_vectors

TABLES = {
    "changes",
    "cluster_members",
    "clusterings",
    "clusters",
    "collections",
    "embedding_spaces",
    "embeddings",
    "generations",
    "observations",
    "parcels",
    "unassigned_cluster_names",
}


CLUSTER_TABLES = {"cluster_members", "clusterings", "clusters", "unassigned_cluster_names"}
"""Those that the third revision adds."""

ADDED_TABLES = CLUSTER_TABLES | {"changes"}
"""Those that came after the second revision."""


def tables_of(engine: Engine) -> set[str]:
    """Names of all tables but the one in which Alembic keeps its place."""
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def populate(engine: Engine) -> None:
    """At least one row in each table, every reference in use."""
    with engine.begin() as connection:
        space_id = make_space(connection)
        collection_id = save(connection, space_id, [record("p1", unit_vectors(1)[0])])
        publish_generation(
            connection,
            generation_id=1,
            space_id=space_id,
            collection_id=collection_id,
            manifest={"generation": 1},
        )
        group(connection, space_id, collection_id)


def group(connection: Connection, space_id: int, collection_id: int) -> None:
    """One cluster that holds the one embedding, and a name that waits."""
    center = unit_vectors(1)[0]
    (cluster_id,) = replace_clustering(
        connection,
        collection_id,
        space_id=space_id,
        generation_id=1,
        k=2,
        chosen={"k": 2, "auto": False},
        clusters=[(center, 1)],
        names=["winter wheat"],
    ).values()
    ids = np.array(connection.scalars(select(Embedding.id)).all(), dtype=np.int64)
    add_members(connection, ids, np.array([cluster_id]), np.array([0.5], np.float32))
    waits = UnassignedName("maize", space_id, center, 3, "it vanished", [{"cluster": 1}])
    replace_unassigned_names(connection, collection_id, [waits])


def row_counts(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            table.name: connection.scalars(select(func.count()).select_from(table)).one()
            for table in Base.metadata.sorted_tables
        }


def test_the_migrated_schema_is_that_of_the_tables(engine: Engine) -> None:
    upgrade(engine)
    assert tables_of(engine) == TABLES == set(Base.metadata.tables)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_taking_all_migrations_back_leaves_nothing_behind(engine: Engine) -> None:
    upgrade(engine)
    downgrade(engine, "base")
    assert tables_of(engine) == set()
    assert schema_status(engine) == "empty"


def test_every_migration_can_be_taken_back_and_made_again(engine: Engine) -> None:
    script = ScriptDirectory(str(files("migrations")))
    for revision in reversed(list(script.walk_revisions())):
        upgrade(engine, revision.revision)
        before = _schema(engine)
        downgrade(engine, f"{revision.revision}-1")
        upgrade(engine, revision.revision)
        assert _schema(engine) == before
    assert schema_status(engine) == "current"


OLDER = [
    revision.revision
    for revision in list(ScriptDirectory(str(files("migrations"))).walk_revisions())[1:]
]
"""All revisions but the last, the newest first."""


@pytest.mark.parametrize("revision", OLDER)
def test_rows_are_kept_on_the_way_down_and_up_as_far_as_the_older_schema_can_hold_them(
    engine: Engine, revision: str
) -> None:
    upgrade(engine)
    populate(engine)
    populate_further(engine)
    before = contents(engine)
    assert min(map(len, before.values())) >= 1
    downgrade(engine, revision)
    older = contents(engine)
    held = {table: set(columns_of(engine, table)) for table in older}
    assert older == {table: limited_to(held[table], before[table]) for table in older}
    upgrade(engine)
    after = contents(engine)
    assert after.keys() == before.keys()
    for table, rows in after.items():
        expected = limited_to(held[table], before[table]) if table in held else []
        added = set(columns_of(engine, table)) - held.get(table, set())
        assert rows == [{**row, **dict.fromkeys(added)} for row in expected]
    go_on(engine)


def go_on(engine: Engine) -> None:
    """Write to a database that was taken down and up; ids that were given are not given again."""
    with engine.begin() as connection:
        space_id, last = connection.execute(
            select(Embedding.space_id, func.max(Embedding.id)).group_by(Embedding.space_id)
        ).one()
        save(connection, space_id, [record("new", unit_vectors(1, seed=9)[0])])
        assert connection.scalars(select(func.max(Embedding.id))).one() > last


def populate_further(engine: Engine) -> None:
    """Rows in which whatever may be null is, and texts and numbers are odd."""
    with engine.begin() as connection:
        space_id = connection.scalars(select(Embedding.space_id)).one()
        nowhere = replace(
            PARCEL,
            parcel_id="p\u00e9'\\ 2",
            geometry=None,
            area_m2=None,
            crop_code=None,
            crop_name="\u8fb2" * 4_000,
            attributes={"note": '\u2028"', "large": 2**70},
        )
        poor = record("p2", None, parcel=nowhere, acquired_at=None, processing_baseline=None)
        told = record("p3", unit_vectors(1, seed=3)[0], layer_bands=("B04", "B08"))
        save(connection, space_id, [poor, told])


def contents(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, as the driver gives it."""
    with engine.connect() as connection:
        found = {}
        for table in sorted(tables_of(engine)):
            rows = connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1").mappings()
            found[table] = [dict(row) for row in rows]
        return found


def columns_of(engine: Engine, table: str) -> list[str]:
    return [column["name"] for column in inspect(engine).get_columns(table)]


def limited_to(columns: set[str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name in columns} for row in rows]


def test_a_filled_database_can_be_taken_down_and_up(catalog: Engine) -> None:
    populate(catalog)
    assert min(row_counts(catalog).values()) == 1
    downgrade(catalog)
    assert tables_of(catalog) == set()
    upgrade(catalog)
    assert set(row_counts(catalog).values()) == {0}
    populate(catalog)


def test_upgrading_a_current_database_changes_nothing(catalog: Engine) -> None:
    populate(catalog)
    before = row_counts(catalog)
    upgrade(catalog)
    assert row_counts(catalog) == before
    assert schema_status(catalog) == "current"


def test_a_migration_that_is_interrupted_leaves_the_database_as_it_was(engine: Engine) -> None:
    """The last statements fail, as if the process had died before them."""

    def die(_connection: Connection, _cursor: object, statement: str, *_more: object) -> None:
        if "uq_embeddings_current" in statement:
            raise KeyboardInterrupt

    event.listen(engine, "before_cursor_execute", die)
    with pytest.raises(KeyboardInterrupt):
        upgrade(engine)
    event.remove(engine, "before_cursor_execute", die)
    assert tables_of(engine) == set()
    assert schema_status(engine) == "empty"
    upgrade(engine)
    assert schema_status(engine) == "current"


def test_a_filled_database_of_the_first_revision_is_upgraded_as_it_is(engine: Engine) -> None:
    upgrade(engine)
    populate(engine)
    downgrade(engine, "0001")
    assert schema_status(engine) == "outdated"
    with engine.connect() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("observations")}
    assert "layer_bands" not in columns
    upgrade(engine)
    assert schema_status(engine) == "current"
    counts = row_counts(engine)
    assert {name for name, count in counts.items() if count == 0} == ADDED_TABLES
    assert {counts[name] for name in TABLES - ADDED_TABLES} == {1}
    with engine.connect() as connection:
        (kept,) = connection.execute(select(Observation.scene, Observation.layer_bands)).all()
    assert tuple(kept) == ("scene", None)


def test_clusters_go_with_their_revision_and_nothing_else_does(engine: Engine) -> None:
    upgrade(engine)
    populate(engine)
    downgrade(engine, "0003")
    kept = tables_of(engine)
    downgrade(engine, "0002")
    assert tables_of(engine) == kept - CLUSTER_TABLES
    upgrade(engine, "0003")
    assert tables_of(engine) == kept
    upgrade(engine)
    counts = row_counts(engine)
    assert counts == {name: int(name not in ADDED_TABLES) for name in TABLES}
    with engine.begin() as connection:
        (space_id, collection_id) = connection.execute(
            select(Collection.space_id, Collection.id)
        ).one()
        assert space_id is not None
        group(connection, space_id, collection_id)
    assert {row_counts(engine)[name] for name in TABLES - {"changes"}} == {1}


def test_the_change_log_goes_with_its_revision_and_nothing_else_does(engine: Engine) -> None:
    upgrade(engine)
    populate(engine)
    downgrade(engine, "0003")
    assert tables_of(engine) == TABLES - {"changes"}
    upgrade(engine)
    assert row_counts(engine) == {name: int(name != "changes") for name in TABLES}


def test_what_a_collection_and_its_embeddings_were_grouped_into_goes_with_them(
    catalog: Engine,
) -> None:
    populate(catalog)
    with catalog.begin() as connection:
        connection.execute(delete(Embedding))
    assert row_counts(catalog)["cluster_members"] == 0
    with catalog.begin() as connection:
        connection.execute(delete(Parcel))
        connection.execute(delete(Collection))
    assert {row_counts(catalog)[name] for name in CLUSTER_TABLES} == {0}


def test_a_column_is_added_without_writing_the_table_anew(engine: Engine) -> None:
    upgrade(engine)
    populate(engine)
    downgrade(engine, "0001")
    before = place_of_observations(engine)
    upgrade(engine)
    assert place_of_observations(engine) == before


def place_of_observations(engine: Engine) -> int:
    """Where the database keeps the table; another one holds a table that was rewritten."""
    sqlite = "SELECT rootpage FROM sqlite_master WHERE name = 'observations'"
    postgresql = "SELECT pg_relation_filenode('observations')"
    with engine.connect() as connection:
        asked = sqlite if engine.dialect.name == "sqlite" else postgresql
        return int(connection.exec_driver_sql(asked).scalar_one())


def test_what_others_refer_to_by_its_number_is_numbered_once_and_for_all(
    catalog: Engine,
) -> None:
    if catalog.dialect.name == "sqlite":
        with catalog.connect() as connection:
            rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master").all()
        made: dict[str, str] = {name: statement or "" for name, statement in rows}
        numbered = {name for name in TABLES if "AUTOINCREMENT" in made[name].upper()}
        assert numbered == {"changes", "clusterings", "embeddings", "generations"}
    else:
        # A sequence never goes back.
        own = TABLES - {"cluster_members"}
        ids = [inspect(catalog).get_columns(name)[0] for name in own]
        assert all("nextval" in str(column["default"]) for column in ids)


def _schema(engine: Engine) -> dict[str, Any]:
    found = inspect(engine)
    return {
        name: (
            [(column["name"], str(column["type"])) for column in found.get_columns(name)],
            sorted(str(index["name"]) for index in found.get_indexes(name)),
        )
        for name in sorted(tables_of(engine))
    }
