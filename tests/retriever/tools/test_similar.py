import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.tools import BaseTool

from indexer.embedding_space import UNTRAINED_NOTE
from indexer.settings import Settings
from retriever.queries import Interval, ParcelFilter
from retriever.search import ParcelSearcher
from tests.retriever.planted import UNTRAINED, Seen, at_cosine, plant, searching, settings_in
from tests.retriever.tools.asking import answer, artifact, call, refusal, tool_of
from tests.retriever.tools.tokens import count_tokens

STEP = "Next: get_parcel_state tells what was measured on one of them."


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    """Sixty parcels, each less similar to ``p00`` than the one before."""
    chosen = settings_in(tmp_path_factory.mktemp("row"))
    plant(chosen, [Seen(f"p{n:02}", at_cosine(1 - n / 100), crop_name="maize") for n in range(60)])
    with searching(chosen) as searcher:
        yield searcher


def cursor_in(text: str) -> str:
    (cursor,) = re.findall(r"More: cursor ([^ ]+)\. ", text)
    return str(cursor)


# Answers -------------------------------------------------------------------------------------


def test_similar_parcels_are_told_line_by_line(similar: BaseTool, searcher: ParcelSearcher) -> None:
    (generation,) = searcher.generations()
    *lines, last = answer(similar, parcel_id="a", k=5).splitlines()
    assert lines == [
        'Parcels most like "a" of "demo", seen 2023-05-29. Score: cosine similarity, -1 to 1.',
        "id,collection,crop,score,seen",
        '"b","demo","maize",0.900,2023-08-12',
        '"c","other","BTH",0.800,2023-05-29',
        '"twin","demo",unknown,0.300,2023-05-29',
        '"twin","other",unknown,0.200,2023-05-29',
        '"d","demo",unknown,-0.500,unknown date not reliable',
        f"Source: generation 2, space {generation.manifest.space_digest[:12]} (croma-large, "
        "weights trained).",
    ]
    assert re.fullmatch(rf"More: cursor 5\.2\.[0-9a-f]{{6}}\. {re.escape(STEP)}", last)


def test_a_filter_chooses_observations_and_is_told(similar: BaseTool) -> None:
    condition = "metrics:area > 20000 AND NDVI > 0.6"
    lines = answer(similar, parcel_id="a", filter=condition).splitlines()
    assert lines[0] == (
        'Parcels most like "a" of "demo", seen 2023-05-29, only "filter metrics:area > 20000 AND '
        'NDVI > 0.6". Score: cosine similarity, -1 to 1.'
    )
    assert lines[2].startswith('"b",')
    found = artifact(similar, parcel_id="a", filter="datetime > DATE('2023-05-29')")
    assert [match["id"] for match in found["matches"]] == ["b"]


def test_a_wrong_filter_is_answered_with_what_mends_it(similar: BaseTool) -> None:
    text = refusal(similar, parcel_id="a", filter="NDVI is high")
    assert text == (
        'Filter: at character 9 found "high", expected NULL or NOT NULL. Correct this and call '
        "find_similar_parcels again."
    )
    text = refusal(similar, parcel_id="a", filter="area > 2")
    assert text.startswith('Property "area" is unknown; there are id, collection, crop:code, crop:')
    assert "metrics:area" in text


def test_a_filter_of_any_length_leaves_the_answer_its_bound(similar: BaseTool) -> None:
    long = "id IN (" + ", ".join(f"'\u00e9{n:05}'" for n in range(150)) + ") OR id = 'b'"
    assert 1500 < len(long) <= 2000
    assert count_tokens(answer(similar, parcel_id="a", filter=long)) <= 500
    assert "at most 2000 characters" in refusal(similar, parcel_id="a", filter=long * 2)


