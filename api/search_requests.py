"""What ``POST /search`` is sent: JSON, or a form with an image."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from api.errors import RequestError
from api.parameters import ExplainField, RecallField, Text
from indexer.errors import InvalidInputError
from indexer.vector_index.effort import DEFAULT_RECALL
from retriever.queries import DEFAULT_K, MAX_K

JSON: Final = "application/json"
MULTIPART: Final = "multipart/form-data"

MAX_EXAMPLES: Final = 100
"""Most parcels that a search may be given on either side."""

_MAX_NUMBERS: Final = 4096
_MAX_FIELD_BYTES: Final = 1 << 20
_WITHOUT_IMAGE: Final = ("positive", "negative", "vector", "space")

Examples = Annotated[list[Text], Field(max_length=MAX_EXAMPLES)]


class SearchRequest(BaseModel):
    """What matches should be like, and which may be returned."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    positive: Examples = Field(
        default=[],
        description="Ids of parcels that matches should be like; the latest reliable observation "
        "of each counts.",
        examples=[["demo-012", "demo-036"]],
    )
    negative: Examples = Field(
        default=[],
        description="Ids of parcels that matches should not be like.",
        examples=[["demo-072"]],
    )
    vector: list[float] | None = Field(
        default=None,
        max_length=_MAX_NUMBERS,
        description="A vector of the embedding space, of any length but zero, instead of examples.",
        examples=[None],
    )
    space: Text | None = Field(
        default=None,
        description="Id of the embedding space that the vector is from, to be held against the "
        "index's.",
        examples=[None],
    )
    collection: Text | None = Field(
        default=None,
        description="Collection of the examples, needed where ids repeat; whose embedding space "
        "is asked, where there are several.",
        examples=["demo"],
    )
    collections: list[Text] = Field(
        default=[],
        max_length=100,
        description="Collections that matches may come from; without any, all of the space.",
        examples=[["demo"]],
    )
    # Its reader says where in it a character stands that may not.
    filter: str | dict[str, Any] | None = Field(
        default=None,
        description="Only matches that fit: CQL2 as text, or as JSON.",
        examples=["\"crop:name\" = 'winter wheat' AND NDVI > 0.6"],
    )
    filter_lang: Text | None = Field(
        default=None,
        alias="filter-lang",
        description="`cql2-text` or `cql2-json`; without it, the form tells.",
        examples=["cql2-text"],
    )
    bbox: Annotated[list[float], Field(min_length=4, max_length=6)] | Text | None = Field(
        default=None,
        description="Only parcels that touch it: west, south, east, north in degrees.",
        examples=[[2.0, 49.2, 2.1, 49.3]],
    )
    datetime: Text | None = Field(
        default=None,
        description="Only observations acquired then: a date, a time, or an interval.",
        examples=["2023-04-01/2023-06-30"],
    )
    k: int = Field(
        default=DEFAULT_K,
        description="Matches wanted.",
        examples=[5],
        # The searcher checks it, so that every door refuses it in the same words.
        json_schema_extra={"minimum": 1, "maximum": MAX_K},
    )
    observations: bool = Field(
        default=False,
        description="Return every observation that matches, not each parcel's best one.",
        examples=[False],
    )
    recall: RecallField = DEFAULT_RECALL
    explain: ExplainField = False


@dataclass(frozen=True)
class SentImage:
    """An image that asks, as it was sent."""

    content: bytes
    name: str
    bands: str | None
    baseline: str | None


async def read_search(request: Request) -> tuple[SearchRequest, SentImage | None]:
    """The search that a request's body describes, and the image that asks, if one does.

    Raises:
        RequestError: If the body is of another type, or no JSON, or no form.
        RequestValidationError: If a member is unknown or has a wrong value.
        InvalidInputError: If a form holds no image.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == JSON:
        return _validated(_json(await request.body())), None
    if media_type == MULTIPART:
        form = request.form(max_files=1, max_fields=200, max_part_size=_MAX_FIELD_BYTES)
        try:
            async with form as fields:
                return await _from_form(fields)
        except HTTPException as error:
            # The parser's, of which the status says no more than that.
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                kind="invalid-request",
                detail=f"The form cannot be read: {error.detail.rstrip('.')}.",
            ) from None
    raise RequestError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        kind="unsupported-media-type",
        detail=f"Content-Type is {media_type[:60] or 'missing'}; send {JSON}, or {MULTIPART} with "
        "an image.",
    )


def body_description() -> dict[str, Any]:
    """What OpenAPI says about the body."""
    return {
        "required": True,
        "content": {
            JSON: {"schema": SearchRequest.model_json_schema()},
            MULTIPART: {"schema": _form_schema()},
        },
    }


def _form_schema() -> dict[str, Any]:
    schema = SearchRequest.model_json_schema()
    shared = {
        name: field for name, field in schema["properties"].items() if name not in _WITHOUT_IMAGE
    }
    own = {
        "image": {
            "type": "string",
            "format": "binary",
            "description": "A GeoTIFF of Sentinel-2, at most 1024 px a side.",
        },
        "bands": {
            "type": "string",
            "description": "Band of each layer, where the file does not say.",
            "examples": ["l2a"],
        },
        "baseline": {
            "type": "string",
            "description": "Processing baseline, where the file does not say.",
            "examples": ["05.09"],
        },
    }
    return {**schema, "required": ["image"], "properties": {**own, **shared}}


def _json(body: bytes) -> object:
    try:
        found: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            HTTPStatus.BAD_REQUEST,
            kind="invalid-request",
            detail=f"The body is no JSON: {error.msg}, line {error.lineno} column {error.colno}.",
        ) from None
    return found


def _validated(given: object) -> SearchRequest:
    try:
        return SearchRequest.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise RequestValidationError(
            [{**one, "loc": ("body", *one["loc"])} for one in found]
        ) from None


async def _from_form(form: FormData) -> tuple[SearchRequest, SentImage]:
    image = form.get("image")
    if not isinstance(image, UploadFile):
        raise InvalidInputError(
            "The form has no file named image; send a GeoTIFF under that name.",
            kind="invalid-examples",
        )
    own = {"image", "bands", "baseline"}
    if misplaced := sorted(set(form) & set(_WITHOUT_IMAGE)):
        raise InvalidInputError(
            f"{', '.join(misplaced)} cannot go with an image; send JSON instead.",
            kind="invalid-examples",
        )
    asked = _validated({name: _field(form, name) for name in set(form) - own})
    bands, baseline = (_text(form, name) for name in ("bands", "baseline"))
    return asked, SentImage(await image.read(), image.filename or "", bands, baseline)


def _field(form: FormData, name: str) -> object:
    """A field's text, or texts; a rectangle may be one or four."""
    texts = form.getlist(name)
    return texts if name == "collections" or len(texts) > 1 else texts[0]


def _text(form: FormData, name: str) -> str | None:
    found = form.get(name)
    return found if isinstance(found, str) else None
