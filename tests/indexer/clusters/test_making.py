import numpy as np
import pytest
from sqlalchemy import Engine, delete, func, select

from indexer.catalog import clusters as statements
from indexer.catalog.tables import Cluster, Clustering, ClusterMember, Embedding
from indexer.clusters import making
from indexer.clusters.assigning import assign_new_vectors
from indexer.clusters.listing import list_clusters
from indexer.clusters.making import ClusterReport, make_clusters
from indexer.clusters.naming import name_cluster
from indexer.embedding_space import UNTRAINED_NOTE
from indexer.errors import ConflictError, InvalidInputError, NotFoundError
from indexer.lock import only_writer
from indexer.settings import Settings
from tests.indexer.clusters.growing import kinds_of, members_of, names_of, near, parcels
from tests.retriever.planted import UNTRAINED, Seen, plant

THREE = [*parcels("wheat", 7, 0), *parcels("maize", 5, 1), *parcels("grass", 3, 2)]
"""Wheat is cluster 1, maize 2, grass 3."""


def name_three(engine: Engine) -> None:
    for number, name in enumerate(("winter wheat", "maize", "grassland"), start=1):
        name_cluster(engine, "demo", number, name)


def rows(engine: Engine) -> tuple[int, int, int]:
    """Stored clusterings, clusters and members."""
    with engine.connect() as connection:
        clusterings, clusters, members = (
            connection.scalars(select(func.count()).select_from(table)).one()
            for table in (Clustering, Cluster, ClusterMember)
        )
    return clusterings, clusters, members


def waiting(report: ClusterReport) -> dict[str, list[int]]:
    """Numbers of the candidates of each name that was not carried over."""
    return {one.name: [found["cluster"] for found in one.candidates] for one in report.uncertain}


# Groups ----------------------------------------------------------------------------------------


def test_parcels_that_look_alike_are_stored_in_one_cluster(empty: Settings, engine: Engine) -> None:
    plant(empty, THREE)
    report = make_clusters(empty, k=3)
    assert kinds_of(engine) == {1: {"wheat": 7}, 2: {"maize": 5}, 3: {"grass": 3}}
    assert [(one.number, one.parcels, one.share) for one in report.stored.clusters] == [
        (1, 7, 7 / 15),
        (2, 5, 5 / 15),
        (3, 3, 3 / 15),
    ]
    assert (report.stored.collection, report.stored.generation, report.stored.k) == ("demo", 1, 3)
    assert (report.carried, report.uncertain, report.stored.notes) == ((), (), ())


def test_auto_finds_how_many_there_are_and_says_why(empty: Settings) -> None:
    plant(empty, THREE)
    stored = make_clusters(empty).stored
    assert (stored.k, len(stored.clusters)) == (3, 3)
    assert stored.chosen["auto"]
    assert "k = 3 has the highest mean silhouette" in stored.chosen["reason"]


def test_a_cluster_tells_declared_crops_and_the_parcels_closest_to_its_center(
    empty: Settings,
) -> None:
    declared = [
        *parcels("a", 3, 0, crop_code="BTH", crop_name="winter wheat"),
        *parcels("b", 1, 0, crop_code="MIS", crop_name="maize"),
        *parcels("c", 2, 0),
    ]
    plant(empty, [*declared, *parcels("far", 2, 1)])
    first, second = make_clusters(empty, k=2).to_dict()["clusters"]
    assert first["crops"] == [
        {"crop:code": "BTH", "crop:name": "winter wheat", "parcels": 3, "share": 0.5},
        {"crop:code": "MIS", "crop:name": "maize", "parcels": 1, "share": 0.1667},
    ]
    vectors = {seen.parcel_id: seen.vector for seen in declared if seen.vector is not None}
    center = np.sum(list(vectors.values()), axis=0)
    closest = sorted(vectors, key=lambda parcel: -float(vectors[parcel] @ center))
    assert first["examples"] == closest[:5]
    assert (second["crops"], set(second["examples"])) == ([], {"far-0", "far-1"})


