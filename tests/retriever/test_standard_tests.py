"""What LangChain asks of every tool and every retriever, asked of ours."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from langchain_tests.integration_tests import RetrieversIntegrationTests, ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from retriever.documents import ParcelRetriever
from retriever.search import ParcelSearcher
from retriever.toolkit import ParcelTool
from retriever.tools import TOOLS
from tests.retriever.planted import Seen, at_cosine, plant, searching, settings_in

ARGUMENTS: dict[str, dict[str, Any]] = {
    "search_parcels": {"crops": ["winter wheat"], "limit": 3},
    "get_parcel_state": {"parcel_id": "a", "datetime": "2023"},
    "find_similar_parcels": {"parcel_id": "a", "k": 3, "unlike": ["d"]},
    "compare_parcels": {"parcel_ids": ["a", "b"], "response_format": "detailed"},
}
"""A call of each tool."""


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    """Five parcels of wheat."""
    chosen = settings_in(tmp_path_factory.mktemp("index"))
    scores = {"a": 1.0, "b": 0.9, "c": 0.8, "d": 0.7, "e": 0.6}
    plant(
        chosen,
        [Seen(name, at_cosine(score), crop_name="winter wheat") for name, score in scores.items()],
    )
    with searching(chosen) as searcher:
        yield searcher


class ToolUnderTest:
    """What the standard classes ask for; they take it from properties, not from fixtures."""

    searcher: ClassVar[ParcelSearcher]
    name: ClassVar[str]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _open(cls, searcher: ParcelSearcher) -> None:
        cls.searcher = searcher

    @property
    def tool_constructor(self) -> type[ParcelTool]:
        return ParcelTool

    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        (definition,) = (tool for tool in TOOLS if tool.name == self.name)
        return {"definition": definition, "searcher": self.searcher}

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return ARGUMENTS[self.name]


class TestSearchParcelsUnit(ToolUnderTest, ToolsUnitTests):
    name = "search_parcels"


class TestSearchParcelsIntegration(ToolUnderTest, ToolsIntegrationTests):
    name = "search_parcels"


class TestGetParcelStateUnit(ToolUnderTest, ToolsUnitTests):
    name = "get_parcel_state"


class TestGetParcelStateIntegration(ToolUnderTest, ToolsIntegrationTests):
    name = "get_parcel_state"


class TestFindSimilarParcelsUnit(ToolUnderTest, ToolsUnitTests):
    name = "find_similar_parcels"


class TestFindSimilarParcelsIntegration(ToolUnderTest, ToolsIntegrationTests):
    name = "find_similar_parcels"


class TestCompareParcelsUnit(ToolUnderTest, ToolsUnitTests):
    name = "compare_parcels"


class TestCompareParcelsIntegration(ToolUnderTest, ToolsIntegrationTests):
    name = "compare_parcels"


class TestParcelRetriever(RetrieversIntegrationTests):
    searcher: ClassVar[ParcelSearcher]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _open(cls, searcher: ParcelSearcher) -> None:
        cls.searcher = searcher

    @property
    def retriever_constructor(self) -> type[ParcelRetriever]:
        return ParcelRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"searcher": self.searcher}

    @property
    def retriever_query_example(self) -> str:
        return "Which parcels look like a?"


@pytest.mark.parametrize("standard", [ToolsUnitTests, ToolsIntegrationTests])
def test_every_tool_is_held_against_the_standard(standard: type) -> None:
    tested = [case.name for case in ToolUnderTest.__subclasses__() if issubclass(case, standard)]
    assert sorted(tested) == sorted(tool.name for tool in TOOLS)
    assert set(tested) == set(ARGUMENTS)
