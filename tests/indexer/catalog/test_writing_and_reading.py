from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from shapely import box
from sqlalchemy import Connection, Engine, func, insert, select, text, update

from indexer.catalog import writing
from indexer.catalog.reading import (
    answering,
    collection_names,
    collection_space,
    count_collection,
    count_kept_embeddings,
    current_extent,
    embeddings_of_parcels,
    find_collection,
    find_space,
    get_generation,
    get_space,
    has_embeddings,
    kept_embeddings,
    known_observations,
    list_generations,
    next_generation_id,
    parcels_gone,
    rows_without_vector,
    searched_spaces,
    vector_blocks,
)
from indexer.catalog.tables import (
    Cluster,
    Clustering,
    ClusterMember,
    Embedding,
    Observation,
)
from indexer.catalog.tables import Parcel as ParcelRow
from indexer.catalog.writing import (
    delete_parcels,
    ensure_collection,
    freeze_projection,
    publish_generation,
    remember_image,
    remember_weights_path,
    save_parcels,
    set_vectors,
)
from indexer.embedding_space import space_digest
from indexer.errors import NotFoundError
from indexer.generations.manifest import Published
from indexer.parcels.parcel import Parcel
from indexer.parcels.troubles import MAX_ID_BYTES
from tests.indexer.catalog.filling import (
    ACQUIRED_AT,
    PARCEL,
    PROJECTION,
    RECIPE,
    STATE,
    embedding_rows,
    known_of,
    make_space,
    manifest,
    record,
    save,
    unit_vectors,
)

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


def stored_vectors(connection: Connection, space_id: int) -> tuple[IntArray, FloatArray]:
    """Ids and vectors of all blocks."""
    blocks = list(vector_blocks(connection, space_id))
    return np.concatenate([ids for ids, _ in blocks]), np.concatenate(
        [vectors for _, vectors in blocks]
    )


def publish(
    connection: Connection, generation_id: int, space_id: int, collection_id: int | None = None
) -> None:
    publish_generation(
        connection,
        generation_id=generation_id,
        space_id=space_id,
        collection_id=collection_id,
        manifest=manifest(generation_id).to_dict(),
    )


# Collections and parcels ---------------------------------------------------------------------


def test_a_collection_is_made_once(connection: Connection) -> None:
    first = ensure_collection(connection, "demo")
    assert ensure_collection(connection, "demo") == first
    assert ensure_collection(connection, "another") != first
    assert collection_names(connection) == ["another", "demo"]


def test_a_collection_has_no_space_until_something_is_published(connection: Connection) -> None:
    collection_id = ensure_collection(connection, "demo")
    assert find_collection(connection, "demo") == (collection_id, None)
    assert collection_space(connection, "demo") is None
    space_id = make_space(connection)
    publish(connection, 1, space_id, collection_id)
    assert find_collection(connection, "demo") == (collection_id, space_id)
    space = collection_space(connection, "demo")
    assert space is not None
    assert space.id == space_id


def test_an_unknown_collection_is_none(connection: Connection) -> None:
    assert find_collection(connection, "demo") is None
    assert collection_space(connection, "demo") is None


def test_a_parcel_is_stored_with_all_that_is_known_of_it(connection: Connection) -> None:
    collection_id = ensure_collection(connection, "demo")
    rows = save_parcels(connection, collection_id, [PARCEL])
    stored = connection.execute(select(ParcelRow.__table__)).one()
    assert rows == {"p1": stored.id}
    assert shapely.from_wkb(stored.geometry).equals(PARCEL.geometry)
    assert (stored.west, stored.south, stored.east, stored.north) == (2.0, 49.0, 2.01, 49.02)
    assert (stored.area_m2, stored.crop_code, stored.crop_name) == (12_345.5, "BTH", "winter wheat")
    assert stored.attributes == PARCEL.attributes


