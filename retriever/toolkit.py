"""ParcelToolkit: the tools bound to one searcher, for LangChain."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from langchain_core.tools import BaseTool, BaseToolkit, ToolException
from pydantic import BaseModel, ConfigDict, Field

from retriever.search import ParcelSearcher
from retriever.tools import TOOLS, ToolDefinition, ToolFailure
from retriever.tools.arguments import explain_arguments


class ParcelTool(BaseTool):
    """One of the tools, as LangChain calls it: short text as content, the rest as artifact.

    Args:
        definition: The tool.
        searcher: Who answers; it stays the caller's.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    definition: ToolDefinition = Field(exclude=True, repr=False)
    searcher: ParcelSearcher = Field(exclude=True, repr=False)
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: bool | str | Callable[[ToolException], Any] | None = True
    args_schema: type[BaseModel]

    def __init__(self, definition: ToolDefinition, searcher: ParcelSearcher) -> None:
        super().__init__(
            name=definition.name,
            description=definition.description,
            args_schema=definition.arguments,
            handle_validation_error=partial(
                explain_arguments, definition.name, definition.arguments
            ),
            definition=definition,
            searcher=searcher,
        )

    def _run(self, *one: Any, **arguments: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401
        if one:
            # A tool that is called with a string alone gets it without a name.
            arguments[next(iter(self.args_schema.model_fields))] = one[0]
        try:
            answer = self.definition.ask(self.searcher, arguments)
        except ToolFailure as failure:
            raise ToolException(failure.message) from failure
        return answer.text, answer.artifact


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
        return [ParcelTool(definition, self.searcher) for definition in TOOLS]
