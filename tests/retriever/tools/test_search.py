import re
from collections.abc import Iterator

import pytest
from langchain_core.tools import BaseTool

from retriever.search import ParcelSearcher
from tests.retriever.planted import Seen, at_cosine, plant, searching, settings_in
from tests.retriever.tools.asking import answer, artifact, call, refusal, tool_of

NEXT = "Next: get_parcel_state or find_similar_parcels with an id and its collection."


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    """Sixty parcels, planted in no order."""
    chosen = settings_in(tmp_path_factory.mktemp("many"))
    plant(chosen, [Seen(f"p{(7 * n) % 60:02}", at_cosine(1), crop_name="maize") for n in range(60)])
    with searching(chosen) as searcher:
        yield searcher


def cursor_in(text: str) -> str:
    (cursor,) = re.findall(rf"More: cursor ([^ ]+)\. {re.escape(NEXT)}", text)
    return str(cursor)


def test_parcels_are_listed_line_by_line(search: BaseTool) -> None:
    assert answer(search).splitlines() == [
        "7 stored parcels fit.",
        "id,collection,crop,hectares,last seen",
        '"a","demo","winter wheat",1.23,2023-05-29',
        '"b","demo","maize",3.21,2023-08-12',
        '"d","demo",unknown,1.23,unknown date',
        '"e","demo",unknown,1.23,2023-05-29',
        '"twin","demo",unknown,1.23,2023-05-29',
        '"c","other","BTH",unknown,2023-05-29',
        '"twin","other",unknown,1.23,2023-05-29',
        NEXT,
    ]


def test_in_detail_place_and_attributes_are_told(search: BaseTool) -> None:
    lines = answer(search, text="WHEAT", response_format="detailed").splitlines()
    assert lines[0] == "1 stored parcel fits."
    assert lines[1] == (
        '"a" of "demo": crop "winter wheat", 1.23 ha, at longitude 2.0050, latitude 49.0050 '
        'degrees, 2 observations, last 2023-05-29; "farm": "17", "organic": true, "slope": 2.5'
    )


@pytest.mark.parametrize(
    "conditions",
    [
        {"text": "winter 17"},
        {"crops": ["bth"], "collection": "demo"},
        {"attributes": {"farm": "17"}},
        {"attributes": {"organic": True, "slope": 2.5}},
        {"text": "A", "attributes": {"farm": "17"}},
        {"filter": "crop:name LIKE '%wheat' AND slope > 2"},
        {"filter": "casei(farm) = casei('17') OR organic = FALSE", "collection": "demo"},
    ],
)
def test_conditions_choose_parcels(search: BaseTool, conditions: dict[str, object]) -> None:
    assert [parcel["id"] for parcel in artifact(search, **conditions)["parcels"]] == ["a"]


def test_nothing_that_fits_is_told_with_what_to_do(search: BaseTool) -> None:
    assert answer(search, text="no such words").splitlines() == [
        "No stored parcel fits.",
        "Next: call search_parcels again with fewer conditions or none to see what there is.",
    ]


def test_an_unknown_attribute_is_answered_with_those_that_there_are(search: BaseTool) -> None:
    text = refusal(search, attributes={"owner": "Martin"})
    assert text == (
        'Attribute "owner" is unknown; there are "farm", "organic", "slope". Correct this and call '
        "search_parcels again."
    )
    assert "no parcel has any" in refusal(
        search, attributes={"owner": "Martin"}, collection="other"
    )


def test_a_wrong_filter_is_answered_with_what_mends_it(search: BaseTool) -> None:
    text = refusal(search, filter="crop:name = wheat AND farm = 17")
    assert text == (
        'Filter: operator "=" compares a property with a value; found two properties, or two '
        "values. Text stands in single quotes. Correct this and call search_parcels again."
    )
    text = refusal(search, filter="crop = 'wheat'")
    assert text.startswith('Property "crop" is unknown; there are id, collection, crop:code, crop:')
    assert text.endswith(
        'of attributes there are "farm", "organic", "slope". Correct this and call search_parcels '
        "again."
    )


def test_a_filter_is_part_of_the_question_that_a_cursor_goes_on_with(many: ParcelSearcher) -> None:
    tool = tool_of(many, "search_parcels")
    later = "id >= 'p30'"
    page = artifact(tool, filter=later, limit=20)
    assert page["query"] == {"filter": later}
    rest = artifact(tool, filter=later, limit=20, cursor=page["cursor"])
    found = [parcel["id"] for parcel in (*page["parcels"], *rest["parcels"])]
    assert found == [f"p{n}" for n in range(30, 60)]
    assert "cursor" in refusal(tool, limit=20, cursor=page["cursor"])


def test_an_unknown_collection_is_answered_with_those_that_there_are(search: BaseTool) -> None:
    text = refusal(search, collection="demos")
    assert 'No collection "demos"; there is "demo", "other".' in text
    assert text.endswith("Call search_parcels again with one of these, or without collection.")


def test_pages_list_every_parcel_once_in_order(many: ParcelSearcher) -> None:
    tool = tool_of(many, "search_parcels")
    found: list[str] = []
    cursor = None
    for _ in range(60):
        message = call(tool, limit=9, cursor=cursor)
        assert str(message.content).startswith("60 stored parcels fit.")
        found += re.findall(r'^"(p\d\d)"', str(message.content), re.MULTILINE)
        if "cursor" not in message.content:
            break
        cursor = cursor_in(str(message.content))
    assert found == [f"p{n:02}" for n in range(60)]


def test_artifacts_follow_each_other_as_well(many: ParcelSearcher) -> None:
    tool = tool_of(many, "search_parcels")
    found: list[str] = []
    cursor = None
    for _ in range(3):
        page = artifact(tool, limit=25, cursor=cursor)
        found += [parcel["id"] for parcel in page["parcels"]]
        cursor = page["cursor"]
    assert cursor is None
    assert found == [f"p{n:02}" for n in range(60)]


def test_a_page_that_has_no_room_goes_on(many: ParcelSearcher) -> None:
    tool = tool_of(many, "search_parcels")
    message = call(tool, limit=50)
    shown = re.findall(r'^"(p\d\d)"', str(message.content), re.MULTILINE)
    assert 10 <= len(shown) < 50
    following = artifact(tool, limit=50, cursor=cursor_in(str(message.content)))
    assert following["parcels"][0]["id"] == f"p{len(shown):02}"
