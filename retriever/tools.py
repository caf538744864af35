"""LangChain tools, one per question: short text for the model, the whole answer as artifact.

A tool checks its arguments, asks the searcher and words the answer; it knows nothing that the
searcher does not. Whatever goes wrong becomes a ``ToolException`` that says what to call next.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from langchain_core.tools import BaseTool, ToolException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from sqlalchemy.exc import OperationalError

from indexer.catalog.database import unreachable
from indexer.errors import InvalidInputError, ParcelleError
from retriever.queries import Bbox, Interval, ParcelFilter
from retriever.quoting import MAX_QUOTED, cleaned, quoted
from retriever.results import Match, Matches
from retriever.search import ParcelSearcher
from retriever.state import ObservedState, ParcelState

DEFAULT_TOOL_K = 5
"""Matches that a model gets if it asks for no number: it pays for every line it reads."""

MAX_TOOL_K = 50

SHOWN_OBSERVATIONS = 8
"""Observations in the text of a state; the artifact holds all."""

_FIND_SIMILAR = "find_similar_parcels"
_GET_STATE = "get_parcel_state"

_SHOWN_INDICES = ("NDVI", "NDMI")
_MAX_MESSAGE = 800
_SHOWN_PROBLEMS = 5

_log = logging.getLogger(__name__)

Answer = tuple[str, dict[str, Any]]
"""What the model reads, and the JSON form of the answer for the program around it."""


# Arguments -----------------------------------------------------------------------------------

ParcelId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=300,
        description="Id of a stored parcel, spelled as in earlier answers, for example demo-012.",
    ),
]
CollectionName = Annotated[
    str | None,
    Field(
        max_length=100,
        description="Collection that the parcel is in; needed only if several hold its id.",
    ),
]
IntervalText = Annotated[
    str | None,
    Field(
        max_length=100,
        description="Only observations acquired then: a date, month or year (2023-05-29, 2023-05, "
        "2023) or an interval (2023-04-01/2023-06-30, 2023-06/.., ../2023), in UTC.",
    ),
]


class ToolArguments(BaseModel):
    """Arguments of a tool; no others are taken."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*")
    @classmethod
    def _without_null_characters(cls, value: object) -> object:
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            # PostgreSQL refuses them, and nothing stored can match them.
            raise PydanticCustomError("null_character", "Null characters are not allowed")
        return value


class SimilarArguments(ToolArguments):
    """Arguments of ``find_similar_parcels``."""

    parcel_id: ParcelId
    collection: CollectionName = None
    k: Annotated[
        int, Field(ge=1, le=MAX_TOOL_K, description=f"Matches wanted, 1 to {MAX_TOOL_K}.")
    ] = DEFAULT_TOOL_K
    crops: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=300)]] | None,
        Field(
            max_length=20,
            description="Only parcels of these crops: up to 20 crop names or codes, as in earlier "
            "answers, upper or lower case.",
        ),
    ] = None
    bbox: Annotated[
        str | None,
        Field(
            max_length=200,
            description="Only parcels that touch this rectangle: west,south,east,north in degrees, "
            "for example 2.3,48.8,2.5,48.9.",
        ),
    ] = None
    datetime: IntervalText = None


class StateArguments(ToolArguments):
    """Arguments of ``get_parcel_state``."""

    parcel_id: ParcelId
    collection: CollectionName = None
    datetime: IntervalText = None


def explain_arguments(tool: str, schema: type[BaseModel], error: ValueError) -> str:
    """What is wrong with a tool's arguments: which one, what was found, what is allowed.

    Args:
        tool: Name of the tool.
        schema: Its arguments.
        error: What pydantic raised.
    """
    problems: list[str] = []
    if isinstance(error, ValidationError):
        details = error.errors(include_url=False, include_context=False)
        problems = [_problem(schema, detail) for detail in details[:_SHOWN_PROBLEMS]]
    return " ".join([*problems, f"Correct this and call {tool} again."])


def _problem(schema: type[BaseModel], detail: ErrorDetails) -> str:
    argument = str(detail["loc"][0]) if detail["loc"] else "arguments"
    field = schema.model_fields.get(argument)
    if field is None:
        allowed = ", ".join(schema.model_fields)
        return f"Argument {quoted(argument)} is unknown; there are {allowed}."
    if detail["type"] == "missing":
        return f"Argument {argument} is missing. {field.description}"
    given = detail["input"]
    found = quoted(given) if isinstance(given, str) else cleaned(repr(given), MAX_QUOTED)
    return (
        f"Argument {argument}: found {found}; {_uncapitalized(detail['msg'])}. {field.description}"
    )


