import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from langchain_core.tools import BaseTool

from retriever.search import ParcelSearcher
from tests.retriever.planted import Seen, at_cosine, plant, searching, settings_in
from tests.retriever.tools.asking import answer, artifact, call, refusal, tool_of

NEXT = "Next: find_similar_parcels or compare_parcels."


def cursor_in(text: str, left: int | None = None) -> str:
    ((more, cursor),) = re.findall(
        r"^(\d+) more observations: cursor ([^ ]+)\. ", text, re.MULTILINE
    )
    assert left in (None, int(more))
    return str(cursor)


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    """Wheat ``x`` that falls behind six others, which look like it; two dates, one clouded."""
    chosen = settings_in(tmp_path_factory.mktemp("season"))
    wheat = Seen("x", at_cosine(1), crop_code="BTH", crop_name="winter wheat")
    plant(
        chosen,
        [
            replace(wheat, day="2023-05-09", indices={"NDVI": 0.8, "NDMI": 0.4}),
            replace(wheat, day="2023-05-19", indices={"NDVI": 0.7, "NDMI": 0.3}),
            replace(
                wheat, day="2023-05-24", vector=None, reliable=False, valid_fraction=0.2, indices={}
            ),
            replace(wheat, day="2023-05-29", vector=at_cosine(0.6), indices={"NDVI": 0.55}),
            *(
                replace(
                    wheat,
                    parcel_id=f"n{n}",
                    vector=at_cosine(0.6 - n / 100),
                    day="2023-05-29",
                    crop_code="MIS" if n == 5 else "BTH",
                    crop_name="maize" if n == 5 else "winter wheat",
                    indices={"NDVI": 0.5 + n / 10},
                    corner=(2.0 + n / 100, 49.0),
                )
                for n in range(7)
            ),
        ],
    )
    with searching(chosen) as searcher:
        yield searcher


def test_a_state_is_told_latest_first_and_then_over_time_and_against_its_kind(
    season: ParcelSearcher,
) -> None:
    lines = answer(tool_of(season, "get_parcel_state"), parcel_id="x").splitlines()
    assert lines[:6] == [
        'Parcel "x" of "demo": crop "winter wheat", 1.23 ha. 3 of 4 observations reliable; only '
        "these count.",
        "Medians, unitless (NDVI greenness, NDMI moisture), latest first:",
        "2023-05-29: NDVI 0.55, NDMI not measured, 100 % valid",
        "2023-05-24: NDVI not measured, NDMI not measured, 20 % valid, NOT reliable",
        "2023-05-19: NDVI 0.70, NDMI 0.30, 100 % valid",
        "2023-05-09: NDVI 0.80, NDMI 0.40, 100 % valid",
    ]
    # Slopes between the pairs: -0.010, -0.015 and -0.0125 a day. Five of the six wheats are
    # greener than 0.55 (0.6, 0.7, 0.8, 0.9, 1.1), one is not (0.5): one sixth lies below.
    # One of the seven look-alikes grows maize. A hundredth of a degree of longitude is 0.73 km
    # at 49 degrees of latitude; the farthest wheat is six of them away.
    assert lines[6:12] == [
        "Trend: NDVI -0.0125 per day over 3 observations, 2023-05-09 to 2023-05-29.",
        "Against all parcels of its crop around (6, seen 2023-05-29, within 4.4 km): NDVI "
        "percentile 17 (median 0.75).",
        'Most alike (NDVI): "n0" 0.50, "n1" 0.60, "n2" 0.70.',
        'Crop of its look-alikes: "winter wheat" (86 % of 7), as declared.',
        "Peak: NDVI 0.80 on 2023-05-09.",
        "Change 2023-05-19 to 2023-05-29: NDVI -0.15; cosine of embeddings 0.600.",
    ]
    assert lines[12].startswith("Source: generation 1, space ")
    assert lines[13:] == [NEXT]