def test_the_longest_ids_that_are_taken_fit_into_every_index(connection: Connection) -> None:
    """Letters at random, which no index can make shorter."""
    letters = np.random.default_rng(0)
    longest = "".join(map(chr, letters.integers(0x800, 0xD800, MAX_ID_BYTES // 3)))
    assert MAX_ID_BYTES - 3 < len(longest.encode()) <= MAX_ID_BYTES
    # Of an item of a catalog, and of a file, whose name has 255 bytes.
    item = "".join(map(chr, letters.integers(0x20000, 0x2A6D0, 250)))
    space_id = make_space(connection)
    records = [record(longest, scene=item), record(item, scene=longest[:85])]
    save(connection, space_id, records)
    found = connection.execute(select(ParcelRow.parcel_id, Observation.scene).join(Observation))
    assert set(map(tuple, found)) == {(longest, item), (item, longest[:85])}


def test_a_parcel_without_a_place_is_stored_without(connection: Connection) -> None:
    collection_id = ensure_collection(connection, "demo")
    save_parcels(connection, collection_id, [Parcel("demo", "chip", None)])
    stored = connection.execute(select(ParcelRow.__table__)).one()
    assert (stored.geometry, stored.west, stored.area_m2, stored.crop_name) == (None,) * 4


def test_a_changed_parcel_is_updated_under_its_row(connection: Connection) -> None:
    collection_id = ensure_collection(connection, "demo")
    before = save_parcels(connection, collection_id, [PARCEL])
    moved = replace(PARCEL, crop_name="rapeseed", geometry=box(3.0, 49.0, 3.5, 49.5))
    assert save_parcels(connection, collection_id, [moved]) == before
    stored = connection.execute(select(ParcelRow.__table__)).one()
    assert (stored.crop_name, stored.west, stored.east) == ("rapeseed", 3.0, 3.5)


def test_the_time_of_update_is_that_of_the_last_change(catalog: Engine) -> None:
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    with catalog.begin() as connection:
        collection_id = ensure_collection(connection, "demo")
        save_parcels(connection, collection_id, [PARCEL, replace(PARCEL, parcel_id="p2")])
        connection.execute(update(ParcelRow).values(updated_at=long_ago))
    with catalog.begin() as connection:
        changed = replace(PARCEL, crop_name="rapeseed")
        save_parcels(connection, collection_id, [changed, replace(PARCEL, parcel_id="p2")])
        times = dict(connection.execute(select(ParcelRow.parcel_id, ParcelRow.updated_at)).all())
    assert times["p1"] > datetime(2023, 1, 1, tzinfo=UTC)
    assert times["p2"] == long_ago


def test_a_parcel_named_twice_is_stored_once(connection: Connection) -> None:
    collection_id = ensure_collection(connection, "demo")
    rows = save_parcels(connection, collection_id, [PARCEL, replace(PARCEL, crop_name="maize")])
    assert list(rows) == ["p1"]
    assert connection.scalars(select(ParcelRow.crop_name)).all() == ["maize"]


def test_more_parcels_than_a_statement_takes_parameters_are_found_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The default maximum of SQLite, https://sqlite.org/limits.html.
    assert writing._MOST_PARAMETERS < 32_766
    monkeypatch.setattr(writing, "_MOST_PARAMETERS", 2)
    collection_id = ensure_collection(connection, "demo")
    parcels = [replace(PARCEL, parcel_id=f"p{number}") for number in range(5)]
    first = save_parcels(connection, collection_id, parcels[:4])
    second = save_parcels(connection, collection_id, parcels)
    assert first.items() <= second.items()
    assert connection.scalars(select(func.count()).select_from(ParcelRow)).one() == 5


def test_new_parcels_are_numbered_in_the_order_in_which_they_are_named(
    connection: Connection,
) -> None:
    collection_id = ensure_collection(connection, "demo")
    names = [f"p{number}" for number in (7, 3, 9, 1, 5)]
    save_parcels(connection, collection_id, [replace(PARCEL, parcel_id="p3")])
    rows = save_parcels(connection, collection_id, [replace(PARCEL, parcel_id=n) for n in names])
    assert rows == {"p3": 1, "p7": 2, "p9": 3, "p1": 4, "p5": 5}


def test_each_of_many_changed_parcels_is_updated_under_its_own_row(connection: Connection) -> None:
    collection_id = ensure_collection(connection, "demo")
    parcels = [replace(PARCEL, parcel_id=f"p{number}") for number in range(4)]
    before = save_parcels(connection, collection_id, parcels)
    changed = [
        replace(parcels[2], crop_name="maize"),
        parcels[1],
        replace(parcels[0], crop_code=None, attributes={"owner": "somebody"}),
    ]
    after = save_parcels(connection, collection_id, changed)
    assert after == {name: before[name] for name in ("p2", "p1", "p0")}
    stored = connection.execute(
        select(ParcelRow.crop_name, ParcelRow.crop_code, ParcelRow.attributes).order_by(
            ParcelRow.id
        )
    ).all()
    as_it_was = ("winter wheat", "BTH", PARCEL.attributes)
    assert [tuple(row) for row in stored] == [
        ("winter wheat", None, {"owner": "somebody"}),
        as_it_was,
        ("maize", "BTH", PARCEL.attributes),
        as_it_was,
    ]


# Parcels that are gone -----------------------------------------------------------------------


def test_a_parcel_that_is_not_named_is_gone(connection: Connection) -> None:
    collection_id = ensure_collection(connection, "demo")
    parcels = [replace(PARCEL, parcel_id=f"p{number}") for number in range(4)]
    rows = save_parcels(connection, collection_id, parcels)
    save_parcels(connection, ensure_collection(connection, "other"), parcels)
    gone = parcels_gone(connection, collection_id, {"p0", "p2", "never seen"})
    assert gone == {"p1": rows["p1"], "p3": rows["p3"]}
    assert parcels_gone(connection, collection_id, {one.parcel_id for one in parcels}) == {}


def test_embeddings_of_parcels_are_the_current_ones_of_one_space(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_MOST_PARAMETERS", 2)
    space_id, other_space = make_space(connection), make_space(connection)
    vectors = unit_vectors(6)
    records = [record(f"p{number}", vector) for number, vector in enumerate(vectors[:4])]
    collection_id = save(connection, space_id, records)
    known = known_of(connection, collection_id, space_id, "p1")
    # Embedding 1 of p0 to 4 of p3; 5 takes the place of 2, and 6 is of another space.
    save(connection, space_id, [record("p1", vectors[4], fingerprint="2" * 64, known=known)])
    known = known_of(connection, collection_id, other_space, "p0")
    save(connection, other_space, [record("p0", vectors[5], known=known)])
    rows = list(parcels_gone(connection, collection_id, {"p2"}).values())
    found = embeddings_of_parcels(connection, space_id, rows)
    assert found.tolist() == [1, 4, 5]
    assert found.dtype == np.int64
    assert embeddings_of_parcels(connection, other_space, rows).tolist() == [6]
    assert embeddings_of_parcels(connection, space_id, []).tolist() == []


def test_a_deleted_parcel_leaves_nothing_behind_and_others_alone(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_MOST_PARAMETERS", 2)
    spaces = [make_space(connection) for _ in range(2)]
    vectors = unit_vectors(4)
    for space_id in spaces:
        known = [known_of(connection, 1, space_id, f"p{number}") for number in range(4)]
        save(
            connection,
            space_id,
            [record(f"p{n}", vectors[n], known=known[n]) for n in range(4)],
        )
    save(connection, spaces[0], [record("p1", vectors[1])], collection="other")
    put_into_a_cluster(connection, spaces[0])
    gone = parcels_gone(connection, 1, {"p2"})
    delete_parcels(connection, list(gone.values()))
    kept = [("demo", "p2"), ("other", "p1")]
    assert stored_parcels(connection) == kept
    assert connection.scalars(select(func.count()).select_from(Observation)).one() == 2
    # Of p2 in both spaces, and of the other collection's parcel.
    assert connection.scalars(select(Embedding.id).order_by(Embedding.id)).all() == [3, 7, 9]
    members = connection.scalars(select(ClusterMember.embedding_id).order_by("embedding_id")).all()
    assert members == [3, 9]


def put_into_a_cluster(connection: Connection, space_id: int) -> None:
    """Make one cluster of all embeddings of a space."""
    connection.execute(
        insert(Clustering).values(
            id=1, collection_id=1, space_id=space_id, generation_id=1, k=1, chosen={}
        )
    )
    connection.execute(
        insert(Cluster).values(id=1, clustering_id=1, number=1, centroid=b"", parcels=4)
    )
    embeddings = connection.scalars(select(Embedding.id).where(Embedding.space_id == space_id))
    members = [{"embedding_id": one, "cluster_id": 1, "score": 1.0} for one in embeddings]
    connection.execute(insert(ClusterMember), members)


def stored_parcels(connection: Connection) -> list[tuple[str, str]]:
    """Collection and id of every parcel, in this order."""
    rows = connection.execute(
        text(
            "SELECT collections.name, parcels.parcel_id FROM parcels "
            "JOIN collections ON collections.id = parcels.collection_id ORDER BY 1, 2"
        )
    )
    return [(row[0], row[1]) for row in rows]


# Observations and embeddings -----------------------------------------------------------------


@pytest.mark.parametrize("named", [None, ("B02", "-", "B08")])
def test_how_the_layers_of_an_image_were_named_is_kept(
    connection: Connection, named: tuple[str, ...] | None
) -> None:
    space_id = make_space(connection)
    collection_id = save(connection, space_id, [record(layer_bands=named)])
    known = known_of(connection, collection_id, space_id)
    assert known is not None
    assert (known.source, known.layer_bands) == ("images/scene.tif", named)
    # Not the word null in JSON, which older rows do not hold.
    empty = connection.scalars(select(func.count()).where(Observation.layer_bands.is_(None))).one()
    assert empty == (named is None)


def test_an_image_that_moved_is_noted_for_what_it_shows_only(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_MOST_PARAMETERS", 2)
    space_id = make_space(connection)
    collection_id = save(connection, space_id, [record(f"p{n}") for n in range(4)])
    known = {n: known_of(connection, collection_id, space_id, f"p{n}") for n in range(4)}
    shown = [one.observation_id for n, one in known.items() if one is not None and n > 0]
    remember_image(connection, shown, "/new/scene.tif", ("B02", "B03"))
    stored = connection.execute(
        select(ParcelRow.parcel_id, Observation.source, Observation.layer_bands)
        .join(ParcelRow)
        .order_by(ParcelRow.parcel_id)
    ).all()
    assert [tuple(row) for row in stored] == [
        ("p0", "images/scene.tif", None),
        *((f"p{n}", "/new/scene.tif", ["B02", "B03"]) for n in (1, 2, 3)),
    ]


def test_an_observation_is_stored_with_its_state(connection: Connection) -> None:
    save(connection, make_space(connection), [record()])
    stored = connection.execute(select(Observation.__table__)).one()
    assert (stored.scene, stored.source, stored.processing_baseline, stored.acquired_at) == (
        "scene",
        "images/scene.tif",
        "05.09",
        ACQUIRED_AT,
    )
    for name in (
        "pixels_inside",
        "valid_pixels",
        "valid_fraction",
        "covered_fraction",
        "cloud_cover_percent",
        "reliable",
    ):
        assert getattr(stored, name) == getattr(STATE, name)
    assert stored.indices == {
        "NDVI": {"median": 0.5, "mean": 0.25, "std": 0.125, "p10": 0.1, "p90": 0.9}
    }


def test_what_is_known_is_what_was_saved(connection: Connection) -> None:
    space_id = make_space(connection)
    vector = unit_vectors(1)[0]
    collection_id = save(connection, space_id, [record("p1", vector), record("p2")])
    known = known_observations(connection, collection_id, space_id, "scene", ["p1", "p2", "p3"])
    assert known.keys() == {"p1", "p2"}
    assert known["p1"].fingerprint == known["p1"].embedded == "1" * 64
    assert known["p1"].embedding_id == 1
    assert (known["p2"].embedded, known["p2"].embedding_id) == (None, None)


def test_new_rows_are_numbered_in_the_order_of_the_records(connection: Connection) -> None:
    space_id = make_space(connection)
    vectors = unit_vectors(6)
    collection_id = save(connection, space_id, [record("p4", vectors[0])])
    known = known_of(connection, collection_id, space_id, "p4")
    records = [
        record("p9", vectors[1]),
        record("p4", vectors[2], fingerprint="2" * 64, known=known),
        record("p1", None),
        record("p7", vectors[3], scene="later"),
        record("p7", vectors[4]),
        record("p4", vectors[5], scene="later"),
    ]
    save(connection, space_id, records)
    stored = connection.execute(
        select(
            ParcelRow.parcel_id,
            Observation.scene,
            Observation.id,
            Observation.fingerprint,
            Embedding.id,
            Embedding.vector,
        )
        .join(Observation, Observation.parcel_id == ParcelRow.id)
        .outerjoin(Embedding, Embedding.observation_id == Observation.id)
        .order_by(Observation.id, Embedding.id)
    )
    assert [tuple(row) for row in stored] == [
        ("p4", "scene", 1, "2" * 64, 1, vectors[0].tobytes()),
        ("p4", "scene", 1, "2" * 64, 3, vectors[2].tobytes()),
        ("p9", "scene", 2, "1" * 64, 2, vectors[1].tobytes()),
        ("p1", "scene", 3, "1" * 64, None, None),
        ("p7", "later", 4, "1" * 64, 4, vectors[3].tobytes()),
        ("p7", "scene", 5, "1" * 64, 5, vectors[4].tobytes()),
        ("p4", "later", 6, "1" * 64, 6, vectors[5].tobytes()),
    ]


def test_each_of_many_changed_observations_is_updated_under_its_own_row(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_MOST_PARAMETERS", 2)
    space_id = make_space(connection)
    vectors = unit_vectors(5)
    collection_id = save(connection, space_id, [record(f"p{n}", vectors[n]) for n in range(5)])
    known = {n: known_of(connection, collection_id, space_id, f"p{n}") for n in range(5)}
    changed = [
        record(
            f"p{n}",
            None,
            fingerprint=f"{n}" * 64,
            state=replace(STATE, valid_pixels=float(n), cloud_cover_percent=None),
            known=known[n],
        )
        for n in (3, 0, 4)
    ]
    save(connection, space_id, changed)
    stored = connection.execute(
        select(
            Observation.fingerprint, Observation.valid_pixels, Observation.cloud_cover_percent
        ).order_by(Observation.id)
    )
    as_it_was = ("1" * 64, 90.5, 25.0)
    assert [tuple(row) for row in stored] == [
        ("0" * 64, 0.0, None),
        as_it_was,
        as_it_was,
        ("3" * 64, 3.0, None),
        ("4" * 64, 4.0, None),
    ]
    assert stored_vectors(connection, space_id)[0].tolist() == [2, 3]


def test_more_parcels_than_a_statement_takes_parameters_are_known(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_MOST_PARAMETERS", 2)
    space_id = make_space(connection)
    names = [f"p{number}" for number in range(5)]
    collection_id = save(connection, space_id, [record(name) for name in names])
    known = known_observations(connection, collection_id, space_id, "scene", [*names, "p9"])
    assert {name: one.observation_id for name, one in known.items()} == {
        "p0": 1,
        "p1": 2,
        "p2": 3,
        "p3": 4,
        "p4": 5,
    }


def test_an_observation_is_unknown_in_another_scene_collection_or_space(
    connection: Connection,
) -> None:
    space_id, other_space = make_space(connection), make_space(connection)
    collection_id = save(connection, space_id, [record("p1", unit_vectors(1)[0])])
    other = ensure_collection(connection, "other")
    assert known_observations(connection, collection_id, space_id, "later", ["p1"]) == {}
    assert known_observations(connection, other, space_id, "scene", ["p1"]) == {}
    elsewhere = known_of(connection, collection_id, other_space)
    assert elsewhere is not None
    assert (elsewhere.fingerprint, elsewhere.embedded) == ("1" * 64, None)


def test_changed_pixels_give_a_new_row_and_supersede_the_old(connection: Connection) -> None:
    space_id = make_space(connection)
    old, new = unit_vectors(2)
    collection_id = save(connection, space_id, [record("p1", old)])
    known = known_of(connection, collection_id, space_id)
    save(connection, space_id, [record("p1", new, fingerprint="2" * 64, known=known)])
    assert embedding_rows(connection, "p1") == [(1, True), (2, False)]
    ids, vectors = stored_vectors(connection, space_id)
    assert ids.tolist() == [2]
    np.testing.assert_array_equal(vectors, [new])
    assert count_collection(connection, collection_id) == (1, 1)


def test_an_observation_that_became_too_poor_loses_its_vector(connection: Connection) -> None:
    space_id = make_space(connection)
    collection_id = save(connection, space_id, [record("p1", unit_vectors(1)[0])])
    known = known_of(connection, collection_id, space_id)
    save(connection, space_id, [record("p1", None, fingerprint="2" * 64, known=known)])
    assert list(vector_blocks(connection, space_id)) == []
    assert not has_embeddings(connection, space_id)
    now = known_of(connection, collection_id, space_id)
    assert now is not None
    assert (now.fingerprint, now.embedded) == ("2" * 64, None)


def test_vectors_come_back_as_they_were_in_order_of_id(connection: Connection) -> None:
    space_id = make_space(connection)
    vectors = unit_vectors(5)
    save(connection, space_id, [record(f"p{i}", vector) for i, vector in enumerate(vectors)])
    ids, stored = stored_vectors(connection, space_id)
    assert ids.tolist() == [1, 2, 3, 4, 5]
    assert ids.dtype == np.int64
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, vectors)
    assert current_extent(connection, space_id) == (5, 5)


def test_an_empty_space_has_no_vectors(connection: Connection) -> None:
    space_id = make_space(connection)
    assert current_extent(connection, space_id) == (0, 0)
    assert list(vector_blocks(connection, space_id)) == []
    assert not has_embeddings(connection, space_id)


def test_rows_wait_for_the_projection_and_then_get_their_vectors(connection: Connection) -> None:
    space_id = make_space(connection, frozen=False)
    embeddings = unit_vectors(3)
    records = [record(f"p{i}", embedding) for i, embedding in enumerate(embeddings)]
    save(connection, space_id, records, projected=False)
    assert has_embeddings(connection, space_id)
    assert current_extent(connection, space_id) == (0, 0)
    ids, waiting = rows_without_vector(connection, space_id)
    np.testing.assert_array_equal(waiting, embeddings)
    set_vectors(connection, ids.tolist(), embeddings[::-1])
    assert len(rows_without_vector(connection, space_id)[0]) == 0
    np.testing.assert_array_equal(stored_vectors(connection, space_id)[1], embeddings[::-1])


def test_only_so_many_embeddings_are_kept_at_full_length(connection: Connection) -> None:
    space_id = make_space(connection)
    vectors = unit_vectors(5)
    records = [record(f"p{i}", vector) for i, vector in enumerate(vectors)]
    save(connection, space_id, [record("cloud"), *records], keep=2)
    assert count_kept_embeddings(connection, space_id) == 2
    ids, kept = kept_embeddings(connection, space_id)
    assert ids.tolist() == [1, 2]
    np.testing.assert_array_equal(kept, vectors[:2])


# Spaces --------------------------------------------------------------------------------------


def test_a_space_comes_back_with_its_recipe_and_projection(connection: Connection) -> None:
    space = get_space(connection, make_space(connection))
    assert space.recipe == RECIPE.to_dict()
    assert space.digest == space_digest(RECIPE.to_dict(), PROJECTION)
    assert space.projection is not None
    assert space.projection.to_bytes() == PROJECTION.to_bytes()
    assert (space.weights_path, space.current_generation_id) == (None, None)


def test_a_space_is_open_until_its_projection_is_frozen(connection: Connection) -> None:
    space_id = make_space(connection, frozen=False)
    space = get_space(connection, space_id)
    assert (space.digest, space.projection) == (None, None)
    freeze_projection(connection, space_id, "pca", PROJECTION.to_bytes(), "d" * 64)
    space = get_space(connection, space_id)
    assert space.digest == "d" * 64
    assert space.projection is not None
    assert space.projection.kind == "pca"


def test_two_spaces_may_come_to_the_same_identity(connection: Connection) -> None:
    # A full reindex of unchanged images gives the projection that there was before.
    first, second = make_space(connection), make_space(connection)
    assert get_space(connection, first).digest == get_space(connection, second).digest


def test_the_place_of_the_weights_is_noted(connection: Connection) -> None:
    space_id = make_space(connection)
    remember_weights_path(connection, space_id, "/models/croma.pt")
    assert get_space(connection, space_id).weights_path == "/models/croma.pt"


def found_space(
    connection: Connection, collection_id: int | None, *, new: bool = False
) -> int | None:
    space = find_space(connection, RECIPE.digest, collection_id, new=new)
    return None if space is None else space.id


def test_no_space_is_found_for_a_recipe_never_used(connection: Connection) -> None:
    make_space(connection, replace(RECIPE, pooling="image"))
    assert found_space(connection, None) is None


def test_a_collection_goes_on_in_its_own_space(connection: Connection) -> None:
    own, later = make_space(connection), make_space(connection)
    collection_id = ensure_collection(connection, "demo")
    publish(connection, 1, own, collection_id)
    publish(connection, 2, later, None)
    assert found_space(connection, collection_id) == own


def test_a_new_collection_shares_the_latest_space(connection: Connection) -> None:
    for generation_id in (1, 2):
        space_id = make_space(connection)
        publish(connection, generation_id, space_id, None)
    assert found_space(connection, None) == space_id
    assert found_space(connection, ensure_collection(connection, "new")) == space_id


@pytest.mark.parametrize("frozen", [False, True])
def test_a_space_that_was_begun_for_the_collection_is_resumed_before_all_others(
    connection: Connection, frozen: bool
) -> None:
    unfinished = make_space(connection, frozen=frozen)
    own = make_space(connection)
    collection_id = save(connection, unfinished, [record(embedding=unit_vectors(1)[0])])
    publish(connection, 1, own, collection_id)
    assert found_space(connection, collection_id) == unfinished
    assert found_space(connection, collection_id, new=True) == unfinished


def test_a_space_that_was_begun_for_another_collection_takes_nobody_out_of_his_own(
    connection: Connection,
) -> None:
    own = make_space(connection)
    collection_id = ensure_collection(connection, "demo")
    publish(connection, 1, own, collection_id)
    unfinished = make_space(connection)
    save(connection, unfinished, [record(embedding=unit_vectors(1)[0])], collection="other")
    assert found_space(connection, collection_id) == own


def test_a_full_run_never_goes_on_in_a_published_space(connection: Connection) -> None:
    publish(connection, 1, make_space(connection), None)
    assert found_space(connection, None, new=True) is None


# Generations ---------------------------------------------------------------------------------


def test_publishing_switches_the_pointer_and_keeps_what_came_before(
    connection: Connection,
) -> None:
    space_id = make_space(connection)
    collection_id = ensure_collection(connection, "demo")
    assert next_generation_id(connection) == 1
    publish(connection, 1, space_id, collection_id)
    assert next_generation_id(connection) == 2
    publish(connection, 2, space_id, collection_id)
    assert get_space(connection, space_id).current_generation_id == 2
    listed = list_generations(connection)
    assert [(one.manifest.generation, one.current) for one in listed] == [(2, True), (1, False)]
    assert all(one.published_at.tzinfo is UTC for one in listed)


def test_a_space_that_no_collection_is_searched_in_answers_no_more(
    connection: Connection,
) -> None:
    collection_id = ensure_collection(connection, "demo")
    former, own = make_space(connection), make_space(connection)
    publish(connection, 1, former, collection_id)
    publish(connection, 2, own, collection_id)
    listed = list_generations(connection)
    assert [(one.manifest.generation, one.current) for one in listed] == [(2, True), (1, False)]
    in_use = list_generations(connection, in_use=True)
    assert [one.manifest.generation for one in in_use] == [2]


def test_only_generations_of_spaces_that_are_searched_answer(connection: Connection) -> None:
    collection_id = ensure_collection(connection, "demo")
    former, own = make_space(connection), make_space(connection)
    make_space(connection)
    assert answering(connection) == []
    publish(connection, 1, former, collection_id)
    publish(connection, 2, own, collection_id)
    publish(connection, 3, own, collection_id)
    other = ensure_collection(connection, "other")
    publish(connection, 4, make_space(connection), other)
    assert sorted(one.generation for one in answering(connection)) == [3, 4]


def test_a_listed_generation_tells_when_it_was_published() -> None:
    published_at = datetime(2023, 5, 29, 10, 50, 31, 700_000, tzinfo=UTC)
    told = Published(manifest(7), published_at, current=True).to_dict()
    assert (told["generation"], told["current"]) == (7, True)
    assert told["published_at"] == "2023-05-29T10:50:31Z"
    assert told["space"] == manifest(7).space


def test_publishing_drops_what_is_superseded_in_that_space_only(connection: Connection) -> None:
    spaces = [make_space(connection) for _ in range(2)]
    vectors = unit_vectors(4)
    for number, space_id in enumerate(spaces):
        # The second space meets the observations that the first one made.
        known = None if number == 0 else known_of(connection, 1, space_id)
        save(connection, space_id, [record("p1", vectors[number], known=known)])
        known = known_of(connection, 1, space_id)
        changed = record("p1", vectors[number + 2], fingerprint="2" * 64, known=known)
        save(connection, space_id, [changed])
    assert embedding_rows(connection, "p1") == [(1, True), (2, False), (3, True), (4, False)]
    publish(connection, 1, spaces[0])
    assert embedding_rows(connection, "p1") == [(2, False), (3, True), (4, False)]


def test_a_generation_of_one_space_leaves_other_spaces_and_collections_alone(
    connection: Connection,
) -> None:
    first, second = make_space(connection), make_space(connection)
    one, other = ensure_collection(connection, "one"), ensure_collection(connection, "other")
    publish(connection, 1, first, one)
    publish(connection, 2, second, other)
    assert get_space(connection, first).current_generation_id == 1
    assert find_collection(connection, "one") == (one, first)
    assert searched_spaces(connection) == [first, second]


def test_a_manifest_comes_back_as_it_was_published(connection: Connection) -> None:
    space_id = make_space(connection)
    manifest = {"generation": 1, "recall_at_10": 0.975, "recipe": RECIPE.to_dict(), "none": None}
    publish_generation(
        connection, generation_id=1, space_id=space_id, collection_id=None, manifest=manifest
    )
    assert get_generation(connection, 1) == manifest


def test_a_generation_that_does_not_exist_is_named(connection: Connection) -> None:
    with pytest.raises(NotFoundError, match="Generation 7 does not exist") as caught:
        get_generation(connection, 7)
    assert caught.value.kind == "generation-not-found"


def test_nothing_of_a_transaction_that_fails_is_kept(catalog: Engine) -> None:
    def die_before_the_end() -> None:
        with catalog.begin() as connection:
            save(connection, make_space(connection), [record("p1", unit_vectors(1)[0])])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die_before_the_end()
    with catalog.connect() as connection:
        assert collection_names(connection) == []
        assert connection.scalar(text("SELECT count(*) FROM embeddings")) == 0
