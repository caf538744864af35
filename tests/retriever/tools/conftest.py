"""A planted index that the tools are asked about."""

from collections.abc import Iterator

import pytest
from langchain_core.tools import BaseTool

from indexer.parcels.parcel import JsonScalar
from retriever.search import ParcelSearcher
from tests.retriever.planted import Seen, at_cosine, plant, searching, settings_in
from tests.retriever.tools.asking import tool_of


@pytest.fixture(scope="session")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParcelSearcher]:
    """Wheat ``a`` and what resembles it, in two collections; ``e`` is under clouds."""
    chosen = settings_in(tmp_path_factory.mktemp("index"))
    farm: dict[str, JsonScalar] = {"farm": "17", "organic": True, "slope": 2.5}
    plant(
        chosen,
        [
            Seen("a", at_cosine(1), crop_code="BTH", crop_name="winter wheat", attributes=farm),
            Seen("b", at_cosine(0.9), day="2023-08-12", crop_name="maize", area_m2=32_100.0),
            Seen("c", at_cosine(0.8), collection="other", crop_code="BTH", area_m2=None),
            Seen("d", at_cosine(-0.5), day=None, reliable=False),
            Seen(
                "a",
                at_cosine(0.1, axis=5),
                day="2023-04-24",
                crop_code="BTH",
                crop_name="winter wheat",
                attributes=farm,
                indices={"NDVI": 0.4, "NDMI": 0.1},
            ),
            Seen("twin", at_cosine(0.3, axis=6)),
            Seen("twin", at_cosine(0.2, axis=7), collection="other"),
            Seen("e", None, reliable=False, valid_fraction=0.1, indices={}),
        ],
    )
    with searching(chosen) as searcher:
        yield searcher


@pytest.fixture
def similar(searcher: ParcelSearcher) -> BaseTool:
    return tool_of(searcher, "find_similar_parcels")


@pytest.fixture
def state(searcher: ParcelSearcher) -> BaseTool:
    return tool_of(searcher, "get_parcel_state")


@pytest.fixture
def search(searcher: ParcelSearcher) -> BaseTool:
    return tool_of(searcher, "search_parcels")


@pytest.fixture
def compare(searcher: ParcelSearcher) -> BaseTool:
    return tool_of(searcher, "compare_parcels")