def test_the_latest_reliable_observation_decides_and_the_others_are_members_too(
    empty: Settings, engine: Engine
) -> None:
    moving = [
        Seen("moving-0", near(0), day="2023-04-24"),
        Seen("moving-0", near(1), day="2023-05-29"),
        Seen("moving-0", near(0), day="2023-06-20", reliable=False),
    ]
    plant(empty, [*parcels("wheat", 4, 0), *parcels("maize", 2, 1), *moving])
    make_clusters(empty, k=2)
    assert kinds_of(engine) == {1: {"wheat": 4}, 2: {"maize": 2, "moving": 1}}
    with engine.connect() as connection:
        found = connection.execute(
            select(Cluster.number, func.count(), func.min(ClusterMember.score))
            .join(ClusterMember, ClusterMember.cluster_id == Cluster.id)
            .group_by(Cluster.number)
            .order_by(Cluster.number)
        ).all()
    # Two of its three observations look like wheat.
    assert [tuple(row)[:2] for row in found] == [(1, 6), (2, 3)]
    assert min(row[2] for row in found) > 0.9


def test_what_no_generation_holds_yet_is_a_member_but_stands_for_nothing(
    empty: Settings, engine: Engine
) -> None:
    plant(empty, THREE)
    plant(empty, [Seen("wheat-0", near(1)), Seen("new-0", near(1))], publish=False)
    make_clusters(empty, k=3)
    assert kinds_of(engine) == {1: {"wheat": 7}, 2: {"maize": 5}, 3: {"grass": 3}}
    assert rows(engine) == (1, 3, 17)


def test_other_collections_are_left_alone(empty: Settings, engine: Engine) -> None:
    plant(empty, [*THREE, *parcels("other", 4, 3, collection="other")])
    make_clusters(empty, "demo", 3)
    make_clusters(empty, "other", 2)
    assert kinds_of(engine) == {1: {"wheat": 7}, 2: {"maize": 5}, 3: {"grass": 3}}
    assert sum(map(len, members_of(engine, "other").values())) == 4


def test_only_the_last_clustering_is_kept(empty: Settings, engine: Engine) -> None:
    plant(empty, THREE)
    make_clusters(empty, k=3)
    make_clusters(empty, k=2)
    assert rows(engine) == (1, 2, 15)


def test_the_same_seed_gives_the_same_clusters(empty: Settings, engine: Engine) -> None:
    plant(empty, [*parcels("a", 30, 0, 1), *parcels("b", 30, 1, 2), *parcels("c", 30, 0, 2)])
    make_clusters(empty, k=7, seed=5)
    first = members_of(engine)
    make_clusters(empty, k=7, seed=5)
    assert members_of(engine) == first


def test_clusters_without_parcels_are_not_stored(empty: Settings, engine: Engine) -> None:
    plant(empty, [Seen(f"p-{n}", near(0)) for n in range(6)])
    report = make_clusters(empty, k=3)
    assert (report.stored.k, len(report.stored.clusters)) == (3, 1)
    assert rows(engine) == (1, 1, 6)


def test_large_collections_are_read_in_batches_and_trained_on_a_sample(
    empty: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "_BATCH", 7)
    monkeypatch.setattr(making, "MAX_TRAINING_ROWS", 25)
    plant(empty, [*parcels("wheat", 30, 0), *parcels("maize", 20, 1), *parcels("grass", 10, 2)])
    make_clusters(empty, k=3)
    assert kinds_of(engine) == {1: {"wheat": 30}, 2: {"maize": 20}, 3: {"grass": 10}}


def test_progress_counts_every_vector_and_every_k_that_was_tried(empty: Settings) -> None:
    plant(empty, THREE)

    class Told:
        total = done = 0

        def start(self, task: str, total: int, unit: str | None = None) -> None:
            self.total = total

        def expect(self, total: int) -> None: ...

        def rename(self, task: str) -> None: ...

        def advance(self, done: int) -> None:
            self.done += done

        def finish(self) -> None: ...

    given, chosen = Told(), Told()
    make_clusters(empty, k=3, progress=given)
    assert (given.done, given.total) == (15, 15)
    make_clusters(empty, progress=chosen)
    # 2 to 14 clusters of 15 vectors.
    assert (chosen.done, chosen.total) == (15 + 13, 15 + 13)


def test_untrained_weights_are_told(empty: Settings) -> None:
    plant(empty, THREE, weights=UNTRAINED)
    assert make_clusters(empty, k=3).stored.notes == (UNTRAINED_NOTE,)


# Names -------------------------------------------------------------------------------------------


