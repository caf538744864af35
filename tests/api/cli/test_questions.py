import json
from pathlib import Path

from indexer.settings import Settings
from retriever.search import ParcelSearcher
from tests.api.cli.conftest import Parcelle

PARCEL = "demo-005"


def test_similar_json_is_the_searchers_own_answer(in_demo: Parcelle, demo_index: Settings) -> None:
    ran = in_demo("similar", PARCEL, "-k", "4", "--format", "json")
    assert ran.exit_code == 0, ran.stderr
    with ParcelSearcher.open(demo_index) as searcher:
        answer = searcher.similar_by_id(PARCEL, k=4)
    assert ran.json == json.loads(json.dumps(answer.to_dict()))
    assert len(ran.json["matches"]) == 4


def test_similar_table_names_parcels_crops_and_the_untrained_weights(
    in_demo: Parcelle, demo_index: Settings
) -> None:
    ran = in_demo("similar", PARCEL, "-k", "3")
    with ParcelSearcher.open(demo_index) as searcher:
        matches = searcher.similar_by_id(PARCEL, k=3).matches
    lines = ran.stdout.splitlines()
    assert PARCEL in lines[0]
    assert [line.split()[2] for line in lines[2:5]] == [match.parcel_id for match in matches]
    assert all(str(match.crop_name) in ran.stdout for match in matches)
    assert "untrained" in ran.stderr


def test_similar_geojson_can_be_read_by_other_programs(in_demo: Parcelle) -> None:
    collection = in_demo("similar", PARCEL, "-k", "2", "--format", "geojson").json
    assert collection["type"] == "FeatureCollection"
    assert [feature["properties"]["rank"] for feature in collection["features"]] == [1, 2]
    longitude, latitude = collection["features"][0]["geometry"]["coordinates"][0][0]
    assert 2 < longitude < 3
    assert 49 < latitude < 50


def test_filters_of_the_command_line_reach_the_search(
    in_demo: Parcelle, demo_index: Settings
) -> None:
    with ParcelSearcher.open(demo_index) as searcher:
        crop = str(searcher.similar_by_id(PARCEL, k=1000).matches[-1].crop_name)
    matches = in_demo(
        "similar", PARCEL, "--crop", crop.upper(), "--datetime", "2023-08", "--format", "json"
    ).json["matches"]
    assert matches
    assert {match["crop:name"] for match in matches} == {crop}
    assert {match["datetime"][:7] for match in matches} == {"2023-08"}


def test_unknown_parcel_fails_and_names_the_nearest_ids(in_demo: Parcelle) -> None:
    ran = in_demo("similar", "demo-0005")
    assert ran.exit_code == 1
    assert "[parcel-not-found]" in ran.stderr
    assert "demo-005" in ran.stderr


def test_k_of_zero_is_wrong_usage(in_demo: Parcelle) -> None:
    ran = in_demo("similar", PARCEL, "-k", "0")
    assert ran.exit_code == 2
    assert "k is 0" in ran.stderr


def test_more_matches_than_there_are_gives_all_and_says_so(in_demo: Parcelle) -> None:
    ran = in_demo("similar", PARCEL, "-k", "999", "--format", "json")
    assert ran.exit_code == 0
    assert any("999 were asked for" in note for note in ran.json["notes"])


def test_similar_wants_a_parcel_or_an_image_and_not_both(in_demo: Parcelle, home: Path) -> None:
    assert in_demo("similar").exit_code == 2
    assert in_demo("similar", PARCEL, "--image", home).exit_code == 2


def test_similar_takes_examples_of_what_is_and_what_is_not_wanted(in_demo: Parcelle) -> None:
    options = ("similar", PARCEL, "--like", "demo-001", "--unlike", "demo-002", "-k", "3")
    answer = in_demo(*options, "--format", "json").json
    assert [one["id"] for one in answer["query"]["like"]] == [PARCEL, "demo-001"]
    assert [one["id"] for one in answer["query"]["unlike"]] == ["demo-002"]
    assert (
        f"Parcels like {PARCEL} and demo-001 but unlike demo-002, seen" in in_demo(*options).stdout
    )
    for examples in (("--like", PARCEL), ("--unlike", PARCEL)):
        ran = in_demo("similar", "--image", "/nowhere/chip.tif", *examples)
        assert ran.exit_code == 2
        assert "--like and --unlike go with a parcel id" in ran.stderr


def test_image_that_is_not_there_is_named(in_demo: Parcelle) -> None:
    ran = in_demo("similar", "--image", "/nowhere/chip.tif")
    assert ran.exit_code == 1
    assert "/nowhere/chip.tif" in ran.stderr


def test_state_json_holds_every_observation_in_order(in_demo: Parcelle) -> None:
    state = in_demo("state", PARCEL, "--format", "json").json
    assert state["id"] == PARCEL
    dates = [seen["datetime"][:10] for seen in state["observations"]]
    assert dates == ["2023-04-24", "2023-05-29", "2023-08-12"]
    ndvi = state["observations"][0]["indices"]["NDVI"]
    assert set(ndvi) == {"median", "mean", "std", "p10", "p90"}
    assert ndvi["p10"] <= ndvi["median"] <= ndvi["p90"]


def test_state_text_shows_crop_area_and_medians(in_demo: Parcelle) -> None:
    state = in_demo("state", PARCEL, "--format", "json").json
    text = in_demo("state", PARCEL).stdout
    assert state["crop:name"] in text
    assert f"{state['metrics:area'] / 10_000:.2f} ha" in text
    assert f"{state['observations'][0]['indices']['NDVI']['median']:.3f}" in text


def test_state_text_tells_the_same_numbers_over_time_as_json(in_demo: Parcelle) -> None:
    ran = in_demo("state", PARCEL)
    state = in_demo("state", PARCEL, "--format", "json").json
    assert f"Peak: NDVI {state['peak']['median']:.2f} on {state['peak']['datetime'][:10]}." in (
        ran.stdout
    )
    assert f"longest gap {state['gaps']['longest_days']:.0f}" in ran.stdout
    assert state["space"]["weights"] == "untrained"
    assert "Note: The encoder's weights are untrained" in ran.stderr


def test_state_of_an_interval_without_observations_says_so(in_demo: Parcelle) -> None:
    ran = in_demo("state", PARCEL, "--datetime", "1999")
    assert ran.exit_code == 1
    assert "[state-not-found]" in ran.stderr
