"""What the tools take: typed, bounded, each argument described, nothing else accepted."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from retriever.cql2.expression import Expression
from retriever.queries import Bbox, Interval
from retriever.quoting import MAX_QUOTED, cleaned, quoted

DEFAULT_TOOL_K = 10

MAX_TOOL_K = 50

MAX_EXAMPLES = 10
"""Most parcels that a search may be given beside the first, on either side."""

MAX_ID = 300
MAX_COLLECTION = 100
"""Most characters of an id and of a collection's name."""

MAX_FILTER = 2000
"""Most characters of a filter."""

_SHOWN_PROBLEMS = 5

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
ParcelId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_ID,
        description="Id of a stored parcel, spelled as in earlier answers, for example demo-012.",
    ),
]
CollectionName = Annotated[
    str | None,
    Field(
        max_length=MAX_COLLECTION,
        description="Collection that the parcel is in; needed only if several hold its id.",
    ),
]
Crops = Annotated[
    list[Id] | None,
    Field(
        max_length=20,
        description="Only parcels of these crops: up to 20 crop names or codes, as in earlier "
        "answers, upper or lower case.",
    ),
]
BboxText = Annotated[
    str | None,
    Field(
        max_length=200,
        description="Only parcels that touch this rectangle: west,south,east,north in degrees, "
        "for example 2.3,48.8,2.5,48.9.",
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
FilterText = Annotated[
    str | None,
    Field(
        max_length=MAX_FILTER,
        description="Only what fits an expression in CQL2 text, for example: NDVI > 0.6 AND "
        "metrics:area > 20000 AND crop:name LIKE '%wheat%'. It may name id, crop:code, crop:name, "
        "metrics:area (m2), datetime, reliable, valid_fraction, spectral indices (medians), "
        "cluster (the name that an expert gave to a group of look-alikes), cluster:number and "
        "attributes.",
    ),
]
Detail = Annotated[
    Literal["concise", "detailed"],
    Field(description="concise is enough for most answers; detailed tells all that was measured."),
]
Cursor = Annotated[
    str | None,
    Field(
        max_length=100,
        description="Where an earlier answer with the same arguments ended; it says which.",
    ),
]


class ToolArguments(BaseModel):
    """Arguments of a tool; no others are taken."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*")
    @classmethod
    def _without_null_characters(cls, value: object) -> object:
        if _holds_null(value):
            # PostgreSQL refuses them, and nothing stored can match them.
            raise PydanticCustomError("null_character", "Null characters are not allowed")
        return value


def _holds_null(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_null, [*value, *value.values()]))
    if isinstance(value, list):
        return any(map(_holds_null, value))
    return isinstance(value, str) and "\0" in value


def bbox_of(text: str | None) -> Bbox | None:
    """The rectangle that was written."""
    return None if text is None else Bbox.parse(text)


def interval_of(text: str | None) -> Interval | None:
    """The interval that was written."""
    return None if text is None else Interval.parse(text)


def expression_of(text: str | None) -> Expression | None:
    """The expression that was written."""
    return None if text is None else Expression.parse(text)


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
