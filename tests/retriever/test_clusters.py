from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from indexer.catalog.database import connect
from indexer.embedding_space import UNTRAINED_NOTE
from indexer.errors import InvalidInputError, NotFoundError
from indexer.projection import VECTOR_DIMENSIONS, unit_rows
from indexer.settings import Settings
from retriever import cluster_statements, clusters
from retriever.clusters import OF_THE_MOMENT, Clusterings, Clusters
from retriever.published import PublishedGenerations
from tests.retriever.planted import UNTRAINED, Seen, plant

FloatArray = npt.NDArray[np.float32]


def near_axis(axis: int, apart: float = 0.0, seed: int = 0) -> FloatArray:
    """The unit vector of an axis, turned away from it by some random angle."""
    noise = np.random.default_rng(seed).standard_normal(VECTOR_DIMENSIONS)
    noise[axis] = 0
    row = apart * noise / np.linalg.norm(noise)
    row[axis] = 1
    vector: FloatArray = unit_rows(row[None])[0]
    return vector


def group(axis: int, count: int, **changed: Any) -> list[Seen]:  # noqa: ANN401 - fields of Seen
    """Parcels ``a0`` and so on, the first of which is closest to axis 0 ("a" to "z")."""
    name = chr(ord("a") + axis)
    return [
        Seen(f"{name}{n}", near_axis(axis, 0.05 + 0.02 * n, seed=31 * axis + n), **changed)
        for n in range(count)
    ]


class Asking:
    """Asks for clusters as a searcher does."""

    def __init__(self, settings: Settings) -> None:
        self.engine = connect(settings)
        self.published = PublishedGenerations(settings, self.engine)
        self.clusterings = Clusterings()

    def __call__(self, k: int, collection: str = "demo") -> Clusters:
        return self.clusterings.of(self.engine, self.published, collection, k)

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, *_: object) -> None:
        self.published.close()
        self.engine.dispose()


def ask(settings: Settings, k: int, collection: str = "demo") -> Clusters:
    with Asking(settings) as asking:
        return asking(k, collection)


def members(found: Clusters) -> list[set[str]]:
    """The parcels of each cluster, the largest first."""
    return [
        {parcel for parcel, number in found.members.items() if number == cluster.number}
        for cluster in found.clusters
    ]


def ids(observations: Sequence[Seen]) -> set[str]:
    return {seen.parcel_id for seen in observations}


# Groups ----------------------------------------------------------------------------------------


def test_parcels_that_look_alike_are_in_one_cluster(empty: Settings) -> None:
    groups = [group(0, 4), group(1, 7), group(2, 5)]
    plant(empty, [seen for one in groups for seen in one])
    found = ask(empty, 3)
    assert members(found) == [ids(groups[1]), ids(groups[2]), ids(groups[0])]
    assert [cluster.number for cluster in found.clusters] == [1, 2, 3]
    assert [cluster.parcels for cluster in found.clusters] == [7, 5, 4]
    assert [cluster.share for cluster in found.clusters] == [7 / 16, 5 / 16, 4 / 16]
    assert (found.collection, found.generation, found.k, found.notes) == (
        "demo",
        1,
        3,
        (OF_THE_MOMENT,),
    )


def test_examples_are_the_parcels_closest_to_the_center(empty: Settings) -> None:
    # Far more on one side than the few that lie apart, so that the axis is the center.
    plant(empty, [*group(0, 8), *group(1, 3)])
    first, second = ask(empty, 2).clusters
    assert len(first.examples) == 5
    assert first.examples[0] in ("a0", "a1", "a2")
    assert "a7" not in first.examples
    assert set(second.examples) == {"b0", "b1", "b2"}