def _uncapitalized(text: str) -> str:
    return text[:1].lower() + text[1:]


# Tools ---------------------------------------------------------------------------------------


class ParcelTool(BaseTool):
    """What the tools have in common: a searcher, checked arguments, errors that help."""

    searcher: ParcelSearcher = Field(exclude=True, repr=False)
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: bool | str | Callable[[ToolException], Any] | None = True
    args_schema: type[BaseModel]

    def _run(self, parcel_id: str, **others: Any) -> Answer:  # noqa: ANN401 - checked by the schema
        with _explained(self.name):
            return self._answer(self.args_schema(parcel_id=parcel_id, **others))

    @abstractmethod
    def _answer(self, arguments: Any) -> Answer:  # noqa: ANN401 - each tool has its own
        """Ask the searcher and word what it says."""


class FindSimilarParcels(ParcelTool):
    """``find_similar_parcels``: which parcels look like this one?"""

    name: str = _FIND_SIMILAR
    description: str = (
        "Find the agricultural parcels that look most like a given parcel in satellite images. "
        "Answers with ids, crops, similarity scores, observation dates and areas. What looks "
        f"alike need not be alike: {_GET_STATE} tells what was measured on a parcel."
    )
    args_schema: type[BaseModel] = SimilarArguments
    handle_validation_error: Callable[[Any], str] = Field(
        partial(explain_arguments, _FIND_SIMILAR, SimilarArguments), repr=False
    )

    def _answer(self, arguments: SimilarArguments) -> Answer:
        matches = self.searcher.similar_by_id(
            arguments.parcel_id,
            collection=arguments.collection,
            k=arguments.k,
            where=ParcelFilter(
                crops=tuple(arguments.crops or ()),
                bbox=None if arguments.bbox is None else Bbox.parse(arguments.bbox),
                interval=_interval(arguments.datetime),
            ),
        )
        return describe_matches(matches), matches.to_dict()


class GetParcelState(ParcelTool):
    """``get_parcel_state``: what state is this parcel in?"""

    name: str = _GET_STATE
    description: str = (
        "Tell what satellite images measured on one agricultural parcel, date by date: NDVI "
        "(green vegetation) and NDMI (its moisture), how much of the parcel was seen, and whether "
        "the observation is reliable."
    )
    args_schema: type[BaseModel] = StateArguments
    handle_validation_error: Callable[[Any], str] = Field(
        partial(explain_arguments, _GET_STATE, StateArguments), repr=False
    )

    def _answer(self, arguments: StateArguments) -> Answer:
        state = self.searcher.state(
            arguments.parcel_id,
            collection=arguments.collection,
            where=ParcelFilter(interval=_interval(arguments.datetime)),
        )
        return describe_state(state), state.to_dict()


def _interval(text: str | None) -> Interval | None:
    return None if text is None else Interval.parse(text)


# Errors --------------------------------------------------------------------------------------

_OPERATOR = "No other arguments help; say that the index needs its operator."
_NEXT_STEPS = {
    "ambiguous-parcel": "Call {tool} again with one of these as collection.",
    "collection-not-found": "Call {tool} again with one of these, or without collection.",
    "database-unreachable": "Call {tool} again in a minute; if that fails too, say so.",
    "parcel-not-embedded": f"Call {_GET_STATE} for it, or {{tool}} for another parcel.",
    "parcel-not-found": "Call {tool} again with one of them if it is meant, else ask for the id.",
    "state-not-found": "Call {tool} again without datetime to see which dates there are.",
}


@contextmanager
def _explained(tool: str) -> Iterator[None]:
    """Let nothing leave a tool but a ToolException that says what to do next."""
    try:
        yield
    except ParcelleError as error:
        raise _tool_exception(tool, error) from error
    except OperationalError as error:
        raise _tool_exception(tool, unreachable(error)) from error
    except Exception as error:
        _log.exception("%s failed", tool)
        raise ToolException(
            f"{tool} failed inside Parcelle ({type(error).__name__}). {_OPERATOR}"
        ) from error


def _tool_exception(tool: str, error: ParcelleError) -> ToolException:
    step = _NEXT_STEPS.get(error.kind)
    if step is None:
        correctable = isinstance(error, InvalidInputError)
        step = "Correct this and call {tool} again." if correctable else _OPERATOR
    return ToolException(f"{cleaned(error.message, _MAX_MESSAGE)} {step.format(tool=tool)}")