def test_names_follow_their_parcels_when_sizes_change_the_numbers(
    empty: Settings, engine: Engine
) -> None:
    plant(empty, THREE)
    make_clusters(empty, k=3)
    name_three(engine)
    # Grass is the largest now, and wheat the smallest.
    more = [Seen(f"grass-{n}", near(2, seed=n)) for n in range(3, 6)]
    gone = [Seen(f"wheat-{n}", None, reliable=False, day="2023-05-29") for n in range(4)]
    plant(empty, [*more, *gone])
    assign_new_vectors(engine, 1)
    report = make_clusters(empty, k=3)
    assert kinds_of(engine) == {1: {"grass": 6}, 2: {"maize": 5}, 3: {"wheat": 3}}
    assert names_of(engine) == {1: "grassland", 2: "maize", 3: "winter wheat"}
    assert [(one.name, one.former, one.number) for one in report.carried] == [
        ("winter wheat", 1, 3),
        ("maize", 2, 2),
        ("grassland", 3, 1),
    ]
    assert report.uncertain == ()


def test_a_split_cluster_leaves_its_name_to_be_asked_for(empty: Settings, engine: Engine) -> None:
    plant(
        empty,
        [*parcels("early", 6, 0, 1), *parcels("late", 4, 0, 2), *parcels("grass", 3, 7)],
    )
    make_clusters(empty, k=2)
    assert kinds_of(engine) == {1: {"early": 6, "late": 4}, 2: {"grass": 3}}
    name_cluster(engine, "demo", 1, "winter wheat")
    name_cluster(engine, "demo", 2, "grassland")
    report = make_clusters(empty, k=3)
    assert names_of(engine) == {3: "grassland"}
    assert waiting(report) == {"winter wheat": [1, 2]}
    (asked,) = report.to_dict()["uncertain"]
    assert asked["reason"] == "it was split into clusters 1 and 2"
    assert [found["shared"] for found in asked["candidates"]] == [0.6, 0.4]
    assert list_clusters(engine).to_dict()["unassigned"] == [asked]
    name_cluster(engine, "demo", 2, "winter wheat")
    assert names_of(engine) == {2: "winter wheat", 3: "grassland"}
    assert list_clusters(engine).unassigned == ()


def test_merged_clusters_leave_both_names_to_be_asked_for(empty: Settings, engine: Engine) -> None:
    plant(
        empty,
        [*parcels("early", 6, 0, 1), *parcels("late", 4, 0, 2), *parcels("grass", 3, 7)],
    )
    make_clusters(empty, k=3)
    for number, name in enumerate(("early wheat", "late wheat", "grassland"), start=1):
        name_cluster(engine, "demo", number, name)
    report = make_clusters(empty, k=2)
    assert names_of(engine) == {2: "grassland"}
    assert {name: numbers[0] for name, numbers in waiting(report).items()} == {
        "early wheat": 1,
        "late wheat": 1,
    }


def test_the_name_of_a_cluster_that_vanished_is_asked_for_not_guessed(
    empty: Settings, engine: Engine
) -> None:
    plant(empty, THREE)
    make_clusters(empty, k=3)
    name_three(engine)
    # All that was grass looks like one of the others a year later, half of it like each.
    later = [Seen(f"grass-{n}", near(n % 2), day="2024-05-29") for n in range(3)]
    plant(empty, [*later, *parcels("beet", 3, 5)])
    report = make_clusters(empty, k=3)
    assert names_of(engine) == {1: "winter wheat", 2: "maize"}
    assert list(waiting(report)) == ["grassland"]


def test_names_that_were_not_assigned_wait_on_through_further_groupings(
    empty: Settings, engine: Engine
) -> None:
    plant(empty, THREE)
    make_clusters(empty, k=3)
    name_three(engine)
    make_clusters(empty, k=2)
    before = {one.name for one in list_clusters(engine).unassigned} | set(names_of(engine).values())
    assert before == {"winter wheat", "maize", "grassland"}
    report = make_clusters(empty, k=3)
    after = set(waiting(report)) | set(names_of(engine).values())
    assert after == before
    # Their centers are still known, and so is what is nearest to them.
    nearest = {one.name: one.candidates[0]["cluster"] for one in report.uncertain}
    own = {"winter wheat": 1, "maize": 2, "grassland": 3}
    assert nearest == {name: own[name] for name in nearest}
    assert nearest


