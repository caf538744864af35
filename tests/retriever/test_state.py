import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from indexer.errors import InvalidInputError, NotFoundError
from indexer.settings import Settings
from indexer.spectral_indices import INDICES
from retriever.queries import Interval, ParcelFilter
from retriever.search import ParcelSearcher
from retriever.state import ParcelState
from tests.retriever.planted import Seen, at_cosine, plant, searching, settings_in


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    """Parcel ``a`` was seen on four days in no order, once under clouds, once without a date."""
    chosen = settings_in(tmp_path_factory.mktemp("index"))
    wheat = Seen("a", at_cosine(0.9), crop_code="BTH", crop_name="winter wheat")
    clouded = replace(wheat, vector=None, reliable=False, valid_fraction=0.25, indices={})
    plant(
        chosen,
        [
            replace(wheat, day=None),
            replace(wheat, day="2023-08-12", indices={"NDVI": 0.21}),
            replace(wheat, day="2023-04-24", indices={"NDVI": 0.61}),
            replace(clouded, day="2023-05-29"),
            Seen("a", at_cosine(1), collection="other", corner=None, area_m2=None),
            Seen("b", at_cosine(1)),
        ],
    )
    with searching(chosen) as searcher:
        yield searcher


def days(state: ParcelState) -> list[str | None]:
    return [
        None if seen.acquired_at is None else f"{seen.acquired_at:%Y-%m-%d}"
        for seen in state.observations
    ]


def test_a_state_names_the_parcel_and_what_is_declared_of_it(searcher: ParcelSearcher) -> None:
    state = searcher.state("a", collection="demo").to_dict()
    assert (state["collection"], state["id"]) == ("demo", "a")
    assert (state["crop:code"], state["crop:name"]) == ("BTH", "winter wheat")
    assert state["metrics:area"] == 12345.0


def test_observations_come_in_order_of_time_and_those_without_a_time_last(
    searcher: ParcelSearcher,
) -> None:
    state = searcher.state("a", collection="demo")
    assert days(state) == ["2023-04-24", "2023-05-29", "2023-08-12", None]


def test_an_observation_is_told_as_it_was_stored(searcher: ParcelSearcher) -> None:
    observation = searcher.state("a", collection="demo").to_dict()["observations"][0]
    assert observation == {
        "datetime": "2023-04-24T10:50:31Z",
        "scene": "scene-2023-04-24",
        "processing_baseline": "05.09",
        "pixels_inside": 100.0,
        "valid_pixels": 100.0,
        "valid_fraction": 1.0,
        "covered_fraction": 1.0,
        "cloud_cover_percent": 0.0,
        "reliable": True,
        "indices": {"NDVI": {"median": 0.61, "mean": 0.61, "std": 0.0, "p10": 0.61, "p90": 0.61}},
        "cluster": None,
        "cluster:number": None,
        "cluster:score": None,
    }


def test_a_clouded_observation_stays_in_sight_and_is_not_reliable(searcher: ParcelSearcher) -> None:
    clouded = searcher.state("a", collection="demo").observations[1]
    assert not clouded.reliable
    assert clouded.valid_fraction == 0.25
    assert clouded.cloud_cover_percent == 75.0
    assert clouded.indices == {}


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ("2023-05", ["2023-05-29"]),
        ("../2023-05-29", ["2023-04-24", "2023-05-29"]),
        ("2023-05-30/..", ["2023-08-12"]),
        ("2023-05-29T10:50:31Z", ["2023-05-29"]),
        ("../2023-05-29T10:50:30.999999Z", ["2023-04-24"]),
        ("2023-05-29T10:50:31.000001Z/..", ["2023-08-12"]),
    ],
)
def test_an_interval_chooses_observations(
    searcher: ParcelSearcher, interval: str, expected: list[str]
) -> None:
    where = ParcelFilter(interval=Interval.parse(interval))
    assert days(searcher.state("a", collection="demo", where=where)) == expected


def test_an_interval_without_observations_is_told_so(searcher: ParcelSearcher) -> None:
    where = ParcelFilter(interval=Interval.parse("2019"))
    with pytest.raises(NotFoundError, match='"a" of "demo" was not observed in "2019"') as caught:
        searcher.state("a", collection="demo", where=where)
    assert caught.value.kind == "state-not-found"


def test_a_state_belongs_to_one_collection(searcher: ParcelSearcher) -> None:
    with pytest.raises(InvalidInputError, match="several collections"):
        searcher.state("a")
    other = searcher.state("a", collection="other")
    assert other.parcel.geometry is None
    assert other.parcel.area_m2 is None
    assert searcher.state("b").parcel.collection == "demo"


def test_each_index_comes_with_its_formula(searcher: ParcelSearcher) -> None:
    state = searcher.state("b").to_dict()
    assert state["formulas"] == {name: INDICES[name].formula for name in ("NDVI", "NDMI")}
    clouded = ParcelFilter(interval=Interval.parse("2023-05"))
    assert searcher.state("a", collection="demo", where=clouded).to_dict()["formulas"] == {}


def test_a_state_is_plain_json(searcher: ParcelSearcher) -> None:
    state = searcher.state("a", collection="demo").to_dict()
    assert json.loads(json.dumps(state, allow_nan=False)) == state


def test_a_state_of_real_pixels_holds_every_index_in_its_range(demo_index: Settings) -> None:
    with searching(demo_index) as searcher:
        state = searcher.state("demo-001")
    assert len(state.observations) == 3
    for seen in state.observations:
        if seen.reliable:
            assert set(seen.indices) == set(INDICES)
            assert -1 <= seen.indices["NDVI"]["p10"] <= seen.indices["NDVI"]["median"]
            assert seen.indices["NDVI"]["median"] <= seen.indices["NDVI"]["p90"] <= 1