# Wording -------------------------------------------------------------------------------------


def describe_matches(matches: Matches) -> str:
    """Matches as a few lines for a language model; text from the index is quoted."""
    query = matches.query
    seen = f"as observed on {query['datetime'][:10]}" if query["datetime"] else "of unknown date"
    doubt = "" if query["reliable"] else " (observation not reliable)"
    asked = f"{quoted(query['id'])} of {quoted(query['collection'])}"
    space = matches.space
    return "\n".join(
        [
            f"Parcels most like {asked}, {seen}{doubt}{_filtered(query['filter'])}; score is "
            "cosine similarity, -1 to 1, higher is closer:",
            *(_match_line(match, query["collection"]) for match in matches.matches),
            f"Source: generation {matches.generation}, space {space['id']} ({space['encoder']}, "
            f"weights {space['weights']}).",
            *(f"Note: {note}" for note in matches.notes),
            _step_after(matches),
        ]
    )


def _filtered(conditions: dict[str, Any]) -> str:
    named = [
        f"{name} {', '.join(map(quoted, [value] if isinstance(value, str) else value))}"
        for name, value in conditions.items()
    ]
    return f", only {'; '.join(named)}" if named else ""


def _match_line(match: Match, usual_collection: str) -> str:
    place = "" if match.collection == usual_collection else f" of {quoted(match.collection)}"
    parts = [
        f"score {match.score:.3f}",
        _day("observed", match.acquired_at),
        _hectares(match.area_m2),
        *([] if match.reliable else ["observation not reliable"]),
    ]
    crop = _crop(match.crop_name, match.crop_code)
    return f"{match.rank}. {quoted(match.parcel_id)}{place}, {crop}: {', '.join(parts)}"


def _step_after(matches: Matches) -> str:
    if not matches.matches:
        return f"Next: call {_FIND_SIMILAR} again with a wider filter or none."
    return (
        f"Next: {_GET_STATE} with an id and its collection tells what was measured on that parcel."
    )


def describe_state(state: ParcelState) -> str:
    """A state as a few lines for a language model, latest observation first."""
    latest_first = _latest_first(state.observations)
    shown = latest_first[:SHOWN_OBSERVATIONS]
    return "\n".join(
        [
            f"Parcel {quoted(state.parcel_id)} of {quoted(state.collection)}: "
            f"{_crop(state.crop_name, state.crop_code)}, {_hectares(state.area_m2)}. "
            f"Observations: {len(latest_first)}, latest first. NDVI (green vegetation) and NDMI "
            "(its moisture) are medians over the valid pixels, -1 to 1, unitless:",
            *map(_observation_line, shown),
            *_not_shown(latest_first[SHOWN_OBSERVATIONS:]),
            f"Next: {_FIND_SIMILAR} with this id and collection finds parcels to compare it with.",
        ]
    )


def _latest_first(observations: Iterable[ObservedState]) -> list[ObservedState]:
    """Those without a time come last."""
    dated = [seen for seen in observations if seen.acquired_at is not None]
    undated = [seen for seen in observations if seen.acquired_at is None]
    return [*reversed(dated), *undated]


def _observation_line(seen: ObservedState) -> str:
    indices = [
        f"{name} {seen.indices[name]['median']:.2f}"
        if name in seen.indices
        else f"{name} not measured"
        for name in _SHOWN_INDICES
    ]
    day = "unknown date" if seen.acquired_at is None else f"{seen.acquired_at:%Y-%m-%d}"
    trust = "reliable" if seen.reliable else "not reliable"
    return f"{day}: {', '.join(indices)}, {100 * seen.valid_fraction:.0f} % valid, {trust}"


def _not_shown(rest: Sequence[ObservedState]) -> list[str]:
    if not rest:
        return []
    last = rest[0].acquired_at
    how = f"; ask with datetime ../{last:%Y-%m-%d}" if last is not None else ""
    return [f"{len(rest)} more are not shown{how}."]


def _crop(name: str | None, code: str | None) -> str:
    declared = name or code
    return "crop unknown" if declared is None else f"crop {quoted(declared)}"


def _day(what: str, moment: datetime | None) -> str:
    return f"{what} on an unknown date" if moment is None else f"{what} {moment:%Y-%m-%d}"


def _hectares(area_m2: float | None) -> str:
    return "area unknown" if area_m2 is None else f"{area_m2 / 10_000:.2f} ha"