def test_in_another_space_names_follow_the_parcels_alone(empty: Settings, engine: Engine) -> None:
    plant(empty, THREE)
    make_clusters(empty, k=3)
    name_three(engine)
    turned = {"wheat": 40, "maize": 41, "grass": 42}
    again = [
        Seen(seen.parcel_id, near(turned[seen.parcel_id.split("-")[0]], seed=n))
        for n, seen in enumerate(THREE)
    ]
    plant(empty, again, encoder="croma-base")
    assert "earlier embedding" in list_clusters(engine).notes[0]
    report = make_clusters(empty, k=3)
    assert names_of(engine) == {1: "winter wheat", 2: "maize", 3: "grassland"}
    assert (report.uncertain, report.stored.notes) == ((), ())
    assert report.stored.space["encoder"] == "croma-base"


def test_in_another_space_what_cannot_be_followed_has_no_cosine(
    empty: Settings, engine: Engine
) -> None:
    plant(empty, THREE)
    make_clusters(empty, k=3)
    name_three(engine)
    mixed = [Seen(seen.parcel_id, near(40 + n % 2, seed=n)) for n, seen in enumerate(THREE)]
    plant(empty, mixed, encoder="croma-base")
    report = make_clusters(empty, k=2)
    found = [one for asked in report.uncertain for one in asked.candidates]
    assert found
    assert {one["cosine"] for one in found} == {None}


def test_a_name_that_is_given_while_the_vectors_are_read_is_not_lost(
    empty: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(empty, THREE)
    make_clusters(empty, k=3)
    grouping = making._assigned

    def meanwhile(*arguments: object) -> object:
        name_cluster(engine, "demo", 2, "maize")
        return grouping(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "_assigned", meanwhile)
    make_clusters(empty, k=3)
    assert names_of(engine) == {2: "maize"}


@pytest.mark.parametrize("step", ["replace_clustering", "add_members", "replace_unassigned_names"])
def test_whatever_dies_in_between_leaves_clusters_and_names_as_they_were(
    empty: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    plant(empty, THREE)
    make_clusters(empty, k=3)
    name_three(engine)
    before = (kinds_of(engine), names_of(engine), rows(engine))
    done = getattr(making, step)

    def die(*arguments: object, **more: object) -> None:
        done(*arguments, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(making, step, die)
    with pytest.raises(KeyboardInterrupt):
        make_clusters(empty, k=2)
    assert (kinds_of(engine), names_of(engine), rows(engine)) == before
    assert list_clusters(engine).unassigned == ()


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1, 51, -3])
def test_k_out_of_range_is_refused(empty: Settings, k: int) -> None:
    plant(empty, THREE)
    with pytest.raises(InvalidInputError, match=f"k is {k}; ask for auto, or at least 2") as caught:
        make_clusters(empty, k=k)
    assert caught.value.kind == "invalid-k"


def test_k_above_the_number_of_parcels_is_refused(empty: Settings) -> None:
    plant(empty, [*parcels("a", 3, 0), Seen("hidden", None, reliable=False)])
    with pytest.raises(InvalidInputError, match='k is 4, but "demo" has 3 parcels') as caught:
        make_clusters(empty, k=4)
    assert caught.value.kind == "invalid-k"


def test_one_of_several_collections_must_be_named(empty: Settings) -> None:
    plant(empty, [*parcels("a", 3, 0), *parcels("b", 3, 0, collection="other")])
    with pytest.raises(InvalidInputError, match='"demo", "other" with --collection') as caught:
        make_clusters(empty, k=2)
    assert caught.value.kind == "invalid-collection"


def test_a_collection_that_does_not_exist_is_named(empty: Settings) -> None:
    plant(empty, THREE)
    with pytest.raises(NotFoundError, match='No collection "dmo"; there is "demo"'):
        make_clusters(empty, "dmo", 2)


def test_without_a_publication_there_is_nothing_to_group(empty: Settings) -> None:
    plant(empty, THREE, publish=False)
    with pytest.raises(NotFoundError) as caught:
        make_clusters(empty, k=2)
    assert caught.value.kind == "generation-not-found"


def test_nothing_is_grouped_while_another_process_writes(empty: Settings, engine: Engine) -> None:
    plant(empty, THREE)
    with only_writer(empty, engine, doing="reindex"), pytest.raises(ConflictError):
        make_clusters(empty, k=3)
    assert rows(engine) == (0, 0, 0)


def test_members_leave_with_their_embeddings(empty: Settings, engine: Engine) -> None:
    plant(empty, THREE)
    make_clusters(empty, k=3)
    with engine.begin() as connection:
        connection.execute(delete(Embedding).where(Embedding.id <= 4))
    assert rows(engine) == (1, 3, 11)