def test_a_crop_that_looks_wrong_stands_out(season: ParcelSearcher) -> None:
    message = call(tool_of(season, "get_parcel_state"), parcel_id="n5")
    assert 'Crop of its look-alikes: "winter wheat" (100 % of 7), NOT as declared (0 %).' in str(
        message.content
    )
    assert 'crop "maize"' in message.content
    vote = message.artifact["peers"]["crop"]
    assert (vote["agrees"], vote["share"]) == (False, 1.0)
    assert "Against all parcels of its crop around: too few (0, at least 5 needed)." in str(
        message.content
    )


def test_a_clouded_parcel_is_nothing_to_speak_of(state: BaseTool) -> None:
    text = answer(state, parcel_id="e")
    assert "2023-05-29: NDVI not measured, NDMI not measured, 10 % valid, NOT reliable" in text
    assert "0 of 1 observations reliable: clouds hide it, or it is too small. Claim nothing" in text
    assert "Trend: too few observations." in text
    assert "Note: Not compared with other parcels: it has no reliable observation" in text


def test_in_detail_every_index_and_the_scene_are_told(season: ParcelSearcher) -> None:
    text = answer(tool_of(season, "get_parcel_state"), parcel_id="x", response_format="detailed")
    assert '2023-05-29: NDVI 0.55, 100 % valid, scene "scene-2023-05-29"' in text
    # Quantiles of 0.5, 0.6, 0.7, 0.8, 0.9 and 1.1, by linear interpolation.
    assert "Seen every 10 days, longest gap 10 from 2023-05-09." in text
    assert "percentile 17 (median 0.75, p10 0.55, p90 1.00)" in text


def test_the_artifact_of_a_state_is_the_whole_state(
    state: BaseTool, searcher: ParcelSearcher
) -> None:
    assert artifact(state, parcel_id="a") == searcher.state("a").to_dict()


def test_a_long_series_goes_on_where_it_ended(tmp_path_factory: pytest.TempPathFactory) -> None:
    chosen = settings_in(tmp_path_factory.mktemp("series"))
    days = [f"2023-{month:02}-{day}" for month in range(1, 13) for day in (10, 20)]
    seen = [
        Seen("a", at_cosine(1), day=day, indices={"NDVI": number / 100, "NDMI": -0.1})
        for number, day in enumerate(days)
    ]
    plant(chosen, [*seen, Seen("a", at_cosine(1), day=None)])
    told: list[str] = []
    with searching(chosen) as searcher:
        tool = tool_of(searcher, "get_parcel_state")
        cursor = None
        for page in range(10):
            message = call(tool, parcel_id="a", cursor=cursor)
            assert len(message.artifact["observations"]) == 25
            told += re.findall(r"^([\d-]{10}|unknown date): ", str(message.content), re.MULTILINE)
            assert ("Trend: " in message.content) == (page == 0)
            if len(told) == 25:
                assert "cursor" not in message.content
                break
            cursor = cursor_in(str(message.content), 25 - len(told))
        assert page > 0
        assert told == [*reversed(days), "unknown date"]
        assert "belongs to a question" in refusal(
            tool, parcel_id="a", datetime="2023", cursor="2.25.abcdef"
        )
        plant(chosen, [Seen("a", at_cosine(1), day="2024-01-01")])
        late = cursor_in(answer(tool, parcel_id="a"))
        assert "was replaced by newer data" in refusal(
            tool, parcel_id="a", cursor=late.replace(".26.", ".25.")
        )


def test_an_interval_bounds_everything_that_is_told(season: ParcelSearcher) -> None:
    found = artifact(tool_of(season, "get_parcel_state"), parcel_id="x", datetime="../2023-05-20")
    assert [seen["datetime"][:10] for seen in found["observations"]] == ["2023-05-09", "2023-05-19"]
    assert found["trend"] is None
    assert found["last_change"]["score"] == 1.0
    assert found["peers"]["datetime"] == "2023-05-19T10:50:31Z"