def test_in_detail_each_match_has_its_state_beside_it(similar: BaseTool) -> None:
    lines = answer(similar, parcel_id="a", k=2, response_format="detailed").splitlines()
    assert lines[0].endswith("NDVI and NDMI: medians, unitless. Best first:")
    assert lines[1] == (
        '1. "b" of "demo", crop "maize": score 0.900, seen 2023-08-12, 100 % valid, reliable, '
        'NDVI 0.70, NDMI 0.30, 3.21 ha, scene "scene-2023-08-12"'
    )
    assert lines[2].startswith('2. "c" of "other", crop "BTH": score 0.800')
    assert "area unknown" in lines[2]


def test_the_collection_is_told_only_where_there_are_several(row: ParcelSearcher) -> None:
    lines = answer(tool_of(row, "find_similar_parcels"), parcel_id="p00", k=1).splitlines()
    assert lines[1:3] == ["id,crop,score,seen", '"p01","maize",0.990,2023-05-29']


def test_doubts_are_told(similar: BaseTool) -> None:
    text = answer(similar, parcel_id="d", k=50)
    assert '"d" of "demo", seen on an unknown date, not reliable. Score' in text
    assert "Note: Only 5 parcels match; 50 were asked for." in text
    assert '"d","demo",unknown,-0.500,unknown date not reliable' in answer(
        similar, parcel_id="a", k=50
    )


def test_the_artifact_is_the_whole_answer(similar: BaseTool, searcher: ParcelSearcher) -> None:
    whole = artifact(similar, parcel_id="a", k=50)
    assert whole == {**searcher.similar_by_id("a", k=50).to_dict(), "cursor": None}
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole


def test_filters_reach_the_searcher_and_the_text(
    similar: BaseTool, searcher: ParcelSearcher
) -> None:
    chosen: dict[str, Any] = {"crops": ["bth"], "bbox": "1,48,3,50", "datetime": "2023-05"}
    message = call(similar, parcel_id="a", **chosen)
    assert ', only "crops bth; bbox 1,48,3,50; datetime 2023-05". Score' in message.content
    assert [match["id"] for match in message.artifact["matches"]] == ["c"]
    where = ParcelFilter(crops=("bth",), interval=Interval.parse("2023-05"))
    assert searcher.similar_by_id("a", where=where).matches[0].parcel_id == "c"


def test_nothing_found_is_told_with_what_to_do(similar: BaseTool) -> None:
    text = answer(similar, parcel_id="a", crops=["rice"])
    assert "Note: Only 0 parcels match; 10 were asked for." in text
    assert text.endswith("Next: call find_similar_parcels again with a wider filter or none.")


def test_untrained_weights_are_always_told(
    tmp_path_factory: pytest.TempPathFactory, demo_index: Settings
) -> None:
    planted = settings_in(tmp_path_factory.mktemp("untrained"))
    plant(planted, [Seen("demo-001", at_cosine(1)), Seen("b", at_cosine(1))], weights=UNTRAINED)
    for chosen in (planted, demo_index):
        with searching(chosen) as searcher:
            for tool in ("find_similar_parcels", "get_parcel_state"):
                text = answer(tool_of(searcher, tool), parcel_id="demo-001")
                assert f"Note: {UNTRAINED_NOTE}" in text


def test_a_string_alone_is_the_parcel_id(similar: BaseTool, state: BaseTool) -> None:
    assert '"b","demo"' in similar.invoke("a")
    assert 'Parcel "a" of "demo"' in state.invoke("a")


# Examples ------------------------------------------------------------------------------------


def test_examples_change_what_is_found(similar: BaseTool, searcher: ParcelSearcher) -> None:
    message = call(similar, parcel_id="a", like=["b"], unlike=["c"], k=3)
    expected = searcher.similar_by_examples(["a", "b"], ["c"], k=3)
    assert message.artifact["matches"] == [match.to_dict() for match in expected.matches]
    assert {match["id"] for match in message.artifact["matches"]} == {"twin", "d"}
    head = str(message.content).splitlines()[0]
    assert "seen 2023-05-29, with 1 more like it and unlike 1. Score" in head
    assert [one["id"] for one in message.artifact["query"]["like"]] == ["a", "b"]
    assert [one["id"] for one in message.artifact["query"]["unlike"]] == ["c"]


