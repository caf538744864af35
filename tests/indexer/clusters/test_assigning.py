from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from indexer.catalog.database import connect
from indexer.catalog.reading import collection_space
from indexer.catalog.tables import Cluster, ClusterMember, Embedding
from indexer.clusters.assigning import assign_new_vectors
from indexer.clusters.making import make_clusters
from indexer.clusters.naming import name_cluster
from indexer.reindex import reindex
from indexer.settings import Settings
from tests.indexer.clusters.growing import kinds_of, members_of, names_of, near, parcels
from tests.indexer.farm import options, write_images
from tests.retriever.planted import Seen, plant

TWO = [*parcels("wheat", 4, 0), *parcels("maize", 3, 1)]


def assign(engine: Engine, collection: str = "demo") -> int:
    with engine.connect() as connection:
        space = collection_space(connection, collection)
    assert space is not None
    return assign_new_vectors(engine, space.id)


def unassigned(engine: Engine) -> int:
    """Current vectors that are in no cluster."""
    with engine.connect() as connection:
        statement = (
            select(func.count())
            .select_from(Embedding)
            .outerjoin(ClusterMember, ClusterMember.embedding_id == Embedding.id)
            .where(Embedding.superseded.is_(False), ClusterMember.cluster_id.is_(None))
        )
        return connection.scalars(statement).one()


def test_new_vectors_join_the_cluster_of_the_nearest_center(
    empty: Settings, engine: Engine
) -> None:
    plant(empty, TWO)
    make_clusters(empty, k=2)
    name_cluster(engine, "demo", 2, "maize")
    plant(empty, [Seen("new-0", near(1, seed=5)), Seen("new-1", near(0, seed=6))])
    assert assign(engine) == 2
    assert kinds_of(engine) == {1: {"new": 1, "wheat": 4}, 2: {"maize": 3, "new": 1}}
    assert names_of(engine) == {2: "maize"}
    with engine.connect() as connection:
        scores = connection.scalars(select(ClusterMember.score)).all()
    assert min(scores) > 0.95


def test_assigning_again_changes_nothing(empty: Settings, engine: Engine) -> None:
    plant(empty, TWO)
    make_clusters(empty, k=2)
    before = members_of(engine)
    assert assign(engine) == 0
    assert members_of(engine) == before


def test_changed_pixels_move_a_parcel_to_another_cluster(empty: Settings, engine: Engine) -> None:
    plant(empty, TWO)
    make_clusters(empty, k=2)
    plant(empty, [Seen("wheat-0", near(1, seed=9))])
    assign(engine)
    assert kinds_of(engine) == {1: {"wheat": 3}, 2: {"maize": 3, "wheat": 1}}


def test_all_collections_of_the_space_are_seen_to(empty: Settings, engine: Engine) -> None:
    both = [*TWO, *parcels("beet", 2, 2, collection="other"), *parcels("rye", 3, 3)]
    plant(empty, both)
    make_clusters(empty, "demo", 3)
    make_clusters(empty, "other", 2)
    plant(empty, [Seen("new-0", near(2), collection="other"), Seen("new-1", near(3))])
    assert assign(engine) == 2
    assert unassigned(engine) == 0


def test_collections_that_were_never_grouped_stay_so(empty: Settings, engine: Engine) -> None:
    plant(empty, TWO)
    assert assign(engine) == 0
    assert unassigned(engine) == 7


def test_vectors_of_another_space_do_not_join(empty: Settings, engine: Engine) -> None:
    plant(empty, TWO)
    make_clusters(empty, k=2)
    plant(empty, TWO, encoder="croma-base")
    assert assign(engine) == 0
    assert unassigned(engine) == 7


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images."""
    folder = tmp_path / "images"
    write_images(folder, 4)
    return folder


@pytest.mark.usefixtures("one_layer")
def test_a_reindex_puts_what_is_new_into_clusters(settings: Settings, images: Path) -> None:
    reindex(settings, [images], options())
    make_clusters(settings, k=2)
    write_images(images, 7)
    report = reindex(settings, [images], options())
    assert report.embedded == 3
    engine = connect(settings)
    with engine.connect() as connection:
        members = connection.scalars(select(func.count()).select_from(ClusterMember)).one()
        clusters = connection.scalars(select(func.count()).select_from(Cluster)).one()
    assert (members, clusters, unassigned(engine)) == (7, 2, 0)
    engine.dispose()


@pytest.mark.usefixtures("one_layer")
def test_a_full_reindex_leaves_the_clusters_to_the_vectors_that_they_were_made_of(
    settings: Settings, images: Path
) -> None:
    reindex(settings, [images], options())
    collection = make_clusters(settings, k=2).stored.collection
    engine = connect(settings)
    before = members_of(engine, collection)
    name_cluster(engine, collection, 1, "first")
    reindex(settings, [images], options(full=True))
    assert members_of(engine, collection) == before
    assert unassigned(engine) == 4
    make_clusters(settings, k=2)
    # The same images give the same groups, and so the name stays.
    assert (members_of(engine, collection), names_of(engine, collection)) == (before, {1: "first"})
    engine.dispose()
