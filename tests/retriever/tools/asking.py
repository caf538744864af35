"""Asks a tool as a model does, over LangChain."""

from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool

from retriever.search import ParcelSearcher
from retriever.toolkit import ParcelToolkit


def tool_of(searcher: ParcelSearcher, name: str) -> BaseTool:
    """One tool of the toolkit."""
    (found,) = [tool for tool in ParcelToolkit(searcher).get_tools() if tool.name == name]
    return found


def call(tool: BaseTool, **arguments: Any) -> ToolMessage:  # noqa: ANN401 - as a model sends them
    """The message that a tool sends back, whatever it says."""
    message = tool.invoke({"type": "tool_call", "id": "1", "name": tool.name, "args": arguments})
    assert isinstance(message, ToolMessage)
    assert isinstance(message.content, str)
    return message


def answer(tool: BaseTool, **arguments: Any) -> str:  # noqa: ANN401
    """The text of an answer."""
    message = call(tool, **arguments)
    assert message.status == "success", message.content
    assert message.artifact is not None
    return str(message.content)


def artifact(tool: BaseTool, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
    """The artifact of an answer."""
    message = call(tool, **arguments)
    assert message.status == "success", message.content
    found: dict[str, Any] = message.artifact
    return found


def refusal(tool: BaseTool, **arguments: Any) -> str:  # noqa: ANN401
    """The text of a refusal, always one line."""
    message = call(tool, **arguments)
    assert message.status == "error", message.content
    assert str(message.content).isprintable()
    return str(message.content)