def test_an_example_that_does_not_exist_is_named(similar: BaseTool) -> None:
    assert 'No parcel "zz"' in refusal(similar, parcel_id="a", unlike=["zz"])


# Pages ---------------------------------------------------------------------------------------


def test_pages_follow_each_other_without_a_gap(row: ParcelSearcher) -> None:
    tool = tool_of(row, "find_similar_parcels")
    found: list[str] = []
    cursor = None
    for _ in range(30):
        message = call(tool, parcel_id="p00", k=7, cursor=cursor)
        shown = re.findall(r'^"(p\d\d)"', str(message.content), flags=re.MULTILINE)
        assert shown == [match["id"] for match in message.artifact["matches"]][: len(shown)]
        found += shown
        if "cursor" not in message.content:
            break
        cursor = cursor_in(str(message.content))
    assert found == [f"p{n:02}" for n in range(1, 60)]


def test_what_has_no_room_is_on_the_next_page(row: ParcelSearcher) -> None:
    tool = tool_of(row, "find_similar_parcels")
    message = call(tool, parcel_id="p00", k=50)
    shown = re.findall(r'^"(p\d\d)"', str(message.content), flags=re.MULTILINE)
    assert 10 <= len(shown) < 50 == len(message.artifact["matches"])
    following = call(tool, parcel_id="p00", k=50, cursor=cursor_in(str(message.content)))
    assert f'"p{len(shown) + 1:02}",' in str(following.content).splitlines()[2]
    assert following.artifact["matches"][0]["rank"] == len(shown) + 1


def test_artifacts_follow_each_other_as_well(row: ParcelSearcher) -> None:
    tool = tool_of(row, "find_similar_parcels")
    found: list[str] = []
    cursor = None
    for _ in range(3):
        page = artifact(tool, parcel_id="p00", k=25, cursor=cursor)
        found += [match["id"] for match in page["matches"]]
        cursor = page["cursor"]
    assert cursor is None
    assert found == [f"p{n:02}" for n in range(1, 60)]


def test_the_last_page_has_no_cursor(row: ParcelSearcher) -> None:
    tool = tool_of(row, "find_similar_parcels")
    message = call(tool, parcel_id="p00", k=5, bbox="100,0,101,1")
    assert message.artifact["matches"] == []
    assert message.artifact["cursor"] is None
    assert "cursor" not in message.content


def test_a_cursor_of_another_question_or_generation_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    chosen = settings_in(tmp_path_factory.mktemp("moving"))
    seen = [Seen(f"p{n}", at_cosine(1 - n / 10)) for n in range(9)]
    plant(chosen, seen)
    with searching(chosen) as searcher:
        tool = tool_of(searcher, "find_similar_parcels")
        cursor = artifact(tool, parcel_id="p0", k=3)["cursor"]
        # The size of the pages and their form may change on the way.
        assert "4. " in answer(tool, parcel_id="p0", k=2, response_format="detailed", cursor=cursor)
        for other in ({"parcel_id": "p1"}, {"parcel_id": "p0", "unlike": ["p3"]}):
            text = refusal(tool, cursor=cursor, **other)
            assert "belongs to a question with other arguments" in text
            assert text.endswith("Call find_similar_parcels again without cursor.")
        assert "hand back exactly what an earlier answer gave" in refusal(
            tool, parcel_id="p0", cursor="next"
        )
        plant(chosen, [Seen("new", at_cosine(0.95))])
        text = refusal(tool, parcel_id="p0", cursor=cursor)
        assert "was replaced by newer data" in text
        assert text.endswith("Call find_similar_parcels again without cursor.")