def test_a_cluster_tells_the_crops_that_its_parcels_declare(empty: Settings) -> None:
    wheat = {"crop_code": "BTH", "crop_name": "winter wheat"}
    maize = {"crop_code": "MIS", "crop_name": "maize"}
    planted = group(0, 6)
    crops: list[dict[str, Any]] = [maize, wheat, wheat, wheat, {}, maize]
    changed = [
        Seen(seen.parcel_id, seen.vector, **crop) for seen, crop in zip(planted, crops, strict=True)
    ]
    plant(empty, [*changed, *group(1, 2)])
    first, second = ask(empty, 2).to_dict()["clusters"]
    assert first["crops"] == [
        {"crop:code": "BTH", "crop:name": "winter wheat", "parcels": 3, "share": 0.5},
        {"crop:code": "MIS", "crop:name": "maize", "parcels": 2, "share": 0.3333},
    ]
    assert second["crops"] == []


def test_at_most_five_crops_are_told(empty: Settings) -> None:
    planted = [
        Seen(seen.parcel_id, seen.vector, crop_name=f"crop {n % 6}")
        for n, seen in enumerate(group(0, 11))
    ]
    plant(empty, [*planted, *group(1, 2)])
    crops = ask(empty, 2).clusters[0].crops
    # Of eleven parcels the first five crops have two each, and the sixth has one.
    assert [(name, count) for (_, name), count in crops] == [(f"crop {n}", 2) for n in range(5)]


def test_a_cluster_tells_the_median_of_each_index(empty: Settings) -> None:
    values = [0.1, 0.8, 0.2, 0.9]
    planted = [
        Seen(seen.parcel_id, seen.vector, indices={"NDVI": value, "NDMI": value / 2})
        for seen, value in zip(group(0, 4), values, strict=True)
    ]
    plant(empty, [*planted, *group(1, 3, indices={"NDVI": 0.4})])
    first, second = ask(empty, 2).clusters
    assert first.medians == pytest.approx({"NDVI": 0.5, "NDMI": 0.25})
    assert second.medians == pytest.approx({"NDVI": 0.4})


def test_the_answer_names_members_only_if_asked_to(empty: Settings) -> None:
    plant(empty, [*group(0, 2), *group(1, 1)])
    found = ask(empty, 2)
    assert "members" not in found.to_dict()
    assert found.to_dict(members=True)["members"] == {"a0": 1, "a1": 1, "b0": 2}


# Which vector stands for a parcel --------------------------------------------------------------


def test_the_latest_reliable_observation_stands_for_a_parcel(empty: Settings) -> None:
    moving = [
        Seen("m", near_axis(0), day="2023-04-24"),
        Seen("m", near_axis(1), day="2023-05-29"),
        Seen("m", near_axis(0), day="2023-06-20", reliable=False),
    ]
    plant(empty, [*group(0, 3), *group(1, 2), *moving])
    found = ask(empty, 2)
    assert found.members == {"a0": 1, "a1": 1, "a2": 1, "b0": 2, "b1": 2, "m": 2} or (
        found.members == {"a0": 2, "a1": 2, "a2": 2, "b0": 1, "b1": 1, "m": 1}
    )


def test_without_a_reliable_one_the_latest_stands_for_a_parcel(empty: Settings) -> None:
    moving = [
        Seen("m", near_axis(axis), day=day, reliable=False)
        for axis, day in ((0, "2023-06-20"), (1, "2023-04-24"), (1, None))
    ]
    plant(empty, [*group(0, 3), *group(1, 2), *moving])
    assert members(ask(empty, 2)) == [{"a0", "a1", "a2", "m"}, {"b0", "b1"}]


def test_what_the_generation_does_not_hold_is_not_grouped(empty: Settings) -> None:
    plant(empty, [*group(0, 3), *group(1, 2)])
    replaced = Seen("a0", near_axis(1), indices={"NDVI": 0.9})
    plant(empty, [replaced, Seen("new", near_axis(1))], publish=False)
    found = ask(empty, 2)
    # The vector that was replaced since the publication still answers.
    assert members(found) == [{"a0", "a1", "a2"}, {"b0", "b1"}]
    # What its pixels were replaced by was not compared here.
    assert found.clusters[0].medians["NDVI"] == pytest.approx(0.7)
    assert found.notes[0] == "In no cluster, because the generation holds no vector of them: 1."


