from pathlib import Path

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
        assert [tool.name for tool in tools] == ["find_similar_parcels", "get_parcel_state"]
        for tool in tools:
            assert isinstance(tool, BaseTool)
            assert '"b"' in tool.invoke({"parcel_id": "b" if "state" in tool.name else "a"})


def test_nothing_of_the_searcher_is_written_out_with_the_toolkit(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen("a", at_cosine(1))])
    with searching(chosen) as searcher:
        toolkit = ParcelToolkit(searcher)
        assert toolkit.model_dump() == {}
        for written in (repr(toolkit), *map(repr, toolkit.get_tools())):
            assert "ParcelSearcher" not in written
        assert all("searcher" not in tool.model_dump() for tool in toolkit.get_tools())
