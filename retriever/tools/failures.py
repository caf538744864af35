"""Errors that a model can act on: what went wrong, and what to call next."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError

from indexer.catalog.database import unreachable
from indexer.errors import (
    GenerationMismatchError,
    InvalidInputError,
    NotFoundError,
    ParcelleError,
)
from retriever.quoting import cleaned

_MAX_MESSAGE = 800

_OPERATOR = "No other arguments help; say that the index needs its operator."
_NEXT_STEPS = {
    "ambiguous-parcel": "Call {tool} again with one of these as collection.",
    "collection-not-found": "Call {tool} again with one of these, or without collection.",
    "cursor-expired": "Call {tool} again without cursor.",
    "database-unreachable": "Call {tool} again in a minute; if that fails too, say so.",
    "parcel-not-embedded": "Call get_parcel_state for it, or {tool} for another parcel.",
    "parcel-not-found": "Call {tool} again with one of them if it is meant, else search_parcels "
    "by crop, place or name.",
    "state-not-found": "Call {tool} again without datetime to see which dates there are.",
}

_log = logging.getLogger(__name__)


class ToolFailure(Exception):
    """A question that got no answer.

    Args:
        message: One bounded line for the model: what went wrong, and what to call next.
        asked_wrongly: Whether the question is to blame, not Parcelle.
    """

    def __init__(self, message: str, *, asked_wrongly: bool) -> None:
        super().__init__(message)
        self.message = message
        self.asked_wrongly = asked_wrongly


@contextmanager
def explained(tool: str) -> Iterator[None]:
    """Let nothing leave a tool but a ``ToolFailure`` that says what to do next."""
    try:
        yield
    except ParcelleError as error:
        raise _failure(tool, error) from error
    except OperationalError as error:
        raise _failure(tool, unreachable(error)) from error
    except Exception as error:
        _log.exception("%s failed", tool)
        message = f"{tool} failed inside Parcelle ({type(error).__name__}). {_OPERATOR}"
        raise ToolFailure(message, asked_wrongly=False) from error


def _failure(tool: str, error: ParcelleError) -> ToolFailure:
    if error.told != error.message:
        _log.error("%s: %s (%s)", tool, error.message, error.kind)
    step = _NEXT_STEPS.get(error.kind)
    if step is None:
        correctable = isinstance(error, InvalidInputError | GenerationMismatchError)
        step = "Correct this and call {tool} again." if correctable else _OPERATOR
    return ToolFailure(
        f"{cleaned(error.told, _MAX_MESSAGE)} {step.format(tool=tool)}",
        asked_wrongly=isinstance(error, NotFoundError | InvalidInputError),
    )
