import logging
from typing import Any

import pytest
from langchain_core.tools import BaseTool, ToolException
from sqlalchemy.exc import OperationalError

from indexer.errors import (
    GenerationMismatchError,
    InvalidInputError,
    NotFoundError,
    ParcelleError,
    StorageError,
)
from retriever.search import ParcelSearcher
from retriever.toolkit import ParcelToolkit
from retriever.tools import TOOLS, ToolFailure
from retriever.tools.failures import explained
from tests.retriever.planted import Seen, at_cosine, plant, searching, settings_in
from tests.retriever.tools.asking import answer, refusal, tool_of

MINIMAL: dict[str, dict[str, Any]] = {
    "find_similar_parcels": {"parcel_id": "a"},
    "get_parcel_state": {"parcel_id": "a"},
    "search_parcels": {},
    "compare_parcels": {"parcel_ids": ["a", "b"]},
}


class Failing(ParcelSearcher):
    """A searcher that meets what nobody foresaw."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def similar_by_examples(self, *_: object, **__: object) -> Any:  # noqa: ANN401
        raise self.error

    state = compare = parcels = similar_by_examples


@pytest.mark.parametrize(
    ("arguments", "message", "step"),
    [
        (
            {"parcel_id": "aa"},
            'No parcel "aa". Nearest ids: "a"',
            "with one of them if it is meant, else search_parcels by crop, place or name.",
        ),
        (
            {"parcel_id": "a", "collection": "dem"},
            'No collection "dem"; there is "demo", "other".',
            "Call find_similar_parcels again with one of these, or without collection.",
        ),
        (
            {"parcel_id": "twin"},
            'several collections ("demo", "other")',
            "Call find_similar_parcels again with one of these as collection.",
        ),
        (
            {"parcel_id": "e"},
            'Parcel "e" of "demo" has no vector',
            "Call get_parcel_state for it, or find_similar_parcels for another parcel.",
        ),
        (
            {"parcel_id": "a", "bbox": "48,2"},
            'bbox "48,2": write four numbers, west,south,east,north',
            "Correct this and call find_similar_parcels again.",
        ),
        (
            {"parcel_id": "a", "datetime": "last week"},
            'datetime "last week": write a date or time',
            "Correct this and call find_similar_parcels again.",
        ),
    ],
)
def test_an_error_says_what_to_call_next(
    similar: BaseTool, arguments: dict[str, Any], message: str, step: str
) -> None:
    text = refusal(similar, **arguments)
    assert message in text
    assert text.endswith(step)


def test_a_state_outside_of_all_observations_says_what_to_call_next(state: BaseTool) -> None:
    text = refusal(state, parcel_id="a", datetime="2019")
    assert 'was not observed in "2019"' in text
    assert text.endswith(
        "Call get_parcel_state again without datetime to see which dates there are."
    )


def test_a_damaged_index_is_a_matter_for_its_operator_but_hides_no_state(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    chosen = settings_in(tmp_path_factory.mktemp("damaged"))
    plant(chosen, [Seen("a", at_cosine(1))])
    (chosen.generations_dir / "1" / "vectors.npy").write_bytes(b"nothing")
    with searching(chosen) as searcher:
        text = refusal(tool_of(searcher, "find_similar_parcels"), parcel_id="a")
        state = answer(tool_of(searcher, "get_parcel_state"), parcel_id="a")
    assert text.startswith("The index cannot be used as it is; Parcelle's log says why. ")
    assert str(chosen.data_dir) not in text + state
    assert text.endswith("No other arguments help; say that the index needs its operator.")
    assert "2023-05-29: NDVI 0.70" in state
    assert "Note: Not compared with other parcels: " in state


def test_every_error_of_parcelle_ends_with_what_to_do() -> None:
    steps = ("Call ", "Correct this and call ", "No other arguments help; ")
    classes: list[type[ParcelleError]] = [
        NotFoundError,
        InvalidInputError,
        GenerationMismatchError,
        StorageError,
    ]
    for error in classes:
        for kind in error.KINDS:
            with pytest.raises(ToolFailure) as failed, explained("a_tool"):
                raise error("The thing.", kind=kind)
            message = failed.value.message
            assert any(f". {step}" in message for step in steps), (kind, message)
            assert message.endswith(".")


def test_a_database_that_is_gone_is_told_with_a_second_try() -> None:
    lost = Failing(OperationalError("select 1", {}, Exception("server closed the connection")))
    text = refusal(tool_of(lost, "get_parcel_state"), parcel_id="a")
    assert text.startswith("The database of the index does not answer. ")
    assert "server closed" not in text
    assert text.endswith("Call get_parcel_state again in a minute; if that fails too, say so.")


def test_a_message_becomes_one_bounded_line() -> None:
    damaged = NotFoundError("\x1b[2J\nfile: " + 10**6 * "damaged ", kind="file-not-found")
    text = refusal(tool_of(Failing(damaged), "get_parcel_state"), parcel_id="a")
    assert text.startswith(r"\x1b[2J\x0afile: damaged damaged")
    assert len(text) < 1000


@pytest.mark.parametrize("tool", [tool.name for tool in TOOLS])
@pytest.mark.parametrize(
    "error", [KeyError("secret"), ZeroDivisionError(), ValueError("secret"), RecursionError()]
)
def test_no_other_exception_leaves_a_tool(
    error: Exception, tool: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing = tool_of(Failing(error), tool)
    with caplog.at_level(logging.ERROR):
        text = refusal(failing, **MINIMAL[tool])
    assert f"{tool} failed inside Parcelle ({type(error).__name__})" in text
    assert "secret" not in text
    assert caplog.records[-1].exc_info is not None
    open_tool = failing.model_copy(update={"handle_tool_error": False})
    with pytest.raises(ToolException):
        open_tool.invoke(MINIMAL[tool])


def test_what_stops_a_program_stops_a_tool() -> None:
    for tool in ParcelToolkit(Failing(KeyboardInterrupt())).get_tools():
        with pytest.raises(KeyboardInterrupt):
            tool.invoke(MINIMAL[tool.name])
