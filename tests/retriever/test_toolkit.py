from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, BaseToolkit

from retriever.toolkit import ParcelToolkit
from tests.retriever.planted import Seen, at_cosine, plant, searching, settings_in


def test_a_toolkit_offers_one_tool_for_each_question(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))])
    with searching(chosen) as searcher:
        toolkit = ParcelToolkit(searcher)
        assert isinstance(toolkit, BaseToolkit)
        tools = toolkit.get_tools()
        asked: dict[str, dict[str, Any]] = {
            "search_parcels": {},
            "get_parcel_state": {"parcel_id": "b"},
            "find_similar_parcels": {"parcel_id": "a"},
            "compare_parcels": {"parcel_ids": ["a", "b"]},
        }
        assert [tool.name for tool in tools] == list(asked)
        for tool in tools:
            assert isinstance(tool, BaseTool)
            assert '"b"' in tool.invoke(asked[tool.name])


def test_nothing_of_the_searcher_is_written_out_with_the_toolkit(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen("a", at_cosine(1))])
    with searching(chosen) as searcher:
        toolkit = ParcelToolkit(searcher)
        assert toolkit.model_dump() == {}
        for written in (repr(toolkit), *map(repr, toolkit.get_tools())):
            assert "ParcelSearcher" not in written
        assert all("searcher" not in tool.model_dump() for tool in toolkit.get_tools())
