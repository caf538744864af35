"""What a tool is: a name, typed arguments, and a function that words the searcher's answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from retriever.search import ParcelSearcher
from retriever.tools.arguments import explain_arguments
from retriever.tools.failures import ToolFailure, explained
from retriever.tools.wording import without_surprises

__all__ = ["Answer", "ToolDefinition", "ToolFailure"]


@dataclass(frozen=True)
class Answer:
    """What a tool answers."""

    text: str
    """What the model reads: short, with units and dates; text from the index is quoted."""
    artifact: dict[str, Any]
    """The JSON form of the whole answer, for the program around the model."""


@dataclass(frozen=True)
class ToolDefinition:
    """One question that a model may ask."""

    name: str
    title: str
    """For people."""
    description: str
    """For the model: when to call it, what it answers, how long the answer gets."""
    arguments: type[BaseModel]
    artifact: type[BaseModel]
    """The form of the artifact."""
    answer: Callable[[ParcelSearcher, Any], Answer]
    """Asks the searcher, with arguments that were checked."""

    def ask(self, searcher: ParcelSearcher, arguments: Mapping[str, Any]) -> Answer:
        """Check the arguments and answer.

        Raises:
            ToolFailure: Whatever goes wrong, with what to call next.
        """
        try:
            checked = self.arguments.model_validate(dict(arguments))
        except ValidationError as error:
            message = explain_arguments(self.name, self.arguments, error)
            raise ToolFailure(message, asked_wrongly=True) from error
        with explained(self.name):
            answer = self.answer(searcher, checked)
        return Answer(answer.text, without_surprises(answer.artifact))
