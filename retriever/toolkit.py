"""ParcelToolkit: the tools bound to one searcher."""

from langchain_core.tools import BaseTool, BaseToolkit
from pydantic import ConfigDict, Field

from retriever.search import ParcelSearcher
from retriever.tools import FindSimilarParcels, GetParcelState


class ParcelToolkit(BaseToolkit):
    """Everything that an agent can ask about parcels.

    ::

        searcher = ParcelSearcher.open(Settings())
        agent = create_agent(model, ParcelToolkit(searcher).get_tools())

    The searcher stays the caller's: it may serve other doors too, and is closed by whoever
    opened it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    searcher: ParcelSearcher = Field(exclude=True, repr=False)

    def __init__(self, searcher: ParcelSearcher) -> None:
        super().__init__(searcher=searcher)

    def get_tools(self) -> list[BaseTool]:
        """One tool per question."""
        return [
            FindSimilarParcels(searcher=self.searcher),
            GetParcelState(searcher=self.searcher),
        ]