def test_parcels_without_a_vector_are_counted_in_a_note(empty: Settings) -> None:
    hidden = [Seen(f"hidden{n}", None, reliable=False) for n in range(3)]
    plant(empty, [*group(0, 2), *group(1, 1), *hidden])
    found = ask(empty, 2)
    assert not {f"hidden{n}" for n in range(3)} & set(found.members)
    assert found.notes[0] == "In no cluster, because the generation holds no vector of them: 3."


def test_other_collections_are_left_out(empty: Settings) -> None:
    plant(empty, [*group(0, 2), *group(1, 2), *group(2, 4, collection="other")])
    assert set(ask(empty, 2).members) == {"a0", "a1", "b0", "b1"}


# What is said beside -------------------------------------------------------------------------


def test_untrained_weights_are_told(empty: Settings) -> None:
    plant(empty, [*group(0, 2), *group(1, 2)], weights=UNTRAINED)
    assert ask(empty, 2).notes == (UNTRAINED_NOTE, OF_THE_MOMENT)


def test_clusters_that_come_out_empty_are_told(empty: Settings) -> None:
    plant(empty, [Seen(f"p{n}", near_axis(0)) for n in range(6)])
    found = ask(empty, 3)
    assert [cluster.parcels for cluster in found.clusters] == [6]
    assert found.notes[0] == "Only 1 of 3 clusters hold parcels: the vectors are too much alike."


@pytest.mark.parametrize("k", [0, 1, 51, -3])
def test_k_out_of_range_is_refused(empty: Settings, k: int) -> None:
    plant(empty, group(0, 3))
    with pytest.raises(InvalidInputError, match=f"k is {k}; ask for at least 2 and at most 50"):
        ask(empty, k)


def test_k_above_the_number_of_parcels_is_refused(empty: Settings) -> None:
    plant(empty, [*group(0, 3), Seen("hidden", None, reliable=False)])
    with pytest.raises(InvalidInputError, match='k is 4, but "demo" has 3 parcels') as caught:
        ask(empty, 4)
    assert caught.value.kind == "invalid-k"
    assert [cluster.parcels for cluster in ask(empty, 3).clusters] == [1, 1, 1]


def test_a_collection_that_does_not_exist_is_named(empty: Settings) -> None:
    plant(empty, group(0, 3))
    with pytest.raises(NotFoundError, match='No collection "dmo"; there is "demo"'):
        ask(empty, 2, "dmo")


def test_without_a_publication_there_are_no_clusters(empty: Settings) -> None:
    plant(empty, group(0, 3), publish=False)
    with pytest.raises(NotFoundError) as caught:
        ask(empty, 2)
    assert caught.value.kind == "generation-not-found"


# Answers that are kept, and large collections ---------------------------------------------------


def test_an_answer_is_kept_until_the_next_generation(
    empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(empty, [*group(0, 3), *group(1, 2)])
    with Asking(empty) as asking:
        first = asking(2)
        assert asking(2) is first
        assert asking(3) is not first
        plant(empty, [Seen("new", near_axis(1, 0.1))])
        later = asking(2)
    assert (first.generation, later.generation) == (1, 2)
    assert set(later.members) - set(first.members) == {"new"}


def test_only_the_answers_that_were_asked_for_last_are_kept(
    empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_MOST_KEPT", 2)
    plant(empty, [*group(0, 3), *group(1, 2)])
    with Asking(empty) as asking:
        first, second = asking(2), asking(3)
        assert asking(2) is first
        asking(4)
        assert asking(2) is first
        assert asking(3) is not second


def test_large_collections_are_read_in_batches_and_trained_on_a_sample(
    empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [group(axis, 20) for axis in range(3)]
    plant(empty, [seen for one in groups for seen in one])
    whole = ask(empty, 3)
    monkeypatch.setattr(cluster_statements, "_BATCH", 7)
    monkeypatch.setattr(clusters, "MAX_TRAINING_ROWS", 25)
    assert sorted(map(sorted, members(ask(empty, 3)))) == sorted(map(sorted, members(whole)))
