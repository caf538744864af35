"""Maps whose classes are the clusters of a collection, under the names that experts gave."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from indexer.catalog.database import opened_catalog
from indexer.clusters.making import make_clusters
from indexer.clusters.naming import name_cluster
from indexer.errors import GenerationMismatchError, InvalidInputError, NotFoundError
from indexer.mapping import plots
from indexer.mapping.class_map import opened_map
from indexer.mapping.map_image import MapOptions, MapReport, map_image
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from tests.indexer.flight import (
    FIELD_PX,
    KINDS,
    SIDE_PX,
    fields,
    flight,
    train,
    write_fields,
    write_flight,
)
from tests.schemas import copy_index

COLLECTION = "farm"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flight, its encoder, and an index of its fields in three clusters that bear their crops."""
    folder = tmp_path_factory.mktemp("indexed")
    image = write_flight(folder / "flight.tif")
    parcels = write_fields(folder / "fields.geojson")
    encoder = train(image, folder / "own.pt")
    options = ReindexOptions(
        encoder=f"simple-vit:{encoder}", parcels=parcels, collection=COLLECTION, device="cpu"
    )
    settings = settings_of(folder)
    reindex(settings, [image], options)
    found = make_clusters(settings, COLLECTION, 3)
    with opened_catalog(settings) as engine:
        for cluster in found.stored.clusters:
            (kind,) = {parcel.split("-")[0] for parcel in cluster.examples}
            name_cluster(engine, COLLECTION, cluster.number, kind)
    return folder


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places few features in the plane: hundreds take seconds."""
    monkeypatch.setattr(plots, "_TSNE_POINTS", 60)


def settings_of(folder: Path) -> Settings:
    return Settings(data_dir=folder / "data", database_url="", croma_weights="untrained")


def mapped(folder: Path, image: Path, out: Path, **options: Any) -> MapReport:  # noqa: ANN401
    encoder = f"simple-vit:{folder / 'own.pt'}"
    chosen = MapOptions(encoder=encoder, collection=COLLECTION, device="cpu")
    return map_image(image, out, replace(chosen, **options), settings=settings_of(folder))


def classes_of(path: Path) -> npt.NDArray[np.uint8]:
    with opened_map(path) as raster:
        found: npt.NDArray[np.uint8] = raster.read(1)
    return found


def numbers_of(report: MapReport) -> dict[str | None, int]:
    return {one.name: one.number for one in report.classes}


def test_planted_fields_carry_the_names_of_their_clusters(indexed: Path, tmp_path: Path) -> None:
    report = mapped(indexed, indexed / "flight.tif", tmp_path / "map.tif")
    numbers = numbers_of(report)
    assert set(numbers) == set(KINDS)
    found = classes_of(tmp_path / "map.tif")
    for name, (row, column) in fields().items():
        # Windows at the edge of a field see its neighbors.
        inner = np.s_[
            row * FIELD_PX + 4 : (row + 1) * FIELD_PX - 4,
            column * FIELD_PX + 4 : (column + 1) * FIELD_PX - 4,
        ]
        assert (found[inner] == numbers[name.split("-")[0]]).all(), name
    assert (found > 0).all()


def test_legend_and_tags_say_whose_clusters_they_are(indexed: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    report = mapped(indexed, indexed / "flight.tif", out, plots=tmp_path / "plots")
    assert report.method == "clusters"
    assert report.choice.reason == 'The classes are the 3 clusters of "farm".'
    legend = json.loads((tmp_path / "map.json").read_text(encoding="utf-8"))
    assert legend["collection"] == report.to_dict()["collection"]
    assert (legend["collection"]["name"], legend["collection"]["generation"]) == ("farm", 1)
    assert {entry["class"]: entry["name"] for entry in legend["classes"]} == {
        number: name for name, number in numbers_of(report).items()
    }
    with rasterio.open(out) as raster:
        assert raster.tags()["PARCELLE_COLLECTION"] == "farm"
    assert not (tmp_path / "plots" / "choice_of_k.png").exists()
    assert (tmp_path / "plots" / "map.png").exists()


def test_numbers_are_those_of_the_clusters_also_where_some_are_absent(
    indexed: Path, tmp_path: Path
) -> None:
    # One field alone, of the kind whose cluster has the largest number.
    numbers = numbers_of(mapped(indexed, indexed / "flight.tif", tmp_path / "all.tif"))
    kind = max(KINDS, key=lambda kind: numbers[kind])
    row, column = next(place for name, place in fields().items() if name.startswith(kind))
    rows, columns = (slice(at * FIELD_PX + 1, (at + 1) * FIELD_PX - 1) for at in (row, column))
    image = write_flight(tmp_path / "field.tif", flight()[:, rows, columns])
    out = tmp_path / "field-map.tif"
    report = mapped(indexed, image, out, plots=tmp_path / "plots")
    assert (classes_of(out) == 3).all()
    assert [one.pixels for one in report.classes] == [0, 0, 100]
    assert numbers_of(report) == numbers
    assert report.to_dict()["classes"][0]["share"] == 0
    names = ElementTree.parse(f"{out}.aux.xml").getroot().iterfind(".//Category")
    assert [name.text for name in names] == ["no data", *sorted(numbers, key=lambda n: numbers[n])]
    legend = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert [len(one["mean_spectrum"]) for one in legend["classes"]] == [0, 0, 6]


def test_a_new_name_is_on_the_next_map(indexed: Path, tmp_path: Path) -> None:
    image, out = indexed / "flight.tif", tmp_path / "map.tif"
    folder = tmp_path / "copy"
    copy_index(indexed, folder)
    before = mapped(folder, image, out)
    with opened_catalog(settings_of(folder)) as engine:
        name_cluster(engine, COLLECTION, 2, "sugar beet")
    after = mapped(folder, image, out)
    assert [one.name for one in after.classes] == [
        before.classes[0].name,
        "sugar beet",
        before.classes[2].name,
    ]
    # The index's former name is no name of this map's own.
    assert after.unmatched_names == []


def test_names_that_were_given_to_a_map_before_are_kept(indexed: Path, tmp_path: Path) -> None:
    image, out = indexed / "flight.tif", tmp_path / "map.tif"
    map_image(image, out, MapOptions(k=3, names={1: "my own"}))
    report = mapped(indexed, image, out)
    assert [one.name for one in report.unmatched_names] == ["my own"]
    assert any("my own" in note for note in report.notes)
    assert set(numbers_of(report)) == set(KINDS)


def test_a_map_of_clusters_is_scored(indexed: Path, tmp_path: Path) -> None:
    truth = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for name, (row, column) in fields().items():
        rows, columns = (slice(at * FIELD_PX + 4, (at + 1) * FIELD_PX - 4) for at in (row, column))
        truth[rows, columns] = 1 + KINDS.index(name.split("-")[0])
    np.save(tmp_path / "truth.npy", truth)
    out, labels = tmp_path / "map.tif", tmp_path / "truth.npy"
    report = mapped(indexed, indexed / "flight.tif", out, labels=labels)
    own = report.scores[0]
    assert (own.features, own.method, own.k, own.score.oa) == ("simple-vit", "clusters", 3, 1)
    numbers = numbers_of(report)
    assert [one.matched for one in own.score.per_class] == [numbers[kind] for kind in KINDS]
    assert ("simple-vit, untrained", "kmeans", 3) in [
        (one.features, one.method, one.k) for one in report.scores
    ]


def test_another_encoder_is_refused_by_both_names(indexed: Path, tmp_path: Path) -> None:
    other = train(indexed / "flight.tif", tmp_path / "other.pt", steps=2, seed=5)
    with pytest.raises(GenerationMismatchError, match=r"simple-vit .*other\.pt is") as caught:
        mapped(indexed, indexed / "flight.tif", tmp_path / "map.tif", encoder=f"simple-vit:{other}")
    assert caught.value.kind == "space-mismatch"
    assert not (tmp_path / "map.tif").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"k": 3}, "--k 3"),
        ({"method": "gmm"}, "--method gmm"),
        ({"names": {1: "wheat"}}, "parcelle cluster name"),
        ({"encoder": None}, "--encoder simple-vit:FILE"),
    ],
)
def test_what_contradicts_stored_clusters_is_refused(
    indexed: Path, tmp_path: Path, options: dict[str, object], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named) as caught:
        mapped(indexed, indexed / "flight.tif", tmp_path / "map.tif", **options)
    assert caught.value.kind == "invalid-option"


def test_a_collection_that_is_not_there_or_was_never_grouped_is_named(
    indexed: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="meadow") as caught:
        mapped(indexed, indexed / "flight.tif", tmp_path / "map.tif", collection="meadow")
    assert caught.value.kind == "collection-not-found"
    settings = settings_of(tmp_path)
    image = write_flight(tmp_path / "flight.tif", flight()[:, :24, :24])
    options = ReindexOptions(
        encoder=f"simple-vit:{indexed / 'own.pt'}", collection=COLLECTION, device="cpu"
    )
    reindex(settings, [image], options)
    shutil.copy(indexed / "own.pt", tmp_path / "own.pt")
    with pytest.raises(NotFoundError, match="parcelle cluster"):
        mapped(tmp_path, image, tmp_path / "map.tif")
