"""The questions that a language model may ask, the same over LangChain and MCP.

A tool checks its arguments, asks the searcher and words the answer; it knows nothing that the
searcher does not, and neither LangChain nor MCP. ``retriever.toolkit`` and ``api.mcp_server`` hand
the tools to models.
"""

from retriever.tools.compare import COMPARE_PARCELS
from retriever.tools.definition import Answer, ToolDefinition, ToolFailure
from retriever.tools.search import SEARCH_PARCELS
from retriever.tools.similar import FIND_SIMILAR_PARCELS
from retriever.tools.state import GET_PARCEL_STATE

__all__ = ["TOOLS", "Answer", "ToolDefinition", "ToolFailure"]

TOOLS: tuple[ToolDefinition, ...] = (
    SEARCH_PARCELS,
    GET_PARCEL_STATE,
    FIND_SIMILAR_PARCELS,
    COMPARE_PARCELS,
)
"""Every tool, in the order in which a model is told of them."""
